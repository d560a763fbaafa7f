"""Small tiles that each keep their own brightness: what one frame says about its shift against another.

In every tile the degraded frame is taken as a gain times the ground truth, a little more or less blurred, plus an
offset, and all three are projected out of the gradients (variable projection). Exposure, haze, vignetting and shadows
then move nothing, nor does focus that changes with depth. Blur enters as heat flow does, by the ground truth's bend.
Gradients come from the ground truth alone: noise in them would shrink the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Array, map_points
from alignment.kernels.tile_products import Layout, tile_detail, tile_products
from alignment.photometry import Plane

Flags = NDArray[np.bool_]

IN_PLACE: Array = np.eye(3)
"""The map of the frame that the tiles lie on."""
_LEAST_VARIANCE = 1e-9
_LEAST_GAIN = 1e-6
_CODE_VARIANCE_FLOOR = 1e-3
"""Least residual variance, codes²: rounding to 8 bits leaves 1/12 before smoothing, a tenth of that after."""
_GRADIENT_MOMENTS = [[9, 10], [10, 11]]
"""Where `tile_products` keeps the second moments of the ground truth's gradient."""
_LEAST_BEND = 1e-3
"""Share of the bend's variance that is never projected away: where it is all like the picture itself, it tells
nothing."""
_FINE_GRADIENT_MOMENTS = [[0, 1], [1, 2]]
"""Where `tile_detail` does."""


@dataclass(frozen=True)
class TileGrid:
    """Square tiles over a reduced frame, centred in it."""

    scale: int
    """How often the frame was reduced."""
    tile_px: int
    """Side of a tile in px of the reduced frame."""
    x0: int
    y0: int
    """First pixel of the first tile in the reduced frame."""
    columns: int
    rows: int

    @classmethod
    def over(cls, size: tuple[int, int], *, scale: int, tile_px: int) -> TileGrid:
        """Lay as many tiles as fit over a frame of ``size`` (width, height) px reduced ``scale`` times."""
        width, height = size[0] // scale, size[1] // scale
        columns, rows = width // tile_px, height // tile_px
        return cls(
            scale, tile_px, (width - columns * tile_px) // 2, (height - rows * tile_px) // 2, columns, rows
        )

    @property
    def width(self) -> int:
        """Of all tiles together, px of the reduced frame."""
        return self.columns * self.tile_px

    @property
    def height(self) -> int:
        """Of all tiles together, px of the reduced frame."""
        return self.rows * self.tile_px

    @property
    def layout(self) -> Layout:
        """The tiles as the kernels ask for them."""
        return self.x0, self.y0, self.tile_px, self.columns, self.rows

    def crop(self, plane: Plane) -> Plane:
        """Cut the tiled part out of a reduced frame and copy it."""
        return plane[self.y0 : self.y0 + self.height, self.x0 : self.x0 + self.width].copy()

    def centres_px(self) -> Array:
        """Centres of the tiles, row by row, in px of the full frame: ``(rows × columns, 2)``."""
        half = (self.tile_px - 1) / 2
        xs = self.x0 + self.tile_px * np.arange(self.columns) + half
        ys = self.y0 + self.tile_px * np.arange(self.rows) + half
        x, y = np.meshgrid(xs, ys)
        return np.column_stack([x.ravel(), y.ravel()]) * self.scale + (self.scale - 1) / 2

    def side_px(self) -> int:
        """Side of a tile in px of the full frame."""
        return self.tile_px * self.scale

    def inside(self, homography: Array, size: tuple[int, int], *, margin_px: float) -> NDArray[np.bool_]:
        """Tell which tiles a homography maps into a frame of ``size`` px, ``margin_px`` from its border."""
        half = self.side_px() / 2
        corners = np.array([[-half, -half], [half, -half], [-half, half], [half, half]])
        mapped = map_points(homography, (self.centres_px()[:, None] + corners).reshape(-1, 2))
        last = np.array(size) - 1 - margin_px
        within = ((mapped >= margin_px) & (mapped <= last)).all(axis=1)
        return np.asarray(within.reshape(-1, 4).all(axis=1), np.bool_)

    def means(self, plane: Plane) -> Plane:
        """Average a cropped plane over each tile: ``(rows, columns)``."""
        return np.asarray(
            cv2.resize(plane, (self.columns, self.rows), interpolation=cv2.INTER_AREA), np.float32
        )


@dataclass(frozen=True, eq=False)
class TileStatistics:
    """What each of ``K`` tiles says about the shift that is left, in px of the full frame."""

    gain: Array
    """``(K,)`` contrast of the degraded frame over that of the ground truth."""
    offset: Array
    """``(K,)`` codes."""
    information: Array
    """``(K, 2, 2)`` per px², as if the residual were white."""
    score: Array
    """``(K, 2)``: information times the shift measured."""
    extra_blur_px2: Array
    """``(K,)`` variance of the blur along each of its axes that the degraded frame has beyond the ground truth."""
    extra_blur_information: Array
    """``(K,)`` per px⁴, as if the residual were white."""
    residual_variance: Array
    """``(K,)`` codes²: what gain and offset leave of the smoothed degraded frame."""
    correlation: Array
    """``(K,)`` between the two frames."""
    gt_variance: Array
    """``(K,)`` codes² of the smoothed ground truth."""
    lq_variance: Array
    """``(K,)`` codes² of the smoothed degraded frame."""
    gt_mean: Array
    lq_mean: Array
    gradient_products: Array
    """``(K, 3)`` means over the tile of the products of both frames' gradients, of the first with itself and of the
    second."""

    def further_on(self, shift_px: Array) -> TileStatistics:
        """Return what the tiles would say had they been compared ``(K, 2)`` px before the present alignment."""
        return replace(self, score=self.score + np.einsum("kij,kj->ki", self.information, shift_px))


