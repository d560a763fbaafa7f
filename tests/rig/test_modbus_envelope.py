"""No sequence of commands, stops and failures makes a Modbus rail write a motion that leaves travel or caps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modbus_drive_peer import rail_settings

from catalog.session_folder import SweepRecord
from rig.devices.modbus_drives import LEADSHINE_RS, join_words, split_words
from rig.devices.modbus_link import Exchange
from rig.devices.modbus_rail import ModbusRail
from rig.devices.modbus_settings import ModbusLineSettings
from rig.errors import RigError
from rig.testing import FakeClock

MAX_EXAMPLES = 150 * (20 if os.environ.get("CLEANPLATE_NIGHTLY") else 1)
UPPER_MM, MARGIN_MM, MAX_MM_S, RAMP_MM_S2 = 400, 5, 200.15, 1000
"""200.15 mm/s are 1200.9 rpm: the nearest whole number would exceed the cap."""
COUNTS_PER_MM, MM_S_PER_RPM = 1000, 10 / 60
ROUNDING_MM = 0.001


class InstantLine:
    """A line to a drive that is there at once: it notes every motion with what held when it was written."""

    def __init__(self, _: ModbusLineSettings, clock: FakeClock) -> None:
        self.clock = clock
        self.registers: dict[int, int] = {}
        self.count, self.homed, self.enabled = 3_000, False, True
        self.motions: list[tuple[bool, int, Sequence[int]]] = []

    def open(self) -> None:
        """Nothing to open."""

    def close(self) -> None:
        """Nothing to close."""

    def read_registers(self, unit: int, address: int, *, count: int) -> Exchange:
        """Return what stands there."""
        bits = LEADSHINE_RS.status_bits
        self.registers[LEADSHINE_RS.status] = bits.enabled * self.enabled | bits.homed * self.homed
        position = dict(enumerate(split_words(self.count), LEADSHINE_RS.position))
        found = self.registers | position
        now_s = self.clock.now()
        return Exchange(now_s, now_s, tuple(found.get(address + k, 0) for k in range(count)))

    def write_register(
        self,
        unit: int,
        address: int,
        value: int,
        *,
        urgent: bool = False,
        permit: Callable[[], None] | None = None,
    ) -> Exchange:
        """Take one register; homing is done at once."""
        return self.write_registers(unit, address, [value], permit=permit)

    def write_registers(
        self, unit: int, address: int, values: Sequence[int], *, permit: Callable[[], None] | None = None
    ) -> Exchange:
        """Take a block; a motion is done at once, and long ago when the driver looks."""
        if permit is not None:
            permit()
        self.registers.update(enumerate(values, address))
        if address == LEADSHINE_RS.trigger and list(values) == [LEADSHINE_RS.home]:
            self.homed, self.count = True, 0
        if address == LEADSHINE_RS.path.address:
            self.motions.append((self.homed, self.count, values))
            relative = values[0] == LEADSHINE_RS.path.relative
            self.count = self.count * relative + join_words(values[1], values[2])
            self.clock.advance(1000.0)
        now_s = self.clock.now()
        return Exchange(now_s, now_s)


PLACE = st.one_of(st.floats(-20, 420), st.floats())
SPEED = st.one_of(st.floats(0.1, 210), st.just(MAX_MM_S), st.just(5.0), st.floats())
HOME = st.just(("home",))
MOTION = st.one_of(
    st.tuples(st.just("move"), PLACE, st.none() | SPEED),
    st.tuples(st.just("jog"), st.floats(-12, 12) | st.floats(-400, 400) | st.floats(), SPEED),
    st.tuples(st.just("sweep"), st.floats(-5, 405), st.floats(-5, 405), st.floats(0.1, 210)),
)
TROUBLE = st.tuples(st.sampled_from(["stop", "emergency_stop", "power_loss", "disable"]))
REPAIR = st.tuples(st.sampled_from(["enable", "clear_fault"]))
COMMAND = st.one_of(MOTION, MOTION, MOTION, MOTION, HOME, REPAIR, REPAIR, TROUBLE)


def instant_rail(monkeypatch: pytest.MonkeyPatch) -> tuple[ModbusRail, InstantLine]:
    """Return an open rail on an instant line."""
    profile, clock = rail_settings("instant", max_velocity_mm_s=MAX_MM_S), FakeClock()
    line = InstantLine(profile, clock)
    monkeypatch.setattr("rig.devices.modbus_link.ModbusLink", lambda *_: line)
    rail = ModbusRail(profile, clock)
    rail.open()
    return rail, line


def obey(rail: ModbusRail, line: InstantLine, command: tuple[Any, ...]) -> None:
    """Do one command; what the rail refuses is refused."""
    name, *values = command
    with contextlib.suppress(RigError):
        if name == "home":
            rail.home(timeout_s=10)
        elif name == "move":
            rail.move_to(values[0], velocity_mm_s=values[1])
        elif name == "jog":
            rail.jog(values[0], velocity_mm_s=values[1])
        elif name == "sweep":
            sweep = SweepRecord(
                start_mm=values[0], end_mm=values[1], velocity_mm_s=values[2], acceleration_mm_s2=RAMP_MM_S2
            )
            rail.prepare(sweep)
            rail.kickoff(sweep)
        elif name == "power_loss":
            line.homed = False
        elif name in {"disable", "enable"}:
            line.enabled = name == "enable"
        else:
            getattr(rail, name)()


def assert_safe(homed: bool, count: int, words: Sequence[int]) -> None:
    """Check one motion as the drive would do it, independently of the driver's own arithmetic."""
    mode, high, low, rpm, up_ms, down_ms, dwell, trigger = words
    start_mm, moved_mm = count / COUNTS_PER_MM, join_words(high, low) / COUNTS_PER_MM
    assert (dwell, trigger) == (0, 0x10)
    assert rpm >= 1
    assert min(up_ms, down_ms) >= 1e6 * MM_S_PER_RPM / RAMP_MM_S2
    if mode == LEADSHINE_RS.path.relative:
        assert abs(moved_mm) <= 10
        assert rpm * MM_S_PER_RPM <= 5 + 1e-9
        return
    assert mode == LEADSHINE_RS.path.absolute
    assert homed
    assert rpm * MM_S_PER_RPM <= MAX_MM_S + 1e-9
    assert min(MARGIN_MM, max(start_mm, 0)) - ROUNDING_MM <= moved_mm
    assert moved_mm <= max(UPPER_MM - MARGIN_MM, min(start_mm, UPPER_MM)) + ROUNDING_MM


@given(commands=st.lists(COMMAND, min_size=1, max_size=20))
@settings(
    max_examples=MAX_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_motion_leaves_the_envelope(
    monkeypatch: pytest.MonkeyPatch, commands: list[tuple[Any, ...]]
) -> None:
    """Travel 0 to 400 mm less 5 mm, 200.15 mm/s, 1000 mm/s²; unhomed 10 mm at 5 mm/s."""
    rail, line = instant_rail(monkeypatch)

    for command in commands:
        obey(rail, line, command)

    for motion in line.motions:
        assert_safe(*motion)


def test_the_check_sees_motions_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The instant line does what it is told, so an unsafe motion would be caught."""
    rail, line = instant_rail(monkeypatch)

    for command in [("jog", 5, 4), ("home",), ("move", 100, None), ("sweep", 50, 90, 80)]:
        obey(rail, line, command)

    assert [words[0] for _, _, words in line.motions] == [0x41, 0x01, 0x01, 0x01]
    assert line.count == 98_200
    with pytest.raises(AssertionError):
        assert_safe(True, 0, [0x01, *split_words(396_000), 480, 167, 167, 0, 0x10])
