"""A simulated stepper drive behind pymodbus's own RTU server, on a pseudo-terminal pair that can damage what passes.

Two ptys are joined by a pump thread: the server holds one slave end, the client opens the other. The pump delays,
drops or flips bytes on their way back; the drive itself moves on a trapezoid, homes, brakes and alarms.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from catalog.session_folder import SweepRecord
from rig.devices.modbus_drives import (
    LEADSHINE_RS,
    DriveFamily,
    DriveOutput,
    PathTable,
    StatusBits,
    join_words,
    split_words,
)
from rig.devices.modbus_rail import ModbusRailSettings

PULSES_PER_REV_DEFAULT = 4000
RELAY_UNIT = 2
READ_COILS = 1
SWEEP = SweepRecord(start_mm=50, end_mm=90, velocity_mm_s=80, acceleration_mm_s2=1000)
PATH, TRIGGER, CONTROL = LEADSHINE_RS.path.address, LEADSHINE_RS.trigger, LEADSHINE_RS.control


MADE_UP = DriveFamily(
    name="made-up",
    status=0x0300,
    status_bits=StatusBits(fault=1 << 15, enabled=1 << 0, running=1 << 4, homed=1 << 9),
    position=0x0310,
    speed=0x0320,
    path=PathTable(address=0x0400, absolute=0x07, relative=0x17, start=0x01),
    trigger=0x0500,
    home=0x02,
    quick_stop=0x04,
    control=0x0600,
    clear_alarm=0x99,
    position_is_measured=False,
    outputs={"do1": DriveOutput(address=0x0700, on=3, off=1)},
)
"""A vendor that shares no address, bit or word with the first one, and has no optional registers."""


def rail_settings(port: str, **changes: Any) -> ModbusRailSettings:
    """1000 counts per mm; quick ramps and a patient reply time-out, for tests on a loaded machine."""
    values = {
        "kind": "modbus",
        "drive": "leadshine-rs",
        "port": port,
        "lead_mm": 10,
        "travel_mm": (0, 400),
        "max_velocity_mm_s": 200,
        "max_acceleration_mm_s2": 2000,
        "acceleration_mm_s2": 1000,
        "homing_velocity_mm_s": 100,
        "reply_timeout_s": 0.4,
    }
    return ModbusRailSettings.model_validate({**values, **changes})


@dataclass
class LineFaults:
    """What the line does to the next replies; counts run down."""

    drop_requests: int = 0
    drop_replies: int = 0
    flip_replies: int = 0
    delay_s: float = 0.0
    delayed_replies: int = 0
    function: int | None = None
    """Drop requests and replies of this function only."""
    foreign_replies: int = 0
    """Replies whose unit number is somebody else's."""

    def take(self, which: str, frame: bytes) -> bool:
        """Tell whether this frame is to be lost, and count it."""
        left = getattr(self, which)
        hit = bool(left) and self.function in {None, frame[1]}
        setattr(self, which, left - hit)
        return hit


@dataclass
class _Profile:
    """One trapezoid in counts and seconds."""

    start: float
    end: float
    speed: float
    up: float
    down: float
    t0_s: float

    def at(self, t_s: float) -> tuple[float, float]:
        """Return position and speed, signed; at the end both stand still."""
        length, sign = abs(self.end - self.start), 1.0 if self.end >= self.start else -1.0
        if not length:
            return self.end, 0.0
        peak = min(self.speed, (2 * length / (1 / self.up + 1 / self.down)) ** 0.5)
        t_up, t_down = peak / self.up, peak / self.down
        t_flat = (length - peak * (t_up + t_down) / 2) / peak
        t = max(t_s - self.t0_s, 0.0)
        if t >= t_up + t_flat + t_down:
            return self.end, 0.0
        if t < t_up:
            return self.start + sign * self.up * t * t / 2, sign * self.up * t
        if t < t_up + t_flat:
            return self.start + sign * peak * (t - t_up / 2), sign * peak
        left = t_up + t_flat + t_down - t
        return self.end - sign * self.down * left * left / 2, sign * self.down * left


