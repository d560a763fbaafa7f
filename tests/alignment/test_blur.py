import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.blur import blur_light, box_kernel, disc_kernel
from catalog.evidence import BlurRecord


def spread_px2(kernel, axis):
    """Second moment of a kernel along an axis."""
    offset = np.arange(kernel.shape[axis]) - kernel.shape[axis] // 2
    return float(kernel.sum(axis=1 - axis) @ offset**2)


@settings(deadline=None)
@given(radius_px=st.floats(0.3, 12.0))
def test_a_disc_kernel_spreads_as_its_disc_does(radius_px):
    """The second moment of a disc along any axis is r² / 4."""
    kernel = disc_kernel(radius_px)

    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    assert kernel == pytest.approx(kernel.T, abs=1e-7)
    assert spread_px2(kernel, 0) == pytest.approx(radius_px**2 / 4, rel=0.02, abs=0.003)


@settings(deadline=None)
@given(length_px=st.floats(0.5, 40.0))
def test_a_box_kernel_spreads_as_its_line_does_and_only_along_the_row(length_px):
    """The second moment of a line is its length² / 12."""
    kernel = box_kernel(length_px)

    assert kernel.shape[0] == 1
    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    assert spread_px2(kernel, 1) == pytest.approx(length_px**2 / 12, rel=0.02, abs=0.003)


def test_no_blur_changes_nothing():
    light = np.random.default_rng(0).random((9, 9), np.float32)

    assert blur_light(light, BlurRecord(kind="none", size_px=0.0)) is light


def test_blur_keeps_the_light_and_stays_centred():
    """A point of light becomes a disc around the same pixel, its light unchanged."""
    light = np.zeros((31, 41), np.float32)
    light[15, 20] = 7.0

    spread = blur_light(light, BlurRecord(kind="disc", size_px=4.0))

    y, x = np.mgrid[0:31, 0:41]
    assert spread.sum() == pytest.approx(7.0, rel=1e-5)
    assert (spread * x).sum() / 7 == pytest.approx(20, abs=1e-4)
    assert (spread * y).sum() / 7 == pytest.approx(15, abs=1e-4)


def test_a_size_counts_pixels_of_the_full_frame():
    light = np.zeros((31, 31), np.float32)
    light[15, 15] = 1.0

    reduced = blur_light(light, BlurRecord(kind="motion", size_px=12.0), scale=2)

    assert reduced == pytest.approx(blur_light(light, BlurRecord(kind="motion", size_px=6.0)), abs=1e-7)
