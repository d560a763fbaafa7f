"""Cut a registered pair to what both frames show, resampling as little as possible.

The degraded frame is never resampled: half a pixel of bilinear interpolation would remove half of its noise,
and a network would learn the interpolator. It is cut on whole pixels. The ground truth is cut on whole pixels
too if what is then left is small enough; otherwise it is warped once, in linear light, straight from the
original, by an interpolation that moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignment.camera_motion import Array, grid_points, inverted, map_points, normalised
from alignment.errors import NoOverlapError, PictureFormatError
from alignment.level_pair import ForwardPair, refine
from alignment.parallax import MotionField
from alignment.photometry import Rgb, ToneCurve
from alignment.picture import MatchedTruth, Picture
from alignment.registration import Pinhole, Registration
from alignment.spline import spline_coefficients, warp_near_shift
from catalog.intensity import intensity

Crop = tuple[int, int, int, int]
"""x, y, width, height."""

MARGIN_PX = 16
"""Kept from the border of what both frames show: kernels reach there, and lens corrections are worst there."""
SIDE_MULTIPLE_PX = 8
_LEAST_SIDE_PX = 64


@dataclass(frozen=True, eq=False)
class DeliveredPair:
    """The two images of a pair as they are written, and where they come from."""

    gt: Rgb
    """``(h, w, 3)`` RGB."""
    lq: Rgb
    """``(h, w, 3)`` RGB: whole pixels of the degraded frame, untouched."""
    lq_crop: Crop
    """In the degraded frame."""
    gt_from_pair: Array
    """``(3, 3)``: pixel of the written pair to pixel of the ground truth; a whole shift if it was left unwarped."""
    gt_warped: bool
    kernel: Literal["none", "quintic_bspline_linear_light"]
    max_displacement_px: float
    """Longest displacement that cutting on whole pixels leaves; compared with ``max_unwarped_px``."""
    residual_px: float
    """What is left in the written pair, as measured: median over the picture."""
    predicted_epe_px: float
    """What the written pair's error, the median over the picture, keeps to in 95 of 100 such pairs."""
    overlap_share: float
    """What both frames show over the degraded frame, before the margin."""
    mu: float
    """Mean of |lq - gt| in 0..1."""
    sigma: float
    """Standard deviation of |lq - gt| in 0..1."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Which part of two frames becomes a pair, and whether the ground truth has to be warped for it."""

    lq_crop: Crop
    """In the degraded frame."""
    gt_from_pair: Array
    """``(3, 3)``: pixel of the pair to pixel of the ground truth; a whole shift if it is left unwarped."""
    gt_warped: bool
    unwarped_px: Array
    """Distance of grid points of the pair from where they belong if the ground truth is only cut, px."""
    overlap_share: float
    """What both frames show over the degraded frame, before the margin."""

    def offset_px(self, homography: Array, points_px: Array) -> Array:
        """Tell how far beyond this cut's a homography puts places ``(n, 2)`` of the degraded frame, ``(n, 2)`` px."""
        in_gt = map_points(self.gt_from_pair, points_px - self.lq_crop[:2])
        return map_points(homography, in_gt) - points_px


def plan_cut(homography: Array, size: tuple[int, int], *, max_unwarped_px: float = 0.05) -> Cut:
    """Decide how to cut a pair, from the frames' geometry alone.

    Args:
        homography: Ground truth to degraded frame.
        size: Width and height of both, px.
        max_unwarped_px: As for `deliver`.

    Raises:
        NoOverlapError: As `deliver`.
    """
    crop, overlap_share = common_crop(homography, size)
    left = _left_by_whole_pixels(homography, crop)
    warped = bool(left.max() > max_unwarped_px)
    exact = normalised(inverted(homography) @ _shift(crop[0], crop[1]))
    return Cut(crop, exact if warped else _whole_pixel_matrix(homography, crop), warped, left, overlap_share)


def deliver(
    gt_rgb: Rgb, lq_rgb: Rgb, registration: Registration, *, tone: ToneCurve, max_unwarped_px: float = 0.05
) -> DeliveredPair:
    """Cut a pair out of two frames.

    Args:
        gt_rgb: Ground truth, ``(H, W, 3)`` uint8 or uint16.
        lq_rgb: Degraded frame of the same size.
        registration: How the second lies on the first.
        tone: How both code light.
        max_unwarped_px: The ground truth is left unwarped if no pixel of it is then further than this from
            where it belongs.

    Raises:
        NoOverlapError: What both frames show is smaller than 64 px either way after the margin.
        PictureFormatError: The frames are not RGB of the registration's size.
    """
    for rgb in (gt_rgb, lq_rgb):
        if rgb.ndim != 3 or (rgb.shape[1], rgb.shape[0]) != registration.size:
            raise PictureFormatError(
                f"an image of shape {rgb.shape} for a registration of {registration.size} px"
            )
    cut = plan_cut(registration.homography, registration.size, max_unwarped_px=max_unwarped_px)
    lq = _cut(lq_rgb, cut.lq_crop)
    width, height = cut.lq_crop[2:]
    if cut.gt_warped:
        gt = warp_in_light(gt_rgb, cut.gt_from_pair, (width, height), tone=tone)
        residual_px = _measured_residual(gt, lq, registration, cut, tone=tone)
    else:
        gt = _cut(gt_rgb, (int(cut.gt_from_pair[0, 2]), int(cut.gt_from_pair[1, 2]), width, height))
        residual_px = float(np.median(cut.unwarped_px))
    mu, sigma = intensity(gt, lq)
    return DeliveredPair(
        gt=gt,
        lq=lq,
        lq_crop=cut.lq_crop,
        gt_from_pair=cut.gt_from_pair,
        gt_warped=cut.gt_warped,
        kernel="quintic_bspline_linear_light" if cut.gt_warped else "none",
        max_displacement_px=float(cut.unwarped_px.max()),
        residual_px=residual_px,
        predicted_epe_px=delivered_radius_px(registration, cut),
        overlap_share=cut.overlap_share,
        mu=mu,
        sigma=sigma,
    )


