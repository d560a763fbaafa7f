"""The Modbus rail's driver against a simulated drive behind pymodbus's server, over a pseudo-terminal pair."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from modbus_drive_peer import (
    CONTROL,
    MADE_UP,
    PATH,
    PULSES_PER_REV_DEFAULT,
    SWEEP,
    TRIGGER,
    DrivePeer,
    drive_peer,
    paths,
    rail_settings,
)

from catalog.session_folder import SweepRecord
from rig.clock import SessionClock
from rig.devices.modbus_drives import (
    DRIVES,
    LEADSHINE_RS,
)
from rig.devices.modbus_rail import ModbusRail
from rig.devices.rail import RailState
from rig.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceNotFoundError,
    EnvelopeError,
    MotionStoppedError,
    RailLockedError,
    SettingRefusedError,
)


@pytest.fixture
def peer() -> Iterator[DrivePeer]:
    with drive_peer(LEADSHINE_RS) as served:
        yield served


@pytest.fixture
def rail(peer: DrivePeer) -> Iterator[ModbusRail]:
    """An open rail that is not homed."""
    opened = ModbusRail(rail_settings(peer.port), SessionClock())
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def homed(rail: ModbusRail) -> ModbusRail:
    rail.home(timeout_s=30)
    return rail


def wait_for_motion(rail: ModbusRail, beyond_mm: float) -> None:
    """Poll until the carriage has passed a place."""
    while rail.poll().position_mm < beyond_mm:
        pass


def test_opening_writes_the_limits_and_reads_them_back(peer: DrivePeer, rail: ModbusRail) -> None:
    """Soft limits 0 to 400 000 counts; 2000 mm/s² are 84 ms per 1000 rpm, 100 mm/s are 600 rpm."""
    registers = peer.drive.registers

    assert registers[0x0001] == 10_000
    assert (registers[0x6006], registers[0x6007]) == (6, 400_000 - 6 * 65536)
    assert (registers[0x6008], registers[0x6009]) == (0, 0)
    assert registers[0x6000] & 0x02
    assert registers[0x6017] == 84
    assert (registers[0x600A], registers[0x600F]) == (0x04, 600)
    assert rail.identity == "leadshine-rs, unit 1 at 115200 baud"
    assert rail.capabilities.position_is_measured
    assert rail.capabilities.stop_bound_s == pytest.approx(0.42 + 2 * 0.00175 + 40 * 11 / 115200)
    assert rail.account().line == dict.fromkeys(("silent", "garbled", "refused", "retries"), 0)


def test_settings_that_are_right_already_are_not_written_again(peer: DrivePeer, rail: ModbusRail) -> None:
    rail.close()
    peer.drive.requests.clear()

    rail.open()

    assert peer.drive.requests == []


def test_a_limit_that_the_drive_does_not_take_ends_the_opening(peer: DrivePeer) -> None:
    peer.drive.stuck.add(0x0001)
    refused = ModbusRail(rail_settings(peer.port), SessionClock())

    with pytest.raises(
        SettingRefusedError, match=rf"reads \[{PULSES_PER_REV_DEFAULT}\] instead of \[10000\]"
    ):
        refused.open()

    peer.drive.stuck.clear()
    refused.open()  # the port was released
    refused.close()


def test_a_rail_that_moves_on_its_own_is_not_taken_over(peer: DrivePeer) -> None:
    peer.drive.serve(16, PATH, 8, [0x41, 6, 0, 60, 100, 100, 0, 0x10])
    rail = ModbusRail(rail_settings(peer.port), SessionClock())
    while not peer.drive.running:
        pass

    with pytest.raises(RailLockedError, match="is moving"):
        rail.open()


def test_homing_makes_the_position_known(peer: DrivePeer, homed: ModbusRail) -> None:
    """The peer stands 5 mm away from its switch and believes to stand at 0."""
    reading = homed.poll()

    assert homed.homed
    assert (reading.state, reading.position_mm) == (RailState.IDLE, 0)
    assert peer.drive.true_count == 0
    assert homed.last_poll == reading


def test_before_homing_nothing_but_a_relative_crawl_moves(peer: DrivePeer, rail: ModbusRail) -> None:
    """5 mm away at 4 mm/s: relative mode 0x41, 5000 counts, 24 rpm."""
    with pytest.raises(RailLockedError, match="not homed"):
        rail.move_to(100)
    assert paths(peer) == []

    rail.jog(5, velocity_mm_s=4)

    assert paths(peer) == [(0x41, 0, 5000, 24, 167, 167, 0, 0x10)]
    assert rail.poll().state in {RailState.MOVING, RailState.IDLE}


def test_a_sweep_is_one_block_write_with_its_uniform_part_at_speed(
    peer: DrivePeer, homed: ModbusRail
) -> None:
    """v²/2a = 3.2 mm of ramp and 5 mm of margin: 41.8 to 98.2 mm; 80 mm/s are 480 rpm, 1000 mm/s² 167 ms."""
    homed.prepare(SWEEP)
    assert homed.poll().position_mm == pytest.approx(41.8, abs=0.001)
    peer.drive.requests.clear()

    accepted_s = homed.kickoff(SWEEP)
    polls = [homed.poll()]
    while polls[-1].position_mm < 98:
        polls.append(homed.poll())
    homed.complete(timeout_s=10)

    assert peer.drive.requests == [(16, PATH, (0x01, 1, 98_200 - 65536, 480, 167, 167, 0, 0x10))]
    assert homed.poll().position_mm == pytest.approx(98.2, abs=0.001)
    assert polls[0].t_request_s >= accepted_s
    uniform = [p.velocity_mm_s for p in polls if 51 < p.position_mm < 87]
    assert len(uniform) >= 3
    assert uniform == pytest.approx([80] * len(uniform), abs=0.2)


def test_a_sweep_runs_downwards_too(homed: ModbusRail) -> None:
    down = SweepRecord(start_mm=60, end_mm=30, velocity_mm_s=80, acceleration_mm_s2=1000)

    homed.prepare(down)
    homed.kickoff(down)
    homed.complete(timeout_s=10)

    assert homed.poll().position_mm == pytest.approx(30 - 8.2, abs=0.001)


def test_a_sweep_is_begun_only_where_it_was_prepared(peer: DrivePeer, homed: ModbusRail) -> None:
    peer.drive.requests.clear()

    with pytest.raises(DeviceError, match="prepare it first"):
        homed.kickoff(SWEEP)

    assert paths(peer) == []


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        ({"end_mm": 395}, "leaves the travel"),
        ({"velocity_mm_s": 250}, "speed 250 mm/s"),
        ({"acceleration_mm_s2": 900}, "is not the 1000 mm/s²"),
        ({"velocity_mm_s": 0.77}, "at 0.8333 mm/s instead of 0.77 mm/s: its speeds are whole rpm"),
    ],
)
def test_a_sweep_beyond_envelope_or_drive_is_refused(
    peer: DrivePeer, rail: ModbusRail, sweep: dict[str, float], complaint: str
) -> None:
    """0.77 mm/s would be 4.62 rpm: 5 are 8 % too fast."""
    with pytest.raises(EnvelopeError, match=complaint):
        rail.prepare(SWEEP.model_copy(update=sweep))

    assert paths(peer) == []


def test_stop_holds_the_carriage_and_its_position_stays_known(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.prepare(SWEEP)
    homed.kickoff(SWEEP)
    wait_for_motion(homed, 55)

    presser = threading.Thread(target=homed.stop)
    presser.start()
    presser.join(20)

    with pytest.raises(MotionStoppedError, match="is held at"):
        homed.complete(timeout_s=10)
    with pytest.raises(MotionStoppedError):
        homed.move_to(20)
    homed.clear_fault()
    rest_mm = homed.poll().position_mm
    assert 55 < rest_mm < 98
    assert homed.homed
    homed.move_to(20)
    assert homed.poll().position_mm == pytest.approx(20, abs=0.001)
    assert peer.drive.true_count == pytest.approx(20_000, abs=1)


def test_a_motion_on_its_way_to_the_line_is_refused_once_stop_was_pressed(
    peer: DrivePeer, homed: ModbusRail
) -> None:
    """The motion waits for the line behind another exchange; the stop that comes meanwhile wins."""
    faults, frames = peer.faults, peer.frames
    faults.delay_s, faults.delayed_replies = 0.15, 1
    poller = threading.Thread(target=homed.poll)
    before = len(frames)
    outcome: list[type[Exception]] = []
    mover = threading.Thread(target=lambda: outcome.append(_refusal(homed)))

    poller.start()
    while len(frames) == before:
        pass
    mover.start()
    homed.stop()
    mover.join(20)
    poller.join(20)

    assert outcome == [MotionStoppedError]
    assert paths(peer) == []


def _refusal(rail: ModbusRail) -> type[Exception]:
    try:
        rail.move_to(50)
    except DeviceError as error:
        return type(error)
    return DeviceError


def test_stop_is_the_next_frame_on_the_line(peer: DrivePeer, homed: ModbusRail) -> None:
    """Another thread polls without pause and its answers are lost: at most its present exchange goes before."""
    over = threading.Event()
    poller = threading.Thread(target=_poll_until, args=(homed, over))
    poller.start()
    peer.faults.drop_replies = 3
    before = len(peer.frames)
    while len(peer.frames) < before + 2:
        pass

    pressed = len(peer.frames)
    homed.stop()
    over.set()
    poller.join(20)

    quick_stop = bytes([1, 6, TRIGGER >> 8, TRIGGER & 0xFF, 0, 0x40])
    position = next(k for k, frame in enumerate(peer.frames) if frame.startswith(quick_stop))
    assert position - pressed <= 1


def _poll_until(rail: ModbusRail, over: threading.Event) -> None:
    while not over.is_set():
        rail.poll()


def test_emergency_stop_forgets_the_position(homed: ModbusRail) -> None:
    homed.emergency_stop()

    assert not homed.homed
    assert homed.poll().state is RailState.LOCKED
    with pytest.raises(RailLockedError, match="emergency stop"):
        homed.move_to(20)
    homed.clear_fault()
    with pytest.raises(RailLockedError, match="not homed"):
        homed.move_to(20)
    homed.home(timeout_s=30)
    assert homed.homed


def test_a_jog_stays_inside_the_envelope_and_the_next_motion_ends_it(
    peer: DrivePeer, homed: ModbusRail
) -> None:
    with pytest.raises(EnvelopeError, match="leaves the travel"):
        homed.jog(500, velocity_mm_s=20)

    homed.jog(300, velocity_mm_s=20)
    wait_for_motion(homed, 1)
    homed.move_to(10)

    assert homed.poll().position_mm == pytest.approx(10, abs=0.001)
    assert (6, TRIGGER, (0x40,)) in peer.drive.requests
    assert [p[0] for p in paths(peer)] == [
        0x01,
        0x01,
    ]  # absolute: a known position leaves no room for a sum of jogs


def test_nothing_is_ever_saved_in_the_drives_memory(peer: DrivePeer, homed: ModbusRail) -> None:
    homed.move_to(20)
    peer.drive.trip(0x01)
    homed.poll()
    homed.clear_fault()

    written = [values for _, address, values in peer.drive.requests if address == CONTROL]

    assert written == [(0x1111,)]


def test_a_second_program_is_told_that_the_port_is_taken(rail: ModbusRail) -> None:
    with pytest.raises(DeviceBusyError, match="another program"):
        ModbusRail(rail.settings, SessionClock()).open()


def test_a_port_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceNotFoundError, match="/dev/serial/by-id/none"):
        ModbusRail(rail_settings("/dev/serial/by-id/none"), SessionClock()).open()


def test_a_closed_rail_says_that_it_is_closed(rail: ModbusRail) -> None:
    rail.close()
    rail.close()

    with pytest.raises(DeviceError, match="not open"):
        rail.poll()


def test_a_drive_without_the_output_says_what_to_use_instead(rail: ModbusRail) -> None:
    with pytest.raises(DeviceError, match=r"no output 'flood'.*relay board"):
        rail.set_output("flood", on=True)


def test_another_family_needs_its_table_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Homing, a sweep, a stop and an output, on a drive that shares not one number with the first family."""
    monkeypatch.setitem(DRIVES, MADE_UP.name, MADE_UP)
    with drive_peer(MADE_UP) as peer:
        rail = ModbusRail(rail_settings(peer.port, drive="made-up"), SessionClock())
        rail.open()
        rail.home(timeout_s=30)
        rail.prepare(SWEEP)
        lit_s = rail.set_output("do1", on=True)
        started_s = rail.kickoff(SWEEP)
        rail.complete(timeout_s=10)
        rail.set_output("do1", on=False)
        rail.stop()
        rail.close()

    functions = {(address, values) for _, address, values in peer.drive.requests}
    assert peer.drive.true_count == pytest.approx(98_200, abs=1)
    assert lit_s < started_s
    assert {(0x0700, (3,)), (0x0700, (1,)), (0x0500, (0x02,)), (0x0500, (0x04,))} <= functions
    assert not rail.capabilities.position_is_measured
    assert rail.capabilities.outputs == {"do1"}


