"""The firmware's behaviour as a stranger sees it: GRBL 1.1h (20190830), one check per test, over a real port.

Each docstring says where in the firmware the behaviour comes from. The list needs an X switch 10 mm below where
the carriage starts and 100 mm free above it, and nothing else: CLEANPLATE_GRBL_PORT=/dev/ttyUSB0 runs it on a real
controller. It writes settings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from grbl_stranger import BANNER, UNLOCK, Stranger, served

BENCH = {
    0: 10,
    1: 255,
    3: 0,
    5: 0,
    6: 0,
    10: 3,
    11: 0.01,
    12: 0.002,
    13: 0,
    20: 0,
    21: 0,
    22: 1,
    23: 1,
    24: 1200,
    25: 3000,
    26: 25,
    27: 2,
    30: 1000,
    31: 0,
    32: 0,
    100: 50,
    110: 7200,
    120: 200,
    130: 400,
}


@pytest.fixture(scope="module")
def opened() -> Iterator[Stranger]:
    with served() as path:
        stranger = Stranger(path)
        stranger.until(lambda lines: BANNER in lines)
        stranger.for_a_while(0.1)
        stranger.tell(*(f"${number}={value}" for number, value in BENCH.items()))
        yield stranger
        stranger.close()


@pytest.fixture
def rail(opened: Stranger) -> Stranger:
    """At rest, unlocked, modes as after a reset; the position is whatever it was."""
    opened.calm()
    return opened


@pytest.fixture
def parser(opened: Stranger) -> Stranger:
    """The same for lines that change nothing: once is enough for many of them."""
    if not opened.fresh:
        opened.calm()
        opened.fresh = True
    return opened


@pytest.fixture
def homed(opened: Stranger) -> Iterator[Stranger]:
    """At -398 with soft and hard limits on; both off again afterwards."""
    opened.home()
    opened.fresh = False
    opened.tell("$20=1", "$21=1")
    yield opened
    opened.calm()
    opened.tell("$20=0", "$21=0")


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
    rail.tell("G91G1X20F600")
    for _ in range(40):
        report = rail.report()
        if "WCO" in report and report["state"] == "Run":
            break

    reports = [rail.report() for _ in range(62)]
    rail.until_state("Idle")

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


def test_feed_override_goes_in_tens_and_ones_from_ten_to_two_hundred(rail: Stranger):
    """protocol.c: 0x91 to 0x94; 0x90 restores; the change is reported at once."""
    seen = []
    for data in ("\x91\x93", "\x90", "\x92\x94"):
        rail.send(data)
        seen.append(rail.field("Ov").split(",")[0])
    for _ in range(12):
        rail.send("\x92")
        rail.for_a_while(0.01)
    lowest = rail.field("Ov")
    for _ in range(21):
        rail.send("\x91")
        rail.for_a_while(0.01)

    assert seen == ["111", "100", "89"]
    assert lowest == "10,100,100"
    assert rail.field("Ov") == "200,100,100"


def test_rapid_and_spindle_overrides(rail: Stranger):
    """protocol.c: rapids 100, 50, 25; the spindle like the feed."""
    seen = []
    for data in ("\x96", "\x97", "\x95", "\x9a\x9d", "\x99"):
        rail.send(data)
        seen.append(rail.field("Ov"))

    assert seen == ["100,50,100", "100,25,100", "100,100,100", "100,100,109", "100,100,100"]


def test_an_override_changes_the_speed_in_motion_and_0x90_restores_it(rail: Stranger):
    """planner.c: the block in execution is planned anew."""
    rail.tell("G91G1X40F1200")
    rail.for_a_while(0.3)
    rail.send("\x91\x91")
    rail.for_a_while(0.25)
    faster = rail.feed()
    rail.send("\x90")
    rail.for_a_while(0.25)
    restored = rail.feed()
    rail.send("!")
    rail.until_state("Hold:0")

    assert (faster, restored) == (1440, 1200)


def test_flood_toggles_in_motion_without_disturbing_it(rail: Stranger):
    """protocol.c: 0xA0 in Idle, Run, Hold and Jog; 0xA1 and M7 only where mist is compiled in."""
    rail.tell("G91G1X40F1200")
    rail.for_a_while(0.2)
    rail.send("\xa0")
    speeds = [rail.feed()]
    on = rail.field("A")
    speeds.append(rail.feed())
    rail.send("\xa1")
    still = rail.field("A")
    rail.send("\xa0")
    dark = "A" not in rail.report_with("Ov")
    rail.send("!")
    rail.until_state("Hold:0")

    assert dark
    assert speeds == [1200, 1200]
    assert (on, still) == ("F", "F")


def test_accessories_are_letters(rail: Stranger):
    """report.c: S or C for the spindle while it is given a speed, F for flood; M5 and M9 take them back."""
    seen = []
    for line in ("M3S500", "M4", "M8", "M5"):
        rail.tell(line)
        seen.append((rail.field("A"), rail.report()["FS"]))
    rail.tell("M9")

    assert seen == [("S", "0,500"), ("C", "0,500"), ("CF", "0,500"), ("F", "0,0")]


def test_the_spindle_keeps_to_its_limits_and_its_override(rail: Stranger):
    """spindle_control.c: `$30` above, `$31` below; speed zero is off."""
    rail.tell("$31=100", "M3S5000")
    seen = [rail.report()["FS"]]
    rail.tell("S20")
    seen.append(rail.report()["FS"])
    rail.tell("S500")
    rail.send("\x9a")
    seen.append(rail.report()["FS"])
    rail.tell("M5", "$31=0")

    assert seen == ["0,1000", "0,100", "0,550"]


def test_spindle_stop_in_a_hold(rail: Stranger):
    """protocol.c: 0x9E in a hold only; resuming restores the spindle and says so."""
    rail.tell("M3S500")
    rail.send("\x9e")
    ignored = rail.report()["FS"]
    rail.send("!\x9e")
    stopped = rail.report()["FS"]
    rail.send("~")
    lines = rail.until_line(r"\[MSG:.*")
    restored = rail.report()["FS"]
    rail.tell("M5")

    assert (ignored, stopped, restored) == ("0,500", "0,0", "0,500")
    assert lines == ["[MSG:Restoring spindle]"]


def test_the_door_stops_switches_off_and_restores(rail: Stranger):
    """protocol.c: 0x84 brakes (Door:2), switches off (Door:0); resuming gives the coolant 1 s first (Door:3)."""
    rail.tell("M8", "G91G1X20F2400")
    rail.for_a_while(0.3)

    rail.send("\x84")
    lines = rail.until_line(r"\[MSG:.*")
    braking = rail.report()["state"]
    stopped = rail.until_state("Door:0")["MPos"]
    dark = "A" not in rail.report_with("Ov")
    rail.send("~")
    restoring = rail.report()["state"]
    rail.until_state("Run")
    end = rail.until_state("Idle")["MPos"]
    rail.tell("M9", "G0X-20", "G4P0")

    assert lines == ["[MSG:Check Door]"]
    assert (braking, restoring) == ("Door:2", "Door:3")
    assert dark
    assert float(end.split(",")[0]) > float(stopped.split(",")[0])


def test_the_door_at_rest_is_ready_at_once(rail: Stranger):
    """protocol.c: without a door switch compiled in it counts as closed."""
    rail.send("\x84")
    state = rail.until_state("Door:0")["state"]
    rail.send("~")

    assert state == "Door:0"
    rail.until_state("Idle")


def test_a_program_pause_waits_for_resume(rail: Stranger):
    """gcode.c: M0 is a hold behind the motion; its ok comes after the resume; M1 is ignored."""
    rail.send("M0\n")
    rail.until_state("Hold:0")
    silent = rail.for_a_while(0.1)
    rail.send("~")

    assert silent == []
    assert rail.until_line("ok") == ["ok"]


def test_a_program_end_resets_modes_and_overrides_but_not_the_units(rail: Stranger):
    """gcode.c: M2 and M30: G1 G17 G90 G94 G54 M5 M9 and overrides of 100 %; units, feed and speed stay."""
    rail.send("\x91")
    rail.tell("G20G91G55M8F10S30")

    lines = rail.ask("M30")
    modes = rail.ask("$G")[0]

    assert lines == ["[MSG:Pgm End]", "ok"]
    assert modes == "[GC:G1 G54 G17 G20 G90 G94 M5 M9 T0 F254 S30]"
    assert rail.field("Ov") == "100,100,100"


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


def test_laser_mode_changes_power_without_stopping(rail: Stranger):
    """gcode.c: with `$32=1` a new S on a moving line does not drain the planner."""
    rail.tell("$32=1", "M3S100", "G91G1X6F1200")
    rail.tell("X6S200")
    moving = rail.report()["state"]
    rail.tell("G4P0", "M5", "G0X-12", "G4P0", "$32=0")

    assert moving == "Run"


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
