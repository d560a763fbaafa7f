"""KeyBar: the keys that work here and now, from the registry of actions; the last row of every screen."""

from __future__ import annotations

from rig.tui.actions import FOOTER, action
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts


class KeyBar(Panel):
    """As many keys as fit; help and stop are always among them."""

    def picture(self, situation: Situation) -> Parts:
        """Return signs and labels."""
        possible = [a for name in FOOTER if (a := action(name)).possible(situation)]
        room = self.size.width
        shown = list(possible)
        while sum(len(a.sign) + len(a.label) + 3 for a in shown) > room and len(shown) > 2:
            shown.pop(-3 if shown[-1].name == "quit" and len(shown) > 4 else -1)
        parts: Parts = []
        for a in shown:
            parts += [(f" {a.sign} ", "$lead bold"), (f"{a.label} ", "")]
        return parts
