"""GRBL 1.1h (20190830), one check per test, over a real port: motion, holds and jogs.

How to run the list on a real controller: `grbl_conformance.py`.
"""

from __future__ import annotations

import re
import time

import pytest
from grbl_stranger import BANNER, UNLOCK, Stranger

pytest_plugins = ["grbl_conformance"]


def test_ok_means_queued_and_a_dwell_is_the_barrier(rail: Stranger):
    """protocol.c: the planner takes the line at once; motion_control.c: G4 waits until it is empty."""
    rail.tell("G91G1X10F1200")
    moving = rail.report()["state"]
    rail.tell("G4P0")

    assert moving == "Run"
    assert rail.report()["state"] == "Idle"


def test_steps_quantise_the_position(rail: Stranger):
    """planner.c: `$100=50` makes 0.02 mm; targets are rounded to steps."""
    rail.tell("G92X0", "G10L20P1X0", "G90G1X1.235F600", "G4P0", "$10=2")

    work = rail.report()["WPos"]
    rail.tell("$10=3", "G10L2P1X0")

    assert float(work.split(",")[0]) == pytest.approx(1.24)


def test_the_plateau_of_sixty_millimetres(rail: Stranger):
    """stepper.c: 60 mm at 30 mm/s and 200 mm/s² take 2.15 s, 1.85 s of them at full speed: 27 of 31 at 15 Hz."""
    rail.tell("G91G1X60F1800")
    begin_s = time.monotonic()

    seen: list[tuple[float, float]] = []
    while (report := rail.report())["state"] == "Run":
        seen.append((time.monotonic() - begin_s, float(report["FS"].split(",")[0])))
        rail.for_a_while((len(seen) / 15) - (time.monotonic() - begin_s))
    rail.tell("G0X-60", "G4P0")

    plateau = [t for t, feed in seen if feed == 1800]
    assert plateau[-1] - plateau[0] == pytest.approx(1.85, abs=0.25)
    assert seen[-1][0] == pytest.approx(2.15, abs=0.3)
    assert all(feed == 1800 for t, feed in seen if plateau[0] <= t <= plateau[-1])


def test_feed_is_clipped_to_the_axis_limit(rail: Stranger):
    """planner.c: `$110` limits whatever the line says, also under an override."""
    rail.tell("$110=1200", "G91G1X8F99999")
    rail.for_a_while(0.25)
    speed = rail.feed()
    rail.tell("G4P0", "G0X-8", "G4P0", "$110=7200")

    assert speed == 1200


def test_inverse_time_is_moves_per_minute(rail: Stranger):
    """gcode.c: under G93 F30 means 2 s for this line: 10 mm at 300 mm/min; back in G94 the feed is undefined."""
    rail.tell("G93G91G1X10F30")
    rail.for_a_while(0.3)
    speed = rail.feed()
    rail.tell("G4P0", "G94")

    assert speed == 300
    assert rail.ask("G1X-1") == ["error:22"]
    rail.tell("G0X-10", "G4P0")


def test_a_hold_decelerates_and_keeps_the_position(rail: Stranger):
    """protocol.c: Hold:1 while it brakes, Hold:0 when it stands; the rest of the way follows on resume."""
    rail.tell("G92X0", "$10=2", "G91G1X40F3000")
    rail.for_a_while(0.4)

    rail.send("!")
    braking = rail.report()["state"]
    held = rail.until_state("Hold:0")
    later = rail.report()
    rail.send("~")
    running = rail.report()["state"]
    end = rail.until_state("Idle")
    rail.tell("G0X-40", "G4P0", "$10=3")

    assert (braking, running) == ("Hold:1", "Run")
    assert held["WPos"] == later["WPos"]
    assert 5 < float(held["WPos"].split(",")[0]) < 39
    assert end["WPos"].startswith("40.000,")


def test_lines_wait_in_a_hold_and_at_rest_a_hold_is_complete_at_once(rail: Stranger):
    """protocol.c: the main loop stands still in a suspension; nothing is lost."""
    rail.send("!")
    held = rail.report()["state"]
    rail.send("G21\n")
    waiting = rail.for_a_while(0.15)
    rail.send("~")

    assert held == "Hold:0"
    assert waiting == []
    assert rail.until_line("ok") == ["ok"]


