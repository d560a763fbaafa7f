"""NAFNet as a restorer.

Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration, ECCV 2022; official code megvii-research/NAFNet.
The network is `models.backbones.nafnet.NAFNet`, the published one, and with the options below at their
defaults nothing is added to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from catalog.yaml_document import Document
from models.backbones.nafnet import NAFNet
from models.losses import PixelLoss, pixel_loss

if TYPE_CHECKING:
    from models.base import RestorationBatch


class NafnetConfig(Document):
    """Size of the network, in the official words, and its loss."""

    width: int = Field(default=32, ge=2)
    """Channels at full resolution."""
    enc_blk_nums: tuple[int, ...] = (1, 1, 1, 28)
    """Blocks of each encoder stage, highest resolution first."""
    middle_blk_num: int = Field(default=1, ge=0)
    dec_blk_nums: tuple[int, ...] = (1, 1, 1, 1)
    """Blocks of each decoder stage, lowest resolution first."""
    norm_eps: float = Field(default=1e-6, gt=0)
    loss: PixelLoss = "psnr"


class NafnetRestorer(nn.Module):
    """The network with its loss."""

    def __init__(self, config: NafnetConfig) -> None:
        super().__init__()
        self.loss_kind = config.loss
        self.network = NAFNet(
            width=config.width,
            enc_blk_nums=config.enc_blk_nums,
            middle_blk_num=config.middle_blk_num,
            dec_blk_nums=config.dec_blk_nums,
            norm_eps=config.norm_eps,
        )

    def forward(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)``; same shape, not clamped."""
        restored: Tensor = self.network(lq)
        return restored

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Mean pixel loss over the batch."""
        restored = self(batch.lq).float()
        return {"loss": pixel_loss(self.loss_kind, restored, batch.gt, batch.mask).mean()}

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1]; same shape and range."""
        restored: Tensor = self(lq).float().clamp(0, 1)
        return restored
