"""NAFNet: a restoration U-net without activation functions.

Chen, Chu, Zhang, Sun: Simple Baselines for Image Restoration, ECCV 2022. Parameter names are those of the
official release (megvii-research/NAFNet, class ``NAFNet``), so its checkpoints load as they are.

What differs from the official code:

- LayerNorm over channels is PyTorch's own on the channels-last view instead of a hand-written autograd
  function: the same numbers, and no transposes when the tensors are channels-last;
- dropout is left out: every released configuration has it at zero;
- ``norm_eps`` is an option (official 1e-6; MaskDCPT's copy of the network uses 1e-5);
- channel attention's mean over a picture can be told to a tile of it (`models.picture_mean`).

Convention: tensors are ``(B, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.picture_mean import PictureMean


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


def simple_gate(x: Tensor) -> Tensor:
    """Multiply the two halves of the channels: ``(B, 2C, H, W)`` to ``(B, C, H, W)``; eq. 12."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFBlock(nn.Module):
    """Gated depthwise convolution with channel attention, then a gated 1x1 layer, each a scaled residual.

    Both residual scales start at zero, so that a fresh block is the identity.
    """

    def __init__(self, channels: int, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(PictureMean(), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels, eps=norm_eps)
        self.norm2 = LayerNorm2d(channels, eps=norm_eps)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        gated = simple_gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta * self.conv3(gated * self.sca(gated))
        restored: Tensor = y + self.gamma * self.conv5(simple_gate(self.conv4(self.norm2(y))))
        return restored


class NafTrunk(nn.Module):
    """Encoder, middle and decoder: strided 2x2 convolutions down, 1x1 and pixel shuffle up, additive skips."""

    def make_trunk(
        self,
        widths: Sequence[int],
        *,
        enc_blk_nums: Sequence[int],
        middle_blk_num: int,
        dec_blk_nums: Sequence[int],
        norm_eps: float = 1e-6,
    ) -> None:
        """Make the stages; a network calls it between making its first layers and its last.

        Args:
            widths: Channels of each level, highest resolution first; between levels the sides are halved.
            enc_blk_nums: Blocks of each encoder stage, one stage for each level but the lowest.
            middle_blk_num: Blocks at the lowest level.
            dec_blk_nums: Blocks of each decoder stage, lowest resolution first.
            norm_eps: Added to the variance in every layer normalisation.
        """
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise ValueError(
                f"{len(enc_blk_nums)} encoder and {len(dec_blk_nums)} decoder stages; need as many of both"
            )

        def stage(level: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(NAFBlock(widths[level], norm_eps=norm_eps) for _ in range(blocks)))

        steps = list(pairwise(widths))
        upwards = reversed(range(len(steps)))
        self.encoders = nn.ModuleList(stage(level, n) for level, n in enumerate(enc_blk_nums))
        self.downs = nn.ModuleList(nn.Conv2d(thin, wide, 2, stride=2) for thin, wide in steps)
        self.middle_blks = stage(len(steps), middle_blk_num)
        self.ups = nn.ModuleList(_upsampler(wide, thin) for thin, wide in reversed(steps))
        self.decoders = nn.ModuleList(stage(level, n) for level, n in zip(upwards, dec_blk_nums, strict=True))
        self.multiple = 2 ** len(steps)
        """Heights and widths that `trunk` takes are multiples of this."""

    def trunk(self, x: Tensor) -> Tensor:
        """Run features ``(B, widths[0], H, W)`` down and up; same shape."""
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle_blks(x)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return x


class NAFNet(NafTrunk):
    """The published U-net, with a global residual.

    Args:
        img_channel: Channels of the picture, in and out.
        width: Channels at full resolution; they double at each halving.
        middle_blk_num: Blocks at the lowest resolution.
        enc_blk_nums: Blocks of each encoder stage, highest resolution first.
        dec_blk_nums: Blocks of each decoder stage, lowest resolution first.
        norm_eps: Added to the variance in every layer normalisation.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 16,
        *,
        middle_blk_num: int = 1,
        enc_blk_nums: Sequence[int] = (),
        dec_blk_nums: Sequence[int] = (),
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.make_trunk(
            [width * 2**level for level in range(len(enc_blk_nums) + 1)],
            enc_blk_nums=enc_blk_nums,
            middle_blk_num=middle_blk_num,
            dec_blk_nums=dec_blk_nums,
            norm_eps=norm_eps,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Restore ``(B, img_channel, H, W)`` of any size; same shape, not clamped."""
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % self.multiple, 0, -height % self.multiple))
        restored = self.ending(self.trunk(self.intro(padded))) + padded
        cropped: Tensor = restored[..., :height, :width]
        return cropped


def _upsampler(wide: int, thin: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, 4 * thin, 1, bias=False), nn.PixelShuffle(2))
