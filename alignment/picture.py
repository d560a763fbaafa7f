"""A frame prepared once and shared by every stage that compares it."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from alignment.blur import blur_light
from alignment.blur_field import BlurField
from alignment.errors import PictureFormatError
from alignment.photometry import Plane, Rgb, ToneCurve, grey_codes
from catalog.evidence import BlurRecord

NO_BLUR = BlurRecord(kind="none", size_px=0.0)
DIMMED = 0.7
"""Below this ratio of light the ground truth is dimmed to match; above, gains and offsets absorb the rest."""
SMOOTHING_PX = float(np.sqrt(0.75))
"""Sigma of the Gaussian before tiles are sampled, whose own kernel makes it 1 px: unsmoothed, any interpolation
between pixels moves the finest detail."""


class Picture:
    """One frame as grey codes, with the reduced and smoothed copies that estimators read.

    Everything is computed when first asked for and then kept.

    Args:
        rgb: ``(H, W, 3)`` RGB or ``(H, W)`` grey, uint8 or uint16.
        tone: How the camera coded light.

    Raises:
        PictureFormatError: The array is something else.
    """

    def __init__(self, rgb: Rgb, *, tone: ToneCurve) -> None:
        if rgb.ndim not in (2, 3) or rgb.dtype not in (np.uint8, np.uint16):
            raise PictureFormatError(f"an image of shape {rgb.shape} and type {rgb.dtype}")
        self.rgb = rgb
        self.tone = tone
        self._reduced: dict[int, Plane] = {}
        self._levels: dict[int, Plane] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @cached_property
    def grey(self) -> Plane:
        """``(H, W)`` float32 luma codes, 0..255, not smoothed."""
        if self.rgb.ndim == 3:
            return grey_codes(self.rgb)
        return np.asarray(self.rgb, np.float32) / np.float32(1 if self.rgb.dtype == np.uint8 else 257)

    @cached_property
    def light(self) -> Plane:
        """``(H, W)`` float32 light of the grey codes, 0..1."""
        return self.tone.light(self.grey)

    def part(self, window: tuple[int, int, int, int]) -> Picture:
        """Cut out x, y, width, height."""
        x, y, width, height = window
        return Picture(self.rgb[y : y + height, x : x + width], tone=self.tone)

    def reduced(self, scale: int) -> Plane:
        """Average squares of ``scale`` px: ``(H // scale, W // scale)`` codes, not smoothed."""
        if scale == 1:
            return self.grey
        if scale not in self._reduced:
            finer = scale // 2 if scale % 2 == 0 else 1
            self._reduced[scale] = reduce_plane(self.reduced(finer), scale // finer)
        return self._reduced[scale]

    def level(self, scale: int) -> Plane:
        """Return the frame reduced ``scale`` times and smoothed; a pixel there is ``scale`` px wide."""
        if scale not in self._levels:
            self._levels[scale] = smooth(self.reduced(scale), SMOOTHING_PX)
        return self._levels[scale]


def reduce_plane(plane: Plane, scale: int) -> Plane:
    """Average squares of ``scale`` px; what does not fill a square at the right and the bottom is cut off."""
    if scale == 1:
        return plane
    height, width = plane.shape[0] // scale, plane.shape[1] // scale
    whole = plane[: height * scale, : width * scale]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def smooth(plane: Plane, sigma_px: float) -> Plane:
    """Smooth by a Gaussian."""
    side = 2 * int(np.ceil(3 * sigma_px)) + 1
    return np.asarray(cv2.GaussianBlur(plane, (side, side), sigma_px), np.float32)


class MatchedTruth:
    """The ground truth as the degraded frame's optics and exposure would have shown it.

    Args:
        gt: The ground truth.
        tone: How the degraded frame's camera codes light.
        blur: Blur to add, in linear light.
        exposure: Light of the degraded frame over that of the ground truth.
        field: How the blur changes over the picture; None for one that does not.
    """

    def __init__(
        self,
        gt: Picture,
        *,
        tone: ToneCurve,
        blur: BlurRecord,
        exposure: float,
        field: BlurField | None = None,
    ) -> None:
        self.gt = gt
        self.tone = tone
        self.blur = blur
        self.exposure = exposure
        self._field = field
        self._reduced: dict[int, Plane] = {}
        self._levels: dict[int, Plane] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, px."""
        return self.gt.size

    def varied(self, field: BlurField) -> MatchedTruth:
        """The same with a blur that changes over the picture."""
        return MatchedTruth(self.gt, tone=self.tone, blur=self.blur, exposure=self.exposure, field=field)

    def level(self, scale: int) -> Plane:
        """Return the matched frame reduced ``scale`` times and smoothed, as `Picture.level`."""
        if self._is_plain():
            return self.gt.level(scale)
        if scale not in self._levels:
            self._levels[scale] = smooth(self.reduced(scale), SMOOTHING_PX)
        return self._levels[scale]

    def reduced(self, scale: int) -> Plane:
        """Return the matched frame reduced ``scale`` times, not smoothed."""
        if self._is_plain():
            return self.gt.reduced(scale)
        if scale not in self._reduced:
            light = self.gt.light if scale == 1 else self.gt.tone.light(self.gt.reduced(scale))
            blurred = blur_light if self._field is None else self._field.blurred
            light = blurred(light, self.blur, scale=scale)
            self._reduced[scale] = self.tone.codes(light, exposure=self.exposure)
        return self._reduced[scale]

    def _is_plain(self) -> bool:
        return self.blur.kind == "none" and self.exposure == 1.0 and self.tone.name == self.gt.tone.name
