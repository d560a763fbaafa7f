"""What every screen and every modal has: the status strip in row 1, a tick, and the stop key that knows about text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Input

from rig.tui.situation import Situation

if TYPE_CHECKING:
    from rig.tui.app import OperatorApp

TICK_S = 0.1
DESIGNED = (120, 40)
COMPLETE = (100, 30)
USABLE = (80, 24)
TEXT_WINDOW_S = 0.5


class Drawn(Protocol):
    """A widget that draws situations."""

    def show(self, situation: Situation) -> None:
        """Draw a situation."""


def operator_app(widget: Widget) -> OperatorApp:
    """Return the application with its type."""
    return cast("OperatorApp", widget.app)


class _Ticking(Screen[object]):
    """Draws its widgets ten times a second, from one situation."""

    def on_mount(self) -> None:
        """Start to draw."""
        self._drawn: list[Drawn] = [cast("Drawn", w) for w in self.query("*") if hasattr(w, "show")]
        self._last_s: float | None = None
        self.set_interval(TICK_S, self.tick)
        self.call_after_refresh(self.tick)

    def tick(self) -> None:
        """Draw the present situation, if this screen is on top."""
        if not self.is_current:
            self._last_s = None
            return
        app = operator_app(self)
        situation = app.situation()
        if self._last_s is not None:
            app.note_lag(situation.now_s - self._last_s - TICK_S)
        self._last_s = situation.now_s
        typing = isinstance(self.focused, Input) and not situation.can_move
        app.text_window.extend(TEXT_WINDOW_S if typing else 0.0)
        self.refresh_from(situation)
        app.follow(situation)
        app.times_drawn += 1

    def refresh_from(self, situation: Situation) -> None:
        """Draw a situation."""
        for widget in self._drawn:
            widget.show(situation)

    def on_resize(self) -> None:
        """Choose the layout by the terminal's size."""
        width, height = self.size
        self.set_class(width < USABLE[0] or height < USABLE[1], "-tiny")
        self.set_class(width < COMPLETE[0] or height < COMPLETE[1], "-narrow")
        self.set_class(width < DESIGNED[0] or height < DESIGNED[1], "-medium")


class OperatorScreen(_Ticking):
    """Base of the modes."""


class OperatorModal(_Ticking, ModalScreen[object]):
    """Base of the cards."""
