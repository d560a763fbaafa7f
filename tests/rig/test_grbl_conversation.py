"""What the rail's driver says on the wire, word for word."""

from __future__ import annotations

import pytest

from catalog.session_folder import SweepRecord
from rig.devices.grbl_rail import GrblRail, GrblSettings
from rig.devices.rail import RailState
from rig.errors import DeviceError, DeviceTimeoutError, RailLockedError, SettingRefusedError
from rig.testing import FakeClock, ScriptedWire

SETTINGS = GrblSettings(
    kind="grbl",
    port="ttyTEST",
    travel_mm=(0, 400),
    max_velocity_mm_s=120,
    max_acceleration_mm_s2=300,
    acceleration_mm_s2=200,
)
BANNER = "Grbl 1.1h ['$' for help]"
ASSERTED = (
    "$1=255",
    "$10=3",
    "$13=0",
    "$20=1",
    "$21=1",
    "$22=1",
    "$23=1",
    "$27=2.000",
    "$32=0",
    "$100=50.000",
    "$110=7200.000",
    "$120=200.000",
    "$130=400.000",
)
OPENING = (
    (None, "boot loader noise", BANNER, "[MSG:'$H'|'$X' to unlock]"),
    ("$I", "[VER:1.1h.20190830:]", "[OPT:V,15,128]", "ok"),
    ("$$", *ASSERTED, "ok"),
    ("$$", *ASSERTED, "ok"),
)
HOMING = (("?", "<Alarm|MPos:0.000,0.000,0.000|Bf:15,128|FS:0,0>"), ("$H", "ok"))
SWEEP = SweepRecord(start_mm=100, end_mm=300, velocity_mm_s=20, acceleration_mm_s2=200)


def report(state: str, rail_mm: float, *fields: str, mm_s: float = 0) -> str:
    """A report at a rail position; the machine's zero is the upper end of 400 mm."""
    position = f"MPos:{rail_mm - 400:.3f},0.000,0.000"
    return "|".join((f"<{state}", position, "Bf:15,128", f"FS:{mm_s * 60:.0f},0", *fields)) + ">"


def opened(
    *exchanges: tuple[str | float | None, *tuple[str, ...]], homed: bool = True
) -> tuple[GrblRail, ScriptedWire]:
    """A rail after `open` (and `home`) with the rest of the conversation ahead."""
    clock = FakeClock()
    homing = (*HOMING, ("?", report("Idle", 2.0))) if homed else ()
    wire = ScriptedWire(*OPENING, *homing, *exchanges, clock=clock)
    rail = GrblRail(SETTINGS, clock, wire)
    rail.open()
    if homed:
        rail.home(timeout_s=30.0)
    return rail, wire


def test_opening_waits_for_the_banner_and_writes_nothing_that_is_right_already():
    rail, wire = opened(homed=False)

    assert rail.identity == "Grbl 1.1h [VER:1.1h.20190830:]"
    assert not rail.homed
    wire.assert_exhausted()


def test_without_a_banner_a_reset_and_an_empty_line_are_tried():
    clock = FakeClock()
    wire = ScriptedWire(("\x18",), ("", "ok"), *OPENING[1:], clock=clock)

    GrblRail(SETTINGS, clock, wire).open()

    wire.assert_exhausted()


def test_a_second_banner_while_connecting_does_no_harm():
    clock = FakeClock()
    wire = ScriptedWire((None, BANNER, "[MSG:'$H'|'$X' to unlock]", BANNER), *OPENING[1:], clock=clock)
    rail = GrblRail(SETTINGS, clock, wire)

    rail.open()

    wire.assert_exhausted()


def test_a_banner_that_comes_very_late_is_taken():
    clock = FakeClock()
    wire = ScriptedWire(("\x18",), ("", BANNER), *OPENING[1:], clock=clock)

    GrblRail(SETTINGS, clock, wire).open()

    wire.assert_exhausted()


def test_a_silent_port_is_given_up_with_a_clear_message():
    clock = FakeClock()
    wire = ScriptedWire(("\x18",), ("",), clock=clock)

    with pytest.raises(DeviceTimeoutError, match="is the controller powered"):
        GrblRail(SETTINGS, clock, wire).open()

    assert clock.now() < 10


def test_only_settings_that_differ_are_written_at_rest_one_by_one():
    clock = FakeClock()
    before = [line.replace("$21=1", "$21=0").replace("$120=200", "$120=50") for line in ASSERTED]
    locked = "<Alarm|MPos:0.000,0.000,0.000|Bf:15,128|FS:0,0>"
    wire = ScriptedWire(
        *OPENING[:2],
        ("$$", *before, "ok"),
        ("?", locked),
        ("$21=1", "ok"),
        ("?", locked),
        ("$120=200", "ok"),
        ("$$", *ASSERTED, "ok"),
        clock=clock,
    )

    GrblRail(SETTINGS, clock, wire).open()

    wire.assert_exhausted()


