"""`catalog gallery`: one offline page that shows what a selection looks like, ground truth beside degraded picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.console import plain_text
from catalog.errors import DamagedDataError
from catalog.page_pictures import Rgb, jpeg_uri, reduced, reduced_size
from catalog.pair_details import FileDetails, PairDetails
from catalog.selection import PairRow
from catalog.stored_files import open_no_follow

SIDE_PX = 320
"""Longer side of a picture on the page."""
DETAIL_PX = (208, 117)
"""Width and height of the middle part that is shown pixel by pixel: reduced, noise and fine blur are not to be seen."""
_JPEG_QUALITY = 82
_SIDES = {"gt": "ground truth", "lq": "degraded"}
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Side:
    """One picture of a pair on the page."""

    name: str
    whole: str | None = None
    """Data URI of the picture, reduced; None where there is none."""
    detail: str | None = None
    """Data URI of its middle."""
    problem: str = ""
    """Why there is no picture."""


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
    sides: tuple[Side, ...]


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
    return template.render(
        title=title, where=where, more=more, shown=len(by_class), classes=classes, detail=DETAIL_PX
    )


def gallery_cards(pairs: Iterable[PairDetails], advance: Advance = lambda _: None) -> Iterator[Card]:
    """Make the cards of pairs; a picture that is missing or damaged is said to be, and is no error."""
    for details in pairs:
        yield _card(details)
        advance(1)


def _card(details: PairDetails) -> Card:
    pair = details.pair
    width, height = reduced_size(pair.width or 1, pair.height or 1, most_px=SIDE_PX)
    sides = tuple(_side(name, details.files.get(side)) for side, name in _SIDES.items())
    return Card(pair.id, pair.degradation_class, pair.status, pair.reason, _facts(pair), width, height, sides)


def _facts(pair: PairRow) -> str:
    facts = [pair.scene, pair.split]
    if pair.iso is not None:
        facts.append(f"ISO {pair.iso}")
    if pair.residual_px is not None:
        facts.append(f"residual {pair.residual_px:.3f} px")
    return " · ".join(facts)


def _side(name: str, file: FileDetails | None) -> Side:
    if file is None:
        return Side(name, problem="no picture was written")
    path = Path(file.path)
    try:
        rgb = _decoded(path)
        height, width = rgb.shape[:2]
        whole = reduced(rgb, reduced_size(width, height, most_px=SIDE_PX))
        uris = (jpeg_uri(picture, quality=_JPEG_QUALITY) for picture in (whole, _middle(rgb)))
        return Side(name, *uris)
    except (OSError, DamagedDataError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it cannot be decoded"
        return Side(name, problem=f"{path.name}: {problem}")


def _middle(rgb: Rgb) -> Rgb:
    height, width = rgb.shape[:2]
    top, left = (
        max(0, extent - part) // 2 for extent, part in ((height, DETAIL_PX[1]), (width, DETAIL_PX[0]))
    )
    return rgb[top : top + DETAIL_PX[1], left : left + DETAIL_PX[0]]


def _decoded(path: Path) -> Rgb:
    """Read a picture as RGB of 8 bits."""
    import cv2

    with open_no_follow(path) as file:
        content = np.frombuffer(file.read(), np.uint8)
    try:
        decoded: NDArray[Any] | None = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # it declares more pixels than OpenCV takes
        decoded = None
    if decoded is None:
        raise DamagedDataError(f"{path}: cannot be decoded")
    return np.asarray(decoded[..., ::-1], np.uint8)
