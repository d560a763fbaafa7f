"""NIQE: how far the statistics of a picture lie from those of good pictures; no reference is looked at.

Mittal, Soundararajan, Bovik: Making a "Completely Blind" Image Quality Analyzer, 2013. Equations as numbered
there. A picture is cut into blocks of 96 px; in each, the locally normalised luminance and its products with
four neighbours are fitted by generalised Gaussians at two scales: 36 numbers. The distance is between the mean and
covariance of these numbers and those of good pictures. Those come from a file as they are published
(``niqe_pris_params.npz``, ``modelparameters.mat``), or are taken from a folder of good pictures.

Luminance and halving follow the authors' MATLAB code (rounded luma; antialiased bicubic), the border of the
halved picture excepted.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

from models.errors import CheckpointError, NoPairsError, NoValueError
from models.images import Pixels, read_pixels
from models.metrics import to_8_bit
from models.restore import IMAGE_SUFFIXES

Array = NDArray[np.float64]

BLOCK_PX = 96
FEATURES = 36
_WINDOW_SIGMA_PX, _WINDOW_RADIUS_PX = 7 / 6, 3
_SHARP_SHARE = 0.75
"""Blocks of good pictures count where their sharpness is above this share of the sharpest one's."""
_LUMA_WEIGHTS = np.array([0.298936, 0.587043, 0.114021])
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_SHAPES = np.arange(0.2, 10.001, 0.001)
_SHAPE_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
"""Squared mean magnitude over the mean square for each shape; rises with the shape."""
_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    NotImplementedError,
    MatReadError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class NaturalPictures:
    """What the blocks of good pictures have in common."""

    mean: Array
    """``(36,)``."""
    covariance: Array
    """``(36, 36)``."""

    @classmethod
    def load(cls, path: Path) -> NaturalPictures:
        """Read published parameters, or take them from a folder of good pictures.

        Raises:
            CheckpointError: The file is damaged or holds something else.
            NoPairsError: The folder holds too few sharp pictures.
        """
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            return cls.fit((read_pixels(file) for file in files), name=str(path))
        arrays = _read_arrays(path)
        mean, covariance = (_parameter(arrays, word, path) for word in ("mu_pris", "cov_pris"))
        if mean.size != FEATURES or covariance.shape != (FEATURES, FEATURES):
            raise CheckpointError(f"{path}: parameters of NIQE of shape {mean.shape} and {covariance.shape}")
        return cls(mean.ravel(), covariance)

    @classmethod
    def fit(cls, pictures: Iterable[Pixels], *, name: str = "the pictures") -> NaturalPictures:
        """Take the parameters from the sharp blocks of good pictures.

        Raises:
            NoPairsError: Fewer blocks than numbers that describe them.
        """
        parts = [block_features(picture, sharp_only=True) for picture in pictures]
        features = np.concatenate(parts) if parts else np.empty((0, FEATURES))
        if len(features) <= FEATURES:
            raise NoPairsError(
                f"{name}: {len(features)} sharp blocks of {BLOCK_PX} px, NIQE needs more than {FEATURES}",
                next_step="give more or larger pictures",
            )
        return cls(features.mean(axis=0), np.cov(features, rowvar=False))

    def save(self, path: Path) -> None:
        """Write the parameters as `load` reads them, under the published names."""
        np.savez(path, mu_pris_param=self.mean[None], cov_pris_param=self.covariance)

    def distance(self, pixels: Pixels) -> float:
        """Return the NIQE of a picture (equation 10), smaller for better ones.

        Raises:
            NoValueError: The picture is smaller than two blocks, or has too little texture to judge.
        """
        features = block_features(pixels)
        if len(features) < 2:
            raise NoValueError(f"NIQE needs at least two textured blocks of {BLOCK_PX} px")
        gap = self.mean - features.mean(axis=0)
        pooled = (self.covariance + np.cov(features, rowvar=False)) / 2
        return float(np.sqrt(gap @ np.linalg.pinv(pooled) @ gap))


