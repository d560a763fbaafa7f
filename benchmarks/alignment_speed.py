"""How long a round takes from its movie to written pairs: results/alignment_speed.json.

Usage, on an otherwise idle machine: python -P -m benchmarks.alignment_speed (--runs 1920x1080x60 for a look). Footage
and finished measurements are kept in the work folder: the footage may be rendered beforehand (--render), runs measured
one at a time (--runs, --rounds), and a run of all puts together what is there.

A ground truth and a degraded round are rendered from exactly the same places, so that no ground truth needs a warp; a
second degraded round was taken by a camera turned by a third of a pixel, so that every one does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from alignment.decode import open_movie
from alignment.pairing import align_session
from alignment.png import encode_png
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
STAGES = ("ground truth", "motion and depths", "positions", "pairs")
NOISY = {"iso": 1600, "exposure_s": EXPOSURE_S / 16}
"""Settings of the degraded rounds."""
JUDGED = "1920x1080x300"
"""The run that the goals are about."""
RUNS = ("1920x1080x100", "1920x1080x300", "1920x1080x1000", "1280x720x100", "3840x2160x100")
"""Picture size and number of frames."""
_FLOOR_SAMPLE = 10
"""Frames from which the floor is told."""


@dataclass(frozen=True)
class Footage:
    """The recordings of one run, in a folder that `rig import` reads."""

    name: str
    """Width, height and number of frames, as in `RUNS`."""
    folder: Path

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, px."""
        width, height, _ = map(int, self.name.split("x"))
        return width, height

    @property
    def frames(self) -> int:
        """Of every round."""
        return int(self.name.split("x")[2])

    def render(self) -> None:
        """Render and encode the rounds that are not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        noisy = Shot(ExposureSettings(**NOISY))
        self._film("gt", Shot(ExposureSettings()), turn_deg=0.0, seed=1)
        self._film("none_warped", noisy, turn_deg=0.0, seed=10_001)
        self._film("all_warped", noisy, turn_deg=TURN_DEG, seed=20_001)

    def write_sheet(self, name: str) -> None:
        """Describe the ground truth and one degraded round to `rig import`."""
        degraded = {"role": "internal", "degradations": ["noise"], "settings": NOISY}
        sheet = {
            "schema": 1,
            "scene": "speed",
            "boards": [b.model_dump() for b in BOARDS],
            "lens": LENS.model_dump(mode="json"),
            "rounds": [
                {"name": "gt", "files": "gt.mov", "role": "gt"},
                {"name": name, "files": f"{name}.mov", **degraded},
            ],
        }
        (self.folder / "session.yaml").write_text(yaml.safe_dump(sheet, sort_keys=False))

    @cached_property
    def _world(self) -> World:
        width, height = self.size
        spec = SimulationSpec(width=width, height=height, covered_travel_mm=TRAVEL_MM)
        return World(spec, LENS, BOARDS, "speed")

    def _film(self, name: str, shot: Shot, *, turn_deg: float, seed: int) -> None:
        path, part = self.folder / f"{name}.mov", self.folder / f"{name}.part.mov"
        if path.is_file():
            return
        world, (width, height) = self._world, self.size
        with MovieEncoder(part, width=width, height=height, rate_hz=RATE_HZ, crf=12) as movie:
            for index, x_mm in enumerate(self._positions_mm()):
                pose = np.array([[x_mm, 0, 0, 0, turn_deg, 0]])
                movie.write(to_yuv420(world.render(pose, shot, frame_seed=seed + index)))
        part.rename(path)

    def _positions_mm(self) -> NDArray[np.float64]:
        """At rest, up to speed, across the covered travel, down, at rest."""
        t_s = np.arange(self.frames) / RATE_HZ
        end_s = t_s[-1] - REST_S
        speed = np.clip((t_s - REST_S) / RAMP_S, 0, 1) * np.clip((end_s - t_s) / RAMP_S, 0, 1)
        way = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
        return np.asarray(TRAVEL_MM[0] + (TRAVEL_MM[1] - TRAVEL_MM[0]) * way / way[-1], np.float64)


def measure(footage: Footage, name: str) -> dict[str, Any]:
    """Import and align the ground truth and one degraded round."""
    footage.write_sheet(name)
    with tempfile.TemporaryDirectory() as scratch:
        session = SessionFolder(import_footage(footage.folder, data=Path(scratch)))
        row = {"run": footage.name, "round": name, **_aligned(session)}
    megapixels = footage.size[0] * footage.size[1] / 1e6
    per_frame_ms = 1000 * row["cpu_s"] / footage.frames
    return row | {
        "cpu_ms_per_frame": round(per_frame_ms, 1),
        "cpu_ms_per_frame_and_megapixel": round(per_frame_ms / megapixels, 1),
        "floor_cpu_s": round(_floor_s(footage, name, row["accepted"]), 2),
    }


def _floor_s(footage: Footage, name: str, accepted: int) -> float:
    """CPU time that no way of aligning can do without: every frame decoded once, every pair encoded as PNG."""
    with open_movie([footage.folder / f"{name}.mov"]) as movie:
        started = time.process_time()
        pictures = [movie.read(index).rgb() for index in range(_FLOOR_SAMPLE)]
        decoded = time.process_time()
        for picture in pictures:
            encode_png(picture)
        encoded = time.process_time()
    decoding_s, encoding_s = (decoded - started) / _FLOOR_SAMPLE, (encoded - decoded) / _FLOOR_SAMPLE
    return 2 * (footage.frames * decoding_s + accepted * encoding_s)


def _aligned(session: SessionFolder) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    started, cpu_before = time.perf_counter(), _cpu_s()
    seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    told: list[float] = [started]

    def progress(_share: float) -> None:
        now = time.perf_counter()
        seconds[STAGES[min(len(told), len(STAGES)) - 1]] += now - told[-1]
        told.append(now)

    # Children of our own, not of a fork server: their time and memory can be told once they have ended.
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        align_session(session, executor=pool, workers=WORKERS, progress=progress)
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
        "load_average_before": round(load_before, 2),
    }


def _cpu_s() -> float:
    return sum(
        u.ru_utime + u.ru_stime
        for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _peak_gib() -> float:
    """This process and its workers, as if all had been at their largest together."""
    own, worker = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (own + WORKERS * worker) / 2**20


def main(arguments: Sequence[str]) -> int:
    """Measure what is missing, in a process each, and hold everything against the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", default=",".join(RUNS), help="width x height x frames of each")
    parser.add_argument("--rounds", default=",".join(GOALS_S))
    parser.add_argument("--render", action="store_true", help="only render the footage of the chosen runs")
    parser.add_argument("--work", type=Path, default=Path("cleanplate-data/bench-alignment"))
    parser.add_argument("--output", type=Path, default=RESULTS / "alignment_speed.json")
    parser.add_argument("--fresh", action="store_true", help="measure the chosen runs and rounds again")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    rows_path = given.work / "speed.jsonl"
    known = {} if given.fresh else _known(rows_path)
    for run, name in itertools.product(given.runs.split(","), given.rounds.split(",")):
        footage = Footage(run, given.work / f"speed-{run}")
        if given.render or (run, name) not in known:
            _apart(_render, footage)
        if not given.render and (run, name) not in known:
            _apart(_measure_into, footage, name, rows_path)
    document = summary(list(_known(rows_path).values()))
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["goals"], indent=1))
    return 0