@dataclass
class SimulatedDrive:
    """The drive's mechanics and registers. Counts grow away from a home switch at count 0 of the truth."""

    family: DriveFamily
    true_start: float = 5_000
    """True counts between the home switch and the carriage at power-up."""
    registers: dict[int, int] = field(default_factory=dict)
    requests: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    """Every write that arrived: function, address, values."""
    refuse: set[int] = field(default_factory=set)
    """Addresses that answer with an exception."""
    stuck: set[int] = field(default_factory=set)
    """Addresses that take no value."""
    running_lags_s: float = 0.03
    home_switch_works: bool = True
    alarm_at_count: float | None = None
    alarm_stays: bool = False
    ignore_paths: int = 0
    """Motions that are acknowledged and not done."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.power_up(self.true_start)
        homing = self.family.homing
        if self.family.pulses_per_rev is not None:
            self.registers[self.family.pulses_per_rev] = PULSES_PER_REV_DEFAULT
        if homing is not None:
            self.registers[homing.ramp_up_ms] = self.registers[homing.ramp_down_ms] = 100
        if self.family.soft_limits is not None:
            self.registers[self.family.soft_limits.lower] = 0x7FFF

    def power_up(self, true_count: float) -> None:
        """Forget position and homing, as after a power loss; the carriage stays where it is."""
        self.datum = true_count
        self.profile = _Profile(true_count, true_count, 1, 1, 1, time.monotonic())
        self.homed, self.enabled, self.alarm, self._homing = False, True, 0, False

    @property
    def true_count(self) -> float:
        """Counts between the home switch and the carriage, whatever the drive believes."""
        return self.profile.at(time.monotonic())[0]

    @property
    def running(self) -> bool:
        """Whether the motor turns or is about to."""
        now_s = time.monotonic()
        return self.profile.at(now_s) != (self.profile.end, 0.0) and now_s >= self.profile.t0_s

    def trip(self, code: int) -> None:
        """Raise an alarm: the motor stops dead."""
        self._halt_dead()
        self.alarm = code

    def serve(
        self, function: int, address: int, count: int, values: list[int] | None
    ) -> list[int] | ExcCodes:
        """Answer one request, as the server's callback."""
        with self.lock:
            self._live()
            if address in self.refuse:
                return ExcCodes.ILLEGAL_ADDRESS
            if values is None:
                return [self._value(address + k) for k in range(count)]
            self.requests.append((function, address, tuple(values)))
            for offset, value in enumerate(values):
                if address + offset not in self.stuck:
                    self.registers[address + offset] = value
            self._act(address, values)
            return values

    def _live(self) -> None:
        """Let happen what happened since the last request."""
        now_s = time.monotonic()
        position, _ = self.profile.at(now_s)
        if self.alarm_at_count is not None and self.running and position >= self.alarm_at_count:
            self.trip(0x20)
        if self._homing and not self.running:
            self._homing = False
            if self.home_switch_works:
                self.homed, self.datum = True, 0.0

    def _act(self, address: int, values: list[int]) -> None:
        path = self.family.path
        if address == path.address and len(values) == 8:
            self._start_path(values)
        elif address == self.family.trigger and values == [self.family.home]:
            self._start_homing()
        elif address == self.family.trigger and values == [self.family.quick_stop]:
            self._brake()
        elif address == self.family.control and values == [self.family.clear_alarm]:
            self.alarm = self.alarm if self.alarm_stays else 0

    def _start_path(self, words: list[int]) -> None:
        if self.ignore_paths or self.alarm or not self.enabled:
            self.ignore_paths = max(self.ignore_paths - 1, 0)
            return
        mode, high, low, rpm, up_ms, down_ms, _, _ = words
        here = self.true_count
        base = here if mode == self.family.path.relative else self.datum
        end = self._limited(base + join_words(high, low))
        self._go(here, end, rpm, up_ms, down_ms)

    def _limited(self, count: float) -> float:
        limits = self.family.soft_limits
        if limits is None or not self.homed or not self.registers.get(limits.switch, 0) & limits.switch_mask:
            return count
        upper = join_words(self._value(limits.upper), self._value(limits.upper + 1))
        lower = join_words(self._value(limits.lower), self._value(limits.lower + 1))
        return min(max(count, self.datum + lower), self.datum + upper)

    def _start_homing(self) -> None:
        homing = self.family.homing
        rpm = self._value(homing.seek_rpm) if homing else 60
        up_ms = self._value(homing.ramp_up_ms) if homing else 100
        end = 0.0 if self.home_switch_works else -1e9
        self.homed, self._homing = False, True
        self._go(self.true_count, end, rpm, up_ms, up_ms)

    def _go(self, start: float, end: float, rpm: float, up_ms: float, down_ms: float) -> None:
        per_rev = self._per_rev()
        t0_s = time.monotonic() + self.running_lags_s
        up, down = (per_rev * 1000 / 60 / ms * 1000 for ms in (up_ms, down_ms))
        self.profile = _Profile(start, end, rpm * per_rev / 60, up, down, t0_s)

    def _brake(self) -> None:
        now_s = time.monotonic()
        position, speed = self.profile.at(now_s)
        address = self.family.quick_stop_ramp_ms
        ramp_ms = self._value(address) if address is not None else 20
        down = self._per_rev() * 1000 / 60 / ramp_ms * 1000
        length = speed * abs(speed) / (2 * down)
        self._homing = False
        if speed:
            self.profile = _Profile(position, position + length, abs(speed), 1e12, down, now_s)
        else:
            self._halt_dead()

    def _halt_dead(self) -> None:
        here = self.true_count
        self.profile = _Profile(here, here, 1, 1, 1, time.monotonic())

    def _per_rev(self) -> int:
        address = self.family.pulses_per_rev
        return self._value(address) if address is not None else 10_000

    def _value(self, address: int) -> int:
        """Return what a register reads."""
        family = self.family
        position, speed = self.profile.at(time.monotonic())
        if address == family.status:
            return self._status_word()
        if address == family.alarm:
            return self.alarm
        if address in {family.position, family.position + 1}:
            return split_words(round(position - self.datum))[address - family.position]
        if address in {family.speed, family.speed + 1}:
            return split_words(round(speed * 60 / self._per_rev()))[address - family.speed]
        return self.registers.get(address, 0)

    def _status_word(self) -> int:
        bits = self.family.status_bits
        return (
            bits.fault * bool(self.alarm)
            | bits.enabled * self.enabled
            | bits.running * self.running
            | bits.homed * self.homed
        )


