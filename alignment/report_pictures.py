"""Small pictures of written pairs, as data the page carries with it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from catalog.session_folder import PAIRS_FOLDER

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_PX = 320
"""Longest side of a thumbnail."""
DETAIL_SHARE = 2
"""A detail shows every pixel this many times as large as the thumbnail's own pixels."""
MAX_PIXELS = 100_000_000
"""A picture larger than this is not opened: it would be a decompression bomb rather than a frame."""
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
_GAIN_WINDOW_PX = 25
_DIFFERENCE_GAIN = 2.0
_QUALITY = 74
_DARK_QUALITY = 92  # what is brightened on the page shows its compression more
_WORKERS = 2


@dataclass(frozen=True)
class PairPictures:
    """Both sides of a pair, the whole and a detail in full resolution, as ``data:`` addresses."""

    width: int
    """Width of the thumbnails, px."""
    height: int
    gt: str
    lq: str
    gt_detail: str
    lq_detail: str
    difference: str
    """Grey of 128 plus twice what the degraded side shows beyond the ground truth, gain and offset fitted locally."""
    difference_detail: str
    lift: int
    """How many times brighter the degraded side must be shown to look like the ground truth: 1, 2, 4 or 8."""

    @property
    def cost_bytes(self) -> int:
        """What the pictures add to the page."""
        sides = self.gt, self.lq, self.gt_detail, self.lq_detail, self.difference, self.difference_detail
        return sum(map(len, sides))

    @classmethod
    def of(cls, gt: Image, lq: Image) -> PairPictures:
        """Reduce both sides of a pair, RGB pictures of one size."""
        box = _detail_box(gt)
        small_gt, small_lq = _thumbnail(gt), _thumbnail(lq)
        detail_gt, detail_lq = gt.crop(box), lq.crop(box)
        lift = _lift(small_gt, small_lq)
        quality = _QUALITY if lift == 1 else _DARK_QUALITY
        return cls(
            *small_gt.size,
            gt=_address(small_gt),
            lq=_address(small_lq, quality),
            gt_detail=_address(detail_gt),
            lq_detail=_address(detail_lq, quality),
            difference=_address(difference(small_gt, small_lq)),
            difference_detail=_address(difference(detail_gt, detail_lq)),
            lift=lift,
        )


@dataclass(frozen=True)
class PairCard:
    """One pair to look at."""

    name: str
    pick: str
    """Why it is here, or what became of it."""
    pictures: PairPictures
    facts: tuple[tuple[str, str], ...]
    """Terms and values."""
    overlay: Markup | None = None
    """Drawn over the whole picture."""


def read_pictures(session: Path, pairs: Iterable[str], *, budget_bytes: int) -> dict[str, PairPictures]:
    """Make the pictures of a session's written pairs in the order given, as `read_files` does."""
    folder = session / PAIRS_FOLDER
    files = {name: (folder / "gt" / f"{name}.png", folder / "lq" / f"{name}.png") for name in pairs}
    return read_files(files, budget_bytes=budget_bytes)


def read_files(files: Mapping[str, tuple[Path, Path]], *, budget_bytes: int) -> dict[str, PairPictures]:
    """Make the pictures of pairs in the order given, until the budget is spent.

    Pairs whose files are missing or unreadable are left out, since the page must appear all the same.

    Args:
        files: Ground truth and degraded side by the pair's name, most wanted first.
        budget_bytes: What all pictures together may add to the page.

    Returns:
        Pictures by pair; the same for the same files, whatever the number of processors.
    """
    with ThreadPoolExecutor(_WORKERS) as pool:
        made = list(pool.map(lambda sides: _pair_pictures(*sides), files.values()))
    return within_budget(zip(files, made, strict=True), budget_bytes)


def within_budget(
    made: Iterable[tuple[str, PairPictures | None]], budget_bytes: int
) -> dict[str, PairPictures]:
    """Keep the first pictures that fit into the page together."""
    found: dict[str, PairPictures] = {}
    for name, pictures in made:
        if pictures is not None and pictures.cost_bytes <= budget_bytes:
            budget_bytes -= pictures.cost_bytes
            found[name] = pictures
    return found


def _pair_pictures(gt_file: Path, lq_file: Path) -> PairPictures | None:
    gt, lq = _open(gt_file), _open(lq_file)
    return PairPictures.of(gt, lq) if gt and lq and gt.size == lq.size else None


def _open(path: Path) -> Image | None:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _thumbnail(picture: Image) -> Image:
    from PIL import Image

    scale = min(1.0, THUMBNAIL_PX / max(picture.size))
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.BOX)


def difference(gt: Image, lq: Image) -> Image:
    """Draw what the degraded side shows beyond the ground truth, grey.

    Every part of the ground truth is given the brightness and contrast of the degraded side first (a straight line
    fitted over a window), so that darkness, haze and colour casts do not drown what is out of place.
    """
    import cv2
    from PIL import Image as PillowImage

    clean, worse = (np.asarray(side.convert("L"), np.float32) for side in (gt, lq))

    def mean(plane: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(plane, (_GAIN_WINDOW_PX, _GAIN_WINDOW_PX)), np.float32)

    clean_mean, worse_mean = mean(clean), mean(worse)
    contrast = mean(clean * clean) - clean_mean**2
    gain = (mean(clean * worse) - clean_mean * worse_mean) / (contrast + 4.0)
    usual = np.average(np.clip(gain, 0.0, 1.0), weights=contrast + 1e-3)
    left = (worse - worse_mean - gain * (clean - clean_mean)) / max(float(usual), 0.1)
    return PillowImage.fromarray(np.clip(128 + _DIFFERENCE_GAIN * left, 0, 255).astype(np.uint8))


def _lift(gt: Image, lq: Image) -> int:
    bright, dark = (max(float(np.asarray(side).mean()), 1.0) for side in (gt, lq))
    return int(2 ** np.clip(np.round(np.log2(bright / dark)), 0, 3))


def _detail_box(gt: Image) -> tuple[int, int, int, int]:
    """Choose the window with most structure in the ground truth: there an error would show."""
    scale = min(1.0, THUMBNAIL_PX / max(gt.size))
    width = max(int(gt.width * scale) // DETAIL_SHARE, 1)
    height = max(int(gt.height * scale) // DETAIL_SHARE, 1)
    grey = np.asarray(gt.convert("L"), np.float32)
    rows, columns = gt.height // height, gt.width // width
    tiles = grey[: rows * height, : columns * width].reshape(rows, height, columns, width)
    edges = np.abs(np.diff(tiles, axis=3)).mean(axis=(1, 3)) + np.abs(np.diff(tiles, axis=1)).mean(
        axis=(1, 3)
    )
    row, column = np.unravel_index(int(np.argmax(edges)), edges.shape)
    left, top = int(column) * width, int(row) * height
    return left, top, left + width, top + height


def _address(picture: Image, quality: int = _QUALITY) -> str:
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
