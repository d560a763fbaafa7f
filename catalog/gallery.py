"""`catalog gallery`: one offline page that shows what a selection looks like, ground truth beside degraded picture."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.console import plain_text
from catalog.errors import DamagedDataError
from catalog.pair_details import FileDetails, PairDetails
from catalog.selection import PairRow
from catalog.stored_files import open_no_follow

SIDE_PX = 320
"""Longer side of a picture on the page."""
_JPEG_QUALITY = 82
_SIDES = {"gt": "ground truth", "lq": "degraded"}
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Card:
    """One pair on the page."""

    id: str
    class_name: str
    status: str
    reason: str
    facts: str
    width: int
    height: int
    pictures: tuple[tuple[str, str | None, str], ...]
    """Side, data URI or None, and why there is none."""


def render_gallery(cards: Iterable[Card], *, title: str, where: str | None, more: bool = False) -> str:
    """Render the page; equal cards give equal bytes.

    Args:
        cards: Of the pairs to show.
        title: Heading.
        where: The filter that chose them.
        more: Whether other pairs pass it, too.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    by_class = sorted(cards, key=lambda card: (card.class_name, card.id))
    classes = [(name, list(own)) for name, own in groupby(by_class, key=lambda card: card.class_name)]
    environment = Environment(
        loader=PackageLoader("catalog"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: plain_text(value) if isinstance(value, str) else value,
        trim_blocks=True,
    )
    template = environment.get_template("gallery.html.j2")
    return template.render(title=title, where=where, more=more, shown=len(by_class), classes=classes)


def gallery_cards(pairs: Iterable[PairDetails], advance: Advance = lambda _: None) -> Iterator[Card]:
    """Make the cards of pairs; a picture that is missing or damaged is said to be, and is no error."""
    for details in pairs:
        yield _card(details)
        advance(1)


def _card(details: PairDetails) -> Card:
    pair = details.pair
    width, height = _reduced_size(pair.width or 1, pair.height or 1)
    pictures = tuple((name, *_picture(details.files.get(side))) for side, name in _SIDES.items())
    return Card(
        pair.id, pair.degradation_class, pair.status, pair.reason, _facts(pair), width, height, pictures
    )


def _facts(pair: PairRow) -> str:
    facts = [pair.scene, pair.split]
    if pair.iso is not None:
        facts.append(f"ISO {pair.iso}")
    if pair.residual_px is not None:
        facts.append(f"residual {pair.residual_px:.3f} px")
    return " · ".join(facts)


def _picture(file: FileDetails | None) -> tuple[str | None, str]:
    if file is None:
        return None, "no picture was written"
    try:
        return _data_uri(_reduced(Path(file.path))), ""
    except (OSError, DamagedDataError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it cannot be decoded"
        return None, f"{Path(file.path).name}: {problem}"


def _reduced(path: Path) -> NDArray[np.uint8]:
    """Read a picture and reduce it by area to BGR of 8 bits."""
    import cv2

    with open_no_follow(path) as file:
        content = np.frombuffer(file.read(), np.uint8)
    try:
        decoded: NDArray[Any] | None = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # it declares more pixels than OpenCV takes
        decoded = None
    if decoded is None:
        raise DamagedDataError(f"{path}: cannot be decoded")
    height, width = decoded.shape[:2]
    reduced = cv2.resize(decoded, _reduced_size(width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.uint8)


def _reduced_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, SIDE_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    import cv2

    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise DamagedDataError("a reduced picture cannot be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
