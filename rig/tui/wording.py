"""How a situation is put in words and signs: state is always a symbol and a word, colour comes on top.

Pure functions, shared by the screens and the line-oriented mode. Strings of devices and files are data: control
characters are stripped here, markup is never read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from catalog.console import plain_text
from catalog.session_folder import ExposureSettings
from rig.events import CameraReading, EngineMode, Preview, RailReading
from rig.tui.situation import LAG_S, Freshness, Situation, freshness

Level = Literal["ok", "dim", "warning", "error"]
SYMBOLS = {"ok": "●", "degraded": "◐", "off": "○", "error": "✕", "warning": "▲", "stopped": "■"}
STYLES: dict[Level, str] = {"ok": "$ok", "dim": "$faint", "warning": "$warn", "error": "$bad bold"}
"""Styles by the variables that every theme of `rig.tui.themes` defines."""
LOW_BATTERY_PERCENT = 20


def data_text(text: str) -> str:
    """Make a string that came from outside fit to be shown on one line."""
    return " ".join(plain_text(text).split())


@dataclass(frozen=True)
class Cell:
    """One item of the status strip."""

    label: str
    symbol: str
    word: str
    detail: str = ""
    age_s: float | None = None
    level: Level = "ok"

    def text(self, *, details: bool, ages: bool) -> str:
        """Put it in words; a stale value shows its age however narrow the strip is."""
        parts = [self.label, self.symbol, self.word]
        if details and self.detail:
            parts.append(self.detail)
        aged = self.age_s is not None and math.isfinite(self.age_s)
        if self.age_s is not None and aged and (ages or freshness(self.age_s) is not Freshness.FRESH):
            parts.append(age_text(self.age_s))
        return " ".join(p for p in parts if p)


def age_text(age_s: float) -> str:
    """Write an age in a fixed form: ``0.1s``, ``12s``, ``4min``."""
    if not math.isfinite(age_s):
        return "never"
    if age_s > 3600:
        return "> 1 h"
    if age_s < 10:
        return f"{age_s:.1f}s"
    return f"{age_s:.0f}s" if age_s < 120 else f"{age_s / 60:.0f}min"


def duration_text(duration_s: float) -> str:
    """Write a duration: ``42 s`` or ``4 min 10 s``."""
    minutes, seconds = divmod(round(duration_s), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def strip_cells(s: Situation) -> list[Cell]:
    """List the status strip's items after STOP."""
    cells = [_rig_cell(s), *([] if s.link == "connected" else [_engine_cell(s)])]
    cells += [rail_cell(s), camera_cell(s), disk_cell(s), clock_cell(s)]
    if s.lag_s > LAG_S:
        cells.append(Cell("UI", SYMBOLS["degraded"], "skipping", level="warning"))
    return cells


def _rig_cell(s: Situation) -> Cell:
    simulated = s.state is not None and s.state.simulated
    mode = "" if s.state is None or s.link != "connected" else s.mode.value.upper()
    name = data_text(s.rig) + (" TWIN" if simulated else "")
    control = "" if s.in_control or s.link != "connected" else "OBSERVE"
    return Cell(
        name, "", " ".join(w for w in (mode, control) if w), level="ok" if s.in_control else "warning"
    )


def _engine_cell(s: Situation) -> Cell:
    if s.link == "starting":
        return Cell("ENGINE", SYMBOLS["off"], "starting", level="warning")
    return Cell("ENGINE", SYMBOLS["error"], "gone", age_s=s.state_age_s, level="error")


def rail_cell(s: Situation) -> Cell:
    """Describe the rail: what is known, how old it is, and silence as silence."""
    rail = None if s.state is None else s.state.rail
    if rail is None:
        return Cell("RAIL", SYMBOLS["off"], "off", level="dim")
    age_s = max(s.age_s(rail.t_host_s), 0.0 if s.link == "connected" else s.state_age_s)
    sign, word, detail, level = _rail_words(s, rail, freshness(age_s))
    return Cell("RAIL", SYMBOLS[sign], word, detail, age_s, level)


def _rail_words(s: Situation, rail: RailReading, fresh: Freshness) -> tuple[str, str, str, Level]:
    if fresh is not Freshness.FRESH and s.rail_rests:
        return "degraded", "rests", "", "dim"
    if fresh is Freshness.GONE:
        return "error", "gone", "", "error"
    if s.mode is EngineMode.LOCKED or rail.fault:
        return "error", "LOCKED", data_text(rail.fault), "error"
    if fresh is Freshness.STALE:
        return "degraded", "no answer", "", "warning"
    return _fresh_rail_words(rail)


def _fresh_rail_words(rail: RailReading) -> tuple[str, str, str, Level]:
    if rail.limits:
        return "warning", "limit", " ".join(rail.limits), "warning"
    if not rail.homed or rail.position_mm is None:
        return "warning", "not homed", "", "warning"
    return "ok", "homed", f"{rail.position_mm:.1f}mm", "ok"