@dataclass
class DrivePeer:
    """A test's handle on drive and line."""

    port: str
    drive: SimulatedDrive
    faults: LineFaults
    coils: list[bool]
    """Coils of the relay board that shares the server."""
    flickering_coils: set[int]
    """Coils that fall off again at once."""
    done: threading.Event
    units: set[int]
    frames: list[bytes]
    """Requests in the order in which they came over the line."""
    unplug: Callable[[], object] = print
    """Takes the adapter away."""


@contextmanager
def drive_peer(family: DriveFamily, *, unit: int = 1, baud: int = 115200) -> Iterator[DrivePeer]:
    """Serve a drive (and a relay board as unit 2) while the block runs."""
    with contextlib.ExitStack() as stack:
        server_master, server_port = _open_pty(stack)
        client_master, client_port = _open_pty(stack)
        peer = DrivePeer(
            client_port,
            SimulatedDrive(family),
            LineFaults(),
            [False] * 16,
            set(),
            threading.Event(),
            {unit, RELAY_UNIT},
            [],
        )
        stack.enter_context(_served(peer, server_port, unit=unit, baud=baud))
        pump = stack.enter_context(_pumped(peer, client_master, server_master))
        peer.unplug = lambda: (pump(), _close_quietly(client_master))
        yield peer


def _open_pty(stack: contextlib.ExitStack) -> tuple[int, str]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    stack.callback(os.close, slave)
    stack.callback(_close_quietly, master)
    return master, os.ttyname(slave)


