"""An independent judge of session folders: shares no code with the product.

It compares every acknowledgement that a recording process printed with what lies on disk afterwards, and
reads the journal by the written contract alone.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any


def violations(session: Path, acknowledged: list[dict[str, Any]]) -> list[str]:
    """List every broken promise of a session folder; an empty list is a pass."""
    rows, found = _read_journal(session)
    found += _acknowledged_files(session, acknowledged, rows)
    found += _takes(session, rows)
    return found


def _read_journal(session: Path) -> tuple[list[dict[str, Any]], list[str]]:
    rows, found = [], []
    previous = "0" * 64
    raw = (session / "journal.jsonl").read_bytes()
    lines = raw.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        row = json.loads(line)
        crc = row.pop("crc32")
        body = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
        if f"{zlib.crc32(body):08x}" != crc:
            found.append(f"journal line {number}: CRC")
        if row["prev"] != previous:
            found.append(f"journal line {number}: chain")
        if row["seq"] != number:
            found.append(f"journal line {number}: seq {row['seq']}")
        previous = hashlib.sha256(line + b"\n").hexdigest()
        rows.append(row)
    return rows, found


def _acknowledged_files(
    session: Path, acknowledged: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> list[str]:
    found = []
    journaled = {(r["path"], r["sha256"]) for r in rows if r["kind"] == "saved"}
    for event in acknowledged:
        path = session / event["path"]
        if (event["path"], event["sha256"]) not in journaled:
            found.append(f"{event['path']}: acknowledged but not in the journal")
        if not path.is_file():
            found.append(f"{event['path']}: acknowledged but absent")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != event["sha256"]:
            found.append(f"{event['path']}: acknowledged with another hash")
    for path_text, sha256 in journaled:
        path = session / path_text
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            found.append(f"{path_text}: in the journal but absent or changed")
    return found


def _takes(session: Path, rows: list[dict[str, Any]]) -> list[str]:
    found = []
    intents = [(r["round"], r["take"]) for r in rows if r["kind"] == "take_intent"]
    for key, count in Counter(intents).items():
        if count > 1:
            found.append(f"take {key} was begun {count} times")
    for name in {r for r, _ in intents}:
        numbers = [k for r, k in intents if r == name]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"round {name}: takes are numbered {numbers}")
    valid = [(r["round"], r["take"]) for r in rows if r["kind"] == "take_outcome" and r["state"] == "valid"]
    for name, count in Counter(r for r, _ in valid).items():
        if count > 1:
            found.append(f"round {name}: {count} valid takes")
    numbers = {r["name"]: r["number"] for r in json.loads((session / "session.json").read_text())["rounds"]}
    for name, take in valid:
        folder = session / "rounds" / f"{numbers[name]:02d}-{name}.take{take}"
        record = json.loads((folder / "round.json").read_text())
        for file in record["files"]:
            path = folder / file["path"]
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
                found.append(f"{path.name} of {folder.name}: listed as good but absent or changed")
    return found


def is_complete(session: Path) -> bool:
    """Tell whether every round of the session has a valid take."""
    rows, _ = _read_journal(session)
    valid = {r["round"] for r in rows if r["kind"] == "take_outcome" and r["state"] == "valid"}
    return {r["name"] for r in json.loads((session / "session.json").read_text())["rounds"]} == valid
