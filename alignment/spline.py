"""Warp by a homography close to a shift, through an interpolating quintic B-spline.

The spline passes through every pixel, moves nothing (first moment error below 0.0001 px, OpenCV's bicubic
0.05 px) and keeps detail to 0.45 cycles per pixel. Evaluated directly it costs 6 × 6 taps with weights of
their own for every pixel. Here the picture is cut into blocks within which the displacement is almost
constant: one pair of filters gives the spline for the whole block, the same with differentiated weights its
derivatives, and a second-order Taylor step carries each pixel the last few hundredths. On a frame of
1920 × 1080 this is five times faster than evaluating every pixel, to 1e-4 of full scale.
"""

from __future__ import annotations

from functools import cache
from math import comb, factorial

import cv2
import numpy as np

from alignment.camera_motion import Array, map_points
from alignment.photometry import Plane

Block = tuple[int, int, int, int]

_DEGREE = 5
_FIRST_TAP = -2
_PREFILTER_REACH = 15
"""The prefilter decays by 0.43 per tap: 3e-6 is left after 15."""
_MAX_STEP_PX = 0.1
"""Longest Taylor step; the third order then leaves 0.3 % at 0.4 cycles per pixel, in the corners of a block."""
_NO_STEP_PX = 1e-4
_BLOCK_SIDES_PX = (16, 256)


