"""grblHAL and FluidNC, by transcripts: what they tell is taken, what they keep for themselves is unknown."""

from __future__ import annotations

import pytest

from catalog.session_folder import SweepRecord
from rig.devices.grbl_dialect import Firmware
from rig.devices.grbl_rail import GrblRail, GrblSettings
from rig.devices.rail import RailState
from rig.errors import SettingRefusedError
from rig.testing import FakeClock, ScriptedWire

SETTINGS = GrblSettings(
    kind="grbl",
    port="ttyTEST",
    travel_mm=(0, 400),
    max_velocity_mm_s=120,
    max_acceleration_mm_s2=300,
    acceleration_mm_s2=200,
)
SWEEP = SweepRecord(start_mm=100, end_mm=300, velocity_mm_s=20, acceleration_mm_s2=200)
HAL_INFORMATION = (
    "[VER:1.1f.20240817:]",
    "[OPT:VNMGPHSL,100,1024,3,0]",
    "[AXS:3:XYZ]",
    "[NEWOPT:ENUMS,RT+,HOME,SED]",
    "[FIRMWARE:grblHAL]",
    "[NVS STORAGE:*FLASH]",
    "[DRIVER:iMXRT1062]",
)
HAL_SETTINGS = (
    "$0=5.0",
    "$1=255",
    "$10=511",
    "$13=0",
    "$20=1",
    "$21=3",
    "$22=5",
    "$23=1",
    "$27=2.000",
    "$32=0",
    "$70=15",
    "$100=80.00000",
    "$110=7200.000",
    "$120=200.000",
    "$130=400.000",
    "$300=grblHAL",
    "$302=192.168.5.1",
)
FLUID_INFORMATION = (
    "[VER:3.7 FluidNC v3.7.8:]",
    "[OPT:PH]",
    "[MSG: Machine: slide rail]",
    "[MSG: Mode=STA:SSID=lab:Status=Not connected]",
)
FLUID_BANNER = "Grbl 3.7 [FluidNC v3.7.8 (wifi) '$' for help]"
HOME_UNTOLD = {"machine_home_mm": 0.0, "machine_direction": 1}


def opened(
    *exchanges: tuple[str | float | None, *tuple[str, ...]], settings: GrblSettings = SETTINGS
) -> tuple[GrblRail, ScriptedWire]:
    clock = FakeClock()
    wire = ScriptedWire(*exchanges, clock=clock)
    rail = GrblRail(settings, clock, wire)
    rail.open()
    return rail, wire


def hal(*settings: str) -> tuple[tuple[str | None, *tuple[str, ...]], ...]:
    listing = settings or HAL_SETTINGS
    return (
        (None, "GrblHAL 1.1f ['$' or '$HELP' for help]", "[MSG:'$H'|'$X' to unlock]"),
        ("$I", *HAL_INFORMATION[:2], "ok"),
        ("$I+", *HAL_INFORMATION, "ok"),
        ("$$", *listing, "ok"),
        ("$$", *listing, "ok"),
    )


def fluid(*settings: str) -> tuple[tuple[str | None, *tuple[str, ...]], ...]:
    return (
        (None, "[MSG:INFO: FluidNC v3.7.8]", "[MSG:INFO: Compiled with ESP32 SDK:v4.4.4]", FLUID_BANNER),
        ("$I", *FLUID_INFORMATION, "ok"),
        ("$$", *settings, "[MSG:INFO: listing done]", "ok"),
        ("$$", *settings, "ok"),
    )


def test_grblhal_is_known_by_its_banner_and_asked_for_more():
    rail, wire = opened(*hal())

    assert rail.dialect.firmware is Firmware.GRBLHAL
    assert {"ENUMS", "HOME"} <= rail.dialect.new_options
    assert "M" in rail.dialect.options
    assert rail.identity == "GrblHAL 1.1f [VER:1.1f.20240817:]"
    assert rail.account().warnings == ()
    assert rail.account().settings["$27"] == 2.0
    wire.assert_exhausted()


