"""The runner at its safe points and in trouble: whole sessions on the simulated rig, faults set in its profile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from session_checker import is_complete, violations
from small_rig import write_plan, write_profile

from catalog.session_folder import SessionFolder, SessionRecord
from rig.assembly import Rig
from rig.control import Operator, SessionControl
from rig.errors import SessionInterruptedError
from rig.events import Answer, AnyEvent, Motion, OperatorCard, TakeFinished
from rig.plan import CapturePlan
from rig.profile import RigProfile
from rig.runner import SessionRunner
from rig.session import SessionRecorder

pytestmark = pytest.mark.timeout(300)

ROUNDS = [
    {"name": "gt", "role": "gt", "velocity_mm_s": 20},
    {"name": "dark", "role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
]
BOARDS_DECODE = {"width": 640, "height": 384}
"""At the small rig's usual size the modules of its boards are too small to be decoded."""
STEPS_PER_MM = 50
"""Of the simulated controller as delivered."""


@dataclass
class ScriptedOperator:
    """Answers cards by what it was told, and keeps them."""

    answers: dict[str, Answer]
    cards: list[OperatorCard] = field(default_factory=list)

    def ask(self, card: OperatorCard) -> Answer:
        self.cards.append(card)
        return self.answers[card.kind]


@dataclass
class Session:
    """A session being recorded in this process."""

    rig: Rig
    recorder: SessionRecorder
    folder: SessionFolder
    control: SessionControl = field(default_factory=SessionControl)
    events: list[AnyEvent] = field(default_factory=list)
    on_event: Callable[[AnyEvent], None] = lambda event: None

    def run(self, operator: Operator | None = None) -> None:
        SessionRunner(self.rig, self.recorder, emit=self._note, control=self.control, operator=operator).run()

    def _note(self, event: AnyEvent) -> None:
        self.events.append(event)
        self.on_event(event)

    @property
    def takes(self) -> list[tuple[str, int, str]]:
        return [(t.round.name, t.number, t.state) for t in self.folder.takes()]

    def reason(self, name: str, number: int) -> str:
        return next(t.reason for t in self.folder.takes() if (t.round.name, t.number) == (name, number))


@contextmanager
def session(
    folder: Path, *, guards: dict[str, Any] | None = None, longest_h: float = 24.0, **simulation: Any
) -> Iterator[Session]:
    """Open a rig with ``simulation`` changes and a new session of two rounds on it."""
    plan_path = write_plan(
        folder,
        sweep={"start_mm": 30, "end_mm": 60, "velocity_mm_s": 30},
        rounds=ROUNDS,
        guards=guards or {"on_fail": "warn"},
        longest_h=longest_h,
    )
    plan, profile = (
        CapturePlan.load(plan_path),
        RigProfile.load(str(write_profile(folder, **{"rate": 3, **simulation}))),
    )
    record = SessionRecord(
        session="s1",
        scene=plan.scene,
        created_utc_us=1,
        source="captured",
        rig=profile.name,
        simulated=True,
        cameras=("main",),
        boards=profile.boards,
        lens=profile.lens,
        rounds=plan.round_records(acceleration_mm_s2=profile.rail.acceleration_mm_s2),
        plan=plan.model_dump(mode="json", by_alias=True),
        profile=profile.model_dump(mode="json", by_alias=True),
    )
    with (
        Rig(profile, scene=plan.scene, data=folder) as rig,
        SessionRecorder.create(folder / "sessions", record, rig.clock) as recorder,
    ):
        yield Session(rig, recorder, SessionFolder(recorder.folder))


def saved(events: list[AnyEvent]) -> list[dict[str, Any]]:
    return [e.model_dump() for e in events if e.event == "saved"]


def test_lost_steps_are_found_by_the_boards_and_the_round_is_recorded_again_after_homing(tmp_path):
    """5 mm are lost in the first sweep; the rail's own log knows nothing of them."""
    lost = {"at": [{"kind": "lost_steps", "at_mm": 45, "steps": 5 * STEPS_PER_MM}]}
    operator = ScriptedOperator({"retake": Answer(choice="retake", by="tests")})

    with session(tmp_path, rail_faults=lost, **BOARDS_DECODE) as bench:
        bench.run(operator)

    assert [c.kind for c in operator.cards] == ["retake"]
    assert bench.takes == [("gt", 1, "void"), ("gt", 2, "valid"), ("dark", 1, "valid")]
    assert bench.reason("gt", 1).startswith("spoiled: ")
    acts = [r.get("act") for r in bench.folder.journal().rows if r.kind == "intent"]
    assert acts.count("home") == 2
    assert violations(bench.folder.path, saved(bench.events)) == []


