"""One RS-485 line: one exchange at a time, every one bounded, an urgent one goes next.

pymodbus frames, checks and decodes. What it leaves to its user is here: deadlines on the monotonic clock, the
silence between frames, turns with a priority, and answers that belong to another request. RTU frames carry no number,
so a late answer must not pass for the next request's: after a failure the line is left alone until none can come.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import serial
from pymodbus.client import ModbusSerialClient
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from rig.clock import SessionClock
from rig.devices.modbus_settings import ModbusLineSettings
from rig.devices.wire import open_error
from rig.errors import DeviceError, DeviceTimeoutError

logging.getLogger("pymodbus").addHandler(logging.NullHandler())  # else its errors go to stderr beside ours

READ_RETRIES = 3
"""Reads are harmless to repeat; writes are never repeated here."""


class ModbusRefusedError(DeviceError):
    """The device answered with an exception: it has no such register, or takes no such value now."""


@dataclass
class LineStatistics:
    """What went wrong on the line since it was opened."""

    silent: int = 0
    """Exchanges without any answer."""
    garbled: int = 0
    """Exchanges whose answer had a wrong checksum, length or sender."""
    refused: int = 0
    """Exception replies."""
    retries: int = 0


@dataclass(frozen=True)
class Exchange:
    """A finished exchange, on the session clock."""

    t_request_s: float
    t_reply_s: float
    values: tuple[int, ...] = ()
    """Registers or coils that were read."""


class _Turns:
    """Gives the line to one thread at a time; who is urgent goes before all who are not."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._urgent = 0

    @contextmanager
    def take(self, *, urgent: bool) -> Iterator[None]:
        """Hold the line while the block runs."""
        with self._changed:
            self._urgent += urgent
            self._changed.wait_for(lambda: not self._busy and (urgent or not self._urgent))
            self._urgent -= urgent
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()


class _BoundedClient(ModbusSerialClient):
    """pymodbus's client with one deadline per exchange, on the clock that never jumps."""

    def __init__(self, settings: ModbusLineSettings) -> None:
        self._line = settings
        self._patience_s = settings.answer_bound_s
        self._deadline_s = 0.0
        self.received_bytes = 0
        super().__init__(
            settings.port,
            baudrate=settings.baud,
            parity=settings.parity,
            timeout=self._patience_s,
            retries=0,
        )

    def open_port(self) -> None:
        """Open the port exclusively; raises as `ModbusLink.open`."""
        line = self._line
        try:
            self.socket = serial.Serial(
                line.port,
                line.baud,
                parity=line.parity,
                timeout=0,
                write_timeout=self._patience_s,
                exclusive=True,
            )
        except (serial.SerialException, OSError, ValueError) as error:
            raise open_error(line.port, error) from error

    def close(self) -> None:
        """Release the port."""
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    def connect(self) -> bool:
        """Tell whether the port is open; one that vanished is not opened again behind the driver's back."""
        return self.connected

    def send(self, request: bytes, addr: tuple[object, ...] | None = None) -> int:
        """Send a request; its reply is due from now on."""
        self._deadline_s = time.monotonic() + self._patience_s
        self.received_bytes = 0
        return super().send(request, addr)

    def recv(self, size: int | None) -> bytes:  # noqa: ARG002  # the base class asks for a size it does not know
        """Return what has come, or nothing when the deadline has passed."""
        if self.socket is None:
            raise ConnectionException(self.comm_params.host)
        remaining_s = max(self._deadline_s - time.monotonic(), 0.0)
        try:
            if not select.select([self.socket], [], [], remaining_s)[0]:
                return b""
            data: bytes = self.socket.read(max(self.socket.in_waiting, 1))
        except OSError as error:
            self.close()
            raise ConnectionException(str(error)) from None
        self.received_bytes += len(data)
        return data


