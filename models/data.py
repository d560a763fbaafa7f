"""PairDataset: an export folder as pairs, and CropLoader: an endless, exactly resumable stream of crops.

Pixels stay as the files hold them (8 or 16 bit) until they are on the device: handing floats over costs more
than decoding. The loader's workers are threads, because decoding releases the interpreter and one set of
decoded crops serves all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from catalog.export_reader import ExportReader
from catalog.manifest import ManifestRow, Split
from catalog.manifest_index import ManifestIndex
from catalog.records import degradation_key
from catalog.tile_pack import TileCrop, TilePack, TileShard
from models.base import RestorationBatch
from models.errors import DamagedImageError, NoPairsError, UnfitPairError
from models.images import Pixels, decode_pixels
from models.order import CropOrder, CropSlot

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Turns = Literal["mirror", "all"]
MASK_THRESHOLD = 128
PACK_SUFFIX = ".tiles"
FAR_READERS = 16
"""Threads that read from a store: they wait for the network more than they compute."""
PICTURE_CELLS = 32
"""Side of the reduced whole picture that goes with every crop."""


@dataclass(frozen=True)
class Pair:
    """One pair as its files hold it."""

    row: ManifestRow
    lq: Pixels
    """``(H, W, 3)`` RGB, uint8 or uint16."""
    gt: Pixels
    mask: NDArray[np.bool_] | None
    """``(H, W)``, True where the pair is to be trusted; None where all of it is."""

    @cached_property
    def picture(self) -> Pixels:
        """The whole degraded picture reduced to ``(32, 32, 3)``."""
        return _reduced(self.lq)

    def windows(self, corners: Sequence[tuple[int, int]], side_px: int) -> list[Pair]:
        """Cut the same squares out of everything, at ``(top, left)``; views, no copies."""
        squares = [np.s_[top : top + side_px, left : left + side_px] for top, left in corners]
        return [
            Pair(self.row, self.lq[at], self.gt[at], None if self.mask is None else self.mask[at])
            for at in squares
        ]


@dataclass(frozen=True)
class PackedPair:
    """One pair in a tile pack: only the tiles that a window needs are read."""

    row: ManifestRow
    shard: TileShard
    entry: int

    @property
    def picture(self) -> Pixels:
        """The whole degraded picture reduced to ``(32, 32, 3)``; stored in the pack, 8 bits."""
        return self.shard.thumbnail(self.entry)

    def windows(self, corners: Sequence[tuple[int, int]], side_px: int) -> list[Pair]:
        """Read the same squares of everything, at ``(top, left)``; all their tiles are asked for at once."""
        return [self._pair(crop) for crop in self.shard.crops(self.entry, corners, side_px, side_px)]

    def whole(self) -> Pair:
        """Read the pair as a whole."""
        return self._pair(self.shard.whole(self.entry))

    def _pair(self, crop: TileCrop) -> Pair:
        return Pair(self.row, crop.lq, crop.gt, None if crop.mask is None else crop.mask >= MASK_THRESHOLD)


@dataclass(frozen=True)
class Crop:
    """One training crop, turned and mirrored."""

    row: ManifestRow
    lq: Pixels
    gt: Pixels
    mask: NDArray[np.bool_] | None
    picture: Pixels
    """``(32, 32, 3)``: the whole degraded picture, reduced and turned as the crop is."""


class PairDataset:
    """The pairs of one split of an export, in the manifest's order.

    Args:
        export: Folder that `catalog export` wrote, or the URL of one in a store.
        split: Part to read.

    Raises:
        ManifestError: Not an export, or a damaged manifest.
        NoPairsError: The split is empty; the message says what the export holds instead.
        StoreError: The store cannot be reached.
    """

    def __init__(self, export: Path | str, split: Split) -> None:
        self._files = ExportReader(export)
        self.export = export
        self.rows = self._files.index(split, packed=PACK_SUFFIX)
        if not self.rows:
            raise NoPairsError(
                f"{export}: no pairs in split '{split}' ({_splits_text(self.rows.splits)})",
                next_step="see `catalog split` and `catalog export`, or choose another split",
            )
        self._pack = _pack_of(self._files, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pair:
        """Read one pair.

        Raises:
            DamagedImageError: A file is missing or differs from its recorded checksum.
            UnfitPairError: The images differ in size.
        """
        found = self.open(index)
        return found if isinstance(found, Pair) else found.whole()

    def open(self, index: int) -> Pair | PackedPair:
        """Make a pair ready for windows: decoded where it is a file, found where it lies in a tile pack."""
        row = self.rows[index]
        if self._pack is None:
            return self._read(row)
        shard, entry = self._pack.find(index)
        of = shard.geometry(entry)
        if (shard.header.ids[entry], of.width, of.height) != (row.id, row.width, row.height):
            raise UnfitPairError(
                f"pair {row.id}: pack {row.gt} holds {shard.header.ids[entry]} of {of.width}x{of.height} in its place",
                next_step="export again: manifest and pack are not of one export",
            )
        return PackedPair(row, shard, entry)

    def _read(self, row: ManifestRow) -> Pair:
        lq = self._decoded(row.lq, row.sha256_lq)
        gt = self._decoded(row.gt, row.sha256_gt)
        mask = None if row.mask is None else self._decoded(row.mask)[..., 0] >= MASK_THRESHOLD
        if lq.shape != gt.shape or (mask is not None and mask.shape != gt.shape[:2]):
            raise UnfitPairError(
                f"pair {row.id}: lq is {_size(lq)}, gt is {_size(gt)}"
                + ("" if mask is None else f", mask is {_size(mask)}"),
                next_step="export the pair again; both images and the mask need one size",
            )
        if gt.shape[:2] != (row.height, row.width):
            raise UnfitPairError(
                f"pair {row.id}: the images are {_size(gt)}, the manifest says {row.width}x{row.height}",
                next_step="export the pair again",
            )
        return Pair(row, lq, gt, mask)

    @property
    def is_far(self) -> bool:
        """Whether the export lies in a store."""
        return self._files.is_far

    @property
    def classes(self) -> tuple[str, ...]:
        """The degradation class of each pair."""
        return self.rows.classes

    def require_size(self, smallest_px: int) -> None:
        """Refuse pairs that are smaller than a crop.

        Raises:
            UnfitPairError: Names the first such pair.
        """
        small = np.flatnonzero(self.rows.sizes.min(axis=1) < smallest_px)
        if len(small):
            first = self.rows[int(small[0])]
            raise UnfitPairError(
                f"{len(small)} of {len(self.rows)} pairs are smaller than the patch of {smallest_px} px, "
                f"the first {first.id} with {first.width}x{first.height}",
                next_step="make training.patch_px smaller",
            )

    def spread(self, count: int) -> list[int]:
        """Choose pairs spread evenly over the classes and over each class; the same ones every time."""
        classes = np.asarray(self.classes)
        groups = [np.flatnonzero(classes == name) for name in np.unique(classes)]
        shares = [count // len(groups) + (i < count % len(groups)) for i in range(len(groups))]
        chosen = [evenly(group, share) for group, share in zip(groups, shares, strict=True)]
        return sorted(int(i) for part in chosen for i in part)

    def _decoded(self, name: str, sha256: str | None = None) -> Pixels:
        place = self._files.location(name)
        try:
            data = self._files.read(name)
        except OSError as error:
            raise DamagedImageError(
                f"{place}: cannot be read: {error.strerror}", next_step="export again"
            ) from error
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedImageError(
                f"{place}: the bytes differ from the manifest's checksum", next_step="export again"
            )
        return decode_pixels(data, name=place)


class CropLoader:
    """Endless batches of crops in a `CropOrder`, decoded ahead by threads. A context manager.

    Args:
        dataset: Where the pairs come from.
        order: Which crop comes when.
        batch: Crops per batch.
        patch_px: Side of a crop.
        turns: How crops are laid down: mirrored left to right, or in all eight ways.
        workers: Decoding threads; from a store at least `FAR_READERS`.
        ahead: Decode the next block of crops while the present one is used. Right where training runs on
            another device. Where it runs on the same cores the two would fight over them: every parallel loop of
            the network then waits for the core that is decoding (measured: 0.43 s a step instead of 0.06).
    """

    def __init__(
        self,
        dataset: PairDataset,
        order: CropOrder,
        *,
        batch: int,
        patch_px: int,
        turns: Turns = "all",
        workers: int = 1,
        ahead: bool = False,
    ) -> None:
        dataset.require_size(patch_px)
        self._dataset, self._order = dataset, order
        self._batch, self._patch_px, self._turns = batch, patch_px, turns
        threads = max(workers, FAR_READERS) if dataset.is_far else workers
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._blocks_ahead = int(ahead)
        self._blocks: dict[int, dict[int, Future[list[Crop]]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batches(self, position: int) -> Iterator[list[Crop]]:
        """Yield batches from a position on, counted in crops of this process from the start of training."""
        while True:
            yield [self._crop_at(position + i) for i in range(self._batch)]
            position += self._batch

    def host_batches(self, position: int, *, pinned: bool = False) -> Iterator[HostBatch]:
        """Yield the same batches stacked; with ``ahead`` the next one is made whole by a thread of its own."""
        made = (HostBatch.of(crops, pinned=pinned) for crops in self.batches(position))
        if not self._blocks_ahead:
            yield from made
            return
        with ThreadPoolExecutor(1, "batch") as maker:
            following = maker.submit(next, made)
            while True:
                batch = following.result()
                following = maker.submit(next, made)
                yield batch

    def _crop_at(self, position: int) -> Crop:
        slot = self._order.slot_at(position)
        return self._block(position // self._order.block_size)[slot.decode].result()[slot.crop]

    def _block(self, number: int) -> dict[int, Future[list[Crop]]]:
        for old in [n for n in self._blocks if n < number]:
            del self._blocks[old]
        for n in range(number, number + self._blocks_ahead + 1):
            if n not in self._blocks:
                turns = self._order.decodes_by_need(n)
                self._blocks[n] = {turn: self._pool.submit(self._cut, turn) for turn in turns}
        if not self._blocks_ahead:
            wait(self._blocks[number].values())
        return self._blocks[number]

    def _cut(self, decode: int) -> list[Crop]:
        pair = self._dataset.open(self._order.pair_of(decode))
        draws = [self._draw(pair, CropSlot(decode, crop)) for crop in range(self._order.crops_per_decode)]
        windows = pair.windows([corner for corner, _ in draws], self._patch_px)
        return [_laid_down(pair, window, turn) for window, (_, turn) in zip(windows, draws, strict=True)]

    def _draw(self, pair: Pair | PackedPair, slot: CropSlot) -> tuple[tuple[int, int], Turn]:
        rng = self._order.crop_generator(slot)
        corner = _draw_corner((pair.row.height, pair.row.width), self._patch_px, rng)
        return corner, Turn.draw(rng, self._turns)


@dataclass(frozen=True)
class Turn:
    """One of the eight ways to lay a square down."""

    mirror_x: bool
    mirror_y: bool
    transpose: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, turns: Turns) -> Turn:
        """Draw one of those that are allowed."""
        mirror_x, mirror_y, transpose = (bool(coin) for coin in rng.integers(0, 2, size=3))
        return cls(mirror_x, mirror_y, transpose) if turns == "all" else cls(mirror_x, False, False)

    def apply(self, part: NDArray[Any]) -> NDArray[Any]:
        """Mirror, then transpose; OpenCV moves pixels of three bytes twenty times as fast as NumPy."""
        import cv2

        mirrored = (self.mirror_y, self.mirror_x)
        if any(mirrored):
            part = cv2.flip(part, {(True, False): 0, (False, True): 1, (True, True): -1}[mirrored])
        return np.ascontiguousarray(cv2.transpose(part) if self.transpose else part)


def _laid_down(pair: Pair | PackedPair, window: Pair, turn: Turn) -> Crop:
    mask = None if window.mask is None else turn.apply(window.mask)
    return Crop(pair.row, turn.apply(window.lq), turn.apply(window.gt), mask, turn.apply(pair.picture))


def _pack_of(files: ExportReader, rows: ManifestIndex) -> TilePack | None:
    """Open the tile pack of an export's rows; None where pictures lie as files."""
    if not rows.shards:
        return None
    return TilePack([files.location(shard) for shard in rows.shards], list(rows.shards.values()))


