"""Everything that can be made to go wrong on the simulated rail: what the wire says, and what is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grbl_stranger import BANNER, Stranger, served
from grbl_terminal import HOMED, Terminal, homed, switched_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_rig import write_profile

from rig.profile import RigProfile
from rig.sim.grbl import GrblController
from rig.sim.grbl_faults import PositionFault, RailFaults, ReplyFault, TimedFault

NIGHTLY = 20 if os.environ.get("CLEANPLATE_NIGHTLY") else 1
MOVE = "G91G1X100F2400"  # 40 mm/s from 2 to 102 mm: 2.7 s


def failing(**faults: Any) -> Terminal:
    """A homed rail with faults from now on."""
    terminal = homed()
    terminal.controller.set_faults(RailFaults.model_validate(faults))
    return terminal


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ReplyFault(kind="drop_ok", nth=1), []),
        (ReplyFault(kind="duplicate_ok", nth=1), ["ok", "ok"]),
        (ReplyFault(kind="delay_ok", nth=1, delay_s=1.0), []),
    ],
)
def test_faults_of_ok(fault: ReplyFault, expected: list[str]):
    terminal = switched_on(faults=RailFaults(replies=(fault,)))

    assert terminal.line("") == expected


def test_torn_and_merged_reports_are_not_what_they_should_be():
    faults = (ReplyFault(kind="tear_report", nth=1), ReplyFault(kind="merge_report", nth=2))
    terminal = switched_on(faults=RailFaults(replies=faults))

    torn, merged = terminal.type("?"), terminal.type("?") + terminal.type("?")

    assert "MPos:0.000,0.000,0.000" not in torn[0]
    assert len(merged) == 1
    assert merged[0].count("<") == 2


@pytest.mark.parametrize(
    ("kind", "true_mm", "counted_mm"),
    [("stall", 50.0, 102.0), ("motor_power_loss", 50.0, 102.0), ("lost_steps", 101.5, 102.0)],
)
def test_mechanical_faults_go_unnoticed_by_the_controller(kind: str, true_mm: float, counted_mm: float):
    terminal = homed()
    terminal.controller.set_faults(
        RailFaults(at=(PositionFault.model_validate({"kind": kind, "at_mm": 50, "steps": 25}),))
    )

    terminal.line("G91G1X100F2400", wait_s=5.0)

    assert terminal.true_mm() == pytest.approx(true_mm, abs=1e-6)
    assert terminal.x_mm() + 400 == counted_mm


def test_a_slipping_belt_loses_its_share_of_the_way():
    terminal = homed()
    terminal.controller.set_faults(RailFaults(slip_fraction=0.01))

    terminal.line("G91G1X100F2400", wait_s=5.0)

    assert terminal.true_mm() == pytest.approx(2 + 99)


def test_a_brown_out_in_motion_prints_a_banner_and_forgets_the_position():
    terminal = homed()
    terminal.controller.set_faults(RailFaults(at=(PositionFault(kind="reset", at_mm=50),)))

    lines = terminal.line("G91G1X100F2400", wait_s=5.0)

    assert "Grbl 1.1h ['$' for help]" in lines
    assert terminal.true_mm() == pytest.approx(50.0)
    assert terminal.x_mm() == 0.0


def test_a_frozen_controller_finishes_the_move_and_says_nothing():
    terminal = homed()
    terminal.controller.set_faults(RailFaults(at=(PositionFault(kind="freeze", at_mm=50),)))

    terminal.line("G91G1X100F2400", wait_s=5.0)

    assert terminal.type("?", wait_s=1.0) == []
    assert terminal.true_mm() == pytest.approx(102.0)


def test_a_glitch_on_the_limit_input_alarms_without_a_pin():
    terminal = homed()
    terminal.controller.set_faults(RailFaults(at=(PositionFault(kind="limit_glitch", at_mm=50),)))

    assert "ALARM:1" in terminal.line("G91G1X100F2400", wait_s=5.0)
    terminal.type("\x18")
    assert "Pn" not in terminal.status()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("merge_ok", "okok\r\n"),
        ("nul", "\0" * 12 + "ok\r\nok\r\n"),
        ("overlong", "x" * 65_536 + "\r\nok\r\nok\r\n"),
    ],
)
def test_lines_that_no_strict_reader_takes(kind: str, expected: str):
    """64 KiB take 5.7 s at 115200 baud."""
    terminal = switched_on(faults=RailFaults.model_validate({"replies": [{"kind": kind, "nth": 1}]}))

    terminal.controller.receive(b"\n\n", terminal.t_s)

    assert terminal.controller.transmit(terminal.t_s + 8.0).decode() == expected


def test_garbage_comes_in_front_of_an_ok_and_hides_nothing():
    terminal = switched_on(faults=RailFaults(replies=(ReplyFault(kind="garbage", nth=1),)))

    terminal.controller.receive(b"\n", terminal.t_s)
    data = terminal.controller.transmit(terminal.t_s + 1.0)

    assert data.endswith(b"\r\nok\r\n")
    assert len(data) == 12 + 2 + 4


def test_a_fault_of_lines_can_come_again_and_again():
    """The second and every third after it: 2, 5 and 8 of 9 are lost."""
    terminal = failing(replies=[{"kind": "drop_report", "nth": 2, "every": 3}])

    came = [bool(terminal.type("?", wait_s=0.02)) for _ in range(9)]

    assert [i for i, here in enumerate(came, 1) if not here] == [2, 5, 8]


def test_late_answers_do_not_slow_the_firmware_down():
    terminal = failing(answer_delay_s=0.5)

    early = terminal.line("G91G1X10F2400", wait_s=0.45)
    moving_mm = terminal.true_mm()

    assert early == []
    assert moving_mm > 10
    assert terminal.run(0.1) == ["ok"]


def test_an_echo_repeats_every_byte_before_the_answer():
    terminal = failing(echo=True)

    assert terminal.line("G21") == ["G21\nok"]


def test_bytes_lost_on_the_way_change_what_is_executed():
    """Every seventh byte is lost: of 12 mm, 2 are left."""
    terminal = failing(lose_every=7)

    assert terminal.line("G91G1X12F120", wait_s=2.0) == ["ok"]
    assert terminal.true_mm() == pytest.approx(2 + 2)


def test_a_small_receive_buffer_overflows_early():
    terminal = failing(rx_bytes=16)
    terminal.type("!")

    terminal.type("G4P0\n" * 6)

    assert terminal.type("~", wait_s=1.0) == ["ok"] * 3, "16 bytes hold three lines and one letter"


def test_a_long_blackout_loses_what_comes_while_a_setting_is_written():
    terminal = failing(eeprom_blackout_s=0.5)
    terminal.controller.receive(b"$1=254\n", terminal.t_s)

    terminal.run(0.1)

    assert terminal.type("$G\n?", wait_s=0.5) == ["ok"]
    assert terminal.line("$G")[-1] == "ok"


def test_a_controller_that_freezes_for_a_while_answers_again_and_has_moved_on():
    terminal = failing(at=[{"kind": "freeze", "at_mm": 20, "for_s": 1.0}])
    terminal.line(MOVE, wait_s=0.7)

    frozen = terminal.type("?", wait_s=0.4)
    terminal.run(0.6)

    assert frozen == []
    assert terminal.status()["state"] == "Run"
    assert terminal.x_mm() + 400 == pytest.approx(terminal.true_mm(), abs=1.0)


def test_power_that_comes_back_brings_a_banner_and_no_position():
    terminal = failing(at=[{"kind": "power_loss", "at_mm": 50, "for_s": 2.0}])
    terminal.line(MOVE, wait_s=2.0)

    dead = terminal.type("?", wait_s=1.0)
    lines = terminal.run(3.0)

    assert dead == []
    assert BANNER in lines
    assert terminal.true_mm() == pytest.approx(50.0)
    assert terminal.x_mm() == 0.0


def test_motor_power_fails_while_reports_go_on():
    terminal = failing(at=[{"kind": "motor_power_loss", "at_mm": 50}])
    terminal.line(MOVE, wait_s=1.5)

    counted, true = terminal.x_mm() + 400, terminal.true_mm()

    assert terminal.status()["state"] == "Run"
    assert true == pytest.approx(50.0)
    assert counted > 55


@pytest.mark.parametrize("kind", ["reset", "limit_glitch", "freeze", "stall"])
def test_faults_strike_by_the_clock_too(kind: str):
    """0.5 s after the start at 40 mm/s and 200 mm/s² the carriage is 4 + 12 mm along (0.2 s of ramp)."""
    terminal = failing(timed=[{"kind": kind, "after_s": 0.5}])
    before_mm = terminal.true_mm()

    lines = terminal.line(MOVE, wait_s=4.0)
    way_mm = terminal.true_mm() - before_mm

    assert way_mm == pytest.approx(100.0 if kind == "freeze" else 16.0, abs=0.2)
    assert ("ALARM:1" in lines) is (kind == "limit_glitch")
    assert (BANNER in lines) is (kind == "reset")


def test_a_speed_that_drifts_goes_uncounted():
    """1 % per second: after 2.5 s of 40 mm/s, 40 · 0.01 · 2.5² / 2 = 1.25 mm are missing, less the ramps' share."""
    terminal = failing(speed_drift_per_s=0.01)
    begin_s = terminal.t_s

    terminal.line(MOVE, wait_s=4.0)
    t_s = np.array([begin_s + 0.5, begin_s + 2.0])
    early, late = terminal.controller.velocity_mm_s(t_s)

    assert terminal.x_mm() == -298.0
    assert 102 - terminal.true_mm() == pytest.approx(1.35, abs=0.15)
    assert (early - late) / 40 == pytest.approx(0.015, abs=1e-4)


