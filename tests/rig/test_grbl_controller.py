"""The simulated controller behaves as GRBL 1.1h does; time is stepped by hand, no thread, no port."""

from __future__ import annotations

import re

import numpy as np
import pytest
from grbl_terminal import HOMED, Terminal, homed, switched_on

from rig.sim.grbl import BOOT_S, GrblController
from rig.sim.grbl_faults import RailFaults


def test_power_up_with_homing_ends_in_alarm_and_says_how_to_unlock():
    terminal = Terminal(GrblController())

    lines = terminal.run(0.1)

    assert lines == ["", "Grbl 1.1h ['$' for help]", "[MSG:'$H'|'$X' to unlock]"]
    assert terminal.status()["state"] == "Alarm"


def test_power_up_without_homing_is_idle():
    assert switched_on({22: 0}).status()["state"] == "Idle"


def test_opening_the_port_reboots_silently_for_a_while_and_loses_the_position():
    terminal = homed()
    terminal.controller.reboot(terminal.t_s)

    assert terminal.type("?", wait_s=BOOT_S - 0.1) == []
    assert "Grbl 1.1h ['$' for help]" in terminal.run(0.2)
    assert terminal.x_mm() == 0.0
    assert terminal.true_mm() == pytest.approx(2.0)


@pytest.mark.parametrize("text", ["", "(a comment)", "; a comment", "  ", "g21 g90", "G0", "M9", "N12G90"])
def test_harmless_lines_are_answered_with_ok(text: str):
    assert switched_on({22: 0}).line(text) == ["ok"]


def test_carriage_return_and_line_feed_are_two_line_ends():
    assert switched_on().type("\r\n") == ["ok", "ok"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("GX1", 2),
        ("$Q", 2),
        ("$5Q=1", 3),
        ("$$$", 3),
        ("$100=", 2),
        ("$100=x", 2),
        ("$99=1", 3),
        ("$100=-5", 4),
        ("$0=2", 6),
        ("$J", 3),
        ("G1F-1", 4),
        ("G1X1", 22),
        ("G99", 20),
        ("M7", 20),
        ("G43Z1", 20),
        ("G38X1F9", 20),
        ("A1", 20),
        ("G0G1X1", 24),
        ("G80G1X1", 21),
        ("G90G91", 21),
        ("G1", 22),
        ("G93G1X1", 22),
        ("G1.5", 23),
        ("M3.5", 23),
        ("G28G1X1F100", 24),
        ("G0X1X2", 25),
        ("G92", 26),
        ("N10000001", 27),
        ("G4", 28),
        ("G10X1", 28),
        ("G80X1", 31),
        ("G53G80X1", 30),
        ("G1X1F100P3", 36),
        ("$J=X1", 22),
        ("G10P1X0", 20),
        ("G10L2P7X0", 29),
        ("G10L2P1", 26),
        ("G2F100", 26),
        ("G2Z1F100", 32),
        ("G2X1F100", 35),
        ("G2X1I5F100", 33),
        ("G2X9R1F100", 34),
        ("G2X0Y0R1F100", 33),
        ("G38.2X0F9", 33),
        ("G43.1X1", 37),
        ("T256", 38),
        ("$J=G2X1F100", 35),
        ("$J=X1F100S5", 36),
        ("$J=M3X1F100", 16),
        ("$N2", 3),
        ("$J=G1X1F100", 16),
        ("$20=1", 10),
        ("$H", 5),
        ("X" + "1" * 90, 11),
    ],
)
def test_errors_carry_their_numbers(text: str, number: int):
    terminal = switched_on({22: 0})

    assert terminal.line(text) == [f"error:{number}"]


def test_lines_are_refused_while_locked_and_unlock_says_so():
    terminal = switched_on()

    assert terminal.line("G0X1") == ["error:9"]
    assert terminal.line("$J=G91X1F100") == ["error:8"]
    assert terminal.line("$X") == ["[MSG:Caution: Unlocked]", "ok"]
    assert terminal.line("G0X1") == ["ok"]


