"""Which tiles show something else than the ground truth does: things that moved, not haze, shadow, rain or noise.

Every tile is held against what the ground truth's structure should look like there. How much contrast is
left is taken from tiles that do show the ground truth, so that a large thing cannot speak for itself: its
own gain is 0, and what it hides would then be expected to be hidden. Tiles that can tell nothing,
because the ground truth has no structure there or noise covers it, go with their neighbours. Two limits remain:
haze so thick that nothing shows through looks like a flat thing, and a flat thing over a flat part of the
ground truth is known by its rim alone. What lies between the parts of a thing, up to its convex hull, is
counted as its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from alignment.camera_motion import Array
from alignment.photometry import ToneCurve
from alignment.robust_fit import Flags
from alignment.tiles import TileGrid, TileStatistics

_SHOWN_CORRELATION = 0.6
"""A tile shows the ground truth, however dim, if it correlates by more."""
_LOST_CORRELATION = 0.4
"""A tile has lost what should be in it if three times the usual noise could not correlate so little: 0.87."""
_LOST_TIMES = 3.0
_LEAST_SHOWN = 10
"""Fewer tiles than this that show the ground truth cannot tell what is usual."""
_STRANGE_SHARE = 0.5
_STRANGE_TIMES = 16.0
"""A tile shows something more if the truth leaves over half of it, and this many times what it leaves elsewhere."""
_STRANGE_BELIEF = 0.5
"""Half of what a tile can say, for rain makes such tiles too."""
_LEAST_VISIBILITY = 0.4
"""Structure weaker than this share of the noise says nothing; what haze adds is not smooth to the last digit."""
_FULL_VISIBILITY = 0.5
"""Structure of this share of the noise, some 80 independent samples to the tile, is enough to be sure."""
_FOREIGN_BELIEF = 0.1
"""Belief of a neighbourhood from which its middle is foreign."""
_CONTRADICTED_BELIEF = -0.2
"""Belief of a neighbourhood below which even a sure tile in it is chance."""
_GAIN_REACHES_TILES = ((1.5, 1.0), (8.0, 1e-3))
_BELIEF_REACHES_TILES = ((1.0, 1.0), (3.0, 0.1))
"""Radius and weight of the Gaussians to average with: near tiles decide, far ones only where no near one can."""
_LARGEST_WEIGHT = 4.0
"""Most a tile weighs in the local gain, in medians, so that no single edge decides."""
_LEAST_TILES = 3
"""Smallest group of tiles that counts as a thing that moved; fewer are chance."""
_GAP_TILES = 3
"""Parts of a thing this far apart belong together: what is flat in it, or an edge along its movement, looks in both
frames alike."""
_LARGE_TILES = 20
"""Tiles of a thing large enough, 1 % of 1080p, for all between its parts to be counted as its own."""
_SLOPE_SPAN_CODES = 4.0


@dataclass(frozen=True, eq=False)
class _Expected:
    """What ``K`` tiles should show of the ground truth."""

    gain: Array
    """``(K,)`` contrast over that of the ground truth, by the tiles around that show it."""
    variance: Array
    """``(K,)`` codes² of the ground truth's structure at that gain."""
    usual_residual: float
    """Residual variance of tiles that show the ground truth, codes²."""


def foreign_tiles(
    tiles: TileStatistics, usable: Flags, moved: Flags, grid: TileGrid, *, tone: ToneCurve
) -> Flags:
    """Find the tiles that show something else than the ground truth does.

    Args:
        tiles: Statistics of ``K`` tiles, both frames in the degraded frame's codes.
        usable: ``(K,)`` bool: the tile lies in both frames.
        moved: ``(K,)`` bool: the tile is known to be shifted on its own.
        grid: The tiles.
        tone: How the degraded frame's camera codes light.
    """
    expected = _expected_content(tiles, usable, grid, tone=tone)
    belief = np.where(moved, 1.0, _belief(tiles, expected)) * usable
    around = _average(belief, grid, _BELIEF_REACHES_TILES)
    sure = (moved | _lost(tiles, expected)) & (around > _CONTRADICTED_BELIEF)
    return _filled(_groups(usable & (sure | (around > _FOREIGN_BELIEF)), grid), grid) & usable


