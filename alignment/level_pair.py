"""One reduced size of a pair: warp, compare tile by tile, step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np

from alignment.camera_motion import (
    Array,
    ModelName,
    Pinhole,
    at_scale,
    inverted,
    jacobian,
    motion_matrix,
    normalised,
)
from alignment.photometry import Mask
from alignment.picture import MatchedTruth, Picture
from alignment.robust_fit import Fit, Flags, fit_motion
from alignment.tiles import IN_PLACE, TileGrid, TileStatistics, compare_tiles

TILE_PX = {1: 32, 2: 16, 4: 16}
"""Side of a tile by scale, px of the reduced frame."""
_TRUSTED_SHARE = 0.75


class LevelPair(Protocol):
    """A pair at one size, seen from one of its two frames."""

    grid: TileGrid

    def linearise(self, homography: Array) -> tuple[TileStatistics, Flags]:
        """Compare the tiles at a homography (ground truth to degraded, full px); which of them are usable."""

    def step(self, homography: Array, motion: Array) -> Array:
        """Improve a homography by the motion fitted to the tiles."""


class ForwardPair:
    """Tiles on the degraded frame; the ground truth is warped onto it.

    Args:
        truth: The ground truth, matched in blur and exposure.
        lq: The degraded frame.
        scale: How often both are reduced.
        trust: ``(H, W)`` uint8 of the degraded frame, 255 where it may be compared; None trusts all of it.
        tile_px: Side of a tile, px of the reduced frame; None for the usual one.
    """

    def __init__(
        self,
        truth: MatchedTruth,
        lq: Picture,
        *,
        scale: int,
        trust: Mask | None = None,
        tile_px: int | None = None,
    ) -> None:
        self.grid = TileGrid.over(lq.size, scale=scale, tile_px=tile_px or TILE_PX[scale])
        self._truth, self._truth_size = truth.level(scale), truth.size
        self._lq = lq.level(scale)
        self._trusted = trusted_tiles(trust, self.grid)
        self._upright = _upright(truth)

    def linearise(self, homography: Array, beside_px: Array | None = None) -> tuple[TileStatistics, Flags]:
        """Warp the ground truth and compare.

        Args:
            homography: Ground truth to degraded frame, full px.
            beside_px: ``(K, 2)`` how much further than that each tile has moved.
        """
        back = inverted(homography)
        usable = self.grid.inside(back, self._truth_size, margin_px=2.0 * self.grid.scale)
        to_truth = at_scale(back, self.grid.scale)
        tiles = compare_tiles(
            self._truth,
            to_truth,
            self._lq,
            IN_PLACE,
            self.grid,
            upright=self._upright,
            beside_px=beside_px,
        )
        return tiles, usable & self._trusted

    @staticmethod
    def step(homography: Array, motion: Array) -> Array:
        """Move the degraded side."""
        return normalised(motion @ homography)


class BackwardPair:
    """Tiles on the ground truth; the degraded frame is warped onto it. Gradients still come from the truth."""

    def __init__(self, truth: MatchedTruth, lq: Picture, *, scale: int) -> None:
        self.grid = TileGrid.over(truth.size, scale=scale, tile_px=TILE_PX[scale])
        self._truth = truth.level(scale)
        self._lq, self._lq_size = lq.level(scale), lq.size
        self._upright = _upright(truth)

    def linearise(self, homography: Array) -> tuple[TileStatistics, Flags]:
        """Warp the degraded frame and compare."""
        usable = self.grid.inside(homography, self._lq_size, margin_px=2.0 * self.grid.scale)
        to_lq = at_scale(homography, self.grid.scale)
        return compare_tiles(self._truth, IN_PLACE, self._lq, to_lq, self.grid, upright=self._upright), usable

    @staticmethod
    def step(homography: Array, motion: Array) -> Array:
        """Move the ground truth's side."""
        return normalised(homography @ motion)


AnyPair = TypeVar("AnyPair", bound=LevelPair)


@dataclass(frozen=True, eq=False)
class Refinement(Generic[AnyPair]):
    """Where an iteration ended."""

    pair: AnyPair
    homography: Array
    before: Array
    """Homography that the last step was taken from."""
    fit: Fit
    """Of the last step taken."""
    tiles: TileStatistics
    iterations: int
    converged: bool


def refine(
    pair: AnyPair,
    homography: Array,
    *,
    camera: Pinhole,
    model: ModelName,
    tolerance_px: float,
    max_iterations: int = 6,
) -> Refinement[AnyPair]:
    """Step until no tile moves by more than ``tolerance_px`` or ``max_iterations`` are done.

    Raises:
        NoCommonStructureError: The tiles do not determine the model.
    """
    jacobians = jacobian(model, camera, pair.grid.centres_px())
    iterations, moved = 0, np.inf
    while iterations < max_iterations and moved >= tolerance_px:
        before = homography
        tiles, usable = pair.linearise(before)
        fit = fit_motion(tiles, jacobians, usable, model=model)
        homography = pair.step(before, motion_matrix(model, camera, fit.parameters))
        moved = float(np.abs(jacobians @ fit.parameters).max())
        iterations += 1
    return Refinement(pair, homography, before, fit, tiles, iterations, moved < tolerance_px)


def _upright(truth: MatchedTruth) -> float:
    """Motion along the rail blurs along x alone."""
    return 0.0 if truth.blur.kind == "motion" else 1.0


def trusted_tiles(trust: Mask | None, grid: TileGrid) -> Flags:
    """Tell which tiles lie mostly where the mask trusts the frame."""
    if trust is None:
        return np.ones(grid.rows * grid.columns, bool)
    size = (trust.shape[1] // grid.scale, trust.shape[0] // grid.scale)
    reduced = np.asarray(cv2.resize(trust, size, interpolation=cv2.INTER_AREA), np.float32)
    return grid.means(grid.crop(reduced)).ravel() >= 255 * _TRUSTED_SHARE
