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
from alignment.level_pair import ForwardPair
from alignment.picture import NO_BLUR, MatchedTruth, Picture
from alignment.registration import Registration, register
from alignment.robust_fit import Flags
from alignment.scene_depths import DepthView, DisparityMap, SceneDepths
from alignment.tiles import shifts_px

Array = NDArray[np.float64]

BASELINES_PX = (1.2, 4.8)
"""Motion between frames compared. Over the first a whole picture can be registered, whatever its depths; over the
last, a turn of the camera between the frames and the noise of a tile weigh a quarter as much."""
_STEPS = 3
"""A tile's own, from a guess that is off by some tenths of a pixel: the second leaves a hundredth of that."""
_LONGEST_STEP_PX = 1.0
_STEADY_PX = 0.05
"""A tile that still moves by more in the last step has not been found."""
_SIGMA_TIMES = 3.0
_LEAST_TILES = 12
_MAD_TO_SIGMA = 1.4826
_TUKEY = 4.685
_WORST_CONDITION = 1e9


@dataclass(frozen=True, eq=False)
class StereoView:
    """A ground-truth frame and others of the same round from a known way off."""

    frame: Picture
    position_mm: float
    others: Sequence[tuple[Picture, float]]
    """Each with its position, mm, the nearest one first: about `BASELINES_PX` of motion away."""
    shift_px: Array
    """Expected picture shift from the nearest of them to the frame, ``(2,)``."""


def measure_depths(views: Iterable[StereoView], *, camera: Pinhole, direction: Array) -> SceneDepths | None:
    """Measure the disparity of every tile at several places of the rail.

    Args:
        views: Frames from every place.
        camera: Of all frames.
        direction: Unit vector of picture motion for growing positions, ``(2,)``.

    Returns:
        None where too few tiles could be measured.
    """
    maps = [found for view in views if (found := _disparity(view, camera, direction)) is not None]
    if not maps:
        return None
    with np.errstate(invalid="ignore"):
        values = np.stack([view.disparity_px_per_mm for view in maps])
    enough = np.isfinite(values).sum(axis=0) * 2 >= len(maps)
    if enough.sum() < _LEAST_TILES:
        return None
    parts = tuple(v for v in map(_measured_part, maps) if len(v.centres_px) >= _LEAST_TILES)
    return SceneDepths(maps[0].centres_px[enough], np.nanmedian(values[:, enough], axis=0), direction, parts)


def _measured_part(view: DepthView) -> DepthView:
    measured = np.isfinite(view.disparity_px_per_mm)
    return DepthView(view.position_mm, view.centres_px[measured], view.disparity_px_per_mm[measured])


def _disparity(view: StereoView, camera: Pinhole, direction: Array) -> DepthView | None:
    """Tell every tile's disparity, NaN where it is not known well."""
    initial = np.eye(3)
    initial[:2, 2] = view.shift_px
    nearest, nearest_mm = view.others[0]
    try:
        found = register(
            nearest, view.frame, camera=camera, initial=initial, blur=NO_BLUR, models=("rotation",)
        )
    except NoCommonStructureError:
        return None
    # The tiles' sigmas are inflated by their misfit, which here is the parallax itself: only their ratio counts.
    sigma, sure = found.leftover.sigma_px, found.leftover.measured
    sure = sure & (sigma < _SIGMA_TIMES * np.median(sigma[sure]))
    motion_per_mm = tile_motion(found) / (view.position_mm - nearest_mm)
    for other, position_mm in view.others:
        gap_mm = view.position_mm - position_mm
        motion_px, steady = _followed(other, view.frame, motion_per_mm * gap_mm)
        motion_per_mm, sure = motion_px / gap_mm, sure & steady
    return DepthView(
        view.position_mm, found.leftover.centres_px, np.where(sure, motion_per_mm @ direction, np.nan)
    )


def _followed(other: Picture, frame: Picture, motion_px: Array) -> tuple[Array, Flags]:
    """Follow every tile of a frame on its own: its motion since the other one, ``(K, 2)`` px, and if it was found.

    Args:
        other: The other frame.
        frame: The frame.
        motion_px: ``(K, 2)`` first guess.
    """
    truth = MatchedTruth(other, tone=frame.tone, blur=NO_BLUR, exposure=1.0)
    pair, common = ForwardPair(truth, frame, scale=1), np.eye(3)
    common[:2, 2] = np.median(motion_px, axis=0)
    beside_px = motion_px - common[:2, 2]
    for _ in range(_STEPS):
        tiles, inside = pair.linearise(common, beside_px)
        step_px = shifts_px(tiles.information, tiles.score)
        beside_px = beside_px + np.clip(step_px, -_LONGEST_STEP_PX, _LONGEST_STEP_PX)
    return common[:2, 2] + beside_px, inside & (np.abs(step_px).max(axis=1) < _STEADY_PX)


def tile_motion(found: Registration) -> Array:
    """Tell how far each tile moved: what the camera model says and what it leaves, ``(K, 2)`` px."""
    centres = found.leftover.centres_px
    return centres - map_points(inverted(found.homography), centres) + found.leftover.innovation_px


def stereo_baselines(
    positions_mm: Sequence[float], *, px_per_mm: float, count: int = 6
) -> list[tuple[int, ...]]:
    """Choose frames about `BASELINES_PX` of motion apart, spread evenly over a round.

    Args:
        positions_mm: Of the frames in uniform motion, increasing.
        px_per_mm: Picture motion in the reference board's plane.
        count: Number of places wanted.

    Returns:
        Positions in the list, by place: the frame's, then those of the others, the nearest one first. Fewer places
        than asked for where the round is short, and without the longest baselines where it is shorter than these.
    """
    position = np.asarray(positions_mm, float)
    for baselines_px in (BASELINES_PX[:n] for n in range(len(BASELINES_PX), 0, -1)):
        others = [np.searchsorted(position, position + px / px_per_mm) for px in baselines_px]
        frames = np.flatnonzero(others[-1] < len(position))
        if frames.size:
            chosen = frames[np.unique(np.linspace(0, frames.size - 1, count).astype(int))]
            return [tuple(dict.fromkeys(int(i) for i in (at, *(o[at] for o in others)))) for at in chosen]
    return []


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