def block_features(pixels: Pixels, *, sharp_only: bool = False) -> Array:
    """Describe the blocks of a picture by 36 numbers each, ``(N, 36)``; blocks without texture are left out.

    Args:
        pixels: ``(H, W, 3)`` RGB.
        sharp_only: Leave blurred blocks out, as for good pictures.
    """
    luminance = np.rint(to_8_bit(pixels) @ _LUMA_WEIGHTS)
    rows, columns = (extent // BLOCK_PX for extent in luminance.shape)
    if not rows * columns:
        return np.empty((0, FEATURES))
    luminance = luminance[: rows * BLOCK_PX, : columns * BLOCK_PX]
    normalised, deviation = _normalised(luminance)
    halved, _ = _normalised(_halved(luminance))
    scales = (_blocks(normalised, BLOCK_PX), _blocks(halved, BLOCK_PX // 2))
    with np.errstate(divide="ignore", invalid="ignore"):  # a flat block has no shape, and is left out below
        features = np.concatenate([_describe(blocks) for blocks in scales], axis=1)
    usable: NDArray[np.bool_] = np.isfinite(features).all(axis=1)
    if sharp_only:
        sharpness = _blocks(deviation, BLOCK_PX).mean(axis=(1, 2))
        usable &= sharpness > _SHARP_SHARE * sharpness.max()
    found: Array = features[usable]
    return found


def _normalised(luminance: Array) -> tuple[Array, Array]:
    """Subtract the local mean and divide by the local deviation (equations 1 to 3); returns the latter too."""

    def local_mean(values: Array) -> Array:
        smooth: Array = gaussian_filter(values, _WINDOW_SIGMA_PX, radius=_WINDOW_RADIUS_PX, mode="nearest")
        return smooth

    mean = local_mean(luminance)
    deviation = np.sqrt(np.abs(local_mean(luminance**2) - mean**2))
    return (luminance - mean) / (deviation + 1), deviation


def _halved(luminance: Array) -> Array:
    height, width = luminance.shape
    image = Image.fromarray(luminance.astype(np.float32))
    return np.asarray(image.resize((width // 2, height // 2), Image.Resampling.BICUBIC), np.float64)


def _blocks(values: Array, side_px: int) -> Array:
    height, width = values.shape
    grid = values.reshape(height // side_px, side_px, width // side_px, side_px)
    blocks: Array = grid.swapaxes(1, 2).reshape(-1, side_px, side_px)
    return blocks


def _describe(blocks: Array) -> Array:
    """Fit a block and its products with four neighbours: ``(N, side, side)`` to ``(N, 18)``."""
    shape, left, right = _fit_asymmetric(blocks)
    numbers = [shape, (left + right) / 2]
    for offset in _NEIGHBOURS:
        shape, left, right = _fit_asymmetric(blocks * np.roll(blocks, offset, axis=(1, 2)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # equation 8
        numbers += [shape, mean, left, right]
    return np.stack(numbers, axis=1)


def _fit_asymmetric(blocks: Array) -> tuple[Array, Array, Array]:
    """Fit an asymmetric generalised Gaussian to each block by its moments: shape, left and right scale (eq. 7)."""
    left, right = (_root_mean_square(blocks, blocks < 0), _root_mean_square(blocks, blocks > 0))
    skew = left / right
    ratio = np.abs(blocks).mean(axis=(1, 2)) ** 2 / np.square(blocks).mean(axis=(1, 2))
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = np.where(np.isfinite(ratio), _nearest_shape(ratio), np.nan)
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def _nearest_shape(ratio: Array) -> Array:
    above = np.searchsorted(_SHAPE_RATIOS, ratio).clip(1, len(_SHAPES) - 1)
    nearer_below = ratio - _SHAPE_RATIOS[above - 1] < _SHAPE_RATIOS[above] - ratio
    found: Array = _SHAPES[above - nearer_below]
    return found


def _root_mean_square(blocks: Array, where: NDArray[np.bool_]) -> Array:
    count = where.sum(axis=(1, 2))
    root: Array = np.sqrt(np.square(blocks).sum(axis=(1, 2), where=where) / count)
    return root


def _read_arrays(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".mat":
            return dict(loadmat(path))
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{path}: not readable as parameters of NIQE: {error}") from error


def _parameter(arrays: dict[str, Any], word: str, path: Path) -> Array:
    for name, value in arrays.items():
        if name.startswith(word):
            return np.asarray(value, np.float64)
    raise CheckpointError(f"{path}: no {word}... in it, so these are no parameters of NIQE")
