"""Write the shards of a tile pack; `catalog.tile_format` describes the format. The same pairs give the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from catalog.errors import CatalogError, ExitCode
from catalog.session_folder import replace_file, replacing
from catalog.tile_format import (
    ENTRY,
    FOOTER,
    HEADER_BYTES,
    MAGIC,
    THUMBNAIL_PX,
    Codec,
    Samples,
    ShardHeader,
    TileGeometry,
    differences,
    index_head,
    row_digest,
)

ZSTD_LEVEL = 1
"""Higher levels cost much and gain nothing on noise."""


class UnfitPicturesError(CatalogError, ValueError):
    """The pictures of a pair differ in size or depth, so tiles cannot hold both."""

    code = "CAT-TIL-002"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True, eq=False)
class PackPair:
    """What goes into a pack for one pair."""

    id: str
    gt: Samples
    """``(H, W, 3)`` RGB, uint8 or uint16."""
    lq: Samples
    mask: NDArray[np.uint8] | None = None
    """``(H, W)``, 255 where the pair is to be trusted."""

    def __post_init__(self) -> None:
        if self.gt.shape != self.lq.shape or self.gt.dtype != self.lq.dtype or self.gt.ndim != 3:
            raise self._unfit(f"gt is {self.gt.shape} {self.gt.dtype}, lq {self.lq.shape} {self.lq.dtype}")
        if self.gt.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)} or self.gt.shape[2] != 3:
            raise self._unfit("neither 8 nor 16 bits of RGB")
        if self.mask is not None and self.mask.shape != self.gt.shape[:2]:
            raise self._unfit(f"mask is {self.mask.shape}, gt {self.gt.shape}")

    def _unfit(self, why: str) -> UnfitPicturesError:
        return UnfitPicturesError(
            f"pair {self.id}: {why}",
            kept="the shards that were written so far",
            next_step="export without it",
        )


def write_shard(
    path: Path, pairs: Iterable[PackPair], *, codec: Codec, tile_px: int, advance: Callable[[int], object]
) -> None:
    """Write ``NAME.tiles`` and ``NAME.index``, durable before they get their names.

    Args:
        path: Where ``NAME.tiles`` is to stand.
        pairs: In order; taken one at a time, so that memory holds one.
        codec: How tiles are stored.
        tile_px: Side of a tile.
        advance: Told the number of pairs done since the last call.
    """
    tables = _Tables()
    with replacing(path) as file:
        front = MAGIC + json.dumps({"schema": 1, "tile_px": tile_px, "codec": codec}).encode()
        file.write(front.ljust(HEADER_BYTES))
        tables.offsets.append(HEADER_BYTES)
        compress = _compressor(codec)
        for pair in pairs:
            _write_pair(file, pair, tables, compress, tile_px)
            advance(1)
        index = tables.as_index(codec, tile_px)
        begins = file.tell()
        file.write(index)
        file.write(FOOTER.pack(begins, MAGIC))
        replace_file(path.with_suffix(".index"), index)  # a shard with its name has its index


@dataclass
class _Tables:
    """What the index will hold."""

    ids: list[str] = field(default_factory=list)
    entries: list[tuple[int, ...]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)

    def add(self, pair: PackPair, of: TileGeometry) -> None:
        self.ids.append(pair.id)
        self.thumbnails.append(_thumbnail(pair.lq).tobytes())
        first = (len(self.offsets) - 1, len(self.digests))
        self.entries.append((*first, of.width, of.height, of.bits, int(of.masked), 0))

    def as_index(self, codec: Codec, tile_px: int) -> bytes:
        header = ShardHeader(
            schema=1,
            tile_px=tile_px,
            codec=codec,
            ids=tuple(self.ids),
            tiles=len(self.offsets) - 1,
            rows=len(self.digests),
        )
        tables = (
            np.array(self.entries, ENTRY).tobytes(),
            np.array(self.offsets, "<u8").tobytes(),
            *self.digests,
            *self.thumbnails,
        )
        return index_head(header) + b"".join(tables)


def _write_pair(
    file: BinaryIO, pair: PackPair, tables: _Tables, compress: Callable[[Samples], bytes], tile_px: int
) -> None:
    height, width = pair.gt.shape[:2]
    of = TileGeometry(width, height, 8 * pair.gt.itemsize, pair.mask is not None, tile_px)
    tables.add(pair, of)
    for row in range(of.rows):
        tiles = [compress(tile) for tile in _tile_row(pair, of, row)]
        ends = tables.offsets[-1] + np.cumsum([len(tile) for tile in tiles])
        tables.offsets.extend(int(end) for end in ends)
        content = b"".join(tiles)
        tables.digests.append(row_digest(content))
        file.write(content)


def _tile_row(pair: PackPair, of: TileGeometry, row: int) -> Samples:
    """Return the tiles of one row, ``(columns, tile_px, row_samples)``."""
    planes: Sequence[Samples] = [pair.gt, pair.lq]
    if pair.mask is not None:
        planes = [*planes, pair.mask[..., None].astype(pair.gt.dtype)]
    side, inside = of.tile_px, slice(row * of.tile_px, (row + 1) * of.tile_px)
    cut = [_filled_up(plane[inside], of.columns * side, side) for plane in planes]
    by_tile = [part.reshape(side, of.columns, -1).swapaxes(0, 1) for part in cut]
    return np.ascontiguousarray(np.concatenate(by_tile, axis=2).astype(of.dtype, copy=False))


def _filled_up(part: Samples, width: int, height: int) -> Samples:
    missing = ((0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0))
    return np.pad(part, missing, mode="edge")


def _compressor(codec: Codec) -> Callable[[Samples], bytes]:
    if codec == "raw":
        return np.ndarray.tobytes
    import zstandard

    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True, write_content_size=True)
    return lambda tile: compressor.compress(differences(tile))


def _thumbnail(lq: Samples) -> Samples:
    import cv2

    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    reduced: Samples = np.asarray(cv2.resize(lq, size, interpolation=cv2.INTER_AREA))
    return reduced if reduced.dtype == np.uint8 else (reduced >> 8).astype(np.uint8)
