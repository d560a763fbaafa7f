"""The simplest answer to low light: one gain and one gamma for everything. What a network has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.images import Pixels
from models.metrics import to_8_bit


@dataclass(frozen=True)
class GainGamma:
    """``y = clip(gain * x ** gamma)`` on values in [0, 1], the same for every pixel and channel."""

    gain: float
    gamma: float

    def curve(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map values in [0, 1]."""
        return np.clip(self.gain * x**self.gamma, 0, 1)

    def apply(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Map a picture; returns uint8."""
        table = np.rint(255 * self.curve(np.arange(256) / 255)).astype(np.uint8)
        return table[to_8_bit(pixels)]


def fit_gain_gamma(pairs: Iterable[tuple[Pixels, Pixels]]) -> GainGamma:
    """Fit gain and gamma to pairs of (degraded, reference) by least squares over all pixels.

    A degraded value takes 256 levels, so per level the count and the mean of the reference hold all that
    the squared error depends on: nothing is subsampled.

    Raises:
        ValueError: No pairs.
    """
    count, total = np.zeros(256), np.zeros(256)
    for lq, gt in pairs:
        levels = to_8_bit(lq).ravel()
        count += np.bincount(levels, minlength=256)
        total += np.bincount(levels, weights=to_8_bit(gt).ravel() / 255.0, minlength=256)
    if not count.any():
        raise ValueError("no pairs to fit a gain and a gamma to")
    seen = count > 0
    x, weight, mean = np.flatnonzero(seen) / 255.0, count[seen] / count.sum(), total[seen] / count[seen]

    def squared_error(parameters: NDArray[np.float64]) -> float:
        return float((weight * (GainGamma(*np.exp(parameters)).curve(x) - mean) ** 2).sum())

    starts = [np.log([gain, gamma]) for gain in (1.0, 4.0, 12.0) for gamma in (0.5, 1.0)]
    fits = [minimize(squared_error, start, method="Nelder-Mead", options={"xatol": 1e-6}) for start in starts]
    gain, gamma = np.exp(min(fits, key=lambda fit: fit.fun).x)
    return GainGamma(float(gain), float(gamma))
