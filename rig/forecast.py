"""What a plan will do on a rig, computed before a motor turns: travel, time, blur, frames, pairs, violations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from catalog.records import Degradation
from catalog.session_folder import ExposureSettings, RoundRecord, SweepRecord
from rig.calibrated import calibrated_lens, mid_tone_noise, readout_s
from rig.devices.condition import OFF
from rig.devices.envelope import sweep_motion, trapezoid_duration_s
from rig.errors import EnvelopeError, PlanError, RigError
from rig.plan import BaseSettings, CapturePlan, RoundPlan
from rig.profile import RigProfile

if TYPE_CHECKING:
    from alignment.calibration.document import Calibration
    from alignment.calibration.store import StoredCalibration

PARALLAX_TOLERANCE_PX = 0.25
CAMERA_SETTING_S = 2.0
"""Allowance per round for setting the camera and closing its file, s."""
TRANSFER_MB_S = 25.0
"""Assumed speed of copying a file off the card, MB/s; takes are measured."""
STILL_S = 2.0
"""Allowance per still for the shutter and for copying the file, s."""
STILL_MB = 25.0
LONGEST_MOVIE_S = 29 * 60 + 59.0
"""Where many bodies end a movie by themselves."""
EXPOSURE_TOLERANCE_EV = 0.5
_OVER_ROWS = 12**-0.5
"""Root mean square over the rows of what grows evenly from the first one to the last, as a share of its growth."""
_NOISY_RATIO = 2.0
"""Noise over the ground truth's from which a round counts as noisy: one stop of its standard deviation."""


@dataclass(frozen=True)
class RoundForecast:
    """What to expect of one round."""

    round: RoundRecord
    from_mm: float
    to_mm: float
    duration_s: float
    """Recorded time: rest, run-up, uniform part, run-down, rest."""
    uniform_s: float
    frames: int
    """Frames in the uniform part."""
    blur_px: float
    """Motion blur of the nearest thing, px."""
    expected_pairs: int
    size_gb: float
    travel_mm: float
    """Way of the carriage, the way to the start of the round included."""
    positioning_s: float
    """Way to the start, setting the camera, copying the file off the card, s."""
    largest_gap_mm: float
    """Farthest that a frame of this round can lie from the nearest ground-truth frame."""
    readout_gap_mm: float
    """Way of the carriage between the first and the last row, beyond that in the nearest ground truth; 0 where no
    calibration knows the shutter."""
    largest_parallax_px: float
    """What both gaps do between the nearest and the farthest thing, px, root mean square over the rows."""
    noise_codes: float | None
    """Standard deviation of a mid-tone pixel, codes of 255; None where no calibration knows the noise."""


@dataclass(frozen=True)
class Forecast:
    """What to expect of a session."""

    rounds: tuple[RoundForecast, ...]
    parallax_limit_mm: float
    """Largest position gap between the frames of a pair before parallax exceeds a quarter pixel."""
    violations: tuple[RigError, ...]
    """Everything that keeps the plan from running; empty when it can run."""
    warnings: tuple[str, ...] = ()
    """What is allowed but perhaps not meant."""
    operator_steps: tuple[str, ...] = ()
    """What a person has to do, and before which round."""
    calibration: str | None = None
    """Hash of the calibration that lens, shutter and noise were taken from; None for the profile's lens alone."""

    @property
    def duration_s(self) -> float:
        """Whole session, positioning included, operator's pauses not, s."""
        return sum(r.duration_s + r.positioning_s for r in self.rounds)

    @property
    def travel_mm(self) -> float:
        """Way of the carriage in the whole session, mm."""
        return sum(r.travel_mm for r in self.rounds)

    @property
    def size_gb(self) -> float:
        """Disk space of all rounds, GB."""
        return sum(r.size_gb for r in self.rounds)

    @property
    def expected_pairs(self) -> int:
        """Pairs over all rounds."""
        return sum(r.expected_pairs for r in self.rounds)


