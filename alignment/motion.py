"""How each take of a session moved, in the datum of the first ground-truth round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from alignment.camera_motion import TYPICAL_FOCAL_WIDTHS
from alignment.correction import PositionCorrection
from alignment.datum import Datum, visible
from alignment.errors import NoMotionError
from alignment.evenness import Shaking, shaking
from alignment.gates import GateThresholds, RoundReason, judge_motion
from alignment.lost_way import Commanded, find_lost_way
from alignment.matching import PlacedFrame
from alignment.takes import Array, TakeSource
from alignment.tracking import Kind, TargetTrack
from alignment.velocity import (
    FIT_SCALE_PX,
    ClockMatch,
    CruisePositions,
    MotionFit,
    Track,
    cruise_positions,
    fit_kinematics,
    match_clock,
    stop_positions,
    telemetry_track,
)
from catalog.evidence import MotionPhases, RoundMotion

_LEAST_REPORTS = 10
_TURN_SIGMAS = 3.0
"""The turn that the gates permit is taken for so many standard deviations of those that come with moving."""


@dataclass(frozen=True, eq=False)
class TakeMotion:
    """A take's motion, with what matching and registration need of it."""

    source: TakeSource
    record: RoundMotion
    tracks: tuple[TargetTrack, ...]
    track: Track
    fit: MotionFit | None
    """None for stills taken at standstill."""
    cruise: CruisePositions

    @property
    def used(self) -> bool:
        """The take passed the gates on its motion."""
        return self.record.verdict == "used"

    def rejected(self, reason: str) -> TakeMotion:
        """Return the same motion, not to be used."""
        record = self.record.model_copy(
            update={"verdict": "rejected", "reasons": (*self.record.reasons, reason)}
        )
        return replace(self, record=record)

    def velocity_mm_s(self, index: int) -> float:
        """Return the carriage's speed in a frame by the fitted motion; 0 for stills taken at standstill."""
        return float(self.velocities_mm_s[index])

    def way_while_read_mm(self, index: int) -> float:
        """Return how far the carriage goes while a frame's rows are read out; 0 for a global shutter."""
        return self.velocity_mm_s(index) * self.source.readout_s

    @cached_property
    def velocities_mm_s(self) -> Array:
        """``(N,)`` of all frames."""
        return velocities_mm_s(self.fit, self.source.time_s)

    def anchors_at(self, index: int) -> list[Array]:
        """Return every target's place in a frame, ``(2,)`` each, NaN where it was not seen."""
        return [t.anchor_px[index] if visible(t)[index] else np.full(2, np.nan) for t in self.tracks]

    def sigmas_at(self, index: int) -> list[float]:
        """Return the standard deviation of every target's place in a frame, px."""
        return [float(t.sigma_px[index]) for t in self.tracks]

    def marker_share(self, index: int) -> float:
        """Return how well the targets correlate in a frame compared with what is usual in the take.

        The best target decides: a board may leave the view while another stays. 0 where none was found.
        """
        shares = [float(t.ncc[index] / np.median(t.ncc[t.found])) for t in self.tracks if t.found[index]]
        return max(shares, default=0.0)

    def cruise_frames(self, number: int) -> list[PlacedFrame]:
        """List the frames of the uniform motion."""
        c = self.cruise
        return [
            PlacedFrame(number, int(i), float(x), float(s), uniform=True, anchor_px=self._mean_anchor(int(i)))
            for i, x, s in zip(c.frame_index, c.position_mm, c.sigma_mm, strict=True)
        ]

    def other_frames(self, number: int) -> list[PlacedFrame]:
        """List the measured frames outside the uniform motion."""
        inside = set(self.cruise.frame_index.tolist())
        t = self.track
        return [
            PlacedFrame(number, int(i), float(x), float(s), uniform=False)
            for i, x, s in zip(t.frame_index, t.position_mm, t.sigma_mm, strict=True)
            if int(i) not in inside
        ]

    def _mean_anchor(self, index: int) -> tuple[float, float] | None:
        if not all(t.found[index] for t in self.tracks):
            return None
        mean = np.mean([t.anchor_px[index] for t in self.tracks], axis=0)
        return float(mean[0]), float(mean[1])


def turn_sigma_px(width: int, thresholds: GateThresholds) -> float:
    """Return the standard deviation of what turns of a camera on its way do to a picture ``width`` px wide, px."""
    return float(np.radians(thresholds.turn_deg)) * TYPICAL_FOCAL_WIDTHS * width / _TURN_SIGMAS


_VELOCITY_STEP_S = 1e-3


def velocities_mm_s(fit: MotionFit | None, time_s: Array) -> Array:
    """Differentiate a fitted motion at times ``(N,)``; 0 where there is none."""
    if fit is None:
        return np.zeros_like(time_s)
    position = fit.kinematics.position
    rise = position(time_s + _VELOCITY_STEP_S) - position(time_s - _VELOCITY_STEP_S)
    return np.asarray(rise / (2 * _VELOCITY_STEP_S), np.float64)


