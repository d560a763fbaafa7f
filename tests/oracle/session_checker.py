"""An independent judge of session folders: shares no code with the product.

It compares every acknowledgement that recording processes printed with what lies on disk afterwards, and reads
journal and takes by the written contract alone. `violations` judges a folder as it is; a `Witness` looks at it
several times and also judges what became of it in between.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TakeKey = tuple[str, int]

ON_PURPOSE = ("superseded", "spoiled", "redo")
"""How the reason begins for which a valid take may be declared void."""
CLOCK_STARTS = ("torn_tail_dropped", "run_started")
"""Rows with which a new process, and so on a simulated rig a new clock, may begin."""
CLOCK_DIGITS_S = 2e-6
"""Two readings of one clock, each rounded to microseconds, may differ so much."""


def violations(session: Path, acknowledged: list[Row]) -> list[str]:
    """List every broken promise of a session folder; an empty list is a pass.

    Args:
        session: The folder, at rest.
        acknowledged: The ``saved`` events of every run so far, in the order in which they were printed.
    """
    if not (session / "journal.jsonl").is_file():
        return [f"{e['path']}: acknowledged, but there is no journal" for e in acknowledged]
    rows, found = read_rows(session)
    if any(not _is_row(r) for r in rows):
        return [*found, "journal: a row lacks seq, kind, t_host_s or prev"]
    found += _times(rows)
    found += _acknowledgements(acknowledged, rows)
    found += _saved_files(session, rows)
    found += _takes(session, rows)
    return found


def is_complete(session: Path) -> bool:
    """Tell whether every round of the session has a valid take."""
    rows, _ = read_rows(session)
    valid = {name for (name, _), state in _History(rows).states.items() if state == "valid"}
    return {r["name"] for r in _plan(session)} == valid


@dataclass
class Witness:
    """Looks at one session after each run; nothing that stood there once may change or go away."""

    session: Path
    _lines: list[bytes] = field(default_factory=list)
    _files: dict[str, str] = field(default_factory=dict)

    def look(self, acknowledged: list[Row]) -> list[str]:
        """Judge the folder as it is now and what became of it since the last look."""
        found = violations(self.session, acknowledged)
        journal = self.session / "journal.jsonl"
        lines = journal.read_bytes().split(b"\n")[:-1] if journal.is_file() else []
        if lines[: len(self._lines)] != self._lines:
            found.append("journal: rows seen earlier were changed or removed")
        self._lines = lines
        files = {f"{p.relative_to(self.session)}": _sha256(p) for p in _finished_files(self.session)}
        found += [
            f"{p}: changed or removed between runs" for p, h in self._files.items() if files.get(p) != h
        ]
        self._files = files
        return found


def read_rows(session: Path) -> tuple[list[Row], list[str]]:
    """Read the whole lines of the journal, with what is wrong with them; a torn end is not a line."""
    rows, found = [], []
    previous = "0" * 64
    for number, line in enumerate((session / "journal.jsonl").read_bytes().split(b"\n")[:-1], start=1):
        row = _row_of(line)
        if row is None:
            return rows, [*found, f"journal line {number}: no JSON object"]
        crc = row.get("crc32")
        body = {k: v for k, v in row.items() if k != "crc32"}
        if f"{zlib.crc32(_canonical(body)):08x}" != crc or _canonical({**body, "crc32": crc}) != line:
            found.append(f"journal line {number}: CRC")
        if row.get("prev") != previous:
            found.append(f"journal line {number}: chain")
        if row.get("seq") != number:
            found.append(f"journal line {number}: seq {row.get('seq')}")
        previous = hashlib.sha256(line + b"\n").hexdigest()
        rows.append(body)
    return rows, found


def _row_of(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _is_row(row: Row) -> bool:
    return {"seq", "kind", "t_host_s", "t_utc_us", "prev"} <= row.keys()


def _canonical(document: Row) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _times(rows: list[Row]) -> list[str]:
    return [
        f"journal line {later['seq']}: the clock runs backwards"
        for before, later in pairwise(rows)
        if later["t_host_s"] < before["t_host_s"] and later["kind"] not in CLOCK_STARTS
    ]


def _acknowledgements(acknowledged: list[Row], rows: list[Row]) -> list[str]:
    """Compare every acknowledgement with the journal: there, the same, once, in order and not too early."""
    found = []
    saved = {r["path"]: r for r in rows if r["kind"] == "saved"}
    for event in acknowledged:
        row = saved.get(event["path"])
        if row is None or row["sha256"] != event["sha256"]:
            found.append(f"{event['path']}: acknowledged but not in the journal")
        elif event.get("size_bytes", row["size_bytes"]) != row["size_bytes"]:
            found.append(f"{event['path']}: acknowledged with another size")
        elif event.get("t_host_s", row["t_host_s"]) < row["t_host_s"] - CLOCK_DIGITS_S:
            found.append(f"{event['path']}: acknowledged before its journal row")
    order = [saved[e["path"]]["seq"] for e in acknowledged if e["path"] in saved]
    if order != sorted(order):
        found.append("acknowledgements came in another order than the journal's rows")
    if len(order) != len(set(order)):
        found.append("a file was acknowledged twice")
    return found


def _saved_files(session: Path, rows: list[Row]) -> list[str]:
    """Look at every file the journal calls saved, acknowledged or not."""
    found = []
    seen: set[str] = set()
    for row in (r for r in rows if r["kind"] == "saved"):
        name, path = row["path"], session / row["path"]
        if name in seen:
            found.append(f"{name}: saved twice")
        seen.add(name)
        if name.endswith(".part") or not re.fullmatch(
            r"rounds/[^/]+\.take\d+/([^/.][^/]*/)?[^/.][^/]*", name
        ):
            found.append(f"{name}: not a place for a finished file")
        elif not path.is_file() or path.is_symlink():
            found.append(f"{name}: in the journal but absent")
        elif path.stat().st_size != row["size_bytes"] or _sha256(path) != row["sha256"]:
            found.append(f"{name}: partial or changed")
    return found


class _History:
    """Walks through the journal and notes what a careful writer would not have done."""

    def __init__(self, rows: list[Row]) -> None:
        self.states: dict[TakeKey, str] = {}
        self.saved: dict[str, list[Row]] = {}
        """Rows of saved files by take folder."""
        self.wrong: list[str] = []
        self._open: TakeKey | None = None
        for row in rows:
            step = getattr(self, f"_on_{row['kind']}", None)
            if step is not None:
                step(row)

    def _valid(self, round_name: str) -> list[TakeKey]:
        return [k for k, state in self.states.items() if k[0] == round_name and state == "valid"]

    def _on_take_intent(self, row: Row) -> None:
        key = (row["round"], row["take"])
        used = [number for name, number in self.states if name == row["round"]]
        if row["take"] != len(used) + 1:
            self.wrong.append(f"round {row['round']}: take {row['take']} after {used}")
        if self._valid(row["round"]):
            self.wrong.append(f"round {row['round']}: recorded again although it has a valid take")
        if self._open is not None and self.states[self._open] == "open":
            self.states[self._open] = "void"  # the run that began it was killed
        self.states[key], self._open = "open", key

    def _on_saved(self, row: Row) -> None:
        folder = row["path"].split("/")[1]
        self.saved.setdefault(folder, []).append(row)
        if self._open is None or self.states[self._open] != "open" or not _is_folder_of(folder, self._open):
            self.wrong.append(f"{row['path']}: saved while its take was not being recorded")

    def _on_take_outcome(self, row: Row) -> None:
        key, state = (row["round"], row["take"]), row["state"]
        before = self.states.get(key)
        if before is None:
            self.wrong.append(f"take {key}: an outcome without an intent")
        elif state == "valid" and before != "open":
            self.wrong.append(f"take {key}: valid after it was {before}")
        elif state == "void" and before == "valid" and not row["reason"].startswith(ON_PURPOSE):
            self.wrong.append(f"take {key}: valid and then void without a purpose: {row['reason']}")
        elif state == "void" and before == "void":
            self.wrong.append(f"take {key}: void twice")
        if state == "valid" and self._valid(key[0]):
            self.wrong.append(f"round {key[0]}: a second valid take")
        self.states[key] = state

    def _on_run_started(self, row: Row) -> None:
        """A run begins with exactly the rounds that lack a valid take."""
        again = [name for name in row["rounds"] if self._valid(name)]
        if again:
            self.wrong.append(f"a run sets out to record {again} although there are valid takes")


def _takes(session: Path, rows: list[Row]) -> list[str]:
    history = _History(rows)
    found = history.wrong
    numbers = {r["name"]: r["number"] for r in _plan(session)}
    folders = {f"{numbers.get(n, 0):02d}-{n}.take{k}": (n, k) for n, k in history.states}
    present = sorted(p.name for p in (session / "rounds").iterdir())
    found += [f"rounds/{name}: a folder no journal row speaks of" for name in present if name not in folders]
    for name, key in folders.items():
        if history.states[key] == "valid":
            found += _valid_take(session / "rounds" / name, key, history.saved.get(name, []))
    return found


def _valid_take(folder: Path, key: TakeKey, saved: list[Row]) -> list[str]:
    """A valid take has its `round.json`, every file it lists, and no other."""
    if not (folder / "round.json").is_file():
        return [f"{folder.name}: valid without a round.json"]
    record = _row_of((folder / "round.json").read_bytes()) or {}
    if (record.get("round", {}).get("name"), record.get("take")) != key:
        return [f"{folder.name}: its round.json is of another take"]
    found = []
    listed = {(f["path"], f["size_bytes"], f["sha256"]) for f in record["files"]}
    own = {(r["path"].split("/", 2)[2], r["size_bytes"], r["sha256"]) for r in saved}
    journaled = {f for f in own if f[0] != "round.json"}
    if listed != journaled or len(own) != len(journaled) + 1:
        found.append(f"{folder.name}: round.json lists other files than the journal")
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    if present != {path for path, _, _ in own}:
        names = sorted(present ^ {path for path, _, _ in own})
        found.append(f"{folder.name}: files on disk and in the journal differ by {names}")
    return found or list(_tables(folder, record))


def _tables(folder: Path, record: Row) -> Iterator[str]:
    """Frames are numbered through in rising time, telemetry in time, the motion has a beginning before its end."""
    for camera in record["cameras"].values():
        frames = _table(folder / camera["frames_csv"])
        if [int(f["index"]) for f in frames] != list(range(camera["frame_count"])):
            yield f"{folder.name}: frames are not numbered through"
        if any(float(b["t_host_s"]) <= float(a["t_host_s"]) for a, b in pairwise(frames)):
            yield f"{folder.name}: frame times do not rise"
        if not set(camera["files"]) <= {f["path"] for f in record["files"]}:
            yield f"{folder.name}: a camera's file is not listed"
    samples = _table(folder / record["telemetry"]) if record["telemetry"] else []
    if any(float(b["t_host_s"]) < float(a["t_host_s"]) for a, b in pairwise(samples)):
        yield f"{folder.name}: telemetry times fall"
    began_s, ended_s = record["motion_started_t_host_s"], record["motion_ended_t_host_s"]
    if began_s is not None and not began_s <= ended_s:
        yield f"{folder.name}: the motion ends before it begins"


def _is_folder_of(folder: str, key: TakeKey) -> bool:
    return re.fullmatch(rf"\d\d-{re.escape(key[0])}\.take{key[1]}", folder) is not None


def _finished_files(session: Path) -> Iterator[Path]:
    yield from (p for p in [session / "session.json"] if p.is_file())
    yield from (p for p in (session / "rounds").rglob("*") if p.is_file() and p.suffix != ".part")


def _plan(session: Path) -> list[Row]:
    rounds: list[Row] = json.loads((session / "session.json").read_text())["rounds"]
    return rounds


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as rows:
        return list(csv.DictReader(rows))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
