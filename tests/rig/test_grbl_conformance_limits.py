"""GRBL 1.1h (20190830), one check per test, over a real port: probing, homing, soft and hard limits, check and sleep.

How to run the list on a real controller: `grbl_conformance.py`.
"""

from __future__ import annotations

import re

from grbl_stranger import BANNER, UNLOCK, Stranger

pytest_plugins = ["grbl_conformance"]


def test_probing_without_a_contact_is_alarm_5(rail: Stranger):
    """motion_control.c: G38.2 to its end without contact: alarm, probe line, ok; G38.3 does without the alarm."""
    rail.tell("G91")
    quiet = rail.ask("G38.3X2F1200")

    lines = rail.ask("G38.2X-2F1200")

    assert re.fullmatch(r"\[PRB:-?\d+\.\d{3},0\.000,0\.000:0\]", quiet[0])
    assert quiet[1:] == ["ok"]
    assert lines[0] == "ALARM:5"
    assert lines[-1] == "ok"
    assert rail.ask("G0X1") == ["error:9"]


def test_probing_away_from_nothing_is_alarm_4(rail: Stranger):
    """motion_control.c: the input already says what is looked for: no motion, alarm 4."""
    before = rail.report()["MPos"]

    lines = rail.ask("G91G38.4X2F1200")

    assert lines == ["ALARM:4", "ok"]
    assert rail.report()["MPos"] == before


def test_check_mode_checks_and_executes_nothing(rail: Stranger):
    """system.c: `$C` on at rest only; off by `$C`, which resets."""
    on = rail.ask("$C")
    rail.send("?")
    state = rail.until_line(r"<.*>")[0]
    before = rail.report()["MPos"]
    answers = [rail.ask(text)[-1] for text in ("G91G0X50", "G1X1F0", "$H", "M3S100")]
    after = rail.report()["MPos"]
    off = rail.ask("$C") + rail.until_line(re.escape(BANNER))

    assert on == ["[MSG:Enabled]", "ok"]
    assert state.startswith("<Check|")
    assert answers == ["ok", "error:22", "error:8", "ok"]
    assert after == before
    assert off == ["[MSG:Disabled]", "ok", BANNER]


def test_sleep_answers_first_and_ends_with_a_reset(rail: Stranger):
    """system.c: `$SLP` is ok, then the message; only a reset wakes it, into the lock."""
    lines = rail.ask("$SLP") + rail.until_line(r"\[MSG:Sleeping\]")
    state = rail.report()["state"]
    rail.send("$G\n")

    assert lines == ["ok", "[MSG:Sleeping]"]
    assert state == "Sleep"
    assert rail.for_a_while(0.1) == []
    assert rail.reset()[-2:] == [BANNER, UNLOCK]


def test_homing_ends_a_pull_off_from_the_low_switch(homed: Stranger):
    """limits.c: `$23=1`: machine space ends at -400 below; 2 mm of pull-off make -398."""
    report = homed.report()

    assert report["state"] == "Idle"
    assert report["MPos"] == "-398.000,0.000,0.000"
    assert "Pn" not in report


def test_homing_upwards_ends_a_pull_off_below_zero(homed: Stranger):
    """limits.c: `$23=0` makes machine space end at 0; `$3=1` turns the motor, so that the same switch is up there."""
    homed.tell("$20=0", "$3=1", "$23=0")

    answer = homed.ask("$H", timeout_s=20.0)
    position = homed.report()["MPos"]
    homed.tell("$3=0", "$23=1")

    assert answer == ["ok"]
    assert position == "-2.000,0.000,0.000"


def test_homing_is_silent_and_answers_a_question_at_its_end(homed: Stranger):
    """limits.c looks at resets and the door only; the flag of a question is still there when it returns."""
    homed.tell("G53G0X-395", "G4P0")
    homed.send("$H\n")
    homed.for_a_while(0.1)
    homed.send("?")

    lines = homed.until_line("ok", timeout_s=20.0)

    assert lines[-1] == "ok"
    assert all(line.startswith("<Home|MPos:-398.000") for line in lines[:-1])


def test_a_reset_during_homing_is_alarm_6(opened: Stranger):
    """limits.c."""
    opened.calm()
    opened.send("$H\n")
    opened.for_a_while(0.1)

    opened.send("\x18")

    assert opened.until_line(re.escape(UNLOCK)) == ["ALARM:6", "ok", BANNER, UNLOCK]


