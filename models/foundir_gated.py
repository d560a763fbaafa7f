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

from torch import Tensor, nn

from models.backbones.nafnet import NafTrunk
from models.backbones.restormer import padded_to
from models.foundir_unet import PADDED_TO


class GatedUnet(NafTrunk):
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
        widths, once = [dim * mult for mult in dim_mults], (1,) * (len(dim_mults) - 1)
        self.init_conv = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.make_trunk(widths, enc_blk_nums=once, middle_blk_num=1, dec_blk_nums=once)
        self.final_conv = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, x: Tensor, _time: Tensor) -> Tensor:
        """Predict the residual.

        Args:
            x: State and condition, ``(B, in_channels, H, W)`` of any size.
            _time: The continuous time, not looked at.

        Returns:
            ``(B, out_channels, H, W)``, not clamped.
        """
        height, width = x.shape[-2:]
        predicted: Tensor = self.final_conv(self.trunk(self.init_conv(padded_to(x, PADDED_TO))))
        return predicted[..., :height, :width]
