"""The one check that every motion passes before a byte leaves, and the arithmetic of a sweep.

Free of any driver, so that a plan's forecast and the controller's line come from the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from catalog.session_folder import SweepRecord
from rig.errors import EnvelopeError, RailLockedError

SLOWEST_MM_S = 0.01
"""Slowest motion: below that a controller would print and read a speed of zero."""
CRAWL_VELOCITY_MM_S = 5.0
"""Fastest motion while the position is unknown."""
CRAWL_DISTANCE_MM = 10.0
"""Longest motion while the position is unknown."""
RECOVERY_DISTANCE_MM = 20.0
"""Longest motion away from a limit switch that is pressed."""
_ROUNDING_MM = 1e-6


@dataclass(frozen=True)
class Envelope:
    """Where a carriage may stand and how it may move; rail coordinates."""

    lower_mm: float
    upper_mm: float
    max_velocity_mm_s: float
    max_acceleration_mm_s2: float
    end_margin_mm: float = 5.0
    """No motion ends nearer than this to an end of the travel: the home switch acts there."""
    run_up_margin_mm: float = 5.0
    """Uniform motion added before and after a sweep, beyond the ramps, for vibrations to settle."""


@dataclass(frozen=True)
class Motion:
    """One move from standstill to standstill with constant acceleration."""

    start_mm: float
    end_mm: float
    velocity_mm_s: float
    acceleration_mm_s2: float

    @property
    def distance_mm(self) -> float:
        """Length of the move, unsigned."""
        return abs(self.end_mm - self.start_mm)

    @property
    def duration_s(self) -> float:
        """Time from standstill to standstill: trapezoid, or triangle where there is no room for a plateau."""
        return trapezoid_duration_s(
            self.distance_mm, velocity_mm_s=self.velocity_mm_s, acceleration_mm_s2=self.acceleration_mm_s2
        )


def ramp_mm(velocity_mm_s: float, acceleration_mm_s2: float) -> float:
    """Return the distance between standstill and ``velocity_mm_s``: v²/(2a)."""
    return velocity_mm_s * velocity_mm_s / (2 * acceleration_mm_s2)


def trapezoid_duration_s(distance_mm: float, *, velocity_mm_s: float, acceleration_mm_s2: float) -> float:
    """Return the time of a move from standstill to standstill: d/v + v/a, or 2·√(d/a) without a plateau."""
    if distance_mm < 2 * ramp_mm(velocity_mm_s, acceleration_mm_s2):
        return 2 * math.sqrt(distance_mm / acceleration_mm_s2)
    return distance_mm / velocity_mm_s + velocity_mm_s / acceleration_mm_s2


def sweep_span(sweep: SweepRecord, envelope: Envelope) -> tuple[float, float]:
    """Return where a sweep's one motion command begins and ends, run-up and run-down included.

    Args:
        sweep: The uniform part; it may run downwards.
        envelope: Supplies the run-up margin.

    Returns:
        Standstill positions in mm before and after the sweep, in the order of the motion.
    """
    extra_mm = ramp_mm(sweep.velocity_mm_s, sweep.acceleration_mm_s2) + envelope.run_up_margin_mm
    direction = math.copysign(1.0, sweep.end_mm - sweep.start_mm)
    return sweep.start_mm - direction * extra_mm, sweep.end_mm + direction * extra_mm


def sweep_motion(sweep: SweepRecord, envelope: Envelope) -> Motion:
    """Return the move that contains a sweep's uniform part."""
    start_mm, end_mm = sweep_span(sweep, envelope)
    return Motion(start_mm, end_mm, sweep.velocity_mm_s, sweep.acceleration_mm_s2)


def check_sweep(sweep: SweepRecord, envelope: Envelope) -> Motion:
    """Return a sweep's move after both of its ends passed `check_motion`, the position being known.

    Raises:
        EnvelopeError: The sweep is empty, too fast, too steep or leaves the travel with its ramps.
    """
    motion = sweep_motion(sweep, envelope)
    if sweep.start_mm == sweep.end_mm:
        raise EnvelopeError(
            f"sweep from {sweep.start_mm:g} to {sweep.end_mm:g} mm is empty", kept="nothing moved"
        )
    approach = Motion(motion.end_mm, motion.start_mm, motion.velocity_mm_s, motion.acceleration_mm_s2)
    for leg in (approach, motion):
        check_motion(leg, envelope, homed=True)
    return motion


