"""GRBL 1.1h (20190830), one check per test, over a real port: resets, locks, status reports and offsets.

How to run the list on a real controller: `grbl_conformance.py`.
"""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from grbl_stranger import BANNER, UNLOCK, Stranger

pytest_plugins = ["grbl_conformance"]


def test_a_reset_at_rest_is_clean_and_keeps_the_position(rail: Stranger):
    """motion_control.c: only motion makes it an alarm; modes are forgotten, step counters are not."""
    rail.tell("G91G0X2")
    before = rail.until_state("Idle")["MPos"]

    lines = rail.reset()

    assert lines == [BANNER]
    after = rail.report()
    assert (after["state"], after["MPos"]) == ("Idle", before)
    assert "G90" in rail.ask("$G")[0]


def test_a_locked_controller_takes_no_motion(opened: Stranger):
    """protocol.c: G-code is error 9 in alarm; system.c: `$J` and `$N0=` are error 8; settings are writable."""
    opened.calm()
    opened.tell("G91G0X50")
    opened.send("\x18")
    opened.until_line(re.escape(UNLOCK))

    answers = [opened.ask(text)[-1] for text in ("G0X1", "G4P0", "$J=G91X1F100", "$N0=G0", "$10=3", "$X")]

    assert answers == ["error:9", "error:9", "error:8", "error:8", "ok", "ok"]


def test_unlocking_says_so_once(opened: Stranger):
    """system.c: a message when there was an alarm, nothing otherwise."""
    opened.calm()
    opened.tell("G91G0X50")
    opened.send("\x18")
    opened.until_line(re.escape(UNLOCK))

    assert opened.ask("$X") == ["[MSG:Caution: Unlocked]", "ok"]
    assert opened.ask("$X") == ["ok"]


def test_fields_of_a_report(rail: Stranger):
    """report.c: with `$10=3` machine position and buffers; first the work offset, then the overrides."""
    first, second, third = rail.report(), rail.report(), rail.report()

    assert list(first)[:4] == ["state", "MPos", "Bf", "FS"]
    assert first["Bf"] == "15,128"
    assert first["FS"] == "0,0"
    fields = [set(report) & {"WCO", "Ov"} for report in (first, second, third)]
    assert sorted(map(sorted, fields)) in ([[], [], ["Ov"]], [[], ["Ov"], ["WCO"]], [[], [], []])


def test_offset_and_overrides_come_every_ten_reports_at_rest(opened: Stranger):
    """report.c: counters of 10 at rest; overrides one report behind the offset."""
    opened.reset()
    reports = [opened.report() for _ in range(22)]

    assert [i for i, r in enumerate(reports) if "WCO" in r] == [0, 10, 20]
    assert [i for i, r in enumerate(reports) if "Ov" in r] == [1, 11, 21]
    assert reports[1]["Ov"] == "100,100,100"


def test_offset_comes_every_thirty_reports_and_overrides_every_twenty_in_motion(rail: Stranger):
    """report.c: counters of 30 and 20 while busy."""
    rail.tell("G91G1X80F300")
    for _ in range(40):
        report = rail.report()
        if "WCO" in report and report["state"] == "Run":
            break

    reports = [rail.report() for _ in range(62)]
    rail.send("!")

    assert all(r["state"] == "Run" for r in reports)
    offsets = [i for i, r in enumerate(reports) if "WCO" in r]
    overrides = [i for i, r in enumerate(reports) if "Ov" in r]
    assert [b - a for a, b in pairwise(offsets)] == [30]
    assert {b - a for a, b in pairwise(overrides)} <= {20, 21}


def test_the_report_mask_chooses_position_and_buffers(rail: Stranger):
    """report.c: bit 0 is machine instead of work position, bit 1 the buffers."""
    rail.tell("G92X5", "$10=0")
    work = rail.report()
    rail.tell("$10=1")
    machine = rail.report()
    rail.tell("$10=3")

    assert float(work["WPos"].split(",")[0]) == pytest.approx(5.0)
    assert not {"Bf", "MPos"} & work.keys()
    assert "MPos" in machine
    assert "Bf" not in machine


def test_reports_in_inches(rail: Stranger):
    """report.c: `$13=1` prints four decimals and inch per minute."""
    rail.tell("$13=1", "G91G20G1X0.5F100")
    report = rail.report()
    rail.tell("G21")
    rail.until_state("Idle")
    rail.tell("$13=0")

    assert re.fullmatch(r"-?\d+\.\d{4},0\.0000,0\.0000", report["MPos"])
    assert re.fullmatch(r"\d+\.\d,0", report["FS"])


def test_a_second_question_before_the_answer_is_swallowed(rail: Stranger):
    """serial.c: a question sets a flag; it has no count."""
    rail.send("????")

    assert 1 <= len(rail.for_a_while(0.15)) <= 2


def test_questions_go_past_the_line_they_stand_in(rail: Stranger):
    """serial.c picks real-time bytes out of the stream: the line around one is whole."""
    rail.send("G2?1\n")

    lines = rail.until_line("ok")

    assert sum(line.startswith("<") for line in lines + rail.for_a_while(0.1)) == 1


def test_work_position_is_machine_position_minus_offset(rail: Stranger):
    """report.c: WPos = MPos - WCO; G92 is an offset on top of G54."""
    rail.tell("G10L2P1X1.5", "G92X10")
    report = rail.report()
    rail.tell("G10L2P1X0", "G92.1")

    assert float(report["WCO"].split(",")[0]) == pytest.approx(float(report["MPos"].split(",")[0]) - 10)


def test_coordinate_systems_survive_a_reset_and_g92_does_not(rail: Stranger):
    """settings.c keeps G54 to G59, G28 and G30; gcode.c forgets G92."""
    rail.tell("G10L2P2X-7.5", "G92X3")

    rail.reset()
    listing = rail.ask("$#")
    rail.tell("G10L2P2X0")

    assert "[G55:-7.500,0.000,0.000]" in listing
    assert "[G92:0.000,0.000,0.000]" in listing


def test_g10_l20_makes_the_position_read_as_said(rail: Stranger):
    """gcode.c: L20 computes the offset from where the carriage stands."""
    rail.tell("G10L20P1X0", "$10=2")

    work = rail.report()["WPos"]
    rail.tell("G10L2P1X0", "$10=3")

    assert work.startswith("0.000,")


def test_g28_goes_to_its_stored_place(rail: Stranger):
    """gcode.c: G28.1 stores the position, G28 returns in rapids."""
    rail.tell("G28.1")
    home = rail.report()["MPos"]
    rail.tell("G91G0X3", "G4P0", "G28")

    assert rail.until_state("Idle")["MPos"] == home


def test_tool_length_is_an_offset_along_z(rail: Stranger):
    """gcode.c: G43.1 moves the work offset, G49 takes it back."""
    rail.tell("G43.1Z2.5")
    offset = rail.report()["WCO"]
    listing = rail.ask("$#")
    rail.tell("G49")

    assert offset == "0.000,0.000,2.500"
    assert "[TLO:2.500]" in listing
