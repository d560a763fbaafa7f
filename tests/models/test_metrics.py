from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from models.brightness import GainGamma, fit_gain_gamma
from models.metrics import (
    PSNR_CEILING_DB,
    PairScore,
    average_by_class,
    average_over_classes,
    average_over_pairs,
    luma,
    psnr_db,
    psnr_y_db,
    ssim,
    ssim_y,
)

RNG = np.random.default_rng(2)
PICTURE = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)


def test_psnr_of_a_constant_error():
    """An error of 5 everywhere has MSE 25: 10 log10(65025 / 25) = 34.1514 dB."""
    gt = np.full((8, 8, 3), 100, np.uint8)

    assert psnr_db(gt + 5, gt) == pytest.approx(34.1514, abs=1e-4)


def test_psnr_agrees_with_scikit_image():
    other = RNG.integers(0, 256, PICTURE.shape, dtype=np.uint8)

    assert psnr_db(other, PICTURE) == pytest.approx(peak_signal_noise_ratio(PICTURE, other, data_range=255))


def test_identical_pictures_have_a_finite_psnr():
    assert psnr_db(PICTURE, PICTURE) == PSNR_CEILING_DB


def test_psnr_looks_only_where_the_mask_is_true():
    """Half of the picture is wrong by 10, and masked out; the rest is wrong by 1: 10 log10(65025) dB."""
    gt = np.full((8, 8, 3), 100, np.uint8)
    restored = gt + 1
    restored[:, 4:] = 110
    mask = np.zeros((8, 8), bool)
    mask[:, :4] = True

    assert psnr_db(restored, gt, mask=mask) == pytest.approx(48.1308, abs=1e-4)


def test_sixteen_bits_are_rounded_to_eight_first():
    """257 code values of 16 bits are one of 8."""
    deep = PICTURE.astype(np.uint16) * 257

    assert psnr_db(deep + 100, PICTURE) == PSNR_CEILING_DB if deep.max() < 65000 else True
    assert psnr_db(deep, PICTURE) == PSNR_CEILING_DB


def test_pictures_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        psnr_db(PICTURE[1:], PICTURE)


def test_ssim_is_one_for_identical_and_small_for_unrelated_pictures():
    other = RNG.integers(0, 256, PICTURE.shape, dtype=np.uint8)

    assert ssim(PICTURE, PICTURE) == pytest.approx(1.0)
    assert ssim(other, PICTURE) < 0.1


def test_averages_weigh_pairs_or_classes():
    """Three pairs: noise 20 and 30, rain 40. Over pairs 30, over classes (25 + 40) / 2 = 32.5."""
    scores = [
        PairScore("a", "noise", {"psnr_lq_db": 20.0}),
        PairScore("b", "noise", {"psnr_lq_db": 30.0}),
        PairScore("c", "rain", {"psnr_lq_db": 40.0}),
    ]

    per_class = average_by_class(scores)

    assert per_class == {"noise": {"n": 2, "psnr_lq_db": 25.0}, "rain": {"n": 1, "psnr_lq_db": 40.0}}
    assert average_over_pairs(scores) == {"psnr_lq_db": 30.0}
    assert average_over_classes(per_class) == {"psnr_lq_db": 32.5}


def test_the_gain_and_gamma_that_made_a_picture_are_found_again():
    """Pairs made by y = 2 x^0.7 with clipping; 8-bit rounding leaves about a percent of doubt."""
    truth = GainGamma(gain=2.0, gamma=0.7)
    pairs = [(lq, truth.apply(lq)) for lq in RNG.integers(0, 120, (3, 20, 30, 3), dtype=np.uint8)]

    found = fit_gain_gamma(pairs)

    assert found.gain == pytest.approx(2.0, rel=0.01)
    assert found.gamma == pytest.approx(0.7, rel=0.01)


def test_the_fitted_curve_beats_every_neighbour():
    """Least squares over all pixels: no gain or gamma nearby may have a smaller squared error."""
    lq = RNG.integers(0, 90, (60, 60, 3), dtype=np.uint8)
    gt = np.clip(lq * 2.5 + RNG.normal(0, 20, lq.shape), 0, 255).astype(np.uint8)
    found = fit_gain_gamma([(lq, gt)])

    def squared_error(gain: float, gamma: float) -> float:
        return float(np.mean((GainGamma(gain, gamma).curve(lq / 255) - gt / 255) ** 2))

    best = squared_error(found.gain, found.gamma)
    assert best > 0
    for gain in (0.98, 1.0, 1.02):
        for gamma in (0.98, 1.0, 1.02):
            assert squared_error(found.gain * gain, found.gamma * gamma) >= best - 1e-9


def test_a_curve_needs_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        fit_gain_gamma([])


def test_luma_runs_from_16_to_235():
    """BT.601: black 16, white 16 + 65.481 + 128.553 + 24.966 = 235, pure green 16 + 128.553."""
    colours = np.array([[[0, 0, 0], [255, 255, 255], [0, 255, 0]]], np.uint8)

    assert luma(colours) == pytest.approx(np.array([[16.0, 235.0, 144.553]]))


def test_psnr_of_the_luma():
    """An error of 10 in green alone is one of 10 * 128.553 / 255 = 5.0413 in luma: 10 log10(65025 / 25.415)."""
    gt = np.full((8, 8, 3), 100, np.uint8)
    restored = gt + np.array([0, 10, 0], np.uint8)

    assert psnr_y_db(restored, gt) == pytest.approx(34.0799, abs=1e-3)


def test_ssim_agrees_with_scikit_image_in_colour_and_luma():
    noisy = np.clip(PICTURE + RNG.normal(0, 20, PICTURE.shape), 0, 255).astype(np.uint8)
    options = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

    colour = structural_similarity(PICTURE.astype(float), noisy.astype(float), channel_axis=2, **options)
    grey = structural_similarity(luma(PICTURE), luma(noisy), **options)

    assert ssim(noisy, PICTURE) == pytest.approx(colour, abs=1e-5)
    assert ssim_y(noisy, PICTURE) == pytest.approx(grey, abs=1e-5)


def test_ssim_looks_only_where_the_mask_is_true():
    """The right half is ruined and masked out, 5 px (half a window) before it too."""
    restored = PICTURE.copy()
    restored[:, 20:] = 0
    mask = np.zeros(PICTURE.shape[:2], bool)
    mask[:, :15] = True

    assert ssim(restored, PICTURE, mask=mask) == pytest.approx(1.0)
    assert ssim(restored, PICTURE) < 0.7


@pytest.mark.parametrize("measure", [psnr_db, psnr_y_db, ssim, ssim_y])
def test_a_mask_that_trusts_nothing_is_refused(measure):
    with pytest.raises(ValueError, match="the mask trusts no"):
        measure(PICTURE, PICTURE, mask=np.zeros(PICTURE.shape[:2], bool))
