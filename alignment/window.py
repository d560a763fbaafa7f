"""Track a window of the ground truth, such as a marker board, in a degraded frame without decoding anything.

In the ground truth the board is decoded once; in the degraded rounds its identity is known and only the
shift is wanted. Measured over eight degradations, tracking is at least as good as decoding and never fails
where decoding does (defocus, motion blur).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from alignment.camera_motion import Array, Pinhole, inverted
from alignment.errors import NoOverlapError
from alignment.level_pair import ForwardPair, refine
from alignment.photometry import Plane
from alignment.picture import DIMMED, NO_BLUR, MatchedTruth, Picture
from catalog.evidence import BlurRecord

Window = tuple[int, int, int, int]

_MARGIN_PX = 8
"""Ground truth kept around the window, for the last pixels of the shift and the reach of the smoothing."""
_LEAST_SIDE_PX = 32
_TOLERANCE_PX = 0.003


@dataclass(frozen=True, eq=False)
class WindowTrack:
    """Where a window of the ground truth lies in a degraded frame."""

    shift_px: tuple[float, float]
    """dx, dy: position in the degraded frame less position in the ground truth."""
    covariance: Array
    """``(2, 2)`` px²."""
    ncc: float
    """Median correlation of the window's inlier tiles."""
    inlier_share: float
    """Share of the window's tiles that have a say."""
    converged: bool


def track_window(
    gt: Picture,
    lq: Picture,
    *,
    window: Window,
    initial_shift_px: tuple[float, float],
    blur: BlurRecord | None = None,
    search_px: int = 6,
) -> WindowTrack:
    """Find the shift of a window.

    Args:
        gt: Ground truth.
        lq: Degraded frame.
        window: x, y, width, height in ``gt``; at least 32 px each way.
        initial_shift_px: Predicted dx, dy.
        blur: Blur of ``lq`` over ``gt``; None for none.
        search_px: How far from the prediction to look, either way, px.

    Raises:
        NoOverlapError: The window, so shifted, leaves less than 32 px in either frame.
        NoCommonStructureError: The window shows too little structure in common.
    """
    start = (round(initial_shift_px[0]), round(initial_shift_px[1]))
    shift = _whole_shift(gt, lq, window, start, search_px)
    seen = _inside(_inside(window, gt.size, (0, 0)), lq.size, shift)
    around = _inside(_grown(seen, _MARGIN_PX), gt.size, (0, 0))
    lq_part = lq.part(_moved(seen, shift))
    truth = _matched(gt.part(around), lq_part, blur or NO_BLUR)
    pair = ForwardPair(truth, lq_part, scale=1, tile_px=32 if min(seen[2:]) >= 4 * 32 else 16)
    camera = Pinhole(focal_px=1000.0, width=seen[2], height=seen[3])
    origin = np.array([[1, 0, around[0] - seen[0]], [0, 1, around[1] - seen[1]], [0, 0, 1.0]])
    found = refine(pair, origin, camera=camera, model="shift", tolerance_px=_TOLERANCE_PX)
    rest = found.homography[:2, 2] - origin[:2, 2]
    good = found.fit.weight > 0
    return WindowTrack(
        shift_px=(float(shift[0] + rest[0]), float(shift[1] + rest[1])),
        covariance=inverted(found.fit.normal) * found.fit.inflation,
        ncc=float(np.median(found.tiles.correlation[good])),
        inlier_share=float(np.mean(good)),
        converged=found.converged,
    )


def _whole_shift(
    gt: Picture, lq: Picture, window: Window, start: tuple[int, int], search_px: int
) -> tuple[int, int]:
    """Best whole-pixel shift within the search range by normalised correlation."""
    seen = _inside(_inside(window, gt.size, (0, 0)), lq.size, start)
    inner = _grown(seen, -search_px) if min(seen[2:]) > 2 * search_px + _LEAST_SIDE_PX else seen
    around = _inside(_grown(inner, search_px), lq.size, start)
    template = gt.part(inner).level(1)
    score = cv2.matchTemplate(lq.part(_moved(around, start)).level(1), template, cv2.TM_CCOEFF_NORMED)
    row, column = np.unravel_index(int(np.argmax(score)), score.shape)
    return start[0] + int(column) + around[0] - inner[0], start[1] + int(row) + around[1] - inner[1]


def _matched(gt: Picture, lq: Picture, blur: BlurRecord) -> MatchedTruth:
    ratio = _mean_light(lq, lq.grey) / max(_mean_light(gt, gt.grey), 1e-4)
    return MatchedTruth(gt, tone=lq.tone, blur=blur, exposure=ratio if ratio < DIMMED else 1.0)


def _mean_light(picture: Picture, plane: Plane) -> float:
    return float(picture.tone.light(np.array([plane.mean()], np.float32))[0])


def _inside(window: Window, size: tuple[int, int], shift: tuple[int, int]) -> Window:
    """Cut a window so that, shifted, it lies in a frame of ``size`` px; in its own coordinates."""
    x0, y0 = max(window[0], -shift[0]), max(window[1], -shift[1])
    x1 = min(window[0] + window[2], size[0] - shift[0])
    y1 = min(window[1] + window[3], size[1] - shift[1])
    if min(x1 - x0, y1 - y0) < _LEAST_SIDE_PX:
        raise NoOverlapError(f"window {window} moved by {shift} px leaves too little in a frame of {size} px")
    return x0, y0, x1 - x0, y1 - y0


def _grown(window: Window, by_px: int) -> Window:
    return window[0] - by_px, window[1] - by_px, window[2] + 2 * by_px, window[3] + 2 * by_px


def _moved(window: Window, shift: tuple[int, int]) -> Window:
    return window[0] + shift[0], window[1] + shift[1], window[2], window[3]
