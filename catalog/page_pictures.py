"""Pictures that lie in a page itself, so that one file shows them with no network."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from catalog.errors import DamagedDataError

Rgb = NDArray[np.uint8]
"""``(H, W, 3)`` RGB."""


def reduced_size(width: int, height: int, *, most_px: int) -> tuple[int, int]:
    """Return width and height of a picture whose longer side is at most ``most_px``.

    >>> reduced_size(2560, 1440, most_px=320)
    (320, 180)
    """
    scale = min(1.0, most_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def reduced(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    """Reduce a picture by area to a width and height; one of that size is returned as it is."""
    import cv2

    if rgb.shape[1::-1] == size:
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def jpeg_uri(rgb: Rgb, *, quality: int) -> str:
    """Encode a picture as a JPEG in a data URI; equal pixels give equal text.

    Raises:
        DamagedDataError: It is too large for JPEG, which takes 65,535 px a side.
    """
    import cv2

    try:
        done, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error:
        done, jpeg = False, np.empty(0, np.uint8)
    if not done:
        raise DamagedDataError(f"a picture of {rgb.shape[1]}x{rgb.shape[0]} px cannot be encoded for a page")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
