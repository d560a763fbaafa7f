"""What becomes of a take, and whether a round may begin: guards and live check, and whoever must be asked."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass

from catalog.session_folder import RoundRecord
from rig.clock import SessionClock
from rig.control import Operator
from rig.devices.camera import CameraStatus
from rig.errors import DeviceTimeoutError, GuardError
from rig.events import Answer, AnyEvent, Choice, OperatorCard, TakeChecked, Warned
from rig.guards import Judgment, TakeReport, judge_before_round, judge_take
from rig.live_check_process import LiveCheckProcess
from rig.plan import CapturePlan
from rig.session import SessionRecorder

GO_ON = Choice(name="go-on", label="Go on all the same", needs_reason=True)
KEEP = Choice(name="keep", label="Keep this take", needs_reason=True)
RETAKE = Choice(name="retake", label="Record the round again")
END = Choice(name="end", label="End the session; it stays resumable")

_GLANCE_S = 0.05
_MISPLACED = frozenset({"travel", "position", "velocity", "motion"})
"""Findings after which the rail's position is not to be believed."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a take."""

    round: RoundRecord
    take: int
    keep: bool
    reason: str = ""
    home_first: bool = False
    """Whether the carriage may have lost its place."""


@dataclass(frozen=True)
class _Fault:
    what: str
    """Name of a guard or a finding, as `rig help` explains it."""
    text: str

    def __str__(self) -> str:
        return f"{self.what}: {self.text}"


@dataclass(frozen=True)
class _Pending:
    round: RoundRecord
    take: int
    lost_frames: int
    report: Future[TakeReport]


