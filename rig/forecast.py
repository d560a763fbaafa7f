"""What a plan will do on a rig, computed before a motor turns: travel, time, blur, frames, pairs, violations."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.session_folder import RoundRecord, SweepRecord
from rig.devices.envelope import check_sweep, sweep_motion
from rig.errors import EnvelopeError, PlanError, RigError
from rig.plan import CapturePlan, RoundPlan
from rig.profile import RigProfile

PARALLAX_TOLERANCE_PX = 0.25
POSITIONING_S = 4.0
"""Allowance per round for going back to the start, setting the camera and stopping the movie, s."""


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


@dataclass(frozen=True)
class Forecast:
    """What to expect of a session."""

    rounds: tuple[RoundForecast, ...]
    parallax_limit_mm: float
    """Largest position gap between the frames of a pair before parallax exceeds a quarter pixel."""
    violations: tuple[RigError, ...]
    """Everything that keeps the plan from running; empty when it can run."""

    @property
    def duration_s(self) -> float:
        """Whole session, positioning included, s."""
        return sum(r.duration_s + POSITIONING_S for r in self.rounds)

    @property
    def size_gb(self) -> float:
        """Disk space of all rounds, GB."""
        return sum(r.size_gb for r in self.rounds)

    @property
    def expected_pairs(self) -> int:
        """Pairs over all rounds."""
        return sum(r.expected_pairs for r in self.rounds)


def forecast(plan: CapturePlan, profile: RigProfile) -> Forecast:
    """Compute what a plan will do on a rig, and every limit it violates."""
    limit_mm = parallax_limit_mm(profile)
    records = plan.round_records(acceleration_mm_s2=profile.rail.acceleration_mm_s2)
    gt_spacing_mm = min(_frame_spacing_mm(r, profile) for r in records if r.role == "gt")
    rounds = tuple(_forecast_round(r, plan, profile, limit_mm, gt_spacing_mm) for r in records)
    violations = [v for r, record in zip(plan, records, strict=True) for v in _violations(r, record, profile)]
    return Forecast(rounds, limit_mm, tuple(violations))


def parallax_limit_mm(profile: RigProfile) -> float:
    """Return the position gap at which the nearest and farthest thing part by a quarter pixel, mm."""
    near_mm, far_mm = profile.lens.scene_depth_mm
    spread_px_per_mm = profile.focal_px * (1 / near_mm - 1 / far_mm)
    return PARALLAX_TOLERANCE_PX / spread_px_per_mm if spread_px_per_mm > 0 else float("inf")


def _frame_spacing_mm(round_: RoundRecord, profile: RigProfile) -> float:
    return _sweep(round_).velocity_mm_s / profile.movie_format.frame_rate_hz


def _sweep(round_: RoundRecord) -> SweepRecord:
    if round_.sweep is None:
        raise PlanError(f"round {round_.name}: no sweep")
    return round_.sweep


def _forecast_round(
    round_: RoundRecord, plan: CapturePlan, profile: RigProfile, limit_mm: float, gt_spacing_mm: float
) -> RoundForecast:
    sweep, movie = _sweep(round_), profile.movie_format
    uniform_s = abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s
    motion = sweep_motion(sweep, profile.rail.envelope)
    duration_s = motion.duration_s + 2 * plan.rest_s
    frames = int(uniform_s * movie.frame_rate_hz)
    near_mm = profile.lens.scene_depth_mm[0]
    share = min(1.0, limit_mm / (gt_spacing_mm / 2)) if round_.role != "gt" else 0.0
    return RoundForecast(
        round=round_,
        from_mm=motion.start_mm,
        to_mm=motion.end_mm,
        duration_s=duration_s,
        uniform_s=uniform_s,
        frames=frames,
        blur_px=sweep.velocity_mm_s * (round_.settings.exposure_s or 0.0) * profile.focal_px / near_mm,
        expected_pairs=int(frames * share),
        size_gb=duration_s * movie.bitrate_mbit_s / 8000,
    )


def _violations(plan: RoundPlan, round_: RoundRecord, profile: RigProfile) -> list[RigError]:
    found: list[RigError] = []
    try:
        check_sweep(_sweep(round_), profile.rail.envelope)
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
    if exposure_s > frame_s:
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
