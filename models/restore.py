"""Restore pictures of any size with bounded memory: overlapping tiles, feathered into each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.errors import InvalidDocumentError
from models.base import Restorer
from models.checkpoint import load
from models.data import to_unit
from models.errors import ModelError, NoPairsError
from models.images import Pixels, read_picture, write_png

if TYPE_CHECKING:
    from catalog.console import Console

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Networks with global pooling see one tile at a time, so tiles are as large as memory allows: up to
    `tile_px` on both sides a picture is restored in one piece.
    """

    tile_px: int = 1536
    """Largest side of a tile."""
    overlap_px: int = 64
    """How far neighbouring tiles overlap; they are blended linearly over it."""

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap_px < self.tile_px:
            raise ValueError(
                f"overlap of {self.overlap_px} px needs tiles larger than twice that, not {self.tile_px}"
            )


def restore_pixels(
    model: Restorer, lq: Pixels, *, device: torch.device, tiling: Tiling | None = None
) -> Pixels:
    """Restore one ``(H, W, 3)`` RGB picture; the result has its size and depth (uint8 or uint16)."""
    restored = restore_tiled(model, lq, device=device, tiling=tiling or Tiling())
    full_scale = 255 if lq.dtype == np.uint8 else 65535
    pixels: Pixels = np.rint(restored * full_scale).astype(lq.dtype)
    return pixels


def restore_tiled(
    model: Restorer, lq: Pixels, *, device: torch.device, tiling: Tiling
) -> NDArray[np.float32]:
    """Restore a picture into ``(H, W, 3)`` float32 in [0, 1]."""
    height, width = lq.shape[:2]
    rows = list(tile_spans(height, tiling))
    columns = list(tile_spans(width, tiling))
    if len(rows) == len(columns) == 1:
        return _restore_piece(model, lq, device)
    total = np.zeros((height, width, 3), np.float32)
    for row in rows:
        for column in columns:
            piece = _restore_piece(model, lq[row.slice, column.slice], device)
            total[row.slice, column.slice] += (
                piece * row.weights[:, None, None] * column.weights[None, :, None]
            )
    return total.clip(0, 1)


@dataclass(frozen=True)
class TileSpan:
    """One tile along one axis."""

    start: int
    weights: NDArray[np.float32]
    """Share of this tile in the result at each of its pixels; over all tiles they sum to one."""

    @property
    def slice(self) -> slice:
        """The pixels it covers."""
        return slice(self.start, self.start + len(self.weights))


def tile_spans(extent: int, tiling: Tiling) -> Iterator[TileSpan]:
    """Cut one axis into equal overlapping tiles, as few as possible, with ramps where they overlap."""
    step = tiling.tile_px - tiling.overlap_px
    count = max(1, -(-(extent - tiling.overlap_px) // step))
    size = min(extent, -(-(extent + (count - 1) * tiling.overlap_px) // count))
    starts = [round(i * (extent - size) / max(1, count - 1)) for i in range(count)]
    ramps = _ramps(size, min(tiling.overlap_px, size)) if count > 1 else np.ones(size, np.float32)
    total = np.zeros(extent, np.float32)
    for start in starts:
        total[start : start + size] += ramps
    for start in starts:
        yield TileSpan(start, ramps / total[start : start + size])


def make_tiling(tile_px: int, overlap_px: int) -> Tiling:
    """Check what a person asked for.

    Raises:
        InvalidDocumentError: The overlap is too large for the tile.
    """
    try:
        return Tiling(tile_px, overlap_px)
    except ValueError as error:
        raise InvalidDocumentError(str(error)) from error


def restore_with_run(
    run: str, images: Sequence[Path], out: Path, *, device: str, tiling: Tiling, console: Console
) -> list[Path]:
    """Restore pictures with a trained model; returns the files written.

    Raises:
        RunNotFoundError: No such run.
        NoPairsError: No pictures, or results that would overwrite something.
        DamagedImageError: A picture cannot be decoded; those before it are written.
    """
    files = find_images(images, out)
    model = load(run, device=device, data=console.data)
    if not isinstance(model, Restorer):
        raise InvalidDocumentError(f"{run}: this model degrades pictures, it restores none")
    written = []
    with console.progress("restoring", len(files)) as done:
        for path in restore_files(model, files, out, device=torch.device(device), tiling=tiling):
            written.append(path)
            done(1)
    return written


def restore_files(
    model: Restorer, files: Iterable[Path], out: Path, *, device: torch.device, tiling: Tiling
) -> Iterator[Path]:
    """Restore files one by one into PNGs of the same stem; yields each as it is written.

    Profile, EXIF with the orientation, alpha and depth of each picture are kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        picture = read_picture(file)
        restored = restore_pixels(model, picture.pixels, device=device, tiling=tiling)
        target = out / f"{file.stem}.png"
        write_png(target, picture.with_pixels(restored))
        yield target


def find_images(paths: Iterable[Path], out: Path) -> list[Path]:
    """List the pictures that were named: files as they are, folders by what lies in them.

    Raises:
        NoPairsError: A path does not exist, a folder holds no picture, or the results would overwrite
            a picture or each other.
    """
    files = [file for path in paths for file in _images_in(path)]
    stems: dict[str, Path] = {}
    for file in files:
        first = stems.setdefault(file.stem, file)
        if first != file:
            raise NoPairsError(
                f"{first} and {file} would both become {file.stem}.png",
                next_step="restore them into two folders",
            )
        if (out / f"{file.stem}.png").resolve() == file.resolve():
            raise NoPairsError(
                f"{file} would be overwritten by its result", next_step="give another -o folder"
            )
    return files


def _images_in(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NoPairsError(f"{path}: no such file or folder")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise NoPairsError(f"{path}: no picture in this folder")
    return found


def _restore_piece(model: Restorer, lq: Pixels, device: torch.device) -> NDArray[np.float32]:
    with torch.inference_mode():
        restored: Tensor = model.restore(to_unit([lq], device))
    if not bool(torch.isfinite(restored).all()):
        raise ModelError(
            "the network returned values that are not finite", next_step="use another checkpoint"
        )
    piece: NDArray[np.float32] = restored[0].permute(1, 2, 0).float().cpu().numpy()
    return piece


def _ramps(size: int, overlap_px: int) -> NDArray[np.float32]:
    # Never zero, so that the sum over the tiles can be divided by at the borders of the picture too.
    distance = np.arange(size, dtype=np.float32) + 0.5
    ramps: NDArray[np.float32] = np.minimum(1, np.minimum(distance, distance[::-1]) / max(1, overlap_px))
    return ramps
