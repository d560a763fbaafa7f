"""Develop a camera's raw stills, ground truth and degraded ones by exactly the same parameters.

Nothing is fitted to the single picture: white balance is the body's own daylight, brightness is left as exposed,
the development is linear in 16 bits and coded by the sRGB curve at its end. The raw file itself is never touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alignment.errors import DecodeError, MissingRawError
from alignment.yuv import Image

RAW_SUFFIXES = frozenset({".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".raf"})
"""File name endings, lower case, that are developed."""


def develop(path: Path) -> Image:
    """Develop a raw file to ``(H, W, 3)`` uint8 RGB in sRGB codes, upright.

    Raises:
        MissingRawError: The extra `raw` is not installed.
        DecodeError: The file is missing, no raw file, or damaged.
    """
    from alignment.photometry import standard_tone_curve

    rawpy = _library()
    try:
        with rawpy.imread(str(path)) as raw:
            light = raw.postprocess(
                gamma=(1, 1),
                no_auto_bright=True,
                adjust_maximum_thr=0.0,  # else LibRaw takes a picture's own maximum for white
                bright=1.0,
                output_bps=16,
                use_camera_wb=False,
                use_auto_wb=False,
                user_wb=_daylight(raw),
                output_color=rawpy.ColorSpace.sRGB,
                demosaic_algorithm=rawpy.DemosaicAlgorithm.AHD,
                highlight_mode=rawpy.HighlightMode.Clip,
            )
    except (rawpy.LibRawError, OSError) as error:
        raise DecodeError(
            f"{path.name}: cannot be developed as a raw file ({error})", next_step="copy the file again"
        ) from error
    linear = np.asarray(light, np.float32) / np.float32(65535)
    return np.asarray(standard_tone_curve("srgb").pixels(linear, np.dtype(np.uint8)), np.uint8)


def _daylight(raw: Any) -> list[float]:
    """Multipliers of red, green, blue, green for daylight: the body's, so alike for every file of it."""
    red, green, blue, *_ = raw.daylight_whitebalance
    return [float(red), float(green), float(blue), float(green)] if green > 0 else [1.0, 1.0, 1.0, 1.0]


def _library() -> Any:
    try:
        import rawpy
    except ImportError:
        raise MissingRawError(
            "raw stills need rawpy, which is not installed", next_step="pip install 'cleanplate[raw]'"
        ) from None
    return rawpy
