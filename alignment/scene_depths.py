"""How deep a scene is at every place of the picture, wherever on the rail it is taken from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import row_share

Array = NDArray[np.float64]

_PARALLAX_LIMIT_PX = 0.25
"""Default for the largest difference in shift between near and far within a pair."""
_NEAREST_TILES = 5
"""As many have a say in the disparity of a place: one tile may be wrong."""
_NEAREST_VIEWS = 2
_RASTER_PX = 32.0
"""Side of the tiles that are measured."""


@dataclass(frozen=True, eq=False)
class DepthView:
    """Disparity of the scene's tiles in the picture from one place of the rail."""

    position_mm: float
    centres_px: Array
    """``(K, 2)``"""
    disparity_px_per_mm: Array
    """``(K,)`` picture motion per mm of camera motion, positive: focal length over depth."""

    def seen_from(self, position_mm: float, direction: Array) -> Array:
        """Return where the tiles are in the picture from another place, ``(K, 2)`` px."""
        way_px = (position_mm - self.position_mm) * self.disparity_px_per_mm
        return np.asarray(self.centres_px + way_px[:, None] * direction, np.float64)


@dataclass(frozen=True, eq=False)
class _Rasters:
    """What the nearest tiles say at places `_RASTER_PX` apart, ``(rows, columns)`` each."""

    first_px: Array
    """``(2,)`` the first place."""
    disparity_px_per_mm: Array
    sigma_px_per_mm: Array


@dataclass(frozen=True, eq=False)
class DisparityMap:
    """Disparity all over one picture."""

    centres_px: Array
    """``(K, 2)`` of tiles where it was measured."""
    disparity_px_per_mm: Array
    """``(K,)``"""
    direction: Array
    """Unit vector of picture motion for growing positions, ``(2,)``."""

    def at(self, points_px: Array) -> Array:
        """Return the median disparity of the measured tiles nearest to points ``(N, 2)``, looked up in a raster."""
        return self._looked_up(self._rasters.disparity_px_per_mm, points_px)

    def sigma_at(self, points_px: Array) -> Array:
        """Return the standard deviation of those tiles: where near meets far, either may be what a place shows."""
        return self._looked_up(self._rasters.sigma_px_per_mm, points_px)

    def _looked_up(self, raster: Array, points_px: Array) -> Array:
        last = np.array(raster.shape[::-1]) - 1
        place = np.rint((points_px - self._rasters.first_px) / _RASTER_PX)
        column, row = np.clip(place, 0, last).astype(int).T
        return np.asarray(raster[row, column], np.float64)

    @cached_property
    def _rasters(self) -> _Rasters:
        from scipy.spatial import cKDTree

        low, high = self.centres_px.min(axis=0), self.centres_px.max(axis=0)
        xs, ys = (np.arange(a, b + _RASTER_PX / 2, _RASTER_PX) for a, b in zip(low, high, strict=True))
        places = np.stack(np.meshgrid(xs, ys), axis=-1)
        count = min(_NEAREST_TILES, len(self.centres_px))
        _, nearest = cKDTree(self.centres_px).query(places, k=[*range(1, count + 1)])
        near = self.disparity_px_per_mm[nearest]
        return _Rasters(low, np.median(near, axis=-1), near.std(axis=-1))


@dataclass(frozen=True, eq=False)
class SceneDepths:
    """Picture motion per mm of camera motion, by tile."""

    centres_px: Array
    """``(K, 2)`` of the tiles that could be measured."""
    disparity_px_per_mm: Array
    """``(K,)``, positive, the median over the places where it was measured."""
    direction: Array = field(default_factory=lambda: np.array([-1.0, 0.0]))
    """Unit vector of picture motion for growing positions, ``(2,)``."""
    views: tuple[DepthView, ...] = ()
    """What was measured at single places; without any, the scene counts as alike from everywhere."""

    def seen_from(self, position_mm: float) -> DisparityMap:
        """Return the disparities of the picture from a place: those measured nearest to it, moved along."""
        if not self.views:
            return DisparityMap(self.centres_px, self.disparity_px_per_mm, self.direction)
        near = sorted(self.views, key=lambda v: abs(v.position_mm - position_mm))[:_NEAREST_VIEWS]
        return DisparityMap(
            np.concatenate([v.seen_from(position_mm, self.direction) for v in near]),
            np.concatenate([v.disparity_px_per_mm for v in near]),
            self.direction,
        )

    @property
    def range_px_per_mm(self) -> tuple[float, float]:
        """2nd and 98th percentile."""
        low, high = np.percentile(self.disparity_px_per_mm, (2, 98))
        return float(low), float(high)

    @property
    def spread_px_per_mm(self) -> float:
        """Difference between near and far."""
        low, high = self.range_px_per_mm
        return high - low

    def shear_px_per_mm(self, height: int) -> float:
        """Shear of the picture from its first row to its last per mm that the carriage goes between them.

        Rows far from the middle have the say: it is the slope of what each tile moves over its row.

        Args:
            height: Of the picture, px.
        """
        share = row_share(self.centres_px, height)
        centred = share - share.mean()
        power = float(centred @ centred)
        return float((self.disparity_px_per_mm * share) @ centred / power) if power > 0 else 0.0

    def position_limit_mm(self, parallax_px: float = _PARALLAX_LIMIT_PX) -> float:
        """Largest position gap that keeps the parallax below ``parallax_px``; infinite for a flat scene."""
        spread = self.spread_px_per_mm
        return parallax_px / spread if spread > 0 else np.inf
