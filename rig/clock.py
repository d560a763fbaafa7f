"""The session clock: monotonic seconds, shared with the simulated rig, which may run faster than real time.

All times in a session folder (`t_host_s`) are readings of this clock. Wall time is annotation only.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


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
