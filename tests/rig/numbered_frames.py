"""JPEG frames that carry their number in their pixels, as 16 black and white blocks in the top row."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 16
BITS = 16


def background(width: int, height: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Make a picture that compresses like a photograph."""
    small = np.random.default_rng(seed).integers(0, 255, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def numbered(picture: NDArray[np.uint8], number: int, *, quality: int = 80) -> bytes:
    """Return a picture as JPEG with its number in its first rows."""
    marked = picture.copy()
    for bit in range(BITS):
        marked[:BLOCK_PX, bit * BLOCK_PX : (bit + 1) * BLOCK_PX] = 255 * (number >> bit & 1)
    return cv2.imencode(".jpg", marked, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def number_of(grey: NDArray[np.uint8]) -> int:
    """Read a frame's number back from its grey picture."""
    middles = grey[BLOCK_PX // 2, BLOCK_PX // 2 : BITS * BLOCK_PX : BLOCK_PX]
    return sum(int(value > 127) << bit for bit, value in enumerate(middles))
