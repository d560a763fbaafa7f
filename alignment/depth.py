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
from alignment.scene_depths import DepthView, DisparityMap, SceneDepths

Array = NDArray[np.float64]

BASELINE_PX = 1.2
"""Motion between the two frames compared: enough to measure, little enough for one linear step per tile."""
_SIGMA_TIMES = 3.0
_LEAST_TILES = 12
_MAD_TO_SIGMA = 1.4826
_TUKEY = 4.685
_WORST_CONDITION = 1e9


@dataclass(frozen=True, eq=False)
class StereoPair:
    """Two ground-truth frames a known way apart."""

    first: Picture
    second: Picture
    position_mm: float
    """Of the second frame."""
    gap_mm: float
    """Position of the second less that of the first, not 0."""
    shift_px: Array
    """Expected picture shift from first to second, ``(2,)``."""


def measure_depths(pairs: Iterable[StereoPair], *, camera: Pinhole, direction: Array) -> SceneDepths | None:
    """Measure the disparity of every tile at several places of the rail.

    Args:
        pairs: Two frames from every place.
        camera: Of both.
        direction: Unit vector of picture motion for growing positions, ``(2,)``.

    Returns:
        None where too few tiles could be measured.
    """
    maps = [found for pair in pairs if (found := _disparity(pair, camera, direction)) is not None]
    if not maps:
        return None
    with np.errstate(invalid="ignore"):
        values = np.stack([view.disparity_px_per_mm for view in maps])
    enough = np.isfinite(values).sum(axis=0) * 2 >= len(maps)
    if enough.sum() < _LEAST_TILES:
        return None
    views = tuple(v for v in map(_measured_part, maps) if len(v.centres_px) >= _LEAST_TILES)
    return SceneDepths(maps[0].centres_px[enough], np.nanmedian(values[:, enough], axis=0), direction, views)


def _measured_part(view: DepthView) -> DepthView:
    measured = np.isfinite(view.disparity_px_per_mm)
    return DepthView(view.position_mm, view.centres_px[measured], view.disparity_px_per_mm[measured])


def _disparity(pair: StereoPair, camera: Pinhole, direction: Array) -> DepthView | None:
    """Tell every tile's disparity, NaN where it is not known well."""
    initial = np.eye(3)
    initial[:2, 2] = pair.shift_px
    try:
        found = register(
            pair.first, pair.second, camera=camera, initial=initial, blur=NO_BLUR, models=("rotation",)
        )
    except NoCommonStructureError:
        return None
    disparity = tile_motion(found) @ direction / pair.gap_mm
    # The tiles' sigmas are inflated by their misfit, which here is the parallax itself: only their ratio counts.
    sigma, measured = found.leftover.sigma_px, found.leftover.measured
    sure = measured & (sigma < _SIGMA_TIMES * np.median(sigma[measured]))
    return DepthView(pair.position_mm, found.leftover.centres_px, np.where(sure, disparity, np.nan))


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
    found: Registration, disparities: DisparityMap, *, readout_gap_mm: float = 0.0
) -> tuple[float, float] | None:
    """Tell from parallax alone how far apart on the rail two registered frames were taken.

    A turn of the camera moves near and far things alike, a move along the rail does not. Boards at one depth
    cannot tell the two apart; the depths of the whole picture can. Nor is a rolling shutter's way between the rows
    a gap: where near things lie low in the picture it would pass for one.

    Args:
        found: The pair as registered.
        disparities: Of the ground truth.
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
    direction, disparity = disparities.direction, disparities.at(centres)
    sheared = readout_gap_mm * row_share(centres, found.size[1]) * disparity
    along = tile_motion(found)[good] @ direction - sheared
    across = (centres @ np.array([-direction[1], direction[0]])) / 1000  # a roll of the camera
    design = np.column_stack([disparity, np.ones(len(along)), across])
    return _robust_slope(design, along, 1 / np.maximum(rest.sigma_px[good], 1e-3))


def seen_parallax_px(
    found: Registration,
    disparities: DisparityMap | None,
    *,
    spread_px_per_mm: float,
    readout_gap_mm: float = 0.0,
) -> float:
    """Parallax between near and far that a registered pair shows beyond two standard deviations; 0 where none is known.

    Whatever told the frames' positions may be wrong; what they show is not. Turns, breathing and what else the
    registration's model can do are no parallax, however they go with the depths of the scene.

    Args:
        found: The pair as registered.
        disparities: Of the ground truth; None where they are not known.
        spread_px_per_mm: Between the scene's near and far.
        readout_gap_mm: As for `position_gap`.
    """
    rest = found.leftover
    good = rest.measured & ~rest.foreign
    if disparities is None or good.sum() < _LEAST_TILES:
        return 0.0
    centres = rest.centres_px[good]
    direction, disparity = disparities.direction, disparities.at(centres)
    sheared = readout_gap_mm * row_share(centres, found.size[1]) * disparity
    along = rest.innovation_px[good] @ direction - sheared
    across = np.array([-direction[1], direction[0]])
    absorbed = centres @ np.column_stack([direction, across]) / 1000  # by the model, whichever it is
    design = np.column_stack([disparity, np.ones(len(along)), absorbed])
    gap = _robust_slope(design, along, 1 / np.maximum(rest.sigma_px[good], 1e-3))
    return 0.0 if gap is None else max(abs(gap[0]) - 2 * gap[1], 0.0) * spread_px_per_mm


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
