"""Captured pairs for `benchmarks.models`: six scenes of the simulated rig, seven classes, two scenes held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.demo import DEMO_ROUNDS, Demo
from catalog.manifest import ManifestRow, read_manifest, write_manifest
from catalog.records import degradation_key
from catalog.session_folder import ALIGNMENT_FILE

TRAINING_SCENES = ("shelf-11", "bench-12", "garden-13", "window-14")
HELD_OUT_SCENES = ("desk-15", "hall-16")
EXPORT = "bench-models"
ROUNDS: list[dict[str, Any]] = [
    *DEMO_ROUNDS,
    {"name": "haze", "role": "external", "conditions": {"haze": "moderate"}, "degradations": ["haze"]},
    {
        "name": "hazy-rain",
        "role": "external",
        "conditions": {"haze": "light", "rain": "moderate"},
        "degradations": ["haze", "rain"],
    },
    {
        "name": "dark-noise",
        "role": "external",
        "set": {"iso": 6400, "exposure_s": 0.00008},
        "conditions": {"light": "dim"},
        "degradations": ["low_light", "noise"],
    },
]


def captured_pairs(data: Path) -> Path:
    """Return the export, recorded, aligned and split first where it is not there yet.

    Scenes that are recorded and aligned are kept, so that a recording that was interrupted goes on with the next one.
    """
    export = data / "exports" / EXPORT
    if (export / "manifest.jsonl").is_file():
        return export
    rig = Demo(data, None)
    sessions = [_session(rig, scene) for scene in (*TRAINING_SCENES, *HELD_OUT_SCENES)]
    rig.step("catalog", "catalog", "init")
    for session in sessions:
        rig.step("catalog", "catalog", "add", session)
    held_out = [word for scene in HELD_OUT_SCENES for word in ("--test-scene", scene)]
    shares = ("--train", "1", "--val", "0", "--test", "0")
    rig.step("catalog", "catalog", "split", EXPORT, *shares, *held_out)
    names = ", ".join(f"'{session}'" for session in sessions)
    only = ("--where", f"session in ({names})")
    rig.step("export", "catalog", "export", EXPORT, "--format", "folder", "--split", EXPORT, *only)
    return export


def _session(rig: Demo, scene: str) -> str:
    done = (rig.data / "sessions").glob(f"{scene}-*/{ALIGNMENT_FILE}")
    found = min((file.parent.name for file in done), default=None)
    return found or rig.record(scene, ROUNDS).path.name


def part_of(export: Path, share: float) -> Path:
    """Return an export that holds only so many of the training pairs, evenly taken from each class and scene."""
    part = export.with_name(f"{export.name}-{round(100 * share)}")
    if (part / "manifest.jsonl").is_file():
        return part
    part.mkdir()
    for folder in ("gt", "lq", "mask"):
        if (export / folder).is_dir():
            (part / folder).symlink_to(export / folder)
    rows = list(read_manifest(export))
    train = sorted(
        (r for r in rows if r.split == "train"), key=lambda r: (degradation_key(r.degradations), r.id)
    )
    kept = {row.id for row in _evenly(train, round(share * len(train)))}
    write_manifest(part, (row for row in rows if row.split != "train" or row.id in kept))
    return part


def _evenly(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]