def _draw_corner(size: tuple[int, int], side_px: int, rng: np.random.Generator) -> tuple[int, int]:
    top, left = (int(rng.integers(0, extent - side_px + 1)) for extent in size)
    return top, left


def _reduced(pixels: Pixels) -> Pixels:
    import cv2

    whole: Any = cv2.resize(pixels, (PICTURE_CELLS, PICTURE_CELLS), interpolation=cv2.INTER_AREA)
    reduced: Pixels = whole
    return reduced


@dataclass(frozen=True)
class HostBatch:
    """A batch in the computer's memory, pixels as the files hold them; `to` brings it to the device."""

    lq: Tensor
    """``(B, H, W, 3)`` RGB, uint8 or uint16."""
    gt: Tensor
    picture: Tensor
    """``(B, 32, 32, 3)``."""
    mask: Tensor | None
    """``(B, H, W)`` bool; None where everything is to be trusted."""
    intensity: Tensor
    """``(B, 2)`` float32."""
    ids: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, crops: Sequence[Crop], *, pinned: bool = False) -> Self:
        """Stack crops, in page-locked memory if asked, from which a GPU copies while it computes."""
        import torch

        masks = None
        if any(crop.mask is not None for crop in crops):
            masks = [np.ones(crop.gt.shape[:2], bool) if crop.mask is None else crop.mask for crop in crops]
        strengths = torch.tensor([(crop.row.mu, crop.row.sigma) for crop in crops])
        return cls(
            lq=_stacked([crop.lq for crop in crops], pinned=pinned),
            gt=_stacked([crop.gt for crop in crops], pinned=pinned),
            picture=_stacked([crop.picture for crop in crops], pinned=pinned),
            mask=None if masks is None else _stacked(masks, pinned=pinned),
            intensity=strengths.pin_memory() if pinned else strengths,
            ids=tuple(crop.row.id for crop in crops),
            classes=tuple(degradation_key(crop.row.degradations) for crop in crops),
        )

    def to(self, device: torch.device) -> RestorationBatch:
        """Bring the batch to the device and make it RGB in [0, 1] there; pixels lie channels-last."""
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)[:, None].float()
        return RestorationBatch(
            lq=_in_unit_range(self.lq.to(device, non_blocking=True)),
            gt=_in_unit_range(self.gt.to(device, non_blocking=True)),
            mask=mask,
            picture=_in_unit_range(self.picture.to(device, non_blocking=True)),
            ids=self.ids,
            classes=self.classes,
            intensity=self.intensity.to(device, non_blocking=True),
        )


