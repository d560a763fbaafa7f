"""Sessions rendered without devices: all that there is to find is known, and one thing at a time can be wrong."""

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
    SESSIONS_FOLDER,
    BoardSpec,
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
    file_sha256,
)
from rig.clock import SessionClock
from rig.profile import RigProfile, SimulationSpec
from rig.session import SessionRecorder, TakeRecorder
from rig.sim.carriage import Carriage
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.movie import jpeg
from rig.sim.sensor import Transfer
from rig.sim.truth import TruthRow, write_truth
from rig.sim.world import Shot, World, truth_row

Series = NDArray[np.float64]
Codes = NDArray[np.uint8]

ACCELERATION_MM_S2 = 200.0
MARGIN_MM = 2.0
REST_S = 0.8
CLEAN = ExposureSettings(iso=100, f_number=8, exposure_s=0.005, focus_m=2.0)
LARGE_BOARDS = (
    BoardSpec(columns=6, rows=5, square_mm=100, marker_mm=75),
    BoardSpec(columns=6, rows=5, square_mm=130, marker_mm=98, first_id=15),
)
"""Larger squares than the shipped profile's, for measuring a rig in small pictures."""
FAR_BOARDS_MM = (1900.0, 2700.0)
"""Farther away than on the shipped rig, so that at 640x360 the one board is just near enough to decode."""
BT709 = ColourTags(matrix="bt709", range="tv", transfer="bt709", primaries="bt709")
_INSTANTS = 9
"""Poses from the first row's start to the last row's end."""


def simulation(*, width: int = 640, height: int = 360, **changes: object) -> SimulationSpec:
    """The shipped simulated rig with smaller pictures, boards farther away and other changes."""
    spec = RigProfile.load("sim").simulation
    assert spec is not None
    small = {"width": width, "height": height, "frame_rate_hz": 20.0, "board_depths_mm": FAR_BOARDS_MM}
    return SimulationSpec.model_validate(spec.model_dump() | small | changes)


@dataclass(frozen=True)
class RigTruth:
    """What is true of a rendered rig and not told to anybody."""

    spec: SimulationSpec = field(default_factory=lambda: simulation(movie_crf=10))
    boards: tuple[BoardSpec, ...] = field(default_factory=lambda: RigProfile.load("sim").boards)
    mm_per_mm: float = 1.0
    """True way over commanded way."""
    transfer: Transfer = "bt709"
    """The tone curve used; movies are tagged BT.709 all the same."""
    clock_offset_s: float = 0.0
    """Rail clock less movie clock."""


def _as_told(mm: Series, t_s: Series) -> Series:
    del t_s
    return mm


