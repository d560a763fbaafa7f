"""Field: a line to type into; its cursor does not blink, since nothing here is told by animation."""

from __future__ import annotations

from textual.widgets import Input


class Field(Input):
    """Textual's input without a blinking cursor."""

    def on_mount(self) -> None:
        """Hold the cursor still."""
        self.cursor_blink = False
