"""What the simulated camera shows agrees with the truth it states."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from board_corners import inner_corners_mm
from scipy import ndimage

from catalog.session_folder import BoardSpec, ExposureSettings, LensSpec
from rig.errors import SceneError
from rig.profile import SimulationSpec
from rig.sim.truth import FrameTruth, displacement
from rig.sim.world import Shot, World, truth_row

LENS = LensSpec(focal_mm=35, sensor_width_mm=35.9, scene_depth_mm=(1500, 4000))
BOARDS = (
    BoardSpec(columns=7, rows=5, square_mm=60, marker_mm=45, first_id=0),
    BoardSpec(columns=7, rows=5, square_mm=80, marker_mm=60, first_id=17),
)
SPEC = SimulationSpec()
BASE = Shot(ExposureSettings())


@pytest.fixture(scope="module")
def world() -> World:
    return World(SPEC, LENS, BOARDS, "bookshelf-03")


@pytest.fixture(scope="module")
def wall() -> World:
    """A world of one plane, in focus at 4 m."""
    world = World(SPEC, LENS, (), "wall-only")
    world.planes = world.planes[:1]
    return world


def at(x_mm: float, *, y_mm: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    return np.array([[x_mm, y_mm, 0.0, 0.0, 0.0, roll_deg]])


def sliding(x_mm: float, *, run_mm: float, count: int = 21) -> np.ndarray:
    poses = np.repeat(at(x_mm), count, axis=0)
    poses[:, 0] += np.linspace(-run_mm / 2, run_mm / 2, count)
    return poses


def truth(world: World, poses: np.ndarray, shot: Shot = BASE) -> FrameTruth:
    return FrameTruth(world.truth_header(shot), truth_row(world.spec, world.lens, poses, shot))


def measured_shift(moved: np.ndarray, still: np.ndarray) -> np.ndarray:
    """How far the content of ``moved`` lies from ``still``, (x, y) px: Gauss-Newton, quintic splines.

    The gradient is the mean of both pictures', which cancels the even error terms of a plain gradient step.
    """
    a, b = (ndimage.gaussian_filter(picture, 0.6) for picture in (still, moved))
    shift, inside = np.zeros(2), np.s_[24:-24, 24:-24]
    for _ in range(4):
        warped = ndimage.shift(b, -shift[::-1], order=5, mode="nearest")
        down, across = np.gradient((a + warped) / 2)
        slopes = np.stack([across[inside].ravel(), down[inside].ravel()])
        shift = shift + np.linalg.solve(slopes @ slopes.T, slopes @ (a - warped)[inside].ravel())
    return shift


def found_corners(world: World, number: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detect a board in a picture; returns corners (N, 2) px and the world points (N, 3) they are."""
    board = BOARDS[number]
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, board.dictionary))
    ids = np.arange(board.first_id, board.first_id + 17)
    printed = cv2.aruco.CharucoBoard((7, 5), board.square_mm, board.marker_mm, dictionary, ids)
    corners, found, _, _ = cv2.aruco.CharucoDetector(printed).detectBoard(
        cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY)
    )
    plane = next(p for p in world.planes if p.name == f"board{number}")
    on_sheet = inner_corners_mm(board)[np.ravel(found)]
    points = on_sheet + np.array(plane.corner_mm)
    return np.reshape(corners, (-1, 2)), np.column_stack([points, np.full(len(points), plane.depth_mm)])


@pytest.mark.parametrize(
    ("step_px", "down_px"), [(0.1, 0.05), (0.21, -0.21), (0.35, 0.5), (0.5, 0.13), (2.79, 0.0)]
)
def test_a_plane_moves_by_what_the_truth_says(wall, step_px, down_px):
    """At 4 m, one px is 4000/1247.911 = 3.20536 mm: the content moves by minus the camera's step.

    0.004 px is left for the bilinear sampling of the textures (0.0035 measured at worst, at 2 samples per px).
    """
    shot = Shot(ExposureSettings(focus_m=4.0))
    mm = 4000 / (35 / 35.9 * 1280)

    still, moved = (
        wall.light(at(x, y_mm=y), shot)[150:550, 200:1000, 1].copy()
        for x, y in ((200.0, 0.0), (200.0 + step_px * mm, down_px * mm))
    )

    np.testing.assert_allclose(measured_shift(moved, still), [-step_px, -down_px], atol=0.004)


