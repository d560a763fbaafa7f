"""Losses that several restorers share; each takes a mask and returns one scalar per picture.

Convention: images are ``(B, 3, H, W)`` in [0, 1], masks ``(B, 1, H, W)`` with 1 where the pair is trusted.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

PixelLoss = Literal["psnr", "charbonnier", "l1"]

_CHARBONNIER_EPS = 1e-3
_MSE_FLOOR = 1e-6


def pixel_loss(
    kind: PixelLoss, restored: Tensor, gt: Tensor, mask: Tensor | None, *, shift_px: int = 0
) -> Tensor:
    """Compare restored pictures with their references; ``(B,)``.

    Args:
        kind: ``psnr`` is the negative PSNR in units of 10 dB (NAFNet's own loss, up to scale), so that a
            dim picture and a bright one weigh the same; ``charbonnier`` and ``l1`` are means of distances.
        restored: Network output.
        gt: Reference.
        mask: Where to look, None for everywhere.
        shift_px: Forgive each reference a shift of so many pixels, see `shift_tolerant`.
    """
    restored, gt, mask = shift_tolerant(restored, gt, mask, radius_px=shift_px)
    difference = restored - gt
    if kind == "l1":
        return _masked_mean(difference.abs(), mask)
    if kind == "charbonnier":
        return _masked_mean(torch.sqrt(difference.square() + _CHARBONNIER_EPS**2), mask)
    mean_square = _masked_mean(difference.square(), mask)
    return torch.log(mean_square + _MSE_FLOOR) / math.log(10)


def shift_tolerant(
    restored: Tensor, gt: Tensor, mask: Tensor | None, *, radius_px: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cut pictures and references so that each reference lies where it fits its picture best.

    A pair that is misaligned teaches a network to blur: the mean over all the places where an edge might be. One
    shift for a whole crop, searched without gradient, leaves the loss itself as it is and cannot pick what suits it
    pixel by pixel, as a minimum taken for each pixel would, which prefers smooth results. It is searched by
    correlation, so that it does not depend on the brightness being right yet.

    Args:
        restored: Network output, ``(B, 3, H, W)``.
        gt: Reference of the same shape.
        mask: ``(B, 1, H, W)`` with 1 where the pair is trusted, None for everywhere.
        radius_px: Largest shift believed, in each direction; so much is cut from every side.

    Returns:
        The three without their borders, the reference shifted by whole pixels.
    """
    if radius_px == 0:
        return restored, gt, mask
    with torch.no_grad():
        shifts = best_shifts(restored, gt, mask, radius_px=radius_px)
    height, width = (side - 2 * radius_px for side in gt.shape[-2:])
    moved = [
        one[:, radius_px + dy : radius_px + dy + height, radius_px + dx : radius_px + dx + width]
        for one, (dy, dx) in zip(gt, shifts.tolist(), strict=True)
    ]
    inner = slice(radius_px, -radius_px)
    return restored[..., inner, inner], torch.stack(moved), None if mask is None else mask[..., inner, inner]


def best_shifts(restored: Tensor, gt: Tensor, mask: Tensor | None, *, radius_px: int) -> Tensor:
    """Find how far each reference lies from its picture: ``(B, 2)`` whole pixels, down and right.

    The shift with the largest normalised correlation of the two luminances over the inner, trusted part.
    """
    picture, reference = restored.detach().float().mean(dim=1), gt.float().mean(dim=1)
    height, width = (side - 2 * radius_px for side in gt.shape[-2:])
    inner = slice(radius_px, -radius_px)
    trusted = torch.ones_like(picture) if mask is None else mask[:, 0]
    weight = trusted[:, inner, inner]
    here = _standardised(picture[:, inner, inner], weight)
    steps = range(2 * radius_px + 1)
    fits = [
        (here * _standardised(reference[:, y : y + height, x : x + width], weight)).sum(dim=(1, 2))
        for y in steps
        for x in steps
    ]
    best = torch.stack(fits, dim=1).argmax(dim=1)
    return torch.stack([best // len(steps), best % len(steps)], dim=1) - radius_px


def _standardised(plane: Tensor, weight: Tensor) -> Tensor:
    """Subtract the weighted mean of ``(B, H, W)`` and divide by the weighted norm; zero where the weight is."""
    total = weight.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    centred = weight * (plane - (weight * plane).sum(dim=(1, 2), keepdim=True) / total)
    return centred / centred.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=_MSE_FLOOR)


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    trusted = mask.sum(dim=(1, 2, 3)) * values.shape[1]
    return (values * mask).sum(dim=(1, 2, 3)) / trusted.clamp(min=1)
