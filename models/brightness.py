"""The simplest answer to low light: one gain and one gamma for everything. What a network has to beat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from catalog.records import Degradation
from models.data import PairDataset
from models.errors import NoPairsError
from models.images import Pixels
from models.metrics import psnr_db, to_8_bit

GAIN_GAMMA_PAIRS = 24
"""Training pairs of a class that the curve is fitted to; more change nothing that shows."""


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
        NoPairsError: There are none.
    """
    count, total = np.zeros(256), np.zeros(256)
    for lq, gt in pairs:
        levels = to_8_bit(lq).ravel()
        count += np.bincount(levels, minlength=256)
        total += np.bincount(levels, weights=to_8_bit(gt).ravel() / 255.0, minlength=256)
    if not count.any():
        raise NoPairsError("no pairs to fit a gain and a gamma to")
    seen = count > 0
    x, weight, mean = np.flatnonzero(seen) / 255.0, count[seen] / count.sum(), total[seen] / count[seen]

    def squared_error(parameters: NDArray[np.float64]) -> float:
        return float((weight * (GainGamma(*np.exp(parameters)).curve(x) - mean) ** 2).sum())

    starts = [np.log([gain, gamma]) for gain in (1.0, 4.0, 12.0) for gamma in (0.5, 1.0)]
    fits = [minimize(squared_error, start, method="Nelder-Mead", options={"xatol": 1e-6}) for start in starts]
    gain, gamma = np.exp(min(fits, key=lambda fit: fit.fun).x)
    return GainGamma(float(gain), float(gamma))


def score_gain_gamma(train: PairDataset, test: PairDataset, indices: Sequence[int]) -> dict[str, float]:
    """Score the best single gain and gamma of the training pairs, per class that is short of light, in dB.

    A network has to beat this to have learned anything about light.

    Args:
        train: Pairs to fit to.
        test: Pairs to score.
        indices: Which of them.
    """
    names = sorted({name for name in test.classes if Degradation.LOW_LIGHT in name.split("+")})
    scored = ((name, _psnr_of_class(train, test, name, indices)) for name in names)
    return {name: score for name, score in scored if score is not None}


def _psnr_of_class(train: PairDataset, test: PairDataset, name: str, indices: Sequence[int]) -> float | None:
    fitted_on = list(_of_class(train, name, range(len(train))))
    chosen = list(_of_class(test, name, indices))
    if not fitted_on or not chosen:
        return None
    step = max(1, len(fitted_on) // GAIN_GAMMA_PAIRS)
    curve = fit_gain_gamma((pair.lq, pair.gt) for pair in (train[i] for i in fitted_on[::step]))
    return fmean(psnr_db(curve.apply(pair.lq), pair.gt, mask=pair.mask) for pair in (test[i] for i in chosen))


def _of_class(dataset: PairDataset, name: str, indices: Sequence[int]) -> Iterator[int]:
    return (i for i in indices if dataset.classes[i] == name)
