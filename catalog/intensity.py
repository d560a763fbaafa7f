"""How strong a degradation is: GenDeg's measure, which every pair carries."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def intensity(gt: NDArray[Any], lq: NDArray[Any]) -> tuple[float, float]:
    """Mean and standard deviation of ``|lq - gt|`` in 0..1 over pixels and channels of two aligned pictures.

    Args:
        gt: ``(H, W, C)``, uint8 or uint16.
        lq: The same.
    """
    mean, deviation = cv2.meanStdDev(cv2.absdiff(gt, lq).reshape(-1, 1))
    white = float(np.iinfo(gt.dtype).max)
    return float(mean[0, 0]) / white, float(deviation[0, 0]) / white