def test_a_setting_that_reads_back_another_value_is_refused():
    clock = FakeClock()
    stubborn = [line.replace("$130=400", "$130=300") for line in ASSERTED]
    wire = ScriptedWire(
        *OPENING[:2],
        ("$$", *stubborn, "ok"),
        ("?", report("Idle", 0)),
        ("$130=400", "ok"),
        ("$$", *stubborn, "ok"),
        clock=clock,
    )

    with pytest.raises(SettingRefusedError, match=r"\$130 reads back 300 instead of 400"):
        GrblRail(SETTINGS, clock, wire).open()


def test_a_setting_that_noise_has_eaten_is_listed_again():
    clock = FakeClock()
    torn = [line.replace("$21=1", "$2=1") for line in ASSERTED]
    wire = ScriptedWire(*OPENING[:2], ("$$", *torn, "ok"), *OPENING[2:], clock=clock)

    GrblRail(SETTINGS, clock, wire).open()

    wire.assert_exhausted()


def test_a_limit_that_grbl_does_not_list_is_refused():
    clock = FakeClock()
    listing = [line for line in ASSERTED if not line.startswith("$20=")]
    wire = ScriptedWire(*OPENING[:2], *[("$$", *listing, "ok")] * 3, clock=clock)

    with pytest.raises(SettingRefusedError, match=r"\$20 cannot be read"):
        GrblRail(SETTINGS, clock, wire).open()


def test_a_sweep_is_a_move_to_its_run_up_and_one_line():
    """20 mm/s at 200 mm/s² ramps in 1 mm, 5 mm of margin: 94 to 306 mm, that is -306 to -94 in machine space."""
    rail, wire = opened(
        ("?", report("Idle", 2.0)),
        ("G90G21G94G53G1X-306.000F7200.000", "ok"),
        (0.7,),
        ("?", report("Run", 48.0, mm_s=120)),
        (0.8,),
        ("?", report("Idle", 94.0)),
        ("\x90\x95",),
        ("?", report("Idle", 94.0)),
        ("?", report("Idle", 94.0, "Ov:100,100,100")),
        ("?", report("Idle", 94.0)),
        ("G90G21G94G53G1X-94.000F1200.000", "ok"),
        ("?", report("Run", 94.0)),
        (10.7,),
        ("?", report("Idle", 306.0)),
    )

    rail.prepare(SWEEP)
    rail.kickoff(SWEEP)
    rail.complete(timeout_s=20.0)

    wire.assert_exhausted()


def test_kickoff_without_prepare_sends_nothing():
    rail, wire = opened()

    with pytest.raises(DeviceError, match="prepare it first"):
        rail.kickoff(SWEEP)

    wire.assert_exhausted()


def test_an_override_that_stays_stops_the_sweep_before_it_begins():
    rail, _ = opened(
        ("?", report("Idle", 2.0)),
        ("G90G21G94G53G1X-306.000F7200.000", "ok"),
        (2.0,),
        ("?", report("Idle", 94.0)),
        ("\x90\x95",),
        *[("?", report("Idle", 94.0, "Ov:110,100,100"))] * 40,
    )

    with pytest.raises(SettingRefusedError, match=r"\(110, 100\) %"):
        rail.prepare(SWEEP)


def test_a_report_that_lost_an_axis_is_torn():
    """`-335.620,0.000` with a hole from the point to the comma reads `-3350.000`; two readings must agree then."""
    hole = ("?", "<Idle|MPos:-3350.000,0.000|Bf:15,128|FS:0,0>")
    rail, wire = opened(hole, *[("?", report("Idle", 2.0))] * 2)

    assert rail.poll().position_mm == 2.0
    assert rail.statistics.discarded_lines == 2, "this one and the boot loader's noise"
    wire.assert_exhausted()


def test_a_first_report_with_an_axis_too_many_does_not_make_all_others_torn():
    """Two reports that a hole has made one tell four axes; what says three twice is believed."""
    merged = ("?", "<Idle|MPos:-398.000,0.000,0.000,0.000|Bf:15,128|FS:0,0>")
    rail, wire = opened(merged, merged, *[("?", report("Idle", 2.0))] * 4)

    assert rail.poll().position_mm == 2.0
    assert rail.poll().position_mm == 2.0
    wire.assert_exhausted()


def test_a_torn_report_is_counted_and_asked_for_again():
    """The line has lied: from now on two readings must agree."""
    rail, wire = opened(("?", "<Idle|MPos:-35..620,0.000,0.000|FS:0,0>"), *[("?", report("Idle", 2.0))] * 2)

    assert rail.poll().position_mm == 2.0
    assert rail.statistics.discarded_lines == 2, "this one and the boot loader's noise"
    wire.assert_exhausted()


