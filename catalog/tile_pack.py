"""Tile packs: pairs cut into small tiles, so that a random crop costs one positioned read a tile row.

A pack is a run of shards, each ``NAME.tiles`` with ``NAME.index`` beside it::

    NAME.tiles   magic, JSON header, padding to 4096 bytes │ tiles │ the bytes of NAME.index │ footer
    NAME.index   magic, JSON header │ entries │ tile offsets │ digests of tile rows │ thumbnails

A tile holds both images of a pair (and its mask) row by row: ``tile_px`` samples of ground truth, of the degraded
image, of the mask. One read and one decompression therefore bring all that a crop needs. Tiles at the right and
lower edge are filled up by repeating the last column and row. Tiles lie in reading order, pair after pair, so a
crop's tiles of one row are neighbours. All numbers are little-endian.

Codec ``zstd``: every row but the first is replaced by its difference to the row above, modulo the sample's range
(16-bit samples are then split into low and high bytes), and compressed with zstandard, whose own checksum finds
damage. Codec ``raw``: the samples as they are; `verify_shard` compares the digests. Both are lossless.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from catalog.errors import DamagedDataError
from catalog.yaml_document import Document

if TYPE_CHECKING:
    from zstandard import ZstdDecompressor

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
_CHANNELS = 3

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
        return self.tile_px * (2 * _CHANNELS + int(self.masked))

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile before compression."""
        return self.tile_px * self.row_samples * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class TileCrop:
    """The same window of both images of a pair."""

    gt: Samples
    """``(H, W, 3)`` RGB, uint8 or uint16."""
    lq: Samples
    mask: NDArray[np.uint8] | None
    """``(H, W)``, 255 where the pair is to be trusted; None where all of it is."""


