"""The session clock: monotonic seconds, shared with the simulated rig, which may run faster than real time.

All times in a session folder (`t_host_s`) are readings of this clock. Wall time is annotation only.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

JUMP_S = 1.0
"""Wall and monotonic clock that part by so much between two readings have jumped; slewing is far slower."""


class WallClock:
    """UTC for annotation, told apart from the passing of time: it may be set, stepped, or go on through a suspend."""

    def __init__(self) -> None:
        self._offset_s = self._read()[1]

    def read(self) -> tuple[int, float]:
        """Return UTC in microseconds, and by how many seconds it has jumped since the last reading; 0 as a rule."""
        utc_ns, offset_s = self._read()
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        return utc_ns // 1000, jump_s if abs(jump_s) > JUMP_S else 0.0

    def _read(self) -> tuple[int, float]:
        utc_ns = time.time_ns()
        return utc_ns, utc_ns / 1e9 - time.monotonic()


@dataclass(frozen=True)
class SessionClock:
    """Monotonic time in seconds, ``rate`` times as fast as the machine's.

    CLOCK_MONOTONIC is one clock for all processes of a machine, so two processes that agree on
    ``origin_s`` and ``rate`` read the same session time.
    """

    origin_s: float = 0.0
    """Machine's monotonic reading at session time zero, s."""
    rate: float = 1.0
    """Session seconds per machine second; 1 for every real rig."""
    _never: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def now(self) -> float:
        """Return the session time in s."""
        return (time.monotonic() - self.origin_s) * self.rate

    def sleep(self, duration_s: float, wake: threading.Event | None = None) -> bool:
        """Wait ``duration_s`` session seconds; returns True at once when ``wake`` is set meanwhile."""
        return (wake or self._never).wait(max(duration_s, 0.0) / self.rate)
