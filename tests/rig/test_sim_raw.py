"""Raw stills of the simulated rig: whole files that LibRaw opens, and pairs that come out of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from alignment.raw import develop
from rig.sim.dng import dng
from rig.sim.sensor import RAW_BLACK, RAW_WHITE, mosaic

rawpy = pytest.importorskip("rawpy")


def test_the_mosaic_has_red_first_and_blue_in_the_second_row():
    """White less black is 16127: a quarter is 256 + 4031.75, a half 8319.5 (rounded to even), three 12351.25."""
    signal = np.broadcast_to(np.array([0.25, 0.5, 0.75], np.float32), (4, 6, 3))

    codes = mosaic(signal)

    assert codes[0, 0] == codes[2, 4] == 4288
    assert codes[0, 1] == codes[1, 0] == 8320
    assert codes[1, 1] == codes[3, 5] == 12351


def test_what_clips_is_white_and_noise_below_black_is_kept():
    signal = np.array([[[1.5] * 3, [-0.01] * 3], [[0.0] * 3, [-1.0] * 3]], np.float32)

    codes = mosaic(signal)

    assert codes.tolist() == [[RAW_WHITE, RAW_BLACK - 161], [RAW_BLACK, 0]]


def test_a_raw_converter_reads_the_samples_back():
    rng = np.random.default_rng(5)
    codes = rng.integers(0, RAW_WHITE + 1, (48, 64)).astype(np.uint16)

    with rawpy.imread(io.BytesIO(dng(codes, neutral=(1.0, 1.0, 1.0)))) as raw:
        assert np.array_equal(raw.raw_image, codes)
        assert raw.black_level_per_channel == [RAW_BLACK] * 4
        assert raw.white_level == RAW_WHITE
        assert raw.raw_pattern.tolist() == [[0, 1], [3, 2]]


@pytest.mark.parametrize("neutral", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.25)])
def test_grey_light_is_developed_to_its_srgb_code_whatever_the_body_took_for_grey(
    tmp_path: Path, neutral: tuple[float, float, float]
):
    """Light of 0.2 is sRGB 0.4845, code 123.5; ground truth and degraded stills get the same development."""
    codes = mosaic(np.full((64, 96, 3), 0.2, np.float32))
    path = tmp_path / "grey.nef"
    path.write_bytes(dng(codes, neutral=neutral))

    developed = develop(path)

    assert developed.shape == (64, 96, 3)
    assert np.abs(developed.astype(int) - 123.5).max() <= 1.5
