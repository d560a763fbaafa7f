"""For authors of drivers: a wire that plays a written conversation, and a clock that only moves when told.

Never imported at run time.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from rig.clock import SessionClock


@dataclass(frozen=True)
class FakeClock(SessionClock):
    """A session clock that stands still but for `sleep` and `advance`."""

    _readings: list[float] = field(default_factory=lambda: [0.0], repr=False, compare=False)

    def now(self) -> float:
        """Return the time it was brought to."""
        return self._readings[-1]

    def sleep(self, duration_s: float, wake: threading.Event | None = None) -> bool:
        """Let ``duration_s`` pass at once; returns whether ``wake`` is set."""
        self.advance(max(duration_s, 0.0))
        return wake is not None and wake.is_set()

    def advance(self, duration_s: float) -> None:
        """Let time pass."""
        self._readings.append(self.now() + duration_s)


class ScriptedWire:
    """A `rig.devices.wire.Wire` that expects exactly the conversation it was given.

    Each exchange is what the driver must send next (a line or real-time bytes, written as text) followed by the
    lines the device answers. None in place of a sent text stands for lines that come by themselves before the
    next one is sent, a number for seconds that pass until then. Reading when nothing is left to read lets the
    clock run to the deadline.

    Args:
        exchanges: The conversation in order.
        clock: The clock the driver runs on.
    """

    name = "scripted wire"
    discarded_bytes = 0

    def __init__(self, *exchanges: tuple[str | float | None, *tuple[str, ...]], clock: FakeClock) -> None:
        self._exchanges = deque(exchanges)
        self._clock = clock
        self._replies: deque[str] = deque()
        self.sent: list[str] = []
        self.closed = False
        self._volunteer()

    def write_line(self, line: str) -> None:
        """Check a line against the script."""
        self._take(line)

    def write_realtime(self, data: bytes) -> None:
        """Check real-time bytes against the script."""
        self._take(data.decode("latin-1"))

    def read_line(self, *, timeout_s: float) -> str | None:
        """Return the next answer of the script, or None once the deadline has passed."""
        if self._replies:
            return self._replies.popleft()
        self._clock.advance(timeout_s)
        return None

    def flush(self) -> None:
        """Forget answers that were not read."""
        self._replies.clear()

    def close(self) -> None:
        """Note that the driver let go."""
        self.closed = True

    def assert_exhausted(self) -> None:
        """Raise `AssertionError` when a part of the conversation did not take place."""
        if self._exchanges or self._replies:
            raise AssertionError(f"never said: {list(self._exchanges)}; never read: {list(self._replies)}")

    def _take(self, text: str) -> None:
        self.sent.append(text)
        while self._exchanges and isinstance(pause_s := self._exchanges[0][0], float):
            self._exchanges.popleft()
            self._clock.advance(pause_s)
        if not self._exchanges:
            raise AssertionError(f"the script has ended, yet {text!r} was sent")
        expected, *replies = self._exchanges.popleft()
        if text != expected:
            raise AssertionError(f"{text!r} was sent where the script says {expected!r}")
        self._replies.extend(replies)
        self._volunteer()

    def _volunteer(self) -> None:
        while self._exchanges and self._exchanges[0][0] is None:
            self._replies.extend(self._exchanges.popleft()[1:])
