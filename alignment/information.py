"""How well a pair can be aligned at best, and how well it was.

The bound is Cramér-Rao's for the model's parameters under the noise of the frames. A pair's error is the median
of its misalignment over the picture, and what is predicted is the radius that this median keeps to in 95 of 100
pairs that look like this one. It is drawn from three parts: the estimator's own covariance, inflated to how much
the tiles disagree; what no single movement of the camera can remove, that is parallax where the depths are known,
and what tiles near each other show in common beyond it; and a little that no tile can show.

References:
    Robinson and Milanfar, Fundamental performance limits in image registration, 2004.
    Efron and Morris, Stein's estimation rule and its competitors: an empirical Bayes approach, 1973.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Array, Pinhole, inverted, jacobian
from alignment.local_map import LocalMap
from alignment.robust_fit import Fit
from alignment.tiles import FineDetail, TileGrid, TileStatistics

_BLOCK_TILES = 5
"""Side of the blocks between which errors are taken as independent, tiles."""
_FIELD_TILES = 3
"""Side of the blocks in which the leftover shift is taken as one, tiles."""
_SYSTEMATIC_PX = 0.001
"""What kernels, rounding and blur leave in all tiles alike, root mean square: by so much the movements found in
rendered pairs miss the best ones beyond their covariance and the doubt of the depths."""
_DRAWS = 200
_MOST_ASKED = 600
"""Places at which a draw is asked, in a picture that has as many tiles."""
_PARTS_ACROSS = 8
"""Parts of the picture's width that are taken as independent where the strength of the errors is estimated: about as
wide as the things in a scene."""
_LEAST_VARIANCE_PX2 = 1e-12
_STRENGTHS = 200
_USUAL_PX = 0.0015
"""What places are usually off in common beyond what depth explains: edges of depths, lens, codec. In rendered pairs
it is 0.001 px in the median and below 0.004 px in 19 of 20."""
_USUAL_WITH_PARALLAX_PX = 0.02
"""And where the depths are not known: parallax of a rail that returns to 0.05 mm."""
_PRIOR_FREEDOM = 3
"""Degrees of freedom of the half-t prior of both: 19 of 20 below four times the median."""
_LEAST_WEIGHT = 1e-12
"""Of a block in which no tile is of use, 1/px²."""
_ROUNDING_VARIANCE = 1 / 12
_EVEN_SIGMA_PX = 0.3
"""Tiles known better than this weigh alike in the coherent misfit, so that no few of them decide: the well-known ones
lie where the fit was drawn to, and there the misfit is least. Where blur was matched at the depth of a wall, it is
tiles known to 0.2 px that show what stands before it."""


_AROUND: Array = np.pad(np.zeros((3, 3)), 2, constant_values=1.0)
"""Tiles two and three away. Next neighbours are left out: what crosses a border, a streak of rain or a badly matched
edge, misleads both sides alike, and passed for 0.07 px of parallax in rain where there were 0.01."""
_SHARED = 0.65
"""Of the leftover shift's variance, what tiles have in common at that distance: things in a scene end, and a fit takes
away what is common to all. Measured over rendered pairs in noise."""


@dataclass(frozen=True, eq=False)
class PredictedError:
    """The error to expect of a pair, px."""

    points_px: Array
    """``(n, 2)`` places of the degraded frame, spread over it."""
    errors_px: NDArray[np.float32]
    """``(draws, n, 2)`` how far beyond the homography's these places may truly lie."""
    estimate_px: float
    """Root mean square of the estimate's own error over the picture."""
    local_px: float
    """Root mean square of what one movement of the camera cannot remove."""

    @cached_property
    def radius_px(self) -> float:
        """What the median error over the picture keeps to in 95 of 100 such pairs."""
        return self.left_as_cut_px(np.zeros(2))

    def left_as_cut_px(self, offset_px: Array) -> float:
        """Radius once the ground truth was only cut on whole pixels.

        Every draw asks at other places, as whoever holds a pair against the truth will: the median of a few hundred
        is not that of the picture, least of all where near and far are off unlike.

        Args:
            offset_px: ``(n, 2)``: how far beyond the cut's the homography puts every place.
        """
        off_px = self.errors_px + np.asarray(offset_px, np.float32)
        length_px = np.hypot(off_px[..., 0], off_px[..., 1])
        medians = np.median(np.take_along_axis(length_px, _places(*length_px.shape), axis=1), axis=1)
        return float(np.percentile(medians, 95))

    def with_shift(self, sigma_px: Array) -> PredictedError:
        """Allow for a shift of the whole picture that no tile shows.

        Args:
            sigma_px: ``(2,)`` standard deviations in x and y.
        """
        shift_px = np.asarray(sigma_px * _normals(len(self.errors_px), 2), np.float32)
        return replace(self, errors_px=self.errors_px + shift_px[:, None])


