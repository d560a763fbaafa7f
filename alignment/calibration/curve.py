"""What was measured of a camera in the form that pictures are read and forecasts made with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

import numpy as np

from alignment.calibration.document import Calibration, NoiseCalibration, ToneCalibration
from alignment.camera_motion import Array
from alignment.photometry import ToneCurve, measured_tone_curve, standard_tone_curve

_SLOPE_STEP = 2.0
"""Codes to either side over which a slope is taken."""
_ROUNDING_SIGMA = 12**-0.5
_QUANTILES = 65


@cache
def tone_curve(found: ToneCalibration, name: str) -> ToneCurve:
    """Build the measured curve; ``name`` stands for it in records."""
    base = standard_tone_curve(found.base)
    codes = np.linspace(0.0, 255.0, 1021)
    correction = np.interp(codes, found.codes, found.log_light)
    light = base.light_by_code[np.rint(codes * 257).astype(int)] * np.exp(correction)
    rising = np.concatenate([[True], np.diff(np.maximum.accumulate(light)) > 0])
    return measured_tone_curve(name, codes=codes[rising], light=light[rising] / light[-1])


def light_sigma(light: Array, *, electrons: float, read_e: float) -> Array:
    """Standard deviation of one channel's light by shot and read noise, white = 1; arguments as `coded`."""
    return np.asarray(np.sqrt(np.maximum(light, 0.0) * electrons + read_e**2) / electrons, np.float64)


def slope_of_light(tone: ToneCurve, codes: Array) -> Array:
    """Differentiate light by code, per code; ``codes`` of any shape, 0..255."""
    low, high = np.maximum(codes - _SLOPE_STEP, 0.0), np.minimum(codes + _SLOPE_STEP, 255.0)
    dark, bright = (tone.light(c.astype(np.float32)).astype(np.float64) for c in (low, high))
    return np.asarray((bright - dark) / (high - low), np.float64)


def recorded(noise: NoiseCalibration, tone: ToneCurve, light: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of one channel in codes, as clipped and coded, rounding left out.

    Args:
        noise: Of the ISO setting.
        tone: The camera's curve.
        light: What falls on the pixels, ``(n,)``, white = 1.
    """
    read_e = 0.0 if noise.read_noise_e is None else noise.read_noise_e.value
    return coded(light, tone, electrons=noise.electrons_at_white.value, read_e=read_e)


def coded(light: Array, tone: ToneCurve, *, electrons: float, read_e: float) -> tuple[Array, Array]:
    """Mean and standard deviation of one channel in codes, each ``(n,)``, rounding left out.

    Near black and under strong noise the curve is not straight over what a pixel scatters: codes below 0 do not
    exist, and the slope of the curve at the mean would tell several times too much. Few electrons scatter farther
    up than down, to third order as Cornish and Fisher have it.

    Args:
        light: What falls on the pixels, ``(n,)``, white = 1.
        tone: The camera's curve.
        electrons: At white.
        read_e: Read noise, electrons.
    """
    sigma = light_sigma(light, electrons=electrons, read_e=read_e)
    lopsided = np.maximum(light, 0.0) / (6 * np.maximum(electrons * sigma, 1e-9) ** 2)
    z = _normal_quantiles()
    scattered = light[:, None] + sigma[:, None] * z + lopsided[:, None] * (z**2 - 1)
    codes = tone.codes(np.clip(scattered, 0.0, 1.0).astype(np.float32)).astype(np.float64)
    return codes.mean(axis=1), codes.std(axis=1)


@cache
def _normal_quantiles() -> Array:
    """Normal numbers of equal probability, of variance 1."""
    shares = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    values = np.array([NormalDist().inv_cdf(float(share)) for share in shares])
    return np.asarray(values / values.std(), np.float64)


def pixel_noise(found: Calibration, *, iso: int, light: float) -> float | None:
    """Forecast the noise of a pixel as it is recorded.

    Args:
        found: What is known of the camera.
        iso: The setting; one that was not measured has its electrons scaled from the nearest that was.
        light: What falls on the pixel, white = 1.

    Returns:
        Standard deviation of one channel in codes, rounding included; None where no noise was measured.
    """
    if not found.noise:
        return None
    tone = standard_tone_curve("bt709") if found.tone is None else tone_curve(found.tone, "measured")
    _, sigma = recorded(_noise_of(found.noise, iso), tone, np.array([light]))
    return float(np.hypot(sigma[0], _ROUNDING_SIGMA))


def _noise_of(measured: Sequence[NoiseCalibration], iso: int) -> NoiseCalibration:
    """Return the noise of an ISO setting; amplification changes what fills the codes' range, not what reading adds."""
    near = min(measured, key=lambda n: (abs(np.log(n.iso / iso)), n.iso))
    electrons = near.electrons_at_white
    scaled = electrons.model_copy(update={"value": electrons.value * near.iso / iso})
    return near.model_copy(update={"iso": iso, "electrons_at_white": scaled})
