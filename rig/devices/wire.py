"""A line of text to a device and back, with a deadline on everything."""

from __future__ import annotations

import contextlib
import errno
import termios
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rig.clock import SessionClock
from rig.errors import DeviceBusyError, DeviceError, DeviceNotFoundError, DeviceTimeoutError

if TYPE_CHECKING:
    import serial

MAX_LINE_BYTES = 512
"""Longer input without a line end is noise and is thrown away."""
_POLL_S = 0.02
_WRITE_TIMEOUT_S = 1.0


class Wire(Protocol):
    """A text line protocol's transport. One thread reads and writes lines; any thread may write real-time bytes."""

    name: str
    """What a message calls it, e.g. the port."""

    @property
    def discarded_bytes(self) -> int:
        """Bytes thrown away because no line end came."""

    def write_line(self, line: str) -> None:
        """Send one line; the line end is added."""

    def read_line(self, *, timeout_s: float) -> str | None:
        """Return the next line without its end, or None when none was complete in time (session seconds)."""

    def write_realtime(self, data: bytes) -> None:
        """Send bytes that the device handles ahead of all lines. Thread-safe."""

    def flush(self) -> None:
        """Throw away everything received so far."""

    def close(self) -> None:
        """Release the transport. Safe to call twice."""


class LineAssembler:
    """Makes lines of bytes as they come in; what grows too long is noise up to its line end.

    The rest of such a line is noise as well: its last bytes may look like an answer.
    """

    def __init__(self) -> None:
        self.discarded_bytes = 0
        self._complete: deque[bytes] = deque()
        self._open = bytearray()
        self._skipping = False

    def add(self, data: bytes) -> None:
        """Take bytes."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._extend(end)
            if not self._skipping:
                self._complete.append(bytes(self._open))
            self._open.clear()
            self._skipping = False
        self._extend(rest)

    def take(self) -> str | None:
        """Return the next line without its end, maybe empty; None when none is complete."""
        if not self._complete:
            return None
        return self._complete.popleft().strip(b"\r\n\x00 ").decode("ascii", errors="replace")

    def clear(self) -> None:
        """Forget what is not taken yet."""
        self._complete.clear()
        self._open.clear()

    def _extend(self, data: bytes) -> None:
        if self._skipping or len(self._open) + len(data) > MAX_LINE_BYTES:
            self.discarded_bytes += len(self._open) + len(data)
            self._open.clear()
            self._skipping = True
        else:
            self._open += data


class SerialWire:
    """A serial port, opened exclusively and without hanging up on close.

    Baud rate, DTR and the like mean nothing on a pseudo-terminal; calls that it refuses are skipped.

    Args:
        port: Device path; prefer ``/dev/serial/by-id/…``, which survives replugging.
        clock: Deadlines are seconds of this clock.
        baud: Bits per second, 8N1.

    Raises:
        DeviceNotFoundError: No such port.
        DeviceBusyError: Another program holds it.
        DeviceError: It cannot be opened for another reason.
    """

    def __init__(self, port: str, clock: SessionClock, *, baud: int = 115200) -> None:
        self.name = port
        self._clock = clock
        self._lines = LineAssembler()
        self._closing = threading.Lock()
        self._serial = _open_port(port, baud)

    @property
    def discarded_bytes(self) -> int:
        """Bytes of lines that were too long."""
        return self._lines.discarded_bytes

    def write_line(self, line: str) -> None:
        """Send one line; raises `DeviceTimeoutError` when the device takes no bytes for 1 s."""
        self._write(line.encode("ascii") + b"\n")

    def write_realtime(self, data: bytes) -> None:
        """Send bytes at once, from any thread; they may fall between the bytes of a line."""
        self._write(data)

    def read_line(self, *, timeout_s: float) -> str | None:
        """Return the next non-empty line, or None after ``timeout_s`` session seconds."""
        deadline_s = time.monotonic() + timeout_s / self._clock.rate
        last_look = False
        while True:
            line = self._lines.take()
            if line:
                return line
            if line is None:
                if last_look:
                    return None
                last_look = time.monotonic() >= deadline_s
                self._receive(wait=not last_look)

    def flush(self) -> None:
        """Throw away everything received so far, here and in the system's buffer."""
        self._lines.clear()
        with self._named_errors():
            self._serial.reset_input_buffer()

    def close(self) -> None:
        """Close the port. Safe to call twice."""
        with self._closing, contextlib.suppress(OSError, termios.error):
            self._serial.close()

    def _receive(self, *, wait: bool) -> None:
        with self._named_errors():
            data = self._serial.read(max(int(wait), self._serial.in_waiting))
        self._lines.add(data)

    def _write(self, data: bytes) -> None:
        with self._named_errors():
            self._serial.write(data)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        import serial

        try:
            yield
        except serial.SerialTimeoutException as error:
            raise DeviceTimeoutError(
                f"{self.name}: took no bytes for {_WRITE_TIMEOUT_S:g} s",
                next_step="check that the controller is powered and not hung",
            ) from error
        except (OSError, TypeError, termios.error) as error:
            raise DeviceError(
                f"{self.name}: the port vanished ({error})",
                kept="what was recorded so far",
                next_step="check cable and power, see that no other program reads the port, then connect again",
            ) from error


def _open_port(port: str, baud: int) -> serial.Serial:
    import serial

    try:
        opened = serial.Serial(port, baud, timeout=_POLL_S, write_timeout=_WRITE_TIMEOUT_S, exclusive=True)
    except (serial.SerialException, OSError, ValueError) as error:
        raise open_error(port, error) from error
    _keep_running_on_close(opened)
    return opened


def open_error(port: str, error: Exception) -> DeviceError:
    """Return why a port cannot be opened, and what to do about it."""
    number = getattr(error, "errno", None)
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return DeviceNotFoundError(
            f"{port}: no such port", next_step="plug the controller in, then `rig devices` lists the ports"
        )
    if number in {errno.EBUSY, errno.EAGAIN} or "lock" in str(error):
        return DeviceBusyError(
            f"{port}: another program holds the port", next_step="close the other program (a G-code sender?)"
        )
    if number == errno.EACCES:
        return DeviceError(
            f"{port}: permission denied", next_step="add yourself to the group that owns the port (dialout)"
        )
    return DeviceError(f"{port}: cannot be opened ({error})", next_step="check the profile's port")


def _keep_running_on_close(opened: serial.Serial) -> None:
    """Switch hang-up-on-close off: dropping DTR reboots many boards."""
    with contextlib.suppress(termios.error):
        attributes = termios.tcgetattr(opened.fileno())
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(opened.fileno(), termios.TCSANOW, attributes)


@dataclass(frozen=True)
class SerialPort:
    """A serial port of this machine."""

    port: str
    """Device path, by its stable name where it has one."""
    description: str


def serial_ports() -> list[SerialPort]:
    """List the serial ports that a device is behind."""
    from serial.tools import list_ports

    stable = {p.resolve(): str(p) for p in Path("/dev/serial/by-id").glob("*")}
    found = [p for p in list_ports.comports() if p.vid is not None]
    return [SerialPort(stable.get(Path(p.device).resolve(), p.device), p.description) for p in sorted(found)]
