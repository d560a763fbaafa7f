"""A question with a few answers, each with a key of its own; Escape changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from rig.tui.screens.surface import OperatorModal
from rig.tui.widgets.status_strip import StatusStrip


@dataclass(frozen=True)
class Answer:
    """One answer."""

    key: str
    label: str
    act: Callable[[], None]


class ChoiceCard(OperatorModal):
    """Lists the answers; the first is no default for anything that moves, stops or deletes."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(self, title: str, text: str, answers: Sequence[Answer]) -> None:
        super().__init__()
        self._title, self._text, self.answers = title, text, tuple(answers)

    def compose(self) -> ComposeResult:
        """Show the question and its answers."""
        yield StatusStrip(id="strip")
        with Vertical(id="card"):
            yield Static(self._title, id="title", markup=False)
            yield Static(self._text, id="text", markup=False)
            yield OptionList(
                *(Option(f"{a.key}  {a.label}") for a in self.answers), id="answers", markup=False
            )
            yield Static(
                "a letter or Enter chooses · Esc goes back · Space stops", id="countdown", markup=False
            )

    def on_key(self, event: events.Key) -> None:
        """Take the answer whose key was pressed."""
        for answer in self.answers:
            if event.key == answer.key:
                event.stop()
                self._take(answer)

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Take the answer that was selected."""
        self._take(self.answers[event.option_index])

    def _take(self, answer: Answer) -> None:
        self.dismiss(None)
        answer.act()
