"""GRBL 1.1h (20190830), one check per test, over a real port: settings, queries, refusals, buffers.

How to run the list on a real controller: `grbl_conformance.py`.
"""

from __future__ import annotations

import re
import time

import pytest
from grbl_stranger import BANNER, UNLOCK, Stranger, served

pytest_plugins = ["grbl_conformance"]


def test_opening_reboots_and_greets_within_three_seconds():
    """main.c: DTR pulls the reset line; after the boot loader an empty line and the banner; homing on locks."""
    with served() as path:
        stranger = Stranger(path)

        lines = stranger.until(lambda x: BANNER in x, timeout_s=3.5) + stranger.for_a_while(0.1)
        report = stranger.report()
        stranger.close()

    assert lines[-2:] == [BANNER, UNLOCK]
    assert report["state"] == "Alarm"
    assert report["MPos"] == "0.000,0.000,0.000"


def test_settings_are_listed_by_number_with_three_decimals(rail: Stranger):
    """report.c: whole numbers for masks and switches, three decimals for the rest, none for spindle speeds."""
    *lines, answer = rail.ask("$$")

    listed = dict(line.split("=") for line in lines)
    numbers = [int(name[1:]) for name in listed]

    assert answer == "ok"
    assert numbers == [
        *range(7),
        *range(10, 14),
        *range(20, 28),
        *range(30, 33),
        *(first + axis for first in (100, 110, 120, 130) for axis in range(3)),
    ]
    assert (listed["$0"], listed["$11"], listed["$30"], listed["$100"]) == ("10", "0.010", "1000", "50.000")


def test_build_info_names_version_and_buffers(rail: Stranger):
    """report.c: `V` is the variable spindle; no other option is compiled in; 15 blocks, 128 bytes."""
    assert rail.ask("$I") == ["[VER:1.1h.20190830:]", "[OPT:V,15,128]", "ok"]


def test_build_info_can_be_stored(rail: Stranger):
    """system.c: `$I=` stores a line that `$I` repeats; anything else behind `$I` is a bad statement."""
    rail.tell("$I=bench 7")

    stored, wrong = rail.ask("$I")[0], rail.ask("$Ix")
    rail.tell("$I=")

    assert stored == "[VER:1.1h.20190830:BENCH7]"
    assert wrong == ["error:3"]


def test_help_is_one_line(rail: Stranger):
    """report.c."""
    help_line = "[HLP:$$ $# $G $I $N $x=val $Nx=line $J=line $SLP $C $X $H ~ ! ? ctrl-x]"

    assert rail.ask("$") == [help_line, "ok"]


def test_modes_after_a_reset(rail: Stranger):
    """gcode.c: everything zero, that is G0 G54 G17 G21 G90 G94 M5 M9."""
    assert rail.ask("$G") == ["[GC:G0 G54 G17 G21 G90 G94 M5 M9 T0 F0 S0]", "ok"]


def test_modes_are_kept_from_line_to_line(rail: Stranger):
    """gcode.c: modal groups; feed and spindle speed are printed without decimals."""
    rail.tell("G1G18G20G91F10", "S250")

    assert rail.ask("$G")[0] == "[GC:G1 G54 G18 G20 G91 G94 M5 M9 T0 F254 S250]"


def test_offsets_are_listed(rail: Stranger):
    """report.c: six coordinate systems, G28, G30, G92, tool length, probe."""
    *lines, answer = rail.ask("$#")

    names = [line.strip("[]").split(":")[0] for line in lines]

    assert answer == "ok"
    assert names == ["G54", "G55", "G56", "G57", "G58", "G59", "G28", "G30", "G92", "TLO", "PRB"]
    assert lines[-2:] == ["[TLO:0.000]", "[PRB:0.000,0.000,0.000:0]"]


def test_a_start_up_line_is_stored_executed_and_run_after_a_reset(rail: Stranger):
    """system.c: `$N0=` executes its block to check it; main.c runs it after the banner, echoed with its answer."""
    rail.tell("$N0=G91")
    modes, stored = rail.ask("$G")[0], rail.ask("$N")

    greeting = rail.reset()
    rail.tell("$N0=")

    assert "G91" in modes
    assert stored == ["$N0=G91", "$N1=", "ok"]
    assert greeting[-1] == ">G91:ok"


def test_each_line_gets_one_answer_in_order(rail: Stranger):
    """protocol.c: one `ok` or `error:N` per line end, whatever the line."""
    rail.send("G21\nQ1\n\n$Q\n(x)\nG90\n")

    lines = rail.until(lambda x: len(x) == 6)

    assert lines == ["ok", "error:20", "ok", "error:2", "ok", "ok"]


def test_return_and_line_feed_are_two_line_ends(rail: Stranger):
    """protocol.c: both end a line; the empty one is answered with ok."""
    rail.send("G90\r\n")

    assert rail.for_a_while(0.15) == ["ok", "ok"]


