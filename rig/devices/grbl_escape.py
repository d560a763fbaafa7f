"""The way off a pressed limit switch: which direction, how far, how often it may trip meanwhile.

An AVR takes every edge of the input for a trip, so that a switch that opens under the carriage locks the controller
once more, and one whose contacts bounce several times. Such a trip is expected and unlocked again, which moves nothing;
every further bit of motion is asked for by whoever holds the key. All of it has bounds.
"""

from __future__ import annotations

from rig.devices.envelope import RECOVERY_DISTANCE_MM, Motion
from rig.errors import RailLockedError

MOST_TRIPS = 5
"""So often may a switch trip while the carriage crawls off it."""
_BOUNCE_MM = 1.0
"""Beyond this way from where it was last seen pressed a switch has opened, its bouncing contacts included."""
_ROUNDING_MM = 0.05


class SwitchEscape:
    """Follows the carriage from the moment a limit switch is seen pressed until it is left behind.

    Attributes:
        away: Sign of the motion that leads off the switch, rail coordinates; 0 while none is in the way.
        trips: How often it tripped while the carriage crawled off it.
    """

    def __init__(self) -> None:
        self.away = self.trips = 0
        self._crawled_mm = 0.0
        self._crawl: Motion | None = None
        self._from_mm = self._at_mm = self._pressed_at_mm = 0.0

    @property
    def under_way(self) -> bool:
        """Whether the carriage crawls off a switch just now."""
        return self._crawl is not None

    @property
    def crawled_mm(self) -> float:
        """How far the carriage has crawled since the switch was first seen."""
        if self._crawl is None:
            return self._crawled_mm
        return self._crawled_mm + min(abs(self._at_mm - self._from_mm), self._crawl.distance_mm)

    def see(self, position_mm: float, *, pressed: bool, last_direction: int) -> None:
        """Take note of a report.

        Args:
            position_mm: As reported: only differences count.
            pressed: Whether a limit switch is.
            last_direction: Sign of the last motion: it led onto the switch; 0 where it is not known.
        """
        self._at_mm = position_mm
        if pressed:
            self._pressed_at_mm = position_mm
            self.away = self.away or -last_direction or 1  # the home switch, as far as one can know
        elif not self._may_bounce():
            self.forget()

    def begin(self, motion: Motion, at_mm: float) -> None:
        """Count a crawl that is about to be commanded.

        Raises:
            RailLockedError: The carriage has crawled far enough for any switch to open.
        """
        if self.crawled_mm + motion.distance_mm > RECOVERY_DISTANCE_MM + _ROUNDING_MM:
            raise RailLockedError(
                f"the limit switch is still pressed after {self.crawled_mm:.1f} mm of crawling away from it; "
                f"{RECOVERY_DISTANCE_MM:g} mm in all are allowed",
                kept="nothing moved",
                next_step="is it stuck, miswired, or the switch of the other end? switch the power off, move the "
                "carriage off it by hand, then connect again",
            )
        self.end()
        self._crawl, self._from_mm, self._at_mm = motion, at_mm, at_mm

    def end(self) -> None:
        """The crawl under way has ended, or was never accepted."""
        self._crawled_mm, self._crawl = self.crawled_mm, None

    def trip(self) -> bool:
        """Count a trip; returns whether it was the switch that opens, and may be unlocked once more."""
        crawl = self._crawl
        if crawl is None or (crawl.end_mm - crawl.start_mm) * self.away <= 0:
            return False
        self.trips += 1
        self.end()
        return self.trips < MOST_TRIPS

    def forgive(self) -> None:
        """Let the switch trip as often again: somebody has looked at it."""
        self.trips = 0

    def forget(self) -> None:
        """The switch is left behind, or a homing has begun."""
        self.away = self.trips = 0
        self._crawled_mm, self._crawl = 0.0, None

    def _may_bounce(self) -> bool:
        """Tell whether a switch that was crawled off may still announce its opening, or close again."""
        crawled = self._crawl is not None or self.trips > 0
        return crawled and abs(self._at_mm - self._pressed_at_mm) < _BOUNCE_MM
