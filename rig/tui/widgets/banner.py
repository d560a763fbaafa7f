"""Banner: why nothing moves, what is known of the position and how to get out of it; hidden while all is well."""

from __future__ import annotations

from rig.events import EngineMode
from rig.tui.situation import Situation
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import age_text, data_text

_STEPS: dict[EngineMode, str] = {
    EngineMode.LOCKED: "inspect the rail → u unlock → h home → r redo the round",
    EngineMode.HOLD: "inspect the rail → u leave the hold → s start again (a held sweep is redone, never resumed)",
    EngineMode.OFFLINE: "mend it → u opens the devices again",
}


_PAUSES: dict[EngineMode, str] = {
    EngineMode.PAUSED: "■ PAUSED: n goes on, e ends the session",
    EngineMode.PAUSING: "■ PAUSING after this take; p again ends it now (void)",
}


class Banner(Panel):
    """One to four lines across the screen."""

    grows = True

    def show(self, situation: Situation) -> None:
        """Appear exactly when there is something to say."""
        self.display = bool(banner_lines(situation))
        super().show(situation)

    def picture(self, situation: Situation) -> Parts:
        """Return the lines, the first in bold."""
        lines = banner_lines(situation)
        level = "$bad" if situation.mode in {EngineMode.LOCKED, EngineMode.OFFLINE} else "$warn"
        return [
            (("" if k == 0 else "\n") + line, f"{level} bold" if k == 0 else level)
            for k, line in enumerate(lines)
        ]


def banner_lines(s: Situation) -> list[str]:
    """Say what keeps the rig from working, in up to three lines."""
    if s.link == "lost":
        return [
            f"✕ ENGINE GONE: {data_text(s.link_text)}",
            "position unknown here; a sweep in progress ends inside its limits; everything saved is kept",
            "next: trying again every second; if it stays away, leave with q and start `rig tui` again",
        ]
    if s.state is None:
        return []
    lines = _mode_lines(s)
    lines += [
        f"▲ CAMERA {name} gone: {data_text(c.text) or 'no answer'}"
        for name, c in s.state.cameras.items()
        if not c.connected
    ]
    if s.state.disk_free_gb < s.reserve_gb:
        lines.append(f"✕ DISK below its reserve of {s.reserve_gb:g} GB: no round starts; free space")
    if not s.in_control and s.state.controller:
        lines.append(
            f"▲ OBSERVING: {data_text(s.state.controller)} controls the rig; t asks for control; STOP works"
        )
    return lines[:4]


def _mode_lines(s: Situation) -> list[str]:
    state = s.state
    if state is None:
        return []
    if s.mode in _STEPS:
        sign = "✕" if s.mode is EngineMode.LOCKED else "■"
        why = data_text(state.why) or "no reason was given"
        return [f"{sign} {s.mode.value.upper()}: {why}", f"{_position(s)}; {_STEPS[s.mode]}"]
    if s.mode in _PAUSES:
        return [_PAUSES[s.mode]]
    at_rest = s.mode in {EngineMode.CONNECTED, EngineMode.READY}
    return [f"▲ {data_text(state.why)}"] if state.why and at_rest else []


def _position(s: Situation) -> str:
    rail = None if s.state is None else s.state.rail
    if rail is None:
        return "position unknown: the rail is off"
    when = age_text(s.age_s(rail.t_host_s))
    if rail.position_mm is None or not rail.homed:
        return f"position unknown (last heard of {when} ago)"
    return f"position {rail.position_mm:.2f} mm ({when} ago)"
