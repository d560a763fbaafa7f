"""The camera's angles over the session: a mount that gives way shows as a slow turn from round to round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Pinhole, angles_and_scale
from alignment.report_axes import INNER, LEFT, Box, Drawing, Figure, Panel, spread
from alignment.report_source import ReportSource, RoundSource
from alignment.report_words import number

Array = NDArray[np.float64]

_ANGLES = ("pitch", "yaw", "roll")
_LONGEST_NAME = 14
_MARGIN = 0.06
"""Room between rounds, as a share of a round's width."""


def pose_figure(source: ReportSource) -> Figure | None:
    """Draw pitch, yaw and roll of every accepted pair in the order of recording, against the ground truth's camera."""
    focal_px = source.alignment.focal_px if source.alignment else None
    rounds = [r for r in source.degraded if any(p.homography for p in r.accepted)]
    if focal_px is None or not rounds:
        return None
    tracks = [_angles(r, focal_px) for r in rounds]
    caption = _caption(rounds, tracks)
    drawing = Drawing("pose", 290, title="Camera angles over the session", description=caption)
    entries = [(f"dot{k}", f"dot s{k}", name) for k, name in enumerate(_ANGLES)]
    y = drawing.legend(14, entries, left_px=LEFT)
    box = Box(LEFT, y + 14, INNER, 290 - y - 54)
    everything = np.concatenate([angles.ravel() for _, angles in tracks])
    panel = Panel(drawing, box, x=(0.0, float(len(rounds))), y=spread(everything, floor=0.002))
    numbers = [(k + 0.5, _shortened(r.name)) for k, r in enumerate(rounds)]
    panel.axes("round, pairs by time", "degrees against the ground truth", y_ticks=5, x_numbers=numbers)
    for k, (place, angles) in enumerate(tracks):
        if k:
            panel.rule("grid", x=float(k))
        for axis in range(len(_ANGLES)):
            panel.dots(k + place, angles[:, axis], f"dot faint s{axis}", kind=axis)
    return Figure("Camera angles", drawing.markup(), caption)


def _angles(round_: RoundSource, focal_px: float) -> tuple[Array, Array]:
    """Places in 0..1 by time and ``(N, 3)`` angles in degrees of a round's pairs."""
    camera = round_.valid.camera if round_.valid else None
    width, height = (camera.width, camera.height) if camera else (1920, 1080)
    pairs = sorted((p for p in round_.accepted if p.homography), key=lambda p: p.lq.time_s)
    pinhole = Pinhole(focal_px, width, height)
    angles = [angles_and_scale(np.asarray(p.homography, np.float64), pinhole)[0] for p in pairs]
    time = np.array([p.lq.time_s for p in pairs], np.float64)
    share = (time - time[0]) / max(float(time[-1] - time[0]), 1e-9)
    return _MARGIN + (1 - 2 * _MARGIN) * share, np.asarray(angles, np.float64)


def _caption(rounds: Sequence[RoundSource], tracks: Sequence[tuple[Array, Array]]) -> str:
    middles = np.array([np.median(angles, axis=0) for _, angles in tracks])
    reach = np.ptp(middles, axis=0)
    words = ", ".join(f"{name} {number(float(r), 4)}°" for name, r in zip(_ANGLES, reach, strict=True))
    if len(rounds) == 1:
        return "A slow turn within the round tells of a loose mount. A shift along the rail looks like a little yaw."
    return f"Medians of the rounds differ by {words}. A slow turn from round to round tells of a loose mount."


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