def test_grblhal_behind_a_plain_banner_is_known_by_its_information():
    exchanges = (
        (None, "Grbl 1.1f ['$' for help]"),
        ("$I", *HAL_INFORMATION, "ok"),
        ("$I+", "error:3"),
        ("$$", *HAL_SETTINGS, "ok"),
        ("$$", *HAL_SETTINGS, "ok"),
    )

    rail, _ = opened(*exchanges)

    assert rail.dialect.firmware is Firmware.GRBLHAL


def test_bit_fields_of_grblhal_that_hold_what_is_needed_are_left_alone():
    """``$10=511``, ``$21=3`` and ``$22=5`` have their lowest bits set: nothing is written."""
    _, wire = opened(*hal())

    assert not [line for line in wire.sent if "=" in line]


def test_a_limit_of_grblhal_that_differs_is_written_without_a_pause():
    listing = [line.replace("$120=200", "$120=500") for line in HAL_SETTINGS]
    exchanges = (
        *hal()[:3],
        ("$$", *listing, "ok"),
        ("?", "<Alarm:11|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0|Pn:P>"),
        ("$120=200", "ok"),
        ("$$", *HAL_SETTINGS, "ok"),
    )
    clock = FakeClock()
    rail = GrblRail(SETTINGS, clock, wire := ScriptedWire(*exchanges, clock=clock))

    rail.open()

    wire.assert_exhausted()
    assert clock.now() == pytest.approx(0.05, abs=1e-9), "the quiet after the banner, and no other wait"


def test_s_curves_of_grblhal_are_made_so_steep_that_ramps_are_straight():
    """At the 100 mm/s³ it comes with, 20 mm/s take 2·√(20/100) = 0.9 s and 9 mm, where v²/2a says 1 mm.

    200 mm/s² within 5 ms are 40,000 mm/s³.
    """
    listing = (*HAL_SETTINGS, "$800=100.000")
    exchanges = (
        *hal()[:3],
        ("$$", *listing, "ok"),
        ("?", "<Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0>"),
        ("$800=40000", "ok"),
        ("$$", *listing[:-1], "$800=40000.000", "ok"),
    )

    rail, wire = opened(*exchanges)

    wire.assert_exhausted()
    assert rail.warnings == ()


def test_s_curves_that_stay_soft_are_refused():
    listing = (*HAL_SETTINGS, "$800=100.000")
    exchanges = (
        *hal()[:3],
        ("$$", *listing, "ok"),
        ("?", "<Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0>"),
        ("$800=40000", "ok"),
        ("$$", *listing, "ok"),
    )

    with pytest.raises(SettingRefusedError, match=r"\$800 reads back 100 instead of 40000"):
        opened(*exchanges)


def test_reports_that_come_by_themselves_do_not_disturb_an_answer():
    """grblHAL may be set to report on its own; the position is the report's after the question."""
    before = "<Idle|MPos:-300.000,0.000,0.000|Bf:100,1023|FS:0,0|WCO:0.000,0.000,0.000>"
    rail, wire = opened(
        *hal(),
        ("?", before),
        ("$H", "<Home|MPos:-390.000,0.000,0.000|FS:600,0>", before, "ok"),
        ("?", "<Idle|MPos:-398.000,0.000,0.000|Bf:100,1023|FS:0,0|H:1,1|SD:0>"),
    )

    rail.home(timeout_s=60.0)

    assert rail.homed
    assert rail.dialect.lists_all_settings
    wire.assert_exhausted()


def test_grblhal_with_one_axis_switch_is_homed_by_that_axis():
    rail, wire = opened(
        *hal(),
        ("?", "<Alarm:11|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0>"),
        ("$H", "error:5"),
        ("$HX", "ok"),
        ("?", "<Idle|MPos:-398.000,0.000,0.000|Bf:100,1023|FS:0,0>"),
    )

    rail.home(timeout_s=60.0)

    assert rail.homed
    wire.assert_exhausted()


