"""The stop key's short way: a process that owns the terminal, watches the raw bytes and sends the stop itself.

Drawing holds an interpreter for up to half a second, so a stop that is handled where the screen is drawn comes late
(measured). Here bytes just go through, from the terminal to the UI's inner one and back, so that it works while the UI
starts, ends, hangs or is gone. Standard library alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator

from rig.tui.stop_keys import StopKeys, StopTarget, TextWindow

_ROOM_BYTES = 1 << 18
_LEAVE = b"\x1b[<u\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?2004l\x1b[?1049l\x1b[?7h\x1b[?25h\x1b[0m"


class StopSender:
    """Sends stops to the engine's stop socket, found by its path each time: it may have been started anew."""

    def __init__(self, target: StopTarget) -> None:
        self._target = target
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def send(self, stop: bytes) -> bool:
        """Send ``stop`` or ``estop``; tells whether an engine took it."""
        path = self._target.path
        if path is None:
            return False
        with contextlib.suppress(OSError):
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # by the folder's descriptor, since a socket's name has 108 bytes at most
                return self._socket.sendto(stop + b" key", f"/proc/self/fd/{folder}/{path.name}") > 0
            finally:
                os.close(folder)
        return False


def fork_behind_relay(sender: StopSender, window: TextWindow) -> int | None:
    """Fork: the child returns None at once and is to draw, on an inner terminal; the parent relays until it ends.

    Returns:
        In the parent, which must have no other threads, the child's exit code; 128 + signal when it was killed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    inner, drawn_on = os.openpty()
    _copy_size(0, inner)
    child = os.fork()
    if child == 0:
        os.close(inner)
        os.login_tty(drawn_on)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup too: nobody sees what is drawn now
        return None
    os.close(drawn_on)
    with _raw_terminal() as outer:
        with _forwarded_size(outer, inner):
            os.set_blocking(inner, False)
            _relay(outer, inner, sender, window)
        os.close(inner)  # hangs up, where the UI is still there
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:
            with contextlib.suppress(OSError):
                os.write(outer, _LEAVE)
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _raw_terminal() -> Iterator[int]:
    outer = os.open(os.ttyname(0), os.O_RDWR | os.O_NOCTTY)  # opened anew: its O_NONBLOCK is ours alone
    before = termios.tcgetattr(outer)
    try:
        tty.setraw(outer, termios.TCSANOW)  # keeps what was typed meanwhile
        os.set_blocking(outer, False)
        yield outer
    finally:
        with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
            termios.tcsetattr(outer, termios.TCSANOW, before)
        os.close(outer)


@contextlib.contextmanager
def _forwarded_size(outer: int, inner: int) -> Iterator[None]:
    def forward(number: int = 0, frame: object = None) -> None:  # noqa: ARG001  - the signature is Python's
        _copy_size(outer, inner)

    forward()
    before = signal.signal(signal.SIGWINCH, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy_size(outer: int, inner: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(inner, termios.TIOCSWINSZ, fcntl.ioctl(outer, termios.TIOCGWINSZ, bytes(8)))


def _relay(outer: int, inner: int, sender: StopSender, window: TextWindow) -> None:
    keys, to_ui, to_terminal = StopKeys(), bytearray(), bytearray()
    with contextlib.suppress(OSError, EOFError):  # EIO or nothing: one of the two terminals is closed
        while True:
            reading = [outer] if len(to_terminal) >= _ROOM_BYTES else [outer, inner]
            writing = [fd for fd, waiting in ((inner, to_ui), (outer, to_terminal)) if waiting]
            readable, writable, _ = select.select(reading, writing, [])
            if outer in readable:
                typed = _read(outer)
                stops = keys.feed(typed, time.monotonic())
                for stop in () if window.open else stops:
                    sender.send(stop)
                to_ui += typed[: max(_ROOM_BYTES - len(to_ui), 0)]
            if inner in readable:
                to_terminal += _read(inner)
            for fd, waiting in ((inner, to_ui), (outer, to_terminal)):
                if fd in writable:
                    _write_some(fd, waiting)
    os.set_blocking(outer, True)
    with contextlib.suppress(OSError):
        while to_terminal:
            _write_some(outer, to_terminal)


def _read(fd: int) -> bytes:
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:  # somebody else read it
        return b""
    if not data:
        raise EOFError
    return data


def _write_some(fd: int, waiting: bytearray) -> None:
    with contextlib.suppress(BlockingIOError):
        del waiting[: os.write(fd, waiting)]