def forecast(
    plan: CapturePlan, profile: RigProfile, *, calibration: StoredCalibration | None = None
) -> Forecast:
    """Compute what a plan will do on a rig, and every limit it violates.

    Args:
        plan: What to record.
        profile: The rig.
        calibration: What was measured of it; its lens stands in for the profile's.
    """
    known = None if calibration is None else calibration.calibration
    if known is not None:
        profile = profile.model_copy(update={"lens": calibrated_lens(profile.lens, known)})
    limit_mm = parallax_limit_mm(profile)
    records = plan.round_records(
        acceleration_mm_s2=profile.rail.acceleration_mm_s2,
        realised_mm_s=profile.rail.realised_velocity_mm_s,
    )
    bench = _Bench(plan, profile, limit_mm, tuple(r for r in records if r.role == "gt"), known)
    rounds = list(_with_ways_back([_forecast_round(r, bench) for r in records], profile))
    violations = [v for r, record in zip(plan, records, strict=True) for v in _violations(r, record, profile)]
    return Forecast(
        tuple(rounds),
        limit_mm,
        tuple(violations),
        tuple(_warnings(rounds, plan)),
        tuple(_operator_steps(records, profile)),
        None if calibration is None else calibration.hash,
    )


def board_warnings(profile: RigProfile) -> Iterator[str]:
    """Name the boards of a simulated rig that stand too far away for their size; a real one's are measured."""
    from alignment.board_plan import LEAST_MODULE_PX, View, reach_mm, readings  # loads OpenCV

    depths_mm = () if profile.simulation is None else profile.simulation.board_depths_mm
    for number, (board, depth_mm) in enumerate(zip(profile.boards, depths_mm, strict=False), start=1):
        view = View(profile.name, profile.focal_px, (depth_mm,))
        reading = readings(board, view)[0]
        if not reading.readable:
            yield (
                f"board {number}: its modules cover {reading.module_px:.1f} px at {depth_mm:.0f} mm, fewer than "
                f"{LEAST_MODULE_PX:g}; blurred and dark rounds may lose it: set it within {reach_mm(board, view):.0f} "
                "mm (simulation.board_depths_mm), or make it larger"
            )


def parallax_limit_mm(profile: RigProfile) -> float:
    """Return the position gap at which the nearest and farthest thing part by a quarter pixel, mm."""
    near_mm, far_mm = profile.lens.scene_depth_mm
    spread_px_per_mm = profile.focal_px * (1 / near_mm - 1 / far_mm)
    return PARALLAX_TOLERANCE_PX / spread_px_per_mm if spread_px_per_mm > 0 else float("inf")


def _frame_spacing_mm(round_: RoundRecord, profile: RigProfile) -> float:
    if len(round_.stops_mm) > 1:
        return abs(round_.stops_mm[1] - round_.stops_mm[0])
    return _sweep(round_).velocity_mm_s / profile.movie_format.frame_rate_hz


def _velocity_mm_s(round_: RoundRecord) -> float:
    """Speed at which the pictures of a round are exposed."""
    return 0.0 if round_.stops_mm else _sweep(round_).velocity_mm_s


def _sweep(round_: RoundRecord) -> SweepRecord:
    if round_.sweep is None:
        raise PlanError(f"round {round_.name}: no sweep")
    return round_.sweep


@dataclass(frozen=True)
class _Recording:
    """What the camera does in one round."""

    duration_s: float
    uniform_s: float
    frames: int
    blur_px: float
    size_gb: float


def _movie(round_: RoundRecord, plan: CapturePlan, profile: RigProfile) -> _Recording:
    sweep, movie = _sweep(round_), profile.movie_format
    uniform_s = abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s
    duration_s = sweep_motion(sweep, profile.rail.envelope).duration_s + 2 * plan.rest_s
    near_mm = profile.lens.scene_depth_mm[0]
    return _Recording(
        duration_s=duration_s,
        uniform_s=uniform_s,
        frames=int(uniform_s * movie.frame_rate_hz),
        blur_px=sweep.velocity_mm_s * (round_.settings.exposure_s or 0.0) * profile.focal_px / near_mm,
        size_gb=duration_s * movie.bitrate_mbit_s / 8000,
    )


def _stills(round_: RoundRecord, profile: RigProfile) -> _Recording:
    rail = profile.rail
    moves_s = sum(
        trapezoid_duration_s(
            abs(b - a), velocity_mm_s=rail.max_velocity_mm_s, acceleration_mm_s2=rail.acceleration_mm_s2
        )
        for a, b in pairwise(round_.stops_mm)
    )
    shots = len(round_.stops_mm)
    each_s = round_.settle_s + (round_.settings.exposure_s or 0.0) + STILL_S
    return _Recording(moves_s + shots * each_s, 0.0, shots, 0.0, shots * STILL_MB / 1000)


