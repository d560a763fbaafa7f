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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from catalog.yaml_document import Document
from models.backbones.nafnet import NAFNet
from models.data import PICTURE_CELLS
from models.losses import PixelLoss, pixel_loss

if TYPE_CHECKING:
    from models.base import RestorationBatch, Restorer

_BLACK = 1 / 1020
"""A quarter of an 8-bit step: keeps the logarithm and the power of black pixels finite."""
_LIGHT_SCALE = 8.0
"""The light branch has far to go in few steps: each step of the optimiser counts so many times for it."""


class NafnetConfig(Document):
    """Size of the network, in the official words, its loss, and the two additions."""

    width: int = Field(default=32, ge=2, le=4096)
    """Channels at full resolution."""
    enc_blk_nums: tuple[NonNegativeInt, ...] = Field(default=(1, 1, 1, 28), max_length=8)
    """Blocks of each encoder stage, highest resolution first."""
    middle_blk_num: int = Field(default=1, ge=0)
    dec_blk_nums: tuple[NonNegativeInt, ...] = Field(default=(1, 1, 1, 1), max_length=8)
    """Blocks of each decoder stage, lowest resolution first; as many stages as the encoder has."""
    norm_eps: float = Field(default=1e-6, gt=0)
    loss: PixelLoss = "psnr"
    shift_px: int = Field(default=0, ge=0, le=8)
    """Forgive the references a shift of so many pixels, for pairs that are not aligned."""
    unshuffle: int = Field(default=1, ge=1, le=4)
    """Side of the blocks of pixels that the network sees as one position."""
    light: bool = False
    """Brighten by a learned smooth gain and gamma first."""


class LightBranch(nn.Module):
    """One learned gain and gamma, and the decision whether a picture needs them.

    The decision rests on the whole picture, even where the network sees a crop of it, so a dark object in a
    bright picture is told from a dark picture. It starts at: brighten 3.5 times (a sixteenth of the light, at
    the slope of the video curve) where even the brightest cell is below half of full scale.
    """

    def __init__(self) -> None:
        super().__init__()
        self.curve = nn.Parameter(torch.tensor([math.log(3.5), 0.0]) / _LIGHT_SCALE)
        self.need = nn.Linear(2, 1)
        with torch.no_grad():
            self.need.weight.copy_(torch.tensor([[-4.0, 0.0]]) / _LIGHT_SCALE)
            self.need.bias.copy_(torch.tensor([-4.0]) / _LIGHT_SCALE)

    def forward(self, image: Tensor, picture: Tensor) -> Tensor:
        """Brighten a part of a picture.

        Args:
            image: The part, ``(B, 3, H, W)`` in [0, 1].
            picture: The whole, reduced to ``(B, 3, h, w)``.

        Returns:
            ``gain * image ** gamma`` of the shape of ``image``, not clamped.
        """
        with torch.autocast(image.device.type, enabled=False):
            decided = torch.sigmoid(_LIGHT_SCALE * self.need(_brightness(picture)))
            need = (1.2 * decided - 0.1).clamp(
                0, 1
            )  # a clear decision is a whole one, so bright pictures pass
            log_gain, log_gamma = (_LIGHT_SCALE * self.curve * need).view(-1, 2, 1, 1, 1).unbind(dim=1)
            return torch.exp(log_gain + torch.exp(log_gamma) * torch.log(image.clamp(min=_BLACK)))


def _brightness(picture: Tensor) -> Tensor:
    """Brightest cell and mean in stops below full scale: ``(B, 3, h, w)`` to ``(B, 2)``."""
    cells = picture.mean(dim=1).flatten(1)
    return torch.log2(torch.stack([cells.amax(dim=1), cells.mean(dim=1)], dim=1) + _BLACK)


class NafnetRestorer(nn.Module):
    """The network with its loss."""

    def __init__(self, config: NafnetConfig) -> None:
        super().__init__()
        self.loss_kind, self.shift_px = config.loss, config.shift_px
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
        detail = pixel_loss(self.loss_kind, restored, batch.gt, batch.mask, shift_px=self.shift_px).mean()
        if self.light is None:
            return {"loss": detail}
        light = pixel_loss("l1", lit, batch.gt, batch.mask).mean()
        return {"loss": detail + light, "detail": detail.detach(), "light": light.detach()}

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1]; same shape and range."""
        return self.restore_part(lq, _reduced(lq))

    def restore_part(self, part: Tensor, picture: Tensor) -> Tensor:
        """Restore a part of a picture, which as a whole, reduced, is ``picture``; as `restore`."""
        restored: Tensor = self(self._lit(part, picture)).float().clamp(0, 1)
        return restored

    def restorer_for(self, lq: Tensor) -> Restorer:
        """Judge the light of a picture ``(1, 3, H, W)`` as a whole, for every tile of it."""
        if self.light is None:
            return self
        return _UnderOneLight(self, _reduced(lq).to(self.light.curve.device))

    def _lit(self, image: Tensor, picture: Tensor) -> Tensor:
        lit: Tensor = image if self.light is None else self.light(image, picture)
        return lit

    def _plain(self, image: Tensor) -> Tensor:
        restored: Tensor = self.network(image)
        return restored


@dataclass(frozen=True)
class _UnderOneLight:
    """Restores the tiles of one picture."""

    model: NafnetRestorer
    picture: Tensor

    def restore(self, lq: Tensor) -> Tensor:
        return self.model.restore_part(lq, self.picture)


def _reduced(lq: Tensor) -> Tensor:
    return F.interpolate(lq, size=(PICTURE_CELLS, PICTURE_CELLS), mode="area")
