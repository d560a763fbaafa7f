"""RoundLine: one line on the round that runs: which, what it does, how many frames."""

from __future__ import annotations

from rig.events import EngineMode
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import data_text


class RoundLine(Panel):
    """The head line of the capture screen."""

    def picture(self, situation: Situation) -> Parts:
        """Return the running round in words."""
        session = situation.session
        if session is None:
            return [("no session yet: 2 chooses a plan, s starts it", "$faint")]
        running = next((r for r in session.rounds if r.state == "running"), None)
        saved = sum(r.frames for r in session.rounds if r.state == "valid")
        if running is None:
            said = "complete" if session.complete else situation.mode.value
            return [(f"SESSION {data_text(session.session)} · {said} · {saved} frames saved", "bold")]
        steady = situation.mode is EngineMode.RUNNING and _steady(situation)
        step = "▶ STEADY ZONE" if steady else f"▶ {data_text(running.step)}"
        return [
            (f"ROUND {running.number} of {len(session.rounds)} · {data_text(running.name)} ", "bold"),
            (
                f"· {data_text(running.setting)} · {step} · take {max(running.takes, 1)} · {saved} frames saved",
                "",
            ),
        ]


def _steady(s: Situation) -> bool:
    rail = None if s.state is None else s.state.rail
    if s.command is None or rail is None or rail.position_mm is None:
        return False
    return bool(rail.velocity_mm_s) and s.command.uniform_at(rail.position_mm)