@pytest.mark.parametrize(
    "text",
    ["", "  ", "g90 g21", "G90(comment)G21", "G90;G0X5", "/G90", "(open", "M1", "G0", "G40G49G61G91.1"],
)
def test_harmless_lines_are_taken(rail: Stranger, text: str):
    """protocol.c: spaces, comments, block delete and case do not matter."""
    assert rail.ask(text) == ["ok"]


REFUSED = [
    ("1G0", 1, "a line begins with a letter"),
    ("GX1", 2, "a letter without its number"),
    ("X-", 2, "a sign is no number"),
    ("$Q", 2, "no number where a setting's number stands"),
    ("$100=", 2, "no value"),
    ("$100", 3, "no ="),
    ("$100=5X", 3, "more behind the value"),
    ("$99=1", 3, "no such setting"),
    ("$104=1", 3, "no fourth axis"),
    ("$256=1", 3, "beyond one byte"),
    ("$$X", 3, "more behind $$"),
    ("$J5", 3, "a jog without ="),
    ("$RST=x", 3, "nothing to restore by that name"),
    ("$110=-5", 4, "negative setting"),
    ("F-1", 4, "negative feed"),
    ("N-1", 4, "negative line number"),
    ("G4P-1", 4, "negative dwell"),
    ("$0=2", 6, "a step pulse shorter than 3 µs"),
    ("X" + "1" * 79, 11, "80 characters"),
    ("$J=G1X1F100", 16, "a motion mode in a jog"),
    ("$J=G91X1M3F100", 16, "the spindle in a jog"),
    ("$J=G28X1F100", 16, "another non-modal command than G53 in a jog"),
    ("G5X1", 20, "no such command"),
    ("G43X1", 20, "only G43.1"),
    ("G38X1F9", 20, "only G38.2 to G38.5"),
    ("G90.1", 20, "absolute arc centres"),
    ("M6", 20, "tool change"),
    ("M7", 20, "mist is not compiled in"),
    ("A1", 20, "no such axis"),
    ("G10L3P1X0", 20, "only L2 and L20"),
    ("G90G91", 21, "two of one modal group"),
    ("M3M5", 21, "two of one modal group"),
    ("G4P1G53", 21, "two non-modal commands"),
    ("G1X1", 22, "no feed"),
    ("G1", 22, "no feed, even without motion"),
    ("G93G1X1", 22, "inverse time wants F on every line"),
    ("$J=G91X1", 22, "a jog without feed"),
    ("G0.1X1", 23, "decimals where none belong"),
    ("M3.5", 23, "decimals where none belong"),
    ("G28G1X1F9", 24, "two commands for the axis words"),
    ("G0G1X1", 24, "two commands for the axis words"),
    ("G0X1X2", 25, "a word twice"),
    ("G92", 26, "no axis words"),
    ("G10L2P1", 26, "no axis words"),
    ("G2F100", 26, "no axis words"),
    ("G38.2F9", 26, "no axis words"),
    ("N10000001", 27, "line number too large"),
    ("G4", 28, "no P"),
    ("G10X0", 28, "neither L nor P"),
    ("G10L2P7X0", 29, "no seventh coordinate system"),
    ("G53G2X1I1F9", 30, "G53 with an arc"),
    ("G80X1", 31, "axis words without motion mode"),
    ("G2Z1R5F100", 32, "no axis word in the arc's plane"),
    ("G2X1I5F100", 33, "the ends lie on different circles"),
    ("G38.2G91X0F9", 33, "probing on the spot"),
    ("G91G2X9R1F100", 34, "a radius that does not reach"),
    ("G2X1F100", 35, "an arc without centre"),
    ("G1X1F100P3", 36, "a word that nothing uses"),
    ("G0X1I2", 36, "a word that nothing uses"),
    ("$J=G91X1F100S5", 36, "a spindle speed in a jog"),
    ("G43.1X1", 37, "tool length is along Z"),
    ("T256", 38, "tool number too large"),
    ("X1..2", 1, "a number ends at its second point"),
    ("$N=G0", 2, "no number where a start-up line's stands"),
    ("$RST", 3, "nothing said of what to restore"),
    ("$SLPX", 3, "more behind $SLP"),
    ("$C1", 3, "more behind $C"),
    ("$X1", 3, "more behind $X"),
    ("$GX", 3, "more behind $G"),
    ("$#X", 3, "more behind $#"),
    ("S-1", 4, "negative spindle speed"),
    ("T-1", 4, "negative tool"),
    ("G61.1", 20, "only exact path"),
    ("G41", 20, "no cutter compensation"),
    ("G28.2", 20, "only G28 and G28.1"),
    ("G92.2", 20, "only G92 and G92.1"),
    ("G20G21", 21, "two of one modal group"),
    ("G54G55", 21, "two of one modal group"),
    ("$J=X1F0", 22, "a jog at no speed"),
    ("G54.1", 23, "decimals where none belong"),
    ("M30.1", 23, "decimals where none belong"),
    ("G1X1F100G2", 24, "a conflict of axis commands comes before the modal group"),
    ("G4X1", 28, "no P, whatever else there is"),
    ("G53G80X1", 30, "G53 without motion mode"),
    ("L20P1X0", 36, "words of G10 without it"),
]


