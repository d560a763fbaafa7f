"""Where a motion can have brought the carriage by now, as the clock alone tells it.

A report that repeats the last one is what a carriage at rest looks like, and no reading before it proves it wrong: only
the time since the motion began does. Its trapezoid is known, the moment it begins at is known to lie between the line's
departure and a little after its ``ok``; where the carriage can be follows from both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rig.devices.envelope import Motion

WAKING_S = 0.05
"""A controller that has said ``ok`` moves after so long: its planner has up to six segments of 10 ms to prepare."""
_PACE = 0.01
"""Ceramic resonators of small boards are off by half a percent; steps are not rounded to the hair either."""


@dataclass(frozen=True)
class Track:
    """Where the carriage must be, in mm along the motion from its start."""

    least_mm: float
    most_mm: float


class MotionSchedule:
    """Follows one motion from standstill to standstill by the clock.

    Args:
        motion: What was commanded.
        sent_s: Session time before which the line had not left.
    """

    def __init__(self, motion: Motion, sent_s: float) -> None:
        self._motion = motion
        self._earliest_s = sent_s
        self._latest_s = self._held_s = math.inf

    def accepted(self, now_s: float, *, waking_s: float = WAKING_S) -> None:
        """Note that the controller has taken the line: it begins now at the latest, or a little later."""
        self._latest_s = now_s + waking_s

    def hold(self, now_s: float) -> None:
        """Note that the carriage was asked to stop: from now on it may be anywhere ahead of where it is at least."""
        self._held_s = min(self._held_s, now_s)

    def track(self, from_s: float, until_s: float) -> Track:
        """Return where it can be at some time between two session times."""
        soonest_s = (until_s - self._earliest_s) * (1 + _PACE)
        slowest_s = (min(from_s, self._held_s) - self._latest_s) * (1 - _PACE)
        return Track(way_mm(self._motion, slowest_s), way_mm(self._motion, soonest_s))


def way_mm(motion: Motion, elapsed_s: float) -> float:
    """Return how far a motion has come so long after it began, mm from its start.

    Args:
        motion: A trapezoid, or a triangle where there is no room for a plateau.
        elapsed_s: Negative before it began; beyond its duration it stays at its end.
    """
    left_s = motion.duration_s - elapsed_s
    if elapsed_s <= 0 or left_s <= 0:
        return motion.distance_mm if left_s <= 0 else 0.0
    acceleration = motion.acceleration_mm_s2
    peak_mm_s = min(motion.velocity_mm_s, math.sqrt(motion.distance_mm * acceleration))
    ramp_s = peak_mm_s / acceleration
    if elapsed_s < ramp_s:
        return acceleration * elapsed_s**2 / 2
    if left_s < ramp_s:
        return motion.distance_mm - acceleration * left_s**2 / 2
    return peak_mm_s * (elapsed_s - ramp_s / 2)
