"""The page of an evaluation: its scores, and degraded, restored and reference of a few pairs of every class.

The page needs no network and runs nothing: pictures lie in it, names are escaped, a policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.console import plain_text
from catalog.manifest import ManifestRow
from catalog.page_pictures import jpeg_uri, reduced
from catalog.records import degradation_key
from models.data import Pair, evenly
from models.images import Pixels
from models.metrics import psnr_db, to_8_bit

SHOWN_PER_CLASS = 3
WHOLE_WIDTH_PX = 420
DETAIL_PX = 280
"""Side of the middle part that is shown pixel by pixel."""
_JPEG_QUALITY = 88


@dataclass(frozen=True)
class ScoreTable:
    """The words and numbers of the page."""

    title: str = "Restored pictures"
    lead: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    """Cells of each line, its name first."""


@dataclass(frozen=True)
class ShownPicture:
    """One picture of a pair on the page."""

    name: str
    psnr_db: float | None
    """Against the reference, None for the reference itself."""
    gain_db: float | None
    """Over the degraded input; None for that itself and for the reference."""
    whole: str
    detail: str
    """Both as data URIs."""


@dataclass(frozen=True)
class ShownPair:
    """One pair on the page."""

    id: str
    degradation_class: str
    pictures: tuple[ShownPicture, ...]


class ScoreSheet:
    """Collects the pictures of a few pairs while they are scored.

    Which pairs are shown is decided before anything is scored, so a sheet cannot flatter.

    Args:
        rows: The pairs that will be scored.
    """

    def __init__(self, rows: Sequence[ManifestRow]) -> None:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            groups[degradation_key(row.degradations)].append(index)
        chosen = (evenly(indices, SHOWN_PER_CLASS) for indices in groups.values())
        self._wanted = {rows[i].id for indices in chosen for i in indices}
        self._shown: list[ShownPair] = []

    def add(self, pair: Pair, pictures: Mapping[str, Pixels]) -> None:
        """Take a pair in, if it is one of those to be shown."""
        if pair.row.id not in self._wanted:
            return
        scores = {name: psnr_db(p, pair.gt, mask=pair.mask) for name, p in pictures.items()}
        shown = [_shown(name, p, scores[name], _gain(scores, name)) for name, p in pictures.items()]
        shown.append(_shown("reference", pair.gt, None, None))
        self._shown.append(ShownPair(pair.row.id, degradation_key(pair.row.degradations), tuple(shown)))

    def render(self, scores: ScoreTable | None = None) -> str:
        """Return the page; equal for equal content."""
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup

        environment = Environment(
            loader=PackageLoader("models"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_printable,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        pairs = sorted(self._shown, key=lambda pair: (pair.degradation_class, pair.id))
        style = environment.get_template("score_sheet.css").render()
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        return environment.get_template("score_sheet.html.j2").render(
            pairs=pairs, scores=scores or ScoreTable(), style=Markup(style), style_digest=digest  # noqa: S704  # our own file
        )  # fmt: skip


def _shown(name: str, pixels: Pixels, psnr: float | None, gain: float | None) -> ShownPicture:
    plain = to_8_bit(pixels)
    whole, detail = (jpeg_uri(part, quality=_JPEG_QUALITY) for part in (_reduced(plain), _middle(plain)))
    return ShownPicture(name, psnr, gain, whole, detail)


def _gain(scores: Mapping[str, float], name: str) -> float | None:
    return None if name == "lq" else scores[name] - scores["lq"]


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if width <= WHOLE_WIDTH_PX:
        return pixels
    return reduced(pixels, (WHOLE_WIDTH_PX, max(1, round(height * WHOLE_WIDTH_PX / width))))


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(0, extent - DETAIL_PX) // 2 for extent in pixels.shape[:2])
    return pixels[top : top + DETAIL_PX, left : left + DETAIL_PX]


def _printable(value: Any) -> Any:
    """Drop control and direction-changing characters from names before they are escaped."""
    from markupsafe import Markup

    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return plain_text(value)
