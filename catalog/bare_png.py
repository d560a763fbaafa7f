"""PNG files without what they tell about their maker: text, EXIF (place, camera, owner), times, private chunks."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from catalog.errors import DamagedDataError
from catalog.stored_files import PNG_SIGNATURE, open_no_follow

_KEPT_CHUNKS = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP"}
)
_END = b"\0\0\0\0IEND\xaeB`\x82"
_AROUND = 12
"""Bytes of a chunk beside its body: length, kind, checksum."""
_LOOK_BYTES = 16 << 10
"""More than the pixel chunks that libpng writes (8 KiB), so that the last one begins in a file's last look."""


class DamagedPngError(DamagedDataError, ValueError):
    """A PNG is damaged, cut short, or none at all."""

    code = "CAT-DAM-002"


def bare_png(content: bytes) -> bytes:
    """Return a PNG without text, EXIF, times and private chunks; pixels and colour stay byte for byte.

    Raises:
        DamagedPngError: Not a whole PNG.
    """
    if not content.startswith(PNG_SIGNATURE):
        raise DamagedPngError("not a PNG")
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(content):
        if len(content) - at < _AROUND:
            raise DamagedPngError("the PNG is cut short")
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + _AROUND + length
        chunk = content[at:end]
        if len(chunk) != _AROUND + length or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            raise DamagedPngError("the PNG is damaged")
        if kind in _KEPT_CHUNKS:
            kept.append(chunk)
        at = end
        if kind == b"IEND":
            return b"".join(kept)
    raise DamagedPngError("the PNG is cut short")


def is_bare(path: Path) -> bool:
    """Tell whether `bare_png` would leave a PNG as it is, from its first and last bytes where they are enough.

    Pixel chunks follow each other without a gap, so what stands before the first and after the last is all there is.

    Raises:
        DamagedPngError: Not a whole PNG.
        OSError: The file cannot be read, or a link stands in its place.
    """
    with open_no_follow(path) as file:
        size = os.fstat(file.fileno()).st_size
        begins_bare = _begins_bare(file.read(_LOOK_BYTES))
        if begins_bare:
            file.seek(max(len(PNG_SIGNATURE), size - _LOOK_BYTES))
            if _ends_with_pixels(file.read()):
                return True
        return begins_bare is not False and _only_kept(file, size)


def _begins_bare(head: bytes) -> bool | None:
    """Tell whether only what is kept stands before the pixels; None where the first bytes do not reach that far."""
    if not head.startswith(PNG_SIGNATURE):
        raise DamagedPngError("not a PNG")
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, at)
        if kind == b"IDAT":
            return True
        if kind not in _KEPT_CHUNKS:
            return False
        at += _AROUND + length
    return None


def _ends_with_pixels(tail: bytes) -> bool:
    """Tell whether a pixel chunk that begins in a file's last bytes reaches to its end mark."""
    if not tail.endswith(_END):
        return False
    kind = tail.rfind(b"IDAT", 0, len(tail) - len(_END))
    if kind < 4:
        return False
    length = int.from_bytes(tail[kind - 4 : kind], "big")
    return kind - 4 + _AROUND + length == len(tail) - len(_END)


def _only_kept(file: BinaryIO, size: int) -> bool:
    """Walk from chunk to chunk."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind not in _KEPT_CHUNKS:
            return False
        at += _AROUND + length
        if kind == b"IEND":
            return bool(at == size)
    raise DamagedPngError("the PNG is cut short")