def test_a_position_with_a_lost_digit_is_not_believed():
    rail, wire = opened(("?", "<Idle|MPos:-98.000,0.000,0.000|FS:0,0>"), *[("?", report("Idle", 2.0))] * 2)

    assert rail.poll().position_mm == 2.0
    assert rail.homed
    wire.assert_exhausted()


def test_a_position_that_really_jumped_is_lost():
    rail, _ = opened(*[("?", report("Idle", 400.0))] * 3)

    reading = rail.poll()

    assert reading.state is RailState.LOCKED
    assert "jumped by 398.0 mm" in reading.fault
    assert not rail.homed


def test_a_lost_ok_is_settled_by_looking_and_the_move_is_not_sent_again():
    rail, wire = opened(
        ("?", report("Idle", 2.0)),
        ("G90G21G94G53G1X-350.000F1200.000",),
        *[("?", report("Run", 30.0, mm_s=20))] * 2,
        (1.1,),
        ("?", report("Idle", 50.0)),  # the pause fell between question and answer: this one bears no witness
        *[("?", report("Idle", 50.0))] * 2,
        ("$G", "ok", "[GC:G1 G54]", "ok"),
        ("$X", "ok"),
    )

    rail.move_to(50.0, velocity_mm_s=20.0)
    rail._opened().link.command("$X")  # the late ok is not taken for this one's

    assert rail.statistics.lost_answers == 1
    assert rail.statistics.stale_answers == 1
    wire.assert_exhausted()


def test_a_move_without_ok_and_without_motion_is_reported():
    rail, wire = opened(
        ("?", report("Idle", 2.0)),
        ("G90G21G94G53G1X-350.000F1200.000",),
        *[("?", report("Idle", 2.0))] * 2,
    )

    with pytest.raises(DeviceTimeoutError, match="no answer to 'G90"):
        rail.move_to(50.0, velocity_mm_s=20.0)

    wire.assert_exhausted()


def test_a_stale_ok_is_not_taken_for_the_answer():
    rail, _ = opened(("?", report("Idle", 2.0), "ok"), ("$I", "[VER:x:]", "ok"))
    rail.poll()

    assert rail._opened().link.command("$I") == ["[VER:x:]"]
    assert rail.statistics.stale_answers == 1


def test_a_swallowed_reset_after_a_soft_limit_is_sent_again():
    rail, wire = opened(
        ("?", report("Idle", 2.0)),
        ("G90G21G94G53G1X-350.000F7200.000", "ALARM:2"),
        ("\x18", "[MSG:Reset to continue]"),
        ("\x18", "ok", BANNER, "[MSG:'$H'|'$X' to unlock]"),
        ("?", report("Alarm", 2.0)),
        ("$X", "[MSG:Caution: Unlocked]", "ok"),
    )

    with pytest.raises(RailLockedError, match="ALARM:2"):
        rail.move_to(50.0)
    assert rail.poll().state is RailState.LOCKED, "asked in vain: the controller answers nothing now"
    rail.clear_fault()

    assert not rail.homed
    wire.assert_exhausted()


def test_an_unexpected_banner_means_not_homed():
    rail, _ = opened(("?", BANNER, "[MSG:'$H'|'$X' to unlock]", "<Alarm|MPos:0.000,0.000,0.000|FS:0,0>"))

    reading = rail.poll()

    assert reading.state is RailState.LOCKED
    assert "restarted" in reading.fault
    assert not rail.homed
    with pytest.raises(RailLockedError, match="restarted"):
        rail.move_to(100.0)


def test_emergency_stop_sends_hold_and_reset_in_one_breath():
    rail, wire = opened(("!\x18",))

    rail.emergency_stop()

    assert not rail.homed
    wire.assert_exhausted()


def test_a_moving_rail_that_falls_silent_is_held_and_then_reset():
    questions = [("?",)] * 3
    rail, wire = opened(
        ("?", report("Idle", 2.0)),
        ("G90G21G94G53G1X-350.000F1200.000", "ok"),
        *questions,
        ("!",),
        *questions,
        ("!\x18",),
    )

    with pytest.raises(DeviceTimeoutError, match="no reply to"):
        rail.move_to(50.0, velocity_mm_s=20.0)

    assert not rail.homed
    wire.assert_exhausted()


def test_nothing_is_sent_for_a_motion_outside_the_envelope():
    rail, wire = opened(*[("?", report("Idle", 2.0))] * 3)

    for position_mm, velocity_mm_s in ((399.0, 10.0), (100.0, 121.0), (float("nan"), 10.0)):
        with pytest.raises(ValueError, match=r"outside|leaves"):
            rail.move_to(position_mm, velocity_mm_s=velocity_mm_s)

    wire.assert_exhausted()


def test_closing_lets_go_of_the_wire_twice_without_complaint():
    rail, wire = opened()

    rail.close()
    rail.close()

    assert wire.closed
    with pytest.raises(DeviceError, match="not open"):
        rail.poll()
