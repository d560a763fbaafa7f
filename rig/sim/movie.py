"""Recordings of the simulated camera: frames are rendered by a pool of processes and encoded in order."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from catalog.session_folder import BoardSpec, LensSpec
from rig.profile import SimulationSpec
from rig.sim.carriage import Carriage
from rig.sim.dng import dng
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.led import PLACE, OutputLog
from rig.sim.optics import Vectors
from rig.sim.sensor import Codes, Transfer, complete
from rig.sim.truth import TruthHeader, TruthRow, write_truth
from rig.sim.world import Shot, World, truth_row

_POSE_STEP_S = 0.002
_MAX_POSES = 65
_STILL_JPEG_QUALITY = 95
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT_BYTES = 1 << 30


@dataclass(frozen=True)
class Stage:
    """All that a world follows from; equal stages are the same world."""

    spec: SimulationSpec
    lens: LensSpec
    boards: tuple[BoardSpec, ...]
    scene: str
    photos: Path | None = None


@dataclass(frozen=True)
class _FrameJob:
    stage: Stage
    shot: Shot
    poses: Vectors
    seed: int
    lit: float = 0.0
    """For which share of the exposure the sync LED was on."""


class RenderPool:
    """Processes that render frames, started once; each keeps its last world and blurred textures.

    A context manager. The processes end with the one that started them, however that ends.

    Args:
        workers: How many processes.
        start: How they begin: "fork" shares what is loaded already, for a process that has no other thread yet.
    """

    def __init__(self, workers: int = 2, *, start: Literal["fork", "spawn"] = "spawn") -> None:
        self._workers = workers
        self._executor = ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context(start), initializer=_start_worker
        )
        self._executor.submit(os.getpid)  # begins them now: a fork must come before any thread

    def prepare(self, stage: Stage, shot: Shot) -> None:
        """Let the processes build the world and blur its textures; returns at once."""
        for _ in range(self._workers):
            self._executor.submit(_prepare, stage, shot)

    def picture(
        self,
        stage: Stage,
        shot: Shot,
        poses: Vectors,
        *,
        seed: int,
        transfer: Transfer = "srgb",
        lit: float = 0.0,
    ) -> Codes:
        """Render one picture: RGB codes, (H, W, 3)."""
        return self._executor.submit(_picture, _FrameJob(stage, shot, poses, seed, lit), transfer).result()

    def raw(self, stage: Stage, shot: Shot, poses: Vectors, *, seed: int, lit: float = 0.0) -> bytes:
        """Render one picture as a raw file; with equal arguments the light is that of `picture`."""
        return self._executor.submit(_raw, _FrameJob(stage, shot, poses, seed, lit)).result()

    def header(self, stage: Stage, shot: Shot) -> TruthHeader:
        """Describe what holds for all frames of a recording."""
        return self._executor.submit(_header, stage, shot).result()

    def movie_frames(self, jobs: Iterable[_FrameJob]) -> Iterator[Codes]:
        """Render frames in order as planar 4:2:0; a few frames ahead of the consumer at most."""
        ahead: deque[Future[Codes]] = deque()
        for job in jobs:
            ahead.append(self._executor.submit(_movie_frame, job))
            if len(ahead) > 2 * self._workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def close(self) -> None:
        """Stop the processes; frames that nobody waits for are dropped."""
        self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def record_movie(
    path: Path,
    *,
    pool: RenderPool,
    stage: Stage,
    shot: Shot,
    carriage: Carriage,
    start_s: float,
    frame_count: int,
    data: Path,
    seed: int,
    led: OutputLog | None = None,
) -> Path:
    """Record a movie of what passed in front of the camera.

    Args:
        path: MOV file to write.
        pool: Renders the frames.
        stage: The world.
        shot: Settings and conditions of the take.
        carriage: The take's true motion.
        start_s: Session time at which the first frame's exposure begins; frame i follows i / rate later.
        frame_count: Number of frames.
        data: Data folder; the truth goes to its `sim-truth`.
        seed: Of the take's noise and rain.
        led: When the sync LED was on; None where there is none.

    Returns:
        ``path``.

    Raises:
        SceneError: A condition, level or white balance does not exist, or no photographs were found.
    """
    header = pool.header(stage, shot)
    spec = stage.spec
    starts_s = start_s + np.arange(frame_count) / spec.frame_rate_hz
    rows: list[TruthRow] = []
    with MovieEncoder(
        path, width=spec.width, height=spec.height, rate_hz=spec.frame_rate_hz, crf=spec.movie_crf
    ) as movie:
        jobs = _jobs(stage, shot, carriage, starts_s, seed=seed, rows=rows, led=led)
        for planes in pool.movie_frames(jobs):
            movie.write(planes)
    write_truth(data, path, header, rows)
    return path


def record_still(
    path: Path,
    *,
    pool: RenderPool,
    stage: Stage,
    shot: Shot,
    carriage: Carriage,
    start_s: float,
    data: Path,
    seed: int,
    led: OutputLog | None = None,
) -> Path:
    """Take one picture; arguments and errors as `record_movie`.

    A path that ends in ``.jpg`` becomes an sRGB JPEG file, any other one a raw file. With equal arguments both show
    the same light and noise.
    """
    header = pool.header(stage, shot)
    poses = _exposure_poses(stage, shot, carriage, start_s)
    frame_seed, lit = _frame_seed(stage, seed, 0), lit_share(led, stage.spec, shot, start_s)
    if path.suffix == ".jpg":
        path.write_bytes(jpeg(pool.picture(stage, shot, poses, seed=frame_seed, lit=lit)))
    else:
        path.write_bytes(pool.raw(stage, shot, poses, seed=frame_seed, lit=lit))
    write_truth(data, path, header, [truth_row(stage.spec, stage.lens, poses, shot, t_s=start_s)])
    return path


def jpeg(codes: Codes, *, quality: int = _STILL_JPEG_QUALITY) -> bytes:
    """Code RGB codes (H, W, 3) as a JPEG file."""
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(codes, cv2.COLOR_RGB2BGR), options)[1])


def lit_share(led: OutputLog | None, spec: SimulationSpec, shot: Shot, t_s: float) -> float:
    """Return for which share of an exposure that begins at ``t_s`` in the first row the sync LED was on."""
    begin_s = t_s + spec.readout_s * PLACE[1]
    return (
        0.0 if led is None else led.share(begin_s, begin_s + complete(shot.settings, spec.metered).exposure_s)
    )


def _jobs(
    stage: Stage,
    shot: Shot,
    carriage: Carriage,
    starts_s: Vectors,
    *,
    seed: int,
    rows: list[TruthRow],
    led: OutputLog | None,
) -> Iterator[_FrameJob]:
    for index, t_s in enumerate(starts_s):
        poses = _exposure_poses(stage, shot, carriage, float(t_s))
        rows.append(truth_row(stage.spec, stage.lens, poses, shot, index=index, t_s=float(t_s)))
        lit = lit_share(led, stage.spec, shot, float(t_s))
        yield _FrameJob(stage, shot, poses, _frame_seed(stage, seed, index), lit)


def _exposure_poses(stage: Stage, shot: Shot, carriage: Carriage, t_s: float) -> Vectors:
    span_s = complete(shot.settings, stage.spec.metered).exposure_s + stage.spec.readout_s
    count = min(math.ceil(span_s / _POSE_STEP_S) + 1, _MAX_POSES)
    return carriage.poses(np.linspace(t_s, t_s + span_s, count))


def _frame_seed(stage: Stage, seed: int, index: int) -> int:
    return int(np.random.SeedSequence([stage.spec.seed, seed, index]).generate_state(1)[0])


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)
    _keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork has its parent's
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Let the process reuse its large arrays.

    glibc gives each one back to the kernel and has it zeroed page by page when the next frame needs it: 10 ms
    of a frame's 47 ms of CPU, measured at 1280x720. Other C libraries have no such call and do without.
    """
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "mallopt"):
        for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            c_library.mallopt(parameter, _KEPT_BYTES)


def _end_with_parent() -> None:
    """A pool's processes outlive a killed parent, each waiting for work on a pipe that it holds open itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@lru_cache(maxsize=1)
def _world(stage: Stage) -> World:
    return World(stage.spec, stage.lens, stage.boards, stage.scene, stage.photos)


def _prepare(stage: Stage, shot: Shot) -> None:
    _world(stage).prepare(shot)


def _picture(job: _FrameJob, transfer: Transfer) -> Codes:
    return _world(job.stage).render(job.poses, job.shot, frame_seed=job.seed, transfer=transfer, lit=job.lit)


def _raw(job: _FrameJob) -> bytes:
    mosaic, neutral = _world(job.stage).mosaic(job.poses, job.shot, frame_seed=job.seed, lit=job.lit)
    return dng(mosaic, neutral=neutral)


def _movie_frame(job: _FrameJob) -> Codes:
    return to_yuv420(_picture(job, "bt709"))


def _header(stage: Stage, shot: Shot) -> TruthHeader:
    return _world(stage).truth_header(shot)
