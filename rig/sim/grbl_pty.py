"""The simulated controller as a serial port: a pseudo-terminal that any program can open."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import tty
from types import TracebackType
from typing import Self

from rig.clock import SessionClock
from rig.sim.grbl import GrblController

_HANG_UP_POLL_S = 0.005
_LONGEST_WAIT_S = 0.05
_READ_BYTES = 4096
_CLOSED = 0x08 | 0x10
_OPENED = 0x20


class GrblPty:
    """Serves a controller in a thread of its own until closed.

    A client that opens the port while nobody has it open reboots the controller, as DTR does on a real board.

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
        tty.setraw(
            slave
        )  # stays so when the client opens it: raw before its first byte, and never touched again
        os.close(slave)
        os.set_blocking(self._master, False)
        self._openings = _Openings(self.path)
        self._wake_reader, self._wake_writer = os.pipe()
        self._attended = False
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
                self._turn()
        finally:
            os.close(self._master)
            self._openings.close()

    def _turn(self) -> None:
        """Wait for something to do and do it."""
        self._notice_client()
        if not self._attended:
            self._closed.wait(_HANG_UP_POLL_S)
            self._controller.transmit(self._clock.now())  # said to nobody
            return
        watched = [self._master, self._wake_reader, self._openings.descriptor]
        readable, _, _ = select.select(watched, [], [], self._time_to_event_s())
        if self._master in readable:
            self._receive()
        self._transmit()

    def _notice_client(self) -> None:
        """Reboot for a client that came; talk to nobody before that, or it would hear two banners."""
        if self._hung_up():
            self._attended = False
            self._openings.forget_clients()
        if self._openings.client_came():
            self._attended = True
            self._controller.reboot(self._clock.now())

    def _time_to_event_s(self) -> float:
        wait_s = (self._controller.next_event_s - self._clock.now()) / self._clock.rate
        return min(max(wait_s, 0.0), _LONGEST_WAIT_S)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):  # the client has hung up meanwhile
            self._controller.receive(os.read(self._master, _READ_BYTES), self._clock.now())

    def _transmit(self) -> None:
        data = self._controller.transmit(self._clock.now())
        with contextlib.suppress(OSError):  # nobody reads: a real UART loses the bytes, too
            os.write(self._master, data)

    def _hung_up(self) -> bool:
        poller = select.poll()
        poller.register(self._master, 0)
        return any(flags & select.POLLHUP for _, flags in poller.poll(0))


class _Openings:
    """Notices when a client opens a device that nobody had open, however quickly the one before had gone.

    The terminal itself only tells whether somebody has it open now; the kernel's file notification (inotify)
    keeps the order of openings and closings.
    """

    def __init__(self, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if (
            self.descriptor < 0
            or libc.inotify_add_watch(self.descriptor, path.encode(), _OPENED | _CLOSED) < 0
        ):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        self._clients = 0

    def client_came(self) -> bool:
        """Tell whether a first client came since the last call."""
        came = False
        for mask in self._events():
            if mask & _OPENED:
                came |= self._clients == 0
                self._clients += 1
            elif mask & _CLOSED:
                self._clients = max(self._clients - 1, 0)
        return came

    def forget_clients(self) -> None:
        """Begin counting anew: nobody has the device open."""
        self._clients = 0

    def close(self) -> None:
        """Stop watching."""
        os.close(self.descriptor)

    def _events(self) -> list[int]:
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        return [
            mask for _, mask, _, _ in struct.iter_unpack("iIII", data)
        ]  # a watched file's events carry no name