def test_settings_are_written_listed_and_kept_over_a_reboot():
    terminal = switched_on()

    answers = [terminal.line(text)[-1] for text in ("$100=50", "$23=1", "$130=399.5", "$1=255")]
    terminal.controller.reboot(terminal.t_s)
    terminal.run(2.0)
    listing = terminal.line("$$")

    assert answers == ["ok"] * 4
    assert {"$100=50.000", "$23=1", "$130=399.500", "$1=255"} <= set(listing)
    assert len(listing) == 35  # 34 settings and the ok


def test_switching_homing_off_switches_soft_limits_off():
    terminal = switched_on()
    terminal.line("$20=1")

    terminal.line("$22=0")

    assert "$20=0" in terminal.line("$$")


def test_settings_are_refused_in_motion():
    terminal = homed()
    terminal.line("G53G1X-200F600")

    assert terminal.line("$1=255") == ["error:8"]
    assert terminal.line("$$") == ["error:8"]
    assert terminal.line("$H") == ["error:8"]


def test_bytes_sent_while_the_memory_is_written_are_lost():
    terminal = switched_on()

    lines = terminal.type("$1=255\n$G\n")

    assert lines == ["ok"]


@pytest.mark.parametrize(
    ("query", "pattern"),
    [
        ("$I", r"\[VER:1\.1h\.20190830:\];\[OPT:V,15,128\];ok"),
        ("$G", r"\[GC:G0 G54 G17 G21 G90 G94 M5 M9 T0 F0 S0\];ok"),
        ("$#", r"\[G54:0\.000,0\.000,0\.000\];.*\[G92:.*\[TLO:0\.000\];\[PRB:0\.000,0\.000,0\.000:0\];ok"),
        ("$N", r"\$N0=;\$N1=;ok"),
        ("$", r"\[HLP:\$\$ .*\];ok"),
    ],
)
def test_queries_are_answered_in_brackets(query: str, pattern: str):
    assert re.fullmatch(pattern, ";".join(switched_on().line(query)))


def test_a_start_up_line_runs_after_the_next_reset():
    terminal = switched_on({22: 0})

    assert terminal.line("$N0=G91") == ["ok"]
    assert ">G91:ok" in terminal.type("\x18")
    assert "G91" in terminal.line("$G")[0]


def test_homing_is_silent_and_ends_a_pull_off_above_the_switch():
    """400 mm travel, 2 mm pull-off, homing downwards: MPos -398."""
    terminal = switched_on(HOMED)

    during = terminal.type("$H\n?", wait_s=1.0) + terminal.type("?!", wait_s=0.2)
    after = terminal.run(10.0)

    assert during == []
    assert after == ["<Home|MPos:-398.000,0.000,0.000|Bf:15,128|FS:0,0|WCO:0.000,0.000,0.000>", "ok"]
    assert terminal.status()["state"] == "Idle"
    assert terminal.x_mm() == -398.0
    assert terminal.true_mm() == pytest.approx(2.0, abs=1e-9)


def test_homing_upwards_finds_no_switch_and_fails_with_alarm_9():
    terminal = switched_on({**HOMED, 23: 0})

    lines = terminal.line("$H", wait_s=60.0)

    assert lines[:2] == ["ALARM:9", "ok"]
    assert lines[-1] == "[MSG:'$H'|'$X' to unlock]"
    assert terminal.true_mm() == pytest.approx(405.0), "it ran against the upper end stop"


def test_a_switch_that_stays_closed_fails_homing_with_alarm_8():
    terminal = switched_on({22: 1}, faults=RailFaults(home_switch="stuck_closed"))

    assert terminal.line("$H", wait_s=30.0)[0] == "ALARM:8"


def test_reset_during_homing_is_alarm_6():
    terminal = switched_on(HOMED)
    terminal.line("$H", wait_s=0.3)

    lines = terminal.type("\x18", wait_s=1.0)

    assert lines[0] == "ALARM:6"
    assert terminal.status()["state"] == "Alarm"


