"""Help: every action of the registry, those that are possible now in bold."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from rig.tui.actions import ACTIONS, Action
from rig.tui.screens.surface import OperatorModal, operator_app
from rig.tui.widgets.status_strip import StatusStrip
from rig.tui.wording import strip_cells


class HelpCard(OperatorModal):
    """A list to scroll."""

    BINDINGS = [Binding("escape,question_mark,q", "dismiss(None)", "Back")]

    def compose(self) -> ComposeResult:
        """Show the list."""
        yield StatusStrip(id="strip")
        with VerticalScroll(id="card", classes="-tall"):
            yield Static("KEYS", id="title", markup=False)
            yield Static(self._lines(), id="text", markup=False)

    def _lines(self) -> Content:
        app = operator_app(self)
        situation = app.situation()
        parts: list[tuple[str, str]] = []
        for a in ACTIONS:
            parts += help_parts(a, possible=a.possible(situation))
        trouble = [
            f"{c.label} {c.symbol} {c.word}"
            for c in strip_cells(situation)
            if c.level in {"warning", "error"}
        ]
        lag = f"drawn {app.times_drawn} times, {app.worst_lag_s:.2f} s late at worst"
        parts.append((f"\nbold: possible now · {lag} · {'; '.join(trouble)}", "$faint"))
        return Content.assemble(*parts)


def help_parts(a: Action, *, possible: bool) -> list[tuple[str, str]]:
    """Describe an action in one line, with its command line where it has one."""
    keys = " ".join(key_sign(k) for k in a.keys)
    command = f"   $ {a.command_line}" if a.command_line else ""
    style = "bold" if possible else "$faint"
    return [
        (f"{keys:<12} ", "$lead bold"),
        (f"{a.label:<16} ", style),
        (a.help, ""),
        (f"{command}\n", "$faint"),
    ]


_SIGNS = {
    "space": "Space",
    "exclamation_mark": "!",
    "left": "←",
    "right": "→",
    "shift+left": "⇧←",
    "shift+right": "⇧→",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "question_mark": "?",
    "ctrl+p": "^P",
    "ctrl+q": "^Q",
    "f2": "F2",
}


def key_sign(key: str) -> str:
    """Write a key's name as it stands on a keyboard."""
    return _SIGNS.get(key, key)