def shifts_px(information: Array, score: Array) -> Array:
    """Solve ``(K, 2, 2)`` for ``(K, 2)``; a tile without texture gets a very large but finite answer."""
    ridge = 1e-9 * np.trace(information, axis1=1, axis2=2).max(initial=1e-12) + 1e-12
    xx, yy, xy = information[:, 0, 0] + ridge, information[:, 1, 1] + ridge, information[:, 0, 1]
    swapped = np.stack([yy * score[:, 0] - xy * score[:, 1], xx * score[:, 1] - xy * score[:, 0]], axis=-1)
    return np.asarray(swapped / (xx * yy - xy**2)[:, None], np.float64)


def compare_tiles(
    gt: Plane,
    to_gt: Array,
    lq: Plane,
    to_lq: Array,
    grid: TileGrid,
    *,
    upright: float = 1.0,
    beside_px: Array | None = None,
) -> TileStatistics:
    """Linearise every tile about the present alignment.

    Args:
        gt: Ground truth as `Picture.level` reduces and smooths it, codes.
        to_gt: ``(3, 3)``: pixel of the reduced frame that the tiles lie on to pixel of ``gt``.
        lq: The degraded frame, reduced and smoothed alike.
        to_lq: ``(3, 3)``: the same for ``lq``; one of the two is the identity.
        grid: The tiles.
        upright: How much the frames' unlike blur spreads along y for what it does along x: 1 for focus, 0 for motion.
        beside_px: ``(K, 2)`` how much further than the maps say each tile has moved, px of the full frame.
    """
    count = grid.rows * grid.columns
    beside = np.zeros((count, 2)) if beside_px is None else np.ascontiguousarray(beside_px / grid.scale)
    products = tile_products(gt, to_gt, lq, to_lq, grid.layout, np.float32(upright), beside)
    gt_mean, lq_mean, gg, gl, ll = products[:, :5].T
    on_gt, on_lq, slope = products[:, 5:7], products[:, 7:9], products[:, 12:14]
    gg = np.maximum(gg, _LEAST_VARIANCE)
    gain = gl / gg
    residual = np.maximum(ll - gain**2 * gg, _CODE_VARIANCE_FLOOR)
    bend = _Bend.of(products, gain=gain, gg=gg)
    sharp_residual = np.maximum(residual - bend.share**2 * bend.variance, _CODE_VARIANCE_FLOOR)
    moments = products[:, _GRADIENT_MOMENTS] - slope[:, :, None] * slope[:, None, :]
    projected = moments - on_gt[:, :, None] * on_gt[:, None, :] / gg[:, None, None]
    projected -= bend.on[:, :, None] * bend.on[:, None, :] / bend.variance[:, None, None]
    positive = np.maximum(gain, 0.0)
    weight = grid.tile_px**2 * positive / sharp_residual
    return TileStatistics(
        gain=gain,
        offset=lq_mean - gain * gt_mean,
        information=(weight * gain / grid.scale**2)[:, None, None] * projected,
        score=-(weight / grid.scale)[:, None]
        * (on_lq - gain[:, None] * on_gt - bend.share[:, None] * bend.on),
        extra_blur_px2=2 * grid.scale**2 * bend.share / np.maximum(positive, _LEAST_GAIN),
        extra_blur_information=weight * positive * bend.variance / (2 * grid.scale**2) ** 2,
        residual_variance=residual,
        correlation=gain * np.sqrt(gg / np.maximum(ll, _LEAST_VARIANCE)),
        gt_variance=gg,
        lq_variance=ll,
        gt_mean=gt_mean,
        lq_mean=lq_mean,
        gradient_products=np.column_stack(
            [products[:, 14], products[:, 9] + products[:, 11], products[:, 15]]
        ),
    )


@dataclass(frozen=True, eq=False)
class _Bend:
    """The ground truth's second derivative over ``K`` tiles, without what offset and gain explain of it."""

    variance: Array
    """``(K,)``"""
    on: Array
    """``(K, 2)`` mean product with the gradient."""
    share: Array
    """``(K,)`` how much of it the degraded frame shows."""

    @classmethod
    def of(cls, products: Array, *, gain: Array, gg: Array) -> _Bend:
        slope, on_gt = products[:, 12:14], products[:, 5:7]
        bb, gb, lb, xb, yb, mean = products[:, 16:].T
        whole = bb - mean**2
        variance = np.maximum(whole - gb**2 / gg, _LEAST_BEND * whole + _LEAST_VARIANCE)
        on = np.column_stack([xb, yb]) - slope * mean[:, None] - on_gt * (gb / gg)[:, None]
        return cls(variance, on, (lb - gain * gb) / variance)


@dataclass(frozen=True, eq=False)
class FineDetail:
    """Gradients and noise of ``K`` tiles at full detail, neither smoothed nor interpolated."""

    gradient_moments: Array
    """``(K, 2, 2)`` codes² per px² of the full frame: the outer products of the ground truth's gradient, summed."""
    gt_noise: Array
    """``(K,)`` codes²."""
    lq_noise: Array
    """``(K,)`` codes²."""


def fine_detail(gt: Plane, to_gt: Array, lq: Plane, to_lq: Array, grid: TileGrid) -> FineDetail:
    """Measure what bounds the accuracy of every tile; planes as `Picture.reduced` gives them, not smoothed."""
    found = tile_detail(gt, to_gt, lq, to_lq, grid.layout)
    moments = found[:, _FINE_GRADIENT_MOMENTS] * (grid.tile_px / grid.scale) ** 2
    return FineDetail(moments, gt_noise=found[:, 3], lq_noise=found[:, 7])
