"""Measure how fast the simulated camera renders and encodes; JSON into benchmarks/results/render.json.

CPU time is measured in one process, one thread; frames per second on the wall clock with the pool that the
simulated rig uses. The machine may be busy with other things: CPU time is the figure to compare.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from catalog.session_folder import ExposureSettings
from rig.profile import RigProfile
from rig.sim.carriage import Carriage
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.movie import RenderPool, Stage, record_movie
from rig.sim.world import Shot, World

RESULT = Path(__file__).parent / "results" / "render.json"
FRAMES = 60
POOL_FRAMES = 150
VELOCITY_MM_S = 40.0


@dataclass(frozen=True)
class Case:
    """One kind of round."""

    shot: Shot
    exposure_s: float = 0.005
    changes: tuple[tuple[str, float], ...] = ()
    """Fields of the simulation that differ from the profile's."""


def exposed(**settings: Any) -> ExposureSettings:
    """Settings that differ from the metered ones."""
    return ExposureSettings(**settings)


CASES = {
    "base": Case(Shot(exposed())),
    "noise": Case(Shot(exposed(iso=6400, exposure_s=0.005 / 64)), exposure_s=0.005 / 64),
    "defocus_blur": Case(Shot(exposed(focus_m=0.9))),
    "motion_blur_4px": Case(Shot(exposed(f_number=22, exposure_s=0.1)), exposure_s=0.1),
    "low_light": Case(Shot(exposed(), {"light": "blocked"})),
    "haze": Case(Shot(exposed(), {"haze": "moderate"})),
    "rain": Case(Shot(exposed(), {"rain": "moderate"})),
    "raindrop": Case(Shot(exposed(), {"raindrop": "moderate"})),
    "rolling_shutter_and_distortion": Case(
        Shot(exposed()), changes=(("readout_s", 0.02), ("distortion_k1", -0.05))
    ),
}


def measure(profile: RigProfile, case: Case, folder: Path) -> dict[str, float]:
    """CPU time of one case's frames, ms, and their size."""
    assert profile.simulation is not None
    spec = profile.simulation.model_copy(update=dict(case.changes))
    world = World(spec, profile.lens, profile.boards, "benchmark")
    started_s = time.process_time()
    world.prepare(case.shot)
    prepared_s = time.process_time() - started_s
    path = folder / "case.mov"
    span_s = case.exposure_s + spec.readout_s
    carriage = Carriage(spec, lambda t_s: 60 + VELOCITY_MM_S * t_s, seed=1)
    spent_s = {"render": 0.0, "encode": 0.0}
    with MovieEncoder(
        path, width=spec.width, height=spec.height, rate_hz=spec.frame_rate_hz, crf=spec.movie_crf
    ) as movie:
        for index in range(FRAMES):
            t_s = index / spec.frame_rate_hz
            poses = carriage.poses(np.linspace(t_s, t_s + span_s, 5))
            marks = [time.process_time()]
            planes = to_yuv420(world.render(poses, case.shot, frame_seed=index))
            marks.append(time.process_time())
            movie.write(planes)
            marks.append(time.process_time())
            spent_s["render"] += marks[1] - marks[0]
            spent_s["encode"] += marks[2] - marks[1]
    return {
        "prepare_cpu_s": round(prepared_s, 2),
        **{f"{step}_cpu_ms": round(1000 * s / FRAMES, 1) for step, s in spent_s.items()},
        "kb_per_frame": round(path.stat().st_size / FRAMES / 1000, 1),
    }


def pool_rate(profile: RigProfile, folder: Path) -> dict[str, float]:
    """Frames per second of a recording by the pool of two processes, world and textures warm."""
    assert profile.simulation is not None
    stage = Stage(profile.simulation, profile.lens, profile.boards, "benchmark")
    carriage = Carriage(stage.spec, lambda t_s: 60 + VELOCITY_MM_S * t_s, seed=1)
    with RenderPool() as pool:
        pool.prepare(stage, CASES["base"].shot)
        pool.header(stage, CASES["base"].shot)
        started_s = time.perf_counter()
        record_movie(
            folder / "pool.mov",
            pool=pool,
            stage=stage,
            shot=CASES["base"].shot,
            carriage=carriage,
            start_s=0.0,
            frame_count=POOL_FRAMES,
            data=folder,
            seed=1,
        )
        wall_s = time.perf_counter() - started_s
    return {
        "frames_per_s": round(POOL_FRAMES / wall_s, 1),
        "worker_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000),
    }


def main() -> None:
    """Run all cases and write the result."""
    cv2.setNumThreads(1)
    profile = RigProfile.load("sim")
    assert profile.simulation is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "schema": 1,
            "width": profile.simulation.width,
            "height": profile.simulation.height,
            "cpu_count": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),
            "pool": pool_rate(profile, folder),
            "cases": {name: measure(profile, case, folder) for name, case in CASES.items()},
        }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
