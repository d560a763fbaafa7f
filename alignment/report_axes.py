"""Scales, axes and marks of the report's SVG figures.

Own SVG instead of a plotting library: a figure costs a few kilobytes, follows the page's light and dark
colours through classes, and needs neither script nor style attributes, which the content policy forbids.
Everything passes through ElementTree, so text from a session folder cannot become markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from catalog.console import plain_text

Array = NDArray[np.float64]

WIDTH = 480
"""Width of every figure's own coordinates; on a phone they are shown at three quarters."""
LEFT, RIGHT = 52.0, 14.0
"""Margins that leave room for the numbers of an axis."""
INNER = WIDTH - LEFT - RIGHT
SERIES = 8
"""Count of line colours in the style sheet; shapes tell further series apart."""
_CHARACTER_PX = 7.2  # mean advance of the labels in a wide font; too much room is better than too little
_SHAPES = (
    "M{x} {y}m-2.4 0a2.4 2.4 0 1 0 4.8 0a2.4 2.4 0 1 0-4.8 0",
    "M{x} {y}m-2.2-2.2h4.4v4.4h-4.4z",
    "M{x} {y}m0-2.9l2.7 4.8h-5.4z",
    "M{x} {y}m0-3l3 3l-3 3l-3-3z",
    "M{x} {y}m-2.7-1.9h5.4l-2.7 4.8z",
    "M{x} {y}m-2.4-2.4l4.8 4.8m0-4.8l-4.8 4.8",
)


@dataclass(frozen=True)
class Figure:
    """A figure with the sentence below it."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Scale:
    """A linear map from data to figure coordinates."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        """Map one value."""
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)

    def map(self, values: ArrayLike) -> Array:
        """Map an array of any shape."""
        data = np.asarray(values, np.float64)
        return self.start_px + (data - self.low) / (self.high - self.low) * (self.end_px - self.start_px)


@dataclass(frozen=True)
class Box:
    """A rectangle in figure coordinates."""

    left_px: float
    top_px: float
    width_px: float
    height_px: float

    @property
    def right_px(self) -> float:
        """Its right edge."""
        return self.left_px + self.width_px

    @property
    def bottom_px(self) -> float:
        """Its lower edge."""
        return self.top_px + self.height_px


def round_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Choose round numbers inside a range, steps of 1, 2 or 5 times a power of ten.

    >>> round_ticks(0.0, 0.23, about=5)
    [0.0, 0.05, 0.1, 0.15, 0.2]
    """
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(k * step, digits) for k in range(first, last + 1)]


