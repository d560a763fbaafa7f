"""What an alignment leaves on disk, and how an interrupted one goes on.

A finished round is set down in ``pairs/.rounds/`` under a key of everything it depends on; the next run takes
it over if the key and the pictures still fit. When all rounds are done, `pairs.jsonl` and `alignment.json`
replace the older ones and pictures of pairs that are no more are removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError

from alignment.pair_job import PairJob, pair_path
from catalog.evidence import AlignmentRecord, PairRecord
from catalog.session_folder import PAIRS_FOLDER, SessionFolder, file_sha256, write_alignment, write_pairs
from catalog.yaml_document import Document

_ROUNDS_FOLDER = ".rounds"
_LIBRARIES = ("cleanplate", "opencv-python-headless", "numpy", "scipy", "av")


def versions() -> dict[str, str]:
    """Name the versions that the numbers depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "source"
    return found


def round_key(whole: PairJob, options: Document) -> str:
    """Hash everything that a round's pairs depend on: files, matches, options, versions."""
    stored = whole.lq_source.calibration
    parts = [
        json.dumps(versions(), sort_keys=True),
        options.model_dump_json(),
        *(sha256 for source in (*whole.gt_sources, whole.lq_source) for sha256 in source.files_sha256),
        "" if stored is None else stored.hash,
        repr((whole.focal_px, [[(t.name, t.match, t.before) for t in run] for run in whole.runs])),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def finish_round(session: Path, records: Sequence[PairRecord], key: str) -> None:
    """Remove what was written for pairs that were then rejected, and set the round down as done."""
    for record in records:
        if record.verdict == "rejected":
            for kind in ("gt", "lq", "mask"):
                pair_path(session, kind, record.pair).unlink(missing_ok=True)
    folder = session / PAIRS_FOLDER / _ROUNDS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{key}.part"
    part.write_text("".join(r.model_dump_json() + "\n" for r in records), encoding="utf-8")
    part.replace(folder / f"{key}.jsonl")


def finished_round(session: Path, key: str) -> list[PairRecord] | None:
    """Return a round that an interrupted run finished, if its pictures are still what they were."""
    path = session / PAIRS_FOLDER / _ROUNDS_FOLDER / f"{key}.jsonl"
    try:
        records = [
            PairRecord.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()
        ]
    except (FileNotFoundError, ValidationError):
        return None
    return records if all(_pictures_fit(session, r) for r in records) else None


def _pictures_fit(session: Path, record: PairRecord) -> bool:
    return all(
        pair_path(session, kind, record.pair).is_file()
        and file_sha256(pair_path(session, kind, record.pair)) == expected
        for kind, expected in _expected(record).items()
    )


def _expected(record: PairRecord) -> dict[str, str]:
    return {kind: value for kind, value in record.sha256.model_dump().items() if value is not None}


def publish(folder: SessionFolder, pairs: Sequence[PairRecord], alignment: AlignmentRecord) -> None:
    """Make the pictures durable, then list them; afterwards nothing of an older run is left."""
    wanted = {pair_path(folder.path, kind, r.pair) for r in pairs for kind in _expected(r)}
    for path in sorted(wanted):
        _sync(path)
    write_pairs(folder.path, pairs)
    write_alignment(folder.path, alignment)
    shutil.rmtree(folder.path / PAIRS_FOLDER / _ROUNDS_FOLDER, ignore_errors=True)
    for kind in ("gt", "lq", "mask"):
        for path in (folder.path / PAIRS_FOLDER / kind).glob("*.png*"):
            if path not in wanted:
                path.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
