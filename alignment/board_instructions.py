"""The first page of printed marker boards: how to print them, where to put them, how large a module must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import yaml

from alignment.board_plan import LEAST_MODULE_PX, View, module_mm, reach_mm, readings
from catalog.session_folder import BoardSpec


class Paragraph(NamedTuple):
    """A paragraph and how it is set."""

    style: Literal["title", "head", "text", "code"]
    text: str


_PRINTING = (
    "Print at 100 % (no 'fit to page') on matt paper and measure both rulers of every sheet: 100 mm must be 100.0 mm"
    " within 0.2 mm. Glue each board on something flat and stiff; a board that bends measures wrong. Leave the white"
    " margin of at least one module around it."
)
_SPLIT = (
    "Boards on several sheets: cut along the marks, glue edge to edge along a straight rule, and measure the whole"
    " board afterwards; write the size that you find into square_mm."
)
_PLACES = (
    "Two boards or more, at different heights and at different depths of the scene, near the edges of the picture so"
    " that the cut can leave them out, tilted less than 20 degrees, in view along the whole sweep, in light that no"
    " round takes away. Nothing may move them until the last round is recorded."
)
_MODULES = (
    f"A module, the smallest cell of a marker, must cover {LEAST_MODULE_PX:g} px of the picture, three times the radius"
    " of the defocus and once the length of the motion blur to be decoded. Boards are decoded in the ground-truth round"
    " and followed in the others, so only the ground truth must meet this."
)


def instructions(boards: Sequence[BoardSpec], *, view: View | None, split: bool) -> Iterator[Paragraph]:
    """Yield the page.

    Args:
        boards: The boards that were printed.
        view: Camera that will look at them; without one the page gives rules instead of numbers.
        split: Some of them lie on several sheets.
    """
    yield Paragraph("title", "Marker boards")
    yield Paragraph("head", "Printing")
    yield Paragraph("text", _PRINTING)
    if split:
        yield Paragraph("text", _SPLIT)
    yield Paragraph("head", "Where to put them")
    yield Paragraph("text", _PLACES)
    yield Paragraph("head", "Module size against blur")
    yield Paragraph("text", _MODULES)
    yield from _rules(boards) if view is None else _numbers(boards, view)
    yield Paragraph("head", "For the profile, or for session.yaml")
    for line in boards_yaml(boards).splitlines():
        yield Paragraph("code", line)


def _rules(boards: Sequence[BoardSpec]) -> Iterator[Paragraph]:
    yield Paragraph(
        "text",
        "The focal length f in pixels is the picture's width in px times focal length over sensor width.",
    )
    for number, board in enumerate(boards, start=1):
        side = module_mm(board)
        reach = side / LEAST_MODULE_PX
        text = f"Board {number}: module {side:.2f} mm, large enough up to {reach:.3f} mm times f ({1920 * reach:.0f} mm"
        yield Paragraph("text", f"{text} for f = 1920 px).")


def _numbers(boards: Sequence[BoardSpec], view: View) -> Iterator[Paragraph]:
    yield Paragraph("text", f"On {view.name}, focal length {view.focal_px:.0f} px:")
    yield Paragraph(
        "code", "board   module    distance   in the picture     enough   defocus up to   motion up to"
    )
    for number, board in enumerate(boards, start=1):
        for reading in readings(board, view):
            yield Paragraph(
                "code",
                f"{number:>5}{module_mm(board):>6.1f} mm{reading.distance_mm:>9.0f} mm{reading.module_px:>14.1f} px"
                f"{'yes' if reading.readable else 'no':>11}{reading.blur_radius_px:>11.1f} px r"
                f"{reading.motion_px:>12.1f} px",
            )
    reaches = ", ".join(f"board {i} up to {reach_mm(b, view):.0f} mm" for i, b in enumerate(boards, start=1))
    yield Paragraph("text", f"Large enough in sharp pictures: {reaches}.")


def boards_yaml(boards: Sequence[BoardSpec]) -> str:
    """Return the boards as a profile and `session.yaml` take them."""
    return yaml.safe_dump(
        {"boards": [b.model_dump() for b in boards]}, sort_keys=False, default_flow_style=None, width=200
    )
