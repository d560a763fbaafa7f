"""From code values to light and back, by table, and from colour to grey.

Light is added and blurred in linear values only; frames are compared in code values, where the
noise is about equally strong everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import PictureFormatError
from alignment.kernels.tables import looked_up, looked_up_by_root, weighted_channels

Rgb = NDArray[np.uint8] | NDArray[np.uint16]
Plane = NDArray[np.float32]
Mask = NDArray[np.uint8]

_TABLE_SIZE = 65536
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True, eq=False)
class ToneCurve:
    """How a camera turned light into code values.

    Codes run from 0 to 255 whatever the bit depth (a 16-bit value is divided by 257), light from 0 to 1.
    """

    name: str
    """``bt709``, ``srgb`` or the hash of a calibration."""
    light_by_code: Plane
    """Light at the 65536 codes ``i / 257``."""
    code_by_root: Plane
    """Code at the 65536 lights ``(i / 65535)²``: the root spaces the nodes evenly in code, also near black."""

    def light(self, codes: Plane) -> Plane:
        """Turn codes (any shape, float32, 0..255) into light, to 1/500 of a code."""
        flat = np.ascontiguousarray(codes, np.float32).ravel()
        return looked_up(flat, self.light_by_code).reshape(codes.shape)

    def light_of(self, rgb: Rgb) -> Plane:
        """Turn stored pixels into light: ``(H, W, 3)`` uint8 or uint16 to float32."""
        if rgb.dtype == np.uint8:
            return np.asarray(cv2.LUT(rgb, self.light_by_code[::257]), np.float32)
        return self.light_by_code[rgb]

    def codes(self, light: Plane, *, exposure: float = 1.0) -> Plane:
        """Turn light times ``exposure`` into codes, to 1/300 of a code; light outside 0..1 is clipped."""
        flat = np.ascontiguousarray(light, np.float32).ravel()
        return looked_up_by_root(flat, np.float32(exposure), self.code_by_root).reshape(light.shape)

    def pixels(self, light: Plane, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> Rgb:
        """Turn light into stored pixels of ``dtype``, rounded to the nearest code."""
        if dtype == np.uint8:
            return (self.codes(light) + 0.5).astype(np.uint8)
        return (self.codes(light) * 257 + 0.5).astype(np.uint16)


@cache
def standard_tone_curve(name: Literal["bt709", "srgb"]) -> ToneCurve:
    """Look up the curve that a stream's transfer tag names.

    References:
        ITU-R BT.709-6 item 1.2; IEC 61966-2-1.
    """
    encode = _encode_bt709 if name == "bt709" else _encode_srgb
    light = np.linspace(0.0, 1.0, 4 * _TABLE_SIZE) ** 2
    return measured_tone_curve(name, codes=255 * encode(light), light=light)


def measured_tone_curve(name: str, *, codes: NDArray[np.float64], light: NDArray[np.float64]) -> ToneCurve:
    """Build a curve from samples, as an exposure ladder measures them.

    Args:
        name: What the curve is called in the records.
        codes: Codes of the samples, ``(n,)``, strictly increasing, 0..255.
        light: Light of the same samples, ``(n,)``, strictly increasing, 1 at white.

    Raises:
        ValueError: The samples are not strictly increasing.
    """
    if np.any(np.diff(codes) <= 0) or np.any(np.diff(light) <= 0):
        raise ValueError("a tone curve must rise strictly")
    index = np.arange(_TABLE_SIZE)
    return ToneCurve(
        name,
        light_by_code=np.interp(index / 257, codes, light).astype(np.float32),
        code_by_root=np.interp((index / (_TABLE_SIZE - 1)) ** 2, light, codes).astype(np.float32),
    )


def _encode_bt709(light: NDArray[np.float64]) -> NDArray[np.float64]:
    # The exact constants, not the rounded 1.099 and 0.018: with those the curve steps back where its parts meet.
    a, b = 1.09929682680944, 0.018053968510807
    return np.where(light < b, 4.5 * light, a * light**0.45 - (a - 1))


def _encode_srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def recoded(rgb: NDArray[np.uint8], given: ToneCurve, wanted: ToneCurve) -> NDArray[np.uint8]:
    """Code a picture by another tone curve, so that both of a pair are coded alike; unchanged where they are."""
    if given.name == wanted.name:
        return rgb
    table = wanted.codes(given.light_by_code[::257])
    return np.asarray(cv2.LUT(rgb, np.rint(table).astype(np.uint8)), np.uint8)


def grey_codes(rgb: Rgb) -> Plane:
    """Weigh red, green and blue codes by BT.709 luma.

    Args:
        rgb: ``(H, W, 3)`` uint8 or uint16.

    Returns:
        ``(H, W)`` float32 codes 0..255, not rounded: rounding would add a third of the noise of a dark frame.

    Raises:
        PictureFormatError: The array is something else.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype not in (np.uint8, np.uint16):
        raise PictureFormatError(
            f"an image of shape {rgb.shape} and type {rgb.dtype}",
            next_step="give RGB of 8 or 16 bits per channel",
        )
    if rgb.dtype == np.uint8:
        return weighted_channels(np.ascontiguousarray(rgb), _LUMA)
    return np.asarray(cv2.transform(rgb.astype(np.float32), _LUMA[None] / 257), np.float32)
