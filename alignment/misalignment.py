"""Measure how far two images of a pair lie from each other, whoever made the pair.

Nothing is known about the camera, so the focal length is guessed; a rotation by a few hundredths of a degree
moves the picture by the same amount whatever the guess, within a few per cent of its bending at the corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from alignment.camera_motion import Array, Pinhole, grid_points, inverted, map_points, typical_focal_px
from alignment.errors import NoCommonStructureError, PictureFormatError
from alignment.photometry import Plane, Rgb, ToneCurve, standard_tone_curve
from alignment.picture import Picture
from alignment.registration import Registration, register
from alignment.tiles import IN_PLACE, TileGrid, compare_tiles
from catalog.evidence import BlurRecord

_LEAST_SIDE_PX = 64
"""Two tiles: of less, no part can be held against another."""
_COARSE_SCALE = 4
_COARSE_TILE_PX = 16
_COARSE_BACKGROUND_PX = 8.0


@dataclass(frozen=True, eq=False)
class Misalignment:
    """How far the second image of a pair lies from the first."""

    shift_px: tuple[float, float]
    """Median displacement dx, dy of the second image's content against the first's."""
    epe_px: float
    """Median length of the displacement over the picture."""
    epe_p95_px: float
    """95th percentile of it."""
    local_p90_px: float | None
    """90th percentile of what tiles move beyond that; None where no tile can measure it."""
    predicted_error_px: float
    """What the measurement's own error, the median over the picture, keeps to in 95 of 100 such pairs."""
    trustworthy: bool
    """False if the measurement did not settle, or its two halves or its two directions contradict each other."""
    blur: BlurRecord
    registration: Registration


def measure(
    gt: Rgb, lq: Rgb, *, tone: ToneCurve | None = None, focal_px: float | None = None
) -> Misalignment:
    """Measure the residual misalignment of two images.

    Args:
        gt: The clean image, ``(H, W, 3)`` RGB or ``(H, W)`` grey, uint8 or uint16.
        lq: The degraded image of the same size.
        tone: How both code light; sRGB unless given.
        focal_px: Focal length; 1.2 times the longer side unless given.

    Raises:
        PictureFormatError: The images are of another kind or differ in size.
        NoCommonStructureError: They share too little structure.
    """
    if gt.shape[:2] != lq.shape[:2]:
        raise PictureFormatError(
            f"the images differ in size: {gt.shape[1]} x {gt.shape[0]} and {lq.shape[1]} x {lq.shape[0]} px",
            next_step="give the two images of one pair",
        )
    if min(gt.shape[:2]) < _LEAST_SIDE_PX:
        raise NoCommonStructureError(
            f"{gt.shape[1]} x {gt.shape[0]} px show too little to register by",
            next_step=f"give images of at least {_LEAST_SIDE_PX} x {_LEAST_SIDE_PX} px",
        )
    tone = tone or standard_tone_curve("srgb")
    pictures = Picture(gt, tone=tone), Picture(lq, tone=tone)
    width, height = pictures[0].size
    camera = Pinhole(focal_px or typical_focal_px(width, height), width, height)
    found = register(*pictures, camera=camera, initial=coarse_shift(*pictures))
    return _summary(found)


def coarse_shift(gt: Picture, lq: Picture) -> Array:
    """Find the shift between two frames to about two pixels, ``(3, 3)``.

    Correlation with and without whitening fail on different degradations; no shift at all is the third rival.
    The one that makes the tiles look most alike wins.
    """
    planes = _detail(gt), _detail(lq)
    window = cv2.createHanningWindow((planes[0].shape[1], planes[0].shape[0]), cv2.CV_32F)
    spectrum = np.conj(np.fft.rfft2(planes[0] * window)) * np.fft.rfft2(planes[1] * window)
    whitened = spectrum / np.maximum(np.abs(spectrum), 1e-9 * np.abs(spectrum).max() + 1e-12)
    rivals = [(0, 0), *(_peak(s, planes[0].shape) for s in (spectrum, whitened))]
    dx, dy = max(rivals, key=lambda shift: _likeness(gt, lq, shift))
    return _shift_matrix(dx, dy)


def _summary(found: Registration) -> Misalignment:
    points = grid_points(0, 0, *found.size)
    displacement = map_points(found.homography, points) - points
    length = np.hypot(*displacement.T)
    dx, dy = np.median(displacement, axis=0)
    tolerance_px = max(0.1, 3 * found.predicted.estimate_px)
    agree = max(found.split_half_px, found.forward_backward_px) <= tolerance_px
    return Misalignment(
        shift_px=(float(dx), float(dy)),
        epe_px=float(np.median(length)),
        epe_p95_px=float(np.percentile(length, 95)),
        local_p90_px=found.local_p90_px,
        predicted_error_px=found.predicted_epe_px,
        trustworthy=bool(found.converged and agree),
        blur=found.blur,
        registration=found,
    )


def _detail(picture: Picture) -> Plane:
    """The frame reduced and less its own blurred self."""
    plane = picture.level(_COARSE_SCALE)
    return np.asarray(plane - cv2.GaussianBlur(plane, (0, 0), _COARSE_BACKGROUND_PX), np.float32)


def _peak(spectrum: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    surface = np.fft.irfft2(spectrum, s=shape)
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(surface)), shape))
    dy = row - shape[0] if row > shape[0] // 2 else row
    dx = column - shape[1] if column > shape[1] // 2 else column
    return dx * _COARSE_SCALE, dy * _COARSE_SCALE


def _likeness(gt: Picture, lq: Picture, shift: tuple[int, int]) -> float:
    """Mean correlation of the tiles after a shift; tiles that fall outside count as unlike."""
    grid = TileGrid.over(lq.size, scale=_COARSE_SCALE, tile_px=_COARSE_TILE_PX)
    back = inverted(_shift_matrix(*shift))
    seen = grid.inside(back, gt.size, margin_px=0.0)
    at_scale = _shift_matrix(-shift[0] // _COARSE_SCALE, -shift[1] // _COARSE_SCALE)
    tiles = compare_tiles(gt.level(_COARSE_SCALE), at_scale, lq.level(_COARSE_SCALE), IN_PLACE, grid)
    return float(np.mean(tiles.correlation * seen))


def _shift_matrix(dx_px: float, dy_px: float) -> Array:
    return np.array([[1, 0, dx_px], [0, 1, dy_px], [0, 0, 1.0]])
