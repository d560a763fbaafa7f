"""`catalog verify`: read files back and compare them with what was recorded when they were written.

What was looked at longest ago comes first, so that a time budget gets round to everything. Damage is stored,
quarantines the pair, and is never repaired in silence: a file that is whole again comes back by another look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, RowMapping, case, func, select

from catalog.database import Database
from catalog.errors import DamagedDataError, SessionFolderError, SessionNotFoundError
from catalog.executors import InlineExecutor, ordered
from catalog.journal import read_journal
from catalog.observations import Observation, record_observations
from catalog.session_folder import ALIGNMENT_FILE, PAIRS_FILE
from catalog.stored_files import AssetState, FolderRoot, content_sha256, look_at
from catalog.tables import Asset, Session, table_of

FILES_AT_ONCE = 200
"""Whose states are stored by one transaction."""
_FILES_PER_JOB = 64
_BYTES_PER_JOB = 64 << 20
"""A job is worth handing to another machine, and a budget is overrun by some jobs at most."""
_JOBS_AHEAD = 16
Advance = Callable[[float], None]
assets, sessions = table_of(Asset), table_of(Session)


@dataclass(frozen=True)
class Finding:
    """One damaged, missing or swapped file."""

    session: str
    path: str
    problem: str
    state: AssetState


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found."""

    checked: int
    remaining: int
    """Files that the budget did not reach."""
    nbytes: int
    seconds: float
    recovered: int
    """Files that were damaged or missing before and are whole again."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class FileCheck:
    """A recorded file that is to be looked at, by whoever sees the data folder."""

    asset_id: int
    session: str
    root: Path
    """The session's folder."""
    relpath: str
    kind: str
    pair_id: int | None
    sha256: str
    nbytes: int | None
    before: AssetState


@dataclass(frozen=True)
class Look:
    """What a file was found to be."""

    check: FileCheck
    state: AssetState
    problem: str = ""
    other_sha256: str | None = None
    """What its content is instead, where it has another."""


