"""Takes without pictures: where boards would be seen, with the errors of a rail and of measuring, judged as in earnest.

A track of a board costs a millisecond instead of a rendered movie, so that thousands of takes with and without lost
steps, stalls and slip can be held against the live check. What the pictures alone tell (light, focus, registration) is
left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignment.datum import Datum
from alignment.errors import NoMotionError
from alignment.gates import GateThresholds
from alignment.motion import measure_motion
from alignment.photometry import standard_tone_curve
from alignment.reference import Reference
from alignment.takes import TakeSource
from alignment.tracking import ReferenceTracks, Target, TargetTrack
from alignment.velocity import Kinematics
from catalog.session_folder import (
    CameraTake,
    ColourTags,
    ExposureSettings,
    RoundRecord,
    SessionRecord,
    SweepRecord,
)
from rig.live_judge import Judge, LookedAt
from rig.live_measure import RestPicture, rests_of
from rig.profile import RigProfile
from rig.sim.carriage import Carriage

Series = NDArray[np.float64]
FaultName = Literal["none", "lost_before", "lost_in_motion", "stall", "slip", "drift", "stick_slip"]
FAULTS: tuple[FaultName, ...] = ("lost_before", "lost_in_motion", "stall", "slip", "drift")
"""Those that lose way; stick-slip arrives where it should."""

RATE_HZ = 30.0
REST_S = 0.8
ACCELERATION_MM_S2 = 200.0
MARGIN_MM = 2.0
START_MM = 100.0
SPEEDS_MM_S = (20.0, 40.0, 60.0)
TRUTH_SPEED_MM_S = 13.0
STRIDE = 4
"""As the live check looks at these takes: 3 px of error at constant speed, with 200 mm/s² and 0.83 px per mm."""
CLEAN_PX, NOISY_PX = (0.01, 0.04), (0.04, 0.15)
"""Standard deviation of one place of a board, from and to: clean movies, and ISO 6400 or rain."""
OUTLIERS = 0.01
"""Share of places that are five times as uncertain as claimed: something in front of a marker."""
SETTINGS = ExposureSettings(iso=100, f_number=8, exposure_s=0.002)
LEAST_MM, MOST_MM = 1.0, 4.0
"""What is lost is at least twice what matters (`rig.live_limits`)."""
LEAST_SLIP, MOST_SLIP = 0.01, 0.05
STUCK_MM = 20.0
"""Way commanded from one slip to the next."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a motion, in mm that the carriage is off at its end; for stick-slip, of every slip."""

    name: FaultName
    size_mm: float = 0.0
    at: float = 0.5
    """Where it strikes, as a share of the way."""

    def truth(self, mm: Series, t_s: Series, motion: Kinematics) -> Series:
        """Turn commanded places at times into true ones."""
        return mm - self._lost_mm(mm - motion.rest_mm, t_s, motion)

    def _lost_mm(self, way_mm: Series, t_s: Series, motion: Kinematics) -> Series:
        whole_mm = motion.velocity_mm_s * (motion.cruise_s + motion.ramp_s)
        shape = np.zeros_like(way_mm)
        match self.name:
            case "lost_before":
                shape += 1.0
            case "lost_in_motion":
                shape += way_mm > self.at * whole_mm
            case "stall":
                shape += np.maximum(way_mm - (whole_mm - abs(self.size_mm)), 0.0) / self.size_mm
            case "slip":
                shape += way_mm / whole_mm
            case "drift":
                share = (t_s - motion.start_s) / (motion.stop_s - motion.start_s)
                shape += np.clip(share, 0, 1) ** 2
            case "stick_slip":
                shape += ((way_mm > 0) & (way_mm < whole_mm)) * (way_mm / STUCK_MM % 1 - 0.5)
        return self.size_mm * shape


GOOD = Fault("none")


@dataclass(frozen=True)
class Setting:
    """What the takes of a bench have in common."""

    length_mm: float = 200.0
    """Of the uniform part."""
    noise_px: tuple[float, float] = CLEAN_PX
    boards: int = 2
    """How many of the rig's boards are decoded: one cannot tell travel from a turn of the camera."""
    stride: int = STRIDE
    """Every so-manieth frame is looked at."""
    bends_deg: float | None = None
    """Standard deviation of pitch and yaw along the rail; that of the simulated rig if None."""

    def motion(self, velocity_mm_s: float) -> Kinematics:
        """Return the commanded motion: rest, ramp, uniform with its margins, ramp, rest."""
        ramp_s = velocity_mm_s / ACCELERATION_MM_S2
        length_mm = self.length_mm + 2 * MARGIN_MM
        rest_mm = START_MM - MARGIN_MM - velocity_mm_s * ramp_s / 2
        return Kinematics("trapezoid", REST_S, ramp_s, length_mm / velocity_mm_s, velocity_mm_s, rest_mm)


@cache
def profile() -> RigProfile:
    """The shipped simulated rig."""
    return RigProfile.load("sim")


