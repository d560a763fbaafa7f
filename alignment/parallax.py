"""What near and far do when the camera comes back a little beside where it was, and the warp that suits most of both.

The ground-truth round tells how deep the scene is all over the picture (`SceneDepths`). Four numbers then say what
every place does beyond the camera's turn: the optical centre's move to the right, down and forward, and how much
farther the carriage went while the rows were read out. Fitted with the turn, they free it from the depths that
happened to have the clearest structure. A pair is delivered by one homography all the same, and no homography suits
all depths: the one is taken that leaves most of the picture off by the least.

References:
    Longuet-Higgins and Prazdny, The interpretation of a moving retinal image, 1980: the motion field of a moving eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from alignment.camera_motion import (
    Array,
    ModelName,
    Pinhole,
    inverted,
    jacobian,
    map_points,
    motion_matrix,
    row_share,
)
from alignment.level_pair import ForwardPair, Refinement
from alignment.robust_fit import Fit, fit_motion
from alignment.scene_depths import DisparityMap
from alignment.tiles import TileStatistics

_USUAL_GAP_MM = (0.3, 0.3, 0.3, 0.6)
"""Standard deviations of the four moves where nothing is seen of them; pairs farther apart are refused."""
CENTRE_MOVES = len(_USUAL_GAP_MM)
"""Of the optical centre: right, down, forward, and along the rail from the first row to the last."""
_REWEIGHTINGS = 8
_DEPTHS_TRIED = 4
_MOST = 55
"""Percent of the tiles. At 50 a plane that fills just half of the picture would decide, and a crop undo it."""
_LEAST_SCALE_PX = 1e-4
_GAP_SHARE = 0.03
"""By how much a gap may be told wrong in proportion: 1 % in clean rendered pairs, up to 4 % in noise and defocus, which
tiles tell shifts a little short of."""
_LEAST_SPREAD = 1e-6
"""px²/mm²: of a flat scene."""
_MOST_STEPS = 2
_SHORT_STEP_PX = 0.1
"""A tile tells a shift to some percent of it: what a rolling shutter's rows add needs a second look."""


@dataclass(frozen=True, eq=False)
class MotionField:
    """The picture's displacement by a model's parameters and, where depths are known, by the optical centre's moves."""

    model: ModelName
    camera: Pinhole
    disparities: DisparityMap | None
    """Of the ground truth."""
    homography: Array
    """Ground truth to degraded frame, to find the disparity of a place of the latter."""

    def jacobian(self, points_px: Array) -> Array:
        """Differentiate the displacement at points ``(n, 2)`` of the degraded frame: ``(n, 2, p)``, px per unit."""
        turn = jacobian(self.model, self.camera, points_px)
        if self.disparities is None:
            return turn
        near = self.disparity(points_px)[:, None, None]
        return np.concatenate([turn, near * self._ways(points_px, self.disparities)], axis=2)

    def disparity(self, points_px: Array) -> Array:
        """Return the disparity that the degraded frame shows at points ``(n, 2)``, px per mm; 0 where none is known."""
        if self.disparities is None:
            return np.zeros(len(points_px))
        return self.disparities.at(self._in_truth(points_px))

    def depth_doubt(self, points_px: Array, parameters: Array) -> Array:
        """Standard deviation of the displacement ``(n, 2)``, in px, as the disparities are known."""
        if self.disparities is None:
            return np.zeros_like(points_px)
        per_disparity = self._ways(points_px, self.disparities) @ parameters[-CENTRE_MOVES:]
        sigma = self.disparities.sigma_at(self._in_truth(points_px))
        return np.asarray(sigma[:, None] * per_disparity, np.float64)

    def _in_truth(self, points_px: Array) -> Array:
        """Where the ground truth shows what the degraded frame shows at points ``(n, 2)``."""
        return map_points(inverted(self.homography), points_px)

    def _ways(self, points_px: Array, disparities: DisparityMap) -> Array:
        """Tell where a thing of disparity 1 goes by the optical centre's moves, each of 1 mm: ``(n, 2, 4)``."""
        rows = row_share(points_px, self.camera.height)[:, None]
        right, down = (np.broadcast_to(way, points_px.shape) for way in ([-1.0, 0.0], [0.0, -1.0]))
        return np.stack([right, down, self.camera.rays(points_px), rows * disparities.direction], axis=2)

    def fit(self, tiles: TileStatistics, points_px: Array, *, like: Fit) -> Fit:
        """Fit the field to tiles centred at ``(K, 2)`` px, to those that ``like`` used."""
        jacobians = self.jacobian(points_px)
        prior = np.zeros(jacobians.shape[2])
        if self.disparities is not None:
            prior[-CENTRE_MOVES:] = 1 / np.square(_USUAL_GAP_MM)
        return fit_motion(tiles, jacobians, like.usable, model=self.model, prior=prior)


