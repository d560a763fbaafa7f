"""Which sheets of paper a marker board takes: one that holds it whole, or several to be glued edge to edge."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from alignment.board_plan import module_mm
from alignment.errors import BoardPrintError
from catalog.session_folder import BoardSpec

EDGE_MM = 8.0
"""What printers cannot reach."""
FOOT_MM = 22.0
"""Room for the label and the ruler along the bottom."""
SIDE_MM = 12.0
"""Room for the upright ruler on the right."""
_LEAST_QUIET_MM = 3.0
_PAPERS_MM = {
    "a4": (210.0, 297.0),
    "a3": (297.0, 420.0),
    "a2": (420.0, 594.0),
    "a1": (594.0, 841.0),
    "a0": (841.0, 1189.0),
    "letter": (215.9, 279.4),
    "tabloid": (279.4, 431.8),
}
_SMALLEST_FIRST = ("a4", "a3", "a2", "a1", "a0")


@dataclass(frozen=True)
class Paper:
    """A sheet, lying or standing."""

    name: str
    width_mm: float
    height_mm: float

    @property
    def turned(self) -> Paper:
        """The same sheet the other way round."""
        return Paper(self.name, self.height_mm, self.width_mm)

    @property
    def room_mm(self) -> tuple[float, float]:
        """Width and height left for a board and the white around it."""
        return self.width_mm - 2 * EDGE_MM - SIDE_MM, self.height_mm - 2 * EDGE_MM - FOOT_MM


@dataclass(frozen=True)
class Sheet:
    """One printed sheet: a board or a part of it, cut between squares."""

    board: BoardSpec
    board_number: int
    paper: Paper
    columns: range
    """Squares of the board across this sheet."""
    rows: range

    @property
    def whole(self) -> bool:
        """The sheet holds the whole board."""
        return len(self.columns) == self.board.columns and len(self.rows) == self.board.rows

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the part."""
        return len(self.columns) * self.board.square_mm, len(self.rows) * self.board.square_mm


def quiet_mm(board: BoardSpec) -> float:
    """Return the white margin that a board needs around it: one module, and some for the scissors."""
    return max(module_mm(board), _LEAST_QUIET_MM)


def parse_paper(text: str) -> Paper | None:
    """Read a paper's name or ``WIDTHxHEIGHT`` in mm; None for ``auto``.

    Raises:
        BoardPrintError: It is neither.
    """
    name = text.strip().lower()
    if name == "auto":
        return None
    if name in _PAPERS_MM:
        return Paper(name.upper() if name.startswith("a") else name, *_PAPERS_MM[name])
    found = re.fullmatch(r"(\d{2,4}(?:\.\d+)?)x(\d{2,4}(?:\.\d+)?)", name)
    if found is None:
        raise BoardPrintError(
            f"'{text}' is no paper size",
            next_step=f"give auto, {', '.join(_PAPERS_MM)}, or a size such as 600x900",
        )
    return Paper(f"{found[1]} x {found[2]} mm", float(found[1]), float(found[2]))


def lay_out(boards: Sequence[BoardSpec], paper: Paper | None, *, split: bool = False) -> tuple[Sheet, ...]:
    """Put every board on a sheet of its own, or on several where that was asked for.

    Args:
        boards: Boards that were checked.
        paper: The paper; None takes the smallest of A4 to A0 that holds the board.
        split: Cut boards that do not fit between squares into several sheets.

    Raises:
        BoardPrintError: A board does not fit; the message says on what it would.
    """
    return tuple(sheet for i, b in enumerate(boards, start=1) for sheet in _sheets(b, i, paper, split=split))


def _sheets(board: BoardSpec, number: int, paper: Paper | None, *, split: bool) -> Iterator[Sheet]:
    whole = range(board.columns), range(board.rows)
    offered = _papers() if paper is None else [paper]
    for candidate in offered:
        fitting = _fitting(board, candidate)
        if fitting is not None:
            yield Sheet(board, number, fitting, *whole)
            return
    if not split:
        raise _does_not_fit(board, number, offered[-1])
    chosen = min((offered[-1], offered[-1].turned), key=lambda p: _part_count(board, number, p))
    across, down = _parts(board, number, chosen)
    for rows in down:
        for columns in across:
            yield Sheet(board, number, chosen, columns, rows)


def _papers() -> list[Paper]:
    return [Paper(name.upper(), *_PAPERS_MM[name]) for name in _SMALLEST_FIRST]


def _fitting(board: BoardSpec, paper: Paper) -> Paper | None:
    width, height = _need_mm(board)
    for candidate in (paper.turned, paper):
        room = candidate.room_mm
        if width <= room[0] + 1e-6 and height <= room[1] + 1e-6:
            return candidate
    return None


def _need_mm(board: BoardSpec) -> tuple[float, float]:
    margin = 2 * quiet_mm(board)
    return board.columns * board.square_mm + margin, board.rows * board.square_mm + margin


def _does_not_fit(board: BoardSpec, number: int, paper: Paper) -> BoardPrintError:
    width, height = _need_mm(board)
    larger = next((p.name for p in _papers() if _fitting(board, p)), None)
    share, room = max(
        (min(p.room_mm[0] / width, p.room_mm[1] / height), p.room_mm) for p in (paper, paper.turned)
    )
    side_mm = math.floor(10 * board.square_mm * share) / 10
    ways = [f"--paper {larger}"] if larger else []
    ways += [f"squares of at most {side_mm:.1f} mm", "--split to glue several sheets"]
    return BoardPrintError(
        f"board {number} takes {width:.0f} x {height:.0f} mm with its white margin; {paper.name} has room for"
        f" {room[0]:.0f} x {room[1]:.0f} mm",
        kept="nothing written",
        next_step=" or ".join(ways),
    )


def _part_count(board: BoardSpec, number: int, paper: Paper) -> int:
    across, down = _parts(board, number, paper)
    return len(across) * len(down)


def _parts(board: BoardSpec, number: int, paper: Paper) -> tuple[list[range], list[range]]:
    margin = 2 * quiet_mm(board)
    most = [int((room - margin + 1e-6) / board.square_mm) for room in paper.room_mm]
    if min(most) < 1:
        raise BoardPrintError(
            f"board {number}: not one square of {board.square_mm:g} mm fits on {paper.name}",
            kept="nothing written",
            next_step="take larger paper",
        )
    return _shares(board.columns, most[0]), _shares(board.rows, most[1])


def _shares(squares: int, most: int) -> list[range]:
    """Cut a row of squares into as few parts as possible, of nearly equal length."""
    count = -(-squares // most)
    ends = [round(k * squares / count) for k in range(count + 1)]
    return [range(low, high) for low, high in pairwise(ends)]
