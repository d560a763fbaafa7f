"""Small pictures of written pairs, as data the page carries with it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from catalog.session_folder import PAIRS_FOLDER

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_PX = 320
"""Longest side of a thumbnail."""
DETAIL_SHARE = 2
"""A detail shows every pixel this many times as large as the thumbnail's own pixels."""
MAX_PIXELS = 100_000_000
"""A picture larger than this is not opened: it would be a decompression bomb rather than a frame."""
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
    lift: int
    """How many times brighter the degraded side must be shown to look like the ground truth: 1, 2, 4 or 8."""

    @property
    def cost_bytes(self) -> int:
        """What the four pictures add to the page."""
        return len(self.gt) + len(self.lq) + len(self.gt_detail) + len(self.lq_detail)


def read_pictures(session: Path, pairs: Iterable[str], *, budget_bytes: int) -> dict[str, PairPictures]:
    """Make the pictures of pairs in the order given, until the budget is spent.

    Pairs whose files are missing or unreadable are left out, since the page must appear all the same.

    Args:
        session: The session folder.
        pairs: Names of pairs, most wanted first.
        budget_bytes: What all pictures together may add to the page.

    Returns:
        Pictures by pair; the same for the same files, whatever the number of processors.
    """
    names = list(pairs)
    with ThreadPoolExecutor(_WORKERS) as pool:
        made = list(pool.map(lambda name: _pair_pictures(session / PAIRS_FOLDER, name), names))
    found: dict[str, PairPictures] = {}
    for name, pictures in zip(names, made, strict=True):
        if pictures is not None and pictures.cost_bytes <= budget_bytes:
            budget_bytes -= pictures.cost_bytes
            found[name] = pictures
    return found


def _pair_pictures(folder: Path, name: str) -> PairPictures | None:
    gt, lq = (_open(folder / side / f"{name}.png") for side in ("gt", "lq"))
    if gt is None or lq is None or gt.size != lq.size:
        return None
    box = _detail_box(gt)
    small_gt, small_lq = _thumbnail(gt), _thumbnail(lq)
    lift = _lift(small_gt, small_lq)
    quality = _QUALITY if lift == 1 else _DARK_QUALITY
    return PairPictures(
        *small_gt.size,
        gt=_address(small_gt),
        lq=_address(small_lq, quality),
        gt_detail=_address(gt.crop(box)),
        lq_detail=_address(lq.crop(box), quality),
        lift=lift,
    )


def _open(path: Path) -> Image | None:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return None
            return picture.convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _thumbnail(picture: Image) -> Image:
    from PIL import Image

    scale = min(1.0, THUMBNAIL_PX / max(picture.size))
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    return picture.resize(size, Image.Resampling.BOX)


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
    picture.save(out, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
