import numpy as np
import pytest

from alignment.errors import PictureFormatError
from alignment.photometry import grey_codes, measured_tone_curve, standard_tone_curve


@pytest.mark.parametrize("name", ["bt709", "srgb"])
def test_light_and_codes_undo_each_other(name):
    """Every tenth of a code, also in the straight part near black."""
    tone = standard_tone_curve(name)
    codes = np.linspace(0, 255, 2551, dtype=np.float32)

    assert tone.codes(tone.light(codes)) == pytest.approx(codes, abs=0.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stored_pixels_survive_the_way_through_light(dtype):
    tone = standard_tone_curve("srgb")
    pixels = (
        np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 50, 3), endpoint=True).astype(dtype)
    )

    there_and_back = tone.pixels(tone.light_of(pixels), np.dtype(dtype))

    step = 1 if dtype == np.uint16 else 0
    assert np.abs(there_and_back.astype(int) - pixels.astype(int)).max() <= step


def test_the_curves_are_those_of_the_standards():
    """BT.709: 18 % grey is coded 1.099 × 0.18^0.45 - 0.099 = 0.4090; sRGB: 1.055 × 0.18^(1/2.4) - 0.055 = 0.4614."""
    grey = np.array([0.18], np.float32)

    assert standard_tone_curve("bt709").codes(grey)[0] / 255 == pytest.approx(0.4090, abs=2e-4)
    assert standard_tone_curve("srgb").codes(grey)[0] / 255 == pytest.approx(0.4614, abs=2e-4)


def test_light_outside_the_range_is_clipped_and_exposure_scales_it():
    tone = standard_tone_curve("srgb")

    assert tone.codes(np.array([-0.1, 1.2], np.float32)).tolist() == [0.0, 255.0]
    assert tone.codes(np.array([0.5], np.float32), exposure=0.25) == pytest.approx(
        tone.codes(np.array([0.125], np.float32))
    )


def test_a_measured_curve_goes_through_its_samples():
    tone = measured_tone_curve("ladder", codes=np.array([0.0, 64.0, 255.0]), light=np.array([0.0, 0.1, 1.0]))

    assert tone.light(np.array([64.0, 159.5], np.float32)) == pytest.approx([0.1, 0.55], abs=1e-3)


def test_a_curve_that_does_not_rise_is_refused():
    with pytest.raises(ValueError, match="rise"):
        measured_tone_curve("flat", codes=np.array([0.0, 64.0, 64.0]), light=np.array([0.0, 0.1, 1.0]))


def test_grey_is_bt709_luma_not_rounded():
    """0.2126 × 10 + 0.7152 × 20 + 0.0722 × 30 = 18.596, for 16 bits as for 8."""
    rgb = np.array([[[10, 20, 30]]], np.uint8)

    assert grey_codes(rgb)[0, 0] == pytest.approx(18.596, abs=1e-4)
    assert grey_codes(rgb.astype(np.uint16) * 257)[0, 0] == pytest.approx(18.596, abs=1e-4)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8)]
)
def test_what_is_not_rgb_of_8_or_16_bits_is_refused(array):
    with pytest.raises(PictureFormatError):
        grey_codes(array)
