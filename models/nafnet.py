"""NAFNet as a restorer.

Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration, ECCV 2022; official code megvii-research/NAFNet.
The network is `models.backbones.nafnet.NAFNet`, the published one. With ``unshuffle: 1`` and ``light: false``,
the defaults, nothing is added to it. What the two options add, for training in minutes on a CPU:

- ``unshuffle: 2`` runs the network on 2x2 blocks of pixels as channels (as FFDNet does): a quarter of the
  positions, so about four times as many pixels per second;
- ``light: true`` puts `LightBranch` in front: it looks at the whole picture reduced to a few cells and brightens
  by a smooth gain and gamma, so that what is left to the network is detail, not brightness.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.yaml_document import Document
from models.backbones.nafnet import NAFNet
from models.data import PICTURE_CELLS
from models.losses import PixelLoss, pixel_loss

if TYPE_CHECKING:
    from models.base import RestorationBatch

_BLACK = 1 / 1020
"""A quarter of an 8-bit step: keeps the power of black pixels finite."""
_CURVE_SCALE, _NEED_SCALE = 8.0, 4.0
"""Steps of the optimiser count so many times for the light, which has far to go in few steps."""


class NafnetConfig(Document):
    """Size of the network, in the official words, its loss, and the two additions."""

    width: int = Field(default=32, ge=2)
    """Channels at full resolution."""
    enc_blk_nums: tuple[int, ...] = (1, 1, 1, 28)
    """Blocks of each encoder stage, highest resolution first."""
    middle_blk_num: int = Field(default=1, ge=0)
    dec_blk_nums: tuple[int, ...] = (1, 1, 1, 1)
    """Blocks of each decoder stage, lowest resolution first."""
    norm_eps: float = Field(default=1e-6, gt=0)
    loss: PixelLoss = "psnr"
    unshuffle: int = Field(default=1, ge=1, le=4)
    """Side of the blocks of pixels that the network sees as one position."""
    light: bool = False
    """Brighten by a learned smooth gain and gamma first."""


class LightBranch(nn.Module):
    """One learned gain and gamma, and the decision how much of it a picture needs.

    The decision rests on the mean, spread and maximum of the whole picture, even where the network sees a
    crop of it, so a dark object in a bright picture is told from a dark picture. It starts as the identity.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        outlet = nn.Linear(width, 1)
        nn.init.zeros_(outlet.weight)
        nn.init.constant_(outlet.bias, -2 / _NEED_SCALE)
        self.need = nn.Sequential(nn.Linear(9, width), nn.SiLU(), outlet)
        self.curve = nn.Parameter(torch.tensor([math.log(3.5), 0.0]) / _CURVE_SCALE)

    def forward(self, image: Tensor, picture: Tensor) -> Tensor:
        """Brighten a part of a picture.

        Args:
            image: The part, ``(B, 3, H, W)`` in [0, 1].
            picture: The whole, reduced to ``(B, 3, h, w)``.

        Returns:
            ``gain * image ** gamma`` of the shape of ``image``, not clamped.
        """
        with torch.autocast(image.device.type, enabled=False):
            need = torch.sigmoid(_NEED_SCALE * self.need(_statistics(picture)))
            log_gain, log_gamma = (_CURVE_SCALE * self.curve * need).view(-1, 2, 1, 1, 1).unbind(dim=1)
            return torch.exp(log_gain + torch.exp(log_gamma) * torch.log(image + _BLACK))


def _statistics(picture: Tensor) -> Tensor:
    """Mean, spread and maximum of each channel: ``(B, 3, h, w)`` to ``(B, 9)``."""
    cells = picture.flatten(2)
    return torch.cat([cells.mean(dim=2), cells.std(dim=2), cells.amax(dim=2)], dim=1)


class NafnetRestorer(nn.Module):
    """The network with its loss."""

    def __init__(self, config: NafnetConfig) -> None:
        super().__init__()
        self.loss_kind = config.loss
        self.unshuffle = config.unshuffle
        self.light = LightBranch() if config.light else None
        self.network = NAFNet(
            img_channel=3 * config.unshuffle**2,
            width=config.width,
            enc_blk_nums=config.enc_blk_nums,
            middle_blk_num=config.middle_blk_num,
            dec_blk_nums=config.dec_blk_nums,
            norm_eps=config.norm_eps,
        )

    def forward(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)``; same shape, not clamped."""
        if self.unshuffle == 1:
            return self._plain(lq)
        height, width = lq.shape[-2:]
        padding = (0, -width % self.unshuffle, 0, -height % self.unshuffle)
        blocks = F.pixel_unshuffle(F.pad(lq, padding, mode="replicate"), self.unshuffle)
        restored: Tensor = F.pixel_shuffle(self._plain(blocks), self.unshuffle)[..., :height, :width]
        return restored

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Mean pixel loss over the batch; the light branch learns from a loss of its own."""
        lit = self._lit(batch.lq, batch.picture)
        restored = self(lit.detach()).float()
        detail = pixel_loss(self.loss_kind, restored, batch.gt, batch.mask).mean()
        if self.light is None:
            return {"loss": detail}
        light = pixel_loss(self.loss_kind, lit, batch.gt, batch.mask).mean()
        return {"loss": detail + light, "detail": detail.detach(), "light": light.detach()}

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1]; same shape and range."""
        picture = F.interpolate(lq, size=(PICTURE_CELLS, PICTURE_CELLS), mode="area")
        restored: Tensor = self(self._lit(lq, picture)).float().clamp(0, 1)
        return restored

    def _lit(self, image: Tensor, picture: Tensor) -> Tensor:
        lit: Tensor = image if self.light is None else self.light(image, picture)
        return lit

    def _plain(self, image: Tensor) -> Tensor:
        restored: Tensor = self.network(image)
        return restored