class SlipBench:
    """A session of takes of one sweep, its ground truth first.

    Args:
        seed: Everything random follows from it.
        setting: What its takes have in common.
    """

    def __init__(self, seed: int, setting: Setting) -> None:
        self._setting = setting
        self.random = np.random.default_rng(seed)
        spec = profile().simulation
        assert spec is not None
        bends = {} if setting.bends_deg is None else {"pitch_yaw_deg": setting.bends_deg}
        self._spec = spec.model_copy(update={"seed": seed, **bends})
        self._depths_mm = spec.board_depths_mm[: setting.boards]
        lens = profile().lens
        assert lens is not None
        self._focal_px = lens.focal_mm / lens.sensor_width_mm * spec.width
        self._record = SessionRecord(
            session="slip",
            scene="slip",
            created_utc_us=1,
            source="captured",
            rig="sim",
            simulated=True,
            cameras=("main",),
            boards=profile().boards,
            lens=lens,
            rounds=(),
        )
        self._gates = GateThresholds()
        self._reference, self._truth = self._ground_truth()

    def random_fault(self, name: FaultName) -> Fault:
        """Draw a size and a place; a stall only loses way."""
        size_mm = self.random.uniform(LEAST_MM, MOST_MM)
        if name in {"slip", "drift"}:
            size_mm = self.random.uniform(LEAST_SLIP, MOST_SLIP) * self._setting.length_mm
        sign = 1.0 if name == "stall" else float(self.random.choice([-1.0, 1.0]))
        return Fault(name, sign * size_mm, self.random.uniform(0.1, 0.9))

    def spoiled(self, fault: Fault = GOOD) -> list[str]:
        """Record one take and return what is called spoiled about it."""
        source, tracks = self._take(float(self.random.choice(SPEEDS_MM_S)), "internal", fault)
        try:
            looked = self._looked(source, tracks)
        except NoMotionError:
            return ["motion"]
        judge = Judge(
            looked,
            truths=(self._truth,),
            registered=(),
            tried=0,
            reference=self._reference,
            record=self._record,
            gates=self._gates,
        )
        return [f.what for f in judge.findings() if f.verdict == "spoiled"]

    def _ground_truth(self) -> tuple[Reference, LookedAt]:
        source, tracks = self._take(TRUTH_SPEED_MM_S, "gt", GOOD)
        scales = [self._focal_px / z for z in self._depths_mm]
        targets = [Target("markers", px_per_mm=[s]) for s in scales]
        followed = ReferenceTracks(targets, tracks, standard_tone_curve("bt709"))
        datum = Datum.of(followed)
        motion = measure_motion(source, tracks, datum, kind="markers", thresholds=self._gates)
        self._reference = Reference(source, followed, datum, motion, ())
        return self._reference, self._looked(source, tracks)

    def _looked(self, source: TakeSource, tracks: list[TargetTrack]) -> LookedAt:
        motion = measure_motion(source, tracks, self._reference.datum, kind="markers", thresholds=self._gates)
        picture = RestPicture(np.full((4, 4, 3), 0.2, np.float32), 0.0, 100.0, 0.8)
        return LookedAt(source, motion, self._setting.stride, rests_of(motion), picture)

    def _take(
        self, velocity_mm_s: float, role: Literal["gt", "internal"], fault: Fault
    ) -> tuple[TakeSource, list[TargetTrack]]:
        motion = self._setting.motion(velocity_mm_s)
        time_s = np.arange(int((motion.stop_s + REST_S) * RATE_HZ)) / RATE_HZ
        carriage = Carriage(
            self._spec,
            lambda t_s: fault.truth(motion.position(t_s), t_s, motion),
            seed=int(self.random.integers(2**31)),
        )
        poses = carriage.poses(time_s)
        noise_px = float(np.exp(self.random.uniform(*np.log(self._setting.noise_px))))
        tracks = [self._track(poses, depth_mm, noise_px) for depth_mm in self._depths_mm]
        sweep = SweepRecord(
            start_mm=START_MM,
            end_mm=START_MM + self._setting.length_mm,
            velocity_mm_s=velocity_mm_s,
            acceleration_mm_s2=ACCELERATION_MM_S2,
        )
        return _source(motion, time_s, sweep, role), tracks

    def _track(self, poses: Series, depth_mm: float, noise_px: float) -> TargetTrack:
        """See a board as a pinhole does: travel by its depth, turns by the focal length alone."""
        yaw, pitch = np.radians(poses[:, 4]), np.radians(poses[:, 3])
        x_px = -self._focal_px * ((poses[:, 0] - START_MM) / depth_mm + yaw)
        y_px = -self._focal_px * (poses[:, 1] / depth_mm + pitch)
        count = len(poses)
        scatter = noise_px * np.where(self.random.random(count) < OUTLIERS, 5.0, 1.0)
        anchors = np.stack([x_px, y_px], axis=1) + self.random.normal(size=(count, 2)) * scatter[:, None]
        track = TargetTrack.empty(count)
        for index in range(0, count, self._setting.stride):
            track.put(index, anchors[index], sigma_px=noise_px, ncc=0.98)
        return track


def _source(
    motion: Kinematics, time_s: Series, sweep: SweepRecord, role: Literal["gt", "internal"]
) -> TakeSource:
    """What the rig knows of such a take: the rail always says what was commanded."""
    told_s = np.array([REST_S / 2, motion.stop_s + REST_S / 2])  # judged are the rests alone
    camera = CameraTake(
        kind="movie",
        files=("main-01.mov",),
        frames_csv="main.frames.csv",
        width=1280,
        height=720,
        frame_count=len(time_s),
        measured_rate_hz=RATE_HZ,
        colour=ColourTags(),
        settings_read=SETTINGS,
    )
    return TakeSource(
        round=RoundRecord(number=1, name=role, role=role, settings=SETTINGS, sweep=sweep),
        take=1,
        folder=Path(),
        camera_name="main",
        camera=camera,
        time_s=time_s,
        start_t_host_s=0.0,
        telemetry_time_s=told_s,
        telemetry_mm=np.round(motion.position(told_s), 2),
        files_sha256=(),
    )