def to_unit(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Stack ``(H, W, 3)`` pictures of 8 or 16 bit into ``(B, 3, H, W)`` float32 in [0, 1] on the device."""
    return _in_unit_range(_stacked(images, pinned=False).to(device))


def _stacked(arrays: Sequence[NDArray[Any]], *, pinned: bool) -> Tensor:
    import torch

    if len({array.dtype for array in arrays}) > 1:
        arrays = [widen(array) for array in arrays]
    if not pinned:
        return torch.from_numpy(np.stack(arrays))
    kind = torch.from_numpy(arrays[0][:0]).dtype
    buffer = torch.empty(
        (len(arrays), *arrays[0].shape), dtype=kind, pin_memory=True
    )  # torch reuses freed ones
    np.stack(arrays, out=buffer.numpy())
    return buffer


def _in_unit_range(pixels: Tensor) -> Tensor:
    """Turn ``(B, H, W, 3)`` of 8 or 16 bit into ``(B, 3, H, W)`` float32 in [0, 1]."""
    full_scale = 255.0 if pixels.element_size() == 1 else 65535.0
    return pixels.permute(0, 3, 1, 2).float() / full_scale


def widen(pixels: Pixels) -> NDArray[np.uint16]:
    """Express a picture in 16 bits; white stays white."""
    return pixels.astype(np.uint16) * np.uint16(257) if pixels.dtype == np.uint8 else pixels.astype(np.uint16)


def export_digest(export: Path | str) -> str:
    """Return the sha256 of an export's manifest, which names every file's own checksum."""
    return ExportReader(export).digest()


def evenly(items: Sequence[int] | NDArray[np.int64], count: int) -> list[int]:
    """Take ``count`` items at even distances, all of them when there are fewer.

    >>> evenly([0, 1, 2, 3, 4, 5, 6, 7], 2)
    [2, 6]
    """
    if count >= len(items):
        return [int(i) for i in items]
    return [int(items[(2 * k + 1) * len(items) // (2 * count)]) for k in range(count)]


def _splits_text(seen: Mapping[str, int]) -> str:
    counts = (f"{count} in '{split}'" for split, count in sorted(seen.items()))
    return ", ".join(counts) or "the manifest is empty"


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
