"""How the blur changes over a picture: what lies nearer or farther than most is blurred more, or less.

A search finds the blur of most of the picture. How much more of it a tile has shows in how much of the ground truth's
bend is left there (`alignment.tiles`): to first order, blurring by a variance adds half of it times the bend.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from alignment.blur import blur_light, variance_px2
from alignment.camera_motion import Array
from alignment.photometry import Plane
from alignment.robust_fit import Flags
from alignment.tiles import TileGrid, TileStatistics
from catalog.evidence import BlurRecord

_LEAST_TIMES, _MOST_TIMES = 1 / 8, 3.0
"""Variance of the blur, in units of what it is over most of the picture."""
_REACH_TILES = 1.5
"""Radius of the Gaussian over which tiles tell their blur together."""
_LEAST_WEIGHT = 0.05
"""A picture blurred more, or less, is not made where it would nowhere count for more than this."""


@dataclass(frozen=True, eq=False)
class BlurField:
    """Variance of the blur, tile by tile of the degraded frame."""

    grid: TileGrid
    times: Plane
    """``(rows, columns)`` float32, in units of the blur's over most of the picture, 1/8..3."""
    homography: Array
    """``(3, 3)``: pixel of the ground truth to pixel of the degraded frame."""

    @classmethod
    def of(
        cls, tiles: TileStatistics, usable: Flags, grid: TileGrid, *, homography: Array, blur: BlurRecord
    ) -> BlurField:
        """Read the field off tiles that were compared under one blur; where they tell little, it stays that one."""
        usual = variance_px2(blur)
        weight = np.where(usable, tiles.extra_blur_information, 0.0)
        extra = _around(weight * tiles.extra_blur_px2, grid) / (_around(weight, grid) + 1 / usual**2)
        return cls(grid, np.clip(1 + extra / usual, _LEAST_TIMES, _MOST_TIMES).astype(np.float32), homography)

    def blurred(self, light: Plane, blur: BlurRecord, *, scale: int = 1) -> Plane:
        """Blur the ground truth's light ``(H, W)`` by a blend of three blurs of that variance.

        Args:
            light: Reduced ``scale`` times.
            blur: That of most of the picture, as the field was read off under.
            scale: How often ``light`` was reduced.
        """
        found = blur_light(light, blur, scale=scale)
        for times in (_LEAST_TIMES, _MOST_TIMES):
            share = np.maximum((self.times - 1) / np.float32(times - 1), np.float32(0))
            if share.max() > _LEAST_WEIGHT:
                size_px = blur.size_px * float(np.sqrt(times))
                other = blur_light(light, blur.model_copy(update={"size_px": size_px}), scale=scale)
                weight = self._interpolated(share, (light.shape[1], light.shape[0]), scale)
                found = np.asarray(cv2.blendLinear(found, other, 1 - weight, weight), np.float32)
        return found

    def _interpolated(self, share: Plane, size: tuple[int, int], scale: int) -> Plane:
        """Interpolate between tiles at the pixels of the reduced ground truth, ``(H, W)``."""
        first, side = self.grid.centres_px()[0], self.grid.side_px()
        middle = (scale - 1) / 2
        to_full = np.array([[scale, 0, middle], [0, scale, middle], [0, 0, 1.0]])
        to_tiles = np.array([[1, 0, -first[0]], [0, 1, -first[1]], [0, 0, side]]) @ self.homography @ to_full
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        found = cv2.warpPerspective(share, to_tiles, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float32)


def _around(values: Array, grid: TileGrid) -> Array:
    plane = values.reshape(grid.rows, grid.columns)
    return np.asarray(
        cv2.GaussianBlur(plane, (0, 0), _REACH_TILES, borderType=cv2.BORDER_CONSTANT), np.float64
    )