def test_a_switch_that_never_trips_fails_homing_with_alarm_9():
    terminal = switched_on(HOMED, faults=RailFaults(home_switch="stuck_open"))

    lines = terminal.line("$H", wait_s=60.0)

    assert lines[0] == "ALARM:9"
    assert "Pn" not in terminal.status()


def test_a_stuck_switch_trips_the_hard_limit_and_stays_in_the_reports():
    terminal = failing(home_switch="stuck_closed")

    lines = terminal.run(1.0)
    greeting = terminal.type("\x18", wait_s=0.2)

    assert lines == ["ALARM:1", "[MSG:Reset to continue]"]
    assert "[MSG:Check Limits]" in greeting
    assert terminal.status()["Pn"] == "X"
    assert terminal.line("$H", wait_s=30.0)[0] == "ALARM:8"


def test_a_bouncing_switch_trips_again_when_it_opens():
    """On the real board any change of the pin is an interrupt: crawling off the switch is an alarm of its own."""
    terminal = switched_on({21: 1, 22: 0}, faults=RailFaults(home_switch="bouncing"))
    pressed = terminal.line("G91G1X-15F600", wait_s=3.0)
    terminal.type("\x18", wait_s=0.2)

    terminal.line("$X")
    leaving = terminal.line("G91G1X5F300", wait_s=3.0)

    assert "ALARM:1" in pressed
    assert leaving == ["ok", "ALARM:1", "[MSG:Reset to continue]"]
    assert terminal.true_mm() == pytest.approx(0.0, abs=2e-3)


