"""Checklist: what the live check found in the last take, and what the camera says now."""

from __future__ import annotations

from rig.events import TakeFinding
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import data_text

_SIGNS = {"ok": ("✓", "$ok"), "doubtful": ("▲", "$warn"), "spoiled": ("✕", "$bad")}


class Checklist(Panel):
    """The findings of the last round that was checked."""

    def on_mount(self) -> None:
        """Name the panel."""
        self.border_title = "Last take"

    def picture(self, situation: Situation) -> Parts:
        """Return sign, name and figures of each finding."""
        session = situation.session
        checked = [] if session is None else [r for r in session.rounds if r.findings]
        if not checked:
            return [("no take has been checked yet", "$faint")]
        self.border_title = f"Last take: {data_text(checked[-1].name)}"
        return [part for finding in checked[-1].findings for part in _finding(finding)]


def _finding(finding: TakeFinding) -> Parts:
    sign, style = _SIGNS[finding.verdict]
    return [(f"{sign} {data_text(finding.what)} ", style), (f"{data_text(finding.text)}\n", "")]
