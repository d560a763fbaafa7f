"""What two frames show on small tiles: sampled, multiplied and averaged in one pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.kernels.compiling import compiled, part
from alignment.kernels.sampling import affine_at, steps_inside

Plane = NDArray[np.float32]
Array = NDArray[np.float64]
Layout = tuple[int, int, int, int, int]
"""Of tiles: first column and first row, side of a tile in px, tiles across and down."""

_EIGHTH, _QUARTER, _HALF, _ONE, _TWO, _FOUR = (np.float32(v) for v in (0.125, 0.25, 0.5, 1, 2, 4))
_NEAR, _FAR = np.float32(0.7527), np.float32(0.1306)
"""Weights of a derivative from two pixels to each side: least squares for a power spectrum of 1 / f² that a Gaussian
of 1 px smooths, and within 1 % for all from there to white. Central differences flatten what detail is left so much
that tiles told shifts 7 to 23 % too large."""
_RIM = 2
_PRODUCTS, _DETAILS = 22, 8
_TWO_FRAMES = "float32[:, ::1], float64[:, ::1], float32[:, ::1], float64[:, ::1]"
_GRID = "UniTuple(int64, 5)"


@part
def _cut(plane: Plane, left: int, top: int, found: Plane) -> None:
    """Cut a patch out of a plane whose last pixels go on beyond its border."""
    rows, columns = found.shape
    inside = left >= 0 and top >= 0 and left + columns <= plane.shape[1] and top + rows <= plane.shape[0]
    if inside:
        found[:] = plane[top : top + rows, left : left + columns]
        return
    for j in range(rows):
        row = plane[min(max(top + j, 0), plane.shape[0] - 1)]
        for i in range(columns):
            found[j, i] = row[min(max(left + i, 0), plane.shape[1] - 1)]


@part
def _weigh(
    flat: Plane,
    corner: tuple[int, int],
    place: tuple[np.float32, np.float32, np.float32, np.float32],
    ramp: Plane,
    run: Plane,
) -> None:
    """Weigh 3 × 3 pixels for every pixel of a run.

    The weights are those of a plane doubled by the 1-4-6-4-1 kernel and then sampled bilinearly: they smooth by a
    variance of 0.25 px² or a little more, and move detail a fifth as far as bilinear weights between the pixels
    themselves do.

    Args:
        flat: The pixels, row after row.
        corner: Number of the upper left one of the first nine, and pixels from row to row.
        place: How far right of and below the middle pixel the first place lies, and how much further each next one.
        ramp: 0, 1, 2 …
        run: Is filled.
    """
    first, stride = corner
    tx, ty, dx, dy = place
    a, b, c = np.uint64(first), np.uint64(first + stride), np.uint64(first + 2 * stride)
    one, two = np.uint64(1), np.uint64(2)
    for k in range(run.size):
        i = np.uint64(k)
        x, y = tx + ramp[i] * dx, ty + ramp[i] * dy
        left, right = _EIGHTH - _HALF * x + _QUARTER * abs(x), _EIGHTH + _HALF * x + _QUARTER * abs(x)
        above, below = _EIGHTH - _HALF * y + _QUARTER * abs(y), _EIGHTH + _HALF * y + _QUARTER * abs(y)
        middle, level = _ONE - left - right, _ONE - above - below
        run[i] = (
            above * (left * flat[a + i] + middle * flat[a + i + one] + right * flat[a + i + two])
            + level * (left * flat[b + i] + middle * flat[b + i + one] + right * flat[b + i + two])
            + below * (left * flat[c + i] + middle * flat[c + i + one] + right * flat[c + i + two])
        )


@part
def _sample(
    plane: Plane, to_plane: Array, corner: tuple[float, float], scratch: tuple[Plane, Plane], patch: Plane
) -> None:
    """Fill a patch, whose first pixel is ``corner``, with what a plane shows there."""
    spare, ramp = scratch
    rows, columns = patch.shape
    middle = (rows - 1) / 2
    u, v, ux, uy, vx, vy = affine_at(to_plane, corner[0] + middle, corner[1] + middle)
    flat, width, height = plane.ravel(), plane.shape[1], plane.shape[0]
    for j in range(rows):
        start = 0
        while start < columns:
            x, y = (
                u + ux * (start - middle) + uy * (j - middle),
                v + vx * (start - middle) + vy * (j - middle),
            )
            left, top = int(np.floor(x + 0.5)) - 1, int(np.floor(y + 0.5)) - 1
            tx, ty = x - left - 1, y - top - 1
            count = min(columns - start, steps_inside(tx, ux - 1), steps_inside(ty, vx))
            place = np.float32(tx), np.float32(ty), np.float32(ux - 1), np.float32(vx)
            run = patch[j, start : start + count]
            if left >= 0 and top >= 0 and left + count + 2 <= width and top + 3 <= height:
                _weigh(flat, (top * width + left, width), place, ramp, run)
            else:
                _cut(plane, left, top, spare)
                _weigh(spare.ravel(), (0, spare.shape[1]), place, ramp, run)
            start += count


@part
def _mean_inside(patch: Plane) -> np.float32:
    """Mean of a patch without its rim."""
    side = patch.shape[0] - 2 * _RIM
    total = np.float32(0)
    for j in range(_RIM, _RIM + side):
        row = patch[j]
        for i in range(side):
            total += row[i + _RIM]
    return np.float32(total / np.float32(side * side))


@part
def _products(gt: Plane, lq: Plane, upright: np.float32, found: Array) -> None:
    """Average the products of both patches, of their gradients and of the bend, rim excluded, into ``found``."""
    side = gt.shape[0] - 2 * _RIM
    mean_g, mean_l = _mean_inside(gt), _mean_inside(lq)
    gg = gl = ll = xg = yg = xl = yl = xx = xy = yy = sx = sy = cross = own = np.float32(0)
    bb = gb = lb = xb = yb = sb = np.float32(0)
    for j in range(_RIM, _RIM + side):
        top, above, level, below, bottom = gt[j - 2], gt[j - 1], gt[j], gt[j + 1], gt[j + 2]
        highest, over, at, under, lowest = lq[j - 2], lq[j - 1], lq[j], lq[j + 1], lq[j + 2]
        for i in range(side):
            g, l = level[i + 2] - mean_g, at[i + 2] - mean_l
            x = _NEAR * (level[i + 3] - level[i + 1]) - _FAR * (level[i + 4] - level[i])
            y = _NEAR * (below[i + 2] - above[i + 2]) - _FAR * (bottom[i + 2] - top[i + 2])
            b = level[i + 3] - _TWO * level[i + 2] + level[i + 1]
            b += upright * (below[i + 2] - _TWO * level[i + 2] + above[i + 2])
            p = _NEAR * (at[i + 3] - at[i + 1]) - _FAR * (at[i + 4] - at[i])
            q = _NEAR * (under[i + 2] - over[i + 2]) - _FAR * (lowest[i + 2] - highest[i + 2])
            gg += g * g
            gl += g * l
            ll += l * l
            xg += x * g
            yg += y * g
            xl += x * l
            yl += y * l
            xx += x * x
            xy += x * y
            yy += y * y
            sx += x
            sy += y
            cross += x * p + y * q
            own += p * p + q * q
            bb += b * b
            gb += g * b
            lb += l * b
            xb += x * b
            yb += y * b
            sb += b
    found[0], found[1] = mean_g, mean_l
    found[2], found[3], found[4] = gg, gl, ll
    found[5], found[6], found[7], found[8] = xg, yg, xl, yl
    found[9], found[10], found[11] = xx, xy, yy
    found[12], found[13], found[14], found[15] = sx, sy, cross, own
    found[16], found[17], found[18], found[19], found[20], found[21] = bb, gb, lb, xb, yb, sb
    found[2:] /= side * side


@compiled(f"float64[:, ::1]({_TWO_FRAMES}, {_GRID}, float32, float64[:, ::1])")
def tile_products(  # noqa: PLR0917 - numba's functions know no keywords
    gt: Plane, to_gt: Array, lq: Plane, to_lq: Array, layout: Layout, upright: np.float32, beside: Array
) -> Array:
    """Sample both frames on every tile and average the products of their pixels and gradients.

    Args:
        gt: Ground truth, smoothed by a variance of 0.75 px²; sampling adds the last 0.25.
        to_gt: ``(3, 3)``: pixel of the tiles to pixel of ``gt``.
        lq: Degraded frame, smoothed alike.
        to_lq: ``(3, 3)``: pixel of the tiles to pixel of ``lq``.
        layout: The tiles.
        upright: How much of its bend along y the bend b of g has, beside all of that along x.
        beside: ``(rows × columns, 2)``: how far left of and above its place, in pixels of the tiles, ``gt`` is sampled
            for every tile.

    Returns:
        ``(rows × columns, 22)``: the means of ground truth and degraded frame; with g and l less these means, x and
        y the gradient of g and p and q that of l and b the bend of g by second differences: gg, gl, ll, xg, yg, xl,
        yl, xx, xy, yy, x, y, xp + yq, pp + qq, bb, gb, lb, xb, yb, b.

    References:
        Farid and Simoncelli, Differentiation of discrete multidimensional signals, 2004: derivatives by least squares.
    """
    x0, y0, side, columns, rows = layout
    found = np.empty((rows * columns, _PRODUCTS))
    rows_read = side + 2 * _RIM
    span = (rows_read + 15) // 16 * 16  # whole vectors
    g, l = np.empty((rows_read, span), np.float32), np.empty((rows_read, span), np.float32)
    spare, ramp = np.empty((3, span + 2), np.float32), np.arange(span).astype(np.float32)
    for tile in range(rows * columns):
        corner = x0 + tile % columns * side - _RIM, y0 + tile // columns * side - _RIM
        moved = corner[0] - beside[tile, 0], corner[1] - beside[tile, 1]
        _sample(gt, to_gt, moved, (spare, ramp), g)
        _sample(lq, to_lq, (float(corner[0]), float(corner[1])), (spare, ramp), l)
        _products(g, l, upright, found[tile])
    return found


@part
def _detail(patch: Plane, found: Array) -> None:
    """Average the products of a patch's gradient, and the square of what only noise makes, rim excluded."""
    side = patch.shape[0] - 2
    xx = xy = yy = noise = np.float32(0)
    for j in range(1, side + 1):
        above, level, below = patch[j - 1], patch[j], patch[j + 1]
        for i in range(side):
            x, y = _HALF * (level[i + 2] - level[i]), _HALF * (below[i + 1] - above[i + 1])
            rough = above[i] + above[i + 2] + below[i] + below[i + 2] + _FOUR * level[i + 1]
            rough -= _TWO * (above[i + 1] + below[i + 1] + level[i] + level[i + 2])
            xx += x * x
            xy += x * y
            yy += y * y
            noise += rough * rough
    n = float(side * side)
    found[0], found[1], found[2], found[3] = xx / n, xy / n, yy / n, noise / (36 * n)