def test_the_sensors_codes_move_as_the_light_does(wall):
    """Noise, tone curve and 8-bit codes of a well exposed picture cost no more than 0.01 px."""
    shot = Shot(ExposureSettings(focus_m=4.0))
    mm = 4000 / (35 / 35.9 * 1280)

    still = wall.render(at(200.0), shot, frame_seed=1)[..., 1].astype(np.float64)
    moved = wall.render(at(200.0 + 0.3 * mm), shot, frame_seed=2)[..., 1].astype(np.float64)

    np.testing.assert_allclose(measured_shift(moved, still), [-0.3, 0.0], atol=0.01)


def test_a_board_corner_lands_on_the_computed_pixel():
    """The board's plane at 1900 mm, camera at x = 137 mm: u = 639.5 + 1247.91086 (X - 137)/1900."""
    world = World(SPEC, LENS, BOARDS, "bookshelf-03")
    plane = next(p for p in world.planes if p.name == "board0")
    x_mm, y_mm = plane.corner_mm[0] + 90.0, plane.corner_mm[1] + 90.0  # 1.5 squares: first inner corner

    pixel = truth(world, at(137.0)).project(np.array([[x_mm, y_mm, 1900.0]]))

    by_hand = [639.5 + 1247.91086 * (x_mm - 137) / 1900, 359.5 + 1247.91086 * y_mm / 1900]
    np.testing.assert_allclose(pixel, [by_hand], atol=1e-3)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("x_mm", [0.0, 200.0, 400.0])
def test_boards_are_seen_whole_and_where_the_truth_puts_them_from_all_the_travel(world, number, x_mm):
    """OpenCV refines corners to a few hundredths of a pixel, biased by their phase, and may miss a marker."""
    poses = at(x_mm, roll_deg=0.02)
    plane = next(p for p in world.planes if p.name == f"board{number}")
    sheet = np.column_stack([plane.outline_mm, np.full(4, plane.depth_mm)])

    corners, points = found_corners(world, number, world.render(poses, BASE, frame_seed=1))

    error = corners - truth(world, poses).project(points)
    edges = truth(world, poses).project(sheet)
    assert (edges > 5).all()
    assert (edges < [1274, 714]).all()
    assert len(corners) >= 20
    assert np.abs(error).max() < 0.15
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=0.05)


@pytest.mark.parametrize("x_mm", [0.0, 100.3, 333.3])
def test_a_printed_square_is_centred_where_the_truth_says(world, x_mm):
    """The first square is black between white margins: the centroid of its ink, in linear light, in a window
    that ends on white to a tenth of a percent, is its centre to 0.003 px."""
    plane = next(p for p in world.planes if p.name == "board0")
    centre = np.array([[plane.corner_mm[0] + 60.0, plane.corner_mm[1] + 60.0, 1900.0]])
    u, v = truth(world, at(x_mm)).project(centre)[0]
    reach = int(np.ceil(30 * 35 / 35.9 * 1280 / 1900 + 3.2))  # half a square, the blur, the pixel

    rows = slice(round(v) - 8, round(v) + 9)
    light = world.light(at(x_mm), BASE)[rows, round(u) - reach : round(u) + reach + 1, 1]
    ink = 0.80 - light.mean(axis=0, dtype=np.float64)

    assert np.abs(ink[[0, -1]]).max() < 3e-3
    assert round(u) + (ink * np.arange(-reach, reach + 1)).sum() / ink.sum() == pytest.approx(u, abs=3e-3)


@pytest.mark.parametrize("k1", [-0.1, 0.08])
def test_a_distorting_lens_shows_boards_where_the_truth_puts_them(k1):
    spec = SPEC.model_copy(update={"distortion_k1": k1})
    world = World(spec, LENS, BOARDS, "bookshelf-03")

    corners, points = found_corners(world, 0, world.render(at(200.0), BASE, frame_seed=1))

    expected = truth(world, at(200.0)).project(points)
    assert len(corners) == 24
    assert np.abs(corners - expected).max() < 0.15
    straight = FrameTruth(
        world.truth_header(BASE).model_copy(update={"distortion_k1": 0.0}),
        truth_row(spec, LENS, at(200.0), BASE),
    )
    assert np.abs(straight.project(points) - expected).max() > 1