class SessionJudge:
    """Decides by the plan's guards and the live check, and asks the operator where the plan says so.

    Args:
        recorder: Journals every judgment with its numbers.
        plan: Guards and their actions.
        check: The live check.
        operator: Answers cards.
        emit: Receives the events.
        clock: The session clock.
    """

    def __init__(
        self,
        recorder: SessionRecorder,
        plan: CapturePlan,
        *,
        check: LiveCheckProcess,
        operator: Operator,
        emit: Callable[[AnyEvent], None],
        clock: SessionClock,
    ) -> None:
        self._recorder, self._plan, self._check = recorder, plan, check
        self._operator, self._emit, self._clock = operator, emit, clock
        self._pending: deque[_Pending] = deque()
        self._retakes: Counter[str] = Counter()

    @property
    def pending(self) -> bool:
        """Whether a take waits for its verdict."""
        return bool(self._pending)

    def begin(self, round_: RoundRecord, take: int, *, lost_frames: int = 0) -> None:
        """Start the live check of a take that has just become valid."""
        self._pending.append(_Pending(round_, take, lost_frames, self._check.begin(round_.name, take)))

    def next_verdict(self, *, require_free: Callable[[], None]) -> Verdict:
        """Wait for the next take's check and decide.

        Args:
            require_free: Raises when the session is to stop; called while waiting.

        Raises:
            GuardError: The session is not to go on.
        """
        pending = self._pending[0]
        report = _wait(pending.report, require_free)
        self._pending.popleft()
        if report is None:
            self._warn(
                pending.round.name, "the live check did not come to an end; the take was not looked at"
            )
            return Verdict(pending.round, pending.take, keep=True)
        self._tell(pending, report)
        judged = judge_take(
            self._plan.guards,
            report.numbers,
            is_gt=pending.round.role == "gt",
            lost_frames=pending.lost_frames,
        )
        self._note(pending.round.name, judged)
        return self._decide(pending, report, [j for j in judged if not j.ok])

    def allow_round(
        self, round_: RoundRecord, *, free_gb: float, cameras: Mapping[str, CameraStatus]
    ) -> None:
        """Judge what must hold before the carriage moves.

        Raises:
            GuardError: The session is not to go on.
        """
        judged = judge_before_round(self._plan.guards, free_gb=free_gb, cameras=cameras)
        self._note(round_.name, judged)
        for failed in (j for j in judged if not j.ok):
            self._act_before(round_, failed)

    def _act_before(self, round_: RoundRecord, failed: Judgment) -> None:
        action = self._plan.guards.action(failed.guard)
        if action == "warn":
            self._warn(round_.name, str(_fault(failed)))
            return
        text = f"Before round {round_.name}: {failed.text}"
        card = OperatorCard(
            kind="guard", round=round_.name, title=f"Guard: {failed.guard}", text=text, choices=(GO_ON, END)
        )
        if action == "void" or self._ask(card).choice == END.name:
            raise _not_going_on(text, failed.guard)

    def _decide(self, pending: _Pending, report: TakeReport, failed: list[Judgment]) -> Verdict:
        for judgment in failed:
            if self._plan.guards.action(judgment.guard) == "warn":
                self._warn(pending.round.name, str(_fault(judgment)))
        spoiled = [_Fault(f.what, f.text) for f in report.findings if f.verdict == "spoiled"]
        voids = [_fault(j) for j in failed if self._plan.guards.action(j.guard) == "void"]
        holds = [_fault(j) for j in failed if self._plan.guards.action(j.guard) == "hold"]
        home_first = any(f.verdict == "spoiled" and f.what in _MISPLACED for f in report.findings)
        if spoiled and not self._plan.retake_spoiled:
            self._warn(pending.round.name, _joined(spoiled))
            spoiled = []
        if voids:
            return self._redo_once(pending, voids, home_first)
        if spoiled or holds:
            return self._ask_about(pending, spoiled, holds, home_first)
        return Verdict(pending.round, pending.take, keep=True)

    def _redo_once(self, pending: _Pending, voids: list[_Fault], home_first: bool) -> Verdict:
        reason = _joined(voids)
        if self._retakes[pending.round.name]:
            raise _not_going_on(f"round {pending.round.name} failed a guard again: {reason}", voids[0].what)
        return self._retake(pending, reason, home_first)

    def _ask_about(
        self, pending: _Pending, spoiled: list[_Fault], holds: list[_Fault], home_first: bool
    ) -> Verdict:
        faults = [*spoiled, *holds]
        reason = _joined(faults)
        card = OperatorCard(
            kind="retake" if spoiled else "guard",
            round=pending.round.name,
            title=f"Round {pending.round.name}, take {pending.take}: {'spoiled' if spoiled else 'a guard failed'}",
            text=f"{reason}{self._doubt(pending.round) if spoiled else ''}",
            choices=self._choices(pending.round, spoiled=bool(spoiled)),
        )
        answer = self._ask(card)
        if answer.choice == END.name:
            raise _not_going_on(f"round {pending.round.name}: {reason}", faults[0].what)
        if answer.choice == RETAKE.name:
            return self._retake(pending, reason, home_first)
        return Verdict(pending.round, pending.take, keep=True)

    def _choices(self, round_: RoundRecord, *, spoiled: bool) -> tuple[Choice, ...]:
        """Offer a retake first; where one brought nothing, only a ground truth is worth ending for."""
        if not spoiled:
            return GO_ON, RETAKE, END
        if not self._retakes[round_.name]:
            return RETAKE, KEEP, END
        keep = KEEP.model_copy(update={"needs_reason": False})
        return (END, RETAKE, KEEP) if round_.role == "gt" else (keep, RETAKE, END)

    def _doubt(self, round_: RoundRecord) -> str:
        """Where a retake brought nothing, what it is measured against may be what is wrong."""
        if round_.role == "gt" or not self._retakes[round_.name]:
            return ""
        return ". A retake did not help: the ground truth may be what is off, or a board was moved since"

    def _retake(self, pending: _Pending, reason: str, home_first: bool) -> Verdict:
        self._retakes[pending.round.name] += 1
        return Verdict(pending.round, pending.take, keep=False, reason=reason, home_first=home_first)

    def _ask(self, card: OperatorCard) -> Answer:
        """Ask; an answer that lacks the reason it needs comes from nobody, and ends the session."""
        answer = self._operator.ask(card)
        chosen = next((c for c in card.choices if c.name == answer.choice), END)
        if chosen.needs_reason and not answer.reason.strip():
            answer = Answer(choice=END.name, by=answer.by)
        self._recorder.note(
            "answered",
            round=card.round,
            card=card.kind,
            text=card.text,
            choice=answer.choice,
            reason=answer.reason,
            by=answer.by,
        )
        return answer

    def _tell(self, pending: _Pending, report: TakeReport) -> None:
        findings = [f.model_dump() for f in report.findings]
        numbers = report.numbers.model_dump(exclude_none=True)
        self._recorder.note(
            "take_checked", round=pending.round.name, take=pending.take, findings=findings, numbers=numbers
        )
        self._emit(
            TakeChecked(
                t_host_s=self._clock.now(),
                round=pending.round.name,
                take=pending.take,
                findings=report.findings,
                ripple_percent=report.numbers.ripple_percent,
            )
        )

    def _note(self, round_name: str, judged: list[Judgment]) -> None:
        rows = [
            {"guard": j.guard, "ok": j.ok, "value": j.value, "limit": j.limit, "text": j.text} for j in judged
        ]
        self._recorder.note("guards", round=round_name, judged=rows)

    def _warn(self, round_name: str, text: str) -> None:
        self._recorder.note("warning", round=round_name, text=text)
        self._emit(Warned(t_host_s=self._clock.now(), round=round_name, text=text))


def _wait(report: Future[TakeReport], require_free: Callable[[], None]) -> TakeReport | None:
    while True:
        try:
            return report.result(timeout=_GLANCE_S)
        except DeviceTimeoutError:
            return None
        except NotYetError:
            require_free()


def _fault(judgment: Judgment) -> _Fault:
    return _Fault(judgment.guard, judgment.text)


def _joined(faults: Sequence[_Fault]) -> str:
    return "; ".join(map(str, faults))


def _not_going_on(text: str, what: str) -> GuardError:
    return GuardError(
        text, kept="every take recorded so far", next_step=f"mend it (`rig help {what}` tells how)"
    )