def decade_numbers(low: float, high: float) -> list[tuple[float, str]]:
    """List 1, 2 and 5 times the powers of ten between two logarithms, each with its text.

    >>> decade_numbers(-2.0, -1.0)
    [(-2.0, '0.01'), (-1.699, '0.02'), (-1.301, '0.05'), (-1.0, '0.1')]
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [m * 10.0**power for power in powers for m in (1, 2, 5)]
    return [(round(math.log10(v), 3), f"{v:g}") for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9]


def spread(values: ArrayLike, *, margin: float = 0.05, floor: float = 1e-3) -> tuple[float, float]:
    """Return a range that holds all finite values with a margin; never an empty one."""
    data = np.asarray(values, np.float64)
    data = data[np.isfinite(data)]
    low, high = (float(data.min()), float(data.max())) if data.size else (0.0, 1.0)
    pad = max(margin * (high - low), floor / 2)
    return low - pad, high + pad


class Drawing:
    """One SVG figure with a title and a description for those who do not see it."""

    def __init__(self, name: str, height_px: float, *, title: str, description: str) -> None:
        self.root = ET.Element(
            "svg",
            {
                "viewBox": f"0 0 {WIDTH} {_short(height_px)}",
                "role": "img",
                "class": "figure",
                "aria-labelledby": f"{name}-title {name}-desc",
            },
        )
        self._say("title", f"{name}-title", title)
        self._say("desc", f"{name}-desc", description)

    def _say(self, tag: str, name: str, text: str) -> None:
        ET.SubElement(self.root, tag, {"id": name}).text = plain_text(text)

    def text(self, x_px: float, y_px: float, text: str, css: str = "label", *, anchor: str = "start") -> None:
        """Write a text."""
        place = {"x": _short(x_px), "y": _short(y_px), "class": css, "text-anchor": anchor}
        ET.SubElement(self.root, "text", place).text = plain_text(text)

    def path(self, data: str, css: str) -> None:
        """Draw an SVG path."""
        if data:
            ET.SubElement(self.root, "path", {"d": data, "class": css})

    def rectangle(self, box: Box, css: str, *, tip: str = "") -> None:
        """Draw a rectangle; ``tip`` is what a pointer resting on it shows."""
        element = ET.SubElement(
            self.root,
            "rect",
            {
                "x": _short(box.left_px),
                "y": _short(box.top_px),
                "width": _short(max(box.width_px, 0.0)),
                "height": _short(max(box.height_px, 0.0)),
                "class": css,
            },
        )
        if tip:
            ET.SubElement(element, "title").text = plain_text(tip)

    def legend(self, y_px: float, entries: Sequence[tuple[str, str, str]], *, left_px: float = 48.0) -> float:
        """Write entries of (mark, css, label) in lines; returns the place below the last line.

        A mark is ``line``, ``bar`` or ``dotN`` with the number of a shape.
        """
        x_px = left_px
        for mark, css, label in entries:
            width_px = 30 + _CHARACTER_PX * len(label)
            if x_px > left_px and x_px + width_px > WIDTH - 4:
                x_px, y_px = left_px, y_px + 16
            self._legend_mark(mark, css, x_px, y_px)
            self.text(x_px + 18, y_px, label)
            x_px += width_px
        return y_px + 16

    def _legend_mark(self, mark: str, css: str, x_px: float, y_px: float) -> None:
        if mark == "line":
            self.path(f"M{_short(x_px)} {_short(y_px - 4)}h14", css)
        elif mark == "bar":
            self.rectangle(Box(x_px + 1, y_px - 9, 11, 10), css)
        else:
            self.path(shape(int(mark.removeprefix("dot")), x_px + 7, y_px - 4), css)

    def markup(self) -> Markup:
        """Return the figure as markup; every text in it was escaped on the way."""
        return Markup(ET.tostring(self.root, encoding="unicode"))  # noqa: S704


class Panel:
    """A pair of axes in a drawing."""

    def __init__(self, drawing: Drawing, box: Box, *, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.drawing, self.box = drawing, box
        self.x = Scale(*x, box.left_px, box.right_px)
        self.y = Scale(*y, box.bottom_px, box.top_px)

    def axes(
        self,
        x_label: str,
        y_label: str,
        *,
        y_ticks: int = 4,
        x_numbers: Sequence[tuple[float, str]] | None = None,
    ) -> None:
        """Draw grid, numbers and labels.

        An empty ``x_label`` leaves the numbers below away, zero ``y_ticks`` those beside. ``x_numbers`` are places
        with their texts where the axis is not linear in what it shows.
        """
        box = self.box
        bottom, right = box.bottom_px, box.right_px
        for value in round_ticks(self.y.low, self.y.high, about=y_ticks) if y_ticks else ():
            y = self.y(value)
            self.drawing.path(f"M{_short(box.left_px)} {_short(y)}H{_short(right)}", "grid")
            self.drawing.text(box.left_px - 6, y + 4, _tick(value), "tick", anchor="end")
        linear = [(value, _tick(value)) for value in round_ticks(self.x.low, self.x.high, about=6)]
        for value, text in linear if x_numbers is None else x_numbers:
            x = self.x(value)
            self.drawing.path(f"M{_short(x)} {_short(bottom)}v4", "axis")
            if x_label:
                self.drawing.text(x, bottom + 16, text, "tick", anchor="middle")
        self.drawing.path(f"M{_short(box.left_px)} {_short(bottom)}H{_short(right)}", "axis")
        self.drawing.text(box.left_px, box.top_px - 6, y_label)
        if x_label:
            self.drawing.text(right, bottom + 31, x_label, anchor="end")

    def second_scale(self, label: str, *, factor: float) -> None:
        """Write numbers of ``factor`` times x below those of the axis."""
        bottom = self.box.bottom_px
        for value in round_ticks(self.x.low * factor, self.x.high * factor, about=6):
            self.drawing.text(self.x(value / factor), bottom + 48, _tick(value), "tick", anchor="middle")
        self.drawing.text(self.box.right_px, bottom + 63, label, anchor="end")

    def line(self, x: ArrayLike, y: ArrayLike, css: str) -> None:
        """Draw a polyline through the points, broken where a value is not finite."""
        self.drawing.path(_polyline(self.x.map(x), self._clipped(y)), css)

    def steps(self, edges: ArrayLike, heights: ArrayLike, css: str) -> None:
        """Draw the outline of a histogram."""
        y = np.repeat(np.concatenate([[0.0], np.asarray(heights, np.float64), [0.0]]), 2)[1:-1]
        self.line(np.repeat(np.asarray(edges, np.float64), 2), y, css)

    def bars(self, edges: Sequence[float], heights: Sequence[float], css: str) -> None:
        """Draw the bars of a histogram with the count as a tip on each."""
        for low, high, value in zip(edges[:-1], edges[1:], heights, strict=True):
            if value:
                left, top = self.x(low), self.y(value)
                box = Box(left + 0.5, top, self.x(high) - left - 1, self.y(0) - top)
                self.drawing.rectangle(box, css, tip=f"{value:.0f}")

    def dots(self, x: ArrayLike, y: ArrayLike, css: str, *, kind: int = 0) -> None:
        """Draw a mark of one shape at every point."""
        points = zip(self.x.map(x), self._clipped(y), strict=True)
        self.drawing.path("".join(shape(kind, px, py) for px, py in points), css)

    def ticks(self, x: ArrayLike, top_px: float, height_px: float, css: str) -> None:
        """Draw a comb: a short upright line at every x, ``top_px`` in figure coordinates."""
        comb = "".join(f"M{_short(v)} {_short(top_px)}v{_short(height_px)}" for v in self.x.map(x))
        self.drawing.path(comb, css)

    def band(self, low: float, high: float, css: str) -> None:
        """Shade a range of x."""
        left, right = (min(max(self.x(v), self.box.left_px), self.box.right_px) for v in (low, high))
        self.drawing.rectangle(Box(left, self.box.top_px, right - left, self.box.height_px), css)

    def level_band(self, x: tuple[float, float], y: tuple[float, float], css: str) -> None:
        """Shade a range of x and y."""
        left, top = self.x(x[0]), self.y(y[1])
        self.drawing.rectangle(Box(left, top, self.x(x[1]) - left, self.y(y[0]) - top), css)

    def area(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, css: str) -> None:
        """Shade what lies between two curves, as far as the panel goes."""
        edge = np.concatenate([self._clipped(low), self._clipped(high)[::-1]])
        along = self.x.map(x)
        self.drawing.path(_polyline(np.concatenate([along, along[::-1]]), edge) + "Z", css)

    def rule(self, css: str, *, x: float | None = None, y: float | None = None) -> None:
        """Draw a line across the panel at one x or one y."""
        if x is not None:
            self.drawing.path(
                f"M{_short(self.x(x))} {_short(self.box.top_px)}v{_short(self.box.height_px)}", css
            )
        if y is not None:
            self.drawing.path(
                f"M{_short(self.box.left_px)} {_short(self.y(y))}h{_short(self.box.width_px)}", css
            )

    def _clipped(self, y: ArrayLike) -> Array:
        return self.y.map(np.clip(np.asarray(y, np.float64), self.y.low, self.y.high))


def distribution(values: Array) -> tuple[Array, Array]:
    """Return the steps of an empirical distribution function, in percent; it starts at zero."""
    ordered = np.sort(values)
    share = 100.0 * np.arange(len(ordered) + 1) / len(ordered)
    start = min(0.0, float(ordered[0])) if len(ordered) else 0.0
    return np.concatenate([[start], np.repeat(ordered, 2)]), np.repeat(share, 2)[:-1]


ARROW_GAIN = 20.0
"""How much longer arrows are than the shifts they show, once the picture is shown at `ARROW_WIDTH`."""
ARROW_WIDTH = 320
_ARROW_STEPS_PX = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Doubt:
    """An ellipse of uncertainty about the tip of an arrow, px of the full picture."""

    major_px: float
    """Half of the longer axis."""
    minor_px: float
    turn_deg: float
    """Angle of the longer axis, clockwise from x."""


@dataclass(frozen=True)
class Target:
    """Something that was followed in both pictures, and where their alignment puts it."""

    x_px: float
    y_px: float
    dx_px: float
    dy_px: float
    """Off the place it was followed to."""
    radius_px: float
    """Of the circle that holds it in 95 % of cases."""


def arrows(
    size: tuple[int, int],
    shifts: Sequence[tuple[float, float, float, float]],
    *,
    doubts: Sequence[Doubt] = (),
    targets: Sequence[Target] = (),
    gain: float = ARROW_GAIN,
) -> Markup:
    """Draw shifts as arrows over a picture, enlarged and coloured by length.

    Args:
        size: Width and height of the picture, px.
        shifts: x, y, dx, dy of each, px.
        doubts: One per shift, drawn about its tip on the arrows' scale; none where nothing is known of them.
        targets: Marked by crosses, each with a line to where the alignment puts it, on the arrows' scale.
        gain: Length in px, on a small picture of 320 px, of an arrow for a shift of one pixel in the full one.
    """
    root = ET.Element(
        "svg", {"viewBox": f"0 0 {size[0]} {size[1]}", "class": "overlay", "aria-hidden": "true"}
    )
    head_px, gain = max(size) / 60, gain * max(size) / ARROW_WIDTH
    for (x, y, dx, dy), doubt in zip(shifts, doubts, strict=False):
        _ellipse(root, (x + gain * dx, y + gain * dy), doubt, gain)
    for x, y, dx, dy in shifts:
        length = math.hypot(dx, dy)
        data = _arrow(x, y, gain * dx, gain * dy, head_px=head_px)
        ET.SubElement(root, "path", {"d": data, "class": "halo"})
        ET.SubElement(root, "path", {"d": data, "class": f"e{sum(length > s for s in _ARROW_STEPS_PX)}"})
    for target in targets:
        _target(root, target, head_px, gain)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704


def _target(root: ET.Element, target: Target, arm_px: float, gain: float) -> None:
    """Draw a cross, the circle about it on the arrows' scale, and a line to where the alignment puts it."""
    x, y, radius = target.x_px, target.y_px, gain * target.radius_px
    circle = {"cx": _short(x), "cy": _short(y), "r": _short(radius), "class": "target"}
    ET.SubElement(root, "circle", circle)
    across, down = (f"{way}{_short(2 * arm_px)}" for way in "hv")
    cross = f"M{_short(x - arm_px)} {_short(y)}{across}M{_short(x)} {_short(y - arm_px)}{down}"
    line = f"M{_short(x)} {_short(y)}l{_short(gain * target.dx_px)} {_short(gain * target.dy_px)}"
    ET.SubElement(root, "path", {"d": cross + line, "class": "halo"})
    ET.SubElement(root, "path", {"d": cross + line, "class": "target"})


