"""What one movement of the camera leaves unexplained, tile by tile: parallax, moving things, lens differences."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from alignment.camera_motion import Array
from alignment.foreign_content import foreign_tiles
from alignment.photometry import Mask, ToneCurve
from alignment.robust_fit import CHI_SQUARE_MEDIAN, Fit, Flags
from alignment.tiles import TileGrid, TileStatistics

MEASURABLE_SIGMA_PX = 0.1
"""A tile counts in the local percentiles if its own shift is known better than this."""
_LEAST_INFLATION = 1e-6
"""Pictures without noise leave nothing, and nothing is known without end."""
_MOVED_PX = 0.5
_MOVED_SIGMAS = 4.0
"""A tile moved on its own if it is out by both of these and has no say in the model."""


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Leftover shift of ``K`` tiles, in px of the full frame."""

    grid: TileGrid
    centres_px: Array
    """``(K, 2)`` in the degraded frame."""
    innovation_px: Array
    """``(K, 2)`` dx, dy: how much further the tile moved than the homography says."""
    parallax_px: Array
    """``(K, 2)`` of it, what the tile's depth explains; 0 where the depths are not known."""
    parallax_doubt_px: Array
    """``(K, 2)`` standard deviation of that, as the depths are known."""
    sigma_px: Array
    """``(K,)`` standard deviation of either component, by how much neighbours disagree: what parallax moves alike is no
    noise."""
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
    def unexplained_px(self) -> Array:
        """``(K, 2)`` leftover shift that no depth explains."""
        return np.asarray(self.innovation_px - self.parallax_px, np.float64)

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


def local_map(
    grid: TileGrid,
    tiles: TileStatistics,
    fit: Fit,
    *,
    parallax_px: Array,
    parallax_doubt_px: Array,
    tone: ToneCurve,
) -> LocalMap:
    """Collect what a converged fit leaves of every tile.

    Args:
        grid: The tiles.
        tiles: Their statistics.
        fit: The converged fit.
        parallax_px: ``(K, 2)`` how far the tiles lie from the homography by their depths, which the fit knows of.
        parallax_doubt_px: ``(K, 2)`` its standard deviation.
        tone: Of the degraded frame.
    """
    usable = fit.usable
    trace = np.maximum(np.trace(tiles.information, axis1=1, axis2=2), 1e-12)
    white = trace / 2 / np.maximum(np.linalg.det(tiles.information), 1e-24)
    sigma = np.sqrt(min(fit.inflation, _noise_inflation(grid, fit.innovation, white, usable)) * white)
    length = np.hypot(*fit.innovation.T)
    moved = (length > np.maximum(_MOVED_PX, _MOVED_SIGMAS * sigma)) & (fit.weight == 0)
    return LocalMap(
        grid=grid,
        centres_px=grid.centres_px(),
        innovation_px=fit.innovation + parallax_px,
        parallax_px=parallax_px,
        parallax_doubt_px=parallax_doubt_px,
        sigma_px=np.minimum(sigma, 1e3),
        inlier=fit.weight > 0,
        foreign=foreign_tiles(tiles, usable, usable & moved, grid, tone=tone),
        measured=usable,
    )


def _noise_inflation(grid: TileGrid, innovation: Array, variance: Array, usable: Flags) -> float:
    """Tell how much more neighbouring tiles disagree than white residuals would make them; infinite without any.

    Args:
        grid: The tiles.
        innovation: ``(K, 2)`` px.
        variance: ``(K,)`` px² of either component by white residuals.
        usable: ``(K,)`` the tiles that were compared.
    """
    shape = grid.rows, grid.columns
    shift, white, good = innovation.reshape(*shape, 2), variance.reshape(shape), usable.reshape(shape)
    ratios = []
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        apart = np.sum((shift[a] - shift[b]) ** 2, axis=-1) / (white[a] + white[b])
        ratios.append(apart[good[a] & good[b]])
    found = np.concatenate(ratios)
    return max(float(np.median(found)) / CHI_SQUARE_MEDIAN, _LEAST_INFLATION) if found.size else np.inf
