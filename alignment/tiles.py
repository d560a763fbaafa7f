"""Small tiles that each keep their own brightness: what one frame says about its shift against another.

In every tile the degraded frame is taken as a gain times the ground truth plus an offset, and both are
projected out of the gradients (variable projection). Exposure, haze, vignetting and shadows then move
nothing. Gradients come from the ground truth alone: noise in them would shrink the estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Array, map_points
from alignment.photometry import Plane

_CODE_VARIANCE_FLOOR = 1e-3
"""Least residual variance, codes²: rounding to 8 bits leaves 1/12 before smoothing, a tenth of that after."""


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

    def blocks(self, plane: Plane) -> np.ndarray:
        """View a cropped plane as ``(rows, tile, columns, tile)``."""
        return plane.reshape(self.rows, self.tile_px, self.columns, self.tile_px)

    def means(self, plane: Plane) -> Plane:
        """Average a cropped plane over each tile: ``(rows, columns)``."""
        return np.asarray(
            cv2.resize(plane, (self.columns, self.rows), interpolation=cv2.INTER_AREA), np.float32
        )


@dataclass(frozen=True, eq=False)
class CentredPlane:
    """A cropped plane less the mean of each tile; sums of squares then keep their digits in float32."""

    plane: Plane
    mean: Array
    """Of each tile, ``(K,)`` codes."""
    variance: Array
    """Of each tile, ``(K,)`` codes²."""

    @classmethod
    def of(cls, plane: Plane, grid: TileGrid) -> CentredPlane:
        """Centre a plane that `TileGrid.crop` or a warp made; the plane is changed in place."""
        mean = grid.means(plane)
        blocks = grid.blocks(plane)
        blocks -= mean[:, None, :, None]
        return cls(plane, mean.ravel().astype(float), _mean_product(blocks, blocks))


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


def compare_tiles(gt: Plane, lq: CentredPlane, grid: TileGrid) -> TileStatistics:
    """Linearise every tile about the present alignment.

    Args:
        gt: Ground truth warped onto the degraded frame's tiles, codes; it is centred in place.
        lq: The degraded frame on the same tiles.
        grid: The tiles.
    """
    gx = np.asarray(cv2.Sobel(gt, cv2.CV_32F, 1, 0, ksize=1, scale=0.5), np.float32)
    gy = np.asarray(cv2.Sobel(gt, cv2.CV_32F, 0, 1, ksize=1, scale=0.5), np.float32)
    centred = CentredPlane.of(gt, grid)
    g, l = grid.blocks(centred.plane), grid.blocks(lq.plane)
    gradients = [grid.blocks(gx), grid.blocks(gy)]
    slope = [grid.means(gx).ravel().astype(float), grid.means(gy).ravel().astype(float)]
    gg = np.maximum(centred.variance, 1e-9)
    gain = _mean_product(g, l) / gg
    residual = np.maximum(lq.variance - gain**2 * gg, _CODE_VARIANCE_FLOOR)
    on_gt = np.stack([_mean_product(d, g) for d in gradients], axis=-1)
    on_lq = np.stack([_mean_product(d, l) for d in gradients], axis=-1)
    products = _gradient_products(gradients, slope)
    projected = products - on_gt[:, :, None] * on_gt[:, None, :] / gg[:, None, None]
    weight = grid.tile_px**2 * np.maximum(gain, 0.0) / residual
    return TileStatistics(
        gain=gain,
        offset=lq.mean - gain * centred.mean,
        information=(weight * gain / grid.scale**2)[:, None, None] * projected,
        score=-(weight / grid.scale)[:, None] * (on_lq - gain[:, None] * on_gt),
        residual_variance=residual,
        correlation=gain * np.sqrt(gg / np.maximum(lq.variance, 1e-9)),
        gt_variance=gg,
        lq_variance=lq.variance,
        gt_mean=centred.mean,
        lq_mean=lq.mean,
    )


def tile_correlation(gt: Plane, lq: CentredPlane, grid: TileGrid) -> Array:
    """Correlate two planes in every tile, ``(K,)``; the first is centred in place."""
    centred = CentredPlane.of(gt, grid)
    cross = _mean_product(grid.blocks(centred.plane), grid.blocks(lq.plane))
    return np.asarray(cross / np.sqrt(np.maximum(centred.variance * lq.variance, 1e-9)), np.float64)


def _gradient_products(gradients: list[np.ndarray], slope: list[Array]) -> Array:
    """Centred second moments of the gradient, ``(K, 2, 2)``."""
    xx = _mean_product(gradients[0], gradients[0]) - slope[0] ** 2
    xy = _mean_product(gradients[0], gradients[1]) - slope[0] * slope[1]
    yy = _mean_product(gradients[1], gradients[1]) - slope[1] ** 2
    return np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)


def _mean_product(a: np.ndarray, b: np.ndarray) -> Array:
    row_sums = np.einsum("itjs,itjs->itj", a, b)
    return np.asarray(row_sums.sum(axis=1, dtype=np.float64).ravel() / (a.shape[1] * a.shape[3]), np.float64)