def parameter_covariance(fit: Fit, grid: TileGrid) -> Array:
    """Covariance of the fitted parameters, ``(p, p)``.

    The larger of two: independent tiles inflated to their scatter, and blocks of tiles resampled as wholes
    (a sandwich), which sees errors that neighbours share.
    """
    bread = inverted(fit.normal)
    told = 2 * np.count_nonzero(fit.weight)
    spent = told / max(told - bread.shape[0], 1)  # by the fit, of the tiles' scatter
    naive = bread * fit.inflation * spent
    scores = np.einsum("k,kip,ki->kp", fit.weight, fit.jacobians, fit.remainder)
    blocks = _block_sums(scores, grid, side=_BLOCK_TILES)
    used = np.count_nonzero(np.any(blocks != 0, axis=1))
    count = max(used - bread.shape[0], 1)
    sandwich = bread @ (blocks.T @ blocks) @ bread * (used / count)
    ratio = np.trace(sandwich @ fit.normal) / np.trace(naive @ fit.normal)
    return np.asarray(naive * max(1.0, float(ratio)), np.float64)


def _block_sums(values: Array, grid: TileGrid, *, side: int) -> Array:
    """Sum the tiles' values ``(K, n)`` over square blocks of tiles."""
    row, column = np.arange(grid.rows) // side, np.arange(grid.columns) // side
    block = (row[:, None] * (column[-1] + 1) + column[None, :]).ravel()
    sums = np.zeros((block[-1] + 1, values.shape[1]))
    np.add.at(sums, block, values)
    return sums


