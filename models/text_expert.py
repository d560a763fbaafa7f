"""The text expert: a specialist for printed characters, which FoundIR names and does not release.

What makes print special, and what follows from it here:

- a stroke is one to three pixels wide, so the network never works below half the resolution by default;
- a letter is read by its edges, so the loss compares gradients beside colours, and counts print several times;
- print is somewhere in the picture, so the network says where, and elsewhere leaves the generalist's picture as it is:
  an expert that was called in vain does no harm;
- captured scenes hold little of it, so before the generalist sees them it is drawn on the crops, degraded as each pair
  is (`models.printed_text`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from catalog.yaml_document import Document
from models.backbones.nafnet import NAFNet
from models.experts import SecondPass
from models.printed_text import print_on

if TYPE_CHECKING:
    from models.base import RestorationBatch

_FINDING = 0.05
"""Weight of the cross-entropy of where print is."""


class TextExpertConfig(Document):
    """Size of the network, what it is trained on, and whom it follows."""

    generalist: str | None = None
    """As `models.experts.ExpertConfig.generalist`."""
    width: int = Field(default=32, ge=2)
    """Channels at full resolution."""
    enc_blk_nums: tuple[int, ...] = (4,)
    """Blocks of each encoder stage; each halves the resolution once."""
    middle_blk_num: int = Field(default=6, ge=0)
    dec_blk_nums: tuple[int, ...] = (4,)
    printed_share: float = Field(default=0.8, ge=0, le=1)
    """Share of training crops that get print; the others teach where there is none."""
    print_weight: float = Field(default=4.0, ge=0)
    """How often pixels of print count in the loss beside all others."""


class TextExpert(SecondPass):
    """A NAFNet with a fourth plane: where it sees print."""

    def __init__(self, config: TextExpertConfig) -> None:
        super().__init__(config.generalist)
        self.config = config
        self.network = NAFNet(
            img_channel=4,
            width=config.width,
            enc_blk_nums=config.enc_blk_nums,
            middle_blk_num=config.middle_blk_num,
            dec_blk_nums=config.dec_blk_nums,
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture, not clamped, and the logits of where print is, ``(B, 1, H, W)``."""
        four = F.pad(image, (0, 0, 0, 0, 0, 1))  # empty on the way in
        change, where = (self.network(four).float() - four).split((3, 1), dim=1)
        return image + where.sigmoid() * change, where

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Distance of colours and of gradients, print counted several times, and cross-entropy of where it is.

        Where there is no print, what the generalist returned is what is wanted.
        """
        printed = print_on(batch.lq, batch.gt, share=self.config.printed_share)
        first = self.first_pass(printed.lq)
        restored, where = self(first)
        apart = restored - torch.lerp(first, printed.gt, printed.where)
        trusted = torch.ones_like(printed.where) if batch.mask is None else batch.mask
        weight = trusted * (1 + self.config.print_weight * printed.where)
        reading = _weighted(apart, weight) + _weighted_edges(apart, weight)
        finding = F.binary_cross_entropy_with_logits(where, printed.where)
        return {
            "loss": reading + _FINDING * finding,
            "reading": reading.detach(),
            "finding": finding.detach(),
        }

    def refine(self, restored: Tensor) -> Tensor:
        """Restore the print in what the first pass returned."""
        second: Tensor = self(restored)[0]
        return second.clamp(0, 1)


def _weighted(difference: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean distance."""
    return (difference.abs() * weight).sum() / (weight.sum() * difference.shape[1]).clamp(min=1)


def _weighted_edges(difference: Tensor, weight: Tensor) -> Tensor:
    """Return the same of the gradients: their difference is the gradient of the difference."""
    across = _weighted(difference.diff(dim=3), weight[..., 1:])
    down = _weighted(difference.diff(dim=2), weight[..., 1:, :])
    return across + down
