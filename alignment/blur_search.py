"""Find how much more blurred a degraded frame is than its ground truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.blur import blur_light
from alignment.camera_motion import Array, at_scale, inverted
from alignment.level_pair import TILE_PX
from alignment.picture import NO_BLUR, Picture, smooth
from alignment.tiles import IN_PLACE, TileGrid, compare_tiles
from catalog.evidence import BlurRecord

_SCALE = 2
_SMOOTHING_PX = 0.5
"""Before tiles are sampled, which makes it 0.7 px."""
Family = Literal["disc", "motion"]

_SIZES_PX: dict[Family, tuple[float, ...]] = {
    "disc": (0.8, 1.4, 2.2, 3.4, 5.0, 7.5, 11.0),
    "motion": (2.0, 3.5, 6.0, 9.0, 14.0, 21.0, 32.0),
}
"""Of the two families, sizes of the same number spread about as much along x."""
_CLOSING_STEPS = 3
_CLOSING_TOLERANCE = 0.02
"""Of the logarithm of a size: 2 %."""
_CORRELATED_PX = 10.0
"""Pixels of the smoothed half-size frame that share one independent value."""
_ALIKE = 0.99999
_CLEAR_EXCESS = 10.0
"""Least log-likelihood ratio at which a blur is believed."""
_CLEAR_GAIN = 0.01
"""Least gain of the score itself: blurring the ground truth also takes its noise away, which gains 0.4 %."""
_BANDS = 3
_BAND_TILES = 6
"""Rows of tiles in a band, of which the first and the last only feed the blur of the others."""


class BlurSearch:
    """Likelihood of a blur, given where the frames lie on each other.

    Args:
        gt: The ground truth.
        lq: The degraded frame.
        homography: Ground truth to degraded, full px, good to about half a pixel.
        exposure: Light of the degraded frame over that of the ground truth.
    """

    def __init__(self, gt: Picture, lq: Picture, *, homography: Array, exposure: float) -> None:
        self._tone, self._exposure = lq.tone, exposure
        whole = TileGrid.over(lq.size, scale=_SCALE, tile_px=TILE_PX[_SCALE])
        rows, judged = _banded_rows(whole.rows)
        back = inverted(homography)
        inside = whole.inside(back, gt.size, margin_px=2.0 * _SCALE).reshape(whole.rows, whole.columns)
        self._usable = (inside[rows] & judged[:, None]).ravel()
        self._grid = replace(whole, y0=0, rows=len(rows))
        lq_plane = lq.reduced(_SCALE)
        # Cubic is out of the question for positions, but half a sharp pixel of bilinear looks like blur.
        light = cv2.warpPerspective(
            gt.tone.light(gt.reduced(_SCALE)),
            at_scale(back, _SCALE),
            (lq_plane.shape[1], lq_plane.shape[0]),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        lines = (whole.y0 + whole.tile_px * rows[:, None] + np.arange(whole.tile_px)).ravel()
        self._light = np.asarray(light[lines], np.float32)
        self._lq = smooth(lq_plane[lines], _SMOOTHING_PX)
        self._known: dict[BlurRecord, float] = {}

    def score(self, blur: BlurRecord) -> float:
        """Log-likelihood per tile: every tile has its own unknown gain, offset and noise; 0 where no tile counts."""
        if blur not in self._known:
            light = blur_light(self._light, blur, scale=_SCALE)
            plane = smooth(self._tone.codes(light, exposure=self._exposure), _SMOOTHING_PX)
            tiles = compare_tiles(plane, IN_PLACE, self._lq, IN_PLACE, self._grid)
            rho = tiles.correlation[self._usable]
            gained = np.log1p(-(np.clip(rho, 0, _ALIKE) ** 2)).sum()
            self._known[blur] = float(-0.5 * gained / max(rho.size, 1))
        return self._known[blur]

    def climb(self, kind: Family, *, start: int, floor: float) -> int | None:
        """Go from one size of a family to its neighbours while the score rises.

        Args:
            kind: The family.
            start: Number of the size to start at.
            floor: Score to beat there.

        Returns:
            Number of the best size; None if the first one does not beat ``floor``.
        """
        if self._score_of(kind, start) <= floor:
            return None
        top = start
        for step in (1, -1):
            while self._rises(kind, top, step):
                top += step
        return top

    def _rises(self, kind: Family, number: int, step: int) -> bool:
        following = number + step
        inside = 0 <= following < len(_SIZES_PX[kind])
        return inside and self._score_of(kind, following) > self._score_of(kind, number)

    def _score_of(self, kind: Family, number: int) -> float:
        return self.score(_blur(kind, _SIZES_PX[kind][number]))

    def clear(self, blur: BlurRecord) -> bool:
        """Tell whether a blur is clearly more likely than none, over the whole frame."""
        independent = self._grid.tile_px**2 / _CORRELATED_PX * np.count_nonzero(self._usable)
        none = self.score(NO_BLUR)
        return self.score(blur) - none > max(_CLEAR_EXCESS / max(independent, 1.0), _CLEAR_GAIN * none)

    def close_in(self, kind: Family, number: int) -> BlurRecord:
        """Find the best size between the neighbours of one of a family's."""
        from scipy.optimize import minimize_scalar

        sizes_px = (_SIZES_PX[kind][0] / 2, *_SIZES_PX[kind], _SIZES_PX[kind][-1] * 1.5)
        at = number + 1
        found = minimize_scalar(
            lambda log_size: -self.score(_blur(kind, float(np.exp(log_size)))),
            bounds=(np.log(sizes_px[at - 1]), np.log(sizes_px[at + 1])),
            method="bounded",
            options={"maxiter": _CLOSING_STEPS, "xatol": _CLOSING_TOLERANCE},
        )
        return _blur(kind, float(np.exp(found.x)))


def find_blur(gt: Picture, lq: Picture, *, homography: Array, exposure: float = 1.0) -> BlurRecord:
    """Find the blur to add to the ground truth: none, a disc (defocus) or a horizontal box (motion).

    Args:
        gt: The ground truth.
        lq: The degraded frame.
        homography: Ground truth to degraded, full px, good to about half a pixel.
        exposure: Light of the degraded frame over that of the ground truth.

    Returns:
        The most likely blur; none unless a blur is clearly more likely than none.
    """
    search = BlurSearch(gt, lq, homography=homography, exposure=exposure)
    best: tuple[Family, int] | None = None
    floor = search.score(NO_BLUR)
    for kind in _SIZES_PX:
        found = search.climb(kind, start=best[1] if best else 0, floor=floor)
        if found is not None:
            best, floor = (kind, found), search.score(_blur(kind, _SIZES_PX[kind][found]))
    if best is None or not search.clear(_blur(best[0], _SIZES_PX[best[0]][best[1]])):
        return NO_BLUR
    return search.close_in(*best)


def _banded_rows(count: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Choose rows of tiles in bands across the frame, and tell which of them count; all where there are few."""
    if count <= _BANDS * _BAND_TILES:
        return np.arange(count), np.ones(count, bool)
    starts = np.linspace(0, count - _BAND_TILES, _BANDS).round().astype(int)
    inner = (np.arange(_BAND_TILES) > 0) & (np.arange(_BAND_TILES) < _BAND_TILES - 1)
    return (starts[:, None] + np.arange(_BAND_TILES)).ravel(), np.tile(inner, _BANDS)


def _blur(kind: Family, size_px: float) -> BlurRecord:
    return BlurRecord(kind=kind, size_px=size_px)
