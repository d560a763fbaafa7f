"""Read tile packs: random crops of pairs, from this machine or from a store; `catalog.tile_format` describes the bytes.

From a store a crop is some ranged reads that are asked for at once; the index is kept here, in memory that processes
share.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalog.byte_source import ByteSource, FarFile, LocalFile
from catalog.far_store import FarStore, is_url
from catalog.near_cache import near_copy
from catalog.tile_format import (
    CHANNELS,
    FOOTER,
    HEADER_BYTES,
    INDEX_HEAD,
    MAGIC,
    Samples,
    ShardTables,
    TileGeometry,
    TilePackError,
    padded,
    read_header,
    row_digest,
    undo_differences,
)

if TYPE_CHECKING:
    from zstandard import ZstdDecompressor


@dataclass(frozen=True, eq=False)
class TileCrop:
    """The same window of both images of a pair."""

    gt: Samples
    """``(H, W, 3)`` RGB, uint8 or uint16."""
    lq: Samples
    mask: NDArray[np.uint8] | None
    """``(H, W)``, 255 where the pair is to be trusted; None where all of it is."""


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
        self.header, body = read_header(index, self._location)
        tables = ShardTables.within(memoryview(index)[body:], self.header, self._location)
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
            StoreError: The store that holds them does not answer.
        """
        return self.crops(entry, [(top, left)], height, width)[0]

    def crops(
        self, entry: int, corners: Sequence[tuple[int, int]], height: int, width: int
    ) -> list[TileCrop]:
        """Read windows of one size at several ``(top, left)``, asking for all their bytes at once; raises as `crop`."""
        of = self.geometry(entry)
        side = of.tile_px
        blocks = [_tiles_of(of, top, left, height, width) for top, left in corners]
        spans = [[self._spans(entry, of, row, columns) for row in rows] for rows, columns in blocks]
        parts = iter(self._read([(row[0], row[-1]) for block in spans for row in block]))
        crops = []
        for (top, left), (rows, columns), block in zip(corners, blocks, spans, strict=True):
            tiles = self._decoded(of, len(columns), block, [next(parts) for _ in rows])
            corner = (top - rows.start * side, left - columns.start * side)
            crops.append(_assemble(tiles, of, corner, (height, width)))
        return crops

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
        if first_row + of.rows > len(self._digests):
            raise self._damaged("its index points nowhere")
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

    def _decoded(
        self, of: TileGeometry, columns: int, spans: Sequence[list[int]], parts: Sequence[bytes]
    ) -> Samples:
        """Return tiles as ``(rows, columns, tile_px, row_samples)``."""
        shape = (len(parts), columns, of.tile_px, of.row_samples)
        if self.header.codec == "raw":
            if any(span[-1] - span[0] != columns * of.tile_bytes for span in spans):
                raise self._damaged("a tile has not its size")
            return np.frombuffer(b"".join(parts), of.dtype).reshape(shape)
        packed = np.empty((len(parts), columns, of.tile_bytes), np.uint8)
        for into, part, span in zip(packed, parts, spans, strict=True):
            self._decompress(into, memoryview(part), span)
        return undo_differences(packed, of, shape)

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
        index_bytes = INDEX_HEAD.size + len(padded(self.header.as_bytes())) + self.header.index_bytes
        if len(footer) != FOOTER.size or FOOTER.unpack(footer) != (end - FOOTER.size - index_bytes, MAGIC):
            raise self._damaged("its end is not that of a shard with this index")
        if not head.startswith(MAGIC):
            raise self._damaged("it does not begin as a shard does")

    def _damaged(self, what: str) -> TilePackError:
        return TilePackError(
            f"{self._location}: {what}", kept="the shard, untouched", next_step="export the pack again"
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


def _tiles_of(of: TileGeometry, top: int, left: int, height: int, width: int) -> tuple[range, range]:
    """Return the rows and the columns of tiles that a window touches."""
    inside = min(top, left) >= 0 and top + height <= of.height and left + width <= of.width
    if not inside or min(height, width) < 1:
        raise ValueError(f"window {width}x{height}+{left}+{top} leaves a picture of {of.width}x{of.height}")
    side = of.tile_px
    rows = range(top // side, (top + height - 1) // side + 1)
    return rows, range(left // side, (left + width - 1) // side + 1)


def _assemble(tiles: Samples, of: TileGeometry, corner: tuple[int, int], size: tuple[int, int]) -> TileCrop:
    top, left = corner
    colours = of.tile_px * CHANNELS
    gt, lq = (
        _plane(tiles[..., k * colours : (k + 1) * colours], of.tile_px, top, left, (*size, CHANNELS))
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


def _open(location: str) -> tuple[ByteSource, mmap.mmap]:
    """Open a shard and map its index into memory."""
    try:
        if is_url(location):
            folder, _, name = location.rpartition("/")
            far = FarStore(folder)
            source: ByteSource = FarFile(far, name)
            index = near_copy(far, Path(name).with_suffix(".index").name)
        else:
            source, index = LocalFile(Path(location)), Path(location).with_suffix(".index")
        with index.open("rb") as file:
            return source, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise TilePackError(
            f"{location}: cannot be opened ({error})", next_step="export the pack again"
        ) from error
