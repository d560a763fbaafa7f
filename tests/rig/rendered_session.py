"""Sessions rendered without devices, so that one thing at a time can be wrong with a take and everything is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignment.velocity import Kinematics
from catalog.records import Degradation
from catalog.session_folder import (
    CameraTake,
    ColourTags,
    ExposureSettings,
    FrameTime,
    Role,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    SweepRecord,
    TakeRecord,
    TelemetrySample,
)
from rig.clock import SessionClock
from rig.profile import RigProfile
from rig.session import SessionRecorder, TakeRecorder
from rig.sim.carriage import Carriage
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.movie import jpeg
from rig.sim.truth import TruthRow, write_truth
from rig.sim.world import Shot, World, truth_row

Series = NDArray[np.float64]
Codes = NDArray[np.uint8]

ACCELERATION_MM_S2 = 200.0
MARGIN_MM = 2.0
REST_S = 0.8
START_MM, END_MM = 100.0, 140.0
CLEAN = ExposureSettings(iso=100, f_number=8, exposure_s=0.005, focus_m=2.0)
BT709 = ColourTags(matrix="bt709", range="tv", transfer="bt709", primaries="bt709")
WIDTH, HEIGHT, RATE_HZ = 640, 360, 20.0


@cache
def small_profile() -> RigProfile:
    """The shipped simulated rig with smaller pictures."""
    profile = RigProfile.load("sim")
    assert profile.simulation is not None
    size = {"width": WIDTH, "height": HEIGHT, "frame_rate_hz": RATE_HZ}
    return profile.model_copy(update={"simulation": profile.simulation.model_copy(update=size)})


@cache
def world(scene: str) -> World:
    """The scene of a session; built once per process."""
    profile = small_profile()
    assert profile.simulation is not None
    return World(profile.simulation, profile.lens, profile.boards, scene)


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a take, unknown to rail and camera."""

    settings: ExposureSettings | None = None
    """What the body really uses."""
    conditions: dict[str, str] = field(default_factory=dict)
    """What is in the scene beside what the round asks for."""
    motion: Callable[[Series, Series], Series] = lambda mm, t_s: mm
    """Turns the rail's places at times into the true ones."""
    turned_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Pitch, yaw, roll added to the camera."""
    picture: Callable[[Codes, int, int], Codes] = lambda codes, index, count: codes


FINE = Wrong()


def movie_round(
    number: int,
    name: str,
    role: Role,
    *,
    velocity_mm_s: float = 40.0,
    settings: ExposureSettings = CLEAN,
    conditions: dict[str, str] | None = None,
    degradations: tuple[Degradation, ...] = (),
    stops_mm: tuple[float, ...] = (),
) -> RoundRecord:
    """Describe a round of the bench's sweep."""
    sweep = SweepRecord(
        start_mm=START_MM, end_mm=END_MM, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=ACCELERATION_MM_S2
    )
    return RoundRecord(
        number=number,
        name=name,
        role=role,
        settings=settings,
        conditions=conditions or {},
        degradations=degradations,
        sweep=sweep,
        stops_mm=stops_mm,
    )