def _close_quietly(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


@contextmanager
def _served(peer: DrivePeer, port: str, *, unit: int, baud: int) -> Iterator[None]:
    ready, loop = threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(_serve(peer, port, unit, baud, ready)), daemon=True
    )
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(peer.done.set)
        thread.join(20)
        loop.close()


async def _serve(peer: DrivePeer, port: str, unit: int, baud: int, ready: threading.Event) -> None:
    server = ModbusSerialServer(
        context=[_drive_device(peer, unit), _relay_device(peer)],
        framer=FramerType.RTU,
        port=port,
        baudrate=baud,
    )
    serving = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0.05)
    ready.set()
    while not peer.done.is_set():
        await asyncio.sleep(0.02)
    await server.shutdown()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _drive_device(peer: DrivePeer, unit: int) -> SimDevice:
    async def action(*request: Any) -> ExcCodes | None:
        function, start, address, count, current, values = request
        written = None if values is None else [int(v) for v in values]
        found = peer.drive.serve(function, address, count, written)
        if isinstance(found, ExcCodes):
            return found
        current[address - start : address - start + count] = found
        return None

    registers = [SimData(0, count=0x7000, datatype=DataType.REGISTERS)]
    return SimDevice(unit, simdata=registers, action=action)


def _relay_device(peer: DrivePeer) -> SimDevice:
    async def action(*request: Any) -> None:
        function, _, address, _, current, values = request
        for offset, value in enumerate(values or ()):
            peer.coils[address + offset] = bool(value)
        if function == READ_COILS and address in peer.flickering_coils:
            current[:] = [0] * len(current)

    blank = [SimData(0, values=0, datatype=DataType.REGISTERS)]
    bits = [SimData(0, count=16, values=False, datatype=DataType.BITS)]
    return SimDevice(RELAY_UNIT, simdata=(bits, list(bits), blank, list(blank)), action=action)


@contextmanager
def _pumped(peer: DrivePeer, client: int, server: int) -> Iterator[Callable[[], None]]:
    done = threading.Event()
    threads = [
        threading.Thread(target=_forward, args=(peer, client, server, done), daemon=True),
        threading.Thread(target=_back, args=(peer, server, client, done), daemon=True),
    ]

    def end() -> None:
        done.set()
        for thread in threads:
            thread.join(10)

    for thread in threads:
        thread.start()
    try:
        yield end
    finally:
        end()


def _frames(fd: int, done: threading.Event) -> Iterator[bytes]:
    """Yield what arrives; on a pty a frame that was written at once is read at once."""
    while not done.is_set():
        if select.select([fd], [], [], 0.05)[0]:
            try:
                yield os.read(fd, 512)
            except OSError:
                return


def _forward(peer: DrivePeer, source: int, sink: int, done: threading.Event) -> None:
    for frame in _frames(source, done):
        peer.frames.append(frame)
        # pymodbus's server answers for units that are not there; on a real line nobody does
        if frame[0] in peer.units and not peer.faults.take("drop_requests", frame):
            os.write(sink, frame)


def _back(peer: DrivePeer, source: int, sink: int, done: threading.Event) -> None:
    faults = peer.faults
    for chunk in _frames(source, done):
        frame = chunk
        if faults.take("drop_replies", chunk):
            continue
        if faults.flip_replies:
            faults.flip_replies -= 1
            frame = frame[:-3] + bytes([frame[-3] ^ 0x10]) + frame[-2:]
        if faults.foreign_replies:
            faults.foreign_replies -= 1
            frame = _readdressed(frame)
        if faults.delayed_replies:
            faults.delayed_replies -= 1
            done.wait(faults.delay_s)
        os.write(sink, frame)


def _readdressed(frame: bytes) -> bytes:
    """Return a valid frame of another unit."""
    from pymodbus.framer import FramerRTU

    body = bytes([frame[0] + 1]) + frame[1:-2]
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


def paths(peer: DrivePeer) -> list[tuple[int, ...]]:
    """Return the motions that were written."""
    return [values for _, address, values in peer.drive.requests if address == PATH]
