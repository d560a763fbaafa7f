"""Whether the picture before a degraded round is what it should be: numbers against the ground truth's."""

from __future__ import annotations

from rig.events import Preview
from rig.tui.wording import mean_grey

MORE_CLIPPED_PERCENT = 5.0
"""A picture that clips so many percent of its pixels more than GT is doubtful."""
LEAST_SHARPNESS_SHARE = 0.2
"""A picture less sharp than this share of GT's is doubtful: weather softens, a knocked focus ring does more."""


def compare(before: Preview | None, now: Preview | None) -> list[str]:
    """Return the numbers of GT and of the picture now, side by side."""
    if now is None:
        return ["no picture now"]
    if before is None:
        return [f"now  {_figures(now)}", "no GT picture to compare with"]
    return [f"GT   {_figures(before)}", f"now  {_figures(now)}"]


def doubts(before: Preview | None, now: Preview | None) -> list[str]:
    """Return what speaks against going on, empty when nothing does."""
    if before is None or now is None:
        return []
    found = []
    if now.clipped_percent > before.clipped_percent + MORE_CLIPPED_PERCENT:
        found.append(
            f"{now.clipped_percent:.0f} % of the picture is clipped, in GT {before.clipped_percent:.0f} %"
        )
    if before.sharpness > 0 and now.sharpness < LEAST_SHARPNESS_SHARE * before.sharpness:
        found.append("the picture is far less sharp than in GT: was the focus touched?")
    if before.markers_seen and not now.markers_seen:
        found.append("no marker is in view: was the camera moved?")
    return found


def _figures(p: Preview) -> str:
    light = f"mean {mean_grey(p):5.1f} %  clipped {p.clipped_percent:4.1f} %"
    return f"{light}  sharpness {p.sharpness:6.0f}  markers {p.markers_seen}"