def test_motor_noise_trips_the_limit_input_without_a_pin_to_show():
    """Every 30 mm of the rail: on the way from 2 mm up it strikes at 30 mm."""
    terminal = failing(limit_noise_mm=30.0)

    lines = terminal.line(MOVE, wait_s=4.0)
    terminal.type("\x18", wait_s=0.2)

    assert "ALARM:1" in lines
    assert terminal.true_mm() == pytest.approx(30.0)
    assert "Pn" not in terminal.status()


def test_noise_does_nothing_with_hard_limits_off():
    terminal = failing(limit_noise_mm=30.0)
    terminal.line("$21=0")

    terminal.line(MOVE, wait_s=4.0)

    assert terminal.true_mm() == pytest.approx(102.0)


def test_setting_no_faults_mends_everything():
    terminal = failing(echo=True, slip_fraction=0.1, timed=[{"kind": "freeze", "after_s": 0.0}])
    terminal.line(MOVE, wait_s=4.0)

    terminal.controller.set_faults(RailFaults())

    assert terminal.line("G21") == ["ok"]
    assert terminal.true_mm() == pytest.approx(2.0), "a frozen controller has taken nothing"


def test_faults_are_checked_documents():
    with pytest.raises(ValidationError, match="kind"):
        RailFaults.model_validate({"at": [{"kind": "earthquake", "at_mm": 5}]})
    with pytest.raises(ValidationError):
        RailFaults.model_validate({"speed": 3})


def test_a_port_that_vanishes_comes_back_under_its_name_with_the_power_lost():
    """Unplugged in motion for 0.3 s; the client must open it again."""
    controller = GrblController(settings={10: 3, 22: 0}, t_s=0.0)
    with served(controller) as path:
        stranger = Stranger(path)
        stranger.until(lambda lines: BANNER in lines)
        stranger.tell("G91G1X50F1200")
        controller.set_faults(RailFaults(timed=(TimedFault(kind="vanish", after_s=0.1, for_s=0.3),)))

        with pytest.raises(OSError, match=r"reads? |Input/output"):
            stranger.until(lambda _: False)
        stranger.close()
        gone = not Path(path).exists()
        wait_for(Path(path))
        again = Stranger(path)
        lines = again.until(lambda lines: BANNER in lines)
        report = again.report()
        again.close()

    assert gone
    assert lines[-1] == BANNER
    assert report["MPos"] == "0.000,0.000,0.000"


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_simulated_rig_takes_faults_while_it_runs(tmp_path: Path):
    """The process that a session talks to obeys the same document on its stdin."""
    profile = RigProfile.load(str(write_profile(tmp_path)))
    request = {
        "profile": profile.model_dump(mode="json", by_alias=True),
        "scene": "shelf",
        "photos": None,
        "data": str(tmp_path),
        "origin_s": time.monotonic(),
        "rate": 4.0,
    }
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "rig.sim"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as rig:
        assert rig.stdin is not None
        assert rig.stdout is not None

        def exchange(document: dict[str, Any]) -> dict[str, Any]:
            rig.stdin.write(json.dumps(document) + "\n")
            rig.stdin.flush()
            return json.loads(rig.stdout.readline())

        path = exchange(request)["rail"]
        stranger = Stranger(path)
        stranger.until(lambda lines: BANNER in lines, timeout_s=30)
        stuck = exchange({"rail_faults": {"home_switch": "stuck_closed"}})
        pins = stranger.report()["Pn"]
        refused = exchange({"rail_faults": {"home_switch": "bent"}})
        stranger.close()
        rig.stdin.close()

    assert "error" not in stuck
    assert pins == "X"
    assert "home_switch" in refused["error"]


