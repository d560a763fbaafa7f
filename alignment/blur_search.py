"""Find how much more blurred a degraded frame is than its ground truth."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from alignment.blur import blur_light
from alignment.camera_motion import Array, at_scale, inverted
from alignment.level_pair import TILE_PX
from alignment.picture import NO_BLUR, Picture, reduce_plane, smooth
from alignment.tiles import CentredPlane, TileGrid, tile_correlation
from catalog.evidence import BlurRecord

_SCALE = 2
_SMOOTHING_PX = 0.7
Family = Literal["disc", "motion"]

_SIZES_PX: dict[Family, tuple[float, ...]] = {
    "disc": (0.8, 1.4, 2.2, 3.4, 5.0, 7.5, 11.0),
    "motion": (2.0, 3.5, 6.0, 9.0, 14.0, 21.0, 32.0),
}
_CLOSING_STEPS = 6
_CORRELATED_PX = 10.0
"""Pixels of the smoothed half-size frame that share one independent value."""
_ALIKE = 0.99999
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
        self._tone, self._exposure = lq.tone, exposure
        self._grid = TileGrid.over(lq.size, scale=_SCALE, tile_px=TILE_PX[_SCALE])
        back = inverted(homography)
        self._usable = self._grid.inside(back, gt.size, margin_px=2.0 * _SCALE)
        lq_plane = lq.reduced(_SCALE)
        self._lq = CentredPlane.of(self._grid.crop(smooth(lq_plane, _SMOOTHING_PX)), self._grid)
        # Cubic is out of the question for positions, but half a sharp pixel of bilinear looks like blur.
        self._light = cv2.warpPerspective(
            reduce_plane(gt.light, _SCALE),
            at_scale(back, _SCALE),
            (lq_plane.shape[1], lq_plane.shape[0]),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        self._known: dict[BlurRecord, float] = {}

    def score(self, blur: BlurRecord) -> float:
        """Log-likelihood per tile: every tile has its own unknown gain, offset and noise."""
        if blur not in self._known:
            light = blur_light(np.asarray(self._light, np.float32), blur, scale=_SCALE)
            plane = smooth(self._tone.codes(light, exposure=self._exposure), _SMOOTHING_PX)
            rho = tile_correlation(self._grid.crop(plane), self._lq, self._grid)[self._usable]
            self._known[blur] = float(-0.5 * np.mean(np.log1p(-(np.clip(rho, 0, _ALIKE) ** 2))))
        return self._known[blur]

    def scan(self, kind: Family) -> float:
        """Try the sizes of one family in rising order until the score falls; return the best, px."""
        sizes_px = _SIZES_PX[kind]
        top = 0
        for index in range(1, len(sizes_px)):
            if self.score(_blur(kind, sizes_px[index])) <= self.score(_blur(kind, sizes_px[top])):
                break
            top = index
        return sizes_px[top]

    def excess(self, blur: BlurRecord, over: BlurRecord) -> float:
        """Log-likelihood ratio of two blurs over the whole frame."""
        independent = self._grid.tile_px**2 / _CORRELATED_PX * np.count_nonzero(self._usable)
        return float(independent * (self.score(blur) - self.score(over)))

    def close_in(self, kind: Family, size_px: float) -> BlurRecord:
        """Find the best size between the neighbours of a scanned one."""
        from scipy.optimize import minimize_scalar

        sizes_px = (_SIZES_PX[kind][0] / 2, *_SIZES_PX[kind], _SIZES_PX[kind][-1] * 1.5)
        at = sizes_px.index(size_px)
        found = minimize_scalar(
            lambda log_size: -self.score(_blur(kind, float(np.exp(log_size)))),
            bounds=(np.log(sizes_px[at - 1]), np.log(sizes_px[at + 1])),
            method="bounded",
            options={"maxiter": _CLOSING_STEPS},
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
    scanned: dict[Family, float] = {kind: search.scan(kind) for kind in _SIZES_PX}
    kind = max(scanned, key=lambda k: search.score(_blur(k, scanned[k])))
    if search.excess(_blur(kind, scanned[kind]), NO_BLUR) <= _CLEAR_EXCESS:
        return NO_BLUR
    return search.close_in(kind, scanned[kind])


def _blur(kind: Family, size_px: float) -> BlurRecord:
    return BlurRecord(kind=kind, size_px=size_px)
