"""Raw stills are developed alike, whatever they show; the mosaics are written here, so their light is known."""

from __future__ import annotations

import numpy as np
import pytest
from dng import write_dng

from alignment.decode import list_stills, open_stills
from alignment.errors import DecodeError
from alignment.photometry import standard_tone_curve
from alignment.raw import develop

pytest.importorskip("rawpy", reason="the extra raw is not installed")


def grey(light: float) -> np.ndarray:
    return np.full((48, 64, 3), light)


def light_of(path) -> float:
    codes = develop(path)[8:-8, 8:-8]
    return float(standard_tone_curve("srgb").light_of(codes).mean())


def test_half_the_light_is_developed_to_half_the_light(tmp_path):
    """Nothing may adapt to the picture: 0.4 and 0.2 of full scale keep their ratio of 2 to a code's precision."""
    write_dng(tmp_path / "bright.dng", grey(0.4))
    write_dng(tmp_path / "half.dng", grey(0.2))

    assert light_of(tmp_path / "bright.dng") / light_of(tmp_path / "half.dng") == pytest.approx(2.0, rel=0.02)


def test_a_dark_picture_among_bright_ones_is_not_brightened(tmp_path):
    """White balance of this body is neutral, so a grey of 2 % stays 2 %."""
    write_dng(tmp_path / "dark.dng", grey(0.02))

    assert light_of(tmp_path / "dark.dng") == pytest.approx(0.02, abs=0.002)


def test_colours_stay_where_they_are(tmp_path):
    """The left half is red, the right half blue, upright and of the mosaic's size."""
    picture = np.zeros((48, 64, 3))
    picture[:, :32, 0], picture[:, 32:, 2] = 0.5, 0.5
    write_dng(tmp_path / "two.dng", picture)

    codes = develop(tmp_path / "two.dng")

    assert codes.shape == (48, 64, 3)
    assert np.argmax(codes[10:-10, 4:24].mean(axis=(0, 1))) == 0
    assert np.argmax(codes[10:-10, -24:-4].mean(axis=(0, 1))) == 2


def test_raw_files_are_read_among_other_stills_and_left_untouched(tmp_path):
    write_dng(tmp_path / "000000.dng", grey(0.3))
    before = (tmp_path / "000000.dng").read_bytes()

    (path,) = list_stills(tmp_path)
    with open_stills([path]) as frames:
        shape = frames.read(0).rgb().shape

    assert shape == (48, 64, 3)
    assert (tmp_path / "000000.dng").read_bytes() == before


def test_a_raw_file_that_is_none_says_so(tmp_path):
    (tmp_path / "broken.nef").write_bytes(b"not a raw file" * 100)

    with pytest.raises(DecodeError, match=r"broken\.nef"):
        develop(tmp_path / "broken.nef")
