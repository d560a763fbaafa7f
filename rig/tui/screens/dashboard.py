"""Screen 1: everything at a glance."""

from __future__ import annotations

from collections.abc import Iterator

from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from rig.tui.screens.frame import ModeScreen
from rig.tui.screens.surface import operator_app
from rig.tui.situation import Situation
from rig.tui.widgets.event_log import EventLog
from rig.tui.widgets.position_bar import PositionBar
from rig.tui.widgets.preview import PreviewPicture
from rig.tui.widgets.preview_figures import PreviewFigures
from rig.tui.widgets.rounds_table import RoundsTable
from rig.tui.widgets.velocity_plot import VelocityPlot

PAGES = 3


class DashboardScreen(ModeScreen):
    """Two columns; on a narrow terminal one column of pages."""

    page = 0

    def body(self) -> Iterator[Widget]:
        """Yield the two columns."""
        yield Horizontal(
            Vertical(
                PositionBar(id="rail"), VelocityPlot(id="velocity"), RoundsTable(id="rounds"), id="left"
            ),
            Vertical(
                PreviewPicture(id="preview"), PreviewFigures(id="figures"), EventLog(id="events"), id="right"
            ),
            id="body",
            classes="page-0",
        )

    def refresh_from(self, situation: Situation) -> None:
        """Give the list of events its lines, then draw."""
        app = operator_app(self)
        self.query_one(EventLog).give(app.knowledge.lines, app.event_filter)
        super().refresh_from(situation)

    def next_page(self) -> None:
        """Turn the page of a narrow terminal."""
        body = self.query_one("#body")
        body.remove_class(f"page-{self.page}")
        self.page = (self.page + 1) % PAGES
        body.add_class(f"page-{self.page}")
