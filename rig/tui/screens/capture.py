"""Screen 3: one round, full attention."""

from __future__ import annotations

from collections.abc import Iterator

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from rig.tui.screens.frame import ModeScreen
from rig.tui.widgets.checklist import Checklist
from rig.tui.widgets.position_bar import PositionBar
from rig.tui.widgets.preview import PreviewPicture
from rig.tui.widgets.preview_figures import PreviewFigures
from rig.tui.widgets.round_line import RoundLine
from rig.tui.widgets.speed_error import SpeedError


class CaptureScreen(ModeScreen):
    """A large picture over position, speed error and the checklist."""

    def body(self) -> Iterator[Widget]:
        """Yield the parts from top to bottom."""
        yield Vertical(
            RoundLine(id="round"),
            PreviewPicture(id="preview"),
            Horizontal(
                Vertical(PositionBar(id="rail"), SpeedError(id="speed-error"), id="motion"),
                Vertical(PreviewFigures(id="figures"), id="picture-figures"),
                Checklist(id="checklist"),
                id="below",
            ),
            id="body",
        )
