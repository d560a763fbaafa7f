"""Panel: a part of a screen that is drawn from a situation, at its own pace and only when it changed."""

from __future__ import annotations

import time
from typing import ClassVar, TypeAlias

from textual.content import Content
from textual.widgets import Static

from rig.tui.situation import Situation

Parts: TypeAlias = list[tuple[str, str]]
"""Pieces of text with their styles; text is data, markup in it is never read."""


class Panel(Static):
    """Base of the panels."""

    period_s: ClassVar[float] = 0.25
    """Redrawn no more often than this; readings in between are skipped, not queued."""
    grows: ClassVar[bool] = False
    """Whether its height follows its text."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002  - Textual's name
        super().__init__("", markup=False, id=id, classes=classes)
        self._drawn: Parts | None = None
        self._due_s = float("-inf")

    def show(self, situation: Situation) -> None:
        """Draw a situation, if it is time and looks different."""
        now_s = time.monotonic()
        if now_s < self._due_s or not (self.grows or self.content_size.area):
            return
        self._due_s = now_s + self.period_s
        parts = self.picture(situation)
        if parts != self._drawn:
            self._drawn = parts
            self.update(Content.assemble(*parts), layout=self.grows)

    def redraw(self) -> None:
        """Draw the next situation at once."""
        self._due_s = float("-inf")

    def picture(self, situation: Situation) -> Parts:
        """Return what a situation looks like."""
        raise NotImplementedError

    def on_resize(self) -> None:
        """Fill the new size at the next tick."""
        self.redraw()