@pytest.mark.parametrize(("text", "number", "why"), REFUSED, ids=[f"{n}:{t[:14]}" for t, n, _ in REFUSED])
def test_what_is_refused_is_refused_by_number(parser: Stranger, text: str, number: int, why: str):
    """gcode.c, settings.c, system.c: the first check in the firmware's order that fails."""
    assert parser.ask(text) == [f"error:{number}"], why


def test_soft_limits_want_homing(rail: Stranger):
    """settings.c: `$20=1` without `$22` is error 10, `$22=0` takes `$20` along; `$H` is then error 5."""
    rail.tell("$22=1", "$20=1", "$22=0")

    answers = [rail.ask("$20=1"), rail.ask("$H")]
    listing = rail.ask("$$")
    rail.tell("$22=1")

    assert answers == [["error:10"], ["error:5"]]
    assert "$20=0" in listing


def test_settings_survive_a_reset_and_switches_are_one_or_zero(rail: Stranger):
    """settings.c writes to the EEPROM; switches are bits and come back as 1."""
    rail.tell("$130=399.5", "$4=5")

    rail.reset()
    listing = rail.ask("$$")
    rail.tell("$130=400", "$4=0")

    assert {"$130=399.500", "$4=1"} <= set(listing)


def test_inputs_can_be_inverted(rail: Stranger):
    """limits.c, probe.c: `$5` inverts all three switches, `$6` the probe; open inputs then read as active."""
    rail.tell("$5=1", "$6=1")
    pins = rail.report()["Pn"]
    rail.tell("$5=0", "$6=0")

    assert pins == "PXYZ"


def test_lines_pushed_blindly_overflow_the_receive_buffer(rail: Stranger):
    """serial.c: 128 bytes; what does not fit vanishes without a word, and lines merge."""
    rail.tell("G91F600")
    rail.send("G1X.5\nG1X-.5\n" * 30)

    lines = rail.for_a_while(2.5)

    assert 15 <= lines.count("ok") < 60
    rail.calm()


def test_a_full_receive_buffer_shows_in_the_report(rail: Stranger):
    """serial.c, report.c: in a hold nothing is read; the free bytes go down to nothing."""
    rail.send("!")
    rail.send("G4P0.01\n" * 4)
    some = rail.report()["Bf"]
    rail.send("G4P0.01\n" * 16)
    none = rail.report()["Bf"]
    rail.send("~")
    lines = rail.for_a_while(2.0)

    assert some == "15,96"
    assert none.split(",")[1] in {"0", "1"}
    assert lines.count("ok") in {15, 16}


def test_the_planner_holds_fifteen_blocks(rail: Stranger):
    """planner.c: fifteen are taken at once, the next ones when there is room."""
    rail.tell("G91F60")
    rail.send("!")
    rail.until_state("Hold:0")
    rail.send("~")
    rail.send("G1X.1\nX-.1\n" * 8 + "X.1\n")
    rail.for_a_while(0.15)

    report = rail.report()

    assert int(report["Bf"].split(",")[0]) <= 1
    rail.calm()


def test_bytes_sent_while_the_eeprom_is_written_are_lost(rail: Stranger):
    """eeprom.c writes with interrupts off; the UART keeps two bytes at most."""
    rail.send("$1=254\n$G\n")

    lines = rail.for_a_while(0.3)
    rail.tell("$1=255")

    assert lines[0] == "ok"
    assert not any(line.startswith("[GC:") for line in lines)


def test_defaults_can_be_restored(rail: Stranger):
    """system.c: message, ok, and a reset; `#` clears coordinates, `$` settings, `*` everything."""
    rail.tell("G10L2P3X-1")

    lines = rail.ask("$RST=#") + rail.until_line(re.escape(BANNER))

    assert lines[:2] == ["[MSG:Restoring defaults]", "ok"]
    rail.for_a_while(0.1)
    assert "[G56:0.000,0.000,0.000]" in rail.ask("$#")


def test_reports_keep_coming_while_a_line_waits(rail: Stranger):
    """protocol.c looks at real-time flags wherever it waits: dwell, full planner, hold."""
    rail.send("G4P0.5\n")
    rail.for_a_while(0.05)

    report = rail.report()

    assert report["state"] == "Idle"
    assert rail.until_line("ok") == ["ok"]


def test_answers_come_at_the_pace_of_the_line(rail: Stranger):
    """115200 baud: a listing of some 500 bytes takes 40 ms."""
    begin_s = time.monotonic()

    lines = rail.ask("$$")

    elapsed_s = time.monotonic() - begin_s
    assert elapsed_s > 0.9 * 87e-6 * sum(len(line) + 2 for line in lines)
