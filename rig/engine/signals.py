"""Signals as stops: INT, TERM and HUP stop in order, USR1 is an emergency stop.

The kernel's handler writes the signal's number into a socket and a thread reads it there, so that a stop neither
waits for the main thread nor runs in the middle of what that holds.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from catalog.errors import ExitCode

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_OVER = b"\0"


class Stoppable(Protocol):
    """What signals stop."""

    def stop(self, *, emergency: bool = False, by: str) -> None:
        """Stop now; never waits."""


@contextmanager
def stopped_by_signals(engine: Stoppable, *, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let signals stop what moves while the block runs; from the main thread.

    Args:
        engine: Is stopped.
        then: Called after the first INT, TERM or HUP. A second one ends the process at once; what was journaled is
            complete.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    thread = threading.Thread(target=_watch, args=(reader, engine, then), name="engine-signals", daemon=True)
    thread.start()
    before = {n: signal.signal(n, _leave_to_thread) for n in (*_ENDING, signal.SIGUSR1)}
    before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.send(_OVER)
        thread.join()
        reader.close()
        writer.close()


def _watch(reader: socket.socket, engine: Stoppable, then: Callable[[], None]) -> None:
    ending = False
    while (byte := reader.recv(1)) != _OVER:
        number = signal.Signals(byte[0])
        if number == signal.SIGUSR1:
            engine.stop(emergency=True, by=number.name)
        elif number in _ENDING:
            engine.stop(by=number.name)
            if ending:
                os._exit(ExitCode.INTERRUPTED)
            ending = True
            then()


def _leave_to_thread(number: int, frame: object) -> None:
    """Do nothing: that there is a handler keeps the signal from ending the process."""