class ModbusLink:
    """Speaks to the devices on one line. Thread-safe.

    Args:
        settings: Port, speed and time-outs; each call says which unit it means.
        clock: The session clock, for time stamps. Time-outs are the machine's seconds.
    """

    def __init__(self, settings: ModbusLineSettings, clock: SessionClock) -> None:
        self.settings = settings
        self.statistics = LineStatistics()
        self._clock = clock
        self._client = _BoundedClient(settings)
        self._turns = _Turns()
        self._line_free_s = 0.0
        self._quiet_until_s = 0.0

    def open(self) -> None:
        """Open the port for this process alone.

        Raises:
            DeviceNotFoundError: No such port.
            DeviceBusyError: Another program, or another device of this profile, holds it.
            DeviceError: It cannot be opened for another reason.
        """
        self._client.open_port()

    def close(self) -> None:
        """Release the port. Safe to call twice."""
        with self._turns.take(urgent=False):
            self._client.close()

    def read_registers(self, unit: int, address: int, *, count: int) -> Exchange:
        """Read holding registers (function 03), again up to three times.

        Raises:
            DeviceTimeoutError: No valid answer to any of them.
            ModbusRefusedError: The device has no such registers.
        """
        return self._read(
            f"unit {unit}, register 0x{address:04X}",
            lambda c: c.read_holding_registers(address, count=count, device_id=unit),
            lambda pdu: tuple(pdu.registers) if len(pdu.registers) == count else None,
        )

    def read_coils(self, unit: int, address: int, *, count: int) -> Exchange:
        """Read coils (function 01), again up to three times. Raises as `read_registers`."""
        return self._read(
            f"unit {unit}, coil {address}",
            lambda c: c.read_coils(address, count=count, device_id=unit),
            lambda pdu: tuple(int(b) for b in pdu.bits[:count]) if len(pdu.bits) >= count else None,
        )

    def write_register(
        self,
        unit: int,
        address: int,
        value: int,
        *,
        urgent: bool = False,
        permit: Callable[[], None] | None = None,
    ) -> Exchange:
        """Write one holding register (function 06), once.

        Args:
            unit: The device.
            address: The register.
            value: 16 bits.
            urgent: Go before every exchange that waits.
            permit: Called when the line is ours; raises to keep the request from leaving.

        Raises:
            DeviceTimeoutError: No valid answer; whether the device took it is not known.
            ModbusRefusedError: The device refused.
        """
        return self._exchange(
            f"unit {unit}, register 0x{address:04X}",
            lambda c: c.write_register(address, value, device_id=unit),
            lambda pdu: () if (pdu.address, list(pdu.registers)) == (address, [value]) else None,
            urgent=urgent,
            permit=permit,
        )

    def write_registers(
        self, unit: int, address: int, values: Sequence[int], *, permit: Callable[[], None] | None = None
    ) -> Exchange:
        """Write a block of holding registers (function 10), once. Arguments and errors as `write_register`."""
        return self._exchange(
            f"unit {unit}, registers from 0x{address:04X}",
            lambda c: c.write_registers(address, list(values), device_id=unit),
            lambda pdu: () if (pdu.address, pdu.count) == (address, len(values)) else None,
            permit=permit,
        )

    def write_coil(self, unit: int, address: int, *, on: bool) -> Exchange:
        """Write one coil (function 05), once. Errors as `write_register`."""
        return self._exchange(
            f"unit {unit}, coil {address}",
            lambda c: c.write_coil(address, on, device_id=unit),
            lambda pdu: () if (pdu.address, list(pdu.bits)[:1]) == (address, [on]) else None,
        )

    def _read(
        self,
        what: str,
        ask: Callable[[ModbusSerialClient], ModbusPDU],
        values_of: Callable[[ModbusPDU], tuple[int, ...] | None],
    ) -> Exchange:
        for _ in range(READ_RETRIES):
            try:
                return self._exchange(what, ask, values_of)
            except DeviceTimeoutError:
                self.statistics.retries += 1
        return self._exchange(what, ask, values_of)

    def _exchange(
        self,
        what: str,
        ask: Callable[[ModbusSerialClient], ModbusPDU],
        values_of: Callable[[ModbusPDU], tuple[int, ...] | None],
        *,
        urgent: bool = False,
        permit: Callable[[], None] | None = None,
    ) -> Exchange:
        if not urgent:
            self._wait_out_late_answers()
        with self._turns.take(urgent=urgent):
            if permit is not None:
                permit()
            self._require_port()
            _sleep_until(self._line_free_s)
            request_s = self._clock.now()
            pdu = self._ask(what, ask)
            reply_s = self._clock.now()
        return Exchange(request_s, reply_s, self._checked(what, pdu, values_of))

    def _wait_out_late_answers(self) -> None:
        """Let the time pass in which an answer given up may still come; an urgent request does not wait for it."""
        _sleep_until(self._quiet_until_s)

    def _ask(self, what: str, ask: Callable[[ModbusSerialClient], ModbusPDU]) -> ModbusPDU:
        try:
            return ask(self._client)
        except ConnectionException as error:
            self._require_port(error)
            raise self._no_answer(what, "took no bytes") from error
        except ModbusException as error:
            raise self._no_answer(what, self._describe_silence()) from error
        finally:
            self._line_free_s = time.monotonic() + self.settings.silence_s

    def _describe_silence(self) -> str:
        received = self._client.received_bytes
        if not received:
            self.statistics.silent += 1
            return "did not answer"
        self.statistics.garbled += 1
        return f"gave no valid answer ({received} bytes came)"

    def _checked(
        self, what: str, pdu: ModbusPDU, values_of: Callable[[ModbusPDU], tuple[int, ...] | None]
    ) -> tuple[int, ...]:
        if isinstance(pdu, ExceptionResponse):
            self.statistics.refused += 1
            raise ModbusRefusedError(
                f"{self.settings.port}: {what}: refused ({_exception_name(pdu.exception_code)})",
                next_step="check the drive family or relay board in the profile against the device's manual",
            )
        values = values_of(pdu)
        if values is None:
            self.statistics.garbled += 1
            raise self._no_answer(what, "answered something else")
        return values

    def _no_answer(self, what: str, happened: str) -> DeviceTimeoutError:
        self._quiet_until_s = time.monotonic() + self.settings.reply_timeout_s
        return DeviceTimeoutError(
            f"{self.settings.port}: {what}: {happened} within {self.settings.answer_bound_s:.2f} s",
            next_step="check power, wiring (A/B, termination), unit and baud",
        )

    def _require_port(self, error: Exception | None = None) -> None:
        if not self._client.connected:
            raise DeviceError(
                f"{self.settings.port}: the port vanished or is not open",
                kept="what was recorded so far",
                next_step="check the adapter's cable, then connect again",
            ) from error


def _sleep_until(monotonic_s: float) -> None:
    time.sleep(max(monotonic_s - time.monotonic(), 0.0))


def _exception_name(code: int) -> str:
    try:
        return ExcCodes(code).name.lower().replace("_", " ")
    except ValueError:
        return f"code {code}"