def test_ok_means_queued_and_dwell_waits_for_the_motion():
    """20 mm at 20 mm/s and 200 mm/s²: 1 s + 0.1 s."""
    terminal = homed()

    assert terminal.line("G91G1X20F1200", wait_s=0.05) == ["ok"]
    assert terminal.line("G4P0", wait_s=0.9) == []
    assert terminal.run(0.3) == ["ok"]


def test_speed_plateau_and_ramp_are_reported():
    """30 mm/s at 200 mm/s²: 0.15 s of ramp, then F 1800."""
    terminal = homed()
    terminal.line("G91G1X60F1800", wait_s=0.05)

    early = float(terminal.status()["FS"].split(",")[0])
    terminal.run(0.3)
    plateau = float(terminal.status()["FS"].split(",")[0])

    assert 0 < early < 1800
    assert plateau == 1800
    assert terminal.status()["state"] == "Run"


def test_reports_carry_work_offset_and_overrides_in_their_cadence():
    """At rest both come every 10 reports, the overrides one report after the offset."""
    terminal = homed()
    terminal.type("\x18")

    reports = [terminal.status() for _ in range(25)]

    assert [i for i, r in enumerate(reports) if "WCO" in r] == [0, 10, 20]
    assert [i for i, r in enumerate(reports) if "Ov" in r][:2] == [1, 11]
    assert reports[1]["Ov"] == "100,100,100"
    assert reports[0]["Bf"] == "15,128"


def test_a_second_question_before_the_answer_is_swallowed():
    assert len(switched_on().type("???")) == 1


def test_hold_decelerates_exactly_and_keeps_the_position():
    """From 40 mm/s at 200 mm/s² the hold takes 4 mm after at most 60 ms of delay."""
    terminal = homed()
    terminal.line("G91G1X100F2400", wait_s=1.0)
    before_mm = terminal.true_mm()

    terminal.type("!", wait_s=0.001)
    decelerating = terminal.status()["state"]
    terminal.run(0.5)

    assert decelerating == "Hold:1"
    assert terminal.status()["state"] == "Hold:0"
    assert 4.0 <= terminal.true_mm() - before_mm <= 4.0 + 40 * 0.06
    assert terminal.x_mm() == pytest.approx(terminal.true_mm() - 400, abs=0.011)


def test_resume_after_a_hold_ends_where_the_line_said():
    terminal = homed()
    terminal.line("G91G1X100F2400", wait_s=1.0)
    terminal.type("!", wait_s=1.0)

    terminal.type("~", wait_s=5.0)

    assert terminal.status()["state"] == "Idle"
    assert terminal.x_mm() == -298.0
    assert terminal.true_mm() == pytest.approx(102.0, abs=1e-9)


def test_lines_wait_while_held():
    terminal = homed()
    terminal.type("!")

    assert terminal.status()["state"] == "Hold:0"
    assert terminal.line("$G") == []
    assert terminal.type("~")[-1] == "ok"


def test_reset_at_rest_and_in_a_finished_hold_keeps_the_position_unlocked():
    terminal = homed()
    terminal.line("G91G1X100F2400", wait_s=1.0)
    terminal.type("!", wait_s=1.0)
    held_mm = terminal.x_mm()

    lines = terminal.type("\x18")

    assert "Grbl 1.1h ['$' for help]" in lines
    assert not any(line.startswith(("ALARM", "[MSG")) for line in lines)
    assert terminal.status()["state"] == "Idle"
    assert terminal.x_mm() == held_mm


def test_reset_in_motion_stops_dead_with_alarm_3_and_locks():
    terminal = homed()
    terminal.line("G91G1X100F2400", wait_s=1.0)

    lines = terminal.type("\x18", wait_s=0.6)
    stopped_mm = terminal.true_mm()
    terminal.run(1.0)

    assert lines[0] == "ALARM:3"
    assert lines[-1] == "[MSG:'$H'|'$X' to unlock]"
    assert terminal.status()["state"] == "Alarm"
    assert terminal.true_mm() == stopped_mm


