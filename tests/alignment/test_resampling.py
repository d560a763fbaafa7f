from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.camera_motion import Pinhole, grid_points, inverted, map_points, motion_matrix
from alignment.errors import NoOverlapError, PictureFormatError
from alignment.photometry import standard_tone_curve
from alignment.picture import Picture
from alignment.registration import register
from alignment.resampling import MARGIN_PX, common_crop, deliver, warp_in_light
from catalog.intensity import intensity

TONE = standard_tone_curve("srgb")
SIZE = (400, 304)
CAMERA = Pinhole(400.0, *SIZE)


def shift(dx, dy):
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def frame(dx=0.0, dy=0.0, dtype=np.uint8):
    """A photograph moved by its Fourier phase in linear light, at half its size, coded in ``dtype``."""
    photo = cv2.GaussianBlur(TONE.light_of(cv2.resize(skimage.data.astronaut(), (1024, 1024))), (0, 0), 1.2)
    fy, fx = np.fft.fftfreq(1024)[:, None, None], np.fft.rfftfreq(1024)[None, :, None]
    spectrum = np.fft.rfft2(photo, axes=(0, 1)) * np.exp(-4j * np.pi * (fx * dx + fy * dy))
    moved = np.fft.irfft2(spectrum, s=(1024, 1024), axes=(0, 1)).astype(np.float32)
    light = cv2.resize(moved, (512, 512), interpolation=cv2.INTER_AREA)
    return TONE.pixels(light, np.dtype(dtype))[40 : 40 + SIZE[1], 50 : 50 + SIZE[0]].copy()


@pytest.fixture(scope="module")
def registration():
    """Of two equal frames; tests put their own homography into it."""
    picture = Picture(frame(), tone=TONE)
    return register(picture, picture, camera=CAMERA, initial=np.eye(3))


def test_the_degraded_frame_is_cut_and_never_resampled(registration):
    gt, lq = frame(), frame(1.4, -0.6)

    pair = deliver(gt, lq, replace(registration, homography=shift(1.4, -0.6)), tone=TONE)

    x, y, width, height = pair.lq_crop
    assert np.array_equal(pair.lq, lq[y : y + height, x : x + width])


def test_ground_truth_that_lies_within_the_limit_is_only_cut(registration):
    """3.03 px to the right and 2.02 px up: after 3 and -2 whole pixels 0.036 px are left."""
    gt = frame()

    pair = deliver(gt, frame(3.03, -2.02), replace(registration, homography=shift(3.03, -2.02)), tone=TONE)

    x, y, width, height = pair.lq_crop
    assert not pair.gt_warped
    assert pair.kernel == "none"
    assert pair.gt_from_pair == pytest.approx(shift(x - 3, y + 2))
    assert np.array_equal(pair.gt, gt[y + 2 : y + 2 + height, x - 3 : x - 3 + width])
    assert pair.max_displacement_px == pytest.approx(np.hypot(0.03, 0.02), abs=1e-6)
    assert pair.residual_px == pytest.approx(np.hypot(0.03, 0.02), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_ground_truth_is_warped_onto_the_degraded_frame(registration, dtype):
    """The warped truth equals the frame filmed there, to 0.6 code in the mean."""
    gt, there = frame(dtype=dtype), frame(0.4, -0.3, dtype=dtype)

    pair = deliver(gt, there, replace(registration, homography=shift(0.4, -0.3)), tone=TONE)

    assert pair.gt_warped
    assert pair.gt.dtype == dtype
    assert pair.mu * 255 < 0.6
    assert pair.residual_px < 0.005


def test_the_residual_of_a_warped_pair_is_measured_in_its_pixels(registration):
    """A homography that is wrong by 0.2 px leaves 0.2 px, whatever it claims."""
    wrong = replace(registration, homography=shift(0.6, -0.3))

    pair = deliver(frame(), frame(0.4, -0.3), wrong, tone=TONE)

    assert pair.residual_px == pytest.approx(0.2, abs=0.02)


def test_gt_from_pair_and_the_crop_compose_to_the_homography(registration):
    """Pair pixel to ground truth to degraded frame is the pair pixel plus the crop's corner."""
    homography = motion_matrix("rotation", CAMERA, np.radians([0.05, 0.1, 0.05]))

    pair = deliver(frame(), frame(), replace(registration, homography=homography), tone=TONE)

    points = grid_points(0, 0, *pair.lq_crop[2:])
    seen = map_points(homography, map_points(pair.gt_from_pair, points))
    assert seen == pytest.approx(points + pair.lq_crop[:2], abs=1e-9)


@given(
    dx=st.floats(-40, 40), dy=st.floats(-40, 40), roll_deg=st.floats(-0.3, 0.3),
    width=st.integers(300, 700), height=st.integers(300, 700),
)  # fmt: skip
@settings(deadline=None)
def test_a_crop_is_even_in_place_eightfold_in_size_and_inside_both_frames(dx, dy, roll_deg, width, height):
    camera = Pinhole(500.0, width, height)
    homography = shift(dx, dy) @ motion_matrix("rotation", camera, np.radians([0, 0, roll_deg]))

    (x, y, w, h), share = common_crop(homography, (width, height))

    corners_gt = map_points(inverted(homography), grid_points(x, y, w, h, columns=2, rows=2))
    assert x % 2 == y % 2 == w % 8 == h % 8 == 0
    assert min(x, y) >= MARGIN_PX
    assert x + w <= width - MARGIN_PX
    assert y + h <= height - MARGIN_PX
    assert corners_gt.min() >= MARGIN_PX - 1.0
    assert (corners_gt <= np.array([width, height]) - MARGIN_PX).all()
    assert share * width * height >= w * h


def test_the_crop_wastes_less_than_one_step():
    """1920 × 1080 less 16 px each side is 1888 × 1048, both multiples of 8."""
    crop, share = common_crop(np.eye(3), (1920, 1080))

    assert crop == (16, 16, 1888, 1048)
    assert share == 1.0


def test_frames_that_hardly_overlap_are_refused():
    with pytest.raises(NoOverlapError):
        common_crop(shift(350, 0), (400, 400))


def test_grey_frames_are_refused(registration):
    with pytest.raises(PictureFormatError):
        deliver(frame()[..., 0], frame(), registration, tone=TONE)


def test_warping_in_light_keeps_the_brightness_of_an_edge():
    """Half a pixel across a black and white edge is half the light, code 188 in sRGB, not the mean code 128."""
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255

    warped = warp_in_light(edge, shift(0.5 + 16, 16), (30, 30), tone=TONE)

    assert warped[15, 15, 0] == pytest.approx(188, abs=1)


def test_intensity_is_the_mean_and_the_deviation_of_the_difference():
    """Half of the values differ by 51 of 255, the others by none: mean 0.1, deviation 0.1."""
    gt = np.zeros((4, 4, 3), np.uint8)
    lq = gt.copy()
    lq[:2] = 51

    assert intensity(gt, lq) == pytest.approx((0.1, 0.1))
    assert intensity(gt.astype(np.uint16) * 257, lq.astype(np.uint16) * 257) == pytest.approx((0.1, 0.1))