REALISTIC = st.sampled_from(
    [
        *("$H\n", "$X\n", "$$\n", "$#\n", "$G\n", "$I\n", "$N\n", "$C\n", "$SLP\n", "$RST=*\n", "$100=50\n"),
        *(
            "$120=0\n",
            "$110=0\n",
            "$100=0\n",
            "$12=0\n",
            "$12=9\n",
            "$27=0\n",
            "$21=1\n",
            "$20=1\n",
            "$30=0\n",
        ),
        *("G0X5\n", "G91G1X-3F600\n", "G2X5Y5I2J2F100\n", "G3X1I9\n", "G38.2X4F50\n", "G93G1X1F9\n", "M0\n"),
        *(
            "G28\n",
            "G28.1\n",
            "G92X3\n",
            "G10L20P1X0\n",
            "M3S10\n",
            "M8\n",
            "M30\n",
            "G4P.1\n",
            "$J=G91X3F99\n",
        ),
        *(
            "$J=F50\n",
            "X1E5\n",
            "G0X1" + "9" * 70 + "\n",
            "$N0=G0X1\n",
            "\r\n",
            "!",
            "~",
            "?",
            "\x18",
            "\x84",
        ),
    ]
)
RAW = st.binary(min_size=1, max_size=40).map(lambda data: data.decode("latin-1"))


@settings(max_examples=250 * NIGHTLY, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(st.tuples(st.one_of(REALISTIC, RAW), st.floats(0, 0.4)), max_size=25),
    seed=st.integers(0, 999),
)
def test_no_bytes_make_the_controller_fall_over(pieces: list[tuple[str, float]], seed: int):
    """Whatever comes: no exception, bounded buffers, and a reset brings the banner back."""
    controller = GrblController(settings={10: 3, **HOMED}, seed=seed)
    terminal = Terminal(controller)

    for text, wait_s in pieces:
        terminal.type(text, wait_s=wait_s)
    terminal.type("\x18", wait_s=0.8)
    greeting = terminal.type("\x18", wait_s=0.8)

    assert BANNER in greeting
    assert terminal.type("\x18?", wait_s=0.3)[-1].startswith(("<", "[MSG", BANNER))
    assert len(controller._machine.uart.received) <= 128
    assert controller.backlog == 0


def test_a_flood_keeps_every_buffer_small():
    """A megabit of empty lines and questions at line speed: the firmware falls behind and loses, as the real one."""
    terminal = switched_on({22: 0})
    machine = terminal.controller._machine

    most = 0
    for _ in range(200):
        terminal.controller.receive(b"\n" * 100 + b"?", terminal.t_s)
        terminal.run(101 * 87e-6)
        most = max(most, len(machine.uart._outgoing))

    assert machine.uart.lost_bytes > 5_000
    assert most < 60, "104 bytes of ok make 26 lines"


def test_a_long_life_does_not_fill_the_memory():
    """The trajectory keeps its last 100,000 pieces; older times read as where that history begins."""
    terminal = switched_on({22: 0, 100: 50})
    log = terminal.controller._machine.carriage.log

    for start in range(0, 130_000, 1000):
        log.rewrite(
            1e6 + start,
            [log.from_time(1e6 + start)[-1].__class__(1e6 + start + k, 5.0, 0.0, 0.0) for k in range(1000)],
        )

    assert len(log._rows) <= 100_000
    assert len(log._rows) == len(log._times)
    assert all(a <= b for a, b in pairwise(log._times))
    assert float(log.evaluate(np.array(0.0))[0]) == pytest.approx(5.0)
