"""What the Modbus rail does when line or drive fail: never hangs, never moves twice, says what happened."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest
from modbus_drive_peer import PATH, SWEEP, TRIGGER, DrivePeer, drive_peer, paths, rail_settings

from rig.clock import SessionClock
from rig.devices.modbus_drives import LEADSHINE_RS
from rig.devices.modbus_link import ModbusLink, ModbusRefusedError
from rig.devices.modbus_rail import ModbusRail
from rig.devices.rail import RailState
from rig.errors import DeviceError, DeviceTimeoutError, RailLockedError

QUICK_STOP = (6, TRIGGER, (0x40,))


@pytest.fixture
def peer() -> Iterator[DrivePeer]:
    with drive_peer(LEADSHINE_RS) as served:
        yield served


@pytest.fixture
def homed(peer: DrivePeer) -> Iterator[ModbusRail]:
    """A homed rail with a shorter reply time-out, as here replies fail to come."""
    rail = ModbusRail(rail_settings(peer.port, reply_timeout_s=0.25), SessionClock())
    rail.open()
    rail.home(timeout_s=30)
    peer.drive.requests.clear()
    yield rail
    rail.close()


@pytest.fixture
def link(peer: DrivePeer) -> Iterator[ModbusLink]:
    line = ModbusLink(rail_settings(peer.port, reply_timeout_s=0.25), SessionClock())
    line.open()
    yield line
    line.close()


def test_a_reply_with_a_wrong_checksum_is_asked_for_again(peer: DrivePeer, link: ModbusLink) -> None:
    peer.drive.registers[0x0123] = 77
    peer.faults.flip_replies = 2

    assert link.read_registers(1, 0x0123, count=1).values == (77,)

    assert link.statistics.garbled >= 2
    assert link.statistics.retries == link.statistics.garbled + link.statistics.silent


def test_a_reply_of_another_unit_is_not_taken_for_ours(peer: DrivePeer, link: ModbusLink) -> None:
    peer.drive.registers[0x0123] = 77
    peer.faults.foreign_replies = 1

    assert link.read_registers(1, 0x0123, count=1).values == (77,)

    assert link.statistics.garbled >= 1


def test_a_late_reply_is_not_taken_for_the_next_request(peer: DrivePeer, link: ModbusLink) -> None:
    """The reply to the first of two like reads comes 0.15 s after it was given up."""
    peer.drive.registers.update({0x0123: 1, 0x0200: 2})
    peer.faults.delay_s, peer.faults.delayed_replies = 0.4, 1

    with pytest.raises(DeviceTimeoutError):
        link.write_register(1, 0x0123, 1)

    assert link.read_registers(1, 0x0200, count=1).values == (2,)
    assert link.statistics.silent >= 1


def test_an_exception_reply_is_told_in_words_and_not_repeated(peer: DrivePeer, link: ModbusLink) -> None:
    peer.drive.refuse.add(0x0123)
    before = len(peer.frames)

    with pytest.raises(ModbusRefusedError, match=r"register 0x0123: refused \(illegal address\)"):
        link.read_registers(1, 0x0123, count=1)

    assert len(peer.frames) == before + 1
    assert link.statistics.refused == 1


def test_a_unit_that_is_not_there_is_named_after_four_tries(peer: DrivePeer) -> None:
    rail = ModbusRail(rail_settings(peer.port, unit=9, reply_timeout_s=0.05), SessionClock())

    with pytest.raises(DeviceTimeoutError, match=r"unit 9, register 0x1003: did not answer.*check power"):
        rail.open()

    assert len(peer.frames) == 4


def test_a_write_is_never_repeated_by_the_line(peer: DrivePeer, link: ModbusLink) -> None:
    peer.faults.drop_replies = 1

    with pytest.raises(DeviceTimeoutError):
        link.write_register(1, 0x0123, 5)

    assert [r for r in peer.drive.requests if r[1] == 0x0123] == [(6, 0x0123, (5,))]


def test_what_a_permit_refuses_does_not_leave(peer: DrivePeer, link: ModbusLink) -> None:
    def refuse() -> None:
        raise DeviceError("not now")

    with pytest.raises(DeviceError, match="not now"):
        link.write_register(1, 0x0123, 5, permit=refuse)

    assert peer.frames == []
    assert link.read_registers(1, 0x0123, count=1).values == (0,)  # the line is free again


def test_a_motion_whose_reply_was_lost_is_not_written_again(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.prepare(SWEEP)
    peer.drive.requests.clear()
    peer.faults.function, peer.faults.drop_replies = 16, 1

    homed.kickoff(SWEEP)
    assert peer.faults.drop_replies == 0
    homed.complete(timeout_s=10)

    assert len(paths(peer)) == 1
    assert homed.poll().position_mm == pytest.approx(98.2, abs=0.001)


def test_a_motion_that_did_not_arrive_is_not_written_again_either(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.prepare(SWEEP)
    peer.drive.requests.clear()
    peer.faults.function, peer.faults.drop_requests = 16, 1

    with pytest.raises(DeviceTimeoutError, match=r"did not begin it.*rests at 41.800 mm"):
        homed.kickoff(SWEEP)

    assert paths(peer) == []
    assert peer.drive.requests == [QUICK_STOP]  # should it come late after all, it ends at once
    homed.prepare(SWEEP)  # and the rail is ready
    assert homed.homed


def test_a_drive_that_falls_silent_in_motion_is_stopped(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.prepare(SWEEP)
    homed.kickoff(SWEEP)
    peer.faults.drop_replies = 4  # one read and its three repetitions

    with pytest.raises(DeviceTimeoutError, match="did not answer"):
        homed.complete(timeout_s=10)

    assert QUICK_STOP in peer.drive.requests
    homed.clear_fault()
    assert homed.homed


def test_a_stop_is_repeated_until_it_is_acknowledged(peer: DrivePeer, homed: ModbusRail) -> None:
    peer.faults.drop_requests = 3

    homed.stop()

    assert peer.drive.requests == [QUICK_STOP]
    peer.faults.drop_requests = 4
    with pytest.raises(DeviceTimeoutError, match="0x6002"):
        homed.stop()


def test_an_alarm_in_motion_locks_the_rail_and_is_told_in_words(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.prepare(SWEEP)
    peer.drive.alarm_at_count = 60_000
    homed.kickoff(SWEEP)

    with pytest.raises(RailLockedError, match=r"alarm 0x20 \(the motor does not follow"):
        homed.complete(timeout_s=10)

    reading = homed.poll()
    assert (reading.state, homed.homed) == (RailState.LOCKED, False)
    assert reading.fault.startswith("alarm 0x20")
    peer.drive.alarm_at_count = None
    homed.clear_fault()
    assert homed.poll().state is RailState.IDLE
    with pytest.raises(RailLockedError, match="not homed"):
        homed.move_to(50)


def test_an_alarm_that_stays_is_not_talked_away(
    peer: DrivePeer, homed: ModbusRail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rig.devices.modbus_stepper._ALARM_CLEARS_WITHIN_S", 0.2)
    peer.drive.trip(0x80)
    peer.drive.alarm_stays = True

    with pytest.raises(RailLockedError, match=r"alarm 0x80 .* cannot be cleared"):
        homed.clear_fault()

    assert homed.poll().state is RailState.LOCKED


def test_a_drive_that_lost_power_has_lost_its_position(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.move_to(30)
    peer.drive.power_up(peer.drive.true_count)

    reading = homed.poll()

    assert (reading.state, reading.fault) == (
        RailState.LOCKED,
        "the drive restarted; the position is lost",
    )
    assert not homed.homed
    homed.clear_fault()
    homed.home(timeout_s=30)
    assert peer.drive.true_count == 0


def test_an_open_emergency_circuit_is_told_as_such(peer: DrivePeer, homed: ModbusRail) -> None:
    peer.drive.enabled = False

    with pytest.raises(RailLockedError, match="not enabled"):
        homed.move_to(50)
    homed.clear_fault()
    with pytest.raises(RailLockedError, match="release the emergency stop"):
        homed.home(timeout_s=30)
    peer.drive.enabled = True

    assert paths(peer) == []
    assert not homed.homed


def test_a_position_that_jumps_is_not_believed(peer: DrivePeer, homed: ModbusRail) -> None:
    """50 mm within a few milliseconds at no more than 200 mm/s: the encoder or the drive lost its count."""
    homed.poll()
    peer.drive.datum -= 2_000_000

    reading = homed.poll()

    assert "jumped by 2000.0 mm" in reading.fault
    assert not homed.homed


def test_a_motion_that_is_acknowledged_and_not_done_is_noticed(peer: DrivePeer, homed: ModbusRail) -> None:
    peer.drive.ignore_paths = 1

    with pytest.raises(DeviceError, match=r"rests at 0\.000 mm instead of 50\.000 mm"):
        homed.move_to(50)


def test_an_adapter_that_is_unplugged_ends_in_an_error_and_stays_closed(
    peer: DrivePeer, homed: ModbusRail
) -> None:
    peer.unplug()

    with pytest.raises(DeviceError, match="port vanished"):
        homed.poll()
    with pytest.raises(DeviceError, match="port vanished"):
        homed.move_to(50)

    assert [r for r in peer.drive.requests if r[1] == PATH] == []


SILENT_READ = """
import sys
from rig.clock import SessionClock
from rig.devices.modbus_link import ModbusLink
from rig.devices.modbus_settings import ModbusLineSettings
from rig.errors import DeviceTimeoutError

link = ModbusLink(ModbusLineSettings(port=sys.argv[1], unit=1, reply_timeout_s=0.02), SessionClock())
link.open()
try:
    link.read_registers(1, 0, count=1)
except DeviceTimeoutError as error:
    print(error)
"""


def test_the_library_below_prints_nothing_of_its_own() -> None:
    """pymodbus logs every time-out as an error with a dump of frames; stderr belongs to our one line."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", SILENT_READ, os.ttyname(slave)],
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
    finally:
        os.close(slave)
        os.close(master)

    assert done.stderr == ""
    assert "did not answer" in done.stdout
