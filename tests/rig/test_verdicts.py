"""What becomes of a take: the operator is asked in the order that makes sense, and answers count only with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from catalog.session_folder import RoundRecord, SessionRecord
from rig.clock import SessionClock
from rig.errors import DeviceTimeoutError, GuardError
from rig.events import Answer, AnyEvent, OperatorCard, TakeFinding, Warned
from rig.guards import TakeNumbers, TakeReport
from rig.plan import CapturePlan
from rig.session import SessionRecorder
from rig.verdicts import SessionJudge

GT = RoundRecord(number=1, name="gt", role="gt")
DARK = RoundRecord(number=2, name="dark", role="external")
PLAN: dict[str, Any] = {
    "schema": 1,
    "scene": "shelf",
    "sweep": {"start_mm": 30, "end_mm": 60, "velocity_mm_s": 30},
    "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
    "rounds": [
        {"name": "gt", "role": "gt"},
        {"name": "dark", "role": "external", "conditions": {"light": "blocked"}},
    ],
}
SPOILED = TakeFinding(what="position", verdict="spoiled", text="stands 2.0 mm off")
GOOD = TakeFinding(what="position", verdict="ok", text="stands 0.0 mm off")


@dataclass
class Bench:
    """A judge whose live check says what the test tells it to, and an operator who answers as told."""

    plan: dict[str, Any]
    recorder: SessionRecorder
    findings: list[TakeFinding] = field(default_factory=list)
    numbers: TakeNumbers = field(default_factory=TakeNumbers)
    hangs: bool = False
    answers: list[Answer] = field(default_factory=list)
    cards: list[OperatorCard] = field(default_factory=list)
    events: list[AnyEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.judge = SessionJudge(
            self.recorder,
            CapturePlan.model_validate(self.plan),
            check=self,  # type: ignore[arg-type]
            operator=self,
            emit=self.events.append,
            clock=SessionClock(),
        )

    def begin(self, round_name: str, take: int) -> Future[TakeReport]:
        checked: Future[TakeReport] = Future()
        if self.hangs:
            checked.set_exception(DeviceTimeoutError("no answer within 120 s"))
        else:
            checked.set_result(
                TakeReport(round=round_name, take=take, findings=tuple(self.findings), numbers=self.numbers)
            )
        return checked

    def ask(self, card: OperatorCard) -> Answer:
        self.cards.append(card)
        return self.answers.pop(0)

    def decide(self, round_: RoundRecord, take: int):
        self.judge.begin(round_, take)
        return self.judge.next_verdict(require_free=lambda: None)


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    plan = {**PLAN, **getattr(request, "param", {})}
    record = SessionRecord(
        session="s1", scene="shelf", created_utc_us=1, source="captured", rig="none", simulated=True,
        cameras=("main",), boards=(), rounds=(GT, DARK),
    )  # fmt: skip
    with SessionRecorder.create(tmp_path / "sessions", record, SessionClock()) as recorder:
        yield Bench(plan, recorder)


def retake(**answer: Any) -> Answer:
    return Answer(choice="retake", by="tests", **answer)


def test_a_good_take_is_kept_and_nobody_is_asked(bench: Bench):
    bench.findings = [GOOD]

    verdict = bench.decide(DARK, 1)

    assert verdict.keep
    assert bench.cards == []


def test_a_spoiled_take_is_offered_for_a_retake_first_and_homing_comes_before_it(bench: Bench):
    bench.findings, bench.answers = [SPOILED], [retake()]

    verdict = bench.decide(DARK, 1)

    assert (verdict.keep, verdict.home_first) == (False, True)
    assert verdict.reason == "position: stands 2.0 mm off"
    assert [c.name for c in bench.cards[0].choices] == ["retake", "keep", "end"]
    assert bench.cards[0].text == verdict.reason


@pytest.mark.parametrize(("round_", "first"), [(DARK, "keep"), (GT, "end")], ids=["dark", "gt"])
def test_after_a_retake_that_did_not_help_going_on_means_something_else(
    bench: Bench, round_: RoundRecord, first: str
):
    """Nobody attends: the first choice is taken. A ground truth is worth ending for, a degraded round is not."""
    bench.findings, bench.answers = [SPOILED], [retake(), retake()]

    bench.decide(round_, 1)
    bench.decide(round_, 2)

    assert bench.cards[1].choices[0].name == first
    assert ("the ground truth may be what is off" in bench.cards[1].text) == (round_ is DARK)


def test_a_first_spoiled_take_is_kept_only_with_a_reason(bench: Bench):
    bench.findings = [SPOILED]
    bench.answers = [
        Answer(choice="keep", by="tests", reason="the shelf was moved on purpose"),
        Answer(choice="keep", by="tests", reason="  "),
    ]

    assert bench.decide(GT, 1).keep
    with pytest.raises(GuardError, match=r"round dark: position: stands 2\.0 mm off"):
        bench.decide(DARK, 1)


@pytest.mark.parametrize("bench", [{"retake_spoiled": False}], indirect=True)
def test_where_the_plan_wants_no_retakes_a_spoiled_take_is_kept_with_a_warning(bench: Bench):
    bench.findings = [SPOILED]

    assert bench.decide(DARK, 1).keep
    assert [e.text for e in bench.events if isinstance(e, Warned)] == ["position: stands 2.0 mm off"]


@pytest.mark.parametrize("bench", [{"guards": {"actions": {"clipping": "void"}}}], indirect=True)
def test_a_guard_that_voids_redoes_a_take_once_and_then_ends(bench: Bench):
    bench.numbers = TakeNumbers(clipped_percent=60.0)

    assert not bench.decide(GT, 1).keep
    with pytest.raises(GuardError, match="round gt failed a guard again"):
        bench.decide(GT, 2)
    assert bench.cards == []


def test_a_live_check_that_hangs_costs_no_take(bench: Bench):
    bench.hangs = True

    assert bench.decide(DARK, 1).keep
    assert "was not looked at" in next(e.text for e in bench.events if isinstance(e, Warned))
