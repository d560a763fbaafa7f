"""What one movement of the camera leaves unexplained, tile by tile: parallax, moving things, lens differences."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Array
from alignment.photometry import Mask
from alignment.robust_fit import Fit, Flags
from alignment.tiles import TileGrid, TileStatistics

MEASURABLE_SIGMA_PX = 0.1
"""A tile counts in the local percentiles if its own shift is known better than this."""
_MOVED_PX = 0.5
_MOVED_SIGMAS = 4.0
"""A tile moved on its own if it is out by both of these and has no say in the model."""
_FOREIGN_SHARE = 0.5
_FOREIGN_TIMES = 16.0
"""A tile shows something more if the truth leaves over half of it, and this many times what it leaves elsewhere."""
_HIDDEN_TIMES = 3.0
_LOST_CORRELATION = 0.4
"""A tile has lost what should be in it if three times the usual noise could not correlate so little: 0.87."""
_LEAST_TILES = 3
"""Smallest group of tiles that counts as a thing that moved; fewer are chance."""


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Leftover shift of ``K`` tiles, in px of the full frame."""

    grid: TileGrid
    centres_px: Array
    """``(K, 2)`` in the degraded frame."""
    innovation_px: Array
    """``(K, 2)`` dx, dy: how much further the tile moved than the model says."""
    sigma_px: Array
    """``(K,)`` standard deviation of either component."""
    inlier: Flags
    """``(K,)``: the tile has a say in the model."""
    foreign: Flags
    """``(K,)``: the tile shows something else than the ground truth does."""
    measured: Flags
    """``(K,)``: the tile lies in both frames."""

    @property
    def masked_share(self) -> float:
        """Share of the measured tiles that are foreign."""
        return int(np.count_nonzero(self.foreign)) / max(int(np.count_nonzero(self.measured)), 1)

    @property
    def magnitude_px(self) -> Array:
        """``(K,)`` length of the leftover shift."""
        return np.asarray(np.hypot(*self.innovation_px.T), np.float64)

    def percentile_px(self, percent: float) -> float | None:
        """Percentile of the leftover shift over tiles that can measure it and are not foreign."""
        good = self.measured & ~self.foreign & (self.sigma_px < MEASURABLE_SIGMA_PX)
        return float(np.percentile(self.magnitude_px[good], percent)) if np.any(good) else None

    def trust_mask(self, size: tuple[int, int]) -> Mask:
        """Draw the foreign tiles and their neighbours as 0 into a mask of ``size`` (width, height) of 255."""
        grid, side = self.grid, self.grid.side_px()
        foreign = self.foreign.reshape(grid.rows, grid.columns).astype(np.uint8)
        grown = cv2.dilate(foreign, np.ones((3, 3), np.uint8))
        mask = np.full((size[1], size[0]), 255, np.uint8)
        left, top = grid.x0 * grid.scale, grid.y0 * grid.scale
        for row, column in np.argwhere(grown):
            mask[
                top + row * side : top + (row + 1) * side, left + column * side : left + (column + 1) * side
            ] = 0
        return mask


def local_map(grid: TileGrid, tiles: TileStatistics, fit: Fit) -> LocalMap:
    """Collect what a converged fit leaves of every tile."""
    usable = fit.usable
    trace = np.maximum(np.trace(tiles.information, axis1=1, axis2=2), 1e-12)
    sigma = np.sqrt(fit.inflation * trace / 2 / np.maximum(np.linalg.det(tiles.information), 1e-24))
    length = np.hypot(*fit.innovation.T)
    moved = (length > np.maximum(_MOVED_PX, _MOVED_SIGMAS * sigma)) & (fit.weight == 0)
    strange, lost = unexplained_content(tiles, usable, grid)
    foreign = _compact(usable & (moved | lost), usable & (moved | lost | strange), grid)
    return LocalMap(
        grid=grid,
        centres_px=grid.centres_px(),
        innovation_px=fit.innovation,
        sigma_px=np.minimum(sigma, 1e3),
        inlier=fit.weight > 0,
        foreign=foreign,
        measured=usable,
    )


def unexplained_content(tiles: TileStatistics, usable: Flags, grid: TileGrid) -> tuple[Flags, Flags]:
    """Find tiles whose content the ground truth does not explain, though noise would not hide it.

    A thing that moved leaves tiles without correlation; their shift is then unknown, not large.

    Returns:
        Tiles that show something more than the ground truth, such as rain; tiles that no longer show what the
        ground truth shows.
    """
    usual = float(np.median(tiles.residual_variance[usable]))
    unexplained = tiles.residual_variance / np.maximum(tiles.lq_variance, 1e-9)
    hidden = _local_gain(tiles, usable, grid) ** 2 * tiles.gt_variance
    strange = (tiles.residual_variance > _FOREIGN_TIMES * usual) & (unexplained > _FOREIGN_SHARE)
    lost = (hidden > _HIDDEN_TIMES * usual) & (tiles.correlation < _LOST_CORRELATION)
    return np.asarray(strange, np.bool_), np.asarray(lost, np.bool_)


def _local_gain(tiles: TileStatistics, usable: Flags, grid: TileGrid) -> NDArray[np.float64]:
    """Median gain of a tile's neighbourhood: haze and shadow change it slowly."""
    gain = np.where(usable, tiles.gain, np.median(tiles.gain[usable])).astype(np.float32)
    smoothed = cv2.medianBlur(gain.reshape(grid.rows, grid.columns), 5)
    return np.asarray(smoothed, np.float64).ravel()


def _compact(sure: Flags, likely: Flags, grid: TileGrid) -> Flags:
    """Keep groups of three sure tiles or more, and the solid groups of likely ones that rain does not make."""
    shape = (grid.rows, grid.columns)
    block = np.ones((3, 3), np.uint8)
    solid = cv2.morphologyEx(likely.reshape(shape).astype(np.uint8), cv2.MORPH_OPEN, block)
    either = cv2.bitwise_or(sure.reshape(shape).astype(np.uint8), solid)
    image = cv2.morphologyEx(either, cv2.MORPH_CLOSE, block)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
    large = np.zeros(count, bool)
    large[1:] = stats[1:, cv2.CC_STAT_AREA] >= _LEAST_TILES
    return np.asarray(large[labels].ravel(), np.bool_)
