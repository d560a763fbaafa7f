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

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.restormer import Rescale, Restormer

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
    """The published network. Arguments carry the official names.

    Args:
        decoder: Whether prompts are used at all; without them it is a Restormer.
        official_leftovers: Hold the tensors that the official checkpoints carry without use.
        restormer: All that `Restormer` takes.
    """

    def __init__(self, *, decoder: bool = True, official_leftovers: bool = False, **restormer: Any) -> None:
        super().__init__(**restormer)
        self.prompted = decoder
        if not decoder:
            return
        dim = self.dim
        widths = {1: (4 * dim // 3, 64), 2: (8 * dim // 3, 32), 3: (20 * dim // 3, 16)}
        features = {1: 2 * dim, 2: 4 * dim, 3: 8 * dim}
        reduced = {1: 2 * dim, 2: 4 * dim, 3: 4 * dim}
        for level, (channels, size) in widths.items():
            wide = features[level] + channels
            self.add_module(f"prompt{level}", PromptBlock(channels, size, features[level]))
            self.add_module(f"noise_level{level}", self.make_block(wide, PROMPT_HEADS))
            self.add_module(f"reduce_noise_level{level}", self.make_mixer(wide, reduced[level]))
        self._narrow_the_way_up()
        if official_leftovers:
            self._hold_leftovers()

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

    def _narrow_the_way_up(self) -> None:
        """After a prompt the features are half as wide as in Restormer on their way up from the bottleneck."""
        self.up4_3 = Rescale(4 * self.dim, up=True)
        self.reduce_chan_level3 = self.make_mixer(6 * self.dim, 4 * self.dim)

    def _hold_leftovers(self) -> None:
        dim, mixer = self.dim, self.make_mixer
        self.chnl_reduce1, self.chnl_reduce2, self.chnl_reduce3 = (
            mixer(64, 64),
            mixer(128, 128),
            mixer(320, 256),
        )
        self.reduce_noise_channel_1 = mixer(dim + 64, dim)
        self.reduce_noise_channel_2 = mixer(2 * dim + 128, 2 * dim)
        self.reduce_noise_channel_3 = mixer(4 * dim + 256, 4 * dim)
