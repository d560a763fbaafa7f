"""EventLog: what happened, newest first, with a filter by kind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from textwrap import wrap

from rig.tui.event_lines import Kind, Line
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts

FILTERS: tuple[tuple[str, frozenset[Kind]], ...] = (
    ("all", frozenset({"info", "mark", "warn", "save", "error"})),
    ("no steps", frozenset({"info", "warn", "save", "error"})),
    ("warnings and errors", frozenset({"warn", "error"})),
    ("saved files", frozenset({"save"})),
)
_ERROR_ROWS = 4
"""An error is shown whole, as far as so many rows hold it."""
_STYLES: dict[Kind, str] = {"info": "", "mark": "$lead", "warn": "$warn", "save": "$ok", "error": "$bad"}


class EventLog(Panel):
    """As many lines as fit; the time is UTC."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  - Textual's name
        super().__init__(id=id)
        self._lines: Iterable[tuple[float, Line]] = ()
        self._filter = 0

    def give(self, lines: Iterable[tuple[float, Line]], chosen: int) -> None:
        """Give the lines to show and the number of the filter."""
        self._lines, self._filter = lines, chosen % len(FILTERS)

    def picture(self, situation: Situation) -> Parts:  # noqa: ARG002  - events are no part of the snapshot
        """Return the newest lines that pass the filter."""
        name, kinds = FILTERS[self._filter]
        self.border_title = f"Events (f filter: {name})"
        width, height = self.content_size
        chosen = [(wall_s, line) for wall_s, line in self._lines if line.kind in kinds][-max(height, 1) :]
        return [_row(wall_s, line, width) for wall_s, line in reversed(chosen)] or [("nothing yet", "$faint")]


def _row(wall_s: float, line: Line, width: int) -> tuple[str, str]:
    time = datetime.fromtimestamp(wall_s, UTC).strftime("%H:%M:%S")
    text = f"{time} {line.kind:<5} {line.text}"
    rows = wrap(text, max(width, 20), subsequent_indent=" " * 15) if line.kind == "error" else [text]
    shown = [row if len(row) <= width else row[: max(width - 1, 0)] + "…" for row in rows[:_ERROR_ROWS]]
    return "\n".join(shown) + "\n", _STYLES[line.kind]
