"""Calibration sessions rendered straight from the simulated world: all that a calibration finds is known here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignment.velocity import Kinematics
from catalog.records import Degradation
from catalog.session_folder import (
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
from rig.sim.sensor import Transfer
from rig.sim.truth import write_truth
from rig.sim.world import Shot, World, truth_row

Series = NDArray[np.float64]

ACCELERATION_MM_S2 = 200.0
MARGIN_MM = 2.0
CLEAN = ExposureSettings(iso=100, f_number=8, exposure_s=0.005, focus_m=2.0)
BOARDS = (
    BoardSpec(columns=6, rows=5, square_mm=100, marker_mm=75),
    BoardSpec(columns=6, rows=5, square_mm=130, marker_mm=98, first_id=15),
)
"""Larger squares than the shipped profile's, for smaller pictures."""
BT709 = ColourTags(matrix="bt709", range="tv", transfer="bt709", primaries="bt709")


@dataclass(frozen=True)
class RigTruth:
    """What is true of a rendered rig and not told to anybody."""

    spec: SimulationSpec
    mm_per_mm: float = 1.0
    """True way over commanded way."""
    transfer: Transfer = "bt709"
    """The tone curve used; movies are tagged BT.709 all the same."""
    clock_offset_s: float = 0.35
    """Rail clock less movie clock."""


def simulation(*, width: int = 640, height: int = 360, **changes: object) -> SimulationSpec:
    """The shipped simulated rig with changes."""
    spec = RigProfile.load("sim").simulation
    assert spec is not None
    size = {"width": width, "height": height, "frame_rate_hz": 20.0}
    return SimulationSpec.model_validate(spec.model_dump() | size | changes)


def planned_round(
    number: int,
    name: str,
    role: Role = "internal",
    *,
    start_mm: float = 100.0,
    end_mm: float = 140.0,
    velocity_mm_s: float = 40.0,
    degradations: tuple[Degradation, ...] = (),
    **settings: float,
) -> RoundRecord:
    """Describe a round; ``settings`` replace those of the clean exposure."""
    sweep = SweepRecord(
        start_mm=start_mm, end_mm=end_mm, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=ACCELERATION_MM_S2
    )
    read = ExposureSettings.model_validate(CLEAN.model_dump() | settings)
    return RoundRecord(
        number=number, name=name, role=role, sweep=sweep, settings=read, degradations=degradations
    )


class RenderedRig:
    """A session whose takes are rendered here.

    Args:
        data: Data folder.
        truth: The rig.
        rounds: The plan.
        scene: Arranges the world.
        name: Of the session.
        calibration: Hash that goes into `session.json`.
        photos: Folder of photographs.
    """

    def __init__(
        self,
        data: Path,
        truth: RigTruth,
        rounds: Sequence[RoundRecord],
        *,
        scene: str = "bookshelf-03",
        name: str = "rendered",
        calibration: str | None = None,
        photos: Path | None = None,
    ) -> None:
        self.data, self.truth = data, truth
        profile = RigProfile.load("sim")
        self.world = World(truth.spec, profile.lens, BOARDS, scene, photos)
        record = SessionRecord(
            session=name,
            scene=scene,
            created_utc_us=1_700_000_000_000_000,
            source="captured",
            rig="sim",
            simulated=True,
            cameras=("main",),
            boards=BOARDS,
            lens=profile.lens,
            rounds=tuple(rounds),
            calibration=calibration,
        )
        (data / "sessions").mkdir(parents=True, exist_ok=True)
        self._recorder = SessionRecorder.create(data / "sessions", record, SessionClock())
        self.folder = SessionFolder(data / "sessions" / name)
        self._rounds = {r.name: r for r in rounds}

    def close(self) -> None:
        """Let go of the folder."""
        self._recorder.__exit__(None, None, None)

    def take(self, name: str, *, seed: int, rest_s: float = 0.8, sweep: bool = True) -> None:
        """Record one take of a round; without its sweep, only the standstill before it."""
        take = self._recorder.begin_take(self._rounds[name])
        motion = commanded(take.round, rest_s=rest_s)
        end_s = motion.stop_s + rest_s if sweep else rest_s
        camera = self._movie(take, motion.position, end_s, seed)
        times = np.arange(0.0, end_s, 0.05)
        telemetry = [
            TelemetrySample(float(t + self.truth.clock_offset_s), float(x), 0.0, "run")
            for t, x in zip(times, motion.position(times), strict=True)
        ]
        take.finish(
            TakeRecord(
                round=take.round,
                take=take.number,
                cameras={"main": camera},
                telemetry=take.save_telemetry("telemetry.csv", telemetry),
                files=take.files,
            )
        )

    def _movie(
        self, take: TakeRecorder, position: Callable[[Series], Series], end_s: float, seed: int
    ) -> CameraTake:
        spec = self.truth.spec
        carriage = Carriage(spec, lambda t: self.truth.mm_per_mm * np.asarray(position(t)), seed=seed)
        shot = Shot(take.round.settings, dict(take.round.conditions), seed)
        path, rate_hz = take.folder / "main-01.mov", spec.frame_rate_hz
        starts_s, rows = np.arange(int(end_s * rate_hz)) / rate_hz, []
        span_s = (take.round.settings.exposure_s or 0.0) + spec.readout_s
        with MovieEncoder(
            path, width=spec.width, height=spec.height, rate_hz=rate_hz, crf=spec.movie_crf
        ) as movie:
            for index, start_s in enumerate(starts_s):
                poses = carriage.poses(np.linspace(start_s, start_s + span_s, 9))
                codes = self.world.render(
                    poses, shot, frame_seed=1000 * seed + index, transfer=self.truth.transfer
                )
                movie.write(to_yuv420(codes))
                rows.append(truth_row(spec, self.world.lens, poses, shot, index=index, t_s=float(start_s)))
        write_truth(self.data, path, self.world.truth_header(shot), rows)
        take.adopt(path, file_sha256(path))
        frames = [FrameTime(k, k, f"1/{rate_hz:.0f}", float(t)) for k, t in enumerate(starts_s)]
        return CameraTake(
            kind="movie",
            files=("main-01.mov",),
            frames_csv=take.save_frames("main", frames),
            width=spec.width,
            height=spec.height,
            frame_count=len(frames),
            measured_rate_hz=rate_hz,
            colour=BT709,
            settings_read=take.round.settings,
        )


def commanded(round_: RoundRecord, *, rest_s: float) -> Kinematics:
    """The commanded motion: rest, ramp, uniform with its margins, ramp, rest."""
    assert round_.sweep is not None
    speed = round_.sweep.velocity_mm_s
    ramp_s = speed / ACCELERATION_MM_S2
    length_mm = abs(round_.sweep.end_mm - round_.sweep.start_mm) + 2 * MARGIN_MM
    start_mm = round_.sweep.start_mm - MARGIN_MM - speed * ramp_s / 2
    return Kinematics("trapezoid", rest_s, ramp_s, length_mm / speed, speed, start_mm)