def test_jog_runs_beside_the_modes_and_is_cancelled_by_its_byte():
    terminal = homed()

    assert terminal.line("$J=G91X100F1200", wait_s=0.5) == ["ok"]
    assert terminal.status()["state"] == "Jog"
    assert terminal.line("G0X1", wait_s=0.01) == ["error:9"]
    terminal.type("\x85", wait_s=0.5)

    assert terminal.status()["state"] == "Idle"
    assert -398 < terminal.x_mm() < -370
    assert "G90" in terminal.line("$G")[0]


def test_a_hold_cancels_a_jog():
    terminal = homed()
    terminal.line("$J=G91X100F1200", wait_s=0.5)

    terminal.type("!", wait_s=0.5)

    assert terminal.status()["state"] == "Idle"


def test_jog_beyond_the_travel_is_error_15():
    assert homed().line("$J=G91X-3F600") == ["error:15"]


def test_soft_limit_waits_for_a_reset_in_silence_and_then_owes_an_ok():
    terminal = homed()

    assert terminal.line("G53G1X1F600", wait_s=0.4) == ["ALARM:2"]
    assert terminal.run(0.2) == ["[MSG:Reset to continue]"]
    assert terminal.type("?", wait_s=1.0) == []
    assert terminal.type("\x18")[:3] == ["ok", "", "Grbl 1.1h ['$' for help]"]
    assert terminal.x_mm() == -398.0


def test_a_reset_right_behind_the_alarm_line_is_lost():
    terminal = homed()
    terminal.line("G53G1X1F600", wait_s=0.005)

    assert terminal.type("\x18", wait_s=1.0)[-1] == "[MSG:Reset to continue]"
    assert "ok" in terminal.type("\x18")


def test_the_hard_limit_stops_dead_and_shows_its_pin():
    """The switch acts at 0; a motion 15 mm downwards from 10 mm above meets it."""
    terminal = switched_on({21: 1, 22: 0, 20: 0})

    lines = terminal.line("G91G1X-15F600", wait_s=3.0)

    assert lines == ["ok", "ALARM:1", "[MSG:Reset to continue]"]
    assert terminal.true_mm() == pytest.approx(0.0, abs=1e-9)
    terminal.type("\x18")
    assert terminal.line("$X")[-1] == "ok"
    assert terminal.status()["Pn"] == "X"


def test_without_hard_limits_the_carriage_runs_against_the_end_stop_unnoticed():
    terminal = switched_on({21: 0, 22: 0})

    terminal.line("G91G1X-20F600", wait_s=5.0)
    terminal.line("G1X20", wait_s=5.0)

    assert terminal.x_mm() == 0.0
    assert terminal.true_mm() == pytest.approx(19.0), "stopped at -1, the controller counted to -10"


def test_feed_override_changes_the_speed_and_0x90_restores_it():
    terminal = homed()
    terminal.line("G91G1X200F1200", wait_s=1.0)

    terminal.type("\x91\x91\x93", wait_s=0.5)
    faster = terminal.status()
    terminal.type("\x90", wait_s=0.5)

    assert faster["FS"] == "1452,0"  # 1200 mm/min at 121 %
    assert terminal.status()["FS"] == "1200,0"


def test_coolant_toggles_in_motion_without_disturbing_it():
    terminal = homed()
    terminal.line("G91G1X200F1200", wait_s=1.0)

    terminal.type("\xa0", wait_s=0.01)
    reports = [terminal.status() for _ in range(3)]

    assert "F" in {r.get("A") for r in reports}
    assert reports[-1]["FS"] == "1200,0"


def test_two_lines_in_one_direction_are_passed_without_slowing_down():
    terminal = homed()
    terminal.type("G91G1X20F1200\nX20\n", wait_s=0.9)

    speeds = [float(terminal.status()["FS"].split(",")[0]) for _ in range(10)]

    assert set(speeds) == {1200.0}, "20 mm at 20 mm/s end after about 1.05 s"


