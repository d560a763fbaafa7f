"""Geometry and blur of the simulated camera against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.session_folder import LensSpec
from rig.sim.optics import (
    ROW_KNOTS,
    Pinhole,
    blur_radius_px,
    disc_kernel,
    exposed_poses,
    focal_length_px,
    rotations,
    row_interpolated,
)

LENS = LensSpec(focal_mm=35, sensor_width_mm=35.9, scene_depth_mm=(1500, 4000))
STILL = np.zeros(6)


def pose(**members: float) -> np.ndarray:
    names = ("x", "y", "z", "pitch", "yaw", "roll")
    return np.array([members.get(name, 0.0) for name in names])


def test_a_point_lands_where_the_pinhole_puts_it():
    """f = 35/35.9 * 1280 = 1247.9109 px; (100, -50, 2000) mm seen from x = 40 mm:
    u = 639.5 + 1247.9109 * 60/2000 = 676.9373, v = 359.5 - 1247.9109 * 50/2000 = 328.3022."""
    camera = Pinhole(focal_length_px(LENS, 1280, focus_m=2.0, breathing=0.0), 1280, 720)

    pixel = camera.project(np.array([[100.0, -50.0, 2000.0]]), pose(x=40.0))

    np.testing.assert_allclose(pixel, [[676.93733, 328.30223]], atol=1e-4)


@pytest.mark.parametrize(("k2", "expected"), [(0.0, 0.975), (0.16, 0.985)])
def test_distortion_moves_a_point_along_its_radius(k2, expected):
    """At normalised (0.3, 0.4), r = 0.5: 1 - 0.1 * 0.25 = 0.975 by k1 = -0.1, and 0.16 * 0.0625 = 0.01 more by k2."""
    camera = Pinhole(1000.0, 1280, 720, k1=-0.1, k2=k2)

    pixel = camera.project(np.array([[300.0, 400.0, 1000.0]]), STILL)

    np.testing.assert_allclose(pixel, [[639.5 + 300 * expected, 359.5 + 400 * expected]], atol=1e-9)


@pytest.mark.parametrize(
    ("turn", "shift_px"),
    [
        ({"yaw": 0.05}, (0.87266, 0.0)),  # 1000 px * 0.05 deg = 0.000872665 rad
        ({"pitch": 0.05}, (0.0, -0.87266)),
        ({"roll": 0.05}, (0.0, 0.0)),
    ],
)
def test_small_rotations_move_the_centre_as_the_registration_model_says(turn, shift_px):
    """dx = f (wy - Y wz), dy = f (-wx + X wz) at the centre, X = Y = 0."""
    camera = Pinhole(1000.0, 1280, 720)

    pixel = camera.project(np.array([[0.0, 0.0, 2000.0]]), pose(**turn))

    np.testing.assert_allclose(pixel[0] - camera.centre_px, shift_px, atol=1e-5)


def test_roll_turns_the_right_edge_down():
    """dy = f X wz = 500 px * 0.00087266 = 0.4363 px."""
    camera = Pinhole(1000.0, 1280, 720)

    pixel = camera.project(np.array([[1000.0, 0.0, 2000.0]]), pose(roll=0.05))

    np.testing.assert_allclose(pixel[0] - [1139.5, 359.5], [0.0, 0.43633], atol=3e-4)


def test_no_rotation_is_exactly_the_identity():
    np.testing.assert_array_equal(rotations(np.zeros((2, 6))), np.broadcast_to(np.eye(3), (2, 3, 3)))


@given(
    st.tuples(st.floats(0, 1279), st.floats(0, 719)),
    st.tuples(st.floats(-0.2, 0.2), st.floats(-0.1, 0.1)),
    st.floats(500, 5000),
    st.floats(-0.1, 0.1),
)
def test_a_ray_meets_the_plane_where_the_projection_came_from(pixel, distortion, depth_mm, angle_deg):
    camera = Pinhole(1250.0, 1280, 720, *distortion)
    seen_from = pose(x=210.0, y=0.3, z=-0.2, pitch=angle_deg, yaw=-angle_deg, roll=angle_deg / 2)

    on_plane = camera.hit(np.array([pixel]), seen_from, depth_mm)
    world = np.column_stack([on_plane, [[depth_mm]]])

    np.testing.assert_allclose(camera.project(world, seen_from), [pixel], atol=1e-6)


def test_the_homography_of_a_plane_agrees_with_the_projection_of_its_points():
    camera = Pinhole(1250.0, 1280, 720)
    seen_from = pose(x=210.0, y=0.3, z=-0.2, pitch=0.02, yaw=-0.03, roll=0.01)
    points = np.array([[0.0, -100.0], [300.0, 200.0], [-400.0, 120.0]])

    image = np.column_stack([points, np.ones(3)]) @ camera.plane_to_image(seen_from, 1800.0).T
    direct = camera.project(np.column_stack([points, np.full(3, 1800.0)]), seen_from)

    np.testing.assert_allclose(image[:, :2] / image[:, 2:], direct, atol=1e-9)


def test_the_disc_of_confusion_follows_the_thin_lens():
    """F/8 at 35 mm: aperture 4.375 mm; focus 0.9 m, point at 2 m:
    4.375 * 1100/2000 * 35/865 = 0.0973627 mm = 3.47142 px across at 1280/35.9 px per mm, radius 1.73571."""
    radius = blur_radius_px(LENS, 1280, f_number=8, focus_m=0.9, depth_mm=2000)

    assert radius == pytest.approx(1.73571, abs=1e-4)


def test_a_point_in_focus_is_sharp():
    assert blur_radius_px(LENS, 1280, f_number=2, focus_m=2.0, depth_mm=2000) == 0


def test_breathing_scales_the_picture_by_the_thin_lens():
    """Image distance F (1 + F/(Zf - F)): 35/(900 - 35) = 4.046 % longer at 0.9 m, half of it at 0.5."""
    nominal = 35 / 35.9 * 1280

    focal_px = focal_length_px(LENS, 1280, focus_m=0.9, breathing=0.5)

    assert focal_px / nominal == pytest.approx(1 + 0.5 * 35 / 865)


@pytest.mark.parametrize("radius", [0.7, 2.0, 3.3, 8.0])
def test_a_disc_kernel_keeps_the_light_in_place_and_spreads_it_by_a_quarter_square_radius(radius):
    """A disc of radius R has variance R^2/4 along each axis; whole cells of one sample add about 1/12."""
    kernel = disc_kernel(radius).astype(np.float64)
    axis = np.arange(len(kernel)) - len(kernel) // 2

    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert (kernel * axis).sum() == pytest.approx(0, abs=1e-6)
    assert (kernel * axis**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, abs=0.06)


def uniform_motion(speed_mm_s: float, duration_s: float) -> np.ndarray:
    poses = np.zeros((5, 6))
    poses[:, 0] = np.linspace(0, speed_mm_s * duration_s, 5)
    return poses


def test_a_still_camera_needs_one_instant():
    instants = exposed_poses(uniform_motion(0, 0.01), exposure_s=0.01, readout_s=0, px_per_mm=0.8)

    assert instants.shape == (1, 1, 6)


def test_instants_fill_the_exposure_evenly_around_its_middle():
    """100 mm/s for 50 ms is 5 mm, 4 px: 8 instants half a pixel apart, mean at 2.5 mm."""
    instants = exposed_poses(uniform_motion(100, 0.05), exposure_s=0.05, readout_s=0, px_per_mm=0.8)

    np.testing.assert_allclose(instants[:, 0, 0], 5 * (np.arange(8) + 0.5) / 8)


def test_rolling_rows_are_exposed_one_after_the_other():
    """Readout 20 ms and exposure 5 ms at 100 mm/s: first row's middle at 0.25 mm, last row's at 2.25 mm."""
    instants = exposed_poses(uniform_motion(100, 0.025), exposure_s=0.005, readout_s=0.02, px_per_mm=0.8)

    rows = instants.mean(axis=0)

    assert len(rows) == ROW_KNOTS
    np.testing.assert_allclose(rows[[0, -1], 0], [0.25, 2.25])
    np.testing.assert_allclose(
        row_interpolated(rows, np.array([0.0, 50.0, 100.0]), 101)[:, 0], [0.25, 1.25, 2.25]
    )