def readout_way_mm(source: TakeSource, track: Track, *, px_per_mm: float) -> Array | None:
    """Way of the carriage while each frame of a take is read out, ``(N,)``; None for a global shutter.

    Args:
        source: The take.
        track: Its positions as if all rows were exposed together.
        px_per_mm: Scale of the positions.
    """
    if not source.readout_s or source.stops_mm is not None:
        return None
    fit = fit_kinematics(track, fit_scale_mm=FIT_SCALE_PX / px_per_mm)
    return velocities_mm_s(fit, source.time_s) * source.readout_s


def measure_motion(
    source: TakeSource,
    tracks: Sequence[TargetTrack],
    datum: Datum,
    *,
    kind: Kind,
    thresholds: GateThresholds,
    correction: PositionCorrection | None = None,
    tie_clock: bool = True,
) -> TakeMotion:
    """Fit a take's motion to its tracks.

    Args:
        source: The take.
        tracks: Paths of the reference's targets in it.
        datum: Turns them into positions.
        kind: What the targets are.
        thresholds: Gates on the motion.
        correction: Added to the positions.
        tie_clock: Find the offset of the camera's clock from the rail's, which takes as long as the fit itself.

    Raises:
        NoMotionError: The tracks show no uniform motion.
    """
    measured = datum.positions(tracks, time_s=source.time_s)
    readout_mm = readout_way_mm(source, measured, px_per_mm=datum.px_per_mm)
    if readout_mm is not None:
        measured = datum.positions(tracks, time_s=source.time_s, readout_mm=readout_mm)
    added = (correction or PositionCorrection.none()).at(measured.position_mm)
    track = replace(measured, position_mm=measured.position_mm + added)
    scale_mm = FIT_SCALE_PX / datum.px_per_mm
    fit = None if source.stops_mm is not None else fit_kinematics(track, fit_scale_mm=scale_mm)
    cruise = _placed(source, track, fit)
    clock = _clock(source, fit, scale_mm) if tie_clock and fit is not None else None
    record = _record(source, track, fit, cruise, datum=datum, kind=kind, thresholds=thresholds)
    record = _with_clock(record, clock, source).model_copy(update={"datum_shift_mm": float(np.mean(added))})
    return TakeMotion(source, record, tuple(tracks), track, fit, cruise)


def _placed(source: TakeSource, track: Track, fit: MotionFit | None) -> CruisePositions:
    """Place the frames in uniform motion, or the stills of a take that stopped for each."""
    if fit is None:
        return stop_positions(track, stops_mm=source.course, time_s=source.time_s)
    return cruise_positions(
        track,
        fit,
        frame_index=np.arange(len(source.time_s)),
        time_s=source.time_s,
        frame_s=source.frame_s,
    )


def _clock(source: TakeSource, fit: MotionFit, scale_mm: float) -> ClockMatch | None:
    rail = _rail_track(source)
    if rail is None:
        return None
    try:
        return match_clock(fit, rail, fit_scale_mm=scale_mm)
    except NoMotionError:
        return None


def _rail_track(source: TakeSource) -> Track | None:
    """What the rail reported, on the take's time line; None if that is too little to tell a motion."""
    if len(source.telemetry_time_s) < _LEAST_REPORTS:
        return None
    time_s = source.telemetry_time_s - source.start_t_host_s
    return telemetry_track(telemetry_time_s=time_s, telemetry_mm=source.telemetry_mm)


def _record(
    source: TakeSource,
    track: Track,
    fit: MotionFit | None,
    cruise: CruisePositions,
    *,
    datum: Datum,
    kind: Kind,
    thresholds: GateThresholds,
) -> RoundMotion:
    """Report a motion as the tracks alone tell it; stills taken at standstill have no speed, but a place."""
    shaken = _shaking(source, track, cruise, datum=datum, thresholds=thresholds)
    reasons = _reasons(source, track, fit, shaken, datum=datum, kind=kind, thresholds=thresholds)
    off_mm = track.position_mm - cruise.position_mm[track.frame_index] if fit is None else fit.residual_mm
    measured = {
        "verdict": "rejected" if reasons else "used",
        "reasons": reasons,
        "evidence": (kind, "telemetry") if fit is None else (kind,),
        "residual_sd_px": cruise.residual_sd_mm * datum.px_per_mm,
        "shaken_sd_px": shaken.sd_mm * datum.px_per_mm,
        "autocorrelation": shaken.autocorrelation,
        "sigma_measurement_mm": cruise.sigma_measurement_mm,
        "sigma_jitter_mm": cruise.sigma_jitter_mm,
        "frames_tracked": len(track.time_s),
        "time_s": _rounded(track.time_s),
        "position_mm": _rounded(track.position_mm),
        "residual_px": _rounded(off_mm * datum.px_per_mm),
        "warnings": source.warnings,
    }
    unmeasured = _unmeasured(
        source.round.name, take=source.take, camera=source.camera_name, frames=len(source.time_s)
    )
    return unmeasured.model_copy(update=measured if fit is None else measured | _phases(source, fit))


