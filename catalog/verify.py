"""`catalog verify`: read files back and compare them with what was recorded when they were written.

What was looked at longest ago comes first, so that a time budget gets round to everything. Damage is stored,
quarantines the pair, and is never repaired in silence: a file that is whole again comes back by another look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, RowMapping, case, func, select

from catalog.database import Database
from catalog.errors import DamagedDataError, SessionFolderError, SessionNotFoundError
from catalog.journal import read_journal
from catalog.observations import Observation, record_observations
from catalog.session_folder import ALIGNMENT_FILE, PAIRS_FILE
from catalog.stored_files import AssetState, FolderRoot, content_sha256, look_at
from catalog.tables import Asset, Session, table_of

FILES_AT_ONCE = 200
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


class Verifier:
    """Looks at the files of a catalog.

    Args:
        database: An open catalog.
        data: The data folder, to which places of sessions are relative.
        session: Look at this session only; None for all.
    """

    def __init__(self, database: Database, data: Path, *, session: str | None = None) -> None:
        self._database = database
        self._data = data
        self._session = session

    def run(self, *, budget_s: float | None, advance: Advance) -> VerifyReport:
        """Compare files with their recorded hashes until all are done or the time is up."""
        started = time.monotonic()
        self._database.require_whole()
        waiting = self._by_age()
        checked = nbytes = recovered = 0
        findings: list[Finding] = []
        while checked < len(waiting) and (budget_s is None or time.monotonic() - started < budget_s):
            batch = waiting[checked : checked + FILES_AT_ONCE]
            seen = list(self._look(batch, None if budget_s is None else started + budget_s, advance))
            with self._database.write() as connection:
                record_observations(connection, seen)
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

    def _look(self, batch: Sequence[int], deadline: float | None, advance: Advance) -> Iterator[Observation]:
        columns = select(assets, sessions.c.name.label("session"), sessions.c.location)
        query = columns.join_from(assets, sessions).where(assets.c.id.in_(batch))
        with self._database.read() as connection:
            rows = {row["id"]: row for row in connection.execute(query).mappings()}
            for key in batch:
                if deadline is not None and time.monotonic() > deadline:
                    return
                yield self._look_at(connection, rows[key])
                advance(1)

    def _look_at(self, connection: Connection, row: RowMapping) -> Observation:
        state, problem = self._compare(connection, row)
        return Observation(
            asset_id=row["id"],
            session=row["session"],
            relpath=row["relpath"],
            pair_id=row["pair_id"],
            sha256=row["sha256"],
            before=row["state"],
            state=state,
            nbytes=row["nbytes"],
            problem=problem,
            verified_at_us=time.time_ns() // 1000,
        )

    def _compare(self, connection: Connection, row: RowMapping) -> tuple[AssetState, str]:
        try:
            path = FolderRoot(self._data / row["location"]).path(row["relpath"])
            if row["kind"] == "journal":
                return _compare_journal(path, row)
            sighting = look_at(path, expected_nbytes=row["nbytes"])
            if sighting.state != "present":
                return sighting.state, sighting.problem
            found = content_sha256(path)
        except OSError as error:
            return "quarantined", f"cannot be read: {error.strerror}"
        except (DamagedDataError, SessionFolderError) as error:
            return "quarantined", error.message
        if found == row["sha256"]:
            return "present", ""
        return "quarantined", self._explain(connection, row, found)

    def _explain(self, connection: Connection, row: RowMapping, found: str) -> str:
        if row["kind"] == "record" and row["relpath"] in {PAIRS_FILE, ALIGNMENT_FILE}:
            return f"not what was added; after another alignment: catalog add {row['session']}"
        of_whom = select(sessions.c.name, assets.c.relpath).join_from(assets, sessions)
        other = connection.execute(of_whom.where(assets.c.sha256 == found).limit(1)).one_or_none()
        return "its content changed" if other is None else f"holds the content of {other[0]}:{other[1]}"


def _compare_journal(path: Path, row: RowMapping) -> tuple[AssetState, str]:
    """Compare the rows that were read; more may have been appended since, each chained to the last."""
    sighting = look_at(path, expected_nbytes=None)
    if sighting.state != "present":
        return sighting.state, sighting.problem
    read_journal(path)
    if content_sha256(path, first_nbytes=row["nbytes"]) != row["sha256"]:
        return "quarantined", "rows that were read before are changed or gone"
    return "present", ""
