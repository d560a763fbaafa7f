"""Operators who press anything at any time: nothing moves that nobody asked for, nothing acknowledged is lost.

Random sequences of commands by several clients to one engine on the simulated rig. After each the rig is brought to
READY, and wire and disk are judged. Seven sequences of 20 steps; with CLEANPLATE_NIGHTLY=1
25 × 20 of 50.
"""

from __future__ import annotations

import os

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from operator_chaos import MACHINE, WORDS, Chaos, plan_yaml
from wire_witness import WireWitness

from rig.events import EngineMode
from rig.requests import (
    AnswerCard,
    ArmHome,
    ArmSession,
    ClearFault,
    Command,
    EndSession,
    Go,
    Jog,
    Pause,
    Proceed,
    Redo,
    TakeControl,
    WatchPreview,
)

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
SEEDS = range(25) if NIGHTLY else range(1, 2)
SEQUENCES, STEPS = (20, 50) if NIGHTLY else (7, 20)
CLIENTS = st.sampled_from([0, 0, 0, 0, 1, 2])
"""Mostly the first one, who mostly is in control."""
ANYTHING = st.integers(0, 10**6)

MISPLACED = [
    ArmHome(),
    ArmSession(),
    ArmSession(plan_yaml="schema: 1"),
    ArmSession(session="no-such-session"),
    Go(token="0" * 16),
    Jog(distance_mm=-1000, velocity_mm_s=1000),
    Pause(),
    Proceed(),
    Redo(round="no such round"),
    AnswerCard(card_id=10**6, choice="done"),
    ClearFault(),
    EndSession(now=True),
]
"""What is mostly refused; a jog that leaves the travel is taken and then not carried out."""


def stop_in_a_pause(chaos: Chaos) -> None:
    """The runner looked at the wish to pause again and again, and journaled each time."""
    chaos.ask(0, ArmSession(plan_yaml=plan_yaml("gt")))
    chaos.go(0, -1)
    chaos.ask(0, Pause())
    chaos.ask(0, Pause())
    chaos.await_mode(EngineMode.PAUSED)
    chaos.ask(0, Pause())
    chaos.stop(emergency=False)
    chaos.linger(20.0)
    assert chaos.act is None


PAST_FAILURES = (stop_in_a_pause,)
"""Stories that went wrong once; they run first."""


class ChaosMachine(RuleBasedStateMachine):
    """One sequence; `chaos` is the engine it goes on with, set by the test.

    The rig goes on by itself meanwhile, so that no rule may depend on its state: hypothesis could not repeat a
    sequence. What makes sense is therefore chosen by `press` when its turn has come.
    """

    chaos: Chaos

    @initialize()
    def somebody_takes_control(self) -> None:
        self.chaos.client(0)

    @rule(which=ANYTHING, detail=ANYTHING)
    def press(self, which: int, detail: int) -> None:
        self.chaos.press(which, detail)

    @rule(which=ANYTHING, detail=ANYTHING)
    def press_again(self, which: int, detail: int) -> None:
        self.chaos.press(which, detail)

    @rule(which=ANYTHING, detail=ANYTHING)
    def press_once_more(self, which: int, detail: int) -> None:
        self.chaos.press(which, detail)

    @rule(client=CLIENTS, command=st.sampled_from(MISPLACED))
    def misplace(self, client: int, command: Command) -> None:
        self.chaos.ask(client, command)

    @rule(client=CLIENTS, to=CLIENTS, what=st.sampled_from(["ask", "give", "watch", "part", "part", "come"]))
    def change_places(self, client: int, to: int, what: str) -> None:
        if what == "part":
            self.chaos.detach(client)
        elif what == "give":
            self.chaos.hand_over(client, to)
        elif what == "come":
            self.chaos.client(client)
        elif what == "ask":
            self.chaos.ask(client, TakeControl(), free=True)
        else:
            self.chaos.ask(client, WatchPreview(on=client == to), free=True)

    @rule(emergency=st.sampled_from([False, False, True]))
    def stop(self, emergency: bool) -> None:
        self.chaos.stop(emergency=emergency)

    @rule(duration_s=st.sampled_from([0.02, 0.1, 0.3, 1.0, 3.0]))
    def linger(self, duration_s: float) -> None:
        self.chaos.linger(duration_s)

    @rule(client=CLIENTS, chance=st.integers(0, 29))
    def shut_down(self, client: int, chance: int) -> None:
        if chance == 7:
            self.chaos.shut_down(client)

    def teardown(self) -> None:
        self.chaos.settle()


@pytest.mark.timeout(7200 if NIGHTLY else 600)
@pytest.mark.parametrize("seed", SEEDS)
def test_operators_may_press_anything_at_any_time(tmp_path, monkeypatch, seed: int):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ways = settings(
        max_examples=SEQUENCES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with Chaos(tmp_path) as chaos:
        ChaosMachine.chaos = chaos
        chaos.settle()
        for repeat in PAST_FAILURES:
            repeat(chaos)
            chaos.settle()

        run_state_machine_as_test(hypothesis.seed(seed)(ChaosMachine), settings=ways, _min_steps=STEPS)

    print(f"seed {seed}: {chaos.summary()}")
    assert chaos.witness.moves >= 2
    assert chaos.ledger.acknowledged


def test_a_motion_that_nobody_asked_for_is_noticed():
    """The witness itself: homed at -398, one jog was permitted and has ended, the next line comes from nowhere."""
    witness = WireWitness(MACHINE, WORDS, grace_s=0.0)
    home, jog = witness.begin("home"), b"$J=G90G21G53X-390.000F300.000\n"
    witness.hear_host(b"$H\n")
    witness.hear_controller(b"ok\r\n<Idle|MPos:-398.000,0,0|FS:0,0>\r\n")
    witness.end("home")
    witness.begin("jog")
    witness.hear_host(jog)
    assert home.ended_s < float("inf")
    assert witness.violations() == []
    witness.end("jog")

    witness.hear_host(jog)
    witness.hear_controller(b"<Idle|MPos:-398.000,0,0|FS:0,0>\r\n<Jog|MPos:-395.000,0,0|FS:300,0>\r\n")

    found = witness.violations()
    assert len(found) == 2
    assert found[0].startswith("nobody asked for")
    assert found[1].startswith("moved from -398.0 to -395.0 at rest")


def test_a_target_without_homing_is_noticed():
    witness = WireWitness(MACHINE, WORDS, grace_s=0.0)
    witness.begin("session")
    witness.hear_controller(b"<Idle|MPos:-398.000,0,0|FS:0,0>\r\n")

    witness.hear_host(b"G90G21G94G53G1X-300.000F1200.000\n")

    assert any("a target without homing" in wrong for wrong in witness.violations())