class RenderedSession:
    """A session whose takes are rendered here.

    Args:
        data: Data folder.
        rounds: The plan.
        scene: Arranges the world.
    """

    def __init__(self, data: Path, rounds: Sequence[RoundRecord], *, scene: str = "bookshelf-03") -> None:
        self.data, self.scene = data, scene
        profile = small_profile()
        record = SessionRecord(
            session="rendered",
            scene=scene,
            created_utc_us=1,
            source="captured",
            rig="sim",
            simulated=True,
            cameras=("main",),
            boards=profile.boards,
            lens=profile.lens,
            rounds=tuple(rounds),
        )
        sessions = data / "sessions"
        sessions.mkdir(parents=True)
        self.clock = SessionClock()
        self.recorder = SessionRecorder.create(sessions, record, self.clock)
        self.folder = SessionFolder(sessions / "rendered")
        self.rounds = {r.name: r for r in rounds}

    def close(self) -> None:
        """Let go of the folder."""
        self.recorder.__exit__(None, None, None)

    def take(self, name: str, *, seed: int, wrong: Wrong = FINE) -> int:
        """Record one take of a round and return its number."""
        round_ = self.rounds[name]
        take = self.recorder.begin_take(round_)
        camera, telemetry = (self._stills if round_.stops_mm else self._movie)(take, seed, wrong)
        take.finish(
            TakeRecord(
                round=round_,
                take=take.number,
                cameras={"main": camera},
                telemetry=take.save_telemetry("telemetry.csv", telemetry),
                files=take.files,
            )
        )
        return take.number

    def _movie(self, take: TakeRecorder, seed: int, wrong: Wrong) -> tuple[CameraTake, list[TelemetrySample]]:
        motion = _motion(take.round)
        count = int((motion.stop_s + REST_S) * RATE_HZ)
        starts_s = np.arange(count) / RATE_HZ
        shot, carriage = self._shot(take, seed, wrong), self._carriage(motion.position, seed, wrong)
        path = take.folder / "main-01.mov"
        rows: list[TruthRow] = []
        with MovieEncoder(path, width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ, crf=10) as movie:
            for index, start_s in enumerate(starts_s):
                poses = self._poses(carriage, float(start_s), shot, wrong)
                codes = world(self.scene).render(poses, shot, frame_seed=1000 * seed + index)
                movie.write(to_yuv420(wrong.picture(codes, index, count)))
                rows.append(self._truth(poses, shot, index, float(start_s)))
        write_truth(self.data, path, world(self.scene).truth_header(shot), rows)
        frames = [FrameTime(k, k, f"1/{RATE_HZ:.0f}", float(t)) for k, t in enumerate(starts_s)]
        camera = self._camera(take, ("main-01.mov",), frames, movie=True)
        times = np.arange(REST_S, motion.stop_s + 0.1, 0.05)
        telemetry = [TelemetrySample(float(t), float(motion.position(t)), 0.0, "moving") for t in times]
        return camera, telemetry

    def _stills(
        self, take: TakeRecorder, seed: int, wrong: Wrong
    ) -> tuple[CameraTake, list[TelemetrySample]]:
        stops = np.array(take.round.stops_mm)
        take.begin_folder("main")
        shot = self._shot(take, seed, wrong)
        names, telemetry = [], []
        for k, stop_mm in enumerate(stops):
            carriage = self._carriage(lambda t_s, at=stop_mm: np.full_like(t_s, at), seed, wrong)
            poses = self._poses(carriage, float(k), shot, wrong)
            codes = world(self.scene).render(poses, shot, frame_seed=1000 * seed + k, transfer="srgb")
            names.append(f"main/{k:06d}.jpg")
            path = take.folder / names[-1]
            path.write_bytes(jpeg(wrong.picture(codes, k, len(stops))))
            write_truth(
                self.data, path, world(self.scene).truth_header(shot), [self._truth(poses, shot, 0, float(k))]
            )
            telemetry += [TelemetrySample(k + dt, float(stop_mm), 0.0, "idle") for dt in (0.0, 0.2)]
        frames = [FrameTime(k, k, "1/1", float(k)) for k in range(len(stops))]
        return self._camera(take, tuple(names), frames, movie=False), telemetry

    def _camera(
        self, take: TakeRecorder, names: tuple[str, ...], frames: list[FrameTime], *, movie: bool
    ) -> CameraTake:
        from catalog.session_folder import file_sha256

        for name in names:
            take.adopt(take.folder / name, file_sha256(take.folder / name))
        return CameraTake(
            kind="movie" if movie else "stills",
            files=names,
            frames_csv=take.save_frames("main", frames),
            width=WIDTH,
            height=HEIGHT,
            frame_count=len(frames),
            measured_rate_hz=RATE_HZ if movie else 0.0,
            colour=BT709 if movie else ColourTags(),
            settings_read=take.round.settings,
        )

    def _shot(self, take: TakeRecorder, seed: int, wrong: Wrong) -> Shot:
        return Shot(
            wrong.settings or take.round.settings, {**take.round.conditions, **wrong.conditions}, seed
        )

    def _carriage(self, position: Callable[[Series], Series], seed: int, wrong: Wrong) -> Carriage:
        def true_mm(t_s: Series) -> Series:
            return wrong.motion(np.asarray(position(t_s)), np.asarray(t_s))

        return Carriage(world(self.scene).spec, true_mm, seed=seed)

    def _poses(self, carriage: Carriage, start_s: float, shot: Shot, wrong: Wrong) -> Series:
        exposure_s = shot.settings.exposure_s or 0.0
        poses = carriage.poses(np.linspace(start_s, start_s + exposure_s, 3))
        poses[:, 3:] += np.array(wrong.turned_deg)
        return poses

    def _truth(self, poses: Series, shot: Shot, index: int, t_s: float) -> TruthRow:
        spec, lens = world(self.scene).spec, world(self.scene).lens
        return truth_row(spec, lens, poses, shot, index=index, t_s=t_s)


def _motion(round_: RoundRecord) -> Kinematics:
    """The commanded motion: rest, ramp, uniform with its margins, ramp, rest."""
    assert round_.sweep is not None
    speed = round_.sweep.velocity_mm_s
    ramp_s = speed / ACCELERATION_MM_S2
    length_mm = abs(round_.sweep.end_mm - round_.sweep.start_mm) + 2 * MARGIN_MM
    start_mm = round_.sweep.start_mm - MARGIN_MM - speed * ramp_s / 2
    return Kinematics("trapezoid", REST_S, ramp_s, length_mm / speed, speed, start_mm)
