"""Follow the picture itself through a ground truth that shows no board.

A large window holds things at many depths, and a robust comparison follows now these, now those: its path jumps. So
many small windows are followed, most of which show one depth; those whose paths agree up to a factor, that of their
depth, become the targets. Where too few stay in view to agree, the middle of the picture is followed all the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.decode import Frame
from alignment.markers import Grey, Window
from alignment.photometry import ToneCurve
from alignment.picture import Picture
from alignment.tracking import ReferenceTracks, Target, TargetTrack, compare_window, cut_key

Array = NDArray[np.float64]

CANDIDATES = 24
"""Small windows that are followed."""
TARGETS = 8
"""The best of them that become targets."""
LEAST_AGREEING = 4
MIDDLE_PX = (384, 256)
_SIDE_PX = (48, 96)
"""Least and largest side of a small window; between them a fifth of the picture's height."""
_MARGIN_PX = 16
_STEP_PX = 24.0
"""Motion after which a new window is kept to track against."""
_SEARCH_PX = 8
_FIRST_SIGMA_PX = 0.02
_SEEN_SHARE, _LEAST_SEEN = 0.95, 3
_AGREEING_PX = 0.05
"""Deviation from the common path that is always allowed, standard deviation; noise and a little relief make it up."""
_WORST = 2.5
"""Deviation beyond the usual one that is allowed, as a multiple of it."""
_ROUNDS = 5


def follow_picture(frames: Iterable[Frame], *, count: int, tone: ToneCurve) -> ReferenceTracks:
    """Follow parts of the picture through a ground-truth round.

    Args:
        frames: All frames in order.
        count: How many.
        tone: How the camera coded light.

    Returns:
        Up to `TARGETS` targets, the one that agrees best with all others first, or the picture's middle alone. Paths
        are counted in px; their scale is unknown.
    """
    seekers: list[_Seeker] = []
    for frame in frames:
        grey = frame.grey()
        if not seekers:
            seekers = [_Seeker(_middle(grey), count, stays=True)]
            seekers += [_Seeker(window, count) for window in _structured(grey)]
        picture = Picture(grey, tone=tone)
        for seeker in seekers:
            seeker.look(frame.index, grey, picture)
    middle, *small = seekers
    agreeing = [small[i] for i in agreeing_paths([s.track for s in small])]
    chosen = agreeing[:TARGETS] if len(agreeing) >= LEAST_AGREEING else [middle]
    return ReferenceTracks([s.target for s in chosen], [s.track for s in chosen], tone)


class _Seeker:
    """Follows what a window of the first frame shows, by windows that are kept on its way.

    Args:
        window: In the first frame.
        count: Frames of the round.
        stays: Keep windows at that place whatever has moved there, instead of going with what was there.
    """

    def __init__(self, window: Window, count: int, *, stays: bool = False) -> None:
        self.target, self.track = Target("picture"), TargetTrack.empty(count)
        self._window, self._stays = window, stays
        self._start = np.array([window.x + (window.width - 1) / 2, window.y + (window.height - 1) / 2])
        self._anchor, self._step = self._start, np.zeros(2)

    def look(self, index: int, grey: Grey, picture: Picture) -> None:
        if not self.target.keys:
            self._keep(grey)
            self.track.put(index, self._anchor, sigma_px=_FIRST_SIGMA_PX, ncc=1.0)
            return
        key = self.target.keys[-1]
        found = compare_window(
            key, picture, self._anchor + self._step, tone=picture.tone, search_px=_SEARCH_PX
        )
        if found is None:
            self._step = np.zeros(2)
            return
        self._step, self._anchor = found.anchor_px - self._anchor, found.anchor_px
        self.track.put(index, found.anchor_px, sigma_px=found.sigma_px, ncc=found.ncc)
        if np.linalg.norm(self._anchor - key.anchor_px) >= _STEP_PX:
            self._keep(grey)

    def _keep(self, grey: Grey) -> None:
        x, y = (0, 0) if self._stays else np.rint(self._anchor - self._start).astype(int)
        size = (self._window.width, self._window.height)
        window = Window(self._window.x + int(x), self._window.y + int(y), *size)
        if window.clipped((grey.shape[1], grey.shape[0])) == window:
            self.target.keys.append(cut_key(grey, window, self._anchor))


