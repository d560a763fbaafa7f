"""The simulated controller as a serial port: a pseudo-terminal that any program can open."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import tty
from pathlib import Path
from types import TracebackType
from typing import Self

from rig.clock import SessionClock
from rig.scratch import ScratchFolder
from rig.sim.grbl import GrblController

_HANG_UP_POLL_S = 0.005
_LONGEST_WAIT_S = 0.05
_READ_BYTES = 4096
_MOST_UNDER_WAY = 4096
"""Bytes that a serial driver takes off the host's hands; more than that has to wait."""
_CLOSED = 0x08 | 0x10
_OPENED = 0x20


class GrblPty:
    """Serves a controller in a thread of its own until closed.

    A client that opens the port while nobody has it open reboots the controller, as DTR does on a real board.
    A port that vanishes takes its name along; when it comes back it has the same name again and the controller
    has lost its power meanwhile, as with an adapter that is unplugged.

    Args:
        controller: What is behind the port.
        clock: The session clock it runs on.

    Attributes:
        path: Device path for the client; stays the same however often the port comes and goes.
    """

    def __init__(self, controller: GrblController, clock: SessionClock) -> None:
        self._controller = controller
        self._clock = clock
        self._folder = ScratchFolder("rail")
        self.path = str(self._folder.path / "grbl")
        self._port: _Port | None = _Port(self.path)
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
        self._folder.cleanup()

    def _serve(self) -> None:
        try:
            while not self._closed.is_set():
                self._turn()
        finally:
            self._unplug()

    def _turn(self) -> None:
        """Wait for something to do and do it."""
        port = self._plugged()
        if port is None or not self._notice_client(port):
            self._closed.wait(_HANG_UP_POLL_S)
            self._controller.transmit(self._clock.now())  # said to nobody
            return
        watched = [self._wake_reader, port.openings.descriptor]
        if self._controller.backlog < _MOST_UNDER_WAY:
            watched.append(port.master)
        readable, _, _ = select.select(watched, [], [], self._time_to_event_s())
        if port.master in readable:
            self._receive(port)
        self._transmit(port)

    def _plugged(self) -> _Port | None:
        """Let the port come and go as the controller's faults say."""
        if self._controller.vanished:
            self._unplug()
        elif self._port is None:
            self._port = _Port(self.path)
        return self._port

    def _unplug(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _notice_client(self, port: _Port) -> bool:
        """Reboot for a client that came; talk to nobody before that, or it would hear two banners."""
        if port.hung_up():
            port.attended = False
            port.openings.forget_clients()
        if port.openings.client_came():
            port.attended = True
            self._controller.reboot(self._clock.now())
        return port.attended

    def _time_to_event_s(self) -> float:
        wait_s = (self._controller.next_event_s - self._clock.now()) / self._clock.rate
        return min(max(wait_s, 0.0), _LONGEST_WAIT_S)

    def _receive(self, port: _Port) -> None:
        with contextlib.suppress(OSError):  # the client has hung up meanwhile
            self._controller.receive(os.read(port.master, _READ_BYTES), self._clock.now())

    def _transmit(self, port: _Port) -> None:
        data = self._controller.transmit(self._clock.now())
        with contextlib.suppress(OSError):  # nobody reads: a real UART loses the bytes, too
            os.write(port.master, data)


class _Port:
    """One pseudo-terminal under a lasting name, raw before its first byte and without a reader of our own."""

    def __init__(self, path: str) -> None:
        self.master, slave = os.openpty()
        name = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.openings = _Openings(name)
        self.attended = False
        self._link = Path(path)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(name)

    def hung_up(self) -> bool:
        """Tell whether nobody has the port open."""
        poller = select.poll()
        poller.register(self.master, 0)
        return any(flags & select.POLLHUP for _, flags in poller.poll(0))

    def close(self) -> None:
        """Unplug: reading and writing fail for whoever has it open, and the name is gone."""
        self._link.unlink(missing_ok=True)
        os.close(self.master)
        self.openings.close()


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
