"""Lamps, pumps and the sync LED: switched, settled, and off again when the rig is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from camera_peer import camera_peer
from modbus_drive_peer import MADE_UP, RELAY_UNIT, DrivePeer, drive_peer, rail_settings
from pydantic import TypeAdapter, ValidationError

from rig.assembly import Rig
from rig.devices import ConditionSettings
from rig.devices.condition import OperatorCondition, OperatorConditionSettings
from rig.devices.modbus_drives import DRIVES, LEADSHINE_RS
from rig.devices.modbus_rail import ModbusRail
from rig.devices.modbus_relay import RelayBoards, RelayConditionSettings
from rig.devices.output import RailOutput, SwitchedCondition, SyncLed, on_off_levels
from rig.errors import DeviceError, DeviceTimeoutError
from rig.profile import RigProfile
from rig.testing import FakeClock


class Wired:
    """A switch that notes what it was told, and fails where a test says so."""

    def __init__(self, name: int, log: list[tuple[int, bool]]) -> None:
        self.name, self.log, self.fails = name, log, False

    def set(self, *, on: bool) -> None:
        """Note it."""
        self.log.append((self.name, on))
        if self.fails:
            raise DeviceError(f"switch {self.name} does not answer")


def condition(
    clock: FakeClock, levels: dict[str, frozenset[int]], *, settle_s: float = 0.0
) -> tuple[SwitchedCondition, dict[int, Wired], list[tuple[int, bool]]]:
    log: list[tuple[int, bool]] = []
    switches = {key: Wired(key, log) for key in sorted(set().union(*levels.values()))}
    return SwitchedCondition("lamp", switches, levels, settle_s=settle_s, clock=clock), switches, log


def relay(port: str, **changes: Any) -> RelayConditionSettings:
    values = {"kind": "relay", "port": port, "unit": RELAY_UNIT, "reply_timeout_s": 0.25}
    return RelayConditionSettings.model_validate({**values, **({"coil": 0} | changes)})


@pytest.fixture
def peer() -> Iterator[DrivePeer]:
    with drive_peer(LEADSHINE_RS, baud=9600) as served:
        yield served


@pytest.fixture
def boards() -> Iterator[RelayBoards]:
    opened = RelayBoards(FakeClock())
    yield opened
    opened.close()


def test_a_change_waits_until_the_scene_is_steady_and_no_change_costs_nothing() -> None:
    clock = FakeClock()
    lamp, _, log = condition(clock, on_off_levels(inverted=False), settle_s=1.5)

    lamp.set_level("off")
    lamp.set_level("on")
    lamp.set_level("on")

    assert log == [(0, False), (0, True)]
    assert clock.now() == 3.0


def test_an_inverted_output_is_energised_to_take_the_condition_away() -> None:
    dark, _, log = condition(FakeClock(), on_off_levels(inverted=True))

    dark.set_level("off")
    dark.set_level("on")

    assert log == [(0, True), (0, False)]


def test_an_unknown_level_is_refused_with_those_there_are() -> None:
    lamp, _, log = condition(FakeClock(), on_off_levels(inverted=False))

    with pytest.raises(DeviceError, match=r"'lamp' has no level 'bright'.*use one of: off, on"):
        lamp.set_level("bright")

    assert log == []


def test_release_switches_off_what_was_switched_on_even_if_one_switch_fails() -> None:
    levels = {"off": frozenset[int](), "heavy": frozenset({0, 1, 2}), "light": frozenset({1})}
    rain, switches, log = condition(FakeClock(), levels)
    rain.set_level("heavy")
    log.clear()
    switches[1].fails = True

    with pytest.raises(DeviceError, match="switch 1 does not answer"):
        rain.release()

    assert log == [(0, False), (1, False), (2, False)]
    log.clear()
    switches[1].fails = False
    rain.release()
    assert log == [(1, False)]  # the one that may still be on


def test_a_switch_that_failed_is_set_again_and_released() -> None:
    lamp, switches, log = condition(FakeClock(), on_off_levels(inverted=False))
    switches[0].fails = True
    with pytest.raises(DeviceError):
        lamp.set_level("on")
    switches[0].fails = False

    lamp.set_level("on")
    lamp.release()

    assert log == [(0, True), (0, True), (0, False)]


def test_a_relay_is_written_and_read_back(peer: DrivePeer, boards: RelayBoards) -> None:
    pump = boards.condition("pump", relay(peer.port, coil=3))

    pump.set_level("on")

    assert [k for k, coil in enumerate(peer.coils) if coil] == [3]
    pump.set_level("off")
    assert not any(peer.coils)
    assert [frame[1:6] for frame in peer.frames] == [
        b"\x01\x00\x03\x00\x01",  # is the board there?
        b"\x05\x00\x03\xff\x00",
        b"\x01\x00\x03\x00\x01",
        b"\x05\x00\x03\x00\x00",
        b"\x01\x00\x03\x00\x01",
    ]


def test_levels_energise_their_coils_and_no_others(peer: DrivePeer, boards: RelayBoards) -> None:
    rain = boards.condition("rain", relay(peer.port, coil=None, levels={"light": [1], "heavy": [1, 2]}))

    rain.set_level("heavy")
    assert peer.coils[:4] == [False, True, True, False]
    rain.set_level("light")
    assert peer.coils[:4] == [False, True, False, False]
    rain.release()

    assert not any(peer.coils)


def test_two_conditions_share_one_board_and_must_agree_on_its_speed(
    peer: DrivePeer, boards: RelayBoards
) -> None:
    lamp, pump = (boards.condition(name, relay(peer.port, coil=k)) for k, name in enumerate(("lamp", "pump")))

    lamp.set_level("on")
    pump.set_level("on")

    assert peer.coils[:2] == [True, True]
    with pytest.raises(DeviceError, match="different baud"):
        boards.condition("fan", relay(peer.port, coil=2, baud=19200))


def test_a_relay_that_reads_back_the_other_way_is_told(peer: DrivePeer, boards: RelayBoards) -> None:
    """As a board does whose relay falls off after a pulse."""
    pump = boards.condition("pump", relay(peer.port))
    peer.flickering_coils.add(0)

    with pytest.raises(DeviceError, match=r"coil 0 reads back off after it was switched on.*inching"):
        pump.set_level("on")


def test_a_lost_reply_to_a_coil_is_tried_again_and_silence_is_told(
    peer: DrivePeer, boards: RelayBoards
) -> None:
    pump = boards.condition("pump", relay(peer.port))
    peer.faults.drop_replies = 2
    pump.set_level("on")
    assert peer.coils[0]

    peer.faults.drop_replies = 3
    with pytest.raises(DeviceTimeoutError, match="unit 2, coil 0"):
        pump.set_level("off")
    pump.release()

    assert not peer.coils[0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"coil": None}, "give either coil or levels"),
        ({"levels": {"on": [1]}}, "give either coil or levels"),
        ({"coil": None, "levels": {"off": [1]}}, "'off' and inverted do not go with them"),
    ],
)
def test_a_relay_names_a_coil_or_levels(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        relay("nowhere", **changes)


def test_the_kind_of_a_condition_chooses_its_settings() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(ConditionSettings)

    lamp = adapter.validate_python({"kind": "output", "pin": "flood", "settle_s": 1.0, "inverted": True})

    assert (lamp.pin, lamp.settle_s, lamp.inverted) == ("flood", 1.0, True)
    with pytest.raises(ValidationError, match="'operator', 'output', 'relay', 'simulated'"):
        adapter.validate_python({"kind": "lamp"})


def test_an_output_that_the_rail_lacks_is_refused_before_anything_moves(peer: DrivePeer) -> None:
    rail = ModbusRail(rail_settings("nowhere"), FakeClock())

    with pytest.raises(DeviceError, match=r"no output 'flood' \(there: none\)"):
        RailOutput(rail, "flood")


def test_an_operator_sees_the_checklist_once_per_change_and_the_scene_settles() -> None:
    clock, asked = FakeClock(), list[str]()
    settings = OperatorConditionSettings(
        kind="operator", instruction="Start the haze.", checklist=("fan off", "doors shut"), settle_s=60
    )
    haze = OperatorCondition("haze", settings, ask=asked.append, clock=clock)

    haze.set_level("dense")
    haze.set_level("dense")

    assert asked == ["Start the haze.\n[ ] fan off\n[ ] doors shut"]
    assert clock.now() == 60


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[DrivePeer]:
    monkeypatch.setitem(DRIVES, MADE_UP.name, MADE_UP)
    with drive_peer(MADE_UP) as served:
        yield served


def test_the_sync_led_flashes_and_its_time_is_that_of_the_command(made_up: DrivePeer) -> None:
    clock = FakeClock()
    rail = ModbusRail(rail_settings(made_up.port, drive="made-up"), clock)
    rail.open()
    clock.advance(12.0)

    lit_s, dark_s = SyncLed("do1", clock, pulse_s=0.25).flash(rail)
    rail.close()

    assert (lit_s, dark_s) == (12.0, 12.25)
    assert clock.now() == 12.25
    assert [r for r in made_up.drive.requests if r[1] == 0x0700] == [(6, 0x0700, (3,)), (6, 0x0700, (1,))]


def test_leaving_a_rig_stops_the_carriage_and_then_switches_off(
    made_up: DrivePeer, peer: DrivePeer, tmp_path: Path
) -> None:
    """A real rig of three devices: a drive, a relay board on its own line, a camera."""
    with ExitStack() as stack:
        camera = stack.enter_context(camera_peer())
        document = {
            "name": "bench-test",
            "rail": rail_settings(made_up.port, drive="made-up").model_dump(),
            "cameras": {"main": {"kind": "gphoto2", "serial": "T1", "address": camera.address}},
            "lens": {"focal_mm": 35, "sensor_width_mm": 35.9, "scene_depth_mm": [1500, 4000]},
            "conditions": {
                "lamp": {"kind": "output", "pin": "do1"},
                "pump": relay(peer.port, coil=5).model_dump(),
            },
        }
        rig = stack.enter_context(Rig(RigProfile.model_validate(document), scene="s", data=tmp_path))
        rig.rail.home(timeout_s=30)
        for name in ("lamp", "pump"):
            rig.conditions[name].set_level("on")
        rig.rail.jog(100, velocity_mm_s=20)
        assert peer.coils[5]
        made_up.drive.requests.clear()

    assert not peer.coils[5]
    assert made_up.drive.requests == [(6, 0x0500, (0x04,)), (6, 0x0700, (1,))]
    assert not made_up.drive.running


def test_a_simulated_profile_never_opens_a_real_port(peer: DrivePeer, tmp_path: Path) -> None:
    simulated = RigProfile.load("sim")
    profiles = [
        simulated.model_copy(update={"conditions": {"pump": relay(peer.port)}}),
        simulated.model_copy(update={"rail": rail_settings(peer.port)}),
    ]

    for profile, what in zip(profiles, ["condition 'pump'", "a rail of kind modbus"], strict=True):
        with pytest.raises(DeviceError, match=f"'sim' is simulated, and the simulator does not play {what}"):
            Rig(profile, scene="s", data=tmp_path).__enter__()

    assert peer.frames == []
