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


def pixel_loss(kind: PixelLoss, restored: Tensor, gt: Tensor, mask: Tensor | None) -> Tensor:
    """Compare restored pictures with their references; ``(B,)``.

    Args:
        kind: ``psnr`` is the negative PSNR in units of 10 dB (NAFNet's own loss, up to scale), so that a
            dim picture and a bright one weigh the same; ``charbonnier`` and ``l1`` are means of distances.
        restored: Network output.
        gt: Reference.
        mask: Where to look, None for everywhere.
    """
    difference = restored - gt
    if kind == "l1":
        return _masked_mean(difference.abs(), mask)
    if kind == "charbonnier":
        return _masked_mean(torch.sqrt(difference.square() + _CHARBONNIER_EPS**2), mask)
    mean_square = _masked_mean(difference.square(), mask)
    return torch.log(mean_square + _MSE_FLOOR) / math.log(10)


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    trusted = mask.sum(dim=(1, 2, 3)) * values.shape[1]
    return (values * mask).sum(dim=(1, 2, 3)) / trusted.clamp(min=1)
