"""Boards: drawn exactly, read back, found in what a camera makes of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from alignment.decode import Frame
from alignment.markers import MarkerBoard, Window
from alignment.photometry import standard_tone_curve
from alignment.tracking import decode_boards
from catalog.session_folder import BoardSpec

SPEC = BoardSpec(columns=7, rows=5, square_mm=40, marker_mm=30)
OTHER = BoardSpec(columns=7, rows=5, square_mm=40, marker_mm=30, first_id=17)


def view(
    spec: BoardSpec, to_image: NDArray[np.float64], *, size: tuple[int, int] = (480, 360)
) -> NDArray[np.float32]:
    """See a board through a map from its plane (mm) to the image, on grey, by area sampling: light 0..1."""
    drawn = MarkerBoard(spec).draw(min_square_px=40)
    mm_per_px = spec.square_mm / (drawn.shape[0] / spec.rows)
    oversampling = 4
    up = np.array([[oversampling, 0, 1.5], [0, oversampling, 1.5], [0, 0, 1.0]])
    from_drawing = np.array([[mm_per_px, 0, mm_per_px / 2], [0, mm_per_px, mm_per_px / 2], [0, 0, 1.0]])
    large = cv2.warpPerspective(
        drawn.astype(np.float32) / 255,
        up @ to_image @ from_drawing,
        (size[0] * oversampling, size[1] * oversampling),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0.5,
    )
    return cv2.resize(large, size, interpolation=cv2.INTER_AREA)


def looking(x_px: float, y_px: float, px_per_mm: float, *, tilt: float = 0.0) -> NDArray[np.float64]:
    """Map a board so that its middle comes to (x, y); ``tilt`` is the slope of depth over width."""
    centre = np.array([[1, 0, -SPEC.columns * 20], [0, 1, -SPEC.rows * 20], [0, 0, 1.0]])
    scale = np.array([[px_per_mm, 0, 0], [0, px_per_mm, 0], [tilt / 1000, 0, 1.0]])
    return np.array([[1, 0, x_px], [0, 1, y_px], [0, 0, 1.0]]) @ scale @ centre


def codes(
    light: NDArray[np.float32], *, gain: float = 1.0, noise: float = 0.0, seed: int = 0
) -> NDArray[np.uint8]:
    noisy = 255 * gain * light + noise * np.random.default_rng(seed).normal(size=light.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        OTHER,
        BoardSpec(columns=5, rows=7, square_mm=33.3, marker_mm=25),
        BoardSpec(columns=4, rows=3, square_mm=60, marker_mm=44, dictionary="DICT_5X5_100", first_id=90),
    ],
    ids=str,
)
def test_a_drawn_board_is_read_back_in_its_exact_place(spec: BoardSpec):
    """The middle of an image W px wide that was moved by 32 px is at (W - 1) / 2 + 32."""
    board = MarkerBoard(spec)
    drawn = board.draw(min_square_px=30)
    framed = cv2.copyMakeBorder(drawn, 32, 32, 32, 32, cv2.BORDER_CONSTANT, value=255)

    sighting = board.detect(framed)

    assert sighting is not None
    assert sighting.corners == (spec.columns - 1) * (spec.rows - 1)
    expected = ((drawn.shape[1] - 1) / 2 + 32, (drawn.shape[0] - 1) / 2 + 32)
    assert sighting.centre_px == pytest.approx(expected, abs=0.02)
    assert sighting.px_per_mm == pytest.approx(drawn.shape[1] / (spec.columns * spec.square_mm), rel=2e-3)


def test_every_edge_of_a_drawing_falls_on_a_pixel_edge():
    drawn = MarkerBoard(SPEC).draw(min_square_px=100)
    side = drawn.shape[1] // SPEC.columns

    assert side >= 100
    assert set(np.unique(drawn)) == {0, 255}
    module = side * 30 // 40 // 6  # a 4x4 marker is six modules wide
    edges = np.flatnonzero(np.diff(drawn.astype(int), axis=1).any(axis=0)) + 1
    assert all(edge % side % module in {0, (side - 6 * module) // 2 % module} for edge in edges)


@pytest.mark.parametrize("offset", [0.0, 0.13, 0.37, 0.5, 0.81])
def test_the_middle_is_found_to_a_few_hundredths_of_a_pixel(offset: float):
    board, grey = MarkerBoard(SPEC), codes(view(SPEC, looking(230 + offset, 170 - offset, 1.13)))

    sighting = board.detect(grey)

    assert sighting is not None
    assert sighting.centre_px == pytest.approx((230 + offset, 170 - offset), abs=0.05)
    assert sighting.px_per_mm == pytest.approx(1.13, rel=3e-3)
    assert np.sqrt(sighting.covariance_px2[0, 0]) < 0.05


def test_a_tilted_board_keeps_its_scale_across_the_line_of_sight():
    """A tilt about the upright axis shortens the board's width, not its height."""
    sighting = MarkerBoard(SPEC).detect(codes(view(SPEC, looking(230, 170, 1.1, tilt=0.5))))

    assert sighting is not None
    assert sighting.px_per_mm == pytest.approx(1.1, rel=5e-3)


