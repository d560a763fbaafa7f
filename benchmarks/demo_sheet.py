"""One picture of what the demo made: degraded, restored and ground truth of a held-out frame per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL_PX = (400, 225)
CROP_PX = (640, 360)
GAP_PX, LABEL_PX = 6, 22
BACKGROUND, INK = (250, 250, 248), (40, 40, 40)
COLUMNS = ("degraded", "restored", "ground truth")


@dataclass(frozen=True)
class SheetRow:
    """Three pictures of the same view."""

    label: str
    degraded: Path
    restored: Path
    ground_truth: Path


def write_sheet(rows: Sequence[SheetRow], path: Path) -> None:
    """Write the sheet as a JPEG: one row per class, the middle of each frame."""
    width = 3 * CELL_PX[0] + 4 * GAP_PX
    height = LABEL_PX + len(rows) * (CELL_PX[1] + LABEL_PX + GAP_PX)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, name in enumerate(COLUMNS):
        draw.text((GAP_PX + column * (CELL_PX[0] + GAP_PX), 3), name, INK, font)
    for number, row in enumerate(rows):
        top = LABEL_PX + number * (CELL_PX[1] + LABEL_PX + GAP_PX)
        for column, source in enumerate((row.degraded, row.restored, row.ground_truth)):
            sheet.paste(_cell(source), (GAP_PX + column * (CELL_PX[0] + GAP_PX), top))
        draw.text((GAP_PX, top + CELL_PX[1] + 3), row.label, INK, font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=85)


def _cell(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    left, top = (picture.width - CROP_PX[0]) // 2, (picture.height - CROP_PX[1]) // 2
    crop = picture.crop((left, top, left + CROP_PX[0], top + CROP_PX[1]))
    return crop.resize(CELL_PX, Image.Resampling.LANCZOS)
