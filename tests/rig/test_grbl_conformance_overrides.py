"""GRBL 1.1h (20190830), one check per test, over a real port: overrides, accessories, the door and pauses.

How to run the list on a real controller: `grbl_conformance.py`.
"""

from __future__ import annotations

from grbl_stranger import Stranger

pytest_plugins = ["grbl_conformance"]


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
