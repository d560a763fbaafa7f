"""A few parameters from the equations of some thousand tiles, by iterated reweighting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.kernels.compiling import compiled, part

Plane = NDArray[np.float32]
Array = NDArray[np.float64]

_MOST_REWEIGHTINGS = 10
_SETTLED = 0.01
"""Change of a weight below which the weights have settled."""
_TELLING = 1e-9
"""Share of a tile's information across its only edge below which there is none: rounding."""
_LEAST_PIVOT = 1e-12


@part
def _whiten(information: Array, score: Array, jacobian: Array, design: Array, target: Array) -> None:
    """Scale a tile's two equations to unit variance; what it cannot tell becomes a row of zeros."""
    a = np.sqrt(max(information[0, 0], 0.0))
    b = information[0, 1] / a if a > 0 else 0.0
    rest = information[1, 1] - b * b
    c = np.sqrt(rest) if rest > _TELLING * information[1, 1] else 0.0
    target[0] = score[0] / a if a > 0 else 0.0
    target[1] = (score[1] - b * target[0]) / c if c > 0 else 0.0
    for i in range(jacobian.shape[1]):
        design[0, i] = a * jacobian[0, i] + b * jacobian[1, i]
        design[1, i] = c * jacobian[1, i]


@part
def _weighted_normal(design: Array, target: Array, weight: Array, prior: Array) -> tuple[Array, Array]:
    """Normal equations of all tiles under their weights, and of what is known beforehand: all parameters near 0."""
    size = design.shape[2]
    normal, right = np.diag(prior), np.zeros(size)
    for k in range(weight.size):
        if weight[k] > 0:
            for row in range(2):
                for i in range(size):
                    weighted = weight[k] * design[k, row, i]
                    right[i] += weighted * target[k, row]
                    for j in range(size):
                        normal[i, j] += weighted * design[k, row, j]
    return normal, right


@part
def _solved(normal: Array, right: Array) -> tuple[bool, Array]:
    """Solve by Cholesky's factor of the equations scaled to a diagonal of ones; False where they are singular."""
    size = right.size
    scale, factor, found = np.zeros(size), np.zeros((size, size)), np.zeros(size)
    for i in range(size):
        if not normal[i, i] > 0:
            return False, found
        scale[i] = 1 / np.sqrt(normal[i, i])
    for i in range(size):
        for j in range(i + 1):
            rest = normal[i, j] * scale[i] * scale[j]
            for k in range(j):
                rest -= factor[i, k] * factor[j, k]
            if i == j and not rest > _LEAST_PIVOT:
                return False, found
            factor[i, j] = np.sqrt(rest) if i == j else rest / factor[j, j]
    for i in range(size):
        rest = scale[i] * right[i]
        for k in range(i):
            rest -= factor[i, k] * found[k]
        found[i] = rest / factor[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            found[i] -= factor[k, i] * found[k]
        found[i] /= factor[i, i]
    return True, found * scale


@part
def _misfit(design: Array, target: Array, parameters: Array, chi_square: Array) -> None:
    """Squared length of what the parameters leave of every tile's two equations."""
    for k in range(chi_square.size):
        chi_square[k] = 0.0
        for row in range(2):
            rest = target[k, row]
            for i in range(parameters.size):
                rest -= design[k, row, i] * parameters[i]
            chi_square[k] += rest * rest


@part
def _upper_median(values: Array) -> float:
    return float(np.partition(values, values.size // 2)[values.size // 2]) if values.size else 0.0


@compiled(
    "(float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1], boolean[::1], float64[::1], UniTuple(float64, 2))"
)
def reweighted(  # noqa: PLR0917  - compiled functions take nothing by keyword
    information: Array,
    score: Array,
    jacobians: Array,
    usable: NDArray[np.bool_],
    prior: Array,
    limits: tuple[float, float],
) -> tuple[bool, Array, Array, Array, Array, float]:
    """Solve for a few parameters by iterated reweighting with Tukey's biweight of whitened squared misfits.

    Args:
        information: ``(K, 2, 2)`` of every tile.
        score: ``(K, 2)`` of every tile: its information times its shift.
        jacobians: ``(K, 2, p)``: shift of every tile per unit of the parameters.
        usable: ``(K,)``: the tiles with a say.
        prior: ``(p,)`` information that each parameter is 0, before any inflation.
        limits: Squared misfit, scaled by the inflation, at which a tile loses its say; what the inflation scales the
            median squared misfit to.

    Returns:
        Whether the tiles determine the parameters, these, ``(p, p)`` normal matrix under the last weights, ``(K,)``
        misfits over the inflation, ``(K,)`` weights, and the inflation.
    """
    cut, median = limits
    design, target = np.empty(jacobians.shape), np.empty(score.shape)
    for k in range(usable.size):
        _whiten(information[k], score[k], jacobians[k], design[k], target[k])
    weight, chi_square = usable.astype(np.float64), np.empty(usable.size)
    for _ in range(_MOST_REWEIGHTINGS):
        normal, right = _weighted_normal(design, target, weight, prior)
        good, parameters = _solved(normal, right)
        if not good:
            return False, parameters, normal, chi_square, weight, 1.0
        _misfit(design, target, parameters, chi_square)
        inflation = max(_upper_median(chi_square[usable]) / median, 1e-6)
        change = 0.0
        for k in range(usable.size):
            new = max(1 - chi_square[k] / inflation / cut, 0.0) ** 2 if usable[k] else 0.0
            change = max(change, abs(new - weight[k]))
            weight[k] = new
        if change < _SETTLED:
            break
    normal, _ = _weighted_normal(design, target, weight, prior)
    return True, parameters, normal, chi_square / inflation, weight, inflation