def test_the_open_loop_series_says_that_its_position_is_counted() -> None:
    open_loop = ModbusRail(rail_settings("nowhere", drive="leadshine-dm-rs"), SessionClock())

    assert not open_loop.capabilities.position_is_measured
    assert replace(DRIVES["leadshine-dm-rs"], name="", position_is_measured=True) == replace(
        LEADSHINE_RS, name=""
    )


def test_a_homing_that_finds_no_switch_is_stopped(peer: DrivePeer, rail: ModbusRail) -> None:
    peer.drive.home_switch_works = False

    with pytest.raises(DeviceError, match="home switch was not found"):
        rail.home(timeout_s=0.8)

    assert not rail.homed
    rail.clear_fault()
    assert not peer.drive.running


def test_the_last_reading_is_there_for_other_threads(rail: ModbusRail) -> None:
    assert rail.last_poll is None

    reading = rail.poll()

    assert rail.last_poll is reading


def test_a_hold_is_left_with_the_position_and_an_emergency_stop_is_not(homed: ModbusRail) -> None:
    homed.stop()
    homed.clear_hold()
    kept = (homed.homed, homed.poll().state)

    homed.stop()
    homed.emergency_stop()

    assert kept == (True, RailState.IDLE)
    with pytest.raises(RailLockedError, match="emergency stop"):
        homed.clear_hold()
    assert homed.poll().state is RailState.LOCKED
