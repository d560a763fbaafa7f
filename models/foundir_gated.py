"""A small U-net for FoundIR's residual diffusion, of NAFNet's blocks.

In minutes on a CPU the published U-net (`models.foundir_unet`) does not learn to remove noise, and half of each step
goes into its attention. NAFNet's blocks begin as the identity and gate where those normalise. Luo et al. put them into
a diffusion that restores before us (Refusion, CVPR Workshops 2023), and tell them the time. This network is not told:
it serves one call, whose time is always the same, and a layer whose input never changes only makes a training restless
(its scale ran to 0.9 in 1,500 steps, and noise stayed in the pictures).

Convention: tensors are ``(B, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.backbones.nafnet import NAFBlock
from models.backbones.restormer import padded_to
from models.foundir_unet import PADDED_TO


class GatedUnet(nn.Module):
    """One block for each stage on the way down and up, additive skips; called as `FoundirUnet` is.

    Args:
        in_channels: Channels of the state and of the picture that conditions it, together.
        out_channels: Channels of the predicted residual.
        dim: Channels of the stem.
        dim_mults: Channels of each stage, as multiples of ``dim``; between stages the sides are halved.
    """

    def __init__(
        self, *, in_channels: int = 6, out_channels: int = 3, dim: int, dim_mults: Sequence[int]
    ) -> None:
        super().__init__()
        *widths, lowest = (dim * mult for mult in dim_mults)
        steps = list(pairwise([*widths, lowest]))
        first = dim * dim_mults[0]
        self.init_conv = nn.Conv2d(in_channels, first, 3, padding=1)
        self.encoders = nn.ModuleList(NAFBlock(width) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(thin, wide, 2, stride=2) for thin, wide in steps)
        self.middle = NAFBlock(lowest)
        self.ups = nn.ModuleList(_doubled(wide, thin) for thin, wide in reversed(steps))
        self.decoders = nn.ModuleList(NAFBlock(width) for width in reversed(widths))
        self.final_conv = nn.Conv2d(first, out_channels, 3, padding=1)

    def forward(self, x: Tensor, _time: Tensor) -> Tensor:
        """Predict the residual.

        Args:
            x: State and condition, ``(B, in_channels, H, W)`` of any size.
            _time: The continuous time, not looked at.

        Returns:
            ``(B, out_channels, H, W)``, not clamped.
        """
        height, width = x.shape[-2:]
        x = self.init_conv(padded_to(x, PADDED_TO))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(up(x) + skips.pop())
        predicted: Tensor = self.final_conv(x)
        return predicted[..., :height, :width]


def _doubled(wide: int, thin: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(wide, 4 * thin, 1, bias=False), nn.PixelShuffle(2))