def _apart(work: Callable[..., None], *arguments: object) -> None:
    """Work in a process of its own: whoever starts one hands its own peak memory down to it."""
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(child.exitcode)


def _render(footage: Footage) -> None:
    cv2.setNumThreads(1)
    footage.render()


def _measure_into(footage: Footage, name: str, rows_path: Path) -> None:
    cv2.setNumThreads(1)
    row = measure(footage, name)
    print(json.dumps(row), file=sys.stderr)
    with rows_path.open("a") as out:
        out.write(json.dumps(row) + "\n")


def _known(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Measurements so far, the last of each run and round."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {(row["run"], row["round"]): row for row in map(json.loads, lines)}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put measurements together, and hold them against the goals."""
    return {
        "schema": 1,
        "workers": WORKERS,
        "cores": os.cpu_count(),
        "measurements": sorted(rows, key=lambda row: (row["run"], row["round"])),
        "goals": _goals({(row["run"], row["round"]): row for row in rows}),
    }


def _goals(rows: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    goals = []
    for name, limit_s in GOALS_S.items():
        if row := rows.get((JUDGED, name)):
            goals.append(_goal(f"300 frames of 1080p, {name}, s", row["wall_s"], limit_s))
            goals.append(_goal(f"peak memory, {name}, GiB", row["peak_gib"], PEAK_GOAL_GIB))
    return goals


def _goal(what: str, number: float, limit: float) -> dict[str, Any]:
    return {"what": what, "number": number, "limit": limit, "met": number <= limit}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
