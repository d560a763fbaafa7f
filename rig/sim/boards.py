"""Printed ChArUco boards as textures, drawn to scale with exact-area edges."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import BoardSpec

Image32 = NDArray[np.float32]

MARGIN_SQUARES = 0.5
"""White margin around the squares, in squares: more than one marker module for every sensible board."""
PAPER = 0.80
"""Reflectance of the paper, as a share of the light that clips the sensor."""
INK = 0.035
_BORDER_MODULES = 2


def board_size_mm(board: BoardSpec) -> tuple[float, float]:
    """Width and height of the sheet with its margin, mm."""
    return (
        (board.columns + 2 * MARGIN_SQUARES) * board.square_mm,
        (board.rows + 2 * MARGIN_SQUARES) * board.square_mm,
    )


def draw_board(board: BoardSpec, *, pitch_mm: float) -> Image32:
    """Draw a sheet with one sample per ``pitch_mm``; sample (0, 0) is centred on the sheet's corner.

    Every sample holds the share of its area that is printed, so edges are where they belong to a small
    fraction of a sample.

    Returns:
        Reflectance, (H, W) float32.
    """
    width_mm, height_mm = board_size_mm(board)
    ink = np.zeros((round(height_mm / pitch_mm) + 1, round(width_mm / pitch_mm) + 1))
    margin_mm = MARGIN_SQUARES * board.square_mm
    for x_mm, y_mm, side_mm in _printed_cells(board):
        rows, down = _coverage((y_mm + margin_mm) / pitch_mm, side_mm / pitch_mm, ink.shape[0])
        columns, across = _coverage((x_mm + margin_mm) / pitch_mm, side_mm / pitch_mm, ink.shape[1])
        ink[rows, columns] += np.outer(down, across)
    return np.asarray(PAPER + (INK - PAPER) * ink, np.float32)


def _coverage(start: float, length: float, count: int) -> tuple[slice, NDArray[np.float64]]:
    first, last = int(np.floor(start + 0.5)), int(np.ceil(start + length + 0.5))
    cells = np.arange(first, min(last, count))
    inside = np.minimum(cells + 0.5, start + length) - np.maximum(cells - 0.5, start)
    return slice(first, min(last, count)), np.clip(inside, 0.0, 1.0)


def _printed_cells(board: BoardSpec) -> Iterator[tuple[float, float, float]]:
    """Yield left, top and side in mm, from the first square's corner, of every black cell."""
    marker_number = board.first_id
    inset_mm = (board.square_mm - board.marker_mm) / 2
    for row in range(board.rows):
        for column in range(board.columns):
            left_mm, top_mm = column * board.square_mm, row * board.square_mm
            if (row + column) % 2 == 0:
                yield left_mm, top_mm, board.square_mm
                continue
            yield from _marker_cells(board, marker_number, left_mm + inset_mm, top_mm + inset_mm)
            marker_number += 1


def _marker_cells(
    board: BoardSpec, number: int, left_mm: float, top_mm: float
) -> Iterator[tuple[float, float, float]]:
    import cv2

    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
    modules = dictionary.markerSize + _BORDER_MODULES
    black = np.asarray(dictionary.generateImageMarker(number, modules)) == 0
    side_mm = board.marker_mm / modules
    for row, column in np.argwhere(black):
        yield left_mm + column * side_mm, top_mm + row * side_mm, side_mm