def check_motion(motion: Motion, envelope: Envelope, *, homed: bool, fault: str = "", away: int = 0) -> None:
    """Let a motion pass, or say why it must not happen. No other route leads to the wire.

    While the position is unknown only a crawl is allowed. A carriage that stands inside an end margin
    (as it does after homing) may move away from that end.

    Args:
        motion: What is about to be commanded; ``start_mm`` is NaN where the position is unknown.
        envelope: The profile's limits.
        homed: Whether the position is known.
        fault: What locks the rail, in plain words; empty when nothing does.
        away: While a limit switch is pressed, the sign of the only direction allowed: away from it; 0 otherwise.

    Raises:
        RailLockedError: A fault is pending, or the rail is not homed and this is more than a crawl.
        EnvelopeError: A number is not finite, or travel, speed or acceleration are exceeded.
    """
    if fault:
        raise RailLockedError(
            f"the rail is locked: {fault}",
            kept="nothing moved",
            next_step="clear the fault, then home the rail",
        )
    _check_rates(motion, envelope)
    if away:
        _check_recovery(motion, away)
    if homed:
        _check_travel(motion, envelope)
    elif not away:
        _check_crawl(motion)


def _check_rates(motion: Motion, envelope: Envelope) -> None:
    _check_rate("speed", motion.velocity_mm_s, (SLOWEST_MM_S, envelope.max_velocity_mm_s), unit="mm/s")
    _check_rate(
        "acceleration", motion.acceleration_mm_s2, (0.0, envelope.max_acceleration_mm_s2), unit="mm/s²"
    )


def _check_rate(what: str, value: float, bounds: tuple[float, float], *, unit: str) -> None:
    floor, cap = bounds
    if math.isfinite(value) and value > 0 and floor <= value <= cap:
        return
    raise EnvelopeError(
        f"{what} {value:g} {unit} is outside {floor:g} to {cap:g} {unit}, the profile's cap",
        kept="nothing moved",
        next_step=f"ask for at most {cap:g} {unit}",
    )


def _check_crawl(motion: Motion) -> None:
    if motion.distance_mm <= CRAWL_DISTANCE_MM and motion.velocity_mm_s <= CRAWL_VELOCITY_MM_S:
        return
    raise RailLockedError(
        f"the rail is not homed: only crawling is allowed "
        f"(at most {CRAWL_DISTANCE_MM:g} mm at {CRAWL_VELOCITY_MM_S:g} mm/s)",
        kept="nothing moved",
        next_step="home the rail",
    )


def _check_recovery(motion: Motion, away: int) -> None:
    way_mm = away * (motion.end_mm - motion.start_mm)
    if 0 <= way_mm <= RECOVERY_DISTANCE_MM and motion.velocity_mm_s <= CRAWL_VELOCITY_MM_S:
        return
    raise RailLockedError(
        f"a limit switch is pressed: only crawling {'upwards' if away > 0 else 'downwards'}, away from it, is "
        f"allowed (at most {RECOVERY_DISTANCE_MM:g} mm at {CRAWL_VELOCITY_MM_S:g} mm/s)",
        kept="nothing moved",
        next_step="crawl away until the switch opens, then home the rail",
    )


def _check_travel(motion: Motion, envelope: Envelope) -> None:
    lower = min(envelope.lower_mm + envelope.end_margin_mm, max(motion.start_mm, envelope.lower_mm))
    upper = max(envelope.upper_mm - envelope.end_margin_mm, min(motion.start_mm, envelope.upper_mm))
    finite = math.isfinite(motion.start_mm) and math.isfinite(motion.end_mm)
    if finite and lower - _ROUNDING_MM <= motion.end_mm <= upper + _ROUNDING_MM:
        return
    raise EnvelopeError(
        f"a motion to {motion.end_mm:g} mm leaves the travel of {envelope.lower_mm:g} to {envelope.upper_mm:g} mm "
        f"less {envelope.end_margin_mm:g} mm at each end",
        kept="nothing moved",
        next_step="move the sweep inwards, or slow it down so that its ramps are shorter",
    )
