"""Printed boards are read back from the PDF itself: rasterised by PDFium and detected by OpenCV."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pypdfium2
import pytest
from typer.testing import CliRunner

from alignment import board_plan
from alignment.board_plan import Geometry, View, check_boards, ids, module_mm, readings, uniform_boards
from alignment.board_sheets import Paper, lay_out, parse_paper, quiet_mm
from alignment.boards_pdf import black_rectangles, write_boards
from alignment.cli import app
from alignment.errors import BoardPrintError
from alignment.markers import MarkerBoard
from catalog.session_folder import BoardSpec

DPI = 150
PX_PER_MM = DPI / 25.4
SMALL = Geometry(columns=5, rows=3, square_mm=30, marker_mm=23)


def page_grey(path, page):
    """A page as ``(H, W)`` uint8 at 150 dpi, anti-aliased as a printer would not be, so edges keep their place."""
    document = pypdfium2.PdfDocument(path)
    try:
        return np.asarray(document[page].render(scale=DPI / 72, grayscale=True).to_pil())
    finally:
        document.close()


def page_text(path, page):
    document = pypdfium2.PdfDocument(path)
    try:
        return document[page].get_textpage().get_text_range()
    finally:
        document.close()


def found_corners(grey, board):
    """Chessboard corners of a board by OpenCV's own detector, in mm on the paper, by id."""
    spec = board.spec
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, spec.dictionary))
    numbers = np.arange(spec.first_id, spec.first_id + spec.columns * spec.rows // 2)
    charuco = cv2.aruco.CharucoBoard(
        (spec.columns, spec.rows), spec.square_mm, spec.marker_mm, dictionary, numbers
    )
    corners, found, _, _ = cv2.aruco.CharucoDetector(charuco).detectBoard(grey)
    if found is None:
        return {}
    # PDFium samples pixel centres: pixel (0, 0) covers half a pixel to either side of 0.5.
    places = (np.reshape(corners, (-1, 2)) + 0.5) / PX_PER_MM
    return dict(zip(np.ravel(found).tolist(), places, strict=True))


@pytest.mark.parametrize(
    "spec",
    [
        BoardSpec(columns=7, rows=5, square_mm=32, marker_mm=24),
        BoardSpec(columns=5, rows=3, square_mm=37.3, marker_mm=28.1, dictionary="DICT_5X5_100", first_id=40),
        BoardSpec(columns=4, rows=7, square_mm=60, marker_mm=45, first_id=17),
    ],
    ids=["a4", "odd sizes", "a1 standing"],
)
def test_a_printed_board_is_detected_whole_and_measures_true(tmp_path, spec):
    """Neighbouring corners are a square apart within 0.1 mm, and so is the board from end to end."""
    target = tmp_path / "boards.pdf"

    write_boards([spec], target)

    corners = found_corners(page_grey(target, 1), MarkerBoard(spec))
    across = spec.columns - 1
    assert len(corners) == across * (spec.rows - 1)
    for number, place in corners.items():
        column, row = number % across, number // across
        expected = corners[0] + np.array([column, row]) * spec.square_mm
        assert np.abs(place - expected).max() < 0.1


def test_every_board_of_a_set_has_markers_of_its_own(tmp_path):
    """Seven markers a board: 0 to 6, 7 to 13, 14 to 20; no page shows another board's."""
    target = tmp_path / "boards.pdf"
    boards = uniform_boards(SMALL, 3)

    write_boards(boards, target)

    for number, board in enumerate(boards, start=1):
        grey = page_grey(target, number)
        assert len(found_corners(grey, MarkerBoard(board))) == 8
        _, found, _ = cv2.aruco.ArucoDetector(
            cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
        ).detectMarkers(grey)
        assert sorted(np.ravel(found).tolist()) == list(range(7 * (number - 1), 7 * number))


def test_the_drawing_agrees_with_the_board_that_is_looked_for():
    """The vector drawing and the detector's own picture are black at the same places."""
    spec = BoardSpec(columns=5, rows=3, square_mm=30, marker_mm=20, first_id=3)
    expected = MarkerBoard(spec).draw(min_square_px=90)
    scale = expected.shape[1] / 150

    drawn = np.full(expected.shape, 255, np.uint8)
    for x, y, width, height in black_rectangles(spec):
        left, top, right, bottom = (round(v * scale) for v in (x, y, x + width, y + height))
        drawn[top:bottom, left:right] = 0

    assert np.array_equal(drawn, expected)


def test_both_rulers_measure_true(tmp_path):
    """The ruler along the bottom is 200 mm long and the upright one 170 mm on lying A4, each within a pixel."""
    target = tmp_path / "boards.pdf"
    write_boards(uniform_boards(SMALL, 1), target, paper=parse_paper("a4"))
    dark = page_grey(target, 1) < 128
    height, width = dark.shape

    bottom = np.flatnonzero(
        dark[height - round(8.3 * PX_PER_MM) : height - round(7.7 * PX_PER_MM)].any(axis=0)
    )
    side = np.flatnonzero(
        dark[:, width - round(8.3 * PX_PER_MM) : width - round(7.7 * PX_PER_MM)].any(axis=1)
    )

    assert (bottom.max() - bottom.min()) / PX_PER_MM == pytest.approx(200, abs=0.25)
    assert (side.max() - side.min()) / PX_PER_MM == pytest.approx(170, abs=0.25)


def test_the_white_margin_is_at_least_a_module(tmp_path):
    spec = uniform_boards(SMALL, 1)[0]
    target = tmp_path / "boards.pdf"
    write_boards([spec], target)
    dark = page_grey(target, 1) < 128
    sheet = lay_out([spec], None)[0]
    left = (8 + (sheet.paper.room_mm[0] - 150) / 2) * PX_PER_MM
    top = (8 + (sheet.paper.room_mm[1] - 90) / 2) * PX_PER_MM
    reach = quiet_mm(spec) * PX_PER_MM - 2

    band = dark[
        round(top - reach) : round(top + 90 * PX_PER_MM + reach), round(left - reach) : round(left - 2)
    ]

    assert quiet_mm(spec) >= module_mm(spec)
    assert not band.any()


def test_a_split_board_is_cut_between_squares_and_complete(tmp_path):
    """60 mm squares: four by two of them fit on A4; the parts put together are the board again."""
    spec = BoardSpec(columns=7, rows=5, square_mm=60, marker_mm=45)
    target = tmp_path / "boards.pdf"

    sheets = write_boards([spec], target, paper=parse_paper("a4"), split=True)

    whole = np.full((round(300 * PX_PER_MM) + 2, round(420 * PX_PER_MM) + 2), 255, np.uint8)
    for page, sheet in enumerate(sheets, start=1):
        paste_part(whole, page_grey(target, page), sheet)
    framed = cv2.copyMakeBorder(whole, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=255)
    assert len(sheets) == 6
    assert len(found_corners(framed, MarkerBoard(spec))) == 24


def paste_part(whole, grey, sheet):
    room, size = sheet.paper.room_mm, sheet.size_mm
    left, top = (round((8 + (r - s) / 2) * PX_PER_MM) for r, s in zip(room, size, strict=True))
    width, height = (round(s * PX_PER_MM) for s in size)
    x, y = (round(r.start * 60 * PX_PER_MM) for r in (sheet.columns, sheet.rows))
    whole[y : y + height, x : x + width] = grey[top : top + height, left : left + width]


def test_what_does_not_fit_is_refused_with_every_way_out(tmp_path):
    """Seven squares of 60 mm and two margins of 7.5 mm make 435 mm; lying A4 has room for 269."""
    spec = BoardSpec(columns=7, rows=5, square_mm=60, marker_mm=45)
    target = tmp_path / "boards.pdf"

    with pytest.raises(
        BoardPrintError, match=r"435 x 315 mm.*--paper A2 or squares of at most 3\d\.\d mm or --split"
    ):
        write_boards([spec], target, paper=parse_paper("a4"))

    assert not target.exists()


def test_the_size_that_a_refusal_names_does_fit():
    spec = BoardSpec(columns=7, rows=5, square_mm=60, marker_mm=45)
    with pytest.raises(BoardPrintError) as refused:
        lay_out([spec], parse_paper("a4"))
    side = float(refused.value.next_step.split("at most ")[1].split(" mm")[0])

    sheets = lay_out(uniform_boards(Geometry(7, 5, side), 1), parse_paper("a4"))

    assert len(sheets) == 1


@pytest.mark.parametrize(
    ("boards", "complaint"),
    [
        ([BoardSpec(columns=7, rows=4, square_mm=30, marker_mm=20)], "OpenCV 4.6 changed"),
        (
            [
                BoardSpec(columns=7, rows=5, square_mm=30, marker_mm=20),
                BoardSpec(columns=7, rows=5, square_mm=30, marker_mm=20, first_id=16),
            ],
            r"boards 1 and 2 share the markers 16 to 16.*first_id 17",
        ),
        ([BoardSpec(columns=7, rows=5, square_mm=30, marker_mm=20, first_id=40)], "no marker 56"),
        ([BoardSpec(columns=7, rows=5, square_mm=30, marker_mm=31)], "do not fit into squares"),
        ([BoardSpec(columns=7, rows=5, square_mm=30, marker_mm=20, dictionary="DICT_9")], "DICT_9"),
    ],
    ids=["even rows", "shared ids", "small dictionary", "large markers", "unknown dictionary"],
)
def test_boards_that_could_not_be_read_are_refused(boards, complaint):
    with pytest.raises(BoardPrintError, match=complaint):
        check_boards(boards)


def test_boards_of_different_dictionaries_may_use_the_same_numbers():
    one = BoardSpec(columns=7, rows=5, square_mm=30, marker_mm=20)

    check_boards([one, one.model_copy(update={"dictionary": "DICT_5X5_50"})])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("A3", (297.0, 420.0)), ("letter", (215.9, 279.4)), ("600x900", (600.0, 900.0)), ("auto", None)],
)
def test_papers_are_named_or_measured(text, expected):
    paper = parse_paper(text)

    assert expected == (paper and (paper.width_mm, paper.height_mm))


