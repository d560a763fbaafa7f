"""Tells a whole camera file from a cut or garbled one by its own structure, without decoding it.

The size that the body tells is no proof: firmware has told wrong ones, and a transfer that ends where the body said
it would is then accepted. A JPEG ends with its end marker; the boxes of a QuickTime or MP4 movie fill it exactly.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_TAIL_BYTES = 65536
"""Some bodies pad their JPEG files up to the next block of the card."""
_JPEG_SUFFIXES, _MOVIE_SUFFIXES = frozenset({".jpg", ".jpeg"}), frozenset({".mov", ".mp4", ".m4v"})
_BOX, _LARGE_SIZE = struct.Struct(">I4s"), struct.Struct(">Q")


def damage_of(path: Path, suffix: str) -> str:
    """Say what is wrong with a file.

    Args:
        path: The file.
        suffix: Of its name on the card; kinds other than JPEG and movies are not looked into.

    Returns:
        Plain words, empty for a file that is whole.
    """
    if suffix.lower() in _JPEG_SUFFIXES:
        return jpeg_damage(path.read_bytes())
    return _movie_damage(path) if suffix.lower() in _MOVIE_SUFFIXES else ""


def jpeg_damage(content: bytes) -> str:
    """Say what is wrong with a JPEG picture, empty for a whole one."""
    if not content.startswith(_JPEG_START):
        return "it is no JPEG picture"
    return "" if _JPEG_END in content[-_TAIL_BYTES:] else "the JPEG picture is cut off"


def _movie_damage(path: Path) -> str:
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        boxes = list(_boxes(file, size_bytes))
    end = boxes[-1][1] if boxes else -1
    if end != size_bytes:
        return f"the movie is cut off or garbled after {max(boxes[-1][0] if boxes else 0, 0)} bytes"
    return "" if any(kind == b"moov" for _, _, kind in boxes) else "the movie has no index (moov)"


def _boxes(file: BinaryIO, size_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield begin, end and kind of the outermost boxes; the last one may end beyond the file."""
    begin = 0
    while begin < size_bytes:
        file.seek(begin)
        head = file.read(_BOX.size + _LARGE_SIZE.size)
        if len(head) < _BOX.size:
            yield begin, -1, b""
            return
        length, kind = _BOX.unpack_from(head)
        if length == 1 and len(head) == _BOX.size + _LARGE_SIZE.size:
            (length,) = _LARGE_SIZE.unpack_from(head, _BOX.size)
        end = size_bytes if length == 0 else begin + length
        yield begin, end, kind
        if end <= begin:
            return
        begin = end
