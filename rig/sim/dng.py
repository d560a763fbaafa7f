"""Write raw files that raw converters open: uncompressed DNG with a Bayer mosaic of the simulated sensor.

References:
    Adobe Digital Negative (DNG) Specification 1.4.0.0; TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from rig.sim.sensor import RAW_BLACK, RAW_WHITE, Mosaic

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_CODES = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _SRATIONAL: "i"}
_NUMBERS_PER_VALUE = {_RATIONAL: 2, _SRATIONAL: 2}
_DENOMINATOR = 10_000
_XYZ_TO_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
"""IEC 61966-2-1: the sensor's colours are those of linear sRGB."""
_D65, _COLOUR_FILTER_ARRAY = 21, 32803
_MODEL = b"cleanplate simulated body\0"
_HEADER_BYTES = 8


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    numbers: Sequence[int]

    def values(self) -> bytes:
        """Code the values, without padding."""
        return struct.pack(f"<{len(self.numbers)}{_CODES[self.kind]}", *self.numbers)

    @property
    def count(self) -> int:
        """Number of values, as TIFF counts them."""
        return len(self.numbers) // _NUMBERS_PER_VALUE.get(self.kind, 1)


def dng(mosaic: Mosaic, *, neutral: Sequence[float]) -> bytes:
    """Code the raw samples of an RGGB sensor as a DNG file.

    Args:
        mosaic: Raw codes, (H, W) uint16 with even sides, `RAW_BLACK` for no light and `RAW_WHITE` for clipping.
        neutral: Red, green and blue on the sensor of what the body takes for grey; a converter may ignore it.
    """
    samples = mosaic.astype("<u2").tobytes()
    begin = _HEADER_BYTES + len(samples)
    head = struct.pack("<2sHI", b"II", 42, begin)
    return head + samples + _directory(_entries(mosaic.shape, len(samples), neutral), begin)


def _entries(shape: tuple[int, ...], size_bytes: int, neutral: Sequence[float]) -> list[_Entry]:
    height, width = shape
    return [
        _Entry(254, _LONG, [0]),  # the picture itself, no thumbnail
        _Entry(256, _LONG, [width]),
        _Entry(257, _LONG, [height]),
        _Entry(258, _SHORT, [16]),  # bits per sample
        _Entry(259, _SHORT, [1]),  # not compressed
        _Entry(262, _SHORT, [_COLOUR_FILTER_ARRAY]),
        _Entry(271, _ASCII, b"cleanplate\0"),
        _Entry(272, _ASCII, _MODEL),
        _Entry(273, _LONG, [_HEADER_BYTES]),  # where the one strip begins
        _Entry(274, _SHORT, [1]),  # upright
        _Entry(277, _SHORT, [1]),  # samples per pixel
        _Entry(278, _LONG, [height]),
        _Entry(279, _LONG, [size_bytes]),
        _Entry(284, _SHORT, [1]),
        _Entry(33421, _SHORT, [2, 2]),
        _Entry(33422, _BYTE, [0, 1, 1, 2]),  # RGGB
        _Entry(50706, _BYTE, [1, 4, 0, 0]),  # DNG version
        _Entry(50708, _ASCII, _MODEL),
        _Entry(50714, _LONG, [RAW_BLACK]),
        _Entry(50717, _LONG, [RAW_WHITE]),
        _Entry(50721, _SRATIONAL, _rationals(_XYZ_TO_SRGB)),
        _Entry(50728, _RATIONAL, _rationals(neutral)),  # as shot
        _Entry(50778, _SHORT, [_D65]),
    ]


def _rationals(values: Sequence[float]) -> list[int]:
    return [n for value in values for n in (round(value * _DENOMINATOR), _DENOMINATOR)]


def _directory(entries: Sequence[_Entry], begin: int) -> bytes:
    """Lay out the TIFF directory, and behind it the values that do not fit into its entries."""
    behind_at = begin + 2 + 12 * len(entries) + 4
    table, behind = b"", b""
    for entry in entries:
        values = entry.values()
        place = values.ljust(4, b"\0")
        if len(values) > 4:
            place = struct.pack("<I", behind_at + len(behind))
            behind += values + b"\0" * (len(values) % 2)
        table += struct.pack("<HHI", entry.tag, entry.kind, entry.count) + place
    return struct.pack("<H", len(entries)) + table + struct.pack("<I", 0) + behind