def test_an_unknown_paper_is_refused_with_those_that_are_known():
    with pytest.raises(BoardPrintError, match=r"'foolscap' is no paper size.*letter"):
        parse_paper("foolscap")


def test_modules_are_held_against_the_lens_and_the_distance():
    """24 mm markers of 4 bits have modules of 4 mm; at 1000 px focal length and 500 mm away that is 8 px.

    Defocus may have a third of it as radius, motion blur all of it as length; 6 px are reached at 667 mm.
    """
    board = BoardSpec(columns=7, rows=5, square_mm=32, marker_mm=24)
    view = View("bench", 1000.0, (500.0, 1000.0))

    near, far = readings(board, view)

    assert (near.module_px, near.readable, far.readable) == (pytest.approx(8.0), True, False)
    assert (near.blur_radius_px, near.motion_px) == (pytest.approx(8 / 3), pytest.approx(8.0))
    assert board_plan.reach_mm(board, view) == pytest.approx(666.7, abs=0.1)
    assert len(list(board_plan.warnings([board], view))) == 1


def test_the_command_prints_a_profiles_boards_with_advice(tmp_path):
    """The simulated rig: 35 mm on 35.9 mm and 1280 px are 1248 px of focal length; ids 0 to 16 and 17 to 33."""
    target = tmp_path / "boards.pdf"

    result = CliRunner().invoke(app, ["markers", "-o", str(target), "--profile", "sim", "--json"])

    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert [s["spec"]["first_id"] for s in document["sheets"]] == [0, 17]
    advice = page_text(target, 0)
    assert "focal length 1248 px" in advice
    assert "first_id: 17" in advice
    assert "markers 17 to 33" in page_text(target, 2)


def test_the_same_boards_give_the_same_bytes(tmp_path):
    boards = uniform_boards(SMALL, 2)

    for name in ("one.pdf", "two.pdf"):
        write_boards(boards, tmp_path / name)

    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()


def test_slices_follow_each_other():
    boards = uniform_boards(Geometry(7, 5, 30), 2, first_id=5)

    assert [list(ids(b))[:: len(ids(b)) - 1] for b in boards] == [[5, 21], [22, 38]]


def test_a_board_may_lie_or_stand():
    tall = BoardSpec(columns=3, rows=7, square_mm=30, marker_mm=22)

    sheet = lay_out([tall], Paper("A4", 210, 297))[0]

    assert sheet.paper.height_mm > sheet.paper.width_mm