@dataclass(frozen=True)
class _Bench:
    """What all rounds of a forecast have in common."""

    plan: CapturePlan
    profile: RigProfile
    limit_mm: float
    truths: tuple[RoundRecord, ...]
    known: Calibration | None

    @property
    def gt_spacings_mm(self) -> list[float]:
        """Distance between the frames of each ground-truth round."""
        return [_frame_spacing_mm(r, self.profile) for r in self.truths]

    def readout_gap_mm(self, round_: RoundRecord) -> float:
        """Return the way between the first and the last row beyond that in the nearest ground truth."""
        speeds = [abs(_velocity_mm_s(round_) - _velocity_mm_s(truth)) for truth in self.truths]
        return readout_s(self.known) * min(speeds)

    def noise_codes(self, round_: RoundRecord) -> float | None:
        """Return the noise of a mid-tone pixel; what stands before the lens is left out."""
        settings, base = round_.settings, self.plan.base
        return mid_tone_noise(
            self.known, iso=settings.iso or base.iso, brighter_ev=_brighter_ev(settings, base)
        )


def _forecast_round(round_: RoundRecord, bench: _Bench) -> RoundForecast:
    """Pairs are expected by the mean density of all gt passes (random phases); the gap is the guaranteed one."""
    plan, profile, limit_mm = bench.plan, bench.profile, bench.limit_mm
    motion = sweep_motion(_sweep(round_), profile.rail.envelope)
    recording = _stills(round_, profile) if round_.stops_mm else _movie(round_, plan, profile)
    is_gt, spacings_mm = round_.role == "gt", bench.gt_spacings_mm
    gap_mm = 0.0 if is_gt else min(spacings_mm) / 2
    share = 0.0 if is_gt else min(1.0, limit_mm * 2 * sum(1 / spacing_mm for spacing_mm in spacings_mm))
    readout_gap_mm = 0.0 if is_gt else bench.readout_gap_mm(round_)
    return RoundForecast(
        round=round_,
        from_mm=motion.start_mm,
        to_mm=motion.end_mm,
        duration_s=recording.duration_s,
        uniform_s=recording.uniform_s,
        frames=recording.frames,
        blur_px=recording.blur_px,
        expected_pairs=int(recording.frames * share),
        size_gb=recording.size_gb,
        travel_mm=motion.distance_mm,
        positioning_s=CAMERA_SETTING_S + 1000 * recording.size_gb / TRANSFER_MB_S,
        largest_gap_mm=gap_mm,
        readout_gap_mm=readout_gap_mm,
        largest_parallax_px=PARALLAX_TOLERANCE_PX
        * math.hypot(gap_mm, readout_gap_mm * _OVER_ROWS)
        / limit_mm,
        noise_codes=bench.noise_codes(round_),
    )


def _with_ways_back(rounds: Sequence[RoundForecast], profile: RigProfile) -> Iterator[RoundForecast]:
    """Add to every round the way from where the one before ended; the first one starts at the lower end."""
    rail = profile.rail
    at_mm = rail.travel_mm[0]
    for r in rounds:
        back_mm = abs(r.from_mm - at_mm)
        back_s = trapezoid_duration_s(
            back_mm, velocity_mm_s=rail.max_velocity_mm_s, acceleration_mm_s2=rail.acceleration_mm_s2
        )
        yield replace(r, travel_mm=r.travel_mm + back_mm, positioning_s=r.positioning_s + back_s)
        at_mm = r.to_mm


def _warnings(rounds: Sequence[RoundForecast], plan: CapturePlan) -> Iterator[str]:
    for r in rounds:
        name, brighter_ev = r.round.name, _brighter_ev(r.round.settings, plan.base)
        dims_on_purpose = Degradation.LOW_LIGHT in r.round.degradations
        if abs(brighter_ev) > EXPOSURE_TOLERANCE_EV and not dims_on_purpose:
            word = "brighter" if brighter_ev > 0 else "darker"
            yield f"round {name}: {abs(brighter_ev):.1f} EV {word} than the base; compensate with exposure_s or iso"
        if r.duration_s > LONGEST_MOVIE_S and not r.round.stops_mm:
            yield f"round {name}: {r.duration_s / 60:.0f} min; many bodies end a movie at 29:59"
        yield from _parallax_warnings(r)
    yield from _noise_warnings(rounds)
    hours = sum(r.duration_s + r.positioning_s for r in rounds) / 3600
    if hours > plan.longest_h:
        yield f"about {hours:.3g} h: the session ends resumably after {plan.longest_h:g} h (longest_h)"


