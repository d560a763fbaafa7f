"""The report's lists of what was recorded: takes, events, checksums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignment.report_source import ReportSource, RoundSource, TakeSource
from alignment.report_words import NOTHING, counted, number, size, utc_time
from catalog.journal import JournalRow
from catalog.session_folder import (
    ALIGNMENT_FILE,
    JOURNAL_FILE,
    PAIRS_FILE,
    ROUND_FILE,
    ROUNDS_FOLDER,
    SESSION_FILE,
    file_sha256,
)


@dataclass(frozen=True)
class TakeLine:
    """A take in the list of takes."""

    round: str
    number: int
    state: str
    symbol: str
    reason: str
    frames: str
    files: str
    stamps: str


def take_lines(source: ReportSource) -> tuple[TakeLine, ...]:
    """List every take, void ones with their reason."""
    return tuple(_take_line(r, t) for r in source.rounds for t in r.takes)


def _take_line(round_: RoundSource, source: TakeSource) -> TakeLine:
    record, camera, stamps = source.record, source.camera, source.frames
    total = sum(f.size_bytes for f in record.files) if record else 0
    return TakeLine(
        round=round_.name,
        number=source.take.number,
        state=source.take.state,
        symbol={"valid": "●", "void": "■"}.get(source.take.state, "✕"),
        reason=source.take.reason,
        frames=str(camera.frame_count) if camera else NOTHING,
        files=f"{counted(len(record.files), 'file')}, {size(total)}" if record else NOTHING,
        stamps=f"{stamps.dropped} dropped, {stamps.duplicates} repeated" if stamps else NOTHING,
    )


@dataclass(frozen=True)
class EventLine:
    """A journal row in the list of events."""

    seq: int
    utc: str
    session_s: str
    kind: str
    text: str


_QUIET_KINDS = frozenset({"saved"})


def event_lines(source: ReportSource) -> tuple[EventLine, ...]:
    """List what the journal tells except the acknowledgements of files, which the checksums repeat."""
    return tuple(_event_line(row) for row in source.journal.rows if row.kind not in _QUIET_KINDS)


def _event_line(row: JournalRow) -> EventLine:
    members = (f"{name} {_flat(value)}" for name, value in (row.model_extra or {}).items())
    text = ", ".join(m for m in members if not m.endswith(" "))
    return EventLine(
        row.seq, utc_time(row.t_utc_us), number(row.t_host_s, 3), row.kind.replace("_", " "), text
    )


def _flat(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return "" if value is None else str(value)


def checksum_text(source: ReportSource) -> str:
    """List the sha256 of every file of the valid takes and of the session's own files, as sha256sum does."""
    takes = [t for r in source.rounds if (t := r.valid) is not None and t.record is not None]
    own = [SESSION_FILE, JOURNAL_FILE, PAIRS_FILE, ALIGNMENT_FILE]
    root = source.folder.path
    lines = [(file_sha256(root / name), name) for name in own if (root / name).is_file()]
    for take in takes:
        inside = f"{ROUNDS_FOLDER}/{take.take.folder.name}"
        lines += [(f.sha256, f"{inside}/{f.path}") for f in (take.record.files if take.record else ())]
        lines.append((file_sha256(take.take.folder / ROUND_FILE), f"{inside}/{ROUND_FILE}"))
    return "\n".join(f"{digest}  {_one_line(name)}" for digest, name in lines)


def _one_line(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n")
