"""Marker boards as a PDF to print: vector squares to scale, rulers that prove the scale, and how to use them.

All black of a sheet is one path, so that no viewer draws hairlines between neighbouring squares. The same boards
give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignment.board_instructions import Paragraph, instructions
from alignment.board_plan import View, check_boards, ids, marker_dictionary, module_mm, modules
from alignment.board_sheets import EDGE_MM, FOOT_MM, Paper, Sheet, lay_out, quiet_mm
from catalog.session_folder import BoardSpec, replace_file

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas

_MM = 72 / 25.4
_FONT, _BOLD = "Helvetica", "Helvetica-Bold"
_STYLES = {"title": (_BOLD, 17), "head": (_BOLD, 11), "text": (_FONT, 10), "code": ("Courier", 8.5)}
_LEADING = 1.35
_A4_MM = 210.0, 297.0
_TOP_MM = 18.0
_PAGE_TEXT_MM = 174.0


class Rectangle(NamedTuple):
    """A black rectangle on a board, mm from the board's top left, y down."""

    x_mm: float
    y_mm: float
    width_mm: float
    height_mm: float


def write_boards(
    boards: Sequence[BoardSpec],
    target: Path,
    *,
    view: View | None = None,
    paper: Paper | None = None,
    split: bool = False,
) -> tuple[Sheet, ...]:
    """Write boards as a PDF, a page of instructions first.

    Args:
        boards: The boards.
        target: The file; an older one is replaced in one step.
        view: Camera that will look at them; without one the instructions give rules instead of numbers.
        paper: Sheet to print on; the smallest A size that holds each board if not given.
        split: Spread boards that do not fit over several sheets.

    Returns:
        The sheets in the order of the pages, after the instructions.

    Raises:
        BoardPrintError: The boards could not be told apart or read, or do not fit the paper.
        OSError: The file cannot be written.
    """
    check_boards(boards)
    sheets = lay_out(boards, paper, split=split)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, render_boards(boards, sheets, view=view))
    return sheets


def render_boards(boards: Sequence[BoardSpec], sheets: Sequence[Sheet], *, view: View | None) -> bytes:
    """Render instructions and sheets; equal bytes for equal boards."""
    from reportlab.pdfgen.canvas import Canvas

    out = io.BytesIO()
    canvas = Canvas(out, invariant=1, pageCompression=1)
    canvas.setTitle("Marker boards")
    canvas.setCreator("cleanplate")
    _draw_instructions(canvas, instructions(boards, view=view, split=not all(s.whole for s in sheets)))
    for sheet in sheets:
        _draw_sheet(canvas, sheet)
    canvas.save()
    return out.getvalue()


def black_rectangles(board: BoardSpec) -> Iterator[Rectangle]:
    """Yield everything black on a board: its dark squares, and the dark modules of its markers in runs."""
    side, margin = board.square_mm, (board.square_mm - board.marker_mm) / 2
    numbers = iter(ids(board))
    for row in range(board.rows):
        for column in range(board.columns):
            if (row + column) % 2 == 0:
                yield Rectangle(column * side, row * side, side, side)
            else:
                yield from _marker(board, next(numbers), column * side + margin, row * side + margin)


def _marker(board: BoardSpec, number: int, x_mm: float, y_mm: float) -> Iterator[Rectangle]:
    count, side = modules(board), module_mm(board)
    dark = marker_dictionary(board).generateImageMarker(number, count) == 0
    for row in range(count):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], dark[row].astype(np.int8), [0]])))
        for start, stop in edges.reshape(-1, 2).tolist():
            yield Rectangle(x_mm + start * side, y_mm + row * side, (stop - start) * side, side)


def _draw_sheet(canvas: Canvas, sheet: Sheet) -> None:
    page = sheet.paper
    canvas.setPageSize((page.width_mm * _MM, page.height_mm * _MM))
    left, top = _place(sheet)
    start = sheet.columns.start * sheet.board.square_mm, sheet.rows.start * sheet.board.square_mm
    path = canvas.beginPath()
    for black in black_rectangles(sheet.board):
        x, y = black.x_mm - start[0], black.y_mm - start[1]
        if -1e-9 <= x < sheet.size_mm[0] - 1e-9 and -1e-9 <= y < sheet.size_mm[1] - 1e-9:
            bottom_mm = page.height_mm - top - y - black.height_mm
            path.rect((left + x) * _MM, bottom_mm * _MM, black.width_mm * _MM, black.height_mm * _MM)
    canvas.setFillGray(0)
    canvas.drawPath(path, stroke=0, fill=1)
    if not sheet.whole:
        _draw_cuts(canvas, sheet, left, top)
    _draw_foot(canvas, sheet)
    canvas.showPage()


def _place(sheet: Sheet) -> tuple[float, float]:
    """Centre the part in the room of its sheet; mm from the sheet's top left."""
    room, size = sheet.paper.room_mm, sheet.size_mm
    return EDGE_MM + (room[0] - size[0]) / 2, EDGE_MM + (room[1] - size[1]) / 2


