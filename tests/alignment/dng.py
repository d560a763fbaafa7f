"""Write the smallest raw file that is one: an uncompressed 16-bit DNG with a Bayer mosaic."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLACK, WHITE = 256, 16383
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_FORMATS = {_BYTE: "B", _ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _SRATIONAL: "i"}
_XYZ_TO_SRGB = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
"""As colour matrix: the camera's colours are linear sRGB."""


def write_dng(path: Path, light: NDArray[np.float64]) -> None:
    """Write linear light ``(H, W, 3)``, 0..1, even sides, as an RGGB mosaic."""
    mosaic = light[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = light[::2, ::2, 0], light[1::2, 1::2, 2]
    samples = np.rint(BLACK + mosaic * (WHITE - BLACK)).astype("<u2").tobytes()
    height, width = mosaic.shape
    matrix = [n for value in _XYZ_TO_SRGB for n in (round(value * 10000), 10000)]
    tags: list[tuple[int, int, list[int] | bytes]] = [
        (254, _LONG, [0]),
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [16]),
        (259, _SHORT, [1]),
        (262, _SHORT, [32803]),
        (271, _ASCII, b"Test\0"),
        (272, _ASCII, b"Mosaic\0"),
        (273, _LONG, [8]),
        (274, _SHORT, [1]),
        (277, _SHORT, [1]),
        (278, _LONG, [height]),
        (279, _LONG, [len(samples)]),
        (284, _SHORT, [1]),
        (33421, _SHORT, [2, 2]),
        (33422, _BYTE, b"\0\1\1\2"),
        (50706, _BYTE, b"\1\4\0\0"),
        (50708, _ASCII, b"Test Mosaic\0"),
        (50714, _LONG, [BLACK]),
        (50717, _LONG, [WHITE]),
        (50721, _SRATIONAL, matrix),
        (50728, _RATIONAL, [1, 1, 1, 1, 1, 1]),
        (50778, _SHORT, [21]),
    ]
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(samples)) + samples + _directory(tags, 8 + len(samples))
    )


def _directory(tags: list[tuple[int, int, list[int] | bytes]], start: int) -> bytes:
    """Lay out one TIFF directory and the values that do not fit into its entries."""
    beside_at = start + 2 + 12 * len(tags) + 4
    entries, beside = b"", b""
    for tag, kind, values in tags:
        data = (
            bytes(values)
            if isinstance(values, bytes)
            else struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)
        )
        count = len(values) // (2 if kind in {_RATIONAL, _SRATIONAL} else 1)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place = struct.pack("<I", beside_at + len(beside))
            beside += data + b"\0" * (len(data) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + place
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + beside