@dataclass(frozen=True, eq=False)
class Settled:
    """What a refinement comes to."""

    homography: Array
    """``(3, 3)`` that suits most of the picture."""
    fit: Fit
    """Of the whole field, about where the last step of the refinement began."""
    tiles: TileStatistics
    """What it was fitted to."""
    field: MotionField
    apart_px: Array
    """``(K, 2)`` how far the tiles lie from the homography by their depths."""
    doubt_px: Array
    """``(K, 2)`` standard deviation of that, as the depths are known."""

    @property
    def gap_mm(self) -> tuple[float, float, float] | None:
        """Move of the optical centre to the right, down and forward; None where the depths are not known."""
        if self.field.disparities is None:
            return None
        right, down, forward, _ = self.fit.parameters[-CENTRE_MOVES:]
        return float(right), float(down), float(forward)

    def gap_sigma_mm(self, covariance: Array, misfit_px2: Array) -> tuple[float, float, float] | None:
        """Standard deviations of `gap_mm`.

        Args:
            covariance: Of the field's parameters.
            misfit_px2: ``(2,)`` mean square in x and y of what tiles share beyond the field: it may be a gap as well.
        """
        if self.gap_mm is None:
            return None
        ways = self.fit.jacobians[self.fit.usable][..., -CENTRE_MOVES:-1]
        spread = np.maximum(ways.var(axis=0), _LEAST_SPREAD)  # what is alike everywhere a turn does, too
        shared_mm2 = np.sum(misfit_px2[:, None] * spread, axis=0) / spread.sum(axis=0) ** 2
        scale_mm2 = np.square(_GAP_SHARE * np.array(self.gap_mm))
        right, down, forward = np.sqrt(np.diag(covariance)[-CENTRE_MOVES:-1] + shared_mm2 + scale_mm2)
        return float(right), float(down), float(forward)


def settle(found: Refinement[ForwardPair], *, camera: Pinhole, disparities: DisparityMap | None) -> Settled:
    """Fit the field that depth makes to a converged refinement and choose the homography that suits most of it."""
    field = MotionField(found.fit.model, camera, disparities, found.homography)
    if disparities is None:
        none_px = np.zeros_like(found.fit.innovation)
        return Settled(found.homography, found.fit, found.tiles, field, none_px, none_px)
    centres_px, used, tiles = found.pair.grid.centres_px(), found.fit.usable, found.tiles
    warp, depth = jacobian("homography", camera, centres_px), field.disparity(centres_px)
    last_px = np.zeros_like(centres_px)
    for _ in range(_MOST_STEPS):
        tiles = tiles.further_on(last_px)
        fit = field.fit(tiles, centres_px, like=found.fit)
        moved_px = fit.jacobians @ fit.parameters
        step = homography_of_most(moved_px[used], warp[used], depth[used])
        homography = found.pair.step(found.before, motion_matrix("homography", camera, step))
        apart_px = moved_px - warp @ step
        if np.abs(moved_px - last_px)[used].max() < _SHORT_STEP_PX:
            break
        tiles, last_px = found.pair.linearise(homography, apart_px)[0], moved_px
    doubt_px = field.depth_doubt(centres_px, fit.parameters)
    return Settled(homography, fit, tiles, field, apart_px, doubt_px)


def homography_of_most(field_px: Array, jacobians: Array, disparity: Array) -> Array:
    """Fit a homography to a field ``(K, 2)`` px so that most of the picture is off by as little as may be.

    By reweighting, begun from all tiles and from those of each depth alone: what suits most of the picture suits one
    of its depths.

    Args:
        field_px: What every tile moves.
        jacobians: ``(K, 2, 8)``
        disparity: ``(K,)``

    Returns:
        ``(8,)`` parameters, as `motion_matrix` takes them.
    """
    design, target = jacobians.reshape(-1, jacobians.shape[2]), field_px.ravel()
    edges = np.quantile(disparity, np.linspace(0, 1, _DEPTHS_TRIED + 1))
    starts = [(low <= disparity) & (disparity <= high) for low, high in pairwise(edges)]
    most = int(_MOST / 100 * len(disparity))
    best, least_px = np.zeros(design.shape[1], np.float64), np.inf
    for start in (np.ones(len(disparity)), *starts):
        weight = np.asarray(start, np.float64)
        for _ in range(_REWEIGHTINGS):
            weighted = design * np.repeat(weight, 2)[:, None]
            parameters = np.linalg.lstsq(weighted.T @ design, weighted.T @ target, rcond=None)[0]
            misfit_px = np.hypot(*(target - design @ parameters).reshape(-1, 2).T)
            most_px = max(float(np.partition(misfit_px, most)[most]), _LEAST_SCALE_PX)
            if most_px < least_px:
                best, least_px = np.asarray(parameters, np.float64), most_px
            weight = 1 / (misfit_px**2 + most_px**2)
    return best
