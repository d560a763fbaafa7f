"""Garbage on the wire moves nothing and deceives nobody; no command, however mad, leaves the envelope.

The fast counts run always; ``CLEANPLATE_NIGHTLY=1`` runs the full ones, as `benchmarks/rig_fuzz.py` does.
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections import Counter

import pytest
from grbl_commands import COMMANDS, Command, CommandBench
from grbl_fuzz import MACHINE, SETTINGS, FuzzBench, fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from motion_judge import MotionJudge, Rail, Situation
from serial_proxy import BABBLE_BYTES, LineFuzzer, SerialProxy

from rig.clock import SessionClock
from rig.devices.grbl_rail import GrblRail
from rig.devices.wire import MAX_LINE_BYTES, LineAssembler
from rig.errors import RigError
from rig.sim.grbl import GrblController
from rig.sim.grbl_pty import GrblPty

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
COMMANDS_A_RUN = 50
RUNS = 2000 if NIGHTLY else 100
SEEDS = range(1, 21) if NIGHTLY else range(1, 3)
SPOILED_LINES = 10_000 if NIGHTLY else 2000
"""Fast: 10,000 lines a seed, of which every fifth is spoiled; nightly: 10,000 spoiled ones."""


@pytest.mark.timeout(900)
@settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(COMMANDS, min_size=COMMANDS_A_RUN, max_size=COMMANDS_A_RUN))
def test_no_command_whatever_its_numbers_sends_a_byte_beyond_the_envelope(commands: list[Command]):
    bench = CommandBench()

    bench.give(commands)

    assert bench.judge.violations == []


def test_the_commands_of_that_test_do_move_the_rail():
    """A judge that hears no motion proves nothing."""
    bench = CommandBench()
    ready: Command = ("ready", 0.0, 0.0, 0.0)

    bench.give([ready, ("move", 100.0, 0.0, 60.0), ("sweep", 60.0, 200.0, 40.0), ("jog", -3.0, 0.0, 5.0)])

    assert [round(x + 400, 3) for x in bench.judge.targets_mm] == [100.0, 51.0, 209.0, 206.0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_that_lies_causes_no_motion_no_hang_and_no_wrong_position(seed: int):
    result = fuzz(seed, SPOILED_LINES)

    assert result.wrong == []
    assert result.stray == []
    assert result.violations == []
    assert result.hangs == []
    assert result.largest_buffer <= MAX_LINE_BYTES
    assert len(result.spoiled) == 12, "every kind of lie was told"
    assert result.readings > SPOILED_LINES, "most of the time the rail was driven all the same"


def test_the_comparison_notices_a_driver_that_believes_everything():
    bench = FuzzBench(seed=1)
    carriage = bench.rail._opened()
    carriage.watch.accepts = lambda reading, *, doubtful=False: True  # type: ignore[method-assign]

    result = bench.run(1000)

    assert result.wrong


def test_a_million_bytes_without_a_line_end_cost_no_memory():
    lines = LineAssembler()
    noise = b"x" * 4096
    tracemalloc.start()

    for _ in range(BABBLE_BYTES // len(noise)):
        lines.add(noise)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    lines.add(b"ok\r\nok\r\n")

    assert peak_bytes < 100_000
    assert lines.take() == "ok", "the first one ends the noise and is part of it"
    assert lines.take() is None


RAIL = Rail(lower_mm=-400, upper_mm=0, max_feed_mm_min=7200, max_acceleration_mm_s2=300, end_margin_mm=5)
HOMED = Situation(-200.0, homed=True)
LOST = Situation(0.0, homed=False)
PRESSED = Situation(-398.0, homed=False, away=1)


@pytest.mark.parametrize(
    ("line", "situation"),
    [
        ("G90G21G94G53G1X-100.000F2400.000", HOMED),
        ("$J=G90G21G53X-190.000F7200.000", HOMED),
        ("$J=G90G21G53X-10.000F300.000", LOST),
        ("$J=G90G21G53X-378.000F300.000", PRESSED),
        ("$20=0", PRESSED),
    ],
)
def test_the_judge_lets_lawful_lines_pass(line: str, situation: Situation):
    judge = MotionJudge(RAIL)

    judge.hear(f"{line}\n?!".encode(), situation)

    assert judge.violations == []


@pytest.mark.parametrize(
    ("data", "situation"),
    [
        (b"G90G21G94G53G1X1.000F2400.000\n", HOMED),
        (b"G90G21G94G53G1X-396.000F2400.000\n", HOMED),
        (b"G90G21G94G53G1X-100.000F7201.000\n", HOMED),
        (b"G90G21G94G53G1X-100.000F0.000\n", HOMED),
        (b"G90G21G94G53G1XnanF100\n", HOMED),
        (b"G91G21G94G53G1X-100.000F100\n", HOMED),
        (b"G0X-100\n", HOMED),
        (b"G90G21G94G53G1X-100.000Y1F100\n", HOMED),
        (b"G90G21G94G53G1X-1.000F100\n", LOST),
        (b"$J=G90G21G53X-10.100F300.000\n", LOST),
        (b"$J=G90G21G53X-1.000F301.000\n", LOST),
        (b"$J=G90G21G53X-399.000F300.000\n", PRESSED),
        (b"$J=G90G21G53X-377.000F300.000\n", PRESSED),
        (b"$20=0\n", HOMED),
        (b"$110=9000\n", HOMED),
        (b"$RST=*\n", HOMED),
        (b"~", HOMED),
        (b"\x91", HOMED),
    ],
)
def test_the_judge_notices_what_must_not_be_sent(data: bytes, situation: Situation):
    judge = MotionJudge(RAIL)

    judge.hear(data, situation)

    assert judge.violations


def test_lies_over_a_real_port_neither_move_nor_hang_nor_deceive():
    """The same lies between two pseudo-terminals, accelerated; the position at the end is the commanded one."""
    clock = SessionClock(origin_s=time.monotonic(), rate=4.0)
    controller = GrblController(t_s=clock.now())
    judge = MotionJudge(MACHINE)
    targets_mm, failed = (60.0, 90.0, 40.0, 80.0), Counter[str]()
    with GrblPty(controller, clock) as pty, SerialProxy(pty.path, LineFuzzer(7, share=0.1), judge) as proxy:
        rail = GrblRail(SETTINGS.model_copy(update={"port": proxy.path}), clock)
        rail.open()
        rail.home(timeout_s=60.0)
        proxy.active = True
        for target_mm in targets_mm:
            try:
                rail.move_to(target_mm)
            except RigError as error:
                failed[type(error).__name__] += 1
        proxy.active = False
        homed = rail.homed
        position_mm = rail.poll().position_mm if homed else None
        true_mm = controller.position_mm(controller._machine.now_s)
        rail.close()

    sent = [round(x + 400, 3) for x in judge.targets_mm]
    assert judge.violations == []
    assert sent == [x for x in targets_mm if x in sent], "each at most once, in order"
    assert sum(failed.values()) + len(sent) >= len(targets_mm)
    assert proxy.fuzzer.spoiled.total() > 0
    assert not homed or position_mm == pytest.approx(float(true_mm), abs=0.05)
