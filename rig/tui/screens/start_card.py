"""The second of the two steps of a motion: what would happen, and the word or key that makes it happen."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input, Static

from rig.events import Armed
from rig.tui.screens.surface import OperatorModal, operator_app
from rig.tui.situation import Situation
from rig.tui.widgets.field import Field
from rig.tui.widgets.status_strip import StatusStrip
from rig.tui.wording import data_text

_TITLES = {"home": "HOME the rail", "session": "START the session"}


class StartCard(OperatorModal):
    """Counts down; nothing moves unless it is confirmed in time."""

    BINDINGS = [Binding("enter", "confirm", "Go"), Binding("escape", "dismiss(None)", "Back")]

    def __init__(self, armed: Armed, *, armed_s: float) -> None:
        super().__init__()
        self.armed = armed
        self._until_s = armed_s + armed.valid_s

    def compose(self) -> ComposeResult:
        """Show the lines, the field for the word where one is needed, and the countdown."""
        yield StatusStrip(id="strip")
        with Vertical(id="card"):
            yield Static(_TITLES[self.armed.act], id="title", markup=False)
            yield Static(
                "\n".join(f"• {data_text(line)}" for line in self.armed.lines), id="text", markup=False
            )
            if self.armed.word:
                yield Field(placeholder=f"type {self.armed.word} and press Enter", id="word")
            yield Static("", id="countdown", markup=False)

    def refresh_from(self, situation: Situation) -> None:
        """Count down; at zero the card goes away and nothing has moved."""
        super().refresh_from(situation)
        left_s = self._until_s - situation.now_s
        if left_s <= 0:
            self.notify("not confirmed in time: nothing has moved")
            self.dismiss(None)
            return
        how = f"type {self.armed.word} + Enter" if self.armed.word else "Enter"
        self.query_one("#countdown", Static).update(
            f"{how} within {left_s:.0f} s starts it · Esc goes back · Space stops"
        )

    @on(Input.Submitted)
    def typed(self, event: Input.Submitted) -> None:
        """Compare the word."""
        if event.value.strip() == self.armed.word:
            self._go()
        else:
            event.input.value = ""
            self.notify(f"that is not the word {self.armed.word}: nothing has moved", severity="warning")

    def action_confirm(self) -> None:
        """Go on a simulated rig; a real one needs the word."""
        if not self.armed.word:
            self._go()

    def _go(self) -> None:
        operator_app(self).go(self.armed)
        self.dismiss(None)