def _phases(source: TakeSource, fit: MotionFit) -> dict[str, object]:
    """What a fitted motion adds to a round's record."""
    k, sweep = fit.kinematics, source.round.sweep
    begin, end = fit.cruise(source.frame_s)
    return {
        "profile": k.profile,
        "phases": MotionPhases(start_s=k.start_s, cruise_start_s=begin, cruise_end_s=end, stop_s=k.stop_s),
        "velocity_mm_s": k.velocity_mm_s,
        "velocity_sigma_mm_s": fit.velocity_sigma_mm_s,
        "acceleration_mm_s2": k.acceleration_mm_s2,
        "commanded_velocity_mm_s": None if sweep is None else sweep.velocity_mm_s,
    }


def _with_clock(record: RoundMotion, clock: ClockMatch | None, source: TakeSource) -> RoundMotion:
    """Add what telemetry tells, where it could be tied to the motion."""
    if clock is None:
        return record
    return record.model_copy(
        update={
            "evidence": (*record.evidence, "telemetry"),
            "clock_offset_s": clock.offset_s + source.start_t_host_s,
            "telemetry_time_s": _rounded(clock.time_s),
            "telemetry_position_mm": _rounded(clock.position_mm),
        }
    )


def _reasons(
    source: TakeSource,
    track: Track,
    fit: MotionFit | None,
    shaken: Shaking,
    *,
    datum: Datum,
    kind: Kind,
    thresholds: GateThresholds,
) -> tuple[RoundReason, ...]:
    """Judge a motion by itself, and by what was commanded where boards of known size tell it."""
    judged = partial(
        judge_motion,
        shaken_sd_px=shaken.sd_mm * datum.px_per_mm,
        autocorrelation=shaken.autocorrelation,
        thresholds=thresholds,
    )
    if fit is None:
        return judged(velocity_mm_s=0.0, commanded_mm_s=None)
    k, by_boards = fit.kinematics, kind == "markers"
    sweep = source.round.sweep if by_boards else None
    turn_mm = turn_sigma_px(source.camera.width, thresholds) / datum.px_per_mm
    reasons = judged(
        velocity_mm_s=k.velocity_mm_s,
        commanded_mm_s=None if sweep is None else sweep.velocity_mm_s,
        angle_error=_TURN_SIGMAS * turn_mm / max(abs(k.velocity_mm_s) * k.cruise_s, 1e-9),
    )
    told = Commanded.of(source) if by_boards else None
    lost = None if told is None else find_lost_way(track, k, told, turn_mm=turn_mm)
    return (*reasons, "lost_way") if lost is not None and lost.is_sure else reasons


def _shaking(
    source: TakeSource,
    track: Track,
    cruise: CruisePositions,
    *,
    datum: Datum,
    thresholds: GateThresholds,
) -> Shaking:
    return shaking(
        track,
        cruise,
        source.course,
        turn_mm=turn_sigma_px(source.camera.width, thresholds) / datum.px_per_mm,
        least_mm=thresholds.stick_slip_floor_px / datum.px_per_mm,
    )


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)


def rejected_motion(round_name: str, *, take: int, camera: str, reason: str, frames: int = 0) -> RoundMotion:
    """Report a round whose motion could not be measured."""
    unmeasured = _unmeasured(round_name, take=take, camera=camera, frames=frames)
    return unmeasured.model_copy(update={"reasons": (reason,)})


def _unmeasured(round_name: str, *, take: int, camera: str, frames: int) -> RoundMotion:
    return RoundMotion(
        round=round_name,
        take=take,
        camera=camera,
        verdict="rejected",
        evidence=(),
        profile=None,
        phases=None,
        velocity_mm_s=None,
        velocity_sigma_mm_s=None,
        acceleration_mm_s2=None,
        commanded_velocity_mm_s=None,
        residual_sd_px=None,
        autocorrelation=None,
        sigma_measurement_mm=None,
        sigma_jitter_mm=None,
        clock_offset_s=None,
        frames=frames,
        frames_tracked=0,
        time_s=(),
        position_mm=(),
        residual_px=(),
    )


def picture_scale(source: TakeSource, fit: MotionFit) -> float | None:
    """Tell the px per mm of a datum that counts px, from the commanded speed or telemetry; None without either.

    The command comes first: a stepper keeps its speed as exactly as a quartz, while late reports can tilt the
    telemetry of a short sweep by percents. A carriage that did not keep the speed goes too far or too short by it.
    """
    if source.round.sweep is not None:
        return abs(fit.kinematics.velocity_mm_s) / source.round.sweep.velocity_mm_s
    rail = _rail_track(source)
    if rail is None:
        return None
    try:
        told = fit_kinematics(rail, fit_scale_mm=FIT_SCALE_PX)
    except NoMotionError:
        return None
    return abs(fit.kinematics.velocity_mm_s / told.kinematics.velocity_mm_s)
