"""Pictures in and out: what a file is comes from its bytes, never from its name.

Pixels are ``(H, W, 3)`` RGB, uint8 or uint16. What a picture carries besides colour (alpha, grey, ICC profile,
EXIF with its orientation) is kept, so that a restored file can take its place.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import replace_file
from catalog.stored_files import PNG_SIGNATURE
from models.errors import DamagedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

Pixels = NDArray[np.uint8 | np.uint16]

_SIGNATURES = (
    (PNG_SIGNATURE, "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
)


@dataclass(frozen=True)
class Picture:
    """One picture file, decoded."""

    pixels: Pixels
    """``(H, W, 3)`` RGB in the order the file stores them; orientation is not applied."""
    alpha: Pixels | None
    """``(H, W)`` of the same type, where the file has it."""
    grey: bool
    """The file has one channel; `pixels` repeats it three times."""
    icc: bytes | None
    exif: bytes | None
    """EXIF block (TIFF structure without the ``Exif`` prefix); it holds the orientation."""

    def with_pixels(self, pixels: Pixels) -> Picture:
        """Return the same picture with other colours."""
        return replace(self, pixels=pixels)


def image_kind(data: bytes) -> str | None:
    """Name the format that the first bytes announce, None when it is no picture that we read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def read_pixels(path: Path) -> Pixels:
    """Read a file's colours as ``(H, W, 3)`` RGB, uint8 or uint16. Raises as `decode_pixels`."""
    return decode_pixels(_read(path), name=str(path))


def decode_pixels(data: bytes, *, name: str) -> Pixels:
    """Decode bytes into ``(H, W, 3)`` RGB; grey is repeated, alpha dropped.

    Raises:
        DamagedImageError: Not a picture, truncated, or of more than 16 bits; the message says which.
    """
    return _as_rgb(_decode(data, name))


def read_picture(path: Path) -> Picture:
    """Read a file with everything it carries. Raises as `decode_pixels`."""
    data = _read(path)
    raw = _decode(data, str(path))
    icc, exif = _metadata(data)
    alpha = raw[..., 3].copy() if raw.ndim == 3 and raw.shape[2] == 4 else None
    return Picture(_as_rgb(raw), alpha, grey=raw.ndim == 2, icc=icc, exif=exif)


def write_png(path: Path, picture: Picture) -> None:
    """Write a picture losslessly, in one step, with its profile, EXIF and alpha."""
    replace_file(path, encode_png(picture))


def encode_png(picture: Picture) -> bytes:
    """Encode a picture as PNG of its own depth, 8 or 16 bit."""
    import cv2

    done, encoded = cv2.imencode(".png", _stored_channels(picture))
    if not done:
        raise ValueError(f"pixels of shape {picture.pixels.shape} cannot be written as PNG")
    return _with_chunks(encoded.tobytes(), picture)


def plain_picture(pixels: Pixels) -> Picture:
    """Wrap colours that carry nothing else."""
    return Picture(pixels, alpha=None, grey=False, icc=None, exif=None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedImageError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(data: bytes, name: str) -> Pixels:
    import cv2

    kind = image_kind(data)
    if kind is None:
        raise DamagedImageError(
            f"{name}: not a PNG, JPEG, TIFF, WebP or BMP picture (starts with {data[:8].hex() or 'nothing'})"
        )
    if _is_truncated(data, kind):
        raise DamagedImageError(
            f"{name}: the {kind} data end early, after {len(data)} bytes", next_step="copy the file again"
        )
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DamagedImageError(f"{name}: {kind} data cannot be decoded: {error.err}") from error
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise DamagedImageError(f"{name}: {kind} data cannot be decoded as grey or RGB of 8 or 16 bit")
    decoded: Pixels = pixels
    return decoded


def _is_truncated(data: bytes, kind: str) -> bool:
    # OpenCV would only say that it cannot decode them.
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    return False


def _as_rgb(raw: Pixels) -> Pixels:
    if raw.ndim == 2:
        return np.repeat(raw[..., None], 3, axis=2)
    return np.ascontiguousarray(raw[..., 2::-1])


def _metadata(data: bytes) -> tuple[bytes | None, bytes | None]:
    from PIL import Image

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")  # Pillow's remarks on damaged tags
            return image.info.get("icc_profile"), _exif(image)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None, None  # Pillow knows fewer kinds than OpenCV; the colours are read all the same


def _exif(image: Image.Image) -> bytes | None:
    try:
        tags = image.getexif()
        return tags.tobytes().removeprefix(b"Exif\0\0") if tags else None
    except (SyntaxError, LookupError, TypeError, OverflowError, struct.error):
        return None  # a damaged block, which Pillow may trip over anywhere


def _stored_channels(picture: Picture) -> Pixels:
    pixels = picture.pixels
    if picture.grey:
        grey: Pixels = np.rint(pixels.mean(axis=2)).astype(pixels.dtype)
        return grey
    bgr = pixels[..., ::-1]
    return np.ascontiguousarray(bgr) if picture.alpha is None else np.dstack([bgr, picture.alpha])


def _with_chunks(png: bytes, picture: Picture) -> bytes:
    header_end = len(PNG_SIGNATURE) + 25  # IHDR: length, name, 13 bytes, checksum
    return png[:header_end] + b"".join(_extra_chunks(picture)) + png[header_end:]


def _extra_chunks(picture: Picture) -> Iterator[bytes]:
    if picture.icc is not None and not picture.grey:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.icc))
    if picture.exif is not None:
        yield _chunk(b"eXIf", picture.exif)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
