"""RoundsTable: every round with its state, what differs, frames, pairs and the ripple of the speed."""

from __future__ import annotations

from rig.events import RoundProgress
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import data_text, duration_text

_STATES = {
    "waiting": ("·", "waiting", "$faint"),
    "running": ("▶", "running", "$lead bold"),
    "valid": ("✓", "saved", "$ok"),
    "void": ("✕", "void", "$warn"),
    "failed": ("✕", "failed", "$bad"),
}
_FIXED_COLUMNS = 46
"""Width of all columns but the setting and the note."""
_ROOM_FOR_NOTES = 24


class RoundsTable(Panel):
    """Lines of text; the running round stays in view."""

    def on_mount(self) -> None:
        """Name the panel."""
        self.border_title = "Rounds"

    def picture(self, situation: Situation) -> Parts:
        """Return the header and as many rounds as fit."""
        session = situation.session
        if session is None:
            return [("no session yet: 2 chooses a plan, s starts it", "$faint")]
        done = sum(r.state == "valid" for r in session.rounds)
        left = "complete" if session.complete else f"{duration_text(session.remaining_s)} left"
        self.border_title = f"Rounds · {data_text(session.scene)} · {done} of {len(session.rounds)} · {left}"
        self.border_subtitle = data_text(session.session)
        width = self.content_size.width
        room = max(width - _FIXED_COLUMNS, 0)
        setting_width = room if room < _ROOM_FOR_NOTES else room // 2
        header = f" # {'round':<10} {'setting':<{setting_width}} {'state':<10} frames pairs  σv/v %\n"
        rows = _in_view(session.rounds, self.content_size.height - 1)
        return [(header, "$faint"), *(_row(r, setting_width, width) for r in rows)]


def _in_view(rounds: tuple[RoundProgress, ...], height: int) -> tuple[RoundProgress, ...]:
    height = max(height, 1)
    running = next((k for k, r in enumerate(rounds) if r.state == "running"), 0)
    first = min(max(running - height // 2, 0), max(len(rounds) - height, 0))
    return rounds[first : first + height]


def _row(r: RoundProgress, setting_width: int, width: int) -> tuple[str, str]:
    sign, word, style = _STATES[r.state]
    setting = data_text(r.setting or r.role)[:setting_width]
    frames = str(r.frames) if r.frames else "–"
    pairs = str(r.expected_pairs) if r.expected_pairs else "–"
    ripple = "–" if r.ripple_percent is None else f"{r.ripple_percent:.2f}"
    state = f"{sign} {word}" + (f" {r.takes}" if r.takes > 1 else "")
    name = f"{r.number:>2} {data_text(r.name)[:10]:<10}"
    line = f"{name} {setting:<{setting_width}} {state:<10}{frames:>7}{pairs:>6} {ripple:>7} {_note(r)}"
    return line[:width] + "\n", style


def _note(r: RoundProgress) -> str:
    doubts = [f"{'✕' if f.verdict == 'spoiled' else '▲'} {f.what}" for f in r.findings if f.verdict != "ok"]
    return data_text(r.step if r.state == "running" else " ".join(doubts))
