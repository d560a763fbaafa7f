"""Captured pairs for `benchmarks.models`: six scenes of the simulated rig, seven classes, two scenes held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.demo import Demo
from catalog.manifest import ManifestRow, read_manifest, write_manifest
from catalog.records import degradation_key

TRAINING_SCENES = ("shelf-11", "bench-12", "garden-13", "window-14")
HELD_OUT_SCENES = ("desk-15", "hall-16")
EXPORT = "bench-models"
ROUNDS: list[dict[str, Any]] = [
    {"name": "gt", "role": "gt"},
    {
        "name": "noise",
        "role": "internal",
        "set": {"iso": 6400, "exposure_s": 0.00008},
        "degradations": ["noise"],
    },
    {"name": "defocus", "role": "internal", "set": {"focus_m": 0.9}, "degradations": ["defocus_blur"]},
    {"name": "dark", "role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
    {"name": "rain", "role": "external", "conditions": {"rain": "moderate"}, "degradations": ["rain"]},
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


def plan_of(scene: str) -> dict[str, Any]:
    """Return the plan of one scene as YAML data."""
    return {
        "schema": 1,
        "scene": scene,
        "sweep": {"start_mm": 100, "end_mm": 121, "velocity_mm_s": 40},
        "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
        "rounds": ROUNDS,
        "rest_s": 0.4,
    }


def captured_pairs(data: Path) -> Path:
    """Return the export, recorded, aligned and split first where it is not there yet."""
    export = data / "exports" / EXPORT
    if (export / "manifest.jsonl").is_file():
        return export
    rig = Demo(data, None)
    sessions = [_record(rig, scene) for scene in (*TRAINING_SCENES, *HELD_OUT_SCENES)]
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


def _record(rig: Demo, scene: str) -> str:
    plans = rig.data / "bench-plans"
    plans.mkdir(parents=True, exist_ok=True)
    plan = plans / f"{scene}.yaml"
    plan.write_text(yaml.safe_dump(plan_of(scene), sort_keys=False))
    lines = rig.step("record", "rig", "record", str(plan), "--profile", "sim")
    session = next(line.split()[1] for line in lines if line.startswith("session "))
    rig.step("align", "alignment", "run", session)
    return session


def _evenly(rows: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]
