"""PSNR and SSIM of whole pictures, in colour and in luma, and their averages per degradation class.

All are taken from 8-bit values, as restored files are judged; 16-bit pictures are rounded first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UnfitPairError
from models.images import Pixels

PSNR_CEILING_DB = 100.0
"""What identical pictures count as, so that averages and JSON stay finite."""
_SSIM_BORDER_PX = 5
"""Half of the window of 11 px: what lies closer to the border does not count."""
_LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255


def to_8_bit(pixels: Pixels) -> NDArray[np.uint8]:
    """Round a picture to 8 bits; white stays white."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    return np.rint(pixels / 257.0).astype(np.uint8)


def luma(pixels: Pixels) -> NDArray[np.float64]:
    """Return the Y of BT.601's YCbCr, 16 to 235, not rounded: ``(H, W, 3)`` to ``(H, W)``.

    It is the Y that the restoration literature reports (MATLAB's `rgb2ycbcr`).
    """
    plane: NDArray[np.float64] = to_8_bit(pixels) @ _LUMA_WEIGHTS + 16.0
    return plane


def psnr_db(restored: Pixels, gt: Pixels, *, mask: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, in dB, at most `PSNR_CEILING_DB`.

    Args:
        restored: ``(H, W, 3)`` RGB, uint8 or uint16.
        gt: Reference of the same shape.
        mask: ``(H, W)``, True where to look; None for everywhere.

    Raises:
        UnfitPairError: The shapes differ, or the mask is empty.
    """
    _check(restored, gt, mask)
    difference = to_8_bit(restored).astype(np.int16) - to_8_bit(gt).astype(np.int16)
    if mask is not None:
        difference = difference[mask]
    return psnr_from_mse_db(float(np.square(difference, dtype=np.int32).mean()))


def psnr_y_db(restored: Pixels, gt: Pixels, *, mask: NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio of the luma, in dB; arguments and errors as of `psnr_db`."""
    _check(restored, gt, mask)
    difference = luma(restored) - luma(gt)
    if mask is not None:
        difference = difference[mask]
    return psnr_from_mse_db(float(np.square(difference).mean()))


def psnr_from_mse_db(mse: float) -> float:
    """Turn a mean squared error in 8-bit code values into dB."""
    if mse <= 0:
        return PSNR_CEILING_DB
    return min(PSNR_CEILING_DB, 10 * math.log10(255.0**2 / mse))


def ssim(restored: Pixels, gt: Pixels, *, mask: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity, mean over the channels.

    Gaussian window of sigma 1.5 and population covariance, as in the paper; scikit-image's implementation.
    A window counts where its centre is trusted by the mask and at least 5 px from the border.

    Raises:
        UnfitPairError: The shapes differ, or the mask leaves nothing to look at.

    References:
        Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
    """
    _check(restored, gt, mask)
    planes = zip(np.moveaxis(to_8_bit(restored), 2, 0), np.moveaxis(to_8_bit(gt), 2, 0), strict=True)
    return fmean(_ssim_of_plane(a, b, mask) for a, b in planes)


def ssim_y(restored: Pixels, gt: Pixels, *, mask: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity of the luma; arguments and errors as of `ssim`."""
    _check(restored, gt, mask)
    return _ssim_of_plane(luma(restored), luma(gt), mask)


def _ssim_of_plane(a: NDArray[Any], b: NDArray[Any], mask: NDArray[np.bool_] | None) -> float:
    from skimage.metrics import structural_similarity

    _, everywhere = structural_similarity(  # type: ignore[no-untyped-call]
        a.astype(np.float32),
        b.astype(np.float32),
        data_range=255.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    inner = np.s_[_SSIM_BORDER_PX:-_SSIM_BORDER_PX, _SSIM_BORDER_PX:-_SSIM_BORDER_PX]
    windows = everywhere[inner] if mask is None else everywhere[inner][mask[inner]]
    if not windows.size:
        raise UnfitPairError("the mask trusts nothing but the border")
    return float(windows.mean(dtype=np.float64))


@dataclass(frozen=True)
class PairScore:
    """How one pair scored, before and after restoration."""

    id: str
    degradation_class: str
    values: Mapping[str, float | None]
    """Measures by name, for example ``psnr_lq_db``; None where a picture gives a measure nothing to judge."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why there is no value, by the name of the measure."""


def average_by_class(scores: Iterable[PairScore]) -> dict[str, dict[str, float | None]]:
    """Average every measure within each class, over the pairs that have it; ``n`` is the number of all of them."""
    groups: dict[str, list[PairScore]] = {}
    for score in scores:
        groups.setdefault(score.degradation_class, []).append(score)
    return {name: {"n": len(group), **_averages(group)} for name, group in sorted(groups.items())}


def average_over_pairs(scores: Sequence[PairScore]) -> dict[str, float | None]:
    """Average every measure over all pairs that have it: large classes weigh more."""
    return _averages(scores)


def average_over_classes(per_class: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Average the classes' averages: every class that has one weighs the same."""
    names = [name for name in next(iter(per_class.values()), {}) if name != "n"]
    return {name: _mean(averages[name] for averages in per_class.values()) for name in names}


def _averages(scores: Sequence[PairScore]) -> dict[str, float | None]:
    names = scores[0].values if scores else ()
    return {name: _mean(score.values[name] for score in scores) for name in names}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _check(restored: Pixels, gt: Pixels, mask: NDArray[np.bool_] | None) -> None:
    if restored.shape != gt.shape:
        raise UnfitPairError(f"pictures differ in shape: {restored.shape} and {gt.shape}")
    if mask is not None and not mask.any():
        raise UnfitPairError("the mask trusts no pixel")
