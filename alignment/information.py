"""How well a pair can be aligned at best, and how well it was.

The bound is Cramér-Rao's for the model's parameters under the noise of the frames. The prediction starts
from the estimator's own covariance, inflated to how much the tiles disagree, and adds what no single
movement of the camera can remove: parallax.

References:
    Robinson and Milanfar, Fundamental performance limits in image registration, 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignment.camera_motion import Array, Pinhole, inverted, jacobian
from alignment.local_map import LocalMap
from alignment.robust_fit import Fit
from alignment.tiles import FineDetail, TileGrid, TileStatistics

_BLOCK_TILES = 5
"""Side of the blocks between which errors are taken as independent, tiles."""
_SYSTEMATIC_PX = 0.004
"""What kernels, rounding and coding leave in clean synthetic pairs, root mean square."""
_ROUNDING_VARIANCE = 1 / 12
_EVEN_SIGMA_PX = 0.05
"""Tiles known better than this weigh alike in the coherent misfit, so that no few of them decide."""


@dataclass(frozen=True)
class PredictedError:
    """The error to expect of a delivered pair, px."""

    radius_px: float
    """Radius that holds 95 % of the errors over the picture."""
    estimate_px: float
    """Root mean square of the estimate's own error over the picture."""
    local_px: float
    """Root mean square of what one movement of the camera cannot remove."""


def parameter_covariance(fit: Fit, grid: TileGrid) -> Array:
    """Covariance of the fitted parameters, ``(p, p)``.

    The larger of two: independent tiles inflated to their scatter, and blocks of tiles resampled as wholes
    (a sandwich), which sees errors that neighbours share.
    """
    bread = inverted(fit.normal)
    naive = bread * fit.inflation
    scores = np.einsum("k,kip,ki->kp", fit.weight, fit.jacobians, fit.remainder)
    blocks = _block_sums(scores, grid)
    used = np.count_nonzero(np.any(blocks != 0, axis=1))
    count = max(used - bread.shape[0], 1)
    sandwich = bread @ (blocks.T @ blocks) @ bread * (used / count)
    ratio = np.trace(sandwich @ fit.normal) / np.trace(naive @ fit.normal)
    return np.asarray(naive * max(1.0, float(ratio)), np.float64)


def _block_sums(scores: Array, grid: TileGrid) -> Array:
    row = np.arange(grid.rows) // _BLOCK_TILES
    column = np.arange(grid.columns) // _BLOCK_TILES
    block = (row[:, None] * (column[-1] + 1) + column[None, :]).ravel()
    sums = np.zeros((block[-1] + 1, scores.shape[1]))
    np.add.at(sums, block, scores)
    return sums


def coherent_misfit(leftover: LocalMap) -> Array:
    """Mean square of the leftover shift that neighbouring tiles share, ``(2,)`` px² in x and y.

    Noise is independent from tile to tile and averages out of the product of neighbours; parallax does not.
    One standard error is taken off, or noise would leave something half of the time.
    """
    grid = leftover.grid
    good = (leftover.inlier & ~leftover.foreign).reshape(grid.rows, grid.columns)
    weight = np.where(good, 1 / (leftover.sigma_px.reshape(good.shape) ** 2 + _EVEN_SIGMA_PX**2), 0.0)
    shift = leftover.innovation_px.reshape(grid.rows, grid.columns, 2)
    weights, products = [], []
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        weights.append((weight[a] * weight[b]).ravel())
        products.append((shift[a] * shift[b]).reshape(-1, 2))
    share = np.concatenate(weights) / max(sum(float(w.sum()) for w in weights), 1e-12)
    product = np.concatenate(products)
    mean = share @ product
    doubt = np.sqrt(share**2 @ (product - mean) ** 2)
    return np.asarray(np.maximum(mean - doubt, 0.0), np.float64)


def predict_error(
    fit: Fit,
    covariance: Array,
    leftover: LocalMap,
    *,
    camera: Pinhole,
    points_px: Array,
    parallax_spread_px: float,
) -> PredictedError:
    """Predict the error of a delivered pair over ``points_px``.

    Args:
        fit: The converged fit.
        covariance: Of its parameters.
        leftover: Its local map.
        camera: For the Jacobians.
        points_px: ``(n, 2)`` over the written pair.
        parallax_spread_px: Spread of the parallax between near and far that the position gap makes, along x;
            taken as even between its ends.
    """
    at_points = jacobian(fit.model, camera, points_px)
    estimate = np.einsum("nip,pq,njq->ij", at_points, covariance, at_points) / len(points_px)
    local = np.maximum(coherent_misfit(leftover), [parallax_spread_px**2 / 12, 0.0])
    total = estimate + np.diag(local + _SYSTEMATIC_PX**2 / 2)
    small, large = np.linalg.eigvalsh(total)
    radius = np.sqrt(3.84 * large + 2.15 * max(small, 0.0))  # exact for a circle (5.99) and for a line (3.84)
    return PredictedError(float(radius), float(np.sqrt(np.trace(estimate))), float(np.sqrt(local.sum())))


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