class Verifier:
    """Looks at the files of a catalog.

    Args:
        database: An open catalog.
        data: The data folder, to which places of sessions are relative.
        session: Look at this session only; None for all.
        executor: Where files are read.
    """

    def __init__(
        self,
        database: Database,
        data: Path,
        *,
        session: str | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._database = database
        self._data = data
        self._session = session
        self._executor = executor or InlineExecutor()

    def run(self, *, budget_s: float | None, advance: Advance) -> VerifyReport:
        """Compare files with their recorded hashes until all are done or the time is up."""
        started = time.monotonic()
        self._database.require_whole()
        waiting = self._by_age()
        jobs = self._jobs(waiting, None if budget_s is None else started + budget_s)
        looks = self._looks(jobs, advance)
        checked = nbytes = recovered = 0
        findings: list[Finding] = []
        while some := list(islice(looks, FILES_AT_ONCE)):
            seen = self._stored(some)
            checked += len(seen)
            nbytes += sum(o.nbytes or 0 for o in seen)
            recovered += sum(o.before != "present" and o.state == "present" for o in seen)
            findings += [Finding(o.session, o.relpath, o.problem, o.state) for o in seen if o.problem]
        return VerifyReport(
            checked=checked,
            remaining=len(waiting) - checked,
            nbytes=nbytes,
            seconds=round(time.monotonic() - started, 3),
            recovered=recovered,
            findings=tuple(findings),
        )

    def _by_age(self) -> list[int]:
        """List files by key: known damage first, then what was never looked at, then the oldest look."""
        known_damage = case((assets.c.state == "present", 1), else_=0)
        age = func.coalesce(assets.c.verified_at_us, 0)
        query = select(assets.c.id).join_from(assets, sessions).order_by(known_damage, age, assets.c.id)
        with self._database.read() as connection:
            if self._session is not None:
                query = query.where(sessions.c.name == self._known_session(connection))
            return list(connection.execute(query).scalars())

    def _known_session(self, connection: Connection) -> str:
        named = select(sessions.c.name).where(sessions.c.name == self._session)
        name = connection.execute(named).scalar()
        if name is None:
            raise SessionNotFoundError(
                f"no session {self._session!r} in the catalog", next_step=f"catalog add {self._session}"
            )
        return str(name)

    def _jobs(self, waiting: Sequence[int], deadline_s: float | None) -> Iterator[tuple[FileCheck, ...]]:
        """Divide files into jobs until the time is up."""
        job: list[FileCheck] = []
        nbytes = 0
        for check in self._checks(waiting):
            if job and (len(job) == _FILES_PER_JOB or nbytes + (check.nbytes or 0) > _BYTES_PER_JOB):
                yield tuple(job)
                job, nbytes = [], 0
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return
            job.append(check)
            nbytes += check.nbytes or 0
        if job:
            yield tuple(job)

    def _looks(self, jobs: Iterable[tuple[FileCheck, ...]], advance: Advance) -> Iterator[Look]:
        for looks in ordered(self._executor, look_at_files, jobs, ahead=_JOBS_AHEAD):
            for look in looks:
                advance(1)
                yield look

    def _checks(self, waiting: Sequence[int]) -> Iterator[FileCheck]:
        columns = select(assets, sessions.c.name.label("session"), sessions.c.location)
        for i in range(0, len(waiting), FILES_AT_ONCE):
            batch = waiting[i : i + FILES_AT_ONCE]
            query = columns.join_from(assets, sessions).where(assets.c.id.in_(batch))
            with self._database.read() as connection:
                rows = {row["id"]: row for row in connection.execute(query).mappings()}
            yield from (self._check(rows[key]) for key in batch if key in rows)

    def _check(self, row: RowMapping) -> FileCheck:
        same = ("session", "relpath", "kind", "pair_id", "sha256", "nbytes")
        return FileCheck(
            asset_id=row["id"],
            root=self._data / row["location"],
            before=row["state"],
            **{name: row[name] for name in same},
        )

    def _stored(self, looks: Sequence[Look]) -> list[Observation]:
        """Store what was seen; damage quarantines its pair."""
        with self._database.write() as connection:
            seen = [self._observation(connection, look) for look in looks]
            record_observations(connection, seen)
        return seen

    def _observation(self, connection: Connection, look: Look) -> Observation:
        check, problem = look.check, look.problem
        if look.other_sha256 is not None:
            problem = _explain(connection, check, look.other_sha256)
        return Observation(
            asset_id=check.asset_id,
            session=check.session,
            relpath=check.relpath,
            pair_id=check.pair_id,
            sha256=check.sha256,
            before=check.before,
            state=look.state,
            nbytes=check.nbytes,
            problem=problem,
            verified_at_us=time.time_ns() // 1000,
        )


def look_at_files(checks: Iterable[FileCheck]) -> list[Look]:
    """Read files and compare them with what was recorded; needs no catalog."""
    root_of = cache(FolderRoot)
    return [_look_at(check, root_of(check.root)) for check in checks]


def _look_at(check: FileCheck, root: FolderRoot) -> Look:
    try:
        path = root.path(check.relpath)
        if check.kind == "journal":
            return Look(check, *_compare_journal(path, check))
        sighting = look_at(path, expected_nbytes=check.nbytes)
        if sighting.state != "present":
            return Look(check, sighting.state, sighting.problem)
        found = content_sha256(path)
    except OSError as error:
        return Look(check, "quarantined", f"cannot be read: {error.strerror}")
    except (DamagedDataError, SessionFolderError) as error:
        return Look(check, "quarantined", error.message)
    if found == check.sha256:
        return Look(check, "present")
    return Look(check, "quarantined", other_sha256=found)


def _explain(connection: Connection, check: FileCheck, found: str) -> str:
    if check.kind == "record" and check.relpath in {PAIRS_FILE, ALIGNMENT_FILE}:
        return f"not what was added; after another alignment: catalog add {check.session}"
    of_whom = select(sessions.c.name, assets.c.relpath).join_from(assets, sessions)
    other = connection.execute(of_whom.where(assets.c.sha256 == found).limit(1)).one_or_none()
    return "its content changed" if other is None else f"holds the content of {other[0]}:{other[1]}"


def _compare_journal(path: Path, check: FileCheck) -> tuple[AssetState, str]:
    """Compare the rows that were read; more may have been appended since, each chained to the last."""
    sighting = look_at(path, expected_nbytes=None)
    if sighting.state != "present":
        return sighting.state, sighting.problem
    read_journal(path)
    if content_sha256(path, first_nbytes=check.nbytes) != check.sha256:
        return "quarantined", "rows that were read before are changed or gone"
    return "present", ""