def test_a_reset_in_a_finished_hold_is_clean(rail: Stranger):
    """motion_control.c: nothing moves, nothing is lost: no alarm."""
    rail.tell("G91G1X40F3000")
    rail.for_a_while(0.3)
    rail.send("!")
    before = rail.until_state("Hold:0")["MPos"]

    lines = rail.reset()

    assert lines == [BANNER]
    after = rail.report()
    assert (after["state"], after["MPos"]) == ("Idle", before)


def test_a_reset_in_motion_is_alarm_3_and_locks(rail: Stranger):
    """motion_control.c: steppers are killed; report.c stands still for 0.5 s behind the ALARM line."""
    rail.tell("G91G1X20F3000")
    rail.for_a_while(0.2)
    begin_s = time.monotonic()

    rail.send("\x18")
    lines = rail.until_line(re.escape(UNLOCK))

    assert lines == ["ALARM:3", BANNER, UNLOCK]
    assert time.monotonic() - begin_s > 0.4
    assert rail.report()["state"] == "Alarm"


def test_a_reset_while_braking_is_alarm_3(rail: Stranger):
    """motion_control.c: an unfinished hold is motion."""
    rail.tell("G91G1X-20F6000")
    rail.for_a_while(0.25)

    rail.send("!\x18")

    assert rail.until_line(re.escape(UNLOCK))[0] == "ALARM:3"


def test_a_line_cut_off_by_a_reset_still_gets_its_ok(rail: Stranger):
    """motion_control.c returns up to the main loop, which answers before it notices: a stale ok before the banner."""
    rail.tell("G91G1X20F1200")
    rail.send("G4P5\n")
    rail.for_a_while(0.1)

    rail.send("\x18")

    assert rail.until_line(re.escape(UNLOCK)) == ["ALARM:3", "ok", BANNER, UNLOCK]


def test_a_jog_moves_beside_the_modes(rail: Stranger):
    """jog.c: state Jog, G91 for this line only, other lines refused (9) meanwhile, another jog taken."""
    rail.tell("$J=G91X6F1200")
    state, refused = rail.report()["state"], rail.ask("G0X1")[-1]
    rail.tell("$J=G91X-6F1200")
    rail.until_state("Idle")

    assert (state, refused) == ("Jog", "error:9")
    assert "G0 G54 G17 G21 G90" in rail.ask("$G")[0]


def test_a_jog_is_cancelled_with_all_that_is_queued(rail: Stranger):
    """protocol.c: 0x85 brakes, flushes the planner, and is Idle; elsewhere it does nothing."""
    rail.tell("$J=G91X40F1200", "$J=G91X40F1200")
    rail.for_a_while(0.3)

    rail.send("\x85")
    report = rail.until_state("Idle")
    rail.send("\x85")

    assert report["Bf"] == "15,128"
    assert rail.report()["state"] == "Idle"


def test_a_hold_cancels_a_jog(rail: Stranger):
    """protocol.c: a hold during a jog is a cancellation."""
    rail.tell("$J=G91X-20F1200")
    rail.for_a_while(0.2)

    rail.send("!")

    assert rail.until_state("Idle")["Bf"] == "15,128"


def test_overrides_do_not_reach_a_jog(rail: Stranger):
    """jog.c: a jog is planned without feed override."""
    rail.send("\x91" * 5)
    rail.tell("$J=G91X10F1200")
    rail.for_a_while(0.25)

    speed = rail.feed()
    rail.send("\x85")
    rail.until_state("Idle")

    assert speed == 1200


def test_arcs_are_traced(rail: Stranger):
    """motion_control.c: G3 by centre ends where it says and passes through the top: X back, Y 2 mm up on the way."""
    rail.tell("G92X0Y0", "$10=2", "G3X-4Y0I-2J0F240")
    rows = []
    while (report := rail.report())["state"] != "Idle":
        rows.append([float(value) for value in report["WPos"].split(",")])
    end = rail.report()["WPos"]
    rail.tell("G0X0", "G4P0", "$10=3")

    assert end == "-4.000,0.000,0.000"
    assert max(y for _, y, _ in rows) == pytest.approx(2.0, abs=0.25)
    assert all((x + 2) ** 2 + y**2 == pytest.approx(4.0, abs=0.15) for x, y, _ in rows)


def test_laser_mode_changes_power_without_stopping(rail: Stranger):
    """gcode.c: with `$32=1` a new S on a moving line does not drain the planner."""
    rail.tell("$32=1", "M3S100", "G91G1X6F1200")
    rail.tell("X6S200")
    moving = rail.report()["state"]
    rail.tell("G4P0", "M5", "G0X-12", "G4P0", "$32=0")

    assert moving == "Run"
