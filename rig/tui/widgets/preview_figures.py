"""PreviewFigures: settings, histogram, clipping and sharpness of the preview."""

from __future__ import annotations

from rig.tui.situation import Freshness, Situation, freshness
from rig.tui.widgets.panel import Panel, Parts
from rig.tui.wording import age_text, bars, preview_text, settings_text

CLIPPED_PERCENT = 5.0
"""Above this share of clipped pixels the figures warn."""


class PreviewFigures(Panel):
    """Two or three lines under the picture."""

    def picture(self, situation: Situation) -> Parts:
        """Return settings, histogram and figures."""
        camera = None if situation.state is None else next(iter(situation.state.cameras.values()), None)
        if camera is None or not camera.connected:
            self.border_title = "Settings"
            return [("no settings: no camera", "$faint")]
        age_s = situation.age_s(camera.t_host_s)
        self.border_title = f"Settings · age {age_text(age_s)}"
        parts: Parts = [(f"{settings_text(camera.settings)}\n", _dimmed(age_s))]
        preview = situation.preview
        if preview is None or freshness(situation.age_s(preview.t_host_s)) is Freshness.GONE:
            return [*parts, ("no histogram: no picture", "$faint")]
        clipped = preview.clipped_percent > CLIPPED_PERCENT
        room = max(self.content_size.width - 2, 8)
        return [
            *parts,
            (bars(preview.histogram, min(32, room)) + "\n", "$lead"),
            ("▲ " if clipped else "", "$warn"),
            (preview_text(preview), "$warn" if clipped else _dimmed(situation.age_s(preview.t_host_s))),
        ]


def _dimmed(age_s: float) -> str:
    return "" if freshness(age_s) is Freshness.FRESH else "$faint"