def _parallax_warnings(r: RoundForecast) -> Iterator[str]:
    if r.largest_parallax_px <= PARALLAX_TOLERANCE_PX:
        return
    if r.readout_gap_mm * _OVER_ROWS > r.largest_gap_mm:
        yield (
            f"round {r.round.name}: while the shutter reads the rows the carriage goes {r.readout_gap_mm:.2f} mm "
            f"farther than in the ground truth: near and far part by {r.largest_parallax_px:.2f} px over the rows; "
            "run the round slower, or the gt round faster with more passes"
        )
        return
    yield (
        f"round {r.round.name}: some frames lie {r.largest_gap_mm:.2f} mm from the nearest ground truth, beyond the "
        f"parallax limit; slow the gt round down or give it more passes"
    )


def _noise_warnings(rounds: Sequence[RoundForecast]) -> Iterator[str]:
    """Name the rounds that are to be noisy and hardly will be."""
    clean = min((r.noise_codes for r in rounds if r.round.role == "gt" and r.noise_codes), default=None)
    for r in rounds:
        wanted = Degradation.NOISE in r.round.degradations
        if clean and wanted and r.noise_codes and r.noise_codes < _NOISY_RATIO * clean:
            yield (
                f"round {r.round.name}: {r.noise_codes:.1f} codes of noise against {clean:.1f} of the ground truth "
                "by the calibration; raise iso and shorten exposure_s"
            )


def _brighter_ev(settings: ExposureSettings, base: BaseSettings) -> float:
    """Return how many stops brighter a picture comes out: exposure time × ISO / f-number²."""
    gain = (settings.iso or base.iso) / base.iso * (settings.exposure_s or base.exposure_s) / base.exposure_s
    return math.log2(gain * (base.f_number / (settings.f_number or base.f_number)) ** 2)


def _operator_steps(rounds: Sequence[RoundRecord], profile: RigProfile) -> Iterator[str]:
    by_hand = [n for n, settings in profile.conditions.items() if settings.kind == "operator"]
    levels = dict.fromkeys(by_hand, OFF)
    for r in rounds:
        for name in by_hand:
            level = r.conditions.get(name, OFF)
            if level != levels[name]:
                yield f"before round {r.number} ({r.name}): set {name} to {level}"
            levels[name] = level


def _violations(plan: RoundPlan, round_: RoundRecord, profile: RigProfile) -> list[RigError]:
    found: list[RigError] = []
    try:
        profile.rail.sweep_motion(_sweep(round_))
    except EnvelopeError as error:
        found.append(
            EnvelopeError(f"round {round_.name}: {error.message}", kept=error.kept, next_step=error.next_step)
        )
    found += _setting_violations(plan, round_, profile)
    return found


def _setting_violations(plan: RoundPlan, round_: RoundRecord, profile: RigProfile) -> list[RigError]:
    found: list[RigError] = []
    frame_s = 1 / profile.movie_format.frame_rate_hz
    exposure_s = round_.settings.exposure_s or 0.0
    if exposure_s > frame_s and not round_.stops_mm:
        found.append(
            PlanError(
                f"round {round_.name}: exposure {exposure_s:g} s is longer than a frame ({frame_s:.4f} s)",
                next_step="shorten exposure_s; use the aperture or the lamp for more light",
            )
        )
    known = ", ".join(sorted(profile.conditions)) or "none"
    found += [
        PlanError(f"round {round_.name}: rig '{profile.name}' has no condition '{name}'; it has: {known}")
        for name in plan.conditions
        if name not in profile.conditions
    ]
    return found


def require_runnable(expected: Forecast) -> None:
    """Raise the first violation of a forecast, telling how many there are; motion is never clipped silently."""
    if expected.violations:
        first, others = expected.violations[0], len(expected.violations) - 1
        more = f" ({others} more: see `rig plan`)" if others else ""
        raise type(first)(first.message + more, kept="nothing has moved", next_step=first.next_step)