def _as_taken(codes: Codes, index: int, count: int) -> Codes:
    del index, count
    return codes


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a take, unknown to rail and camera."""

    settings: ExposureSettings | None = None
    """What the body really uses."""
    conditions: dict[str, str] = field(default_factory=dict)
    """What is in the scene beside what the round asks for."""
    motion: Callable[[Series, Series], Series] = _as_told
    """Turns the rail's places at times into the true ones."""
    turned_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Pitch, yaw, roll added to the camera."""
    picture: Callable[[Codes, int, int], Codes] = _as_taken
    """Changes the picture of that number among so many."""


FINE = Wrong()


def planned_round(
    number: int,
    name: str,
    role: Role = "internal",
    *,
    start_mm: float = 100.0,
    end_mm: float = 140.0,
    velocity_mm_s: float = 40.0,
    settings: ExposureSettings = CLEAN,
    conditions: dict[str, str] | None = None,
    degradations: tuple[Degradation, ...] = (),
    stops_mm: tuple[float, ...] = (),
    **changes: float,
) -> RoundRecord:
    """Describe a round; ``changes`` replace members of its settings."""
    sweep = SweepRecord(
        start_mm=start_mm, end_mm=end_mm, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=ACCELERATION_MM_S2
    )
    return RoundRecord(
        number=number,
        name=name,
        role=role,
        settings=ExposureSettings.model_validate(settings.model_dump() | changes),
        conditions=conditions or {},
        degradations=degradations,
        sweep=sweep,
        stops_mm=stops_mm,
    )


@cache
def _world(spec: SimulationSpec, boards: tuple[BoardSpec, ...], scene: str, photos: Path | None) -> World:
    return World(spec, RigProfile.load("sim").lens, boards, scene, photos)


class RenderedSession:
    """A session whose takes are rendered here.

    Args:
        data: Data folder.
        rounds: The plan.
        truth: The rig.
        scene: Arranges the world.
        name: Of the session.
        calibration: Hash that goes into `session.json`.
        photos: Folder of photographs.
    """

    def __init__(
        self,
        data: Path,
        rounds: Sequence[RoundRecord],
        *,
        truth: RigTruth | None = None,
        scene: str = "bookshelf-03",
        name: str = "rendered",
        calibration: str | None = None,
        photos: Path | None = None,
    ) -> None:
        self.data, self.truth = data, truth or RigTruth()
        self.world = _world(self.truth.spec, self.truth.boards, scene, photos)
        record = SessionRecord(
            session=name,
            scene=scene,
            created_utc_us=1_700_000_000_000_000,
            source="captured",
            rig="sim",
            simulated=True,
            cameras=("main",),
            boards=self.truth.boards,
            lens=self.world.lens,
            rounds=tuple(rounds),
            calibration=calibration,
        )
        (data / SESSIONS_FOLDER).mkdir(parents=True, exist_ok=True)
        self.clock = SessionClock()
        self.recorder = SessionRecorder.create(data / SESSIONS_FOLDER, record, self.clock)
        self.folder = SessionFolder(data / SESSIONS_FOLDER / name)
        self.rounds = {r.name: r for r in rounds}

    def close(self) -> None:
        """Let go of the folder."""
        self.recorder.__exit__(None, None, None)

    def take(
        self, name: str, *, seed: int, wrong: Wrong = FINE, rest_s: float = REST_S, sweep: bool = True
    ) -> int:
        """Record one take of a round and return its number; without its sweep, only the standstill before it."""
        round_ = self.rounds[name]
        take = self.recorder.begin_take(round_)
        if round_.stops_mm:
            camera, telemetry = self._stills(take, seed, wrong)
        else:
            motion = commanded(round_, rest_s=rest_s)
            end_s = motion.stop_s + rest_s if sweep else rest_s
            camera = self._movie(take, motion.position, end_s, seed, wrong)
            telemetry = self._told(motion.position, end_s)
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

    def _told(self, position: Callable[[Series], Series], end_s: float) -> list[TelemetrySample]:
        times_s = np.arange(0.0, end_s, 0.05)
        places = zip(times_s, position(times_s), strict=True)
        return [
            TelemetrySample(float(t + self.truth.clock_offset_s), float(x), 0.0, "run") for t, x in places
        ]

    def _movie(
        self,
        take: TakeRecorder,
        position: Callable[[Series], Series],
        end_s: float,
        seed: int,
        wrong: Wrong,
    ) -> CameraTake:
        spec = self.truth.spec
        shot, carriage = self._shot(take, seed, wrong), self._carriage(position, seed, wrong)
        path, starts_s = (
            take.folder / "main-01.mov",
            np.arange(int(end_s * spec.frame_rate_hz)) / spec.frame_rate_hz,
        )
        rows: list[TruthRow] = []
        with MovieEncoder(
            path, width=spec.width, height=spec.height, rate_hz=spec.frame_rate_hz, crf=spec.movie_crf
        ) as movie:
            for index, start_s in enumerate(starts_s):
                poses = self._poses(carriage, float(start_s), shot, wrong)
                codes = self.world.render(
                    poses, shot, frame_seed=1000 * seed + index, transfer=self.truth.transfer
                )
                movie.write(to_yuv420(wrong.picture(codes, index, len(starts_s))))
                rows.append(self._truth_row(poses, shot, index, float(start_s)))
        write_truth(self.data, path, self.world.truth_header(shot), rows)
        frames = [FrameTime(k, k, f"1/{spec.frame_rate_hz:.0f}", float(t)) for k, t in enumerate(starts_s)]
        return self._camera(take, ("main-01.mov",), frames, movie=True)

    def _stills(
        self, take: TakeRecorder, seed: int, wrong: Wrong
    ) -> tuple[CameraTake, list[TelemetrySample]]:
        stops = take.round.stops_mm
        take.begin_folder("main")
        shot = self._shot(take, seed, wrong)
        names, telemetry = [], []
        for k, stop_mm in enumerate(stops):
            carriage = self._carriage(lambda t_s, at=stop_mm: np.full_like(t_s, at), seed, wrong)
            poses = self._poses(carriage, float(k), shot, wrong)
            codes = self.world.render(poses, shot, frame_seed=1000 * seed + k, transfer="srgb")
            names.append(f"main/{k:06d}.jpg")
            path = take.folder / names[-1]
            path.write_bytes(jpeg(wrong.picture(codes, k, len(stops))))
            row = self._truth_row(poses, shot, 0, float(k))
            write_truth(self.data, path, self.world.truth_header(shot), [row])
            telemetry += [TelemetrySample(k + dt, float(stop_mm), 0.0, "idle") for dt in (0.0, 0.2)]
        frames = [FrameTime(k, k, "1/1", float(k)) for k in range(len(stops))]
        return self._camera(take, tuple(names), frames, movie=False), telemetry

    def _camera(
        self, take: TakeRecorder, names: tuple[str, ...], frames: list[FrameTime], *, movie: bool
    ) -> CameraTake:
        for name in names:
            take.adopt(take.folder / name, file_sha256(take.folder / name))
        spec = self.truth.spec
        return CameraTake(
            kind="movie" if movie else "stills",
            files=names,
            frames_csv=take.save_frames("main", frames),
            width=spec.width,
            height=spec.height,
            frame_count=len(frames),
            measured_rate_hz=spec.frame_rate_hz if movie else 0.0,
            colour=BT709 if movie else ColourTags(),
            settings_read=take.round.settings,
        )

    def _shot(self, take: TakeRecorder, seed: int, wrong: Wrong) -> Shot:
        conditions = {**take.round.conditions, **wrong.conditions}
        return Shot(wrong.settings or take.round.settings, conditions, seed)

    def _carriage(self, position: Callable[[Series], Series], seed: int, wrong: Wrong) -> Carriage:
        def true_mm(t_s: Series) -> Series:
            way_mm = self.truth.mm_per_mm * np.asarray(position(t_s))
            return wrong.motion(way_mm, np.asarray(t_s))

        return Carriage(self.truth.spec, true_mm, seed=seed)

    def _poses(self, carriage: Carriage, start_s: float, shot: Shot, wrong: Wrong) -> Series:
        span_s = (shot.settings.exposure_s or 0.0) + self.truth.spec.readout_s
        poses = carriage.poses(np.linspace(start_s, start_s + span_s, _INSTANTS))
        poses[:, 3:] += np.array(wrong.turned_deg)
        return poses

    def _truth_row(self, poses: Series, shot: Shot, index: int, t_s: float) -> TruthRow:
        return truth_row(self.truth.spec, self.world.lens, poses, shot, index=index, t_s=t_s)


def commanded(round_: RoundRecord, *, rest_s: float) -> Kinematics:
    """The commanded motion: rest, ramp, uniform with its margins, ramp, rest."""
    assert round_.sweep is not None
    speed = round_.sweep.velocity_mm_s
    ramp_s = speed / ACCELERATION_MM_S2
    length_mm = abs(round_.sweep.end_mm - round_.sweep.start_mm) + 2 * MARGIN_MM
    start_mm = round_.sweep.start_mm - MARGIN_MM - speed * ramp_s / 2
    return Kinematics("trapezoid", rest_s, ramp_s, length_mm / speed, speed, start_mm)
