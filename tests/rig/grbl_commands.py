"""Random commands for a rail, sane and insane, and how they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from grbl_peer import InstantGrbl
from hypothesis import strategies as st
from motion_judge import MotionJudge, Rail

from catalog.session_folder import SweepRecord
from rig.devices.grbl_rail import GrblRail, GrblSettings
from rig.errors import RigError
from rig.testing import FakeClock

SETTINGS = GrblSettings(
    kind="grbl",
    port="instant",
    travel_mm=(0, 400),
    max_velocity_mm_s=120,
    max_acceleration_mm_s2=300,
    acceleration_mm_s2=200,
)
MACHINE = Rail(lower_mm=-400, upper_mm=0, max_feed_mm_min=7200, max_acceleration_mm_s2=300, end_margin_mm=5)
Command = tuple[str, float, float, float]
_EDGES = (
    0.0,
    -0.0,
    2.0,
    4.999,
    5.0,
    5.001,
    10.0,
    10.001,
    20.0,
    20.001,
    120.0,
    120.001,
    395.0,
    395.001,
    400.0,
    -1.0,
)
NUMBERS = st.one_of(
    st.floats(-50, 450),
    st.floats(-12, 12),
    st.sampled_from(_EDGES),
    st.floats(allow_nan=True, allow_infinity=True),
)
SPEEDS = st.one_of(st.floats(0.1, 130), st.just(5.0), st.just(40.0), NUMBERS)
MOTIONS = ["move", "jog", "sweep"]
STATES = ["home", "clear", "stop", "emergency", "reopen", "limit", "glitch", "brown out", "release"]
OTHERS = ["poll", "renew", "output", "lose", "refuse", "wait"]
NAMES = st.sampled_from(8 * MOTIONS + 12 * ["ready", "unlock"] + STATES + OTHERS)
"""Half of them ask for motion; where nothing brought the rail back, faults would lock it after a few."""
COMMANDS = st.tuples(NAMES, NUMBERS, NUMBERS, SPEEDS)


class CommandBench:
    """A rail on a firmware that answers at once, with the judge between them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.judge = MotionJudge(MACHINE)
        self.peer = InstantGrbl(self.clock, self.judge)
        self.rail = GrblRail(SETTINGS, self.clock, self.peer)
        self.rail.open()
        self.moved = 0
        self.refused = 0

    def give(self, commands: Sequence[Command]) -> None:
        """Give commands one after another, whatever each leads to."""
        for command in commands:
            before = len(self.judge.targets_mm)
            try:
                self._acts()[command[0]](*command[1:])
            except RigError:
                self.refused += 1
            self.moved += len(self.judge.targets_mm) > before

    def _acts(self) -> dict[str, Callable[[float, float, float], object]]:
        rail, peer = self.rail, self.peer
        return {
            "move": lambda a, b, v: rail.move_to(a, velocity_mm_s=v),
            "jog": lambda a, b, v: rail.jog(a, velocity_mm_s=v),
            "sweep": self._sweep,
            "home": lambda a, b, v: rail.home(timeout_s=60.0),
            "clear": lambda a, b, v: rail.clear_fault(),
            "ready": lambda a, b, v: self._recover(home=True),
            "unlock": lambda a, b, v: self._recover(home=False),
            "poll": lambda a, b, v: rail.poll(),
            "renew": lambda a, b, v: rail.renew_jog(),
            "stop": lambda a, b, v: rail.stop(),
            "emergency": lambda a, b, v: rail.emergency_stop(),
            "output": lambda a, b, v: rail.set_output("flood" if a > b else "spindle", on=v > 5),
            "reopen": lambda a, b, v: self._reopen(),
            "limit": lambda a, b, v: peer.hit_limit(),
            "glitch": lambda a, b, v: peer.glitch(),
            "brown out": lambda a, b, v: peer.brown_out(),
            "release": lambda a, b, v: setattr(peer, "away", 0),
            "lose": lambda a, b, v: setattr(peer, "lost_answers", 1),
            "refuse": lambda a, b, v: setattr(peer, "refusals", 1),
            "wait": lambda a, b, v: self.clock.advance(1.0),
        }

    def _recover(self, *, home: bool) -> None:
        self.rail.clear_fault()
        if home:
            self.peer.away = 0
            self.rail.home(timeout_s=60.0)

    def _reopen(self) -> None:
        """Opening the port reboots the board; nobody knows which switch is pressed then."""
        self.peer.away = 0
        self.peer.power_up()
        self.rail.open()

    def _sweep(self, start_mm: float, end_mm: float, velocity_mm_s: float) -> None:
        """A record that no check has seen."""
        sweep = SweepRecord.model_construct(
            start_mm=start_mm, end_mm=end_mm, velocity_mm_s=velocity_mm_s, acceleration_mm_s2=200.0
        )
        self.rail.prepare(sweep)
        self.rail.kickoff(sweep)
        self.rail.complete(timeout_s=20.0)
