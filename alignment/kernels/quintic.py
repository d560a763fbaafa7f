"""Interpolating quintic splines: the prefilter, and the warp close to a shift."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.kernels.compiling import compiled, part
from alignment.kernels.sampling import affine_at, steps_inside

Plane = NDArray[np.float32]
Array = NDArray[np.float64]

_BEND_PX = 2e-4
"""How far a run may bend between its middle and its ends."""


@part
def _mirrored(index: int, size: int) -> int:
    """Fold an index that lies up to ``size`` beyond an end back about the last pixel."""
    index = abs(index)
    return index if index < size else 2 * (size - 1) - index


@compiled("float32[:, ::1](float32[:, ::1], int64, float32[::1])")
def filtered_both_ways(plane: Plane, channels: int, taps: Plane) -> Plane:
    """Filter along columns and rows by the same symmetric taps, mirrored at the border.

    Args:
        plane: ``(H, W × channels)``, channels next to each other.
        channels: Values of a pixel.
        taps: The middle one and those to one side of it.
    """
    height, length = plane.shape
    reach = taps.size - 1
    rim = reach * channels
    found, line = np.empty_like(plane), np.empty(length + 2 * rim, np.float32)
    for j in range(height):
        middle = line[rim : rim + length]
        middle[:] = taps[0] * plane[j]
        for k in range(1, reach + 1):
            above, below, tap = plane[_mirrored(j - k, height)], plane[_mirrored(j + k, height)], taps[k]
            for i in range(length):
                middle[i] += tap * (above[i] + below[i])
        for i in range(rim):
            pixel, channel = divmod(i, channels)
            line[i] = middle[_mirrored(pixel - reach, length // channels) * channels + channel]
            line[rim + length + i] = middle[
                _mirrored(length // channels + pixel, length // channels) * channels + channel
            ]
        row = found[j]
        row[:] = taps[0] * middle
        for k in range(1, reach + 1):
            left, right, tap = line[rim - k * channels :], line[rim + k * channels :], taps[k]
            for i in range(length):
                row[i] += tap * (left[i] + right[i])
    return found


@part
def _weights_of_six(at: np.float32, pieces: Plane) -> tuple[np.float32, ...]:
    """Weights of six taps; every piece's even and odd part serve a tap and its mirror image."""
    square = at * at
    e0 = pieces[0, 0] + square * (pieces[0, 2] + square * pieces[0, 4])
    o0 = at * (pieces[0, 1] + square * (pieces[0, 3] + square * pieces[0, 5]))
    e1 = pieces[1, 0] + square * (pieces[1, 2] + square * pieces[1, 4])
    o1 = at * (pieces[1, 1] + square * (pieces[1, 3] + square * pieces[1, 5]))
    e2 = pieces[2, 0] + square * (pieces[2, 2] + square * pieces[2, 4])
    o2 = at * (pieces[2, 1] + square * (pieces[2, 3] + square * pieces[2, 5]))
    return e0 + o0, e1 + o1, e2 + o2, e2 - o2, e1 - o1, e0 - o0


@part
def _dot_six(flat: Plane, at: np.uint64, step: np.uint64, weights: tuple[np.float32, ...]) -> np.float32:
    total = weights[0] * flat[at]
    at += step
    total += weights[1] * flat[at]
    at += step
    total += weights[2] * flat[at]
    at += step
    total += weights[3] * flat[at]
    at += step
    total += weights[4] * flat[at]
    return np.float32(total + weights[5] * flat[at + step])


@part
def _weigh_six(
    flat: Plane,
    corner: tuple[int, int, int],
    place: tuple[np.float32, np.float32, np.float32, np.float32],
    tables: tuple[Plane, Plane],
    run: Plane,
) -> None:
    """Weigh 6 × 6 taps for every value of a run; arguments as for `_weigh`, places off the middle of the six."""
    first, stride, channels = corner
    tx, ty, dx, dy = place
    ramp, pieces = tables
    a, down, step = np.uint64(first), np.uint64(stride), np.uint64(channels)
    for k in range(run.size):
        i = np.uint64(k)
        across = _weights_of_six(tx + ramp[i] * dx, pieces)
        y0, y1, y2, y3, y4, y5 = _weights_of_six(ty + ramp[i] * dy, pieces)
        at = a + i
        total = y0 * _dot_six(flat, at, step, across)
        at += down
        total += y1 * _dot_six(flat, at, step, across)
        at += down
        total += y2 * _dot_six(flat, at, step, across)
        at += down
        total += y3 * _dot_six(flat, at, step, across)
        at += down
        total += y4 * _dot_six(flat, at, step, across)
        at += down
        run[i] = total + y5 * _dot_six(flat, at, step, across)


@compiled("float32[:, ::1](float32[:, ::1], int64, float64[:, ::1], UniTuple(int64, 2), float32[:, ::1])")
def warped_by_spline(
    coefficients: Plane, channels: int, to_source: Array, size: tuple[int, int], pieces: Plane
) -> Plane:
    """Evaluate a quintic spline at every pixel of a picture that lies close to a shift from its source.

    Args:
        coefficients: Of the source, ``(H, W × channels)``, channels next to each other.
        channels: Values of a pixel.
        to_source: ``(3, 3)``, pixel of the result to pixel of the source.
        size: Width and height of the result, px.
        pieces: ``(3, 6)``: the pieces of the basis function over the taps -2, -1 and 0, as polynomials of the place
            right of the middle between taps 0 and 1; those over 3, 2 and 1 are their mirror images.
    """
    width, height = size
    found = np.empty((height, width * channels), np.float32)
    flat, stride = coefficients.ravel(), coefficients.shape[1]
    ramp = (np.arange(width * channels) // channels).astype(np.float32)
    straight = 2 * int(np.sqrt(_BEND_PX / max(abs(to_source[2, 0]), _BEND_PX / width**2))) + 1
    for j in range(height):
        start = 0
        while start < width:
            half = (min(straight, width - start) - 1) / 2
            u, v, ux, _, vx, _ = affine_at(to_source, start + half, j)
            u, v = u - half * ux, v - half * vx
            column, row = int(np.floor(u)), int(np.floor(v))
            tx, ty = u - column - 0.5, v - row - 0.5
            run = min(int(2 * half) + 1, steps_inside(tx, ux - 1), steps_inside(ty, vx))
            place = np.float32(tx), np.float32(ty), np.float32(ux - 1), np.float32(vx)
            corner = (row - 2) * stride + (column - 2) * channels
            values = found[j, start * channels : (start + run) * channels]
            _weigh_six(flat, (corner, stride, channels), place, (ramp, pieces), values)
            start += run
    return found