class ByteSource(Protocol):
    """A file that is read in pieces; several threads may read at once."""

    nbytes: int

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)``."""


class LocalFile:
    """A `ByteSource` on this machine, read without disturbing the page cache's read-ahead."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.nbytes = os.fstat(self._handle).st_size
        os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)``."""
        return [os.pread(self._handle, end - begin, begin) for begin, end in ranges]

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


class StoredFile:
    """A `ByteSource` in a store that fsspec reaches; the ranges of one crop are asked for at once."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._files, self._path = fsspec.core.url_to_fs(url)
        self.nbytes = int(self._files.size(self._path))

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)``."""
        begins, ends = [r[0] for r in ranges], [r[1] for r in ranges]
        return list(self._files.cat_ranges([self._path] * len(ranges), begins, ends))


class TileShard:
    """One shard, for reading. Threads may share it; a copy sent to another process opens the files anew.

    Args:
        location: Path of ``NAME.tiles``, or its URL.

    Raises:
        TilePackError: Not a shard, cut short, or index and shard do not belong together.
    """

    def __init__(self, location: str | Path) -> None:
        self._location = str(location)
        self._own = threading.local()
        self._source, index = _open(self._location)
        self.header, body = _read_header(index, self._location)
        tables = _Tables.within(memoryview(index)[body:], self.header, self._location)
        self._entries, self._offsets, self._thumbnails = tables.entries, tables.offsets, tables.thumbnails
        self._digests = tables.digests
        self._require_same_index()

    def __reduce__(self) -> tuple[type[TileShard], tuple[str]]:
        return TileShard, (self._location,)

    def __len__(self) -> int:
        return len(self.header.ids)

    def geometry(self, entry: int) -> TileGeometry:
        """Tell how the pair at a place of this shard is laid out."""
        row = self._entries[entry]
        bits = int(row["bits"])
        return TileGeometry(
            int(row["width"]), int(row["height"]), bits, bool(row["masked"]), self.header.tile_px
        )

    def thumbnail(self, entry: int) -> NDArray[np.uint8]:
        """Return the whole degraded image reduced by area to ``(32, 32, 3)``."""
        picture: NDArray[np.uint8] = self._thumbnails[entry]
        return picture

    def crop(self, entry: int, top: int, left: int, height: int, width: int) -> TileCrop:
        """Read the same window of both images.

        Raises:
            ValueError: The window leaves the picture.
            TilePackError: The tiles are damaged.
        """
        of = self.geometry(entry)
        if (
            min(top, left) < 0
            or top + height > of.height
            or left + width > of.width
            or min(height, width) < 1
        ):
            raise ValueError(
                f"window {width}x{height}+{left}+{top} leaves a picture of {of.width}x{of.height}"
            )
        side = of.tile_px
        rows = range(top // side, (top + height - 1) // side + 1)
        columns = range(left // side, (left + width - 1) // side + 1)
        tiles = self._decoded(entry, of, rows, columns)
        return _assemble(tiles, of, top - rows.start * side, left - columns.start * side, (height, width))

    def whole(self, entry: int) -> TileCrop:
        """Read a pair as a whole."""
        of = self.geometry(entry)
        return self.crop(entry, 0, 0, of.height, of.width)

    def verify(self, entry: int) -> None:
        """Compare every tile row of a pair with its digest.

        Raises:
            TilePackError: Names the pair and the tile row.
        """
        of, first_row = self.geometry(entry), int(self._entries[entry]["first_row"])
        for row in range(of.rows):
            spans = self._spans(entry, of, row, range(of.columns))
            if row_digest(self._read([(spans[0], spans[-1])])[0]) != self._digests[first_row + row].tobytes():
                raise TilePackError(
                    f"{self._location}: pair {self.header.ids[entry]}, tile row {row}: the bytes have changed",
                    kept="the shard, untouched",
                    next_step="export the pack again",
                )

    def _spans(self, entry: int, of: TileGeometry, row: int, columns: range) -> list[int]:
        """Where the tiles of one row begin, and where the last of them ends."""
        first = int(self._entries[entry]["first_tile"]) + row * of.columns + columns.start
        spans: list[int] = self._offsets[first : first + len(columns) + 1].tolist()
        sound = len(spans) == len(columns) + 1 and spans == sorted(spans)
        if not sound or spans[0] < HEADER_BYTES or spans[-1] > self._source.nbytes:
            raise self._damaged("its index points nowhere")
        return spans

    def _read(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        parts = self._source.read(ranges)
        if any(len(part) != end - begin for part, (begin, end) in zip(parts, ranges, strict=True)):
            raise self._damaged("it was cut short")
        return parts

    def _decoded(self, entry: int, of: TileGeometry, rows: range, columns: range) -> Samples:
        """Return tiles as ``(rows, columns, tile_px, row_samples)``."""
        spans = [self._spans(entry, of, row, columns) for row in rows]
        parts = self._read([(s[0], s[-1]) for s in spans])
        shape = (len(rows), len(columns), of.tile_px, of.row_samples)
        if self.header.codec == "raw":
            if any(s[-1] - s[0] != len(columns) * of.tile_bytes for s in spans):
                raise self._damaged("a tile has not its size")
            return np.frombuffer(b"".join(parts), of.dtype).reshape(shape)
        packed = np.empty((len(rows), len(columns), of.tile_bytes), np.uint8)
        for into, part, span in zip(packed, parts, spans, strict=True):
            self._decompress(into, memoryview(part), span)
        return _undo_differences(packed, of, shape)

    def _decompress(self, into: NDArray[np.uint8], part: memoryview, span: list[int]) -> None:
        import zstandard

        try:
            for tile, begin, end in zip(into, span, span[1:], strict=False):
                frame = part[begin - span[0] : end - span[0]]
                if zstandard.frame_content_size(frame) != tile.nbytes:  # it would be allocated as it says
                    raise ValueError("it has not a tile's size")
                tile[:] = np.frombuffer(self._decompressor.decompress(frame), np.uint8)
        except (zstandard.ZstdError, ValueError) as error:
            raise self._damaged(f"a tile cannot be decompressed ({error})") from error

    @property
    def _decompressor(self) -> ZstdDecompressor:
        if not hasattr(self._own, "decompressor"):
            import zstandard

            self._own.decompressor = zstandard.ZstdDecompressor()
        decompressor: ZstdDecompressor = self._own.decompressor
        return decompressor

    def _require_same_index(self) -> None:
        end = self._source.nbytes
        footer, head = self._read([(max(end - FOOTER.size, 0), end), (0, min(HEADER_BYTES, end))])
        index_bytes = INDEX_HEAD.size + len(_padded(self.header.as_bytes())) + self.header.index_bytes
        if len(footer) != FOOTER.size or FOOTER.unpack(footer) != (end - FOOTER.size - index_bytes, MAGIC):
            raise self._damaged("its end is not that of a shard with this index")
        if not head.startswith(MAGIC):
            raise self._damaged("it does not begin as a shard does")

    def _damaged(self, what: str) -> TilePackError:
        return TilePackError(
            f"{self._location}: {what}", kept="the shard, untouched", next_step="export the pack again"
        )


@dataclass(frozen=True, eq=False)
class _Tables:
    entries: NDArray[Any]
    offsets: NDArray[np.uint64]
    digests: NDArray[np.uint8]
    thumbnails: NDArray[np.uint8]

    @classmethod
    def within(cls, body: memoryview, header: ShardHeader, name: str) -> _Tables:
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


class TilePack:
    """All shards of a pack, in the order of their names; pairs are counted through.

    Args:
        shards: Locations of the ``.tiles`` files, in order.
        counts: Pairs of each shard, as the export's manifest tells, so that shards open when they are needed.
    """

    def __init__(self, shards: Sequence[str | Path], counts: Sequence[int]) -> None:
        self._locations = [str(shard) for shard in shards]
        self._begins = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])
        self._open: dict[int, TileShard] = {}

    def __reduce__(self) -> tuple[type[TilePack], tuple[list[str], list[int]]]:
        return TilePack, (self._locations, self._counts)

    @cached_property
    def _counts(self) -> list[int]:
        return [int(n) for n in np.diff(self._begins)]

    def __len__(self) -> int:
        return int(self._begins[-1])

    def find(self, ordinal: int) -> tuple[TileShard, int]:
        """Return the shard of a pair, and its place there."""
        if not 0 <= ordinal < len(self):
            raise IndexError(ordinal)
        number = int(np.searchsorted(self._begins, ordinal, side="right")) - 1
        shard = self._open.get(number)
        if shard is None:
            shard = self._open.setdefault(number, TileShard(self._locations[number]))
            if len(shard) != self._counts[number]:
                raise TilePackError(
                    f"{self._locations[number]}: holds {len(shard)} pairs instead of {self._counts[number]}"
                )
        return shard, ordinal - int(self._begins[number])

    def crop(self, ordinal: int, top: int, left: int, height: int, width: int) -> TileCrop:
        """Read the same window of both images of a pair; see `TileShard.crop`."""
        shard, entry = self.find(ordinal)
        return shard.crop(entry, top, left, height, width)


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


def _undo_differences(packed: NDArray[np.uint8], of: TileGeometry, shape: tuple[int, ...]) -> Samples:
    if of.bits == 16:
        low_high = packed.reshape(*packed.shape[:2], 2, -1)
        packed = np.ascontiguousarray(low_high.swapaxes(2, 3))
    tiles = packed.view(of.dtype).reshape(shape)
    for row in range(1, of.tile_px):
        above, here = tiles[:, :, row - 1], tiles[:, :, row]
        np.add(above, here, out=here)
    return tiles


def _assemble(tiles: Samples, of: TileGeometry, top: int, left: int, size: tuple[int, int]) -> TileCrop:
    colours = of.tile_px * _CHANNELS
    gt, lq = (
        _plane(tiles[..., k * colours : (k + 1) * colours], of.tile_px, top, left, (*size, _CHANNELS))
        for k in range(2)
    )
    mask = _plane(tiles[..., 2 * colours :], of.tile_px, top, left, (*size, 1)) if of.masked else None
    return TileCrop(gt, lq, None if mask is None else mask[..., 0].astype(np.uint8, copy=False))


def _plane(tiles: Samples, side: int, top: int, left: int, shape: tuple[int, int, int]) -> Samples:
    """Cut a window out of ``(rows, columns, side, side * channels)`` tiles."""
    height, width, channels = shape
    out = np.empty((height, width * channels), tiles.dtype)
    for i, row in enumerate(tiles):
        begin, end = max(i * side - top, 0), min((i + 1) * side - top, height)
        inside = slice(begin + top - i * side, end + top - i * side)
        for j, tile in enumerate(row):
            first, last = max(j * side - left, 0), min((j + 1) * side - left, width)
            across = slice((first + left - j * side) * channels, (last + left - j * side) * channels)
            out[begin:end, first * channels : last * channels] = tile[inside, across]
    return out.reshape(shape)


def _padded(text: bytes) -> bytes:
    return text + b" " * (-len(text) % 8)


def index_head(header: ShardHeader) -> bytes:
    """Give the beginning of an index: magic and header, so long that the tables after it are aligned."""
    text = _padded(header.as_bytes())
    return INDEX_HEAD.pack(MAGIC, len(text)) + text


def _open(location: str) -> tuple[ByteSource, bytes | mmap.mmap]:
    index = location.removesuffix(".tiles") + ".index"
    try:
        if "://" in location:
            source = StoredFile(index)
            return StoredFile(location), source.read([(0, source.nbytes)])[0]
        with Path(index).open("rb") as file:
            return LocalFile(Path(location)), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise TilePackError(
            f"{location}: cannot be opened ({error})", next_step="export the pack again"
        ) from error


def _read_header(index: bytes | mmap.mmap, name: str) -> tuple[ShardHeader, int]:
    """Return the header and where the tables begin."""
    try:
        magic, nbytes = INDEX_HEAD.unpack(index[: INDEX_HEAD.size])
        if magic != MAGIC:
            raise ValueError("not a tile index")
        end = INDEX_HEAD.size + nbytes
        return ShardHeader.model_validate_json(index[INDEX_HEAD.size : end]), end
    except (struct.error, ValueError, ValidationError, OverflowError) as error:
        raise TilePackError(f"{name}: its index cannot be read: {error}") from error
