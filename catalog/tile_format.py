"""The bytes of a tile pack: pairs cut into small tiles, so that a random crop costs one positioned read a tile row.

A pack is a run of shards, each ``NAME.tiles`` with ``NAME.index`` beside it::

    NAME.tiles   magic, JSON header, padding to 4096 bytes │ tiles │ the bytes of NAME.index │ footer
    NAME.index   magic, JSON header │ entries │ tile offsets │ digests of tile rows │ thumbnails

A tile holds both images of a pair (and its mask) row by row: ``tile_px`` samples of ground truth, of the degraded
image, of the mask. One read and one decompression therefore bring all that a crop needs. Tiles at the right and
lower edge are filled up by repeating the last column and row. Tiles lie in reading order, pair after pair, so a
crop's tiles of one row are neighbours. All numbers are little-endian.

Codec ``zstd``: every row but the first is replaced by its difference to the row above, modulo the sample's range
(16-bit samples are then split into low and high bytes), and compressed with zstandard, whose own checksum finds
damage. Codec ``raw``: the samples as they are; `TileShard.verify` compares the digests. Both are lossless.
"""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from catalog.errors import DamagedDataError
from catalog.yaml_document import Document

MAGIC = b"cleanplate-tiles"
HEADER_BYTES = 4096
FOOTER = struct.Struct("<Q16s")
"""Where the index begins in the shard, and the magic."""
INDEX_HEAD = struct.Struct("<16sQ")
"""Magic and length of the JSON header that follows."""
ENTRY = np.dtype(
    [
        ("first_tile", "<u8"),
        ("first_row", "<u8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("bits", "<u2"),
        ("masked", "<u2"),
        ("reserved", "<u4"),
    ]
)
DIGEST_BYTES = 16
THUMBNAIL_PX = 32
_THUMBNAIL_BYTES = THUMBNAIL_PX * THUMBNAIL_PX * 3
CHANNELS = 3

Codec = Literal["raw", "zstd"]
Samples = NDArray[Any]
"""uint8 or uint16."""


class TilePackError(DamagedDataError):
    """A tile pack is damaged, cut short or not one of ours."""

    code = "CAT-TIL-001"


class ShardHeader(Document):
    """What stands at the beginning of a shard and of its index."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    tile_px: int = Field(ge=16, le=1024)
    codec: Codec
    ids: tuple[str, ...]
    """The pairs of this shard, in order."""
    tiles: int = Field(ge=0)
    rows: int = Field(ge=0)
    """Tile rows of all pairs."""

    def as_bytes(self) -> bytes:
        """Give the canonical JSON text."""
        return json.dumps(self.model_dump(by_alias=True), separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def index_bytes(self) -> int:
        """Bytes of the four tables that follow the header in the index."""
        tables = len(self.ids) * (ENTRY.itemsize + _THUMBNAIL_BYTES)
        return tables + (self.tiles + 1) * 8 + self.rows * DIGEST_BYTES


@dataclass(frozen=True)
class TileGeometry:
    """How one pair's tiles are laid out."""

    width: int
    height: int
    bits: int
    masked: bool
    tile_px: int

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width // self.tile_px)

    @property
    def rows(self) -> int:
        """Tile rows."""
        return -(-self.height // self.tile_px)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Sample type."""
        return np.dtype("<u2" if self.bits == 16 else "u1")

    @property
    def row_samples(self) -> int:
        """Samples of one pixel row of a tile: ground truth, degraded image, mask."""
        return self.tile_px * (2 * CHANNELS + int(self.masked))

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile before compression."""
        return self.tile_px * self.row_samples * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class ShardTables:
    """The tables of an index, as views of its bytes."""

    entries: NDArray[Any]
    offsets: NDArray[np.uint64]
    digests: NDArray[np.uint8]
    thumbnails: NDArray[np.uint8]

    @classmethod
    def within(cls, body: memoryview, header: ShardHeader, name: str) -> ShardTables:
        """Find the tables in what follows an index's header; raises TilePackError where the length is wrong."""
        pairs = len(header.ids)
        if len(body) != header.index_bytes:
            raise TilePackError(f"{name}: the index has {len(body)} bytes instead of {header.index_bytes}")
        at = pairs * ENTRY.itemsize
        offsets_end = at + (header.tiles + 1) * 8
        digests_end = offsets_end + header.rows * DIGEST_BYTES
        return cls(
            entries=np.frombuffer(body[:at], ENTRY),
            offsets=np.frombuffer(body[at:offsets_end], "<u8"),
            digests=np.frombuffer(body[offsets_end:digests_end], np.uint8).reshape(-1, DIGEST_BYTES),
            thumbnails=np.frombuffer(body[digests_end:], np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX, 3),
        )


def row_digest(tile_row: bytes) -> bytes:
    """Return the first 16 bytes of the sha256 of a tile row's bytes."""
    import hashlib

    return hashlib.sha256(tile_row).digest()[:DIGEST_BYTES]


def differences(tile: Samples) -> bytes:
    """Replace every row of ``(tile_px, row_samples)`` but the first by its difference to the row above."""
    steps = tile.copy()
    steps[1:] -= tile[:-1]
    if steps.itemsize == 1:
        return steps.tobytes()
    return np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 2).T).tobytes()


def undo_differences(packed: NDArray[np.uint8], of: TileGeometry, shape: tuple[int, ...]) -> Samples:
    """Make tiles of the bytes of `differences`, ``(rows, columns, tile_bytes)``, in the given shape."""
    if of.bits == 16:
        low_high = packed.reshape(*packed.shape[:2], 2, -1)
        packed = np.ascontiguousarray(low_high.swapaxes(2, 3))
    tiles = packed.view(of.dtype).reshape(shape)
    for row in range(1, of.tile_px):
        above, here = tiles[:, :, row - 1], tiles[:, :, row]
        np.add(above, here, out=here)
    return tiles


def padded(text: bytes) -> bytes:
    """Fill a header up to a multiple of eight bytes."""
    return text + b" " * (-len(text) % 8)


def index_head(header: ShardHeader) -> bytes:
    """Give the beginning of an index: magic and header, so long that the tables after it are aligned."""
    text = padded(header.as_bytes())
    return INDEX_HEAD.pack(MAGIC, len(text)) + text


def read_header(index: bytes | mmap.mmap, name: str) -> tuple[ShardHeader, int]:
    """Return the header of an index and where its tables begin; raises TilePackError."""
    try:
        magic, nbytes = INDEX_HEAD.unpack(index[: INDEX_HEAD.size])
        if magic != MAGIC:
            raise ValueError("not a tile index")
        end = INDEX_HEAD.size + nbytes
        return ShardHeader.model_validate_json(index[INDEX_HEAD.size : end]), end
    except (struct.error, ValueError, ValidationError, OverflowError) as error:
        raise TilePackError(f"{name}: its index cannot be read: {error}") from error