def _middle(grey: Grey) -> Window:
    height, width = grey.shape
    inner = min(MIDDLE_PX[0], width - 2 * _MARGIN_PX), min(MIDDLE_PX[1], height - 2 * _MARGIN_PX)
    return Window((width - inner[0]) // 2, (height - inner[1]) // 2, *inner)


def _structured(grey: Grey) -> list[Window]:
    """Choose the cells of a grid in which a shift in any direction shows best."""
    height, width = grey.shape
    side = int(np.clip(height // 5, *_SIDE_PX))
    gradient = cv2.cornerMinEigenVal(grey, blockSize=7, ksize=3)
    corners = [
        (x, y)
        for y in range(_MARGIN_PX, height - side - _MARGIN_PX + 1, side)
        for x in range(_MARGIN_PX, width - side - _MARGIN_PX + 1, side)
    ]
    scores = [float(np.sqrt(gradient[y : y + side, x : x + side]).mean()) for x, y in corners]
    best = np.argsort(scores)[::-1][:CANDIDATES]
    return [Window(x, y, side, side) for x, y in (corners[i] for i in best)]


def agreeing_paths(tracks: Sequence[TargetTrack]) -> list[int]:
    """Choose the paths that are one motion up to a factor and an offset each, the best first.

    The common motion is found as the median of the paths, each brought to the others' scale; a path that jumps from
    one depth to another deviates from it.
    """
    looked_at = np.any([t.found for t in tracks], axis=0).sum()
    seen = [i for i, t in enumerate(tracks) if t.found.sum() >= max(_LEAST_SEEN, _SEEN_SHARE * looked_at)]
    if not seen:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # frames that nobody looked at have no median
        scale, off_px = _deviations(_along(np.array([tracks[i].anchor_px for i in seen])))
    usual_px = float(np.median(off_px))
    good = np.flatnonzero((off_px <= max(_AGREEING_PX, _WORST * usual_px)) & (scale > 0))
    return [seen[i] for i in good[np.argsort(off_px[good] / scale[good])]]


def _along(anchors: Array) -> Array:
    """Project ``(P, N, 2)`` anchors on the direction in which most of them go; ``(P, N)`` px, NaN where unseen."""
    off = anchors - np.nanmean(anchors, axis=1, keepdims=True)
    _, _, rows = np.linalg.svd(off[np.isfinite(off).all(axis=2)], full_matrices=False)
    return np.asarray(off @ rows[0], np.float64)


def _deviations(paths: Array) -> tuple[Array, Array]:
    """Fit every path as ``offset + scale · common``, the common one being the median of all.

    Returns:
        Scales relative to the median one, and standard deviations about the fits, px; ``(P,)`` each.
    """
    fits = np.column_stack([np.zeros(len(paths)), np.maximum(np.nanstd(paths, axis=1), 1e-9)])
    for _ in range(_ROUNDS):
        fits[:, 1] /= np.median(fits[:, 1])
        common = np.nanmedian((paths - fits[:, :1]) / fits[:, 1:], axis=0)
        fits = np.array([_line(common, path) for path in paths])
    off = paths - fits[:, :1] - fits[:, 1:] * common
    return fits[:, 1] / np.median(fits[:, 1]), np.asarray(np.nanstd(off, axis=1), np.float64)


def _line(x: Array, y: Array) -> Array:
    """Fit ``y = offset + slope · x`` where both are known; ``(2,)``."""
    both = np.isfinite(x) & np.isfinite(y)
    design = np.column_stack([np.ones(int(both.sum())), x[both]])
    return np.asarray(np.linalg.lstsq(design, y[both], rcond=None)[0], np.float64)
