"""Where a motion can have brought the carriage by now, as the clock alone tells it.

A report that repeats the last one is what a carriage at rest looks like, and no reading before it proves it wrong: only
the time since the motion began does. Its trapezoid is known, the moment it begins at is known to lie between the line's
departure and a little after its ``ok``, and every believed report narrows it; where the carriage can be follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rig.devices.envelope import Motion

WAKING_S = 0.05
"""A controller that has said ``ok`` moves after so long: its planner has up to six segments of 10 ms to prepare."""
_SEGMENT_S = 0.01
"""Motion is made of pieces of this length, which may begin a moment apart from the ideal one."""
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

    def accepted(self, now_s: float) -> None:
        """Note that the controller has taken the line: it begins now at the latest, or a little later."""
        self._latest_s = now_s + WAKING_S

    def hold(self, now_s: float) -> None:
        """Note that the carriage was asked to stop: from now on it may be anywhere ahead of where it is at least."""
        self._held_s = min(self._held_s, now_s)

    def learn(self, way: Track, asked_s: float, replied_s: float) -> None:
        """Learn from a report that is believed when the motion has begun; one that is held tells no more of it.

        Args:
            way: Where the carriage was, as exactly as reports are.
            asked_s: Session time of the question.
            replied_s: Session time of its answer.
        """
        if self._held_s < replied_s:
            return
        longest_s, shortest_s = (elapsed_s(self._motion, mm) for mm in (way.most_mm, way.least_mm))
        self._earliest_s = max(self._earliest_s, asked_s - longest_s / (1 - _PACE) - _SEGMENT_S)
        if way.least_mm > 0:
            self._latest_s = min(self._latest_s, replied_s - shortest_s / (1 + _PACE) + _SEGMENT_S)

    def track(self, from_s: float, until_s: float) -> Track:
        """Return where it can be at some time between two session times."""
        soonest_s = (until_s - self._earliest_s) * (1 + _PACE)
        slowest_s = (min(from_s, self._held_s) - self._latest_s) * (1 - _PACE)
        return Track(way_mm(self._motion, slowest_s), way_mm(self._motion, soonest_s))


def _ramp_s(motion: Motion) -> float:
    return min(motion.velocity_mm_s / motion.acceleration_mm_s2, motion.duration_s / 2)


def elapsed_s(motion: Motion, way_mm: float) -> float:
    """Return how long a motion takes to come so far; infinity at its end, where it may have been for any time.

    Args:
        motion: A trapezoid or triangle.
        way_mm: From its start; negative counts as the start.
    """
    left_mm, ramp_s = motion.distance_mm - way_mm, _ramp_s(motion)
    ramp_mm = motion.acceleration_mm_s2 * ramp_s**2 / 2
    if way_mm <= ramp_mm:
        return math.sqrt(2 * max(way_mm, 0.0) / motion.acceleration_mm_s2)
    if left_mm <= 0:
        return math.inf
    if left_mm < ramp_mm:
        return motion.duration_s - math.sqrt(2 * left_mm / motion.acceleration_mm_s2)
    return ramp_s + (way_mm - ramp_mm) / (motion.acceleration_mm_s2 * ramp_s)


def way_mm(motion: Motion, elapsed_s: float) -> float:
    """Return how far a motion has come so long after it began, mm from its start.

    Args:
        motion: A trapezoid, or a triangle where there is no room for a plateau.
        elapsed_s: Negative before it began; beyond its duration it stays at its end.
    """
    left_s = motion.duration_s - elapsed_s
    if elapsed_s <= 0 or left_s <= 0:
        return motion.distance_mm if left_s <= 0 else 0.0
    acceleration, ramp_s = motion.acceleration_mm_s2, _ramp_s(motion)
    if elapsed_s < ramp_s:
        return acceleration * elapsed_s**2 / 2
    if left_s < ramp_s:
        return motion.distance_mm - acceleration * left_s**2 / 2
    return acceleration * ramp_s * (elapsed_s - ramp_s / 2)