@pytest.mark.parametrize(
    ("gain", "noise", "blur"),
    [(0.03, 0.7, 0.0), (1.0, 25.0, 0.0), (0.5, 2.0, 2.0)],
    ids=["dark", "noisy", "soft"],
)
def test_the_ladder_finds_boards_in_bad_light(gain: float, noise: float, blur: float):
    light = view(SPEC, looking(231.3, 171.7, 1.3))
    soft = cv2.GaussianBlur(light, (0, 0), blur) if blur else light

    sighting = MarkerBoard(SPEC).detect(codes(soft, gain=gain, noise=noise))

    assert sighting is not None
    assert sighting.centre_px == pytest.approx((231.3, 171.7), abs=0.25)


def test_neighbouring_frames_bring_out_a_board_that_noise_hides():
    light = view(SPEC, looking(230, 170, 1.1))
    shots = [codes(light, gain=0.8, noise=250.0, seed=s) for s in range(5)]
    board = MarkerBoard(SPEC)

    assert board.detect(shots[0]) is None
    found = board.detect(shots[0], neighbours=shots[1:])
    assert found is not None
    assert found.centre_px == pytest.approx((230, 170), abs=0.5)


def test_two_boards_in_one_picture_are_told_apart():
    left, right = looking(170, 170, 0.7), looking(480, 190, 0.8)
    size = (640, 360)
    picture = codes(
        np.where(np.arange(640) < 320, view(SPEC, left, size=size), view(OTHER, right, size=size))
    )

    first, second = MarkerBoard(SPEC).detect(picture), MarkerBoard(OTHER).detect(picture)

    assert first is not None
    assert second is not None
    assert first.centre_px == pytest.approx((170, 170), abs=0.05)
    assert second.centre_px == pytest.approx((480, 190), abs=0.05)


def test_a_half_covered_board_says_how_unsure_it_is():
    light = view(SPEC, looking(230, 170, 1.1))
    whole = MarkerBoard(SPEC).detect(codes(light, noise=3))
    light[:, 230:] = 0.5
    half = MarkerBoard(SPEC).detect(codes(light, noise=3))

    assert whole is not None
    assert half is not None
    assert half.corners < whole.corners
    assert half.covariance_px2[0, 0] > 2 * whole.covariance_px2[0, 0]


def test_a_window_limits_the_search():
    grey = codes(view(SPEC, looking(230, 170, 1.1)))
    board = MarkerBoard(SPEC)

    assert board.detect(grey, near=Window(60, 50, 340, 250)) is not None
    assert board.detect(grey, near=Window(0, 0, 120, 120)) is None
    assert board.detect(grey, near=Window(600, 0, 50, 50)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dictionary": "DICT_9X9_1"}, "no marker dictionary"),
        ({"marker_mm": 40}, "do not fit"),
        ({"first_id": 40}, "has no marker 56"),
    ],
)
def test_an_impossible_board_is_refused(change: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        MarkerBoard(SPEC.model_copy(update=change))


@pytest.mark.parametrize(("x_px", "told"), [(240.0, True), (470.0, False)])
def test_a_board_tells_its_scale_only_where_most_of_it_is_in_view(x_px: float, told: bool):
    """Half a board is followed all the same: where it goes is seen, how large it is would be extrapolated."""
    looks = [codes(view(SPEC, looking(x_px - k, 180, 0.8))) for k in range(4)]
    frames = [Frame(k, k, lambda c=c: np.dstack([c] * 3), lambda c=c: c) for k, c in enumerate(looks)]

    found = decode_boards(frames, count=4, boards=[SPEC], tone=standard_tone_curve("bt709"))

    assert found.tracks[0].found.all()
    assert found.targets[0].px_per_mm == pytest.approx([0.8] * 4 if told else [], rel=0.002)