def _some_of_each_block(grid: TileGrid) -> NDArray[np.int64]:
    """Choose a tile of every row and column of the blocks of the leftover shift, ``(B, 3)``."""
    rows, columns = (-(-count // _FIELD_TILES) for count in (grid.rows, grid.columns))
    row, column = np.divmod(np.arange(rows * columns)[:, None], columns)
    step = np.arange(_FIELD_TILES)
    row = np.minimum(row * _FIELD_TILES + step, grid.rows - 1)
    column = np.minimum(column * _FIELD_TILES + (step + 1) % _FIELD_TILES, grid.columns - 1)
    return np.asarray(row * grid.columns + column, np.int64)


def coherent_misfit(leftover: LocalMap) -> Array:
    """Mean square of the leftover shift that tiles near each other share, ``(2,)`` px² in x and y.

    One standard error is taken off, or noise would leave something half of the time.
    """
    mean, doubt = _shared_square(leftover)
    return np.asarray(np.maximum(mean - doubt, 0.0), np.float64)


def _shared_square(leftover: LocalMap) -> tuple[Array, Array]:
    """Mean square of the leftover shift that tiles near each other share, and its standard error, ``(2,)`` px² each.

    Noise is independent from tile to tile and averages out of the products of two; parallax does not.
    """
    grid = leftover.grid
    good = (leftover.inlier & ~leftover.foreign).reshape(grid.rows, grid.columns)
    weight = np.where(good, 1 / (leftover.sigma_px.reshape(good.shape) ** 2 + _EVEN_SIGMA_PX**2), 0.0)
    told = _SHARED * max(float(np.sum(weight * _around(weight))), 1e-12)
    shifts = [weight * shift.reshape(good.shape) for shift in leftover.unexplained_px.T]
    mean = [np.sum(shift * _around(shift)) / told for shift in shifts]
    doubt = [np.sqrt(2 * np.sum(shift**2 * _around(shift**2))) / told for shift in shifts]
    return np.array(mean), np.array(doubt)


def _around(plane: Array) -> Array:
    """Sum over the tiles around each tile."""
    return np.asarray(cv2.filter2D(plane, -1, _AROUND, borderType=cv2.BORDER_CONSTANT), np.float64)


def predict_error(
    displacement: Callable[[Array], Array],
    covariance: Array,
    leftover: LocalMap,
    *,
    points_px: Array,
    depths_known: bool,
) -> PredictedError:
    """Predict the error of a pair.

    Args:
        displacement: ``(n, 2, p)`` Jacobian of the fitted field at points ``(n, 2)``.
        covariance: Of the fitted parameters.
        leftover: The local map.
        points_px: ``(n, 2)`` over the picture, for the root mean square of the estimate's error.
        depths_known: Parallax was told from the rest: little is usually left.
    """
    at_points = displacement(points_px)
    estimate = np.einsum("nip,pq,niq->", at_points, covariance, at_points) / len(points_px)
    blocks = _FieldBlocks.of(leftover)
    moved = displacement(blocks.centres_px) @ _spread(covariance, _normals(_DRAWS, len(covariance)))
    usual_px = _USUAL_PX if depths_known else _USUAL_WITH_PARALLAX_PX
    strength = _strengths(_shared_square(leftover), usual_px=usual_px)
    error = moved.transpose(2, 0, 1) + blocks.drawn(strength)
    error *= _scale_doubt(leftover)[:, None, None]
    error += _SYSTEMATIC_PX / np.sqrt(2) * _normals(_DRAWS, 2)[:, None]
    tiles = _some_of_each_block(leftover.grid)
    doubt = leftover.parallax_doubt_px[tiles] * _normals(_DRAWS, *tiles.shape, 1)
    errors_px = (error[:, :, None] + leftover.parallax_px[tiles] + doubt).astype(np.float32)
    known = np.sum(leftover.parallax_px[leftover.measured] ** 2, axis=1)
    local = coherent_misfit(leftover).sum() + np.mean(known)
    return PredictedError(
        leftover.centres_px[tiles].reshape(-1, 2),
        errors_px.reshape(_DRAWS, -1, 2),
        float(np.sqrt(estimate)),
        float(np.sqrt(local)),
    )


@dataclass(frozen=True, eq=False)
class _FieldBlocks:
    """The leftover shift gathered over ``B`` blocks of tiles."""

    centres_px: Array
    """``(B, 2)``"""
    shift_px: Array
    """``(B, 2)`` weighted mean of what no depth explains; tiles that the fit refused count as well."""
    variance_px2: Array
    """``(B, 1)`` of it by the tiles' noise; very large where no tile is of use."""

    @classmethod
    def of(cls, leftover: LocalMap) -> _FieldBlocks:
        weight = np.where(leftover.measured & ~leftover.foreign, 1 / leftover.sigma_px**2, 0.0)
        columns = (
            np.ones(len(weight)),
            leftover.centres_px,
            weight,
            weight[:, None] * leftover.unexplained_px,
        )
        sums = _block_sums(np.column_stack(columns), leftover.grid, side=_FIELD_TILES)
        total = np.maximum(sums[:, 3:4], _LEAST_WEIGHT)
        return cls(sums[:, 1:3] / sums[:, :1], sums[:, 4:6] / total, 1 / total)

    def drawn(self, strength: Array) -> Array:
        """Draw true fields that fit what the blocks show, ``(draws, B, 2)`` px.

        Blocks scatter about a mean of their own, which is not that of the fit: it was drawn to where the structure
        is. What a block shows is shrunk towards that mean by how much of it is noise, and scattered by what this
        leaves unknown.

        Args:
            strength: ``(draws, 2)`` mean square of the field over the picture, px².
        """
        strength = strength[:, None]
        weight = 1 / (strength + self.variance_px2)
        precision = weight.sum(axis=1, keepdims=True) + 1 / strength
        mean = (weight * self.shift_px).sum(axis=1, keepdims=True) / precision
        mean += _normals(_DRAWS, 1, 2) / np.sqrt(precision)
        kept = strength * weight
        scatter = np.sqrt(kept * self.variance_px2) * _normals(_DRAWS, len(self.shift_px), 2)
        return np.asarray(mean + kept * (self.shift_px - mean) + scatter, np.float64)


def _strengths(shared: tuple[Array, Array], *, usual_px: float) -> Array:
    """Draw how strong the field may be that tiles share, ``(draws, 2)`` px².

    What was seen has a standard error, and under noise or rain a large one; what is usual tells the rest, by a half-t
    prior of the root mean square, whose tails let a codec or a lens do what they do (Gelman, Prior distributions for
    variance parameters in hierarchical models, 2006).

    Args:
        shared: As `_shared_square` tells it.
        usual_px: Scale of the prior.
    """
    grid_px = np.geomspace(1e-4, 1.0, _STRENGTHS)
    density = (1 + (grid_px / usual_px) ** 2 / _PRIOR_FREEDOM) ** (-(_PRIOR_FREEDOM + 1) / 2)
    prior = grid_px * density  # on a logarithmic grid
    drawn = []
    for seen, doubt, order in zip(*shared, _orders(), strict=True):
        misfit = ((seen - grid_px**2) / max(doubt, _LEAST_VARIANCE_PX2)) ** 2 / 2
        cumulated = np.cumsum(prior * np.exp(misfit.min() - misfit))
        drawn.append(np.interp(order * cumulated[-1], cumulated, grid_px) ** 2)
    return np.column_stack(drawn)


@lru_cache(maxsize=16)
def _places(draws: int, count: int) -> NDArray[np.int64]:
    """Draw some of ``count`` places, the same at every call: ``(draws, asked)``."""
    drawn = np.random.default_rng(2).integers(0, count, (draws, min(_FIELD_TILES * count, _MOST_ASKED)))
    drawn.setflags(write=False)
    return drawn


@lru_cache(maxsize=1)
def _orders() -> Array:
    """Evenly spread ranks 0..1 for x and y, shuffled, the same at every call: ``(2, draws)``."""
    ranks = np.tile((np.arange(_DRAWS) + 0.5) / _DRAWS, (2, 1))
    return np.asarray(np.random.default_rng(1).permuted(ranks, axis=1), np.float64)


def _scale_doubt(leftover: LocalMap) -> Array:
    """Draw by how much the errors' strength may be off: a variance known from that many values, ``(draws,)``."""
    used = (leftover.inlier & ~leftover.foreign).astype(float)[:, None]
    side = max(leftover.grid.columns // _PARTS_ACROSS, 1)
    parts = int(np.count_nonzero(_block_sums(used, leftover.grid, side=side)))
    return np.sqrt(max(parts, 1) / _chi_squares(max(parts, 1)))


@lru_cache(maxsize=16)
def _chi_squares(degrees: int) -> Array:
    """Numbers of a chi-square distribution, the same at every call."""
    drawn = np.random.default_rng(degrees).chisquare(degrees, _DRAWS)
    drawn.setflags(write=False)
    return drawn


def _spread(covariance: Array, normals: Array) -> Array:
    """Give standard normal numbers ``(n, p)`` a covariance, ``(p, n)``."""
    variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray((axes * np.sqrt(np.maximum(variances, 0.0))) @ normals.T, np.float64)


@lru_cache(maxsize=16)
def _normals(*shape: int) -> Array:
    """Standard normal numbers, the same at every call: equal pairs have equal predictions."""
    drawn = np.random.default_rng(shape).standard_normal(shape)
    drawn.setflags(write=False)
    return drawn


def bound_px(
    detail: FineDetail, tiles: TileStatistics, fit: Fit, *, camera: Pinhole, points_px: Array
) -> float:
    """Cramér-Rao bound of the model's displacement, root mean square over points, px.

    Args:
        detail: Gradients and noise of both frames at the alignment found.
        tiles: Statistics at the same alignment, for the gains.
        fit: For its model, Jacobians and usable tiles.
        camera: For the Jacobians at ``points_px``.
        points_px: ``(n, 2)`` over the picture.
    """
    gain = np.maximum(tiles.gain, 0.0)
    moments = detail.gradient_moments * (gain**2 / _noise_variance(detail, gain))[:, None, None]
    information = np.einsum(
        "k,kip,kij,kjq->pq", fit.usable.astype(float), fit.jacobians, moments, fit.jacobians, optimize=True
    )
    covariance = np.linalg.pinv(information, hermitian=True)
    at_points = jacobian(fit.model, camera, points_px)
    return float(np.sqrt(np.einsum("nip,pq,niq->", at_points, covariance, at_points) / len(points_px)))


def _noise_variance(detail: FineDetail, gain: Array) -> Array:
    """Noise of both frames in codes² of the degraded one; fine structure that both show is taken out."""
    in_truth = gain**2 * detail.gt_noise
    own = np.maximum(detail.lq_noise - in_truth, _ROUNDING_VARIANCE)
    return np.asarray(own + np.minimum(in_truth, np.percentile(in_truth, 10)), np.float64)