def test_a_rolling_shutter_shears_a_moving_picture_as_the_truth_says():
    """300 mm/s for 20 ms of readout: 6 mm between the first and last row, 3.9 px at the upper board."""
    spec = SPEC.model_copy(update={"readout_s": 0.02})
    world = World(spec, LENS, BOARDS, "bookshelf-03")
    shot = Shot(ExposureSettings(iso=400, exposure_s=0.00125))
    poses = sliding(200.0, run_mm=300 * 0.02125)

    corners, points = found_corners(world, 0, world.render(poses, shot, frame_seed=1))

    frame = truth(world, poses, shot)
    assert np.abs(corners - frame.project(points)).max() < 0.2
    all_at_once = truth(World(SPEC, LENS, BOARDS, "bookshelf-03"), at(200.0), shot)
    assert np.abs(all_at_once.project(points) - frame.project(points)).max() > 0.8


def test_motion_blur_lies_around_the_middle_of_the_exposure(wall):
    """A run of 12.8 mm is 4 px at 4 m; the blurred picture equals the mean of sharp ones along the way and is
    where the still picture at its middle is."""
    shot = Shot(ExposureSettings(focus_m=4.0, exposure_s=0.05))
    run_mm = 4 * 4000 / (35 / 35.9 * 1280)

    blurred = wall.light(sliding(200.0, run_mm=run_mm), shot).copy()
    still = wall.light(at(200.0), shot).copy()

    steps = (np.arange(40) + 0.5) / 40 - 0.5
    mean = sum(wall.light(at(200.0 + s * run_mm), shot) for s in steps) / 40
    assert np.abs(blurred - mean).mean() < 0.002 < np.abs(still - mean).mean()
    soft = ndimage.uniform_filter1d(still[150:550, 200:1000, 1], 4, axis=1, origin=0)
    soft = (soft + ndimage.uniform_filter1d(still[150:550, 200:1000, 1], 4, axis=1, origin=-1)) / 2
    shift = measured_shift(blurred[150:550, 200:1000, 1], soft)
    np.testing.assert_allclose(shift, 0, atol=0.01)


def test_defocus_widens_an_edge_by_the_disc_of_the_thin_lens(world):
    """The edge spread's variance grows by R^2/4; the board at 1900 mm focused at 0.9 m and at 1.9 m.

    R = 35/8 * (1000/1900) * 35/865 / 2 * 1280/35.9 = 1.66095 px, R^2/4 = 0.68969 px2; whole cells of the
    texture add 0.02 px2, its bilinear sampling is common to both.
    """
    plane = next(p for p in world.planes if p.name == "board0")
    corner_mm = np.array(
        [[plane.corner_mm[0] + 30, plane.corner_mm[1] + 60, 1900.0]]
    )  # left edge, first square
    u, v = truth(world, at(200.0)).project(corner_mm)[0]
    rows, columns = slice(round(v) - 5, round(v) + 6), slice(round(u) - 7, round(u) + 8)

    variance = []
    for focus_m in (1.9, 0.9):
        profile = world.light(at(200.0), Shot(ExposureSettings(focus_m=focus_m)))[rows, columns, 1].mean(
            axis=0
        )
        weight = -np.diff(profile.astype(np.float64))
        axis = np.arange(len(weight))
        mean = (weight * axis).sum() / weight.sum()
        variance.append((weight * (axis - mean) ** 2).sum() / weight.sum())

    assert variance[1] - variance[0] == pytest.approx(0.68969, abs=0.04)


def test_haze_pulls_every_depth_towards_the_airlight(world):
    """White paper 0.80 at 1900 mm in heavy haze: 0.80 t + 0.60 (1 - t) with t = exp(-0.95) = 0.386741."""
    plane = next(p for p in world.planes if p.name == "board0")
    margin = np.array([[plane.corner_mm[0] + 15, plane.corner_mm[1] + 15, 1900.0]])
    u, v = np.round(truth(world, at(200.0)).project(margin)[0]).astype(int)

    red = world.light(at(200.0), Shot(ExposureSettings(), {"haze": "heavy"}))[v, u, 0]

    assert red == pytest.approx(0.80 * 0.386741 + 0.60 * 0.613259, abs=2e-3)


