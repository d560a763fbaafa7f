"""The U-net of FoundIR's generalist: weight-standardised residual blocks, linear attention, a time embedding.

Li, Chen, Dong, Tang, Pan: FoundIR, ICCV 2025; the network is that of DiffUIR and RDDM before it. Parameter names are
those of the official release (House-Leo/FoundIR, class ``UnetRes``) behind ``unet0.``, so its checkpoints load through
the key map ``foundir`` of `models.backbones.key_maps`.

What differs from the official code, none of it in the numbers of the float32 network:

- full attention is PyTorch's own, whose memory grows with the pixels and not with their square;
- linear attention divides by the number of pixels once, behind the sum over them, and without gradients it takes one
  head after the other: a quarter of the memory at full resolution, which is the most of the whole network;
- in bfloat16 the weights stay float32, so weights and norms keep the float32 epsilon of 1e-5 (officially 1e-3).

Convention: tensors are ``(B, C, H, W)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.restormer import padded_to

GROUPS, HEADS, HEAD_WIDTH = 8, 4, 32
_SPLIT = (3, HEADS, HEAD_WIDTH)
"""Queries, keys and values, each in heads."""
TIME_WIDTH = 4
"""The time embedding is so many times as wide as the stem."""
EPS = 1e-5
PADDED_TO = 16
"""Sides are padded to a multiple of this, as officially; the network itself halves three times."""


class StandardisedConv(nn.Conv2d):
    """A 3x3 convolution whose filters have mean 0 and variance 1 each."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; same size."""
        weight = F.layer_norm(self.weight, self.weight.shape[1:], eps=EPS)
        return F.conv2d(x, weight, self.bias, padding=1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, with a gain and without a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; same shape."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.g.flatten(), eps=EPS)
        return last.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Convolution, group norm, scale and shift by the time, SiLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = StandardisedConv(in_channels, out_channels)
        self.norm = nn.GroupNorm(GROUPS, out_channels)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Transform; ``scale_shift`` are two of ``(B, C, 1, 1)``."""
        x = self.norm(self.proj(x))
        if scale_shift is not None:
            scale, shift = scale_shift
            x = x * (scale + 1) + shift
        return F.silu(x)


class ResnetBlock(nn.Module):
    """Two blocks and the way past them; the first is told the time."""

    def __init__(self, in_channels: int, out_channels: int, time_channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        self.block1 = Block(in_channels, out_channels)
        self.block2 = Block(out_channels, out_channels)
        same = in_channels == out_channels
        self.res_conv = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform ``(B, in, H, W)`` with the time embedding ``(B, T)``."""
        scale, shift = self.mlp(time)[..., None, None].chunk(2, dim=1)
        out: Tensor = self.block2(self.block1(x, (scale, shift))) + self.res_conv(x)
        return out


class LinearAttention(nn.Module):
    """Attention whose cost grows with the pixels: keys and values meet before the queries come."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1), ChannelNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend; same shape."""
        heads = self._all_heads(x) if torch.is_grad_enabled() else self._head_by_head(x)
        out: Tensor = self.to_out(heads)
        return out

    def _all_heads(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).flatten(2).unflatten(1, _SPLIT).unbind(dim=1)
        out: Tensor = _linear_attention(q, k, v).flatten(1, 2).unflatten(-1, x.shape[-2:])
        return out

    def _head_by_head(self, x: Tensor) -> Tensor:
        weights = self.to_qkv.weight.unflatten(0, _SPLIT).unbind(dim=1)
        heads = []
        for weight in weights:
            q, k, v = F.conv2d(x, weight.flatten(0, 1)).flatten(2).chunk(3, dim=1)
            heads.append(_linear_attention(q, k, v))
        out: Tensor = torch.cat(heads, dim=1).unflatten(-1, x.shape[-2:])
        return out


def _linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with channels-by-pixels matrices ``(..., C, N)``; same shape."""
    context: Tensor = k.softmax(dim=-1) @ v.transpose(-2, -1) * (HEAD_WIDTH**-0.5 / v.shape[-1])
    return context.transpose(-2, -1).to(q.dtype) @ q.softmax(dim=-2).to(q.dtype)


class FullAttention(nn.Module):
    """Every position attends to every other one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; same shape."""
        positions = self.to_qkv(x).flatten(2).unflatten(1, _SPLIT).transpose(-2, -1)
        q, k, v = positions.unbind(dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.to_out(mixed.transpose(-2, -1).flatten(1, 2).unflatten(-1, x.shape[-2:]))
        return out


class NormedResidual(nn.Module):
    """A layer behind a norm, and the way past both."""

    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.fn = nn.ModuleDict({"fn": layer, "norm": ChannelNorm(channels)})

    def forward(self, x: Tensor) -> Tensor:
        """Transform; same shape."""
        out: Tensor = x + self.fn["fn"](self.fn["norm"](x))
        return out


class TimeEmbedding(nn.Module):
    """Sines, then cosines of a number at frequencies from 1 down to 1/10000."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        steps = torch.arange(half) * (-math.log(10000) / (half - 1))
        self.register_buffer("frequencies", steps.exp(), persistent=False)

    def forward(self, time: Tensor) -> Tensor:
        """Embed ``(B,)`` as ``(B, width)``."""
        angles = time[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class FoundirUnet(nn.Module):
    """The published network.

    Args:
        in_channels: Channels of the state and of the picture that conditions it, together.
        out_channels: Channels of the predicted residual.
        dim: Channels of the stem, a multiple of 8.
        dim_mults: Channels of each stage, as multiples of ``dim``; between stages the sides are halved.
    """

    def __init__(
        self,
        *,
        in_channels: int = 6,
        out_channels: int = 3,
        dim: int = 64,
        dim_mults: Sequence[int] = (1, 2, 4, 8),
    ) -> None:
        super().__init__()
        widths = [dim, *(dim * mult for mult in dim_mults)]
        stages, last = list(pairwise(widths)), len(dim_mults) - 1
        time = TIME_WIDTH * dim
        self.init_conv = nn.Conv2d(in_channels, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(
            TimeEmbedding(dim), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time)
        )
        self.downs = nn.ModuleList(
            _down_stage(thin, wide, time, halve=i < last) for i, (thin, wide) in enumerate(stages)
        )
        self.mid_block1 = ResnetBlock(widths[-1], widths[-1], time)
        self.mid_attn = NormedResidual(widths[-1], FullAttention(widths[-1]))
        self.mid_block2 = ResnetBlock(widths[-1], widths[-1], time)
        self.ups = nn.ModuleList(
            _up_stage(thin, wide, time, double=i > 0) for i, (thin, wide) in reversed(list(enumerate(stages)))
        )
        self.final_res_block = ResnetBlock(2 * dim, dim, time)
        self.final_conv = nn.Conv2d(dim, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Predict the residual.

        Args:
            x: State and condition, ``(B, in_channels, H, W)`` of any size.
            time: ``(B,)`` float32, the continuous time.

        Returns:
            ``(B, out_channels, H, W)``, not clamped.
        """
        height, width = x.shape[-2:]
        stem = self.init_conv(padded_to(x, PADDED_TO))
        embedded = self.time_mlp(time)
        x, skips = self._encode(stem, embedded)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, embedded)), embedded)
        for stage in self.ups:
            first, second, attention, resize = stage.children()
            x = first(torch.cat([x, skips.pop()], dim=1), embedded)
            x = resize(attention(second(torch.cat([x, skips.pop()], dim=1), embedded)))
        x = self.final_res_block(torch.cat([x, stem], dim=1), embedded)
        predicted: Tensor = self.final_conv(x)
        return predicted[..., :height, :width]

    def _encode(self, x: Tensor, embedded: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for stage in self.downs:
            first, second, attention, resize = stage.children()
            x = first(x, embedded)
            skips.append(x)
            x = attention(second(x, embedded))
            skips.append(x)
            x = resize(x)
        return x, skips


def _down_stage(thin: int, wide: int, time: int, *, halve: bool) -> nn.ModuleList:
    resize = nn.Conv2d(thin, wide, 4, stride=2, padding=1) if halve else nn.Conv2d(thin, wide, 3, padding=1)
    blocks = (ResnetBlock(thin, thin, time) for _ in range(2))
    return nn.ModuleList([*blocks, NormedResidual(thin, LinearAttention(thin)), resize])


def _up_stage(thin: int, wide: int, time: int, *, double: bool) -> nn.ModuleList:
    conv = nn.Conv2d(wide, thin, 3, padding=1)
    resize = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv) if double else conv
    blocks = (ResnetBlock(wide + thin, wide, time) for _ in range(2))
    return nn.ModuleList([*blocks, NormedResidual(wide, LinearAttention(wide)), resize])