def delivered_radius_px(registration: Registration, cut: Cut) -> float:
    """What the error of a pair cut like this, the median over the picture, keeps to in 95 of 100 such pairs, px."""
    predicted = registration.predicted
    return predicted.left_as_cut_px(cut.offset_px(registration.homography, predicted.points_px))


def common_crop(homography: Array, size: tuple[int, int]) -> tuple[Crop, float]:
    """Find the crop of the degraded frame that both frames show, and the share of the frame they both show.

    The largest axis-aligned rectangle of the overlap less 16 px all round; offsets even, so that mosaics and
    halved chroma stay in phase; sides multiples of 8.

    Args:
        homography: Ground truth to degraded frame.
        size: Width and height of both, px.

    Raises:
        NoOverlapError: Less than 64 px are left either way.
    """
    width, height = size
    (tlx, tly), (trx, tr_y), (blx, bly), (brx, bry) = map_points(
        homography, grid_points(0, 0, width, height, columns=2, rows=2)
    )
    low = np.ceil([max(0, tlx, blx), max(0, tly, tr_y)])
    high = np.floor([min(width - 1, trx, brx), min(height - 1, bly, bry)])
    overlap = np.maximum(high - low + 1, 0)
    room = overlap - 2 * MARGIN_PX
    side = (room // SIDE_MULTIPLE_PX * SIDE_MULTIPLE_PX).astype(int)
    start = (np.ceil((low + MARGIN_PX + (room - side) // 2) / 2) * 2).astype(int)
    side -= np.where(start + side > high + 1 - MARGIN_PX, SIDE_MULTIPLE_PX, 0)
    if side.min() < _LEAST_SIDE_PX:
        raise NoOverlapError(
            f"the two frames of {width} x {height} px share {overlap[0]:.0f} x {overlap[1]:.0f} px",
            next_step="match frames that were taken closer to each other",
        )
    crop = (int(start[0]), int(start[1]), int(side[0]), int(side[1]))
    return crop, float(overlap.prod() / (width * height))


def warp_in_light(rgb: Rgb, to_source: Array, size: tuple[int, int], *, tone: ToneCurve) -> Rgb:
    """Warp an image in linear light by a quintic B-spline; type and coding stay.

    Args:
        rgb: ``(H, W, 3)`` uint8 or uint16.
        to_source: ``(3, 3)``, pixel of the result to pixel of ``rgb``.
        size: Width and height of the result, px.
        tone: How ``rgb`` codes light.
    """
    light = warp_near_shift(spline_coefficients(tone.light_of(rgb)), to_source, size)
    return tone.pixels(light, rgb.dtype)


def _whole_pixel_matrix(homography: Array, crop: Crop) -> Array:
    """Pair to ground truth by the whole shift that leaves least."""
    displacement = _displacement(homography, crop)
    whole = np.rint((displacement.min(axis=0) + displacement.max(axis=0)) / 2)
    return _shift(crop[0] - whole[0], crop[1] - whole[1])


def _left_by_whole_pixels(homography: Array, crop: Crop) -> Array:
    """Distance of every grid point of the pair from where it belongs, if the ground truth is only cut, px."""
    points = grid_points(0, 0, crop[2], crop[3])
    in_gt = map_points(_whole_pixel_matrix(homography, crop), points)
    return np.asarray(np.hypot(*(map_points(homography, in_gt) - points - crop[:2]).T), np.float64)


def _displacement(homography: Array, crop: Crop) -> Array:
    points = grid_points(*crop)
    return points - map_points(inverted(homography), points)


def _measured_residual(gt: Rgb, lq: Rgb, registration: Registration, cut: Cut, *, tone: ToneCurve) -> float:
    """Register the written pair once more, from where it should be, and take the median displacement found.

    Near and far are told apart here as well: otherwise the depth with the clearest structure would speak for all.
    """
    truth = MatchedTruth(
        Picture(gt, tone=tone), tone=tone, blur=registration.blur, exposure=registration.matched_exposure
    )
    size = (gt.shape[1], gt.shape[0])
    camera = Pinhole(registration.focal_px, *size)
    pair = ForwardPair(truth, Picture(lq, tone=tone), scale=1)
    found = refine(
        pair, np.eye(3), camera=camera, model=registration.model, tolerance_px=1.0, max_iterations=1
    )
    field = MotionField(registration.model, camera, registration.disparities, inverted(cut.gt_from_pair))
    fit = field.fit(found.tiles, pair.grid.centres_px(), like=found.fit)
    displacement = (fit.jacobians @ fit.parameters)[fit.usable]
    return float(np.median(np.hypot(*displacement.T)))


def _cut(rgb: Rgb, crop: Crop) -> Rgb:
    x, y, width, height = crop
    return rgb[y : y + height, x : x + width].copy()


def _shift(dx_px: float, dy_px: float) -> Array:
    return np.array([[1, 0, dx_px], [0, 1, dy_px], [0, 0, 1.0]])
