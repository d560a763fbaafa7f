import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

import alignment
from alignment.decode import read_still
from alignment.errors import NoCommonStructureError, PictureFormatError
from alignment.misalignment import measure
from alignment.photometry import standard_tone_curve

DATA = Path(os.environ.get("CLEANPLATE_SHARED", Path(__file__).parents[3] / "shared")) / "data"
TONE = standard_tone_curve("srgb")


def moved(dx, dy):
    """A photograph of 512 px moved by its Fourier phase, linear light."""
    photo = cv2.GaussianBlur(TONE.light_of(cv2.resize(skimage.data.astronaut(), (1024, 1024))), (0, 0), 1.2)
    fy, fx = np.fft.fftfreq(1024)[:, None, None], np.fft.rfftfreq(1024)[None, :, None]
    spectrum = np.fft.rfft2(photo, axes=(0, 1)) * np.exp(-4j * np.pi * (fx * dx + fy * dy))
    light = np.fft.irfft2(spectrum, s=(1024, 1024), axes=(0, 1)).astype(np.float32)
    return cv2.resize(light, (512, 512), interpolation=cv2.INTER_AREA)


def coded(light):
    return TONE.pixels(np.ascontiguousarray(light[30:-30, 30:-30]), np.dtype(np.uint8))


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.81), (21.6, -13.2)])
def test_a_shift_is_measured_whether_small_or_large(shift):
    found = measure(coded(moved(0, 0)), coded(moved(*shift)))

    assert found.shift_px == pytest.approx(shift, abs=0.02)
    assert found.epe_px == pytest.approx(np.hypot(*shift), abs=0.02)
    assert found.trustworthy


def test_a_large_shift_is_found_under_blur_and_darkness():
    """Whitened correlation fails on blur, so more than one coarse guess is tried."""
    degraded = cv2.blur(moved(12.4, 7.7), (9, 1)) / 16

    found = measure(coded(moved(0, 0)), coded(degraded))

    assert found.shift_px == pytest.approx((12.4, 7.7), abs=0.05)
    assert found.blur.kind == "motion"


def test_the_package_offers_measure_and_no_module_hides_it():
    """A module of the same name would take the function's place once it is imported."""
    assert alignment.measure is measure
    assert alignment.measure is measure


def test_grey_images_are_measured_too():
    found = measure(coded(moved(0, 0))[..., 1].copy(), coded(moved(0.5, 0.25))[..., 1].copy())

    assert found.shift_px == pytest.approx((0.5, 0.25), abs=0.02)


@pytest.mark.parametrize("size", [(1, 1), (4, 200), (63, 300)])
def test_images_of_a_few_pixels_are_refused_with_their_size(size):
    few = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)

    with pytest.raises(NoCommonStructureError, match=f"{size[1]} x {size[0]} px"):
        measure(few, few)


def test_images_of_different_size_are_refused_with_both_sizes():
    image = coded(moved(0, 0))

    with pytest.raises(PictureFormatError, match="452 x 452 and 452 x 440"):
        measure(image, image[:440])


@pytest.mark.parametrize(("name", "low_px", "high_px"), [("1118", 0.35, 0.5), ("1006", 0.1, 0.25)])
def test_published_rail_pairs_are_off_by_what_other_estimators_say(name, low_px, high_px):
    """ECC finds 0.45 px in FoundIR's pair 1118 and 0.13 px in 1006, at the middle of the picture."""
    folder = DATA / "pairs" / "foundir"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set CLEANPLATE_SHARED")

    found = measure(read_still(folder / f"{name}_GT.png"), read_still(folder / f"{name}_LQ.png"))

    assert low_px <= found.epe_px <= high_px


@pytest.mark.parametrize(
    ("name", "ecc_px"), [("Canon80D_GO", (-0.023, -0.059)), ("Nikon800_class", (0.006, 0.027))]
)
def test_tripod_bursts_agree_with_ecc(name, ecc_px):
    """The centre's shift by OpenCV's affine ECC on the same files, sigma 1.5 px, computed apart."""
    noisy = DATA / "pairs" / "polyu_noisy" / f"{name}_noisy.jpg"
    if not noisy.is_file():
        pytest.skip(f"{noisy} is not there; set CLEANPLATE_SHARED")
    mean = next((DATA / "photos" / "polyu_mean").glob(f"{name}*"))

    found = measure(read_still(mean), read_still(noisy))

    assert found.shift_px == pytest.approx(ecc_px, abs=0.06)
