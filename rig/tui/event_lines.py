"""One line of text for each event that the operator should be able to read later."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Literal

from rig.events import (
    ActEnded,
    Answered,
    Asked,
    ControlAsked,
    Event,
    FramesLost,
    Refused,
    RoundStarted,
    Saved,
    SessionClosed,
    SessionOpened,
    Step,
    Stopped,
    TakeChecked,
    TakeFinished,
    Warned,
)
from rig.tui.wording import data_text, duration_text

Kind = Literal["info", "mark", "warn", "save", "error"]


@dataclass(frozen=True)
class Line:
    """One line of the list of events; the kind is a word, so that nothing depends on colour."""

    kind: Kind
    text: str
    t_host_s: float = 0.0


def event_line(event: Event) -> Line | None:
    """Put an event in one line; None for those that are shown otherwise."""
    said = _describe(event)
    return None if said is None else Line(said[0], data_text(said[1]), event.t_host_s)


@singledispatch
def _describe(event: Event) -> tuple[Kind, str] | None:  # noqa: ARG001  - readings and previews have their own places
    return None


@_describe.register
def _(event: SessionOpened) -> tuple[Kind, str]:
    return "info", f"session {event.session}: {event.rounds_missing} of {event.rounds_total} rounds to record"


@_describe.register
def _(event: RoundStarted) -> tuple[Kind, str]:
    return "info", f"round {event.number} {event.round} ({event.role}), {duration_text(event.duration_s)}"


@_describe.register
def _(event: Step) -> tuple[Kind, str]:
    return "mark", f"{event.round}: {event.text}"


@_describe.register
def _(event: Saved) -> tuple[Kind, str]:
    return "save", f"{event.path} saved, {event.size_bytes / 1e6:.1f} MB, sha256 {event.sha256[:8]}"


@_describe.register
def _(event: Warned) -> tuple[Kind, str]:
    return "warn", f"{event.round}: {event.text}"


@_describe.register
def _(event: FramesLost) -> tuple[Kind, str]:
    return "warn", f"{event.round} take {event.take}: {event.dropped} frames lost, {event.duplicated} doubled"


@_describe.register
def _(event: TakeChecked) -> tuple[Kind, str]:
    doubts = [f"{f.what} {f.verdict}: {f.text}" for f in event.findings if f.verdict != "ok"]
    kind: Kind = "error" if event.spoiled else "warn" if doubts else "info"
    return kind, f"{event.round} take {event.take} checked: {'; '.join(doubts) or 'all ok'}"


@_describe.register
def _(event: TakeFinished) -> tuple[Kind, str]:
    if event.state == "valid":
        return "info", f"{event.round} take {event.take} ✓ valid, {event.frames} frames"
    return "error", f"{event.round} take {event.take} ✕ {event.state}: {event.reason}"


@_describe.register
def _(event: SessionClosed) -> tuple[Kind, str]:
    return "info", f"session {event.session} {'complete' if event.complete else 'ended, to be resumed'}"


@_describe.register
def _(event: Asked) -> tuple[Kind, str]:
    return "mark", f"operator: {event.card.title}"


@_describe.register
def _(event: Answered) -> tuple[Kind, str]:
    reason = f" ({event.answer.reason})" if event.answer.reason else ""
    return "info", f"answered: {event.answer.choice}{reason}"


@_describe.register
def _(event: ActEnded) -> tuple[Kind, str]:
    if event.ok:
        return "info", f"{event.act} ended"
    next_step = f"; next: {event.next_step}" if event.next_step else ""
    return "error", f"{event.act} ended: {event.code} {event.message}{next_step}"


@_describe.register
def _(event: Stopped) -> tuple[Kind, str]:
    return "error", f"{'E-STOP' if event.emergency else 'STOP'} by {event.by or 'somebody'}"


@_describe.register
def _(event: ControlAsked) -> tuple[Kind, str]:
    return "warn", f"{event.name} asks for control"


@_describe.register
def _(event: Refused) -> tuple[Kind, str]:
    next_step = f"; next: {event.next_step}" if event.next_step else ""
    return "error", f"refused {event.code}: {event.message}{next_step}"
