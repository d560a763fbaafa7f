from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat
from scipy.ndimage import gaussian_filter
from scipy.stats import gennorm

from models.errors import CheckpointError, NoPairsError, NoValueError
from models.images import plain_picture, write_png
from models.naturalness import BLOCK_PX, FEATURES, NaturalPictures, _fit_asymmetric, block_features


def _picture(seed: int, *, height: int = 2 * BLOCK_PX + 20, width: int = 4 * BLOCK_PX + 7) -> np.ndarray:
    """Noise with the spectrum of photographs, amplitude falling as one over frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    plane = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency).real
    grey = 128 + 45 * (plane - plane.mean()) / plane.std()
    return np.rint(grey.clip(0, 255)).astype(np.uint8)[..., None].repeat(3, axis=2)


@pytest.fixture(scope="module")
def natural() -> NaturalPictures:
    return NaturalPictures.fit(_picture(seed, height=4 * BLOCK_PX, width=6 * BLOCK_PX) for seed in range(3))


def test_white_noise_has_the_statistics_of_white_noise():
    """Taking a local mean w away ties the neighbours in white noise together.

    The covariance at a distance d is (w * w)(d) - 2 w(d). With w the product of two Gaussian windows of
    0.343, 0.237 at 0 and 1 px, and w * w of 0.242, 0.201: at (0, 1) 0.0487 - 0.163 = -0.114, at (1, 1)
    0.0406 - 0.112 = -0.072. The division by the local deviation, near one, is left out: a tenth of that.
    """
    noise = np.random.default_rng(1).normal(128, 30, (4 * BLOCK_PX, 4 * BLOCK_PX)).clip(0, 255)
    pixels = np.rint(noise).astype(np.uint8)[..., None].repeat(3, axis=2)

    features = block_features(pixels)

    assert features.shape == (16, FEATURES)
    means_of_products = features[:, [3, 7, 11, 15]].mean(axis=0)
    assert means_of_products == pytest.approx([-0.114, -0.114, -0.072, -0.072], rel=0.1)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_the_shape_of_a_known_distribution_is_found(shape):
    """Generalised Gaussian values, the negative ones stretched by 1.5: as many on either side, so scales 1.5 and 1."""
    values = gennorm.rvs(shape, size=(2, 300, 300), random_state=np.random.default_rng(4))

    symmetric = _fit_asymmetric(values)
    stretched = _fit_asymmetric(np.where(values < 0, 1.5 * values, values))

    assert symmetric[0] == pytest.approx([shape] * 2, rel=0.05)
    assert symmetric[1:] == pytest.approx(np.ones((2, 2)), rel=0.05)
    assert stretched[1] / stretched[2] == pytest.approx([1.5] * 2, rel=0.02)


def test_worse_pictures_lie_further_from_good_ones(natural):
    """More noise is further away, and so is more blur."""
    good = _picture(100)
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 1, good.shape)

    def noisy(sigma: float) -> float:
        return natural.distance(np.rint((good + sigma * noise).clip(0, 255)).astype(np.uint8))

    def blurred(sigma: float) -> float:
        return natural.distance(
            np.rint(gaussian_filter(good.astype(float), (sigma, sigma, 0))).astype(np.uint8)
        )

    assert natural.distance(good) < noisy(10) < noisy(40)
    assert natural.distance(good) < blurred(1) < blurred(3)


def test_distance_by_hand():
    """Covariances that average to the identity make the distance Euclidean: 3 away in one number is 3 away."""
    pixels = _picture(3)
    features = block_features(pixels)
    mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    other = 2 * np.eye(FEATURES) - covariance  # pooled: the identity
    shifted = mean.copy()
    shifted[4] += 3.0

    assert NaturalPictures(shifted, other).distance(pixels) == pytest.approx(3.0)


def test_published_parameters_are_read_in_both_layouts(tmp_path, natural):
    natural.save(tmp_path / "own.npz")
    savemat(
        tmp_path / "authors.mat", {"mu_prisparam": natural.mean[None], "cov_prisparam": natural.covariance}
    )
    pixels = _picture(7)

    for name in ("own.npz", "authors.mat"):
        assert NaturalPictures.load(tmp_path / name).distance(pixels) == pytest.approx(
            natural.distance(pixels)
        )


def test_a_folder_of_good_pictures_will_do(tmp_path):
    pictures = [_picture(seed, height=4 * BLOCK_PX, width=5 * BLOCK_PX) for seed in range(3)]
    for number, pixels in enumerate(pictures):
        write_png(tmp_path / f"{number}.png", plain_picture(pixels))
    (tmp_path / "notes.txt").write_text("not a picture")

    found = NaturalPictures.load(tmp_path)

    assert np.allclose(found.mean, NaturalPictures.fit(pictures).mean)


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.npz", b"no numbers"), ("empty.npz", b""), ("text.mat", b"no matrix" * 40), ("gone.npz", None)],
)
def test_damaged_parameters_are_named(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=name):
        NaturalPictures.load(tmp_path / name)


def test_parameters_of_something_else_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "short.npz", mu_pris_param=np.zeros(18), cov_pris_param=np.eye(18))

    with pytest.raises(CheckpointError, match="no parameters of NIQE"):
        NaturalPictures.load(tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match=r"shape \(18,\) and \(18, 18\)"):
        NaturalPictures.load(tmp_path / "short.npz")


def test_too_little_to_judge_is_said(natural):
    flat = np.full((300, 300, 3), 90, np.uint8)

    for pixels in (flat, _picture(1)[:90]):
        with pytest.raises(NoValueError, match="at least two textured blocks"):
            natural.distance(pixels)
    with pytest.raises(NoPairsError, match="0 sharp blocks"):
        NaturalPictures.fit([])
