"""How long a round takes from its movie to written pairs: results/alignment_speed.json.

Usage, on an otherwise idle machine: python -P -m benchmarks.alignment_speed (--quick for 60 frames of 1080p only).
A ground truth and a degraded round are rendered from exactly the same places, so that no ground truth needs a warp; a
second degraded round was taken by a camera turned by a third of a pixel, so that every one does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from alignment.pairing import align_session
from benchmarks.alignment import RESULTS
from benchmarks.alignment_pairs import BOARDS, EXPOSURE_S, LENS, TRAVEL_MM
from catalog.session_folder import ExposureSettings, SessionFolder
from rig.footage import import_footage
from rig.profile import SimulationSpec
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.world import Shot, World

RATE_HZ = 30.0
REST_S, RAMP_S = 0.5, 0.3
TURN_DEG = 0.01
"""Yaw of the camera in the round whose ground truths need a warp: 0.3 px at 1080p."""
WORKERS = 2
GOALS_S = {"none_warped": 60.0, "all_warped": 90.0}
PEAK_GOAL_GIB = 1.5
STAGES = ("ground truth", "motion", "depths", "pairs")
RUNS = (
    *(((1920, 1080), frames) for frames in (100, 300, 1000)),
    ((1280, 720), 100),
    ((3840, 2160), 100),
)
"""Picture size and number of frames."""


@dataclass(frozen=True)
class Footage:
    """The recordings of one run."""

    size: tuple[int, int]
    frames: int

    def record(self, folder: Path) -> None:
        """Render and encode all rounds with the sheet that `rig import` reads."""
        width, height = self.size
        spec = SimulationSpec(width=width, height=height, covered_travel_mm=TRAVEL_MM)
        world = World(spec, LENS, BOARDS, "speed")
        noisy = {"iso": 1600, "exposure_s": EXPOSURE_S / 16}
        self._film(world, folder / "gt.mov", Shot(ExposureSettings()), turn_deg=0.0, seed=1)
        self._film(
            world, folder / "none_warped.mov", Shot(ExposureSettings(**noisy)), turn_deg=0.0, seed=10_001
        )
        self._film(
            world, folder / "all_warped.mov", Shot(ExposureSettings(**noisy)), turn_deg=TURN_DEG, seed=20_001
        )
        rounds = [{"name": "gt", "files": "gt.mov", "role": "gt"}]
        rounds += [
            {
                "name": name,
                "files": f"{name}.mov",
                "role": "internal",
                "degradations": ["noise"],
                "settings": noisy,
            }
            for name in GOALS_S
        ]
        self._sheet(folder, rounds)

    def _sheet(self, folder: Path, rounds: list[dict[str, Any]]) -> None:
        sheet = {
            "schema": 1,
            "scene": "speed",
            "boards": [b.model_dump() for b in BOARDS],
            "lens": LENS.model_dump(mode="json"),
            "rounds": rounds,
        }
        (folder / "all.yaml").write_text(yaml.safe_dump(sheet, sort_keys=False))

    def _film(self, world: World, path: Path, shot: Shot, *, turn_deg: float, seed: int) -> None:
        width, height = self.size
        with MovieEncoder(path, width=width, height=height, rate_hz=RATE_HZ, crf=12) as movie:
            for index, x_mm in enumerate(self._positions_mm()):
                pose = np.array([[x_mm, 0, 0, 0, turn_deg, 0]])
                movie.write(to_yuv420(world.render(pose, shot, frame_seed=seed + index)))

    def _positions_mm(self) -> NDArray[np.float64]:
        """At rest, up to speed, across the covered travel, down, at rest."""
        t_s = np.arange(self.frames) / RATE_HZ
        end_s = t_s[-1] - REST_S
        speed = np.clip((t_s - REST_S) / RAMP_S, 0, 1) * np.clip((end_s - t_s) / RAMP_S, 0, 1)
        way = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        return np.asarray(TRAVEL_MM[0] + (TRAVEL_MM[1] - TRAVEL_MM[0]) * way / way[-1], np.float64)


def measure(footage: Footage, scratch: Path) -> dict[str, Any]:
    """Film, import and align; every degraded round in a session of its own."""
    folder = scratch / "footage"
    folder.mkdir()
    footage.record(folder)
    document = yaml.safe_load((folder / "all.yaml").read_text())
    return {
        "size": footage.size,
        "frames": footage.frames,
        **{name: _aligned(folder, document, name, scratch / name) for name in GOALS_S},
    }


def _aligned(folder: Path, sheet: dict[str, Any], name: str, data: Path) -> dict[str, Any]:
    wanted = [r for r in sheet["rounds"] if r["name"] in ("gt", name)]
    (folder / "session.yaml").write_text(yaml.safe_dump({**sheet, "rounds": wanted}, sort_keys=False))
    session = SessionFolder(import_footage(folder, data=data))
    started, cpu_before = time.perf_counter(), _cpu_s()
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    told: list[float] = [started]

    def progress(_share: float) -> None:
        now = time.perf_counter()
        seconds[STAGES[min(len(told), len(STAGES)) - 1]] += now - told[-1]
        told.append(now)

    # Children of our own, not of a fork server: their time and memory can be told once they have ended.
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        align_session(session, executor=pool, progress=progress)
    wall_s = time.perf_counter() - started
    pairs = session.pairs()
    return {
        "wall_s": round(wall_s, 2),
        "cpu_s": round(_cpu_s() - cpu_before, 2),
        "stages_wall_s": {stage: round(spent, 2) for stage, spent in seconds.items()},
        "accepted": sum(p.verdict == "accepted" for p in pairs),
        "pairs": len(pairs),
        "warped": sum(p.gt_warped for p in pairs if p.verdict == "accepted"),
        "peak_gib": round(_peak_gib(), 3),
    }


def _cpu_s() -> float:
    return sum(
        u.ru_utime + u.ru_stime
        for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _peak_gib() -> float:
    """Largest worker; the parent keeps no frames, but this one has rendered them and cannot tell."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20 * WORKERS


def main(arguments: Sequence[str]) -> int:
    """Run everything and hold it against the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS / "alignment_speed.json")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    runs = []
    for size, frames in [((1920, 1080), 60)] if given.quick else RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            runs.append(measure(Footage(size, frames), Path(scratch)))
        print(json.dumps(runs[-1]), file=sys.stderr)
    document = {"schema": 1, "workers": WORKERS, "cores": os.cpu_count(), "runs": runs, "goals": _goals(runs)}
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["goals"], indent=1))
    return 0


def _goals(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    goals = []
    for run in runs:
        if run["size"] == (1920, 1080) and run["frames"] == 300:
            for name, limit in GOALS_S.items():
                wall_s = run[name]["wall_s"]
                goals.append(
                    {
                        "what": f"300 frames of 1080p, {name}, s",
                        "number": wall_s,
                        "limit": limit,
                        "met": wall_s <= limit,
                    }
                )
            peak = max(run[name]["peak_gib"] for name in GOALS_S)
            goals.append(
                {
                    "what": "peak memory, GiB",
                    "number": peak,
                    "limit": PEAK_GOAL_GIB,
                    "met": peak <= PEAK_GOAL_GIB,
                }
            )
    return goals


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
