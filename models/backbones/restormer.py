"""Restormer: a restoration U-net whose attention runs over channels, so that its cost grows with the pixels only.

Zamir, Arora, Khan, Hayat, Khan, Yang: Restormer: Efficient Transformer for High-Resolution Image Restoration, CVPR
2022. Parameter names are those of the official release (swz30/Restormer, class ``Restormer``), so its checkpoints load
as they are; those of MaskDCPT's copy load through `models.backbones.key_maps`.

What differs from the official code:

- the with-bias norm is PyTorch's own layer norm on the channels-last view; the same numbers;
- the dual-pixel variant (six input channels, no global skip) is left out;
- pictures whose sides are no multiple of 8 are padded by reflection and cut again, where the official code fails.

Convention: tensors are ``(B, C, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormKind = Literal["WithBias", "BiasFree"]
NORM_EPS = 1e-5


class NormBody(nn.Module):
    """What a norm learns, under the official name."""

    def __init__(self, channels: int, kind: NormKind) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if kind == "WithBias" else None


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel; bias-free, the mean is not taken away either."""

    def __init__(self, channels: int, kind: NormKind) -> None:
        super().__init__()
        self.body = NormBody(channels, kind)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``."""
        weight, bias = self.body.weight, self.body.bias
        if bias is None:
            variance = x.var(dim=1, keepdim=True, unbiased=False)
            return x * torch.rsqrt(variance + NORM_EPS) * weight[:, None, None]
        last = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, NORM_EPS)
        return last.permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention: every head attends over its channels; eq. 1 and 2."""

    def __init__(self, channels: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} attention heads do not divide {channels} channels")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=bias)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; same shape."""
        height, width = x.shape[-2:]
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).flatten(3)
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        mixed = weights.softmax(dim=-1) @ v
        out: Tensor = self.project_out(mixed.flatten(1, 2).unflatten(-1, (height, width)))
        return out


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network; eq. 3."""

    def __init__(self, channels: int, expansion: float, *, bias: bool) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position with its neighbours; same shape."""
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        out: Tensor = self.project_out(F.gelu(gate) * value)
        return out


class TransformerBlock(nn.Module):
    """Channel attention, then the gated feed-forward network, each a residual."""

    def __init__(self, channels: int, heads: int, expansion: float, *, bias: bool, norm: NormKind) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, norm)
        self.attn = ChannelAttention(channels, heads, bias=bias)
        self.norm2 = ChannelNorm(channels, norm)
        self.ffn = GatedFeedForward(channels, expansion, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Transform; same shape."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class Rescale(nn.Module):
    """Halve or double the sides: a 3x3 convolution, then pixels into channels or back."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        out = 2 * channels if up else channels // 2
        shuffle = nn.PixelShuffle(2) if up else nn.PixelUnshuffle(2)
        self.body = nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, 2C, H/2, W/2)`` or ``(B, C/2, 2H, 2W)``."""
        out: Tensor = self.body(x)
        return out


class PatchEmbed(nn.Module):
    """Lift the picture to features by a 3x3 convolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` to ``(B, C, H, W)``."""
        out: Tensor = self.proj(x)
        return out


class Restormer(nn.Module):
    """The published network. Arguments carry the official names.

    Args:
        inp_channels: Channels of the picture.
        out_channels: Channels of the restored picture.
        dim: Channels at full resolution; doubled at each of three halvings.
        num_blocks: Blocks of each encoder level and of the bottleneck; decoders have as many as their encoder.
        num_refinement_blocks: Blocks at full resolution behind the decoder.
        heads: Attention heads of the same four levels.
        ffn_expansion_factor: Width of the feed-forward network.
        bias: Whether the convolutions of blocks carry a bias.
        LayerNorm_type: ``WithBias``, or ``BiasFree`` as the official denoisers have it.
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
    ) -> None:
        super().__init__()
        self.dim = dim
        self.make_block = partial(
            TransformerBlock, expansion=ffn_expansion_factor, bias=bias, norm=LayerNorm_type
        )
        """Makes a block from its channels and heads."""
        self.make_mixer = partial(nn.Conv2d, kernel_size=1, bias=bias)
        """Makes a 1x1 convolution from its channels in and out."""

        def blocks(level: int, channels: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(self.make_block(channels, heads[level]) for _ in range(count)))

        self.patch_embed = PatchEmbed(inp_channels, dim)
        self.encoder_level1 = blocks(0, dim, num_blocks[0])
        self.down1_2 = Rescale(dim, up=False)
        self.encoder_level2 = blocks(1, 2 * dim, num_blocks[1])
        self.down2_3 = Rescale(2 * dim, up=False)
        self.encoder_level3 = blocks(2, 4 * dim, num_blocks[2])
        self.down3_4 = Rescale(4 * dim, up=False)
        self.latent = blocks(3, 8 * dim, num_blocks[3])
        self.up4_3 = Rescale(8 * dim, up=True)
        self.reduce_chan_level3 = self.make_mixer(8 * dim, 4 * dim)
        self.decoder_level3 = blocks(2, 4 * dim, num_blocks[2])
        self.up3_2 = Rescale(4 * dim, up=True)
        self.reduce_chan_level2 = self.make_mixer(4 * dim, 2 * dim)
        self.decoder_level2 = blocks(1, 2 * dim, num_blocks[1])
        self.up2_1 = Rescale(2 * dim, up=True)
        self.decoder_level1 = blocks(0, 2 * dim, num_blocks[0])
        self.refinement = blocks(0, 2 * dim, num_refinement_blocks)
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    def forward(self, image: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)``; same shape, not clamped."""
        height, width = image.shape[-2:]
        padded = padded_to(image, 8)
        restored: Tensor = padded + self.output(self.refinement(self.decode(*self.encode(padded))))
        return restored[..., :height, :width]

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features of the three encoder levels and of the bottleneck, full resolution first."""
        first = self.encoder_level1(self.patch_embed(image))
        second = self.encoder_level2(self.down1_2(first))
        third = self.encoder_level3(self.down2_3(second))
        return first, second, third, self.latent(self.down3_4(third))

    def decode(self, first: Tensor, second: Tensor, third: Tensor, latent: Tensor) -> Tensor:
        """Return the decoder's features at full resolution, ``(B, 2 dim, H, W)``."""
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(latent), third], dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), second], dim=1)))
        out: Tensor = self.decoder_level1(torch.cat([self.up2_1(x), first], dim=1))
        return out


def padded_to(image: Tensor, multiple: int) -> Tensor:
    """Pad right and below by reflection until both sides are multiples; by repetition where a picture is too small."""
    height, width = image.shape[-2:]
    missing = (0, -width % multiple, 0, -height % multiple)
    if not any(missing):
        return image
    mode = "reflect" if missing[1] < width and missing[3] < height else "replicate"
    return F.pad(image, missing, mode=mode)
