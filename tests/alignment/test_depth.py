"""Depths of a scene of planes, from pictures taken a known way apart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from alignment.camera_motion import Pinhole
from alignment.depth import (
    StereoView,
    measure_depths,
    position_gap,
    seen_parallax_px,
    stereo_baselines,
)
from alignment.photometry import standard_tone_curve
from alignment.picture import Picture
from alignment.registration import register
from alignment.scene_depths import SceneDepths

TONE = standard_tone_curve("bt709")
LEFTWARD = np.array([-1.0, 0.0])
"""Of the picture while positions grow."""


@pytest.fixture(scope="module")
def small_world(film_kit):
    """Planes at 4000, 2500 and 1600 mm before a camera of f = 500 px: 0.125, 0.2 and 0.3125 px per mm."""
    return film_kit.World(
        width=512,
        height=320,
        focal_px=500.0,
        planes=(
            film_kit.Plane(4000, 0, 0, 5600, 3400, seed=1),
            film_kit.Plane(2500, 700, 300, 1500, 900, seed=2),
            film_kit.Plane(1600, -450, 250, 700, 500, seed=3),
        ),
    )


def picture(kit, world, rail_mm: float, *, seed: int, angles_px=(0.0, 0.0), look=None) -> Picture:
    light = world.light(rail_mm, angles_px=angles_px)
    codes = kit.expose(light, look or kit.Look(), np.random.default_rng(seed))
    return Picture(np.rint(255 * codes).astype(np.uint8), tone=TONE)


@pytest.fixture(scope="module")
def depths(film_kit, small_world) -> SceneDepths:
    views = [
        StereoView(
            picture(film_kit, small_world, x, seed=i),
            x,
            [(picture(film_kit, small_world, x + way, seed=i + 50), x + way) for way in (5.0, 20.0)],
            shift_px=np.array([5 * 0.2, 0.0]),
        )
        for i, x in enumerate((0.0, 4.0, 8.0))
    ]
    found = measure_depths(views, camera=Pinhole(500.0, 512, 320), direction=LEFTWARD)
    assert found is not None
    return found


def seen_parallax(found, depths: SceneDepths) -> float:
    return seen_parallax_px(found, depths.seen_from(3.0), spread_px_per_mm=depths.spread_px_per_mm)


def test_near_and_far_are_told_by_their_speed(depths: SceneDepths):
    """Each plane fills far more than 2 % of the tiles, so the percentiles are the nearest and the farthest."""
    assert depths.range_px_per_mm == pytest.approx((0.125, 0.3125), abs=0.02)


def test_disparities_are_told_to_a_hundredth(depths: SceneDepths):
    """Inside of the planes; a tile across an edge may be of either side."""
    inside = {0.125: (60, 60), 0.2: (430, 250), 0.3125: (130, 250)}

    for true, place in inside.items():
        seen = depths.seen_from(4.0)
        assert seen.at(np.array([place]))[0] == pytest.approx(true, rel=0.01)
        assert seen.sigma_at(np.array([place]))[0] < 0.003


def test_a_turn_between_the_frames_weighs_by_the_longest_baseline(film_kit, small_world):
    """0.05 px of turn are 0.01 px/mm over 5 mm, 0.0025 over 20 mm."""
    x, turned_px = 4.0, (0.05, 0.0)
    others = [
        (picture(film_kit, small_world, x + way, seed=seed, angles_px=turned_px), x + way)
        for seed, way in enumerate((5.0, 20.0))
    ]
    view = StereoView(picture(film_kit, small_world, x, seed=9), x, others, shift_px=np.array([1.0, 0.0]))

    found = measure_depths([view], camera=Pinhole(500.0, 512, 320), direction=LEFTWARD)

    assert found is not None
    wall = found.seen_from(x).at(np.array([[60.0, 60.0]]))[0]
    assert abs(wall - 0.125) == pytest.approx(0.0025, abs=0.001)


def test_the_position_limit_is_the_parallax_over_the_spread(depths: SceneDepths):
    """0.25 px over 0.1875 px per mm is 1.33 mm."""
    assert depths.position_limit_mm(0.25) == pytest.approx(1.33, rel=0.15)
    flat = SceneDepths(np.zeros((20, 2)), np.full(20, 0.3))
    assert flat.position_limit_mm() == np.inf


@pytest.mark.parametrize("gap_mm", [-0.8, 0.0, 1.1])
@pytest.mark.parametrize("look", ["clean", "noisy"])
def test_a_turn_of_the_camera_is_no_move_along_the_rail(
    film_kit, small_world, depths, gap_mm: float, look: str
):
    """A turn of 0.5 px would pass for 2.5 mm of rail at the middle plane."""
    settings = film_kit.Look() if look == "clean" else film_kit.Look(exposure=1 / 16, gain=16.0)
    gt = picture(film_kit, small_world, 3.0, seed=7)
    lq = picture(film_kit, small_world, 3.0 + gap_mm, seed=8, angles_px=(0.5, -0.2), look=settings)

    found = register(gt, lq, camera=Pinhole(500.0, 512, 320), initial=np.eye(3), models=("rotation",))
    gap = position_gap(found, depths.seen_from(3.0))

    assert gap is not None
    assert gap[0] == pytest.approx(gap_mm, abs=0.25)
    assert gap[1] < 0.2


@pytest.mark.parametrize("models", [("rotation",), ("homography",)])
def test_parallax_is_seen_whatever_told_the_positions(film_kit, small_world, depths, models):
    """2 mm are 0.375 px between near and far; what is told keeps two standard deviations below."""
    gt, camera = picture(film_kit, small_world, 3.0, seed=7), Pinhole(500.0, 512, 320)
    lq = picture(film_kit, small_world, 5.0, seed=8, angles_px=(0.5, -0.2))

    found = register(gt, lq, camera=camera, initial=np.eye(3), models=models)

    assert 0.2 < seen_parallax(found, depths) < 0.42
    assert seen_parallax_px(found, None, spread_px_per_mm=0.0) == 0


def test_a_turned_and_breathing_camera_shows_no_parallax(film_kit, small_world, depths):
    """The picture grows by 0.5 %: 1.3 px at the sides, where near things stand."""
    gt = picture(film_kit, small_world, 3.0, seed=7)
    level = picture(film_kit, small_world, 3.0, seed=8, angles_px=(0.5, -0.2)).rgb
    grown = cv2.warpAffine(
        level, np.array([[1.005, 0, -0.005 * 255.5], [0, 1.005, -0.005 * 159.5]]), (512, 320)
    )
    found = register(gt, Picture(grown, tone=TONE), camera=Pinhole(500.0, 512, 320), initial=np.eye(3))

    assert seen_parallax(found, depths) < 0.05


READ_MM = 4.0
"""Way of the carriage between the first and the last row: 80 mm/s and 50 ms, far more than a camera's."""


