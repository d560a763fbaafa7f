"""The fixed parts of a mode: status strip, banner, key bar, and a message where the terminal is too small."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Static

from rig.tui.screens.surface import USABLE, OperatorScreen
from rig.tui.widgets.banner import Banner
from rig.tui.widgets.key_bar import KeyBar
from rig.tui.widgets.status_strip import StatusStrip

TOO_SMALL = f"This terminal is too small: {USABLE[0]} × {USABLE[1]} at least.\nSTOP works: Space."


class ModeScreen(OperatorScreen):
    """A mode with its body between strip and key bar."""

    def compose(self) -> ComposeResult:
        """Put strip, banner, body and key bar in order."""
        yield StatusStrip(id="strip")
        yield Banner(id="banner")
        yield Static(TOO_SMALL, id="too-small", markup=False)
        yield from self.body()
        yield KeyBar(id="keys")

    def body(self) -> Iterator[Widget]:
        """Yield what is between."""
        raise NotImplementedError
