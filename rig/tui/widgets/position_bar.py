"""PositionBar: where the carriage is, between the soft limits, with the steady zone and the target."""

from __future__ import annotations

from rig.tui.situation import Freshness, Situation, freshness
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import age_text

_WIDE = 50
"""Narrower panels leave out target and phase."""
LEGEND = "▒ soft limit  ━ steady zone  ┃ target  █ carriage"


class PositionBar(Panel):
    """A scale, the bar and one line of figures."""

    period_s = 0.1

    def on_mount(self) -> None:
        """Name the panel."""
        self.border_title = "Rail"

    def picture(self, situation: Situation) -> Parts:
        """Return three lines."""
        width = self.content_size.width
        self.border_subtitle = LEGEND if width > len(LEGEND) + 2 else ""
        if situation.state is None:
            return [("waiting for the engine", "$faint")]
        low_mm, high_mm = situation.state.travel_mm
        scale = _scale(low_mm, high_mm, width)
        return [
            (scale + "\n", "$faint"),
            *_bar(situation, low_mm, high_mm, width),
            ("\n", ""),
            *figures(situation, width),
        ]


def _scale(low_mm: float, high_mm: float, width: int) -> str:
    row = [" "] * width
    for k in range(5):
        label = f"{low_mm + k * (high_mm - low_mm) / 4:.0f}"
        at = round(k * (width - 1) / 4)
        at = min(max(at - len(label) // 2, 0), width - len(label))
        row[at : at + len(label)] = label
    return "".join(row[:width])


def _bar(s: Situation, low_mm: float, high_mm: float, width: int) -> Parts:
    def column(mm: float) -> int:
        return min(max(round((mm - low_mm) / (high_mm - low_mm) * (width - 1)), 0), width - 1)

    cells = [("─", "$faint")] * width
    zone = s.session.uniform_mm if s.session is not None and s.session_runs else None
    if zone is not None:
        for k in range(column(min(zone)), column(max(zone)) + 1):
            cells[k] = ("━", "$ok")
    cells[0] = cells[-1] = ("▒", "$warn")
    if s.command is not None:
        cells[column(s.command.target_mm)] = ("┃", "$lead bold")
    rail = None if s.state is None else s.state.rail
    if (
        rail is not None
        and rail.position_mm is not None
        and (s.rail_rests or freshness(s.age_s(rail.t_host_s)) is not Freshness.GONE)
    ):
        cells[column(rail.position_mm)] = ("█", "$foreground bold")
    return _merged(cells)


def _merged(cells: Parts) -> Parts:
    merged: Parts = []
    for sign, style in cells:
        if merged and merged[-1][1] == style:
            merged[-1] = (merged[-1][0] + sign, style)
        else:
            merged.append((sign, style))
    return merged


def figures(s: Situation, width: int) -> Parts:
    """Return position and speed with their age; old ones dimmed, gone ones as words."""
    rail = None if s.state is None else s.state.rail
    if rail is None:
        return [("rail off", "$faint")]
    age_s = s.age_s(rail.t_host_s)
    fresh = freshness(age_s)
    if fresh is Freshness.GONE and not s.rail_rests:
        return [(f"✕ no answer from the rail for {age_text(age_s)}: position unknown", "$bad bold")]
    if rail.position_mm is None:
        text = "x unknown: home first"
    else:
        target = "" if s.command is None or width < _WIDE else f" → {s.command.target_mm:.2f}"
        text = f"x {rail.position_mm:.2f}{target} mm"
    speed = "" if rail.velocity_mm_s is None else f"   v {rail.velocity_mm_s:.2f} mm/s"
    label = "" if fresh is Freshness.FRESH else "   not asked" if s.rail_rests else "   STALE"
    style = "" if fresh is Freshness.FRESH else "$faint"
    phase = f"   {_phase(s)}" if width >= _WIDE else ""
    return [(f"{text}{speed}{phase}{label}   age {age_s:.1f} s", style)]


def _phase(s: Situation) -> str:
    rail = None if s.state is None else s.state.rail
    if rail is None or rail.position_mm is None or not rail.velocity_mm_s or s.command is None:
        return rail.state if rail is not None else ""
    return "steady" if s.command.uniform_at(rail.position_mm) else "ramp"
