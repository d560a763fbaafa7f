"""Fit one movement of the camera to what all tiles say, without those that say something else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import PARAMETERS, Array, ModelName
from alignment.errors import NoCommonStructureError
from alignment.kernels.reweighting import reweighted
from alignment.tiles import TileStatistics, shifts_px

Flags = NDArray[np.bool_]

CHI_SQUARE_MEDIAN = 1.386
"""Median of chi-square with two degrees of freedom."""
TUKEY_CUT = 16.0
"""Whitened squared innovation at which a tile loses its say; 16 is four standard deviations."""
_LEAST_EIGENVALUE = 1e-9
"""Of the information scaled to a diagonal of ones: below it, rounding decides some of the parameters."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A robust least-squares step from the present alignment; ``K`` tiles, ``p`` parameters."""

    model: ModelName
    parameters: Array
    """``(p,)``"""
    normal: Array
    """``(p, p)`` weighted information of the parameters, before `inflation`."""
    jacobians: Array
    """``(K, 2, p)``"""
    remainder: Array
    """``(K, 2)`` score that the movement leaves unexplained."""
    innovation: Array
    """``(K, 2)`` px: shift of each tile that the movement leaves unexplained."""
    chi_square: Array
    """``(K,)`` of the innovation, divided by `inflation`: 1.386 in the median."""
    weight: Array
    """``(K,)`` Tukey weight, 0..1; 0 for tiles that were not to be used."""
    inflation: float
    """How much more the tiles disagree than white residuals would make them."""
    usable: Flags
    """``(K,)`` bool: the tiles that were to be used."""
    prior: Array | None
    """``(p,)`` as `fit_motion` was given it."""

    def again(self, tiles: TileStatistics, among: Flags) -> Fit:
        """Fit the same to fewer of the tiles; ``among`` is ``(K,)`` bool."""
        return fit_motion(tiles, self.jacobians, self.usable & among, model=self.model, prior=self.prior)


def fit_motion(
    tiles: TileStatistics, jacobians: Array, usable: Flags, *, model: ModelName, prior: Array | None = None
) -> Fit:
    """Solve for the model's parameters with Tukey weights on the whitened innovations.

    Args:
        tiles: Statistics of ``K`` tiles.
        jacobians: ``(K, 2, p)`` of the tile centres.
        usable: ``(K,)`` bool.
        model: Which model the Jacobians belong to.
        prior: ``(p,)`` information that each parameter is 0, before `Fit.inflation`; None for none.

    Raises:
        NoCommonStructureError: The tiles do not determine the parameters.
    """
    information, score, shifts = map(np.ascontiguousarray, (tiles.information, tiles.score, jacobians))
    known = np.zeros(jacobians.shape[2]) if prior is None else prior
    good, parameters, normal, chi_square, weight, inflation = reweighted(
        information, score, shifts, usable, known, (TUKEY_CUT, CHI_SQUARE_MEDIAN)
    )
    if not good or _least_eigenvalue(normal) <= _LEAST_EIGENVALUE:
        raise NoCommonStructureError(
            "the two frames have too little structure in common to register",
            next_step="more light, a sharper ground truth or more texture in the scene",
        )
    remainder = tiles.score - np.einsum("kij,kj->ki", tiles.information, jacobians @ parameters)
    return Fit(
        model=model,
        parameters=parameters,
        normal=normal,
        jacobians=jacobians,
        remainder=remainder,
        innovation=shifts_px(tiles.information, remainder),
        chi_square=chi_square,
        weight=weight,
        inflation=inflation,
        usable=usable,
        prior=prior,
    )


def robust_cost(chi_square: Array) -> float:
    """Sum of Tukey's loss; equals the sum of ``chi_square`` where all are small."""
    return float(np.sum(TUKEY_CUT / 3 * (1 - np.maximum(1 - chi_square / TUKEY_CUT, 0.0) ** 3)))


def information_criterion(fit: Fit, *, reference_inflation: float) -> float:
    """Schwarz's criterion, with the innovations of every rival measured on one scale.

    Args:
        fit: One of the rivals.
        reference_inflation: Inflation of the richest rival.
    """
    chi_square = fit.chi_square[fit.usable] * (fit.inflation / reference_inflation)
    return robust_cost(chi_square) + PARAMETERS[fit.model] * float(np.log(max(chi_square.size, 2)))


def _least_eigenvalue(normal: Array) -> float:
    """Of the matrix scaled to a diagonal of ones; 0 where that cannot be done."""
    diagonal = np.diag(normal)
    if not np.all(diagonal > 0):
        return 0.0
    scale = 1 / np.sqrt(diagonal)
    return float(np.linalg.eigvalsh(normal * np.outer(scale, scale))[0])