def spline_coefficients(plane: Plane) -> Plane:
    """Find the B-spline coefficients whose spline passes through every pixel; mirrored at the border.

    Args:
        plane: ``(H, W)`` or ``(H, W, C)`` float32.
    """
    kernel = _prefilter()
    return np.asarray(
        cv2.sepFilter2D(plane, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32
    )


def warp_near_shift(coefficients: Plane, to_source: Array, size: tuple[int, int]) -> Plane:
    """Evaluate the spline where a homography points.

    Args:
        coefficients: Of the source, `spline_coefficients`.
        to_source: ``(3, 3)``, pixel of the result to pixel of the source; close to a shift.
        size: Width and height of the result, px.

    Returns:
        ``(height, width)`` or ``(height, width, C)`` float32.

    Raises:
        ValueError: The homography points closer than 3 px to the source's border, or outside it.
    """
    width, height = size
    result = np.empty((height, width, *coefficients.shape[2:]), np.float32)
    side = _block_side(to_source, size)
    for y in range(0, height, side):
        for x in range(0, width, side):
            block = (x, y, min(side, width - x), min(side, height - y))
            result[y : y + block[3], x : x + block[2]] = _warp_block(coefficients, to_source, block)
    return result


def _block_side(to_source: Array, size: tuple[int, int]) -> int:
    """Longest side at which no pixel of a block is further than the longest step from the block's centre."""
    at = np.array([[x, y] for x in (0.0, size[0] - 1.0) for y in (0.0, size[1] - 1.0)])
    slopes = [
        np.hypot(*(map_points(to_source, at + step) - map_points(to_source, at) - step).T).max()
        for step in (np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    ]
    side = 2 * _MAX_STEP_PX / max(sum(slopes), 1e-9)
    return int(np.clip(side, *_BLOCK_SIDES_PX))


def _warp_block(coefficients: Plane, to_source: Array, block: Block) -> Plane:
    x, y, width, height = block
    centre = np.array([[x + (width - 1) / 2, y + (height - 1) / 2]])
    shift = (map_points(to_source, centre) - centre)[0]
    whole = np.floor(shift).astype(int)
    region = _source_region(coefficients, (x + whole[0], y + whole[1], width, height))
    phase = shift - whole
    dx, dy = _steps(to_source, block, shift)
    (x0, x1, x2), (y0, y1, y2) = (_taps(float(p)) for p in phase)
    value = _filtered(region, x0, y0)
    if max(np.abs(dx).max(), np.abs(dy).max()) < _NO_STEP_PX:
        return value
    if region.ndim == 3:
        dx, dy = (np.repeat(d[..., None], region.shape[2], axis=2) for d in (dx, dy))
    # The Taylor polynomial by Horner's rule in dx.
    value += dy * (_filtered(region, x0, y1) + dy * (_filtered(region, x0, y2) / 2))
    value += dx * (
        _filtered(region, x1, y0) + dy * _filtered(region, x1, y1) + dx * (_filtered(region, x2, y0) / 2)
    )
    return value


def _source_region(coefficients: Plane, block: Block) -> Plane:
    """Cut a block and what its taps reach: 2 px before, 3 px after."""
    x0, y0 = block[0] + _FIRST_TAP, block[1] + _FIRST_TAP
    x1, y1 = x0 + block[2] + _DEGREE, y0 + block[3] + _DEGREE
    if min(x0, y0) < 0 or x1 > coefficients.shape[1] or y1 > coefficients.shape[0]:
        raise ValueError(f"the warp reaches outside the source at block {block}")
    return coefficients[y0:y1, x0:x1]


def _steps(to_source: Array, block: Block, shift: Array) -> tuple[Plane, Plane]:
    """How far each pixel's source lies from that of the block's shift, px; ``(height, width)`` each."""
    x, y, width, height = block
    xs = np.arange(x, x + width, dtype=float)[None, :]
    ys = np.arange(y, y + height, dtype=float)[:, None]
    u, v, w = (row[0] * xs + row[1] * ys + row[2] for row in to_source)
    return (u / w - xs - shift[0]).astype(np.float32), (v / w - ys - shift[1]).astype(np.float32)


def _filtered(region: Plane, kernel_x: Plane, kernel_y: Plane) -> Plane:
    """Weigh the taps of every pixel: the region less the five pixels its taps take."""
    # Isolated, or OpenCV would read the neighbours of the cut-out array.
    border = cv2.BORDER_REFLECT_101 | cv2.BORDER_ISOLATED
    anchor = (-_FIRST_TAP, -_FIRST_TAP)
    filtered = cv2.sepFilter2D(region, cv2.CV_32F, kernel_x, kernel_y, anchor=anchor, borderType=border)
    last = _DEGREE + _FIRST_TAP
    return np.asarray(filtered[-_FIRST_TAP:-last, -_FIRST_TAP:-last], np.float32)


def _taps(phase: float) -> list[Plane]:
    """Weights of the six coefficients around a position ``phase`` px after a pixel, and their first two derivatives."""
    powers = phase ** np.arange(_DEGREE + 1)
    return [(table @ powers).astype(np.float32) for table in _tap_polynomials()]


@cache
def _tap_polynomials() -> tuple[Array, Array, Array]:
    """Coefficients by tap and power of the phase, ``(6, 6)``, of the weights and their first two derivatives."""
    phases = np.linspace(0, 1, _DEGREE + 1)
    offsets = np.arange(_FIRST_TAP, _FIRST_TAP + _DEGREE + 1)
    weights = bspline(phases[None, :] - offsets[:, None])
    value = np.asarray(np.linalg.solve(np.vander(phases, increasing=True), weights.T).T, np.float64)
    return value, _differentiated(value), _differentiated(_differentiated(value))


def _differentiated(polynomials: Array) -> Array:
    powers = np.arange(1, polynomials.shape[1])
    return np.pad(polynomials[:, 1:] * powers, ((0, 0), (0, 1)))


def bspline(x: Array) -> Array:
    """Evaluate the centred quintic B-spline.

    References:
        Unser, Splines: a perfect fit for signal and image processing, 1999, equation 6.
    """
    terms = [
        (-1) ** k * comb(_DEGREE + 1, k) * np.maximum(x + (_DEGREE + 1) / 2 - k, 0.0) ** _DEGREE
        for k in range(_DEGREE + 2)
    ]
    return np.asarray(np.sum(terms, axis=0) / factorial(_DEGREE), np.float64)


@cache
def _prefilter() -> Plane:
    """Inverse of the sampled spline, cut off where it has died away."""
    frequency = 2 * np.pi * np.arange(65) / 128
    samples = bspline(np.arange(3.0))
    inverse = np.fft.irfft(
        1 / (samples[0] + 2 * samples[1] * np.cos(frequency) + 2 * samples[2] * np.cos(2 * frequency))
    )
    taps = np.roll(inverse, _PREFILTER_REACH)[: 2 * _PREFILTER_REACH + 1]
    return np.asarray(taps / taps.sum(), np.float32)