def test_the_door_during_homing_is_alarm_7(opened: Stranger):
    """limits.c."""
    opened.calm()
    opened.send("$H\n")
    opened.for_a_while(0.1)

    opened.send("\x84")

    assert opened.until_line(re.escape(UNLOCK))[0] == "ALARM:7"


def test_a_home_switch_that_is_not_there_is_alarm_9(homed: Stranger):
    """limits.c: `$23=0` searches upwards for 1.5 travels; nothing is there."""
    homed.tell("$20=0", "$21=0", "$23=0", "$130=4")

    lines = homed.ask("$H", timeout_s=20.0)
    homed.until_line(re.escape(UNLOCK))
    homed.tell("$23=1", "$130=400", "$X")

    assert lines == ["ALARM:9", "ok"]


def test_homing_in_motion_is_refused(homed: Stranger):
    """system.c: `$H`, settings and `$$` are error 8 in motion."""
    homed.tell("G91G1X20F1200")

    answers = [homed.ask(text)[-1] for text in ("$H", "$10=3", "$$", "$#", "$N", "$I", "$SLP", "$G")]

    assert answers == ["error:8"] * 7 + ["ok"]


def test_a_soft_limit_is_deaf_until_reset_and_owes_an_ok(homed: Stranger):
    """limits.c, protocol.c: ALARM:2, message, a loop that only a reset ends, then the stale ok before the banner."""
    homed.send("G53G1X1F600\n")
    lines = homed.until_line(r"\[MSG:.*\]")
    homed.send("?$X\n")
    deaf = homed.for_a_while(0.3)

    homed.send("\x18")
    after = homed.until_line(re.escape(UNLOCK))

    assert lines == ["ALARM:2", "[MSG:Reset to continue]"]
    assert deaf == []
    assert after == ["ok", BANNER, UNLOCK]
    assert homed.report()["MPos"].startswith("-398.000")


def test_a_reset_right_behind_the_alarm_line_is_lost(homed: Stranger):
    """protocol.c clears the flag behind the message, 0.5 s after the ALARM line."""
    homed.send("G53G1X1F600\n")
    homed.until_line("ALARM:2")

    homed.send("\x18")
    lines = homed.for_a_while(0.8)
    homed.send("\x18")

    assert lines == ["[MSG:Reset to continue]"]
    assert "ok" in homed.until_line(re.escape(UNLOCK))


def test_a_soft_limit_in_motion_stops_gently_first(homed: Stranger):
    """limits.c: a feed hold, and the alarm when it stands; the position is kept."""
    homed.tell("G91G1X20F1200")
    homed.for_a_while(0.2)
    homed.send("G53G90G1X5\n")

    lines = homed.until_line(r"\[MSG:.*\]")
    homed.reset()

    assert lines == ["ALARM:2", "[MSG:Reset to continue]"]
    assert -397 < homed.x_mm() < -379


def test_a_jog_beyond_the_travel_is_refused_without_alarm(homed: Stranger):
    """jog.c: error 15, nothing moves, nothing locks."""
    assert homed.ask("$J=G91X-3F600") == ["error:15"]
    assert homed.report()["state"] == "Idle"


def test_the_hard_limit_stops_dead_and_is_deaf_until_reset(homed: Stranger):
    """limits.c: ALARM:1 and the loop; after the reset `Check Limits` as long as the switch is pressed."""
    homed.tell("$20=0")
    homed.send("G91G1X-5F1200\n")
    homed.until_line("ok")
    lines = homed.until_line(r"\[MSG:.*\]")
    homed.send("?")
    deaf = homed.for_a_while(0.2)

    homed.send("\x18")
    after = homed.until_line(re.escape(UNLOCK))
    pressed = homed.report()
    unlocked = homed.ask("$X")
    still = homed.report()

    assert lines == ["ALARM:1", "[MSG:Reset to continue]"]
    assert deaf == []
    assert after == [BANNER, "[MSG:Check Limits]", UNLOCK]
    assert (pressed["state"], pressed["Pn"]) == ("Alarm", "X")
    assert unlocked == ["[MSG:Caution: Unlocked]", "ok"]
    assert (still["state"], still["Pn"]) == ("Idle", "X")
    homed.tell("$21=0", "G91G0X5", "G4P0")
    assert "Pn" not in homed.report()