def test_a_reversal_is_passed_at_standstill():
    terminal = homed()
    begin_s = terminal.t_s
    terminal.type("G91G1X20F1200\nX-10\n", wait_s=3.0)

    t_s = np.linspace(begin_s, terminal.t_s, 3001)
    v_mm_s = terminal.controller.velocity_mm_s(t_s)

    assert np.abs(np.diff(v_mm_s)).max() < 0.25, "200 mm/s² over 1 ms, no jump at the corner"
    assert v_mm_s.max() == pytest.approx(20, abs=1e-6)
    assert v_mm_s.min() == pytest.approx(-20, abs=1e-6)


def test_blindly_pushed_lines_overflow_and_vanish():
    terminal = homed()

    lines = terminal.type("G91G1X0.5F60\n" * 60, wait_s=60.0)

    assert 15 <= lines.count("ok") < 60


def test_check_mode_executes_nothing_and_ends_with_a_restart():
    terminal = homed()

    assert terminal.line("$C") == ["[MSG:Enabled]", "ok"]
    assert terminal.line("G53G0X-100", wait_s=1.0) == ["ok"]
    assert terminal.x_mm() == -398.0
    assert "Grbl 1.1h ['$' for help]" in terminal.line("$C")


def test_sleep_ends_only_by_reset_and_locks():
    terminal = homed()

    terminal.line("$SLP")

    assert terminal.status()["state"] == "Sleep"
    assert terminal.line("$G") == []
    assert "[MSG:'$H'|'$X' to unlock]" in terminal.type("\x18")


def test_the_door_byte_holds_until_resumed():
    terminal = homed()
    terminal.line("G91G1X50F2400", wait_s=0.5)

    assert "[MSG:Check Door]" in terminal.type("\x84", wait_s=1.0)
    assert terminal.status()["state"] == "Door:0"
    terminal.type("~", wait_s=3.0)
    assert terminal.x_mm() == -348.0


def test_work_offsets_shift_targets_and_are_reported():
    terminal = homed()
    terminal.line("G10L20P1X0")

    terminal.line("G90G1X30F1200", wait_s=4.0)

    assert terminal.x_mm() == -368.0
    assert "[G54:-398.000,0.000,0.000]" in terminal.line("$#")


def test_inches_are_converted():
    terminal = homed()

    terminal.line("G20G91G1X1F100", wait_s=3.0)

    assert terminal.x_mm() == pytest.approx(-398 + 25.4, abs=0.01)


def test_steps_per_mm_other_than_the_belts_move_too_far():
    """The belt has 50 steps/mm; 55 make 10 % more way."""
    terminal = switched_on({22: 0, 100: 55.0})

    terminal.line("G91G1X100F6000", wait_s=4.0)

    assert terminal.x_mm() == 100.0
    assert terminal.true_mm() == pytest.approx(10 + 110)