def read_row_by_row(kit, world, rail_mm: float) -> Picture:
    """Bands of 20 rows, each from where the carriage is in its middle; near things lie low in this world."""
    light = np.array(world.light(rail_mm))
    for top in range(0, 320, 20):
        share = (top + 9.5 - 159.5) / 319
        light[top : top + 20] = world.light(rail_mm + READ_MM * share)[top : top + 20]
    codes = kit.expose(light, kit.Look(), np.random.default_rng(8))
    return Picture(np.rint(255 * codes).astype(np.uint8), tone=TONE)


def test_rows_read_one_after_the_other_are_no_gap_where_near_things_lie_low(film_kit, small_world, depths):
    """Told of the shutter, parallax gives the middle row's gap; untold, the lower rows' way passes for some of it."""
    gt, lq = picture(film_kit, small_world, 3.0, seed=7), read_row_by_row(film_kit, small_world, 3.4)
    found = register(gt, lq, camera=Pinhole(500.0, 512, 320), initial=np.eye(3), models=("rotation",))

    told = position_gap(found, depths.seen_from(3.0), readout_gap_mm=READ_MM)
    untold = position_gap(found, depths.seen_from(3.0))

    assert told is not None
    assert untold is not None
    assert told[0] == pytest.approx(0.4, abs=0.1)
    assert abs(untold[0] - 0.4) > 0.15


def test_a_shutter_shears_by_the_depths_of_the_outer_rows():
    """Eleven rows of disparity 0.2 but 0.5 in the first and last: sum of d s² over that of s² (s = k/10, k to ±5).

    s² sums to 2·(1+4+9+16+25)/100 = 1.1; d s² to 0.2·1.1 + 0.3·2·0.25 = 0.37; the slope is 0.37/1.1.
    """
    rows = np.arange(11.0)
    disparity = np.where((rows == 0) | (rows == 10), 0.5, 0.2)
    found = SceneDepths(np.column_stack([np.zeros(11), rows]), disparity)

    assert found.shear_px_per_mm(11) == pytest.approx(0.37 / 1.1)


def test_a_flat_scene_cannot_tell_turns_from_moves(film_kit, small_world):
    flat = SceneDepths(np.random.default_rng(0).uniform(0, 500, (60, 2)), np.full(60, 0.2))
    gt, lq = picture(film_kit, small_world, 0.0, seed=1), picture(film_kit, small_world, 0.0, seed=2)
    found = register(gt, lq, camera=Pinhole(500.0, 512, 320), initial=np.eye(3), models=("rotation",))

    assert position_gap(found, flat.seen_from(0.0)) is None


def test_baselines_are_spread_over_the_round_and_of_one_length():
    """1.2 and 4.8 px at 0.6 px per mm are 2 and 8 mm, 4 and 16 frames of 0.5 mm."""
    chosen = stereo_baselines([0.5 * i for i in range(41)], px_per_mm=0.6, count=4)

    assert [(b - a, c - a) for a, b, c in chosen] == [(4, 16)] * 4
    assert chosen[0][0] == 0
    assert chosen[-1][-1] == 40


def test_a_short_round_is_seen_over_short_baselines():
    """Of 3 mm only 2 are left; 1 mm is too little; frames 10 mm apart are the nearest and the farthest at once."""
    assert stereo_baselines([0.5 * i for i in range(7)], px_per_mm=0.6, count=2) == [(0, 4), (2, 6)]
    assert stereo_baselines([0.0, 0.5, 1.0], px_per_mm=0.6) == []
    assert stereo_baselines([0.0, 10.0, 20.0], px_per_mm=0.6) == [(0, 1), (1, 2)]
