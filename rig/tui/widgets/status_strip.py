"""StatusStrip: row 1 of every screen and modal; STOP comes first and is never pushed off."""

from __future__ import annotations

from textual import events

from rig.tui.screens.surface import operator_app
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import STYLES, Cell, strip_cells

STOP_TEXT = " ■ SPACE=STOP "
_FORMS = (
    (" │ ", True, True),
    ("│", True, True),
    (" │ ", False, True),
    ("│", False, True),
    ("│", False, False),
)
"""Separator, whether details and whether ages of fresh values are shown; from the richest to the shortest."""


class StatusStrip(Panel):
    """Stop reminder, rig, devices; a click on the reminder stops."""

    def picture(self, situation: Situation) -> Parts:
        """Return the richest form that fits in the width."""
        cells = strip_cells(situation)
        room = self.size.width - len(STOP_TEXT)
        for separator, details, ages in _FORMS:
            texts = [c.text(details=details, ages=ages) for c in cells]
            if sum(len(t) + len(separator) for t in texts) <= room:
                break
        return [(STOP_TEXT, "$stop-text on $stop-back bold"), *_joined(cells, texts, separator)]

    def on_click(self, event: events.Click) -> None:
        """Stop when the reminder is clicked."""
        if event.x < len(STOP_TEXT):
            event.stop()
            operator_app(self).stop_now()


def _joined(cells: list[Cell], texts: list[str], separator: str) -> Parts:
    parts: Parts = []
    for cell, text in zip(cells, texts, strict=True):
        parts += [(separator if parts else " ", "$faint"), (text, STYLES[cell.level])]
    return parts
