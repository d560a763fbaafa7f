"""The text expert: a specialist for printed characters, which FoundIR names and does not release.

What makes print special, and what follows from it here:

- a stroke is one to three pixels wide, so the network never works below half the resolution by default;
- a letter is read by its edges, so the loss compares gradients beside colours, and counts print several times;
- print is somewhere in the picture, so the network says where, and elsewhere leaves the generalist's picture as it is:
  an expert that was called in vain does no harm;
- print is unlike anything else in a captured scene, so a generalist may harm it (the tiny one does, by 1.2 to 2.2 dB
  under noise, defocus and rain, from which it frees the scene around). FoundIR's specialists are given the generalist's
  picture alone; this one also sees the degraded picture, and takes print from whichever of the two says more;
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

_FINDING = 0.2
"""Weight of the cross-entropy of where print is."""
_READABLE = 4e-3
"""Mean square below which a crop counts as read; it keeps crops without print from weighing without end."""


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
    """A NAFNet that restores both the first pass's picture and the degraded one, and takes print from the better.

    Its eight planes, in and out: the first pass's picture, where print is, the degraded picture, and how much of that.
    """

    def __init__(self, config: TextExpertConfig) -> None:
        super().__init__(config.generalist)
        self.config = config
        self.network = NAFNet(
            img_channel=8,
            width=config.width,
            enc_blk_nums=config.enc_blk_nums,
            middle_blk_num=config.middle_blk_num,
            dec_blk_nums=config.dec_blk_nums,
        )

    def forward(self, first: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored picture, not clamped, and the logits of where print is, ``(B, 1, H, W)``."""
        blank = torch.zeros_like(lq[:, :1])
        planes = self.network(torch.cat([first, blank, lq, blank], dim=1)).float()
        of_first, where, of_lq, back = planes.split((3, 1, 3, 1), dim=1)
        print_restored = torch.lerp(of_first, of_lq, back.sigmoid())
        return torch.lerp(first, print_restored, where.sigmoid()), where

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """How much is left of what is wrong with the better of the two pictures, and cross-entropy of where print is.

        Colours and gradients are compared, print counting several times; where there is none, what the generalist
        returned is what is wanted. A share, since in the dark print is wrong by a hundred times what it is under noise:
        added up as it is, the one would be all that is learned, at the cost of the other.
        """
        printed = print_on(batch.lq, batch.gt, share=self.config.printed_share)
        first = self.first_pass(printed.lq)
        restored, where = self(first, printed.lq)
        wanted = torch.lerp(first, printed.gt, printed.where)
        trusted = torch.ones_like(printed.where) if batch.mask is None else batch.mask
        weight = trusted * (1 + self.config.print_weight * printed.where)
        given = torch.minimum(_wrong(first - wanted, weight), _wrong(printed.lq - wanted, weight))
        wrong = _wrong(restored - wanted, weight)
        finding = F.binary_cross_entropy_with_logits(where, printed.where)
        return {
            "loss": (wrong / (given + _READABLE)).mean() + _FINDING * finding,
            "reading": wrong.mean().sqrt().detach(),
            "finding": finding.detach(),
        }

    def refine(self, restored: Tensor, lq: Tensor) -> Tensor:
        """Restore the print in what the first pass returned, with the degraded picture beside it."""
        second: Tensor = self(restored, lq)[0]
        return second.clamp(0, 1)


def _wrong(difference: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean square of each crop's difference and of its gradients, ``(B,)``.

    The gradients' difference is the gradient of the difference.
    """
    across = _weighted(difference.diff(dim=3), weight[..., 1:])
    down = _weighted(difference.diff(dim=2), weight[..., 1:, :])
    return _weighted(difference, weight) + across + down


def _weighted(difference: Tensor, weight: Tensor) -> Tensor:
    square = (difference.square() * weight).sum(dim=(1, 2, 3))
    return square / (weight.sum(dim=(1, 2, 3)) * difference.shape[1]).clamp(min=1)
