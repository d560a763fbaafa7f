"""A rail driven through a wire that lies: what the driver believes is compared with the controller's truth."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from motion_judge import MotionJudge, Rail
from serial_proxy import FuzzedWire, LineFuzzer

from catalog.session_folder import SweepRecord
from rig.devices.grbl_rail import GrblRail, GrblSettings
from rig.devices.rail import RailPoll
from rig.errors import RigError
from rig.sim.grbl import GrblController
from rig.testing import FakeClock

SETTINGS = GrblSettings(
    kind="grbl",
    port="fuzzed",
    travel_mm=(0, 400),
    max_velocity_mm_s=120,
    max_acceleration_mm_s2=300,
    acceleration_mm_s2=200,
)
MACHINE = Rail(lower_mm=-400, upper_mm=0, max_feed_mm_min=7200, max_acceleration_mm_s2=300)
REPLY_S = 0.011
"""From a question to the end of its answer: 5 ms until the firmware looks, 66 characters of 87 µs. When in between the
position was true is not known, so that a digit may lie by as much either way."""
STEP_MM = 0.0215
"""A step, and the rounding of the print."""
LAG_S = 0.08
RAMP_MM = 200 * LAG_S**2 / 2 + STEP_MM
"""On a ramp, besides: reported speeds run 80 ms ahead of the carriage, which leaves a triangle of 0.64 mm."""
HOMING_S = 20.0
LONGEST_COMMAND_S = 60.0
"""Session time: homing 400 mm at 50 mm/s and its retries, with every deadline of the driver exhausted."""


@dataclass
class FuzzResult:
    """What a seed led to."""

    seed: int
    lines: int = 0
    spoiled: Counter[str] = field(default_factory=Counter)
    commands: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    readings: int = 0
    wrong: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    largest_buffer: int = 0
    cpu_s: float = 0.0


class WatchedRail(GrblRail):
    """A rail whose readings are kept where it believes in them."""

    seen: list[RailPoll]

    def poll(self) -> RailPoll:
        reading = super().poll()
        if self.homed:
            self.seen.append(reading)
        return reading


class FuzzBench:
    """One seed: controller, liar, driver, and the comparison.

    Args:
        seed: Everything random follows from it.
        share: Of the answers that are spoiled.
    """

    def __init__(self, seed: int, *, share: float = 0.2) -> None:
        self.result = FuzzResult(seed)
        self.random = random.Random(seed)
        self.clock = FakeClock()
        self.controller = GrblController(seed=seed)
        self.judge = MotionJudge(MACHINE)
        self.wire = FuzzedWire(self.controller, self.clock, LineFuzzer(seed, share=share), self.judge)
        self.rail = WatchedRail(SETTINGS, self.clock, self.wire)
        self.rail.seen = []
        self.rail.open()
        self.wire.active = True

    def run(self, spoiled: int) -> FuzzResult:
        """Command at random until so many lines were spoiled."""
        begin_s = time.process_time()
        while self.wire.fuzzer.spoiled.total() < spoiled:
            self._command()
        result = self.result
        result.lines, result.spoiled = self.wire.fuzzer.lines, self.wire.fuzzer.spoiled
        result.violations, result.largest_buffer = self.judge.violations, self.wire.largest_buffer
        result.cpu_s = time.process_time() - begin_s
        return result

    def _command(self) -> None:
        """Give one command; at most its own target may reach the controller, at most once."""
        name, targets_mm = self._choose()
        begin_s, before = self.clock.now(), len(self.judge.targets_mm)
        self.result.commands += 1
        try:
            self._obey(name, targets_mm)
        except RigError as error:
            self.result.failed[f"{name}: {type(error).__name__}"] += 1
        sent = [round(x + 400, 3) for x in self.judge.targets_mm[before:]]
        if sent != targets_mm[: len(sent)]:
            self.result.stray.append(f"{name} {targets_mm} sent {sent}")
        took_s = self.clock.now() - begin_s
        self.result.longest_s = max(self.result.longest_s, took_s)
        if took_s > LONGEST_COMMAND_S:
            self.result.hangs.append(f"{name} took {took_s:.0f} s")
        self._compare()

    def _choose(self) -> tuple[str, list[float]]:
        if not self.rail.homed:
            return "recover", []
        a_mm, b_mm = (round(self.random.uniform(30, 370), 2) for _ in range(2))
        name = self.random.choice(["move", "move", "sweep", "sweep", "stop", "emergency", "rest"])
        if name in {"move", "stop"}:
            return name, [a_mm]
        if name == "sweep" and abs(a_mm - b_mm) > 1:
            away = 9.0 if b_mm > a_mm else -9.0  # 4 mm of ramp at 40 mm/s, 5 mm of margin
            return name, [round(a_mm - away, 3), round(b_mm + away, 3)]
        return ("rest" if name == "sweep" else name), []

    def _obey(self, name: str, targets_mm: list[float]) -> None:
        rail = self.rail
        if name == "recover":
            rail.clear_fault()
            rail.home(timeout_s=HOMING_S)
        elif name == "move":
            self._clear_hold()
            rail.move_to(targets_mm[0], velocity_mm_s=self.random.uniform(10, 120))
        elif name == "sweep":
            self._clear_hold()
            self._sweep(targets_mm)
        elif name == "stop":
            self._clear_hold()
            self._stop_on_the_way(targets_mm[0])
        elif name == "emergency":
            rail.emergency_stop()
        else:
            for _ in range(10):
                rail.poll()
                self.clock.sleep(0.1)

    def _clear_hold(self) -> None:
        self.rail.clear_fault()

    def _sweep(self, targets_mm: list[float]) -> None:
        away = 9.0 if targets_mm[1] > targets_mm[0] else -9.0
        sweep = SweepRecord(
            start_mm=targets_mm[0] + away,
            end_mm=targets_mm[1] - away,
            velocity_mm_s=40,
            acceleration_mm_s2=200,
        )
        self.rail.prepare(sweep)
        self.rail.kickoff(sweep)
        self.rail.complete(timeout_s=15.0)

    def _stop_on_the_way(self, target_mm: float) -> None:
        """Press stop at a random poll of a move."""
        presses = self.random.randint(1, 20)
        poll = self.rail.poll

        def press() -> RailPoll:
            nonlocal presses
            presses -= 1
            if presses == 0:
                self.rail.stop()
            return poll()

        self.rail.poll = press  # type: ignore[method-assign]
        try:
            self.rail.move_to(target_mm)
        finally:
            del self.rail.poll  # type: ignore[method-assign]

    def _compare(self) -> None:
        """Compare what was believed with where the carriage was between the question and the answer."""
        self.controller.advance(self.clock.now())
        for reading in self.rail.seen:
            self._compare_one(reading)
        self.rail.seen.clear()

    def _compare_one(self, reading: RailPoll) -> None:
        self.result.readings += 1
        t = np.linspace(reading.t_request_s - REPLY_S, reading.t_reply_s + REPLY_S, 9)
        true_mm = self.controller.position_mm(t)
        slack_mm = RAMP_MM if self._ramps_about(reading) else STEP_MM
        if not true_mm.min() - slack_mm <= reading.position_mm <= true_mm.max() + slack_mm:
            self.result.wrong.append(
                f"{reading.position_mm:.3f} mm where {true_mm.min():.3f} to {true_mm.max():.3f} was true, {reading}"
            )

    def _ramps_about(self, reading: RailPoll) -> bool:
        t = np.linspace(reading.t_request_s - LAG_S, reading.t_reply_s + LAG_S, 33)
        return bool(np.ptp(self.controller.velocity_mm_s(t)) > 0)


def fuzz(seed: int, spoiled: int) -> FuzzResult:
    """Run one seed."""
    return FuzzBench(seed).run(spoiled)
