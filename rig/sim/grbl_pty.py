"""The simulated controller as a serial port: a pseudo-terminal that any program can open."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from types import TracebackType
from typing import Self

from rig.clock import SessionClock
from rig.sim.grbl import GrblController

_HANG_UP_POLL_S = 0.005
_LONGEST_WAIT_S = 0.05
_READ_BYTES = 4096


class GrblPty:
    """Serves a controller in a thread of its own until closed.

    No descriptor of the slave side is kept open, so that a client's opening is seen: it reboots the controller,
    as DTR does on a real board.

    Args:
        controller: What is behind the port.
        clock: The session clock it runs on.

    Attributes:
        path: Device path for the client.
    """

    def __init__(self, controller: GrblController, clock: SessionClock) -> None:
        self._controller = controller
        self._clock = clock
        self._master, slave = os.openpty()
        self.path = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        self._wake_reader, self._wake_writer = os.pipe()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="grbl-pty", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the port away; a client sees it vanish. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        os.write(self._wake_writer, b"x")
        self._thread.join()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _serve(self) -> None:
        try:
            while not self._closed.is_set() and not self._controller.vanished:
                self._await_client()
                self._attend_client()
        finally:
            os.close(self._master)

    def _await_client(self) -> None:
        """Let time pass until somebody opens the port, then reboot."""
        while self._hung_up() and not self._closed.is_set():
            self._closed.wait(_HANG_UP_POLL_S)
            self._controller.transmit(self._clock.now())
        with contextlib.suppress(OSError):
            tty.setraw(self._master)
        self._controller.reboot(self._clock.now())

    def _attend_client(self) -> None:
        while not self._closed.is_set() and not self._controller.vanished:
            readable, _, _ = select.select([self._master, self._wake_reader], [], [], self._time_to_event_s())
            if self._master in readable and not self._receive():
                return
            self._transmit()

    def _time_to_event_s(self) -> float:
        wait_s = (self._controller.next_event_s - self._clock.now()) / self._clock.rate
        return min(max(wait_s, 0.0), _LONGEST_WAIT_S)

    def _receive(self) -> bool:
        """Hand over what the client wrote; returns False when it has hung up."""
        try:
            data = os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._controller.receive(data, self._clock.now())
        return True

    def _transmit(self) -> None:
        data = self._controller.transmit(self._clock.now())
        with contextlib.suppress(OSError):  # nobody reads: a real UART loses the bytes, too
            os.write(self._master, data)

    def _hung_up(self) -> bool:
        poller = select.poll()
        poller.register(self._master, 0)
        return any(flags & select.POLLHUP for _, flags in poller.poll(0))
