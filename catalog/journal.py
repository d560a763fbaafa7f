"""The session journal: append-only lines with a CRC each, chained by hash. The truth while capturing."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from catalog.errors import DamagedDataError


class JournalRow(BaseModel):
    """One journal line; ``kind`` decides which further members it has."""

    model_config = ConfigDict(frozen=True, extra="allow")

    seq: int
    t_utc_us: int
    t_host_s: float
    kind: str
    prev: str
    crc32: str

    def get(self, member: str) -> Any:
        """Return a further member of the row, None where it has none of that name."""
        return (self.model_extra or {}).get(member)


_JOURNAL_START = "0" * 64


def seal_journal_row(fields: Mapping[str, Any], *, previous_line: bytes | None) -> bytes:
    """Turn a row into its line: hash of the line before, CRC-32 of the line without that member, newline."""
    prev = _JOURNAL_START if previous_line is None else hashlib.sha256(previous_line).hexdigest()
    body = {**fields, "prev": prev}
    crc = zlib.crc32(_canonical(body))
    return _canonical({**body, "crc32": f"{crc:08x}"}) + b"\n"


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Journal:
    """The rows of a journal and what its end looked like."""

    rows: tuple[JournalRow, ...]
    torn_bytes: int
    """Bytes of an unfinished last line, left by a crash; they were never acknowledged."""
    last_line: bytes | None
    """The last whole line with its newline; the next row is chained to it."""

    @property
    def last_seq(self) -> int:
        """Number of the last row, 0 where there is none."""
        return self.rows[-1].seq if self.rows else 0


def read_journal(path: Path) -> Journal:
    """Read a journal and check every line's CRC and the hash chain.

    A last line without a newline, or broken by the crash that ended the writer, is set aside as torn.

    Raises:
        DamagedDataError: A line before the last one is damaged.
    """
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    rows: list[JournalRow] = []
    previous: bytes | None = None
    for number, line in enumerate(lines, start=1):
        row = _open_journal_line(line, previous)
        if row is None and number == len(lines):
            return Journal(tuple(rows), len(line), previous)
        if row is None:
            raise DamagedDataError(
                f"{path}:{number}:1: journal line is damaged (CRC or hash chain)",
                kept="all files; the rows before this line are good",
                next_step="restore the journal from a copy",
            )
        rows.append(row)
        previous = line
    return Journal(tuple(rows), 0, previous)


def _open_journal_line(line: bytes, previous: bytes | None) -> JournalRow | None:
    try:
        fields = json.loads(line)
        expected = seal_journal_row(
            {k: v for k, v in fields.items() if k not in {"prev", "crc32"}}, previous_line=previous
        )
        return JournalRow.model_validate(fields) if expected == line else None
    except (ValueError, AttributeError, ValidationError):
        return None
