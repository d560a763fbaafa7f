"""Planes of coded video to pixels of red, green and blue, in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.kernels.compiling import compiled, part

Codes = NDArray[Any]
Plane = NDArray[np.float32]
Pair = tuple[int, int]

_NIL, _HALF, _WHITE = (np.float32(v) for v in (0, 0.5, 255))
_SIGNATURE = (
    "uint8[:, :, ::1](UniTuple(Array({}, 2, 'C', readonly=True), 3),"
    " UniTuple(UniTuple(int64, 2), 2), UniTuple(int64, 2), UniTuple(float64, 2), float32[:, ::1])"
)


@part
def _blend_rows(plane: Codes, width: int, height: int, row: float, line: Plane) -> None:
    """Fill a line with what a plane holds at a fractional row; its last values go on beyond both ends."""
    above = int(np.floor(row))
    share = np.float32(row - above)
    first, second = plane[min(max(above, 0), height - 1)], plane[min(max(above + 1, 0), height - 1)]
    inner = line[1:]
    for i in range(width):
        inner[i] = first[i] + share * (np.float32(second[i]) - np.float32(first[i]))
    line[0], line[width + 1] = line[1], line[width]


@part
def _spread(line: Plane, width: int, step: int, offset: float, full: Plane) -> None:
    """Place the samples of a line, one for every ``step`` px, ``offset`` px into the first, under every pixel."""
    if step == 1:
        full[:width] = line[1 : width + 1]
        return
    back, on = np.float32(offset / 2), np.float32(0.5 - offset / 2)
    left, middle, right = line, line[1:], line[2:]
    for i in range(width):
        full[2 * i] = middle[i] + back * (left[i] - middle[i])
        full[2 * i + 1] = middle[i] + on * (right[i] - middle[i])


@part
def _mix(luma: Codes, blue: Plane, red: Plane, matrix: Plane, row: NDArray[np.uint8]) -> None:
    for i in range(row.shape[0]):
        for c in range(3):
            code = matrix[c, 0] * luma[i] + matrix[c, 1] * blue[i] + matrix[c, 2] * red[i] + matrix[c, 3]
            row[i, c] = np.uint8(min(max(code, _NIL), _WHITE) + _HALF)


@compiled(_SIGNATURE.format("uint8"), _SIGNATURE.format("uint16"))
def rgb_of_planes(
    planes: tuple[Codes, Codes, Codes],
    sizes: tuple[Pair, Pair],
    step: Pair,
    offset: tuple[float, float],
    matrix: Plane,
) -> NDArray[np.uint8]:
    """Convert the planes of a frame, whose rows may be longer than the picture is wide, rounding once.

    Args:
        planes: Luma, blue and red difference, uint8 or uint16.
        sizes: Width and height of the picture, and of the two differences.
        step: Pixels for each of their samples across and down, 1 or 2.
        offset: Where their first sample lies, px, across and down.
        matrix: ``(3, 4)``: luma, blue and red difference, and 1 to codes of red, green and blue.

    Returns:
        ``(height, width, 3)``.
    """
    luma, blue, red = planes
    (width, height), (across, down) = sizes
    found = np.empty((height, width, 3), np.uint8)
    line = np.empty(across + 2, np.float32)
    blues, reds = np.empty(step[0] * across, np.float32), np.empty(step[0] * across, np.float32)
    for j in range(height):
        row = (j - offset[1]) / step[1]
        _blend_rows(blue, across, down, row, line)
        _spread(line, across, step[0], offset[0], blues)
        _blend_rows(red, across, down, row, line)
        _spread(line, across, step[0], offset[0], reds)
        _mix(luma[j], blues, reds, matrix, found[j])
    return found
