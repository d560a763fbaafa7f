"""Photon transfer: how many electrons fill the codes' range, and what the reading of them adds.

In linear light the variance of a pixel is its mean over the electrons at white, plus the square of the read
noise. Luma mixes three channels, so a patch's flicker is a known sum of both parts, whatever its colour. Codes are
forecast as they are recorded, bent and cut at black and white, rather than taken for straight over the noise: at
ISO 6400 that is the difference between 1 % and 10 to 25 % in electrons.

References:
    Janesick, Photon Transfer, 2007.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignment.calibration.curve import coded, slope_of_light
from alignment.calibration.document import Measured, NoiseCalibration
from alignment.calibration.still_phase import PATCH_PX, StillPhase
from alignment.photometry import ToneCurve
from alignment.takes import Array
from alignment.yuv import luma_weights

_ROUNDING_DOUBT = 0.05
"""Cameras round at places they do not tell: what `_rounding` may be wrong by, codes²."""
_CODES = (12.0, 245.0)
"""Outside, what the curve does at its ends is not known well enough."""
_LEAST_VARIANCE = 0.25
"""Weaker noise is eaten by rounding rather than added to it, codes²."""
_MODEL_DOUBT = 0.01
"""Relative error of the model: patches are not quite flat. With the true tone curve, the electrons of rendered
standstills came out 0.3 % wrong, 1.2 % at worst, at ISO 100 to 6400 alike."""
_SLOPE_DOUBT = 0.05
"""Relative error of a measured tone curve's slope near black, where the read noise shows."""
_INDEPENDENT = 2 / 3
"""Of the differences of neighbouring frames, which share frames, by what they scatter."""
_LIGHT = np.linspace(0.0, 1.1, 161) ** 2
"""What falls on a pixel, white = 1, closer near black."""
_STEPS = 12
_SMALL = 0.02
"""Step of a difference: share of the slope, electrons² of the floor."""
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


@dataclass(frozen=True, eq=False)
class _Patches:
    """What flat patches show."""

    codes: Array
    """``(n, 3)`` mean."""
    variance: Array
    """``(n,)`` of the luma from frame to frame, what rounding adds left out, codes²."""
    freedom: Array
    """``(n,)`` independent samples behind it."""
    luma: Array
    """``(n, 3)`` how much of red, green and blue there is in it."""


def _of_iso(
    iso: int, phases: Sequence[StillPhase], tone: ToneCurve, white_doubt: float
) -> NoiseCalibration | None:
    patches = _usable(phases)
    if len(patches.variance) < _LEAST_PATCHES:
        return None
    found, covariance, count = _fit(patches, tone)
    if count < _LEAST_PATCHES:
        return None
    doubted = replace(patches, variance=patches.variance + _ROUNDING_DOUBT)
    slope, floor = found
    slope_sigma, floor_sigma = np.sqrt(np.diag(covariance) + (_fit(doubted, tone)[0] - found) ** 2)
    if slope < _BELIEVABLE_SIGMAS * slope_sigma:
        return None
    electrons = float(1 / slope)
    relative = float(np.sqrt((slope_sigma / slope) ** 2 + white_doubt**2 + _MODEL_DOUBT**2))
    return NoiseCalibration(
        iso=iso,
        electrons_at_white=Measured(value=electrons, sigma=electrons * relative, count=count),
        read_noise_e=_read_noise(electrons, relative, float(floor), float(floor_sigma), count),
    )


def _read_noise(
    electrons: float, relative_sigma: float, floor: float, floor_sigma: float, count: int
) -> Measured | None:
    """Turn the variance at no light into electrons; None where it does not stand out."""
    if floor < 2 * floor_sigma:
        return None
    read = electrons * float(np.sqrt(floor))
    sigma = read * float(np.sqrt(relative_sigma**2 + _SLOPE_DOUBT**2 + (floor_sigma / (2 * floor)) ** 2))
    return Measured(value=read, sigma=sigma, count=count)


def _usable(phases: Sequence[StillPhase]) -> _Patches:
    """Collect the flat patches; their noise itself must not decide, which would keep the quieter half of some."""
    parts = []
    for phase in phases:
        codes = phase.mean_rgb
        usable = phase.flat & (codes > _CODES[0]).all(axis=1) & (codes < _CODES[1]).all(axis=1)
        luma = _luma(phase)
        variance = phase.luma_variance[usable] - _rounding(phase, luma)
        freedom = np.full(len(variance), _INDEPENDENT * PATCH_PX**2 * (phase.frames - 1.0))
        parts.append((codes[usable], variance, freedom, np.tile(luma, (len(variance), 1))))
    return _Patches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _luma(phase: StillPhase) -> Array:
    camera = phase.source.camera
    return np.array(luma_weights(camera.colour, height=camera.height))


def _rounding(phase: StillPhase, luma: Array) -> float:
    """Variance of rounding, codes²: RGB to 8 bits, luma to 8 bits of its range."""
    step = 1.0 if phase.source.camera.colour.range == "pc" else 255 / 219
    return float(np.sum(luma**2) + step**2) / 12


def _luma_variance(patches: _Patches, tone: ToneCurve, unknowns: Array) -> Array:
    """Forecast the variance of the luma of patches, rounding left out: ``(n,)`` codes².

    Args:
        patches: Their codes are as recorded: under strong noise they are not those of the mean light.
        tone: The camera's curve.
        unknowns: Variance of light per light, and at no light; white = 1.
    """
    slope, floor = unknowns
    mean, sigma = coded(_LIGHT, tone, electrons=1 / slope, read_e=np.sqrt(floor) / slope)
    return np.asarray(np.sum(np.interp(patches.codes, mean, sigma**2) * patches.luma**2, axis=1), np.float64)


def _fit(patches: _Patches, tone: ToneCurve) -> tuple[Array, Array, int]:
    """Fit the two unknowns of `_luma_variance` by Gauss-Newton with Tukey's weights, and count the patches used.

    A sample variance scatters by itself times the square root of 2/n.
    """
    found = np.array([_first_slope(patches, tone), 0.0])
    robust = np.ones(len(patches.variance))
    for _ in range(_STEPS):
        expected = _luma_variance(patches, tone, found)
        electron = np.array([found[0], found[0] ** 2])
        moved = [found + _SMALL * np.diag(electron)[k] for k in range(2)]
        by = np.column_stack([(_luma_variance(patches, tone, m) - expected) / _SMALL for m in moved])
        misfit = patches.variance - expected
        sigma = (expected + _LEAST_VARIANCE) * np.sqrt(2 / patches.freedom)
        spread = max(1.4826 * float(np.median(np.abs(misfit / sigma))), 1.0)
        robust = np.clip(1 - (misfit / (_TUKEY * spread * sigma)) ** 2, 0, None) ** 2
        robust *= expected > _LEAST_VARIANCE
        root = np.sqrt(robust) / sigma
        step = np.linalg.lstsq(by * root[:, None], misfit * root, rcond=None)[0]
        found = np.maximum(found + step * electron, [0.1 * found[0], 0.0])
    scaled = by * root[:, None]
    covariance = spread**2 * np.linalg.pinv(scaled.T @ scaled) * np.outer(electron, electron)
    return found, np.asarray(covariance), int(np.count_nonzero(robust))


def _first_slope(patches: _Patches, tone: ToneCurve) -> float:
    """Take all noise for that of light and the curve for straight over it."""
    light = tone.light(patches.codes.astype(np.float32)).astype(np.float64)
    weight = (patches.luma / slope_of_light(tone, patches.codes)) ** 2
    return float(np.median(np.maximum(patches.variance, 0.01) / (weight * light).sum(axis=1)))
