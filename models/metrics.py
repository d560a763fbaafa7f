"""PSNR and SSIM of whole pictures, and their averages per degradation class.

Both are taken in RGB from 8-bit values, as restored files are judged; 16-bit pictures are rounded first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from models.images import Pixels

PSNR_CEILING_DB = 100.0
"""What identical pictures count as, so that averages and JSON stay finite."""


def to_8_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """Round a picture to 8 bits; white stays white."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return np.rint(pixels / 257.0).astype(np.uint8)


def psnr_db(restored: Pixels, gt: Pixels, *, mask: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, in dB, at most `PSNR_CEILING_DB`.

    Args:
        restored: ``(H, W, 3)`` RGB, uint8 or uint16.
        gt: Reference of the same shape.
        mask: ``(H, W)``, True where to look; None for everywhere.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes(restored, gt)
    difference = to_8_bit(restored).astype(np.int16) - to_8_bit(gt).astype(np.int16)
    if mask is not None:
        difference = difference[mask]
    return psnr_from_mse_db(float(np.square(difference, dtype=np.int32).mean()))


def psnr_from_mse_db(mse: float) -> float:
    """Turn a mean squared error in 8-bit code values into dB."""
    if mse <= 0:
        return PSNR_CEILING_DB
    return min(PSNR_CEILING_DB, 10 * math.log10(255.0**2 / mse))


def ssim(restored: Pixels, gt: Pixels) -> float:
    """Structural similarity, mean over the channels.

    Gaussian window of sigma 1.5 and population covariance, as in the paper; scikit-image's implementation.

    References:
        Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    from skimage.metrics import structural_similarity

    _check_shapes(restored, gt)
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            to_8_bit(restored).astype(np.float32),
            to_8_bit(gt).astype(np.float32),
            data_range=255.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@dataclass(frozen=True)
class PairScore:
    """How one pair scored, before and after restoration."""

    id: str
    degradation_class: str
    values: Mapping[str, float]
    """Measures by name, for example ``psnr_lq_db``."""


def average_by_class(scores: Iterable[PairScore]) -> dict[str, dict[str, float]]:
    """Average every measure within each class; ``n`` is the number of pairs."""
    groups: dict[str, list[PairScore]] = {}
    for score in scores:
        groups.setdefault(score.degradation_class, []).append(score)
    return {name: {"n": len(group), **_averages(group)} for name, group in sorted(groups.items())}


def average_over_pairs(scores: Sequence[PairScore]) -> dict[str, float]:
    """Average every measure over all pairs: large classes weigh more."""
    return _averages(scores)


def average_over_classes(per_class: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Average the classes' averages: every class weighs the same."""
    names = [name for name in next(iter(per_class.values()), {}) if name != "n"]
    return {name: fmean(averages[name] for averages in per_class.values()) for name in names}


def _averages(scores: Sequence[PairScore]) -> dict[str, float]:
    names = scores[0].values if scores else ()
    return {name: fmean(score.values[name] for score in scores) for name in names}


def _check_shapes(restored: Pixels, gt: Pixels) -> None:
    if restored.shape != gt.shape:
        raise ValueError(f"pictures differ in shape: {restored.shape} and {gt.shape}")
