"""Whether a reported position can be true.

A byte that flips within a number leaves a well-formed report, so that the strict pattern is not enough: what counts
has to lie where the commanded motion can have brought the carriage since the last reading, and since it began. What
does not is asked again; only when three readings agree with each other against that is it the truth that has changed:
two late answers in a row do happen, and agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rig.devices.envelope import Motion
from rig.devices.grbl_schedule import MotionSchedule, Track

_REST_MM = 0.002
_LAG_S = 0.08
"""GRBL reports the speed of the segment that it prepares: six of 10 ms ahead of the motor, at most."""
_SPEED_MM_S = 0.1
_UNSEEN_S = 0.5
"""A carriage that moved for so long without being looked at may be nearly anywhere: that takes a witness."""
_WITNESSES_AGAINST = 2
"""What the motion cannot explain takes two."""


@dataclass(frozen=True)
class Reading:
    """A report in rail coordinates with the times of its request and reply."""

    position_mm: float
    speed_mm_s: float | None
    asked_s: float
    replied_s: float


class PositionWatch:
    """Follows the carriage and judges every reading.

    Attributes:
        believed: The last reading that was believed; None while the position is unknown.
        motion: What is under way; None at rest.
        schedule: What the clock says of it; None where that is not known, or was seen to be wrong.
        jump_mm: By how much the position jumped when it changed beyond belief, else 0.
        misfits: How many readings could not follow from the one before.
    """

    def __init__(self) -> None:
        self.believed: Reading | None = None
        self.motion: Motion | None = None
        self.schedule: MotionSchedule | None = None
        self.jump_mm = 0.0
        self.misfits = 0
        self.tolerance_mm = 0.03
        """A step and the rounding of the print."""
        self.witness_s = 0.05
        """Longest time from the first question to the second reply of two readings that bear witness for each other."""
        self._suspects: list[Reading] = []

    def forget(self) -> None:
        """Know nothing: before homing, after a reset in motion."""
        self.believed = self.motion = self.schedule = None
        self._suspects = []
        self.jump_mm = 0.0

    def start_at(self, reading: Reading) -> None:
        """Believe a position at rest that was verified otherwise."""
        self.forget()
        self.believed = reading

    def follow(self, motion: Motion, schedule: MotionSchedule | None = None) -> None:
        """Expect the carriage to make a motion from now on, by the clock where one is given."""
        self.motion, self.schedule, self._suspects = motion, schedule, []

    def rest(self) -> None:
        """Expect the carriage to stay where it is."""
        self.motion, self.schedule, self._suspects = None, None, []

    def accepts(self, reading: Reading, *, doubtful: bool = False) -> bool:
        """Judge a reading; False asks for another one.

        Args:
            reading: The newest one.
            doubtful: The line is known to lie at present: another reading must bear witness.
        """
        if self.believed is None:
            return True
        on_time = self._is_on_time(reading)
        fits = on_time and self._agree(self.believed, reading)
        self.misfits += not fits
        unseen_s = reading.asked_s - self.believed.replied_s if self.motion else 0.0
        needed = 0
        if not fits:
            needed = _WITNESSES_AGAINST
        elif doubtful or unseen_s > _UNSEEN_S:
            needed = 1
        if needed and not self._is_borne_out(reading, needed):
            return False
        if not fits and not self._is_reachable(self.believed, reading):
            self.jump_mm = reading.position_mm - self.believed.position_mm
        self._learn_when(reading, on_time=on_time)
        self.believed, self._suspects = reading, []
        return True

    def _is_on_time(self, reading: Reading) -> bool:
        """Tell whether the motion can have come so far, and no further, since it began."""
        if self.motion is None or self.schedule is None:
            return True
        track, way = self.schedule.track(reading.asked_s, reading.replied_s), self._way(reading, self.motion)
        return track.least_mm <= way.most_mm and way.least_mm <= track.most_mm

    def _learn_when(self, reading: Reading, *, on_time: bool) -> None:
        """Let a reading that is believed tell when the motion began, or that it went another way than planned."""
        if not on_time:
            self.schedule = None  # witnesses against the clock: an override, a hold at the panel
        elif self.motion is not None and self.schedule is not None:
            self.schedule.learn(self._way(reading, self.motion), reading.asked_s, reading.replied_s)

    def _way(self, reading: Reading, motion: Motion) -> Track:
        way_mm = _direction(motion) * (reading.position_mm - motion.start_mm)
        return Track(way_mm - self.tolerance_mm, way_mm + self.tolerance_mm)

    def _is_borne_out(self, reading: Reading, needed: int) -> bool:
        if self._suspects and not self._bears_witness(self._suspects[-1], reading):
            self._suspects = []
        self._suspects.append(reading)
        return len(self._suspects) > needed

    def _bears_witness(self, suspect: Reading, reading: Reading) -> bool:
        """Two witnesses follow at once on each other: after an unanswered question the next reply may be its own."""
        return reading.replied_s - suspect.asked_s < self.witness_s and self._agree(suspect, reading)

    def begin_poll(self) -> None:
        """Let witnesses of one poll not count for the next."""
        self._suspects = []

    def _agree(self, earlier: Reading, later: Reading) -> bool:
        """Tell whether the motion leads from one reading to the other, as narrowly as the reports allow."""
        motion = self.motion
        if motion is None:
            return abs(later.position_mm - earlier.position_mm) <= _REST_MM
        if not self._is_on_way(later, motion):
            return False
        shortest_s = max(later.asked_s - earlier.replied_s, 0.0)
        longest_s = later.replied_s - earlier.asked_s
        least_mm, most_mm = 0.0, motion.velocity_mm_s * longest_s
        if earlier.speed_mm_s is not None and later.speed_mm_s is not None:
            speeds = sorted((earlier.speed_mm_s, later.speed_mm_s))
            least_mm = _least_way_mm(speeds[0], shortest_s, motion.acceleration_mm_s2)
            most_mm = min(most_mm, _longest_way_mm(speeds[1], longest_s, motion.acceleration_mm_s2))
        way_mm = _direction(motion) * (later.position_mm - earlier.position_mm)
        return least_mm - self.tolerance_mm <= way_mm <= most_mm * 1.01 + self.tolerance_mm

    def _is_reachable(self, earlier: Reading, later: Reading) -> bool:
        """Tell whether the motion can have led there at all: onward, no further than its speed allows."""
        if self.motion is None:
            return False
        way_mm = _direction(self.motion) * (later.position_mm - earlier.position_mm)
        longest_mm = self.motion.velocity_mm_s * (later.replied_s - earlier.asked_s)
        return -self.tolerance_mm <= way_mm <= longest_mm * 1.01 + self.tolerance_mm

    def _is_on_way(self, reading: Reading, motion: Motion) -> bool:
        lower, upper = sorted((motion.start_mm, motion.end_mm))
        inside = lower - self.tolerance_mm <= reading.position_mm <= upper + self.tolerance_mm
        speed = reading.speed_mm_s or 0.0
        return inside and speed <= motion.velocity_mm_s * 1.01 + _SPEED_MM_S


def _least_way_mm(speed_mm_s: float, duration_s: float, acceleration_mm_s2: float) -> float:
    """Return the shortest way between two reports of at least a speed.

    The speed rises and falls only once, so that in between it is no lower than at the ends. While it rises the
    report is ahead of it by the lag: what is missing is a triangle.
    """
    lag_s = min(_LAG_S, duration_s)
    missing_mm = acceleration_mm_s2 * lag_s * (_LAG_S - lag_s / 2)
    return max(speed_mm_s * duration_s - missing_mm, 0.0)


def _longest_way_mm(speed_mm_s: float, duration_s: float, acceleration_mm_s2: float) -> float:
    """Return the longest way between two reports of at most a speed.

    In between it may have risen and fallen again; while it falls the report is ahead of it by the lag.
    """
    lag_s = min(_LAG_S, duration_s)
    ahead_mm = acceleration_mm_s2 * lag_s * (_LAG_S - lag_s / 2)
    return (speed_mm_s + acceleration_mm_s2 * duration_s / 2) * duration_s + ahead_mm


def _direction(motion: Motion) -> float:
    return math.copysign(1.0, motion.end_mm - motion.start_mm)
