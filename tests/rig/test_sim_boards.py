"""Simulated marker boards are the boards that OpenCV knows, to scale."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from board_corners import inner_corners_mm

from catalog.session_folder import BoardSpec
from rig.sim.boards import INK, MARGIN_SQUARES, PAPER, board_size_mm, draw_board

BOARD = BoardSpec(columns=7, rows=5, square_mm=40, marker_mm=30, first_id=17)


def opencv_board(board: BoardSpec) -> cv2.aruco.CharucoBoard:
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
    ids = np.arange(board.first_id, board.first_id + board.columns * board.rows // 2)
    return cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_mm, board.marker_mm, dictionary, ids
    )


def test_every_cell_is_printed_where_opencv_prints_it():
    """At 0.5 mm per sample a square is 80 samples and a module 10: both pictures have whole cells."""
    theirs = opencv_board(BOARD).generateImage((560, 400))

    ours = draw_board(BOARD, pitch_mm=0.5)

    half = round(MARGIN_SQUARES * 80)
    # A sample is centred on its coordinate, so cell edges cut the first and last sample of a cell in half.
    inside = ours[half : half + 400, half : half + 560]
    solid = np.abs(inside - np.where(theirs > 0, PAPER, INK)) < 1e-6
    edge = cv2.dilate(cv2.morphologyEx(theirs, cv2.MORPH_GRADIENT, np.ones((3, 3))), np.ones((3, 3))) > 0
    edge[0], edge[:, 0] = True, True
    assert solid[~edge].all()
    assert solid.mean() > 0.5


def test_an_edge_between_samples_is_shared_by_area():
    """Squares of 40 mm at 3.2 mm per sample: the first black square spans samples 6.25 to 18.75."""
    row = draw_board(BOARD, pitch_mm=3.2)[10]

    share = (PAPER - row[5:20]) / (PAPER - INK)

    np.testing.assert_allclose(share, [0, 0.25, *[1.0] * 12, 0.25], atol=1e-6)


def test_the_sheet_has_a_margin_of_more_than_a_module_and_its_corners_are_counted_from_it():
    """7 x 5 squares of 40 mm and half a square all round: 320 x 240 mm; modules are 5 mm."""
    assert board_size_mm(BOARD) == (320, 240)
    assert MARGIN_SQUARES * BOARD.square_mm >= BOARD.marker_mm / 6
    corners = inner_corners_mm(BOARD)
    np.testing.assert_array_equal(corners[[0, 1, -1]], [[60, 60], [100, 60], [260, 180]])


@pytest.mark.parametrize("dictionary", ["DICT_4X4_50", "DICT_5X5_100"])
def test_a_drawn_board_is_decoded_with_all_its_corners_in_place(dictionary):
    board = BoardSpec(columns=5, rows=5, square_mm=40, marker_mm=30, dictionary=dictionary, first_id=3)
    picture = np.uint8(draw_board(board, pitch_mm=1.0) * 255)

    corners, ids, _, _ = cv2.aruco.CharucoDetector(opencv_board(board)).detectBoard(picture)

    expected = inner_corners_mm(board)[np.ravel(ids)]
    assert len(expected) == 16
    np.testing.assert_allclose(np.reshape(corners, (-1, 2)), expected, atol=0.1)
