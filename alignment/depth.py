"""How deep the scene is, seen by the ground-truth round as a stereo rig.

Near things run through the picture faster than far ones. How much faster decides how exactly two frames
must come from the same place before no warp in the world can hide the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Pinhole, inverted, map_points, row_share
from alignment.errors import NoCommonStructureError
from alignment.picture import NO_BLUR, Picture
from alignment.registration import Registration, register

Array = NDArray[np.float64]

PARALLAX_LIMIT_PX = 0.25
"""Default for the largest difference in shift between near and far within a pair."""
BASELINE_PX = 1.2
"""Motion between the two frames compared: enough to measure, little enough for one linear step per tile."""
_SIGMA_TIMES = 3.0
_LEAST_TILES = 12
_MAD_TO_SIGMA = 1.4826
_TUKEY = 4.685
_WORST_CONDITION = 1e9


@dataclass(frozen=True, eq=False)
class SceneDepths:
    """Picture motion per mm of camera motion, by tile."""

    centres_px: Array
    """``(K, 2)`` of the tiles that could be measured."""
    disparity_px_per_mm: Array
    """``(K,)``, positive; equals focal length over depth."""

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

    def position_limit_mm(self, parallax_px: float = PARALLAX_LIMIT_PX) -> float:
        """Largest position gap that keeps the parallax below ``parallax_px``; infinite for a flat scene."""
        spread = self.spread_px_per_mm
        return parallax_px / spread if spread > 0 else np.inf

    def at(self, points_px: Array) -> Array:
        """Return the disparity of the nearest measured tile for points ``(N, 2)``."""
        from scipy.spatial import cKDTree

        _, nearest = cKDTree(self.centres_px).query(points_px)
        return np.asarray(self.disparity_px_per_mm[nearest], np.float64)


@dataclass(frozen=True, eq=False)
class StereoPair:
    """Two ground-truth frames a known way apart."""

    first: Picture
    second: Picture
    gap_mm: float
    """Position of the second less that of the first, not 0."""
    shift_px: Array
    """Expected picture shift from first to second, ``(2,)``."""


def measure_depths(pairs: Iterable[StereoPair], *, camera: Pinhole) -> SceneDepths | None:
    """Measure the disparity of every tile, as the median over several pairs.

    Returns:
        None where too few tiles could be measured.
    """
    maps = [found for pair in pairs if (found := _disparity(pair, camera)) is not None]
    if not maps:
        return None
    with np.errstate(invalid="ignore"):
        values = np.stack([disparity for _, disparity in maps])
    enough = np.isfinite(values).sum(axis=0) * 2 >= len(maps)
    if enough.sum() < _LEAST_TILES:
        return None
    return SceneDepths(maps[0][0][enough], np.nanmedian(values[:, enough], axis=0))


def _disparity(pair: StereoPair, camera: Pinhole) -> tuple[Array, Array] | None:
    initial = np.eye(3)
    initial[:2, 2] = pair.shift_px
    try:
        found = register(
            pair.first, pair.second, camera=camera, initial=initial, blur=NO_BLUR, models=("rotation",)
        )
    except NoCommonStructureError:
        return None
    moved = tile_motion(found)
    direction = np.asarray(pair.shift_px) / max(float(np.linalg.norm(pair.shift_px)), 1e-9)
    disparity = moved @ direction / abs(pair.gap_mm)
    # The tiles' sigmas are inflated by their misfit, which here is the parallax itself: only their ratio counts.
    sigma, measured = found.leftover.sigma_px, found.leftover.measured
    sure = measured & (sigma < _SIGMA_TIMES * np.median(sigma[measured]))
    return found.leftover.centres_px, np.where(sure, disparity, np.nan)


def tile_motion(found: Registration) -> Array:
    """Tell how far each tile moved: what the camera model says and what it leaves, ``(K, 2)`` px."""
    centres = found.leftover.centres_px
    return centres - map_points(inverted(found.homography), centres) + found.leftover.innovation_px


def stereo_baselines(
    positions_mm: Sequence[float], *, px_per_mm: float, count: int = 6
) -> list[tuple[int, int]]:
    """Choose pairs of frames about `BASELINE_PX` of motion apart, spread evenly over a round.

    Args:
        positions_mm: Of the frames in uniform motion, increasing.
        px_per_mm: Picture motion in the reference board's plane.
        count: Number of pairs wanted.

    Returns:
        Pairs of positions in the list; fewer than asked for where the round is short.
    """
    position = np.asarray(positions_mm, float)
    second = np.searchsorted(position, position + BASELINE_PX / px_per_mm)
    firsts = np.flatnonzero(second < len(position))
    if firsts.size == 0:
        return []
    chosen = firsts[np.unique(np.linspace(0, firsts.size - 1, count).astype(int))]
    return [(int(i), int(second[i])) for i in chosen]


def position_gap(
    found: Registration, depths: SceneDepths, *, direction: Array, readout_gap_mm: float = 0.0
) -> tuple[float, float] | None:
    """Tell from parallax alone how far apart on the rail two registered frames were taken.

    A turn of the camera moves near and far things alike, a move along the rail does not. Boards at one depth
    cannot tell the two apart; the depths of the whole picture can. Nor is a rolling shutter's way between the rows
    a gap: where near things lie low in the picture it would pass for one.

    Args:
        found: The pair as registered.
        depths: Disparity of the scene's tiles.
        direction: Unit vector of picture motion for growing positions, ``(2,)``.
        readout_gap_mm: How much farther the carriage goes in the degraded frame while the rows are read out.

    Returns:
        Gap in the middle row (degraded less ground truth) and its standard deviation, mm; None where the scene is
        too flat or too little of it can be measured.
    """
    rest = found.leftover
    good = rest.measured & ~rest.foreign
    if good.sum() < _LEAST_TILES:
        return None
    centres = rest.centres_px[good]
    disparity = depths.at(centres)
    sheared = readout_gap_mm * row_share(centres, found.size[1]) * disparity
    along = tile_motion(found)[good] @ direction - sheared
    across = (centres @ np.array([-direction[1], direction[0]])) / 1000  # a roll of the camera
    design = np.column_stack([disparity, np.ones(len(along)), across])
    return _robust_slope(design, along, 1 / np.maximum(rest.sigma_px[good], 1e-3))


def seen_parallax_px(
    found: Registration, depths: SceneDepths | None, *, direction: Array, readout_gap_mm: float = 0.0
) -> float:
    """Parallax between near and far that a registered pair shows beyond two standard deviations; 0 where none is known.

    Whatever told the frames' positions may be wrong; what they show is not. Turns, breathing and what else the
    registration's model can do are no parallax, however they go with the depths of the scene.

    Args:
        found: The pair as registered.
        depths: Disparity of the scene's tiles; None where it is not known.
        direction: Unit vector of picture motion for growing positions, ``(2,)``.
        readout_gap_mm: As for `position_gap`.
    """
    rest = found.leftover
    good = rest.measured & ~rest.foreign
    if depths is None or good.sum() < _LEAST_TILES:
        return 0.0
    centres = rest.centres_px[good]
    disparity = depths.at(centres)
    sheared = readout_gap_mm * row_share(centres, found.size[1]) * disparity
    along = rest.innovation_px[good] @ direction - sheared
    across = np.array([-direction[1], direction[0]])
    absorbed = centres @ np.column_stack([direction, across]) / 1000  # by the model, whichever it is
    design = np.column_stack([disparity, np.ones(len(along)), absorbed])
    gap = _robust_slope(design, along, 1 / np.maximum(rest.sigma_px[good], 1e-3))
    return 0.0 if gap is None else max(abs(gap[0]) - 2 * gap[1], 0.0) * depths.spread_px_per_mm


def _robust_slope(design: Array, values: Array, weight: Array) -> tuple[float, float] | None:
    """Fit ``values`` by the columns of ``design`` with Tukey weights; return the first coefficient and its sigma."""
    robust = np.ones_like(values)
    for _ in range(10):
        root = weight * np.sqrt(robust)
        coefficients, *_ = np.linalg.lstsq(design * root[:, None], values * root, rcond=None)
        misfit = weight * (values - design @ coefficients)
        spread = max(_MAD_TO_SIGMA * float(np.median(np.abs(misfit))), 1e-9)
        robust = np.clip(1 - (misfit / (_TUKEY * spread)) ** 2, 0, None) ** 2
    normal = (design * (weight**2 * robust)[:, None]).T @ design
    if np.linalg.cond(normal) > _WORST_CONDITION:
        return None
    return float(coefficients[0]), float(spread * np.sqrt(np.linalg.inv(normal)[0, 0]))