def _draw_cuts(canvas: Canvas, sheet: Sheet, left_mm: float, top_mm: float) -> None:
    """Mark the edges along which a part meets the next one; the marks stand outside the picture."""
    width, height = sheet.size_mm
    quiet, page = quiet_mm(sheet.board), sheet.paper
    canvas.setLineWidth(0.3)
    for x in (left_mm, left_mm + width):
        for y, end in ((top_mm - quiet, top_mm), (top_mm + height, top_mm + height + quiet)):
            canvas.line(x * _MM, (page.height_mm - y) * _MM, x * _MM, (page.height_mm - end) * _MM)
    for y in (top_mm, top_mm + height):
        for x, end in ((left_mm - quiet, left_mm), (left_mm + width, left_mm + width + quiet)):
            canvas.line(x * _MM, (page.height_mm - y) * _MM, end * _MM, (page.height_mm - y) * _MM)


def _draw_foot(canvas: Canvas, sheet: Sheet) -> None:
    page, board = sheet.paper, sheet.board
    length = 10 * int(min(200.0, page.width_mm - 2 * EDGE_MM - 10) // 10)
    _draw_ruler(canvas, EDGE_MM + 1, EDGE_MM, length, upright=False)
    upright = 10 * int(min(200.0, page.height_mm - 2 * EDGE_MM - FOOT_MM) // 10)
    _draw_ruler(canvas, page.width_mm - EDGE_MM, EDGE_MM + FOOT_MM, upright, upright=True)
    canvas.setFont(_BOLD, 8)
    canvas.drawString((EDGE_MM + 1) * _MM, (EDGE_MM + 15) * _MM, board_label(sheet))
    canvas.setFont(_FONT, 7)
    words = (
        f"{board.columns} x {board.rows} squares of {board.square_mm:g} mm, markers {board.marker_mm:g} mm, module "
        f"{module_mm(board):.2f} mm. Print at 100 %; both rulers must measure true within 0.2 mm in 100."
    )
    canvas.drawString((EDGE_MM + 1) * _MM, (EDGE_MM + 11) * _MM, words)


def board_label(sheet: Sheet) -> str:
    """Name a sheet: its board, its ids and, for a part, which squares it holds."""
    board = sheet.board
    numbers = ids(board)
    label = f"Board {sheet.board_number}: {board.dictionary} markers {numbers[0]} to {numbers[-1]}"
    if sheet.whole:
        return label
    across, down = sheet.columns, sheet.rows
    return f"{label}; columns {across[0] + 1}-{across[-1] + 1}, rows {down[0] + 1}-{down[-1] + 1}"


def _draw_ruler(canvas: Canvas, x_mm: float, y_mm: float, length_mm: int, *, upright: bool) -> None:
    """Draw a scale in mm from a point, to the right or upwards; y from the bottom of the sheet."""
    canvas.setLineWidth(0.25)
    canvas.setFont(_FONT, 5)
    for mark in range(length_mm + 1):
        tick = 4.0 if mark % 10 == 0 else 3.0 if mark % 5 == 0 else 2.0
        x, y = (x_mm, y_mm + mark) if upright else (x_mm + mark, y_mm)
        end = (x - tick, y) if upright else (x, y + tick)
        canvas.line(x * _MM, y * _MM, end[0] * _MM, end[1] * _MM)
        if mark % 50 == 0:
            text = f"{mark} mm" if mark == length_mm else str(mark)
            if upright:
                canvas.drawRightString((x - 4.6) * _MM, (y - 0.6) * _MM, text)
            else:
                canvas.drawCentredString(x * _MM, (y + 4.8) * _MM, text)
    end_mm = (x_mm, y_mm + length_mm) if upright else (x_mm + length_mm, y_mm)
    canvas.line(x_mm * _MM, y_mm * _MM, end_mm[0] * _MM, end_mm[1] * _MM)


def _draw_instructions(canvas: Canvas, paragraphs: Iterable[Paragraph]) -> None:
    from reportlab.lib.utils import simpleSplit

    height_mm = _new_page(canvas)
    y = height_mm - _TOP_MM
    for style, text in paragraphs:
        font, size = _STYLES[style]
        lines = simpleSplit(text, font, size, _PAGE_TEXT_MM * _MM) if style != "code" else [text]
        for line in lines:
            if y < _TOP_MM:
                canvas.showPage()
                y = _new_page(canvas) - _TOP_MM
            canvas.setFont(font, size)
            canvas.drawString(_TOP_MM * _MM, y * _MM, line)
            y -= _LEADING * size / _MM
        y -= 0.5 if style == "code" else 2.0
    canvas.showPage()


def _new_page(canvas: Canvas) -> float:
    width_mm, height_mm = _A4_MM
    canvas.setPageSize((width_mm * _MM, height_mm * _MM))
    return height_mm