def camera_cell(s: Situation) -> Cell:
    """Describe the camera; one that is gone is said to be gone, whatever it last said."""
    if s.state is None or not s.state.cameras:
        return Cell("CAM", SYMBOLS["off"], "off", level="dim")
    camera = next(iter(s.state.cameras.values()))
    age_s = s.age_s(camera.t_host_s)
    if not camera.connected:
        return Cell("CAM", SYMBOLS["error"], "gone", data_text(camera.text), age_s, "error")
    doubt = _camera_doubt(camera)
    if doubt:
        return Cell("CAM", SYMBOLS["warning"], doubt, "", age_s, "warning")
    battery = "" if camera.battery_percent is None else f"b:{camera.battery_percent}%"
    if freshness(age_s) is not Freshness.GONE:
        return Cell("CAM", SYMBOLS["ok"], "ok", battery, age_s)
    if s.session_runs:  # a camera that records answers nothing else
        return Cell("CAM", SYMBOLS["degraded"], "busy", battery, age_s, "dim")
    return Cell("CAM", SYMBOLS["degraded"], "no news", battery, age_s, "warning")


def _camera_doubt(camera: CameraReading) -> str:
    if camera.text:
        return data_text(camera.text)
    if camera.hot:
        return "hot"
    if camera.battery_percent is not None and camera.battery_percent < LOW_BATTERY_PERCENT:
        return f"battery {camera.battery_percent}%"
    return ""


def disk_cell(s: Situation) -> Cell:
    """Describe the disk, in rounds where their size is known."""
    if s.state is None:
        return Cell("DISK", SYMBOLS["off"], "unknown", level="dim")
    free_gb = s.state.disk_free_gb
    room = f"{free_gb:.0f}G" if free_gb >= 10 else f"{free_gb:.1f}G"
    if free_gb < s.reserve_gb:
        return Cell("DISK", SYMBOLS["error"], f"{room} full", level="error")
    if not s.round_gb:
        low = free_gb < 2 * s.reserve_gb
        return Cell("DISK", SYMBOLS["warning" if low else "ok"], room, level="warning" if low else "ok")
    rounds = int((free_gb - s.reserve_gb) / s.round_gb)
    if rounds <= 3:
        return Cell("DISK", SYMBOLS["warning"], f"{rounds} rounds left", level="warning")
    return Cell("DISK", SYMBOLS["ok"], room, f"≈{rounds} rounds" if rounds < 1000 else "")


def clock_cell(s: Situation) -> Cell:
    """Describe the wall clock; timing goes on without it."""
    if abs(s.clock_jump_s) < 1.0:
        return Cell("CLK", SYMBOLS["ok"], "ok")
    return Cell("CLK", SYMBOLS["warning"], f"{s.clock_jump_s:+.0f} s", level="warning")


def settings_text(settings: ExposureSettings) -> str:
    """Write camera settings in a photographer's short form."""
    parts = []
    if settings.iso is not None:
        parts.append(f"ISO {settings.iso}")
    if settings.f_number is not None:
        parts.append(f"f/{settings.f_number:g}")
    if settings.exposure_s is not None:
        parts.append(exposure_text(settings.exposure_s))
    if settings.focus_m is not None:
        parts.append(f"focus {settings.focus_m:g} m")
    if settings.white_balance is not None:
        parts.append(data_text(settings.white_balance))
    return "  ".join(parts) or "settings not read yet"


def exposure_text(exposure_s: float) -> str:
    """Write an exposure time: ``1/200 s`` or ``0.5 s``."""
    return f"1/{1 / exposure_s:.0f} s" if exposure_s < 0.3 else f"{exposure_s:g} s"


_BARS = " ▁▂▃▄▅▆▇█"


def bars(values: tuple[float, ...] | tuple[int, ...], width: int) -> str:
    """Draw values as a row of blocks, scaled to the largest; neighbours are summed to fit the width."""
    if not values or width <= 0:
        return ""
    edges = [round(k * len(values) / width) for k in range(width + 1)]
    heights = [sum(values[a : max(b, a + 1)]) for a, b in pairwise(edges)]
    top = max(heights) or 1
    return "".join(_BARS[max(1, round(8 * h / top)) if h else 0] for h in heights)


def preview_text(preview: Preview) -> str:
    """Write what was measured in a preview picture."""
    return f"clipped {preview.clipped_percent:.1f} %  sharp {preview.sharpness:.0f}  markers {preview.markers_seen}"


def mean_grey(preview: Preview) -> float:
    """Mean of the grey picture by its histogram, percent of full scale."""
    count = sum(preview.histogram)
    bins = len(preview.histogram)
    return (
        100 * sum((k + 0.5) * n for k, n in enumerate(preview.histogram)) / (count * bins) if count else 0.0
    )
