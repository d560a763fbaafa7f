"""What waits to be sent to one client: everything that was journaled or asked, but of readings only the newest."""

from __future__ import annotations

import threading
from collections import deque

from rig.events import AnyEvent, Motion, Preview, RigState

_READINGS = (RigState, Motion, Preview)
MAX_WAITING = 10_000
"""Journaled events that may wait for one client; it is given up beyond."""


class Outbox:
    """Lines for one client; filled by any thread, emptied by one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._newest: dict[str, bytes] = {}
        self._closed = False

    def put(self, event: AnyEvent, line: bytes) -> None:
        """Add an event; a reading replaces the one of its kind that still waits."""
        with self._changed:
            if isinstance(event, _READINGS):
                self._newest[event.event] = line
            else:
                self._lines.append(line)
            self._changed.notify()

    def take(self) -> bytes:
        """Wait for lines and return all of them; empty bytes when the box is closed."""
        with self._changed:
            while not (self._lines or self._newest or self._closed):
                self._changed.wait()
            if self._closed and not self._lines:
                return b""
            batch = b"".join([*self._lines, *self._newest.values()])
            self._lines.clear()
            self._newest.clear()
            return batch

    @property
    def overflowing(self) -> bool:
        """Whether more waits than a client may lag behind."""
        return len(self._lines) > MAX_WAITING

    def close(self) -> None:
        """Let `take` return what is there, then empty bytes."""
        with self._changed:
            self._closed = True
            self._changed.notify()


def encode(event: AnyEvent) -> bytes:
    """Return an event as its line."""
    return event.model_dump_json(by_alias=True).encode() + b"\n"