def _expected_content(tiles: TileStatistics, usable: Flags, grid: TileGrid, *, tone: ToneCurve) -> _Expected:
    """Carry the contrast of tiles that show the ground truth over to those that may not.

    It is carried as contrast of light: haze over a dark part takes far more code values than over a bright one.
    """
    shown = usable & (tiles.correlation > _SHOWN_CORRELATION)
    usual = float(np.median(tiles.residual_variance[usable]))
    if np.count_nonzero(shown) < _LEAST_SHOWN:
        shown = usable
    usual = min(usual, float(np.median(tiles.residual_variance[shown])))
    to_light = _slope(tiles.lq_mean, tone) / _slope(tiles.gt_mean, tone)
    limit = _LARGEST_WEIGHT * np.median(tiles.gt_variance[usable])
    weight = np.where(shown, np.minimum(tiles.gt_variance, limit), 0.0)
    carried = _average(weight * tiles.gain * to_light, grid, _GAIN_REACHES_TILES)
    carried /= np.maximum(_average(weight, grid, _GAIN_REACHES_TILES), 1e-12)
    gain = np.maximum(carried, 1e-9) / to_light
    return _Expected(gain, gain**2 * _structure(tiles, grid), usual)


def _slope(codes: Array, tone: ToneCurve) -> Array:
    """Light per code about tile means, away from both ends of the codes."""
    middle = np.clip(codes, 2 * _SLOPE_SPAN_CODES, 255 - 2 * _SLOPE_SPAN_CODES).astype(np.float32)
    rise = tone.light(middle + _SLOPE_SPAN_CODES) - tone.light(middle - _SLOPE_SPAN_CODES)
    return np.asarray(rise, np.float64)


def _structure(tiles: TileStatistics, grid: TileGrid) -> Array:
    """Variance of the ground truth less that of an even slope, which uneven light or haze can cancel."""
    down, right = np.gradient(tiles.gt_mean.reshape(grid.rows, grid.columns))
    return np.maximum(tiles.gt_variance - (down**2 + right**2).ravel() / 12, 0.0)


def _belief(tiles: TileStatistics, expected: _Expected) -> Array:
    """Weigh in every tile from -1, shows the ground truth, to 1, shows something else; 0 cannot tell.

    For white noise the log-likelihood of "nothing of it" over "all of it" is the visibility times
    ``1 - 2 gain / expected gain``.
    """
    visibility = expected.variance / np.maximum(tiles.residual_variance, expected.usual_residual)
    missing = 1 - 2 * np.maximum(tiles.gain, 0.0) / expected.gain
    belief = np.clip(visibility / _FULL_VISIBILITY * missing, -1.0, 1.0) * (visibility > _LEAST_VISIBILITY)
    belief = np.where(tiles.correlation > _SHOWN_CORRELATION, -1.0, belief)
    strange = tiles.residual_variance > np.maximum(
        _STRANGE_TIMES * expected.usual_residual, _STRANGE_SHARE * tiles.lq_variance
    )
    return np.clip(belief + _STRANGE_BELIEF * strange, -1.0, 1.0)


def _lost(tiles: TileStatistics, expected: _Expected) -> Flags:
    """Tell where the ground truth's structure is gone, though nothing else in the tile would hide it."""
    hiding = np.maximum(tiles.residual_variance, expected.usual_residual)
    gone = (tiles.gain < expected.gain / 2) & (tiles.correlation < _LOST_CORRELATION)
    return np.asarray(gone & (expected.variance > _LOST_TIMES * hiding), np.bool_)


def _average(values: Array, grid: TileGrid, reaches_tiles: tuple[tuple[float, float], ...]) -> Array:
    """Sum Gaussian averages over the grid, ``(K,)``; beyond its border all is 0."""
    plane = values.reshape(grid.rows, grid.columns)
    total = np.zeros(plane.shape)
    for radius, weight in reaches_tiles:
        total += weight * cv2.GaussianBlur(plane, (0, 0), radius, borderType=cv2.BORDER_CONSTANT)
    return total.ravel()


def _groups(flags: Flags, grid: TileGrid) -> Flags:
    """Keep groups of three tiles or more."""
    image = flags.reshape(grid.rows, grid.columns).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=8)
    large = np.zeros(count, bool)
    large[1:] = stats[1:, cv2.CC_STAT_AREA] >= _LEAST_TILES
    return np.asarray(large[labels].ravel(), np.bool_)


def _filled(flags: Flags, grid: TileGrid) -> Flags:
    """Count what lies between the parts of a thing as part of it: there it may look as the ground truth does.

    A thing is what a closing by some tiles holds together; small ones stay as they are.
    """
    image = flags.reshape(grid.rows, grid.columns).astype(np.uint8)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _GAP_TILES + 1, 2 * _GAP_TILES + 1))
    count, labels = cv2.connectedComponents(cv2.morphologyEx(image, cv2.MORPH_CLOSE, reach), connectivity=8)
    for label in range(1, count):
        part = cv2.findNonZero(image * (labels == label))
        if part is not None and len(part) >= _LARGE_TILES:
            cv2.fillConvexPoly(image, cv2.convexHull(part), (1,))
    return np.asarray(image.ravel() > 0, np.bool_)
