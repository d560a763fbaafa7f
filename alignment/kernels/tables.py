"""Pixel by pixel: channels added up, codes to light and light to codes by table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.kernels.compiling import compiled

Plane = NDArray[np.float32]
Array = NDArray[np.float64]

_NIL, _HALF, _ONE, _PER_CODE = (np.float32(v) for v in (0, 0.5, 1, 257))
_NEXT, _CHANNELS = np.uint64(1), np.uint64(3)
"""Places counted without a sign are not looked at from the end: loops over them become vectors."""


@compiled("float32[:, ::1](Array(uint8, 3, 'C', readonly=True), float32[::1])")
def weighted_channels(rgb: NDArray[np.uint8], weights: Plane) -> Plane:
    """Add the channels of an image ``(H, W, 3)`` up by their weights: ``(H, W)``."""
    found = np.empty((rgb.shape[0], rgb.shape[1]), np.float32)
    red, green, blue = weights
    codes, line = rgb.reshape(rgb.size), found.ravel()
    for i in range(line.size):
        k = _CHANNELS * np.uint64(i)
        line[i] = red * codes[k] + green * codes[k + _NEXT] + blue * codes[k + _NEXT + _NEXT]
    return found


@compiled("float32[::1](Array(float32, 1, 'C', readonly=True), float32[::1])")
def looked_up(codes: Plane, table: Plane) -> Plane:
    """Look codes 0..255, ``(n,)``, up in a table of 65536 entries that begins at 0 and ends at 255."""
    found, last = np.empty_like(codes), np.float32(table.size - 1)
    for i in range(codes.size):
        found[i] = table[np.uint64(min(max(codes[i] * _PER_CODE + _HALF, _NIL), last))]
    return found


@compiled("float32[::1](Array(float32, 1, 'C', readonly=True), float32, float32[::1])")
def looked_up_by_root(light: Plane, exposure: np.float32, table: Plane) -> Plane:
    """Look light 0..1 times an exposure, ``(n,)``, up in a table that is even in the root of the light."""
    found, last = np.empty_like(light), np.float32(table.size - 1)
    for i in range(light.size):
        found[i] = table[np.uint64(np.sqrt(min(max(light[i] * exposure, _NIL), _ONE)) * last + _HALF)]
    return found
