"""Recordings of the simulated camera: frames, truth and the processes behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from catalog.session_folder import BoardSpec, ExposureSettings, LensSpec, file_sha256
from rig.errors import SceneError
from rig.profile import SimulationSpec
from rig.sim.carriage import Carriage
from rig.sim.movie import RenderPool, Stage, record_movie, record_still
from rig.sim.truth import displacement, read_truth, truth_path
from rig.sim.world import Shot, World

LENS = LensSpec(focal_mm=35, sensor_width_mm=35.9, scene_depth_mm=(1500, 4000))
SPEC = SimulationSpec(width=320, height=184, frame_rate_hz=25)
STAGE = Stage(SPEC, LENS, (BoardSpec(columns=5, rows=3, square_mm=100, marker_mm=75),), "shelf")
BASE = Shot(ExposureSettings())
FRAMES = 14


def run_past(t_s: np.ndarray) -> np.ndarray:
    return 150 + 40 * (t_s - 7.5)


@pytest.fixture(scope="module")
def pool() -> Iterator[RenderPool]:
    with RenderPool() as pool:
        yield pool


def record(pool: RenderPool, path: Path, *, seed: int = 4, shot: Shot = BASE, stage: Stage = STAGE) -> Path:
    carriage = Carriage(stage.spec, run_past, seed=seed)
    return record_movie(
        path,
        pool=pool,
        stage=stage,
        shot=shot,
        carriage=carriage,
        start_s=7.5,
        frame_count=FRAMES,
        data=path.parent,
        seed=seed,
    )


def greens(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as movie:
        return [f.to_ndarray(format="gray").astype(np.float64) for f in movie.decode(video=0)]


def test_a_movie_has_its_frames_in_order_and_a_truth_for_each(pool, tmp_path):
    """25 Hz from 7.5 s; mid-exposure 2.5 ms after the start; 40 mm/s is 1.6 mm per frame."""
    path = record(pool, tmp_path / "take.mov")

    frames = read_truth(tmp_path, file_sha256(path))
    expected = World(SPEC, LENS, STAGE.boards, "shelf")
    assert len(greens(path)) == len(frames) == FRAMES
    assert [f.row.index for f in frames] == list(range(FRAMES))
    np.testing.assert_allclose([f.row.t_s for f in frames], 7.5 + np.arange(FRAMES) / 25)
    np.testing.assert_allclose([f.row.t_mid_s - f.row.t_s for f in frames], 0.0025)
    x_mm = np.array([f.pose[0] for f in frames])
    np.testing.assert_allclose(x_mm, 150.1 + 1.6 * np.arange(FRAMES), atol=0.25)
    assert [p.name for p in frames[0].header.planes] == [p.name for p in expected.planes]


def test_the_recorded_picture_is_the_rendered_one(pool, tmp_path):
    """A bright frame in the middle of the movie against the world itself: noise of both, codec, 8 bits."""
    path = record(pool, tmp_path / "take.mov")
    frame = read_truth(tmp_path, file_sha256(path))[7]

    rendered = World(SPEC, LENS, STAGE.boards, "shelf").render(frame.pose[None], BASE, frame_seed=None)

    difference = greens(path)[7] - cv2.cvtColor(rendered, cv2.COLOR_RGB2GRAY)
    assert np.abs(difference).mean() < 4  # grey of BT.601 against luma of BT.709, and noise
    assert (
        np.corrcoef(greens(path)[7].ravel(), cv2.cvtColor(rendered, cv2.COLOR_RGB2GRAY).ravel())[0, 1] > 0.995
    )


def test_two_takes_differ_by_the_true_field_between_them(pool, tmp_path):
    """At equal commanded positions the camera is elsewhere by the takes' errors, t, and turned by w:
    dx = f (-tx + X tz)/Z + f (-XY wx + (1 + X^2) wy - Y wz), to first order in t and w."""
    first, second = (
        read_truth(tmp_path, file_sha256(record(pool, tmp_path / f"take{s}.mov", seed=s)))[5] for s in (4, 9)
    )
    points = np.random.default_rng(0).uniform((0, 0), (319, 183), (50, 2))

    field = displacement(first, second, points)

    focal_px = 35 / 35.9 * 320
    moved, turned = (second.pose - first.pose)[:3], np.radians((second.pose - first.pose)[3:])
    depth_mm = first.locate(points)[:, 2]
    x, y = ((points - [159.5, 91.5]) / focal_px).T
    parallax = (x * moved[2] - moved[0]) / depth_mm
    rotation = -x * y * turned[0] + (1 + x**2) * turned[1] - y * turned[2]
    expected_x = focal_px * (parallax + rotation)
    np.testing.assert_allclose(field[:, 0], expected_x, atol=1e-3)
    assert 0.001 < np.abs(field).max() < 0.1


def test_a_rolling_shutters_truth_has_a_pose_for_each_of_some_rows(pool, tmp_path):
    """Readout 20 ms at 40 mm/s: the last row is 0.8 mm ahead of the first."""
    stage = Stage(SPEC.model_copy(update={"readout_s": 0.02, "jitter_mm": 0.0}), LENS, (), "shelf")

    path = record(pool, tmp_path / "rolling.mov", stage=stage)

    poses = np.array(read_truth(tmp_path, file_sha256(path))[3].row.row_poses)
    assert poses[-1, 0] - poses[0, 0] == pytest.approx(0.8)


def test_a_still_is_an_srgb_picture_with_its_own_truth(pool, tmp_path):
    path = record_still(
        tmp_path / "still.jpg",
        pool=pool,
        stage=STAGE,
        shot=BASE,
        carriage=Carriage(SPEC, run_past, seed=1),
        start_s=8.0,
        data=tmp_path,
        seed=1,
    )

    frame = read_truth(tmp_path, file_sha256(path))[0]
    world = World(SPEC, LENS, STAGE.boards, "shelf")
    expected = world.render(frame.pose[None], BASE, frame_seed=None, transfer="srgb")
    error = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB).astype(float) - expected
    assert abs(error.mean()) < 0.5
    assert np.abs(error).mean() < 4


def test_an_impossible_condition_is_refused_before_a_file_is_written(pool, tmp_path):
    with pytest.raises(SceneError, match="no condition 'fog'"):
        record(pool, tmp_path / "take.mov", shot=Shot(ExposureSettings(), {"fog": "light"}))

    assert not list(tmp_path.iterdir())


def test_the_same_seeds_record_the_same_bytes(pool, tmp_path):
    first, again = (record(pool, tmp_path / name) for name in ("a.mov", "b.mov"))

    assert file_sha256(first) == file_sha256(again)


def test_an_unknown_recording_has_no_truth(tmp_path):
    with pytest.raises(SceneError, match="no truth"):
        read_truth(tmp_path, "0" * 64)
    assert truth_path(tmp_path, "ab").name == "ab.jsonl"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_the_processes_end_when_the_one_that_started_them_is_killed(start: str):
    program = (
        "import os, time\n"
        "from rig.sim.movie import RenderPool\n"
        "if __name__ == '__main__':\n"
        f"    pool = RenderPool(start='{start}')\n"
        "    print(*{pool._executor.submit(os.getpid).result() for _ in range(2)}, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert children

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