def _ellipse(root: ET.Element, tip_px: tuple[float, float], doubt: Doubt, gain: float) -> None:
    x, y = map(_short, tip_px)
    axes = {"rx": _short(gain * doubt.major_px), "ry": _short(gain * doubt.minor_px)}
    turned = f"rotate({_short(doubt.turn_deg)} {x} {y})"
    ET.SubElement(root, "ellipse", {"cx": x, "cy": y, **axes, "transform": turned, "class": "doubt"})


def _arrow(x_px: float, y_px: float, dx_px: float, dy_px: float, *, head_px: float) -> str:
    length_px = math.hypot(dx_px, dy_px)
    if length_px < 1:
        return f"M{_short(x_px)} {_short(y_px)}h0"
    ux, uy = dx_px / length_px, dy_px / length_px
    tip_x, tip_y, barb = x_px + dx_px, y_px + dy_px, min(head_px, length_px / 2)
    tip = f"L{_short(tip_x)} {_short(tip_y)}"
    ends = [(tip_x - barb * (ux + k * uy), tip_y - barb * (uy - k * ux)) for k in (0.6, -0.6)]
    wings = "".join(f"M{_short(wing_x)} {_short(wing_y)}{tip}" for wing_x, wing_y in ends)
    return f"M{_short(x_px)} {_short(y_px)}{tip}{wings}"


def shape(kind: int, x_px: float, y_px: float) -> str:
    """Return the path of a small mark; marks differ in shape so that colour is not needed to tell them."""
    return _SHAPES[kind % len(_SHAPES)].format(x=_short(x_px), y=_short(y_px))


def _polyline(x: Array, y: Array) -> str:
    parts, pen = [], "M"
    for px, py in zip(x.tolist(), y.tolist(), strict=True):
        if math.isfinite(px) and math.isfinite(py):
            parts.append(f"{pen}{_short(px)} {_short(py)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _short(value: float) -> str:
    text = f"{value:.1f}"
    return "0" if text in {"0.0", "-0.0"} else text.removesuffix(".0")


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")