def test_a_controller_that_restarts_in_motion_ends_the_session_resumably_and_unlocks_nothing(tmp_path):
    with session(tmp_path, rail_faults={"at": [{"kind": "reset", "at_mm": 45}]}) as bench:
        with pytest.raises(SessionInterruptedError) as caught:
            bench.run()

        assert not bench.rig.rail.homed

    assert bench.takes == [("gt", 1, "void")]
    assert "rig record --session s1" in str(caught.value)
    acts = [r.get("act") for r in bench.folder.journal().rows if r.kind == "intent"]
    assert "clear_hold" not in acts
    assert violations(bench.folder.path, saved(bench.events)) == []


def test_a_camera_that_goes_away_and_comes_back_costs_one_take(tmp_path):
    gone = {"vanishes_at": "stop_movie", "returns_after_s": 1.0}

    with session(tmp_path, camera_faults=gone) as bench:
        bench.run()

    assert bench.takes == [("gt", 1, "void"), ("gt", 2, "valid"), ("dark", 1, "valid")]
    assert "camera main is gone" in bench.reason("gt", 1)
    assert is_complete(bench.folder.path)


def test_pause_twice_ends_the_take_and_redo_makes_a_new_one(tmp_path):
    """The first round is held in its sweep; once it is recorded it is asked for again, so the third take stands."""
    with session(tmp_path) as bench:

        def steer(event: AnyEvent) -> None:
            if isinstance(event, Motion) and not any(isinstance(e, TakeFinished) for e in bench.events):
                bench.control.pause()
                bench.control.pause()
            elif isinstance(event, TakeFinished) and (event.take, event.state) == (1, "void"):
                threading.Timer(0.3, bench.control.proceed).start()
            elif isinstance(event, TakeFinished) and (event.round, event.take) == ("gt", 2) and event.frames:
                bench.control.redo("gt")

        bench.on_event = steer
        bench.run()

    assert bench.takes == [
        ("gt", 1, "void"),
        ("gt", 2, "void"),
        ("gt", 3, "valid"),
        ("dark", 1, "valid"),
    ]
    assert bench.reason("gt", 2) == "superseded"
    assert "stopped by the operator" in bench.reason("gt", 1)


def test_finish_ends_after_the_take_and_the_session_resumes(tmp_path):
    with session(tmp_path) as bench:
        bench.on_event = lambda e: bench.control.finish() if isinstance(e, Motion) else None
        with pytest.raises(SessionInterruptedError):
            bench.run()
        assert bench.takes == [("gt", 1, "valid")]
        bench.control, bench.on_event = SessionControl(), lambda event: None

        bench.run()

    assert is_complete(bench.folder.path)
    assert violations(bench.folder.path, saved(bench.events)) == []


def test_a_session_ends_resumably_when_its_longest_time_is_over(tmp_path):
    """4 ms are over before the carriage is at the start of the first round."""
    with session(tmp_path, longest_h=1e-6) as bench:
        with pytest.raises(SessionInterruptedError, match="its longest time of 1e-06 h is over") as caught:
            bench.run()

    assert bench.takes == []
    assert "rig record --session s1" in caught.value.next_step


def test_a_guard_that_holds_asks_a_person_for_a_reason_and_ends_where_there_is_none(tmp_path):
    low = {"battery_percent": 5}
    reason = Answer(choice="go-on", reason="mains power is on its way", by="tests")

    with session(
        tmp_path, guards={"on_fail": "warn", "actions": {"battery": "hold"}}, camera_faults=low
    ) as bench:
        with pytest.raises(SessionInterruptedError, match="battery at 5 %"):
            bench.run()
        assert bench.takes == []

        bench.run(ScriptedOperator({"guard": reason}))

    assert is_complete(bench.folder.path)
    answers = [r for r in bench.folder.journal().rows if r.kind == "answered"]
    assert answers[-1].get("reason") == "mains power is on its way"
