"""A page of pictures beside an evaluation: degraded, restored and reference of a few pairs of every class.

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
from catalog.records import degradation_key
from models.data import Pair, evenly
from models.images import Pixels
from models.metrics import psnr_db, to_8_bit

SHOWN_PER_CLASS = 3
WHOLE_WIDTH_PX = 420
DETAIL_PX = 280
"""Side of the middle part that is shown pixel by pixel."""
_JPEG_QUALITY = 88
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem;color:#222;background:#fafaf8}
h2{margin:2rem 0 .3rem}figure{display:inline-block;margin:0 .6rem .8rem 0;vertical-align:top}
figcaption{font-size:13px;color:#555}img{display:block}
"""


@dataclass(frozen=True)
class ShownPicture:
    """One picture of a pair on the page."""

    name: str
    psnr_db: float | None
    """Against the reference, None for the reference itself."""
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
        shown = [_shown(name, p, psnr_db(p, pair.gt, mask=pair.mask)) for name, p in pictures.items()]
        shown.append(_shown("reference", pair.gt, None))
        self._shown.append(ShownPair(pair.row.id, degradation_key(pair.row.degradations), tuple(shown)))

    def render(self) -> str:
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
        digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
        return environment.get_template("score_sheet.html.j2").render(
            pairs=pairs, style=Markup(_STYLE), style_digest=digest  # noqa: S704  # a constant of this file
        )  # fmt: skip


def _shown(name: str, pixels: Pixels, psnr: float | None) -> ShownPicture:
    plain = to_8_bit(pixels)
    return ShownPicture(name, psnr, _data_uri(_reduced(plain)), _data_uri(_middle(plain)))


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[Any]:
    import cv2

    height, width = pixels.shape[:2]
    if width <= WHOLE_WIDTH_PX:
        return pixels
    size = (WHOLE_WIDTH_PX, max(1, round(height * WHOLE_WIDTH_PX / width)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    top, left = (max(0, extent - DETAIL_PX) // 2 for extent in pixels.shape[:2])
    return pixels[top : top + DETAIL_PX, left : left + DETAIL_PX]


def _data_uri(pixels: NDArray[Any]) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def _printable(value: Any) -> Any:
    """Drop control and direction-changing characters from names before they are escaped."""
    from markupsafe import Markup

    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return plain_text(value)
