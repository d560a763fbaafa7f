"""Photon transfer: how many electrons fill the codes' range, and what the reading of them adds.

In linear light the variance of a pixel is its mean over the electrons at white, plus the square of the read
noise. Luma mixes three channels, so a patch's flicker is a known sum of both parts, whatever its colour.

References:
    Janesick, Photon Transfer, 2007.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from alignment.calibration.curve import slope_of_light
from alignment.calibration.document import Measured, NoiseCalibration
from alignment.calibration.still_phase import PATCH_PX, StillPhase
from alignment.photometry import ToneCurve
from alignment.takes import Array

_LUMA = np.array([0.2126, 0.7152, 0.0722])
_ROUNDING_DOUBT = 0.05
"""Cameras round at places they do not tell: what `_rounding` may be wrong by, codes²."""
_CODES = (12.0, 245.0)
"""Outside, clipping at either end narrows the noise."""
_LEAST_VARIANCE = 0.25
"""Weaker noise is eaten by rounding rather than added to it, codes²."""
_MOST_NOISE = 0.15
"""Standard deviation over mean light up to which the tone curve is straight enough over the noise."""
_MODEL_DOUBT = 0.015
"""Relative error of the model where noise is weak; strong noise adds what the tone curve's bend does to it."""
_BEND_DOUBT = 3.0
"""Relative error per square of noise over light, measured on rendered ISO 6400."""
_SLOPE_DOUBT = 0.08
"""Relative error of the tone curve's slope near black, where the read noise shows."""
_LEAST_PATCHES = 20
_TUKEY = 4.685
_BELIEVABLE_SIGMAS = 5.0


def measure_noise(
    phases: Sequence[StillPhase], tone: ToneCurve, *, white_doubt: float = 0.0
) -> list[NoiseCalibration]:
    """Measure the noise of every ISO setting that the standstills show.

    Args:
        phases: The standstills.
        tone: The camera's tone curve.
        white_doubt: Relative standard deviation of the curve's light at white.
    """
    by_iso: dict[int, list[StillPhase]] = defaultdict(list)
    for phase in phases:
        iso = phase.source.camera.settings_read.iso or phase.source.round.settings.iso
        if iso is not None:
            by_iso[iso].append(phase)
    found = (_of_iso(iso, by_iso[iso], tone, white_doubt) for iso in sorted(by_iso))
    return [noise for noise in found if noise is not None]


def _of_iso(
    iso: int, phases: Sequence[StillPhase], tone: ToneCurve, white_doubt: float
) -> NoiseCalibration | None:
    rows = [_patches(phase, tone) for phase in phases]
    design = np.concatenate([row[0] for row in rows])
    variance = np.concatenate([row[1] for row in rows])
    pixels = np.concatenate([row[2] for row in rows])
    if len(variance) < _LEAST_PATCHES:
        return None
    (slope, floor), covariance, count = _line(design, variance, pixels)
    doubt = _line(design, variance + _ROUNDING_DOUBT, pixels)[0] - (slope, floor)
    slope_sigma, floor_sigma = np.sqrt(np.diag(covariance) + doubt**2)
    if slope < _BELIEVABLE_SIGMAS * slope_sigma:
        return None
    electrons, relative = 1 / slope, _relative(slope_sigma / slope, white_doubt, design, variance)
    return NoiseCalibration(
        iso=iso,
        electrons_at_white=Measured(value=electrons, sigma=electrons * relative, count=count),
        read_noise_e=_read_noise(electrons, relative, floor, floor_sigma, count),
    )


def _relative(fit: float, white: float, design: Array, variance: Array) -> float:
    """Combine the relative doubts of the electrons at white."""
    light = design[:, 0] / design[:, 1]
    bend = float(np.mean(variance / (design[:, 1] * light**2)))
    return float(np.sqrt(fit**2 + white**2 + _MODEL_DOUBT**2 + (_BEND_DOUBT * bend) ** 2))


def _read_noise(
    electrons: float, relative_sigma: float, floor: float, floor_sigma: float, count: int
) -> Measured | None:
    """Turn the variance at no light into electrons; None where it does not stand out."""
    if floor < 2 * floor_sigma:
        return None
    read = electrons * float(np.sqrt(floor))
    sigma = read * float(np.sqrt(relative_sigma**2 + _SLOPE_DOUBT**2 + (floor_sigma / (2 * floor)) ** 2))
    return Measured(value=read, sigma=sigma, count=count)


def _patches(phase: StillPhase, tone: ToneCurve) -> tuple[Array, Array, Array]:
    """Return what each usable patch says: weights of the two unknowns ``(n, 2)``, variance, pixels seen."""
    codes = phase.mean_rgb
    usable = phase.flat & (codes > _CODES[0]).all(axis=1) & (codes < _CODES[1]).all(axis=1)
    usable &= phase.luma_variance - _rounding(phase) > _LEAST_VARIANCE
    light = tone.light(codes[usable].astype(np.float32)).astype(np.float64)
    weight = (_LUMA / slope_of_light(tone, codes[usable])) ** 2
    design = np.column_stack([(weight * light).sum(axis=1), weight.sum(axis=1)])
    variance = phase.luma_variance[usable] - _rounding(phase)
    steady = variance < _MOST_NOISE**2 * (weight * light**2).sum(axis=1)
    pixels = np.full(len(design), PATCH_PX**2 * (phase.frames - 1.0))
    return design[steady], variance[steady], pixels[steady]


def _rounding(phase: StillPhase) -> float:
    """Variance of rounding, codes²: RGB to 8 bits, luma to 8 bits of its range."""
    step = 1.0 if phase.source.camera.colour.range == "pc" else 255 / 219
    return float(np.sum(_LUMA**2) + step**2) / 12


def _line(design: Array, variance: Array, pixels: Array) -> tuple[Array, Array, int]:
    """Fit the two unknowns; a sample variance scatters by itself times the square root of 2/n."""
    expected, robust = np.maximum(variance, _LEAST_VARIANCE), np.ones(len(variance))
    for _ in range(8):
        root = np.sqrt(pixels / 2 * robust) / (expected + _LEAST_VARIANCE)
        solution = np.linalg.lstsq(design * root[:, None], variance * root, rcond=None)[0]
        expected = np.maximum(design @ solution, _LEAST_VARIANCE)
        misfit = (variance - expected) / (expected + _LEAST_VARIANCE) * np.sqrt(pixels / 2)
        spread = max(1.4826 * float(np.median(np.abs(misfit))), 1.0)
        robust = np.clip(1 - (misfit / (_TUKEY * spread)) ** 2, 0, None) ** 2
    weight = pixels / 2 * robust / (expected + _LEAST_VARIANCE) ** 2
    covariance = spread**2 * np.linalg.inv((design * weight[:, None]).T @ design)
    return np.asarray(solution), np.asarray(covariance), int(np.count_nonzero(robust))
