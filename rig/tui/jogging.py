"""Jogging by key presses: a terminal sends no key-up, so each press is a permit that expires unless it is renewed."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

from rig.events import RailReading
from rig.requests import Command, Jog

REPEAT_S = 0.1
"""A key that repeats faster than this jogs no faster; a motion's permit is renewed this often."""
HOMED_MM_S = 20.0
CRAWL_MM_S = 5.0
"""Speed while the position is unknown."""
RAMPS_S = 0.5
"""Time allowed for getting up to speed and down again."""


class Jogger:
    """Sends the jogs of one operator.

    Args:
        send: Sends a command.
        now: This machine's monotonic clock.
    """

    def __init__(self, send: Callable[[Command], None], now: Callable[[], float] = time.monotonic) -> None:
        self._send, self._now = send, now
        self._numbers = count(1)
        self._jog: Jog | None = None
        self._until_s = self._pressed_s = float("-inf")

    def press(self, distance_mm: float, rail: RailReading) -> None:
        """Begin a jog; faster repeats than ten a second are left out."""
        now_s = self._now()
        if now_s - self._pressed_s < REPEAT_S:
            return
        speed = HOMED_MM_S if rail.homed else CRAWL_MM_S
        self._jog = Jog(distance_mm=distance_mm, velocity_mm_s=speed, press=next(self._numbers))
        self._pressed_s, self._until_s = now_s, now_s + abs(distance_mm) / speed + RAMPS_S
        self._send(self._jog)

    def renew(self) -> None:
        """Renew the permit while the motion should last; to be called every `REPEAT_S`."""
        if self._jog is not None and self._now() < self._until_s:
            self._send(self._jog)
        else:
            self._jog = None

    def end(self) -> None:
        """Renew no more: the carriage stops within 250 ms."""
        self._jog = None
