import numpy as np
import pytest
import skimage.data
from scipy.ndimage import map_coordinates

from alignment.camera_motion import Pinhole, map_points, motion_matrix
from alignment.spline import bspline, spline_coefficients, warp_near_shift

SHIFT_20 = np.array([[1, 0, 20.0], [0, 1, 20.0], [0, 0, 1]])


def shift(dx, dy):
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param([0.0004, 0.0005, 0.0009, 0.0], id="turned by 0.05 degrees"),
        pytest.param([0.001, 0.0, 0.0, 0.006], id="breathing by 0.6 per cent"),
    ],
)
def test_the_warp_is_scipys_quintic_spline(parameters):
    """Another implementation that weighs every pixel's 6 × 6 taps by themselves; 1e-3 is a quarter of a code."""
    photo = skimage.data.astronaut().astype(np.float32) / 255
    motion = motion_matrix("scale", Pinhole(600.0, 512, 512), np.array(parameters)) @ SHIFT_20
    y, x = np.mgrid[0:470, 0:472].astype(float)
    at = map_points(motion, np.column_stack([x.ravel(), y.ravel()]))

    warped = warp_near_shift(spline_coefficients(photo), motion, (472, 470))

    for channel in range(3):
        expected = map_coordinates(photo[..., channel].astype(float), at.T[::-1], order=5, mode="mirror")
        error = warped[..., channel] - expected.reshape(470, 472)
        assert np.abs(error).max() < 1e-3
        assert np.sqrt(np.mean(error**2)) < 5e-5


def test_whole_shifts_return_the_pixels_themselves():
    photo = skimage.data.camera().astype(np.float32) / 255

    warped = warp_near_shift(spline_coefficients(photo), shift(11, 7), (400, 300))

    assert warped == pytest.approx(photo[7:307, 11:411], abs=2e-5)


@pytest.mark.parametrize("phase", [0.1, 0.21, 0.25, 0.5, 0.9])
def test_the_kernel_moves_nothing(phase):
    """A ramp has no detail to lose, only a place: it tells the first moment, which OpenCV's bicubic has wrong."""
    ramp = np.tile(np.arange(96, dtype=np.float32), (64, 1))

    warped = warp_near_shift(spline_coefficients(ramp), shift(30 + phase, 20), (32, 16))

    assert warped == pytest.approx(ramp[20:36, 30:62] + phase, abs=1e-4)


@pytest.mark.parametrize(("cycles_per_px", "kept"), [(0.1, 1.0), (0.3, 0.9874), (0.4, 0.8377)])
def test_detail_survives_half_a_pixel(cycles_per_px, kept):
    """Amplitude kept by the worst shift; at 0.4 cycles per px bilinear keeps 0.31 and Lanczos4 0.79.

    With w = 2 pi f: 2 (1682 cos(w/2) + 237 cos(3w/2) + cos(5w/2)) / 3840 over (66 + 52 cos w + 2 cos 2w) / 120.
    """
    wave = np.tile(np.cos(2 * np.pi * cycles_per_px * np.arange(256)).astype(np.float32), (64, 1))

    warped = warp_near_shift(spline_coefficients(wave), shift(40.5, 20), (160, 16))

    whole_periods = np.exp(-2j * np.pi * cycles_per_px * np.arange(160))
    assert 2 * np.abs(np.mean(warped[8] * whole_periods)) == pytest.approx(kept, abs=2e-4)


def test_the_basis_function_is_that_of_degree_five():
    """At the whole numbers it is 66, 26 and 1 out of 120; it ends at three."""
    assert bspline(np.array([0.0, 1.0, 2.0, 3.0])) * 120 == pytest.approx([66, 26, 1, 0], abs=1e-9)


def test_asking_outside_the_source_is_an_error():
    coefficients = spline_coefficients(np.zeros((64, 64), np.float32))

    with pytest.raises(ValueError, match="outside"):
        warp_near_shift(coefficients, shift(10, 0), (60, 40))
