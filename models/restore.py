"""Restore pictures of any size with bounded memory: overlapping tiles, feathered into each other.

Models that start from noise get one plane of it per seed, so that a tile starts where the whole picture would, and
the same picture gives the same result every time. Models that average over the picture are told its means
(`models.picture_mean`), for which a picture in tiles is gone through beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catalog.errors import InvalidDocumentError
from models.base import ChoosesRestorer, Restorer, StartsFromNoise
from models.data import to_unit
from models.devices import memory_told
from models.errors import ModelError, NoPairsError, StorageError
from models.images import Pixels, read_picture, write_png
from models.loading import load
from models.noise_field import NoiseField
from models.picture_mean import PictureMeans
from models.precision import Usage
from models.routing import chooser, known_degradations

if TYPE_CHECKING:
    from catalog.console import Console
    from models.ensemble import ExpertChoice

GRID_PX = 32
"""Tiles begin at multiples of this, so that a network that halves the sides up to five times meets the same grid in
a tile as in the whole picture. Small tiles keep to halves of it."""
_LOOKS = 2
"""How often a picture in tiles is looked through for its means before it is restored: after one look tiles of captured
pictures still differ from the whole by up to 3.6 of 255 codes, after two by 0.1."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Networks see one tile at a time, so tiles are as large as memory allows: up to `tile_px` on both sides a picture is
    restored in one piece.
    """

    tile_px: int = 1536
    """Largest side of a tile, more than twice the overlap."""
    overlap_px: int = 64
    """How far neighbouring tiles overlap; they are blended linearly over it."""

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap_px < self.tile_px:
            raise InvalidDocumentError(
                f"overlap of {self.overlap_px} px needs tiles larger than twice that, not {self.tile_px}"
            )


def restore_pixels(
    model: Restorer, lq: Pixels, *, device: torch.device, tiling: Tiling | None = None, seed: int = 0
) -> Pixels:
    """Restore one ``(H, W, 3)`` RGB picture; the result has its size and depth (uint8 or uint16).

    Beside the two pictures no more is held than a row of tiles, and on the device no more than one tile; a model that
    looks at the whole picture first is shown a float32 copy, which is let go of before the first tile.

    Args:
        model: What restores it.
        lq: The picture.
        device: Where the model is.
        tiling: How it is cut.
        seed: Of the noise that some models start from.
    """
    full_scale = np.iinfo(lq.dtype).max
    pixels, top = np.empty_like(lq), 0
    for band in restored_bands(model, lq, device=device, tiling=tiling or Tiling(), seed=seed):
        pixels[top : top + len(band)] = np.rint(band * full_scale)
        top += len(band)
    return pixels


def restored_bands(
    model: Restorer, lq: Pixels, *, device: torch.device, tiling: Tiling, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Yield the restored picture from top to bottom, as far as each row of tiles completes it.

    Args:
        model: What restores it.
        lq: The picture, ``(H, W, 3)`` uint8 or uint16.
        device: Where the model is.
        tiling: How it is cut.
        seed: Of the noise that some models start from.

    Yields:
        ``(rows, W, 3)`` float32 in [0, 1].
    """
    rows, columns = (list(tile_spans(extent, tiling)) for extent in lq.shape[:2])
    tiles = _Tiles(_chosen(model, lq), lq, device, NoiseField(seed))
    if len(rows) * len(columns) > 1:
        tiles.learn_means(list(product(rows, columns)))
    unfinished = np.zeros((0, *lq.shape[1:]), np.float32)
    for row, following in zip_longest(rows, rows[1:]):
        band = np.zeros((len(row.weights), *lq.shape[1:]), np.float32)
        band[: len(unfinished)] = unfinished
        for column in columns:
            piece = tiles.restored(row, column)
            band[:, column.slice] += piece * row.weights[:, None, None] * column.weights[:, None]
        finished = len(band) if following is None else following.start - row.start
        yield band[:finished].clip(0, 1)
        unfinished = band[finished:]


def _chosen(model: Restorer, lq: Pixels) -> Restorer:
    """Let a model look at the whole picture first, which stays in the computer's memory."""
    if not isinstance(model, ChoosesRestorer):
        return model
    with torch.inference_mode():
        return model.restorer_for(to_unit([lq], torch.device("cpu")))


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
    """Cut one axis into overlapping tiles, as few and as equal as the grid lets them, with ramps where they overlap."""
    if extent <= tiling.tile_px:
        yield TileSpan(0, np.ones(extent, np.float32))
        return
    step = _tile_step(extent, tiling)
    starts = range(0, extent - tiling.overlap_px, step)
    sizes = [min(step + tiling.overlap_px, extent - start) for start in starts]
    total = np.zeros(extent, np.float32)
    for start, size in zip(starts, sizes, strict=True):
        total[start : start + size] += _ramps(size, tiling.overlap_px)
    for start, size in zip(starts, sizes, strict=True):
        yield TileSpan(start, _ramps(size, tiling.overlap_px) / total[start : start + size])