def test_fluidnc_that_tells_nothing_runs_on_the_profiles_limits_and_says_so():
    """Where its zero lies the profile must say; after homing two equal reports tell the position."""
    settings = SETTINGS.model_copy(update=HOME_UNTOLD)
    rail, wire = opened(
        *fluid("$10=1"),
        ("?", "<Alarm|MPos:0.000,0.000,0.000|FS:0,0>"),
        ("$H", "[MSG:INFO: Homed:X]", "ok"),
        ("?", "<Idle|MPos:2.000,0.000,0.000|FS:0,0|Ov:100,100,100>"),
        ("?", "<Idle|MPos:2.000,0.000,0.000|FS:0,0>"),
        ("?", "<Idle|MPos:2.000,0.000,0.000|FS:0,0>"),
        ("G90G21G94G53G1X100.000F1200.000", "ok"),
        (6.0,),
        ("?", "[MSG:INFO: wifi scan]", "<Idle|MPos:100.000,0.000,0.000|FS:0,0>"),
        settings=settings,
    )

    rail.home(timeout_s=60.0)
    rail.move_to(100.0, velocity_mm_s=20.0)

    assert rail.dialect.firmware is Firmware.FLUIDNC
    assert any("acceleration" in text for text in rail.warnings)
    assert any("soft limits" in text for text in rail.warnings)
    assert not [line for line in wire.sent if line.startswith("$") and "=" in line]
    wire.assert_exhausted()


def test_a_sweep_on_an_untold_acceleration_is_refused_unless_it_is_trusted():
    """Its ramps decide where the motion is uniform; trusted, the next thing asked is where the carriage is."""
    untold = SETTINGS.model_copy(update=HOME_UNTOLD)
    trusted = untold.model_copy(update={"trusts_controller_acceleration": True})
    rail, _ = opened(*fluid(), settings=untold)
    other, wire = opened(*fluid(), ("?", "<Alarm|MPos:0.000,0.000,0.000|FS:0,0>"), settings=trusted)

    with pytest.raises(SettingRefusedError, match="does not tell its acceleration"):
        rail.prepare(SWEEP)
    with pytest.raises(Exception, match="home the rail"):
        other.prepare(SWEEP)

    wire.assert_exhausted()


def test_fluidnc_without_a_place_for_its_zero_is_refused():
    with pytest.raises(SettingRefusedError, match="give machine_home_mm"):
        opened(*fluid())


def test_a_limit_in_fluidncs_file_that_differs_is_refused_with_where_to_mend_it():
    listing = ("$23=1", "$110=12000.000", "$120=200.000", "$130=400.000")
    exchanges = (
        *fluid(*listing)[:3],
        ("?", "<Alarm|MPos:0.000,0.000,0.000|FS:0,0>"),
        ("$110=7200", "error:3"),
    )

    with pytest.raises(SettingRefusedError, match="maximum speed in the controller's configuration file"):
        opened(*exchanges)


def test_fluidncs_alarm_in_motion_locks_the_rail():
    rail, _ = opened(
        *fluid(),
        ("?", "[MSG:INFO: ALARM: Hard Limit]", "ALARM:1"),
        settings=SETTINGS.model_copy(update=HOME_UNTOLD),
    )

    reading = rail.poll()

    assert reading.state is RailState.LOCKED
    assert "ALARM:1" in reading.fault


def test_steps_per_mm_are_written_where_they_differ():
    listing = [line.replace("$100=80.00000", "$100=50.00000") for line in HAL_SETTINGS]
    exchanges = (
        *hal()[:3],
        ("$$", *listing, "ok"),
        ("?", "<Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0>"),
        ("$100=80", "ok"),
        ("$$", *HAL_SETTINGS, "ok"),
    )

    _, wire = opened(*exchanges, settings=SETTINGS.model_copy(update={"steps_per_mm": 80.0}))

    wire.assert_exhausted()
