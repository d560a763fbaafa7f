"""The figures' arithmetic: ticks, scales, velocities, and the classes and reasons they count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from alignment.report_axes import Box, Drawing, Panel, arrows, decade_numbers, round_ticks, spread
from alignment.report_error_figures import error_figures, verdict_figure
from alignment.report_figures import (
    motion_figures,
    pairing_figures,
    smoothed_velocity,
    speed_figure,
    telemetry_on_datum,
)
from alignment.report_pictures import difference
from alignment.report_pose_figure import gap_figure, pose_figure
from alignment.report_rounds import pose
from alignment.report_source import RoundSource, frame_times, read_source
from catalog.session_folder import FrameTime, SessionFolder

DrawUp = Callable[..., SessionFolder]


@given(low=st.floats(-1e4, 1e4), length=st.floats(1e-3, 1e4), about=st.integers(2, 10))
def test_ticks_are_evenly_spaced_inside_the_range(low: float, length: float, about: int):
    high = low + length

    ticks = round_ticks(low, high, about=about)

    steps = np.diff(ticks)
    assert all(low - 1e-6 * length <= t <= high + 1e-6 * length for t in ticks)
    assert np.allclose(steps, steps[0] if steps.size else 0, rtol=1e-6)
    assert len(ticks) <= about + 1


def test_a_logarithmic_axis_is_numbered_1_2_5():
    """log10 of 0.02 is -1.699 and of 0.05 -1.301."""
    assert decade_numbers(-2.0, -1.0) == [(-2.0, "0.01"), (-1.699, "0.02"), (-1.301, "0.05"), (-1.0, "0.1")]


def test_a_single_value_still_spans_a_range():
    low, high = spread([5.0, float("nan")])

    assert low < 5.0 < high


def test_a_panel_puts_data_where_its_axes_say():
    """10 of 0..20 lies in the middle of a box 100 wide from 50; y grows upwards."""
    drawing = Drawing("d", 100, title="t", description="d")
    panel = Panel(drawing, Box(50, 10, 100, 80), x=(0, 20), y=(0, 4))

    panel.line([0, 10, 20], [0, 1, 4], "line")

    path = drawing.root.find("path")
    assert path is not None
    assert path.get("d") == "M50 90L100 70L150 10"


def test_a_line_breaks_where_a_value_is_missing():
    drawing = Drawing("d", 100, title="t", description="d")
    panel = Panel(drawing, Box(0, 0, 30, 10), x=(0, 3), y=(0, 1))

    panel.line([0, 1, 2, 3], [0, float("nan"), 1, 0], "line")

    path = drawing.root.find("path")
    assert path is not None
    assert path.get("d") == "M0 10M20 0L30 10"


def test_text_in_a_figure_is_escaped():
    drawing = Drawing("d", 10, title="</svg><script>", description='"&')

    markup = str(drawing.markup())

    assert "<script" not in markup
    assert ET.fromstring(markup).findtext("title") == "</svg><script>"  # noqa: S314


def test_the_velocity_of_uniform_motion_is_its_slope():
    time = np.arange(20) / 30

    middle, velocity = smoothed_velocity(time.tolist(), (3 + 40 * time).tolist())

    assert velocity == pytest.approx(np.full(16, 40.0))
    assert middle[0] == pytest.approx(2 / 30)


def test_telemetry_comes_to_lie_on_the_measured_track(bench_session: SessionFolder):
    """The fixture's telemetry is 60 mm off; the track's noise is 0.02 mm."""
    motion = read_source(bench_session).rounds[0].motion
    assert motion is not None

    moved = telemetry_on_datum(motion)

    board = np.interp(motion.telemetry_time_s, motion.time_s, motion.position_mm)
    assert np.abs(moved - board).max() < 0.15


def test_telemetry_that_counts_the_other_way_is_turned_round(bench_session: SessionFolder):
    motion = read_source(bench_session).rounds[0].motion
    assert motion is not None
    mirrored = tuple(-x for x in motion.telemetry_position_mm)

    turned = telemetry_on_datum(motion.model_copy(update={"telemetry_position_mm": mirrored}))

    assert turned == pytest.approx(telemetry_on_datum(motion))


def test_gaps_and_repeats_in_time_stamps_are_counted():
    """Frames 0, 1, 2, 5, 5, 6 at 30 Hz: two are missing between 2 and 5, one stamp is repeated."""
    frames = [FrameTime(i, 1000 * t, "1/30000", 0.0) for i, t in enumerate([0, 1, 2, 5, 5, 6])]

    found = frame_times(frames)

    assert (found.dropped, found.duplicates) == (2, 1)


def test_the_pose_of_a_turned_pair_is_its_angle_and_shift(bench_session: SessionFolder):
    """Half a degree about the middle of a 101 by 51 frame, moved by (2, -1)."""
    angle = np.radians(0.5)
    c, s = np.cos(angle), np.sin(angle)
    middle = np.array([50.0, 25.0])
    rotation = np.array([[c, -s], [s, c]])
    shift = middle + np.array([2.0, -1.0]) - rotation @ middle
    matrix = np.vstack([np.column_stack([rotation, shift]), [0, 0, 1]]).tolist()
    pair = replace_homography(bench_session, matrix)

    found = pose(pair, width=101, height=51)

    assert found is not None
    assert (found.x_px, found.y_px, found.roll_deg) == pytest.approx((2.0, -1.0, 0.5))


def replace_homography(session: SessionFolder, matrix: list[list[float]]):
    return session.pairs()[0].model_copy(update={"homography": tuple(map(tuple, matrix))})


def test_the_verdict_figure_counts_each_candidate_once(bench_session: SessionFolder):
    figure = verdict_figure(read_source(bench_session))
    assert figure is not None

    tips = [e.text for e in ET.fromstring(figure.svg).iter("title")][1:]  # noqa: S314

    assert "iso6400: accepted 24" in tips
    assert "iso6400: too far apart along the rail 2" in tips
    assert "iso6400: not in uniform motion 1" in tips
    assert sum(int(str(tip).rsplit(" ", 1)[1]) for tip in tips) == 60 + 8


def test_there_is_a_histogram_for_every_class_of_degradations(bench_session: SessionFolder):
    titles = [f.title for f in error_figures(read_source(bench_session))]

    assert titles == [
        "Residual, all classes",
        "Predicted error, all classes",
        "Leftover of the parts, all classes",
        "noise",
        "defocus_blur",
        "rain",
    ]


def test_rounds_that_did_not_move_are_left_out(bench_session: SessionFolder):
    source = read_source(bench_session)
    still = source.rounds[1].motion
    assert still is not None
    empty = still.model_copy(update={"time_s": (), "position_mm": (), "residual_px": (), "phases": None})
    rounds = (source.rounds[0], replace(source.rounds[1], motion=empty))

    drawn = motion_figures(replace(source, rounds=rounds))

    assert [f.title for f in drawn] == ["gt"]


def test_stills_taken_at_standstill_have_a_place_and_no_speed(bench_session: SessionFolder):
    source = read_source(bench_session)
    moved = source.rounds[1].motion
    assert moved is not None
    standing = moved.model_copy(update={"velocity_mm_s": None, "phases": None, "telemetry_time_s": ()})
    stopped = replace(source, rounds=(replace(source.rounds[1], motion=standing),))

    (drawn,) = motion_figures(stopped)

    assert "velocity" not in str(drawn.svg)
    assert "stills at standstill tracked" in drawn.caption
    assert speed_figure(stopped) is None


def test_a_round_whose_candidates_were_all_rejected_is_still_drawn(draw_up: DrawUp):
    source = read_source(draw_up({"rain": {"pairs": 0, "rejected": ("position_gap",) * 5}}))

    rain = pairing_figures(source)[-1]

    assert rain.caption.startswith("0 frames paired, 5 candidates rejected")


def test_camera_angles_are_read_from_the_pairs(draw_up: DrawUp):
    """A camera turned by a yaw of 0.01 degrees in one round and by none in the others; f is 1248 px at 1280 x 720."""
    source = read_source(draw_up())
    matrix = np.array([[1248.0, 0, 639.5], [0, 1248.0, 359.5], [0, 0, 1]])
    turned = cv2.Rodrigues(np.radians([0, 0.01, 0]))[0]
    yawed = matrix @ turned @ np.linalg.inv(matrix)
    rounds = [with_homography(r, yawed if r.name == "rain" else np.eye(3)) for r in source.rounds]

    figure = pose_figure(replace(source, rounds=tuple(rounds)))

    assert figure is not None
    assert "pitch 0.0000°, yaw 0.0100°, roll 0.0000°" in figure.caption


def with_homography(round_: RoundSource, homography: NDArray[np.float64]) -> RoundSource:
    values = tuple(tuple(row) for row in homography.tolist())
    return replace(round_, pairs=tuple(p.model_copy(update={"homography": values}) for p in round_.pairs))


def test_where_the_camera_came_back_to_is_drawn_where_it_is_told(draw_up: DrawUp):
    """3, 4 and 0 um in every pair of one round: their root mean squares; a session that tells none has no figure."""
    source = read_source(draw_up())
    moved = {"camera_gap_mm": (0.003, -0.004, 0.0), "camera_gap_sigma_mm": (0.001, 0.001, 0.002)}
    rounds = [
        replace(r, pairs=tuple(p.model_copy(update=moved) for p in r.pairs)) if r.name == "rain" else r
        for r in source.rounds
    ]

    figure = gap_figure(replace(source, rounds=tuple(rounds)))

    assert figure is not None
    assert "0.003 mm right, 0.004 mm down, 0.000 mm forward" in figure.caption
    assert str(figure.svg).count("rain") == 1
    assert gap_figure(source) is None


def test_without_pairs_there_are_no_angles(draw_up: DrawUp):
    bare = {name: {"pairs": 0} for name in ("iso6400", "defocus", "rain")}

    assert pose_figure(read_source(draw_up(bare))) is None


def test_arrows_grow_with_the_picture_and_take_a_colour_by_length():
    """One pixel is 20 px of a picture 320 px wide, so 80 px of one of 1280; 0.3 px is the third colour of four."""
    drawn = ET.fromstring(arrows((1280, 720), [(100.0, 50.0, 1.0, 0.0), (10.0, 10.0, 0.0, 0.3)]))  # noqa: S314

    long, short = drawn.findall("path[@class='e3']"), drawn.findall("path[@class='e2']")

    assert long[0].get("d", "").startswith("M100 50L180 50")
    assert short[0].get("d", "").startswith("M10 10L10 34")


def test_a_dimmer_picture_leaves_an_even_grey_difference_and_a_shifted_one_does_not():
    """Half the brightness and a veil are what gain and offset absorb; a shift by two pixels is not."""
    photo = np.asarray(data.camera()[100:300, 100:420], np.float64)
    sides = [photo, 20 + photo / 2, 20 + np.roll(photo, 2, axis=1) / 2]
    clean, dim, shifted = (Image.fromarray(np.round(s).astype(np.uint8)) for s in sides)

    inner = (slice(13, -13), slice(13, -13))
    even, odd = (np.asarray(difference(clean, lq), float)[inner] for lq in (dim, shifted))

    assert np.abs(even - 128).mean() < 3
    assert np.abs(odd - 128).mean() > 10