def _tile_step(extent: int, tiling: Tiling) -> int:
    """Return the distance of neighbouring tiles: a multiple of the grid, or of a finer one where tiles are small."""
    longest = tiling.tile_px - tiling.overlap_px
    grid = GRID_PX
    while grid > 1 and longest < 2 * grid:
        grid //= 2
    longest -= longest % grid
    count = -(-(extent - tiling.overlap_px) // longest)
    return -(-(extent - tiling.overlap_px) // (count * grid)) * grid


def restore_with_run(
    run: str,
    images: Sequence[Path],
    out: Path,
    *,
    usage: Usage,
    tiling: Tiling,
    console: Console,
    seed: int = 0,
    expert: ExpertChoice | None = None,
    labels: Path | None = None,
) -> list[Path]:
    """Restore pictures with a trained model or an ensemble; returns the files written.

    In an ensemble ``expert`` says how its experts are chosen, by default blindly, and ``labels`` what an oracle knows
    (without it, the manifest of the export that the pictures lie in).

    Raises:
        RunNotFoundError: No such run.
        InvalidDocumentError: The model restores nothing, or cannot choose as was asked.
        NoPairsError: No pictures, or results that would overwrite something.
        DamagedImageError: A picture cannot be decoded; those before it are written.
        StorageError: The disk refused; as before.
    """
    files = find_images(images, out)
    model = load(run, **asdict(usage), data=console.data)
    choose = chooser(model, expert, run=run)
    known = known_degradations(files, labels) if expert == "oracle" else {}
    written: list[Path] = []
    with console.progress("restoring", len(files)) as done:
        for file in files:
            chosen = choose(known.get(file, ()))
            written += restore_files(
                chosen, [file], out, device=torch.device(usage.device), tiling=tiling, seed=seed
            )
            done(1)
    return written


def restore_files(
    model: Restorer,
    files: Iterable[Path],
    out: Path,
    *,
    device: torch.device,
    tiling: Tiling,
    seed: int = 0,
) -> Iterator[Path]:
    """Restore files one by one into PNGs of the same stem; yields each as it is written.

    Profile, EXIF with the orientation, alpha and depth of each picture are kept.

    Raises:
        DamagedImageError: A picture cannot be decoded; those before it are written.
        StorageError: The disk refused; as before.
    """
    for file in files:
        picture = read_picture(file)
        restored = restore_pixels(model, picture.pixels, device=device, tiling=tiling, seed=seed)
        target = out / f"{file.stem}.png"
        with _storing(target):
            out.mkdir(parents=True, exist_ok=True)
            write_png(target, picture.with_pixels(restored))
        yield target


@contextmanager
def _storing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{target}: could not be written: {error.strerror or error}",
            kept="the pictures restored before it",
            next_step="make room or give another -o",
        ) from error


def find_images(paths: Iterable[Path], out: Path) -> list[Path]:
    """List the pictures that were named: files as they are, folders by what lies in them.

    Raises:
        NoPairsError: A path does not exist, a folder holds no picture, or the results would overwrite
            a picture or each other.
    """
    files = [file for path in paths for file in images_in(path)]
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


def images_in(path: Path) -> list[Path]:
    """List a picture as it is, a folder by what lies in it.

    Raises:
        NoPairsError: No such path, or no picture in the folder.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NoPairsError(f"{path}: no such file or folder")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise NoPairsError(f"{path}: no picture in this folder")
    return found


class _Tiles:
    """The tiles of a picture, each restored as a part of the whole: from its noise and by its means."""

    def __init__(self, model: Restorer, lq: Pixels, device: torch.device, noise: NoiseField) -> None:
        self._model, self._lq, self._device, self._noise = model, lq, device, noise
        self._means: PictureMeans | None = None
        self._first: NDArray[np.float32] | None = None

    def learn_means(self, places: Sequence[tuple[TileSpan, TileSpan]]) -> None:
        """Look the picture through for the means that the network asks for, if it asks for any."""
        self._means = PictureMeans()
        first = self.restored(*places[0])
        if not self._means.wanted:
            self._means, self._first = None, first
            return
        for look in range(_LOOKS):
            for row, column in places[look == 0 :]:
                self.restored(row, column)
            self._means.settle()

    def restored(self, row: TileSpan, column: TileSpan) -> NDArray[np.float32]:
        """Restore the tile at a row and a column of tiles, ``(H, W, 3)``."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        lq = self._lq[row.slice, column.slice]
        what = f"a tile of {lq.shape[1]}x{lq.shape[0]} px"
        told = nullcontext() if self._means is None else self._means.of_tile(row.weights, column.weights)
        with torch.inference_mode(), memory_told(what, next_step="make tiles smaller with --tile-px"), told:
            return self._pixels(to_unit([lq], self._device), row.start, column.start)

    def _pixels(self, lq: Tensor, top: int, left: int) -> NDArray[np.float32]:
        if isinstance(self._model, StartsFromNoise):
            noise = torch.from_numpy(self._noise.window(top, left, *lq.shape[-2:])).to(self._device)
            restored = self._model.restore_from(lq, noise)
        else:
            restored = self._model.restore(lq)
        if not bool(torch.isfinite(restored).all()):
            raise ModelError(
                "the network returned values that are not finite", next_step="use another checkpoint"
            )
        pixels: NDArray[np.float32] = restored[0].permute(1, 2, 0).float().cpu().numpy()
        return pixels


def _ramps(size: int, overlap_px: int) -> NDArray[np.float32]:
    # Never zero, so that the sum over the tiles can be divided by at the borders of the picture too.
    distance = np.arange(size, dtype=np.float32) + 0.5
    ramps: NDArray[np.float32] = np.minimum(1, np.minimum(distance, distance[::-1]) / max(1, overlap_px))
    return ramps
