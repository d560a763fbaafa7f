"""Signals as stops: INT, TERM and HUP stop in order, USR1 is an emergency stop.

The kernel's handler writes the signal's number into a socket and a thread reads it there, so that a stop neither
waits for the main thread nor runs in the middle of what that holds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

from catalog.console import plain_text
from catalog.errors import CleanplateError

LONGEST_END_S = 20.0
"""An orderly end that takes longer, e.g. since a device does not let go, is cut short as a second signal does."""
_LAST_WORD_S = 0.5
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OVER = b"\0"
Farewell = Callable[[str], CleanplateError]
"""Makes the error that a process ends with from why it ends at once, e.g. ``a second SIGTERM``."""


class Stoppable(Protocol):
    """What signals stop."""

    def stop(self, *, emergency: bool = False, by: str) -> None:
        """Stop now; never waits."""


class EndingSignals:
    """What the signals of this process do while the context lasts; from the main thread.

    Until there is something to stop, the first INT, TERM or HUP ends the process at once: nothing has begun. Later the
    first one stops what there is, and whoever runs it is to end; a second one ends the process at once. A HUP that
    whoever started the process wants ignored (``nohup``) is ignored.

    Args:
        farewell: What to end with while there is nothing to stop.
        last: The process ends after the block: until then the signals go on to mean this.
    """

    def __init__(self, farewell: Farewell, *, last: bool = False) -> None:
        self._farewell, self._last = farewell, last
        self._target: Stoppable | None = None
        self._then: Callable[[], None] = lambda: None
        self._begun = self._ending = False
        self._lock = threading.Lock()
        self._deadline: threading.Timer | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="engine-signals", daemon=True)
        self._thread.start()
        self._before_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (*_ENDING, signal.SIGUSR1):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, _leave_to_thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._last:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        self._writer.send(_OVER)
        self._thread.join()
        self._reader.close()
        self._writer.close()
        if self._deadline is not None:
            self._deadline.cancel()

    @contextmanager
    def stopping(
        self, target: Stoppable, *, farewell: Farewell, then: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Let signals stop something while the block runs.

        Args:
            target: Is stopped.
            farewell: What to end with from now on when there is no time for more.
            then: Called after the first INT, TERM or HUP.
        """
        with self._lock:
            self._target, self._farewell, self._then, self._begun = target, farewell, then, True
        try:
            yield
        finally:
            with self._lock:
                self._target = None

    def _watch(self) -> None:
        while (byte := self._reader.recv(1)) != _OVER:
            with self._lock:
                self._take(signal.Signals(byte[0]))

    def _take(self, number: signal.Signals) -> None:
        if number == signal.SIGUSR1:
            if self._target is not None:
                self._target.stop(emergency=True, by=number.name)
        elif number in _ENDING:
            if self._target is not None:
                self._target.stop(by=number.name)
            if not self._begun:
                leave_saying(self._farewell(number.name))
            if self._ending:
                leave_saying(self._farewell(f"a second {number.name}"))
            self._end_soon()

    def _end_soon(self) -> None:
        self._ending = True
        why = f"itself, as the end took longer than {LONGEST_END_S:g} s"
        self._deadline = threading.Timer(LONGEST_END_S, lambda: leave_saying(self._farewell(why)))
        self._deadline.daemon = True
        self._deadline.start()
        self._then()


def leave_saying(error: CleanplateError) -> NoReturn:
    """End this process at once with an error's line and exit code, even where nobody takes the line any more."""
    code = int(error.exit_code)
    last_resort = threading.Timer(_LAST_WORD_S, os._exit, (code,))  # a terminal may be held, a pipe be full
    last_resort.daemon = True
    last_resort.start()
    cursor = "\x1b[?25h\n" if os.isatty(2) else ""
    line = plain_text(f"error {error.code}: {error}".replace("\n", " "))
    with contextlib.suppress(OSError):
        os.write(2, f"{cursor}{line}\n".encode())
    os._exit(code)


def _leave_to_thread(number: int, frame: object) -> None:
    """Do nothing: that there is a handler keeps the signal from ending the process."""
