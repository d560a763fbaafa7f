"""What was measured of a camera in the form that pictures are read and forecasts made with."""

from __future__ import annotations

from functools import cache

import numpy as np

from alignment.calibration.document import NoiseCalibration, ToneCalibration
from alignment.camera_motion import Array
from alignment.photometry import ToneCurve, measured_tone_curve, standard_tone_curve


@cache
def tone_curve(found: ToneCalibration, name: str) -> ToneCurve:
    """Build the measured curve; ``name`` stands for it in records."""
    base = standard_tone_curve(found.base)
    codes = np.linspace(0.0, 255.0, 1021)
    correction = np.interp(codes, found.codes, found.log_light)
    light = base.light_by_code[np.rint(codes * 257).astype(int)] * np.exp(correction)
    rising = np.concatenate([[True], np.diff(np.maximum.accumulate(light)) > 0])
    return measured_tone_curve(name, codes=codes[rising], light=light[rising] / light[-1])


def light_sigma(noise: NoiseCalibration, light: Array) -> Array:
    """Standard deviation of one channel's light by shot and read noise, white = 1; ``light`` of any shape."""
    electrons = noise.electrons_at_white.value
    read_e = 0.0 if noise.read_noise_e is None else noise.read_noise_e.value
    return np.asarray(np.sqrt(np.maximum(light, 0.0) * electrons + read_e**2) / electrons, np.float64)
