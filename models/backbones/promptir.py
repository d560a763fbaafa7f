"""PromptIR: Restormer whose decoder is told by learned prompts what is wrong with the picture.

Potlapalli, Zamir, Khan, Khan: PromptIR: Prompting for All-in-One Blind Image Restoration, NeurIPS 2023. Parameter names
are those of the official release (va1shn9v/PromptIR, class ``PromptIR``); those of MaskDCPT's copy load through
`models.backbones.key_maps`.

What differs from the official code:

- the official class also holds six convolutions that no forward pass uses (``chnl_reduce*`` and
  ``reduce_noise_channel_*``); they are here only with ``official_leftovers``, so that its checkpoints load strictly;
- the widths of the prompts follow ``dim`` where the official code fixes them for 48;
- sides that are no multiple of 8 are padded, as in `models.backbones.restormer`.

Convention: tensors are ``(B, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.restormer import NormKind, Rescale, Restormer, TransformerBlock

PROMPTS = 5
PROMPT_HEADS = 4


class PromptBlock(nn.Module):
    """Generates a prompt from features: a mixture of learned pictures, at the features' size; eq. 1 and 2."""

    def __init__(self, channels: int, size: int, in_channels: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, PROMPTS, channels, size, size))
        self.linear_layer = nn.Linear(in_channels, PROMPTS)
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the prompt for features ``(B, in_channels, H, W)``: ``(B, channels, H, W)``."""
        weights = self.linear_layer(x.mean(dim=(-2, -1))).softmax(dim=1)
        prompt = torch.einsum("bn,nchw->bchw", weights, self.prompt_param[0])
        resized = F.interpolate(prompt, x.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.conv3x3(resized)
        return out


class PromptIR(Restormer):
    """The published network. Arguments carry the official names, as in `Restormer`.

    Args:
        decoder: Whether prompts are used at all; without them it is a Restormer.
        official_leftovers: Hold the tensors that the official checkpoints carry without use.
    """

    def __init__(
        self,
        *,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: NormKind = "WithBias",
        decoder: bool = True,
        official_leftovers: bool = False,
    ) -> None:
        super().__init__(
            inp_channels=inp_channels,
            out_channels=out_channels,
            dim=dim,
            num_blocks=num_blocks,
            num_refinement_blocks=num_refinement_blocks,
            heads=heads,
            ffn_expansion_factor=ffn_expansion_factor,
            bias=bias,
            LayerNorm_type=LayerNorm_type,
        )
        self.prompted = decoder
        if not decoder:
            return
        widths = {1: (4 * dim // 3, 64), 2: (8 * dim // 3, 32), 3: (20 * dim // 3, 16)}
        features = {1: 2 * dim, 2: 4 * dim, 3: 8 * dim}
        reduced = {1: 2 * dim, 2: 4 * dim, 3: 4 * dim}
        for level, (channels, size) in widths.items():
            wide = features[level] + channels
            block = TransformerBlock(wide, PROMPT_HEADS, ffn_expansion_factor, bias=bias, norm=LayerNorm_type)
            self.add_module(f"prompt{level}", PromptBlock(channels, size, features[level]))
            self.add_module(f"noise_level{level}", block)
            self.add_module(f"reduce_noise_level{level}", nn.Conv2d(wide, reduced[level], 1, bias=bias))
        self._narrow_the_way_up(dim, bias=bias)
        if official_leftovers:
            self._hold_leftovers(dim, bias=bias)

    def decode(self, first: Tensor, second: Tensor, third: Tensor, latent: Tensor) -> Tensor:
        """Return the decoder's features at full resolution, prompted at three levels."""
        if not self.prompted:
            return super().decode(first, second, third, latent)
        x = self.up4_3(self._prompt(3, latent))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, third], dim=1)))
        x = self.up3_2(self._prompt(2, x))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([x, second], dim=1)))
        x = self.up2_1(self._prompt(1, x))
        out: Tensor = self.decoder_level1(torch.cat([x, first], dim=1))
        return out

    def _prompt(self, level: int, x: Tensor) -> Tensor:
        """Put the prompt beside the features, let one block mix them, and reduce the channels."""
        prompt = self.get_submodule(f"prompt{level}")(x)
        mixed = self.get_submodule(f"noise_level{level}")(torch.cat([x, prompt], dim=1))
        out: Tensor = self.get_submodule(f"reduce_noise_level{level}")(mixed)
        return out

    def _narrow_the_way_up(self, dim: int, *, bias: bool) -> None:
        """After a prompt the features are half as wide as in Restormer on their way up from the bottleneck."""
        self.up4_3 = Rescale(4 * dim, up=True)
        self.reduce_chan_level3 = nn.Conv2d(6 * dim, 4 * dim, 1, bias=bias)

    def _hold_leftovers(self, dim: int, *, bias: bool) -> None:
        self.chnl_reduce1 = nn.Conv2d(64, 64, 1, bias=bias)
        self.chnl_reduce2 = nn.Conv2d(128, 128, 1, bias=bias)
        self.chnl_reduce3 = nn.Conv2d(320, 256, 1, bias=bias)
        self.reduce_noise_channel_1 = nn.Conv2d(dim + 64, dim, 1, bias=bias)
        self.reduce_noise_channel_2 = nn.Conv2d(2 * dim + 128, 2 * dim, 1, bias=bias)
        self.reduce_noise_channel_3 = nn.Conv2d(4 * dim + 256, 4 * dim, 1, bias=bias)
