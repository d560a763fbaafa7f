"""Registration that knows how deep the scene is: the move of the optical centre, and the warp that suits most."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.camera_motion import Pinhole, grid_points, jacobian, map_points
from alignment.parallax import homography_of_most
from alignment.photometry import standard_tone_curve
from alignment.picture import NO_BLUR, Picture
from alignment.registration import Registration, register
from alignment.scene_depths import DepthView, DisparityMap, SceneDepths

TONE = standard_tone_curve("bt709")
CAMERA = Pinhole(500.0, 512, 320)
LEFTWARD = np.array([-1.0, 0.0])
"""Of the picture while positions grow."""
WALL, SHELF = 0.125, 0.25
"""px per mm of planes 4000 and 2000 mm away."""


@pytest.fixture(scope="module")
def world(film_kit):
    """A wall, and before it a shelf that hides the right three eighths of it from 0 mm."""
    return film_kit.World(
        width=512,
        height=320,
        focal_px=500.0,
        planes=(
            film_kit.Plane(4000, 0, 0, 5600, 3400, seed=1),
            film_kit.Plane(2000, 1050, 0, 1580, 2000, seed=2),
        ),
    )


def on_shelf(points_px) -> np.ndarray:
    """The shelf begins 260 mm right of the axis: 65 px right of column 255.5."""
    return points_px[:, 0] > 320.5


@pytest.fixture(scope="module")
def disparities() -> DisparityMap:
    tiles = grid_points(8, 8, 497, 305, columns=32, rows=20)
    return DisparityMap(tiles, np.where(on_shelf(tiles), SHELF, WALL), LEFTWARD)


def registered(kit, world, gap_mm: float, disparities, *, angles_px=(0.0, 0.0), look=None) -> Registration:
    def picture(rail_mm, seed, angles, how) -> Picture:
        codes = kit.expose(world.light(rail_mm, angles_px=angles), how, np.random.default_rng(seed))
        return Picture(np.rint(255 * codes).astype(np.uint8), tone=TONE)

    gt, lq = picture(0.0, 1, (0.0, 0.0), kit.Look()), picture(gap_mm, 2, angles_px, look or kit.Look())
    return register(
        gt, lq, camera=CAMERA, initial=np.eye(3), blur=NO_BLUR, disparities=disparities, models=("rotation",)
    )


def misses_px(found: Registration, gap_mm: float, *, angles_px=(0.0, 0.0)) -> np.ndarray:
    """How far the homography is off over the picture, the edge of the shelf left out; a small turn is a shift."""
    points = grid_points(16, 16, 481, 289, columns=41, rows=25)
    points = points[np.abs(points[:, 0] - 320.5) > 24]
    moved = -gap_mm * np.where(on_shelf(points), SHELF, WALL)
    shown = map_points(found.homography, points) - points - np.array(angles_px)
    return np.hypot(shown[:, 0] - moved, shown[:, 1])


@pytest.mark.parametrize("gap_mm", [-0.9, 0.5])
@pytest.mark.parametrize("look", ["clean", "noisy"])
def test_a_move_of_the_camera_is_told_from_its_turn(film_kit, world, disparities, gap_mm: float, look: str):
    """A turn of 0.4 px is 3.2 mm of rail to the wall.

    Held to 0.02 px between wall and shelf, in noise to 3 sigma, which are below 0.06 px.
    """
    settings = film_kit.Look() if look == "clean" else film_kit.Look(exposure=1 / 16, gain=16.0)

    found = registered(film_kit, world, gap_mm, disparities, angles_px=(0.4, -0.2), look=settings)

    assert found.gap_mm is not None
    assert found.gap_sigma_mm is not None
    limit_mm = 0.02 / (SHELF - WALL) if look == "clean" else 3 * np.array(found.gap_sigma_mm[:2])
    assert np.all(np.abs(np.array(found.gap_mm[:2]) - [gap_mm, 0.0]) < limit_mm)
    assert max(found.gap_sigma_mm[:2]) < 0.06 / (SHELF - WALL)


@pytest.mark.parametrize("gap_mm", [-2.4, 1.2])
def test_a_long_way_between_near_and_far_is_told_to_two_hundredths(film_kit, world, disparities, gap_mm):
    """0.3 px between wall and shelf: one step of all tiles from the same warp would tell 4 to 8 % too much."""
    found = registered(film_kit, world, gap_mm, disparities)

    assert found.gap_mm is not None
    assert found.gap_mm[0] == pytest.approx(gap_mm, rel=0.02)


def test_where_near_meets_far_either_may_be_shown(disparities):
    """Of the five tiles about the edge one or two are of the shelf; those inside of the wall are of one."""
    edge, wall = disparities.sigma_at(np.array([[320.5, 160.0], [100.0, 160.0]]))

    assert edge / (SHELF - WALL) == pytest.approx(0.45, abs=0.06)
    assert wall == 0


def test_the_homography_suits_the_larger_part_of_the_picture(film_kit, world, disparities):
    """1 mm moves wall and shelf by 0.125 and 0.25 px; a fit to all tiles alike would be 0.04 px off both."""
    found = registered(film_kit, world, 1.0, disparities)

    off_px = misses_px(found, 1.0)

    assert np.median(off_px) < 0.01
    assert np.percentile(off_px, 90) == pytest.approx(0.125, abs=0.02)
    assert np.median(off_px) < found.predicted_epe_px < 0.05


def test_what_depth_explains_is_told_apart_from_what_it_does_not(film_kit, world, disparities):
    rest = registered(film_kit, world, 1.0, disparities).leftover
    shelf = rest.measured & on_shelf(rest.centres_px - 24)

    assert np.median(rest.parallax_px[shelf, 0]) == pytest.approx(-0.125, abs=0.015)
    assert np.median(np.abs(rest.unexplained_px[shelf])) < 0.01
    assert np.median(rest.innovation_px[shelf, 0]) == pytest.approx(-0.125, abs=0.02)


def test_a_flat_scene_does_no_harm(film_kit, disparities):
    """A move shifts all of a wall by 0.125 px and a turn its sides by a quarter more: too little to be told apart."""
    wall = film_kit.World(
        width=512, height=320, focal_px=500.0, planes=(film_kit.Plane(4000, 0, 0, 5600, 3400, seed=1),)
    )
    flat = DisparityMap(disparities.centres_px, np.full_like(disparities.disparity_px_per_mm, WALL), LEFTWARD)

    with_depth, without = (registered(film_kit, wall, 1.0, known) for known in (flat, None))

    points = grid_points(0, 0, 512, 320)
    off_px = [
        np.hypot(*(map_points(found.homography, points) - points - [-WALL, 0]).T)
        for found in (with_depth, without)
    ]
    assert np.max(off_px[0]) < max(0.02, np.max(off_px[1]))
    assert np.median(off_px[0]) < 0.01
    assert without.gap_mm is None


def test_what_less_than_half_of_the_picture_does_is_ignored():
    """Six tenths follow a homography, the rest lies 0.2 px beside it: the median misfit of the six tenths is 0."""
    points = grid_points(0, 0, 512, 320, columns=20, rows=15)
    design = jacobian("homography", CAMERA, points)
    truth = np.array([1e-4, -2e-4, 3e-4, 2e-4, 1e-4, -1e-4, 5e-5, -5e-5])
    field = design @ truth
    field[points[:, 0] > 0.6 * 511] += [0.2, 0.0]

    found = homography_of_most(field, design, np.where(points[:, 0] > 0.6 * 511, SHELF, WALL))

    left = np.hypot(*(field - design @ found).T)
    assert np.median(left) < 1e-4
    assert np.max(left[points[:, 0] < 0.59 * 511]) < 1e-3


def test_depths_move_with_the_camera_and_the_nearest_places_count():
    """From 10 mm on, a tile of 0.5 px per mm is 5 px farther left; of three places the two nearest are asked."""
    tile = np.array([[100.0, 50.0]])
    views = tuple(DepthView(x, tile, np.array([d])) for x, d in ((0.0, 0.5), (20.0, 0.6), (500.0, 0.9)))
    scene = SceneDepths(tile, np.array([0.6]), LEFTWARD, views)

    seen = scene.seen_from(10.0)

    assert seen.centres_px == pytest.approx(np.array([[95.0, 50.0], [106.0, 50.0]]))
    assert seen.at(np.array([[0.0, 0.0]])) == pytest.approx([0.55])
    assert SceneDepths(tile, np.array([0.6]), LEFTWARD).seen_from(10.0).centres_px == pytest.approx(tile)