def test_the_true_trajectory_is_the_exact_trapezoid():
    """60 mm at 30 mm/s, 200 mm/s²: ramps of 0.15 s and 2.25 mm, a plateau of 1.85 s (devices.md 2.2)."""
    terminal = homed()
    terminal.line("G91G1X60F1800", wait_s=4.0)
    t_s = np.linspace(0, terminal.t_s, 200_001)
    x_mm, v_mm_s = terminal.controller.position_mm(t_s), terminal.controller.velocity_mm_s(t_s)

    moving = t_s[(np.abs(v_mm_s) > 1e-9) & (t_s > terminal.t_s - 4.0)]
    begin_s, dt = moving[0], t_s[1] - t_s[0]
    at = lambda seconds: x_mm[np.searchsorted(t_s, begin_s + seconds)] - 2.0  # noqa: E731

    assert moving[-1] - begin_s == pytest.approx(2.15, abs=2 * dt)
    assert at(0.15) == pytest.approx(2.25, abs=30 * 2 * dt)
    assert at(1.15) == pytest.approx(32.25, abs=30 * 2 * dt)
    assert v_mm_s.max() == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("line", "centre", "turned_deg"),
    [
        ("G3X-20Y0I-10J0F6000", (-10.0, 0.0), 180.0),
        ("G2X-20Y0I-10J0F6000", (-10.0, 0.0), -180.0),
        ("G3X0Y0I-10J0F6000", (-10.0, 0.0), 360.0),
        ("G3X-10Y10R10F6000", (-10.0, 0.0), 90.0),
        ("G3X-10Y10R-10F6000", (0.0, 10.0), 270.0),
        ("G2X-10Y10R10F6000", (0.0, 10.0), -90.0),
    ],
)
def test_arcs_keep_to_their_circle(line: str, centre: tuple[float, float], turned_deg: float):
    """Radius 10 mm; `$12` = 0.002 mm bounds the chords; the way turned follows from centre, end and direction."""
    terminal = switched_on({22: 0, 11: 1.0})
    terminal.line("G92X0Y0")
    terminal.line(line, wait_s=0.01)

    points = []
    while (report := terminal.status())["state"] == "Run":
        x, y, _ = (float(v) for v in report["MPos"].split(","))
        points.append((x - centre[0]) + 1j * (y - centre[1]))
    steps = np.angle(np.array(points[1:]) / np.array(points[:-1]), deg=True)

    assert np.abs(points) == pytest.approx(10.0, abs=0.002 + 0.02)
    assert steps.sum() == pytest.approx(turned_deg, abs=12.0), "reports begin and end a little inside"
    assert (steps * np.sign(turned_deg) > -0.2).all()


def test_an_arc_in_the_zx_plane_moves_z():
    terminal = switched_on({22: 0})

    terminal.line("G18G91G2X0Z-4I0K-2F1200", wait_s=3.0)

    assert terminal.status()["MPos"] == "0.000,0.000,-4.000"


def test_inverse_time_counts_for_the_whole_arc():
    """F60: the half circle of 10 mm radius, 31.4 mm, in 1 s; steps of 0.02 mm on chords of 0.4 mm are 5 %."""
    terminal = switched_on({22: 0, 11: 10.0, 110: 36000, 111: 36000})
    terminal.line("G93G3X-20Y0I-10J0F60", wait_s=0.5)

    speed = float(terminal.status()["FS"].split(",")[0]) / 60

    assert speed == pytest.approx(31.4, rel=0.05)


@pytest.mark.parametrize(("modes", "letters"), [("M7", "M"), ("M8", "F"), ("M7\nM8", "FM")])
def test_a_firmware_compiled_with_mist_has_its_output(modes: str, letters: str):
    terminal = switched_on({22: 0}, mist=True)

    answers = terminal.line(modes)
    reports = [terminal.status() for _ in range(3)]

    assert set(answers) == {"ok"}
    assert letters in {r.get("A") for r in reports}
    assert terminal.line("$I")[1] == "[OPT:VM,15,128]"


def test_the_door_during_a_jog_ends_the_jog_first():
    terminal = homed()
    terminal.line("$J=G91X50F2400", wait_s=0.5)

    terminal.type("\x84", wait_s=1.0)
    held = terminal.status()
    terminal.type("~")

    assert (held["state"], held["Bf"]) == ("Door:0", "15,128")
    assert terminal.status()["state"] == "Idle"


def test_a_door_opened_again_while_restoring_begins_anew():
    terminal = homed()
    terminal.line("M8")
    terminal.type("\x84")

    terminal.type("~", wait_s=0.3)
    restoring = terminal.status()["state"]
    terminal.type("\x84")
    waiting = terminal.status()["state"]
    terminal.type("~", wait_s=1.2)

    assert (restoring, waiting) == ("Door:3", "Door:0")
    assert terminal.status()["state"] == "Idle"
