"""The palette: the same actions, found by typing."""

from __future__ import annotations

from functools import partial

from textual.app import ComposeResult
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider

from rig.tui.actions import ACTIONS, Action
from rig.tui.screens.surface import TEXT_WINDOW_S, TICK_S, operator_app
from rig.tui.widgets.status_strip import StatusStrip


class ActionProvider(Provider):
    """Offers every action that is possible now."""

    def _possible(self) -> list[Action]:
        situation = operator_app(self.screen).situation()
        return [a for a in ACTIONS if a.possible(situation)]

    async def discover(self) -> Hits:
        """List all of them before anything is typed."""
        for a in self._possible():
            yield DiscoveryHit(a.label, partial(self.app.run_action, f"app.{a.name}"), help=a.help)

    async def search(self, query: str) -> Hits:
        """List those that match."""
        matcher = self.matcher(query)
        for a in self._possible():
            score = matcher.match(f"{a.label} {a.help}")
            if score > 0:
                yield Hit(
                    score,
                    matcher.highlight(a.label),
                    partial(self.app.run_action, f"app.{a.name}"),
                    help=a.help,
                )


class ActionPalette(CommandPalette):
    """Textual's palette under our status strip."""

    def compose(self) -> ComposeResult:
        """Put the strip above."""
        yield StatusStrip(id="strip")
        yield from super().compose()

    def on_mount(self) -> None:
        """Keep the strip alive."""
        self.set_interval(TICK_S, self._tick_strip)

    def _tick_strip(self) -> None:
        app = operator_app(self)
        situation = app.situation()
        app.text_window.extend(0.0 if situation.can_move else TEXT_WINDOW_S)
        self.query_one(StatusStrip).show(situation)
