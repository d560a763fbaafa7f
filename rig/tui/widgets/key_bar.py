"""KeyBar: the keys that work here and now, from the registry of actions; the last row of every screen."""

from __future__ import annotations

from rig.tui.actions import DROPPED_FIRST, FOOTER, action
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts


class KeyBar(Panel):
    """As many keys as fit; help and stop are always among them."""

    def picture(self, situation: Situation) -> Parts:
        """Return signs and labels."""
        shown = [a for name in FOOTER if (a := action(name)).possible(situation)]
        for name in DROPPED_FIRST:
            if sum(len(a.sign) + len(a.label) + 3 for a in shown) > self.size.width:
                shown = [a for a in shown if a.name != name]
        parts: Parts = []
        for a in shown:
            parts += [(f" {a.sign} ", "$lead bold"), (f"{a.label} ", "")]
        return parts
