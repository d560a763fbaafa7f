"""PreviewPicture: the camera's picture in half cells; works in every truecolour terminal and over SSH."""

from __future__ import annotations

import base64
import io
import time
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from rig.events import Preview
from rig.tui.situation import GONE_S, Freshness, Situation, freshness
from rig.tui.wording import age_text, data_text

if TYPE_CHECKING:
    from PIL.Image import Image

PERIOD_S = 0.25
_LARGEST_JPEG_PX = 4_000_000
_COARSE = [v & 0xF8 for v in range(256)] * 3
"""Fewer colours make longer runs of one style, and less to send to the terminal."""


class PreviewPicture(Widget):
    """Draws the last preview, or says why there is none; a camera that is gone shows no picture."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  - Textual's name
        super().__init__(id=id)
        self._due_s = float("-inf")
        self._drawn: object = None
        self._rows: list[Strip] = []

    def on_mount(self) -> None:
        """Name the panel."""
        self.border_title = "Camera preview"

    def show(self, situation: Situation) -> None:
        """Draw a situation, if it is time and the picture is another."""
        self.border_subtitle = _label(situation)
        preview = situation.preview if _age_s(situation) <= GONE_S else None
        under = situation.gt_preview if situation.onion_percent else None
        key = (
            id(preview),
            id(under),
            situation.onion_percent,
            self.size,
            "" if preview else _absence(situation),
        )
        now_s = time.monotonic()
        if now_s < self._due_s or key == self._drawn or not self.content_size.area:
            return
        self._due_s, self._drawn = now_s + PERIOD_S, key
        if preview is None:
            self._rows = self._words(_absence(situation))
        else:
            size = (self.content_size.width, self.content_size.height)
            self._rows = half_cells(preview, under, situation.onion_percent, size, self.rich_style)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return one line of the picture."""
        width = self.content_size.width
        blank = Strip.blank(width, self.rich_style)
        return self._rows[y].adjust_cell_length(width, self.rich_style) if y < len(self._rows) else blank

    def _words(self, text: str) -> list[Strip]:
        width, height = self.content_size
        blank = Strip.blank(width, self.rich_style)
        line = Strip([Segment(text[:width].center(width), self.rich_style)])
        return [blank] * max((height - 1) // 2, 0) + [line]


def _age_s(s: Situation) -> float:
    return float("inf") if s.preview is None or s.link != "connected" else s.age_s(s.preview.t_host_s)


def _label(s: Situation) -> str:
    age_s = _age_s(s)
    if s.preview is None or age_s > GONE_S:
        return ""
    stale = "STALE " if freshness(age_s) is not Freshness.FRESH else ""
    skipped = (
        f"  skipped {s.state.preview_skipped}" if s.state is not None and s.state.preview_skipped else ""
    )
    skin = f"  GT onion skin {s.onion_percent} %" if s.onion_percent else ""
    if s.onion_percent and s.gt_preview is None:
        skin = "  no GT picture here yet"
    return f"{data_text(s.preview.camera)}  {stale}age {age_text(age_s)}{skipped}{skin}"


def _absence(s: Situation) -> str:
    if s.link != "connected" or s.state is None:
        return "no picture: no engine"
    gone = [c for c in s.state.cameras.values() if not c.connected]
    if gone:
        return f"✕ camera gone: {data_text(gone[0].text) or 'no answer'}"
    if s.preview is not None:
        return (
            f"no new picture for {age_text(_age_s(s))}"
            if s.mode.value != "running"
            else "recording: no live picture"
        )
    return "recording: no live picture" if s.session_runs else "waiting for the first picture"


def half_cells(
    preview: Preview, under: Preview | None, percent: int, size: tuple[int, int], margin: Style
) -> list[Strip]:
    """Draw a preview in half cells, ``size`` columns and rows at most, its proportions kept.

    Args:
        preview: What the camera sees.
        under: The ground truth to lay over it, None for none.
        percent: Share of the ground truth, 0 to 100.
        size: Columns and rows; a cell is two pixels high.
        margin: Style of what the picture leaves free.
    """
    width, height = size
    picture = _decoded(preview.jpeg_base64)
    if picture is None:
        return [Strip([Segment("the picture cannot be decoded".center(width))])]
    other = None if under is None else _decoded(under.jpeg_base64)
    if other is not None:
        from PIL import Image

        picture = Image.blend(picture, other.resize(picture.size), percent / 100)
    scale = min(width / picture.width, 2 * height / picture.height)
    columns, rows = max(int(picture.width * scale), 1), max(int(picture.height * scale) // 2, 1)
    data = picture.resize((columns, 2 * rows)).point(_COARSE).tobytes()
    left, top = (width - columns) // 2, (height - rows) // 2
    stride = 3 * columns
    lines = (_segments(data[2 * r * stride : (2 * r + 2) * stride], stride) for r in range(rows))
    edges = Segment(" " * left, margin), Segment(" " * (width - left - columns), margin)
    return [Strip.blank(width, margin)] * top + [Strip([edges[0], *line, edges[1]], width) for line in lines]


def _segments(data: bytes, stride: int) -> list[Segment]:
    cells = (data[k : k + 3] + data[stride + k : stride + k + 3] for k in range(0, stride, 3))
    return [Segment("▀" * len(list(run)), _style(pair)) for pair, run in groupby(cells)]


@lru_cache(maxsize=65536)
def _style(pair: bytes) -> Style:
    upper, lower = pair[:3], pair[3:]
    return Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower))


@lru_cache(maxsize=8)
def _decoded(jpeg_base64: str) -> Image | None:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(base64.b64decode(jpeg_base64)), formats=("JPEG",))
        if picture.width * picture.height > _LARGEST_JPEG_PX:
            return None
        return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError):
        return None
