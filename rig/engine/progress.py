"""How far the session is: folds the runner's events into the table of rounds that every screen shows."""

from __future__ import annotations

from pathlib import Path

from catalog.session_folder import RoundRecord, SessionFolder
from rig.engine.session import SessionOrder
from rig.events import (
    AnyEvent,
    RoundProgress,
    RoundStarted,
    SessionClosed,
    SessionOpened,
    SessionProgress,
    Step,
    TakeChecked,
    TakeFinished,
)
from rig.forecast import Forecast


class ProgressTracker:
    """Keeps one `SessionProgress` up to date.

    Args:
        order: What is recorded.
        folder: The session's folder.
    """

    def __init__(self, order: SessionOrder, folder: Path) -> None:
        session = SessionFolder(folder)
        record = session.record()
        expected = order.forecast
        between_s = expected.duration_s - sum(r.duration_s for r in expected.rounds)
        each_s = between_s / len(expected.rounds)
        self._duration_s = {r.round.name: r.duration_s + each_s for r in expected.rounds}
        base = order.plan.base.model_dump()
        self._before: dict[str, str] = {}
        self.progress = SessionProgress(
            session=record.session,
            folder=str(folder),
            scene=record.scene,
            rounds=tuple(_row(r, base, expected) for r in record.rounds),
            remaining_s=0.0,
            uniform_mm=(order.plan.sweep.start_mm, order.plan.sweep.end_mm),
        )
        for take in session.takes():
            self._change(take.round.name, takes=take.number, state=take.state)
        self._reckon()

    def observe(self, event: AnyEvent) -> None:
        """Take one event of the session into account."""
        if isinstance(event, RoundStarted):
            self._before = {r.name: r.state for r in self.progress.rounds}
            self._change(event.round, state="running", step="")
        elif isinstance(event, Step):
            self._change(event.round, step=event.text)
        elif isinstance(event, TakeChecked):
            self._change(event.round, findings=event.findings, ripple_percent=event.ripple_percent)
        elif isinstance(event, TakeFinished):
            self._change(event.round, state=event.state, step="", takes=event.take, frames=event.frames)
        elif isinstance(event, SessionClosed):
            self._rest()
            self.progress = self.progress.model_copy(update={"complete": event.complete})
        elif not isinstance(event, SessionOpened):
            return
        self._reckon()

    def _rest(self) -> None:
        """A round that was stopped before its take began is as it was."""
        for row in self.progress.rounds:
            if row.state == "running":
                self._change(row.name, state=self._before[row.name], step="")

    def _change(self, name: str, **update: object) -> None:
        rows = tuple(r.model_copy(update=update) if r.name == name else r for r in self.progress.rounds)
        self.progress = self.progress.model_copy(update={"rounds": rows})

    def _reckon(self) -> None:
        left = [r.name for r in self.progress.rounds if r.state != "valid"]
        remaining_s = sum(self._duration_s.get(name, 0.0) for name in left)
        self.progress = self.progress.model_copy(update={"remaining_s": remaining_s})


def _row(round_: RoundRecord, base: dict[str, object], expected: Forecast) -> RoundProgress:
    pairs = next((r.expected_pairs for r in expected.rounds if r.round.name == round_.name), 0)
    return RoundProgress(
        number=round_.number,
        name=round_.name,
        role=round_.role,
        setting=_difference(round_, base),
        state="waiting",
        expected_pairs=pairs,
    )


def _difference(round_: RoundRecord, base: dict[str, object]) -> str:
    settings = round_.settings.model_dump(exclude_none=True)
    texts = [_setting_text(name, value) for name, value in settings.items() if base.get(name) != value]
    texts += [f"{name} {level}" for name, level in round_.conditions.items() if level != "off"]
    return ", ".join(texts)


def _setting_text(name: str, value: object) -> str:
    if name == "iso":
        return f"ISO {value}"
    if name == "f_number":
        return f"f/{value:g}" if isinstance(value, float) else f"f/{value}"
    if name == "exposure_s" and isinstance(value, float):
        return f"1/{1 / value:.0f} s" if value < 0.4 else f"{value:g} s"
    if name == "focus_m":
        return f"focus {value} m"
    return str(value)