def test_the_true_field_of_a_sideways_step_is_f_over_z_at_every_depth(world):
    """2 mm at f = 1247.91 px: 2495.82/Z px to the left, whichever plane a pixel shows."""
    gt, lq = truth(world, at(200.0)), truth(world, at(202.0))
    points = np.random.default_rng(1).uniform((0, 0), (1279, 719), (400, 2))

    field = displacement(gt, lq, points)

    depth_mm = gt.locate(points)[:, 2]
    assert len(np.unique(depth_mm)) >= 5
    np.testing.assert_allclose(field[:, 0], -2 * 35 / 35.9 * 1280 / depth_mm, atol=1e-6)
    np.testing.assert_allclose(field[:, 1], 0, atol=1e-6)


def test_the_depth_map_and_the_points_agree_away_from_outlines(world):
    frame = truth(world, at(200.0))
    depth = frame.depth_map()
    points = np.random.default_rng(2).integers((2, 2), (1277, 717), (500, 2))
    patches = np.stack([depth[y - 2 : y + 3, x - 2 : x + 3] for x, y in points])
    flat = np.ptp(patches, axis=(1, 2)) == 0

    located = frame.locate(points[flat].astype(np.float64))[:, 2]

    assert flat.mean() > 0.8
    np.testing.assert_allclose(depth[points[flat][:, 1], points[flat][:, 0]], located)


@pytest.mark.parametrize("x_mm", [0.0, 400.0])
def test_the_wall_fills_the_view_from_both_ends_of_the_travel(world, x_mm):
    frame = truth(world, at(x_mm, roll_deg=0.05))
    rim = np.array([[x, y] for x in (0, 640, 1279) for y in (0, 360, 719)], np.float64)

    assert np.isfinite(frame.locate(rim)).all()
    assert world.light(at(x_mm, roll_deg=0.05), BASE).min(axis=2)[[0, -1]].max() > 0


def test_scenes_differ_by_name_and_come_back_by_name(world):
    again, other = (World(SPEC, LENS, BOARDS, name) for name in ("bookshelf-03", "kitchen-01"))

    pictures = [w.render(at(200.0), BASE, frame_seed=1) for w in (world, again, other)]

    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() > 20


@pytest.mark.parametrize("scene", ["bookshelf-03", "kitchen-01", "held-out"])
def test_a_scene_is_well_exposed_has_depth_and_hides_no_board(scene):
    """Mid-grey codes on average, few clipped, and the boards' planes on top wherever they are."""
    world = World(SPEC, LENS, BOARDS, scene)
    codes = world.render(at(200.0), BASE, frame_seed=None)

    depths_mm = [p.depth_mm for p in world.planes]
    assert 60 < codes.mean() < 150
    assert (codes == 255).mean() < 0.02
    assert depths_mm == sorted(depths_mm, reverse=True)
    assert min(depths_mm) >= 1500
    assert sum(p.name.startswith("thing") for p in world.planes) >= 4
    for number in range(2):
        board = next(p for p in world.planes if p.name == f"board{number}")
        for x_mm in (0.0, 400.0):
            outline = np.column_stack([board.outline_mm, np.full(4, board.depth_mm)])
            frame = truth(world, at(x_mm))
            seen = frame.locate(frame.project(outline) * 0.98 + frame.project(outline).mean(axis=0) * 0.02)
            np.testing.assert_allclose(seen[:, 2], board.depth_mm)


def test_a_folder_of_photographs_textures_the_world(tmp_path):
    for name, colour in (("a.png", (200, 40, 40)), ("b.jpg", (40, 40, 200))):
        cv2.imwrite(str(tmp_path / name), np.full((300, 400, 3), colour, np.uint8))

    world = World(SPEC, LENS, (), "x", photos=tmp_path)

    colours = world.planes[-1].colour.reshape(-1, 3)
    assert np.ptp(colours, axis=0).max() < 0.02


def test_a_folder_without_photographs_is_refused(tmp_path: Path):
    with pytest.raises(SceneError, match="no photograph"):
        World(SPEC, LENS, (), "x", photos=tmp_path)


def test_a_board_behind_the_wall_is_refused():
    spec = SPEC.model_copy(update={"board_depths_mm": (1900.0, 4200.0)})

    with pytest.raises(SceneError, match="board 1 at 4200 mm"):
        World(spec, LENS, BOARDS, "bookshelf-03")