@compiled(f"float64[:, ::1]({_TWO_FRAMES}, {_GRID})")
def tile_detail(gt: Plane, to_gt: Array, lq: Plane, to_lq: Array, layout: Layout) -> Array:
    """Tell gradients and noise of the finest detail: every tile is cut on whole pixels, nothing is interpolated.

    Args:
        gt: Ground truth, not smoothed.
        to_gt: As for `tile_products`.
        lq: Degraded frame, not smoothed.
        to_lq: As for `tile_products`.
        layout: The tiles.

    Returns:
        ``(rows × columns, 8)`` means, of ``gt`` and then of ``lq``: xx, xy, yy of the gradient x, y by central
        differences, and the variance of the noise.

    References:
        Immerkær, Fast noise variance estimation, 1996: a difference that structure passes little of.
    """
    x0, y0, side, columns, rows = layout
    found = np.empty((rows * columns, _DETAILS))
    patch = np.empty((side + 2, side + 2), np.float32)
    for tile in range(rows * columns):
        x, y = x0 + tile % columns * side, y0 + tile // columns * side
        middle_x, middle_y = x + (side - 1) / 2, y + (side - 1) / 2
        for number in range(2):
            u, v, _, _, _, _ = affine_at(to_gt if number == 0 else to_lq, middle_x, middle_y)
            left, top = x - 1 + int(np.floor(u - middle_x + 0.5)), y - 1 + int(np.floor(v - middle_y + 0.5))
            _cut(gt if number == 0 else lq, left, top, patch)
            _detail(patch, found[tile, 4 * number : 4 * number + 4])
    return found
