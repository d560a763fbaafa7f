"""`catalog import-pairs`: existing paired datasets enter as session folders, one for each of their classes.

From there on an imported pair is a pair as any other: it is verified, judged, split and exported in the same way, and
a rebuilt catalog has it too. Where each picture came from stands in `imported.jsonl`.

An import that is not finished has a hidden folder, in which its next session grows and what became of every pair is
noted. The same request goes on with it; as long as it is there, sessions of its names are its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from catalog.audit import AuditPair, AuditRecord
from catalog.errors import CatalogError, ExitCode
from catalog.executors import ordered
from catalog.export_files import clear_folder, private_folder
from catalog.journal import seal_journal_row
from catalog.pair_folders import PairFiles, PairListing
from catalog.records import Degradation, degradations_in
from catalog.session_folder import (
    JOURNAL_FILE,
    PAIRS_FOLDER,
    ROUND_FILE,
    SESSION_FILE,
    SESSIONS_FOLDER,
    RoundRecord,
    SessionRecord,
    TakeRecord,
    file_sha256,
    make_folder,
    replace_file,
    sync_folder,
    take_folder_name,
    write_pairs,
)
from catalog.taken_pairs import LeftOut, PairJob, Taken, below, take_over
from catalog.yaml_document import Document

ORIGINS_FILE = "imported.jsonl"
"""In the session folder: where each picture came from."""
_REQUEST_FILE = "request.json"
"""In the hidden folder: which request it belongs to."""

Advance = Callable[[float], object]


class ImportedPairsExistError(CatalogError, FileExistsError):
    """A session of that name is there already."""

    code = "CAT-IMP-001"
    exit_code = ExitCode.INVALID_INPUT


class NothingToImportError(CatalogError, ValueError):
    """No pair of the folder could be taken over."""

    code = "CAT-IMP-002"
    exit_code = ExitCode.INVALID_INPUT


class ImportInterruptedError(CatalogError, FileExistsError):
    """An interrupted import of that name is there, and it was asked for something else."""

    code = "CAT-IMP-003"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class ImportReport:
    """What an import made."""

    sessions: tuple[str, ...]
    pairs: int
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class ImportOptions:
    """How a dataset enters.

    Args:
        name: Begins the names of its sessions, and is its scene: all its pairs share a split.
        degradations: What was made worse in all its pairs; None reads the folders' names.
        audit: What `alignment audit` found in the same folder.
    """

    name: str
    degradations: tuple[Degradation, ...] | None = None
    audit: AuditRecord | None = None

    @cached_property
    def audited(self) -> Mapping[str, AuditPair]:
        """What was found of each pair, by class and name."""
        return {} if self.audit is None else {pair.pair: pair for pair in self.audit.pairs}


class _Request(Document):
    """What the hidden folder of an import belongs to."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    sha256: str
    """Of the pairs' names and the options."""

    @classmethod
    def of(cls, listing: PairListing, options: ImportOptions) -> _Request:
        digest = hashlib.sha256(json.dumps([options.name, options.degradations]).encode())
        digest.update(b"" if options.audit is None else options.audit.model_dump_json().encode())
        for pair in sorted(listing.pairs):
            places = (below(listing.root, pair.gt), below(listing.root, pair.lq))
            digest.update(json.dumps([pair.group, pair.name, *places]).encode())
        return cls(sha256=digest.hexdigest())

    @classmethod
    def read(cls, folder: Path) -> _Request | None:
        """Read the request of an interrupted import; None where none is noted."""
        try:
            return cls.model_validate_json((folder / _REQUEST_FILE).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None


@dataclass(frozen=True)
class _Noted:
    """One line of an import's notes."""

    number: int
    outcome: Taken | LeftOut


_NOTE = TypeAdapter(_Noted)


def import_pairs(
    listing: PairListing,
    data: Path,
    options: ImportOptions,
    *,
    executor: Executor,
    restart: bool = False,
    add: Callable[[str], object] = lambda _: None,
    progress: Advance = lambda _: None,
) -> ImportReport:
    """Make one session folder per class of a dataset, or finish an interrupted import of the same request.

    A class that is there already is refused before anything is done.

    Args:
        listing: The dataset's pairs.
        data: The data folder.
        options: Name, degradations, audit.
        executor: Where pictures are read and written.
        restart: Throw away what an interrupted import of that name left; sessions that it finished stay.
        add: Called with the name of each session when it is whole, and again when an import is resumed.
        progress: Told the number of pairs done since the last call.

    Raises:
        ImportedPairsExistError: A session of one of the names is there.
        ImportInterruptedError: An interrupted import of another request has that name.
        ExportBusyError: Another process imports under that name.
        NothingToImportError: No pair could be read.
        OSError: The disk did not take it; the same request goes on.
    """
    groups = {g: list(files) for g, files in groupby(sorted(listing.pairs), key=lambda pair: pair.group)}
    names = _session_names(options.name, list(groups))
    made: dict[str, _Made] = {}
    part = data / SESSIONS_FOLDER / f".{options.name}.importing"
    if not part.exists():  # a refusal leaves no trace
        _require_new(part, names.values())
    with private_folder(part, writes="import"):
        _claim(part, names.values(), _Request.of(listing, options), restart=restart)
        for group, files in groups.items():
            session = _Import(listing.root, group, names[group], part, options)
            made[session.name] = session.run(files, executor, progress)
            if made[session.name].pairs:
                add(session.name)
        (part / _REQUEST_FILE).unlink()  # before the notes, which tell what its sessions hold
        clear_folder(part)
    return _report(listing, made)


def _report(listing: PairListing, made: Mapping[str, _Made]) -> ImportReport:
    left_out = [LeftOut(f"{odd.group}/{odd.name}".strip("/"), odd.why) for odd in listing.odd]
    left_out += [pair for session in made.values() for pair in session.left_out]
    sessions = tuple(name for name, session in made.items() if session.pairs)
    if not sessions:
        raise NothingToImportError(
            f"{listing.root}: none of {len(listing.pairs)} pairs could be taken over, the first because "
            f"{left_out[0].why if left_out else 'there are none'}",
            kept="everything as it was",
        )
    return ImportReport(sessions, sum(session.pairs for session in made.values()), tuple(left_out))


def _claim(part: Path, names: Iterable[str], request: _Request, *, restart: bool) -> None:
    """Let the hidden folder be this request's: go on with it, or begin."""
    interrupted = None if restart else _Request.read(part)
    if interrupted == request:
        return
    if interrupted is not None:
        raise ImportInterruptedError(
            f"{part}: an interrupted import of another request has that name",
            kept="it, untouched",
            next_step="repeat its own command to finish it, add --restart to throw it away, or give another --name",
        )
    _require_new(part, names)
    clear_folder(part)
    replace_file(part / _REQUEST_FILE, request.model_dump_json(by_alias=True).encode())


@dataclass(frozen=True)
class _Made:
    """What became of the pairs of one session."""

    pairs: int
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(cls, outcomes: Collection[Taken | LeftOut]) -> _Made:
        left_out = tuple(outcome for outcome in outcomes if isinstance(outcome, LeftOut))
        return cls(len(outcomes) - len(left_out), left_out)


class _Import:
    """Makes one session folder, in the import's hidden one until it is whole."""

    def __init__(self, root: Path, group: str, name: str, part: Path, options: ImportOptions) -> None:
        self.name, self._root, self._group, self._options = name, root, group, options
        self._final, self._part = part.with_name(name), part / name
        self._notes = part / f"{name}.jsonl"
        worse = degradations_in(group or root.name) if options.degradations is None else options.degradations
        self._rounds = (
            RoundRecord(number=1, name="gt", role="gt"),
            RoundRecord(number=2, name="lq", role="external", degradations=worse),
        )

    def run(self, files: Sequence[PairFiles], executor: Executor, progress: Advance) -> _Made:
        """Take over the pairs that are not yet; returns what became of all of them."""
        if self._final.exists():  # by the run that was interrupted
            progress(len(files))
            return _Made.of(self._noted().values())
        outcomes = list(self._outcomes(files, executor, progress))
        if taken := [outcome for outcome in outcomes if isinstance(outcome, Taken)]:
            self._describe(taken)
            self._publish()
        return _Made.of(outcomes)

    def _outcomes(
        self, files: Iterable[PairFiles], executor: Executor, progress: Advance
    ) -> Iterator[Taken | LeftOut]:
        """Take over the pairs; what became of each is noted before the next session begins."""
        for side in ("gt", "lq"):
            make_folder(self._part / PAIRS_FOLDER / side)
        noted = self._noted()
        with self._notes.open("ab") as notes:
            notes.write(b"\n")  # ends a line that was cut short
            for number, outcome in enumerate(ordered(executor, take_over, self._jobs(files, noted))):
                if outcome != noted.get(number):
                    notes.write(_NOTE.dump_json(_Noted(number, outcome), by_alias=True) + b"\n")
                    notes.flush()
                yield outcome
                progress(1)
            os.fsync(notes.fileno())

    def _noted(self) -> dict[int, Taken | LeftOut]:
        """Read what became of pairs, by their number; lines that a crash cut short or lost are passed over."""
        found = {}
        for line in self._notes.read_bytes().splitlines() if self._notes.exists() else ():
            with suppress(ValidationError):
                note = _NOTE.validate_json(line)
                found[note.number] = note.outcome
        return found

    def _jobs(self, files: Iterable[PairFiles], noted: Mapping[int, Taken | LeftOut]) -> Iterator[PairJob]:
        for number, pair in enumerate(files):
            before = noted.get(number)
            yield PairJob(
                number=number,
                files=pair,
                name=f"lq-{number:06d}",
                target=self._part,
                audited=self._options.audited.get(pair.pair),
                root=self._root,
                noted=before if isinstance(before, Taken) else None,
            )

    def _describe(self, taken: Sequence[Taken]) -> None:
        write_pairs(self._part, [t.record for t in taken])
        lines = "".join(t.origin.model_dump_json() + "\n" for t in taken)
        replace_file(self._part / ORIGINS_FILE, lines.encode())
        record = SessionRecord(
            session=self.name,
            scene=self._options.name,
            created_utc_us=time.time_ns() // 1000,
            source="imported",
            rig="imported",
            simulated=False,
            cameras=(),
            boards=(),
            rounds=self._rounds,
            plan={"imported_from": self._root.name, "group": self._group},
        )
        replace_file(self._part / SESSION_FILE, record.model_dump_json(by_alias=True, indent=1).encode())
        self._write_journal()

    def _write_journal(self) -> None:
        lines: list[bytes] = []

        def note(kind: str, **members: Any) -> None:
            row = {"seq": len(lines) + 1, "t_utc_us": 0, "t_host_s": 0.0, "kind": kind, **members}
            lines.append(seal_journal_row(row, previous_line=lines[-1] if lines else None))

        def saved(path: Path) -> None:
            relative = path.relative_to(self._part).as_posix()
            note("saved", path=relative, size_bytes=path.stat().st_size, sha256=file_sha256(path))

        saved(self._part / ORIGINS_FILE)
        for round_ in self._rounds:
            folder = self._part / "rounds" / take_folder_name(round_.number, round_.name, 1)
            make_folder(folder)
            note("take_intent", round=round_.name, take=1)
            record = TakeRecord(round=round_, take=1, cameras={}, files=())
            replace_file(folder / ROUND_FILE, record.model_dump_json(by_alias=True, indent=1).encode())
            saved(folder / ROUND_FILE)
            note("take_outcome", round=round_.name, take=1, state="valid", reason="")
        replace_file(self._part / JOURNAL_FILE, b"".join(lines))

    def _publish(self) -> None:
        for folder, _, _ in os.walk(self._part):
            sync_folder(Path(folder))
        self._part.rename(self._final)
        sync_folder(self._final.parent)


def plain_name(text: str) -> str:
    """Make a name of any text that is a safe folder name, too."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:60] or "pairs"


def _session_names(name: str, groups: Sequence[str]) -> dict[str, str]:
    """Name a session for every class; equal names after simplification are numbered."""
    names: dict[str, str] = {}
    for group in groups:
        plain = plain_name(f"{name}-{group}")
        unique, number = plain, 2
        while unique in names.values():
            unique, number = f"{plain}-{number}", number + 1
        names[group] = unique
    return names


def _require_new(part: Path, names: Iterable[str]) -> None:
    there = next((name for name in names if part.with_name(name).exists()), None)
    if there is not None:
        raise ImportedPairsExistError(
            f"{part.with_name(there)}: a session of that name is there already",
            kept="it, untouched; nothing was imported",
            next_step=f"catalog add {there} if it was imported before, else give another --name",
        )
