"""Positions corrected by parallax, as a smooth function of place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_OFFSET_SIGMA_MM = 1.0
"""How far a take's datum may be off as a whole: a camera turned by 0.05 deg."""
_BEND_SIGMA_MM = 0.2
"""How far it may wander along the rail: a bend of 0.006 deg at two metres."""
_BEND_LENGTH_MM = 25.0
"""Over which distance it wanders."""
_SAMPLE_SIGMA_MM = 0.04
"""No sample is better than this: disparities are themselves measured."""


@dataclass(frozen=True, eq=False)
class PositionCorrection:
    """What to add to a take's positions; nothing where no sample was taken."""

    position_mm: Array
    """``(n,)`` where it was measured."""
    correction_mm: Array
    """``(n,)`` what was found there."""
    sigma_mm: Array
    """``(n,)`` its standard deviation."""

    @classmethod
    def none(cls) -> PositionCorrection:
        """Return the correction that changes nothing."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))

    def at(self, position_mm: Array) -> Array:
        """Predict the correction at positions ``(m,)`` by Gaussian-process regression."""
        if self.position_mm.size == 0:
            return np.zeros_like(position_mm)
        keep = _plausible(self.correction_mm)
        known, found = self.position_mm[keep], self.correction_mm[keep]
        noise = np.diag(self.sigma_mm[keep] ** 2 + _SAMPLE_SIGMA_MM**2)
        weights = np.linalg.solve(_covariance(known, known) + noise, found)
        return np.asarray(_covariance(position_mm, known) @ weights, np.float64)


def _covariance(a: Array, b: Array) -> Array:
    distance = (a[:, None] - b[None, :]) / _BEND_LENGTH_MM
    return np.asarray(_OFFSET_SIGMA_MM**2 + _BEND_SIGMA_MM**2 * np.exp(-(distance**2) / 2), np.float64)


def _plausible(values: Array) -> NDArray[np.bool_]:
    """Leave out samples that a moving thing or a wrong match has spoiled."""
    deviation = np.abs(values - np.median(values))
    return np.asarray(
        deviation <= np.maximum(5 * 1.4826 * np.median(deviation), 2 * _BEND_SIGMA_MM), np.bool_
    )
