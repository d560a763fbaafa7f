"""Find how much more blurred a degraded frame is than its ground truth."""

from __future__ import annotations

from typing import Literal

import numpy as np

from alignment.camera_motion import Array, at_scale, inverted
from alignment.level_pair import TILE_PX, warp_onto_tiles
from alignment.picture import NO_BLUR, MatchedTruth, Picture, smooth
from alignment.tiles import CentredPlane, TileGrid, compare_tiles
from catalog.evidence import BlurRecord

_SCALE = 2
_SMOOTHING_PX = 0.7
_SIZES_PX = {
    "disc": (0.8, 1.4, 2.2, 3.4, 5.0, 7.5, 11.0),
    "motion": (2.0, 3.5, 6.0, 9.0, 14.0, 21.0, 32.0),
}
_CLOSING_STEPS = 6
_CORRELATED_PX = 10.0
"""Pixels of the smoothed half-size frame that share one independent value."""
_CLEAR_EXCESS = 10.0
"""Least log-likelihood ratio at which a blur is believed."""


class BlurSearch:
    """Likelihood of a blur, given where the frames lie on each other.

    Args:
        gt: The ground truth.
        lq: The degraded frame.
        homography: Ground truth to degraded, full px, good to about half a pixel.
        exposure: Light of the degraded frame over that of the ground truth.
    """

    def __init__(self, gt: Picture, lq: Picture, *, homography: Array, exposure: float) -> None:
        self._gt, self._tone, self._exposure = gt, lq.tone, exposure
        self._grid = TileGrid.over(lq.size, scale=_SCALE, tile_px=TILE_PX[_SCALE])
        back = inverted(homography)
        self._usable = self._grid.inside(back, gt.size, margin_px=2.0 * _SCALE)
        self._to_truth = at_scale(back, _SCALE)
        lq_plane = smooth(lq.reduced(_SCALE), _SMOOTHING_PX)
        self._lq = CentredPlane.of(self._grid.crop(lq_plane), self._grid)
        self._known: dict[BlurRecord, float] = {}

    def score(self, blur: BlurRecord) -> float:
        """Log-likelihood per tile: every tile has its own unknown gain, offset and noise."""
        if blur not in self._known:
            truth = MatchedTruth(self._gt, tone=self._tone, blur=blur, exposure=self._exposure)
            plane = smooth(truth.reduced(_SCALE), _SMOOTHING_PX)
            warped = warp_onto_tiles(plane, self._to_truth, self._grid)
            rho = compare_tiles(warped, self._lq, self._grid).correlation[self._usable]
            self._known[blur] = float(-0.5 * np.mean(np.log1p(-(np.clip(rho, 0, 0.99999) ** 2))))
        return self._known[blur]

    def best(self, kind: Literal["disc", "motion"]) -> BlurRecord:
        """Scan the sizes of one family until the score falls, then close in on the best one."""
        sizes = _SIZES_PX[kind]
        top = 0
        for index in range(1, len(sizes)):
            if self._score_of(kind, sizes[index]) <= self._score_of(kind, sizes[top]):
                break
            top = index
        return self._close_in(kind, sizes[max(top - 1, 0)], sizes[min(top + 1, len(sizes) - 1)])

    def excess(self, blur: BlurRecord, over: BlurRecord) -> float:
        """Log-likelihood ratio of two blurs over the whole frame."""
        independent = self._grid.tile_px**2 / _CORRELATED_PX * np.count_nonzero(self._usable)
        return float(independent * (self.score(blur) - self.score(over)))

    def _close_in(self, kind: Literal["disc", "motion"], low_px: float, high_px: float) -> BlurRecord:
        from scipy.optimize import minimize_scalar

        found = minimize_scalar(
            lambda log_size: -self._score_of(kind, float(np.exp(log_size))),
            bounds=(np.log(low_px), np.log(high_px)),
            method="bounded",
            options={"maxiter": _CLOSING_STEPS},
        )
        return BlurRecord(kind=kind, size_px=float(np.exp(found.x)))

    def _score_of(self, kind: Literal["disc", "motion"], size_px: float) -> float:
        return self.score(BlurRecord(kind=kind, size_px=size_px))


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
    rivals = [search.best("disc"), search.best("motion")]
    best = max(rivals, key=search.score)
    return best if search.excess(best, NO_BLUR) > _CLEAR_EXCESS else NO_BLUR
