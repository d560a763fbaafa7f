"""A measured tone curve in the form that pictures are read with."""

from __future__ import annotations

from functools import cache

import numpy as np

from alignment.calibration.document import ToneCalibration
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
