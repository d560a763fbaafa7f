"""FoundIR's generalist as one writes it down from the paper: the rival of `benchmarks.models`, part ``speed``.

Network, forward process, loss, optimiser and average follow the equations of the paper one by one, in float32 and in
PyTorch's defaults; nothing is fused, reordered or left out. Parameter names are the official ones, so that both sides
can be given the same weights.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS, HEAD_WIDTH, EPS = 4, 32, 1e-5


class WeightStandardisedConv(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = (self.weight - mean).square().mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / torch.sqrt(variance + EPS), self.bias, padding=1)


class ChannelNorm(nn.Module):
    """Normalise over channels, with a gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        mean = x.mean(dim=1, keepdim=True)
        variance = (x - mean).square().mean(dim=1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + EPS) * self.g


class Block(nn.Module):
    """Convolution, group norm, scale and shift, SiLU."""

    def __init__(self, thin: int, wide: int) -> None:
        super().__init__()
        self.proj = WeightStandardisedConv(thin, wide, 3, padding=1)
        self.norm = nn.GroupNorm(8, wide)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Transform."""
        x = self.norm(self.proj(x))
        if scale is not None and shift is not None:
            x = x * (scale + 1) + shift
        return F.silu(x)


class ResidualBlock(nn.Module):
    """Two blocks and a way past them."""

    def __init__(self, thin: int, wide: int, time_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_width, 2 * wide))
        self.block1 = Block(thin, wide)
        self.block2 = Block(wide, wide)
        self.res_conv = nn.Conv2d(thin, wide, 1) if thin != wide else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform."""
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, dim=1)
        h = self.block2(self.block1(x, scale, shift))
        return cast("Tensor", h + self.res_conv(x))


class LinearAttention(nn.Module):
    """Linear attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1), ChannelNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        b, _, h, w = x.shape
        q, k, v = (t.reshape(b, HEADS, HEAD_WIDTH, h * w) for t in self.to_qkv(x).chunk(3, dim=1))
        q = q.softmax(dim=-2) * HEAD_WIDTH**-0.5
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(dim=-1), v / (h * w))
        out = torch.einsum("bhde,bhdn->bhen", context, q)
        return cast("Tensor", self.to_out(out.reshape(b, HEADS * HEAD_WIDTH, h, w)))


class FullAttention(nn.Module):
    """Full attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(channels, 3 * HEADS * HEAD_WIDTH, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_WIDTH, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        b, _, h, w = x.shape
        q, k, v = (t.reshape(b, HEADS, HEAD_WIDTH, h * w) for t in self.to_qkv(x).chunk(3, dim=1))
        weights = torch.einsum("bhdi,bhdj->bhij", q * HEAD_WIDTH**-0.5, k).softmax(dim=-1)
        out = torch.einsum("bhij,bhdj->bhid", weights, v)
        return cast("Tensor", self.to_out(out.permute(0, 1, 3, 2).reshape(b, HEADS * HEAD_WIDTH, h, w)))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return cast("Tensor", self.fn(x) + x)


class Normed(nn.Module):
    """f(norm(x))."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn, self.norm = fn, ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        return cast("Tensor", self.fn(self.norm(x)))


class Sinusoid(nn.Module):
    """The time as sines, then cosines."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        """Embed ``(B,)``."""
        half = self.width // 2
        rates = torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))
        angles = time[:, None] * rates[None, :]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PlainUnet(nn.Module):
    """The published U-net.

    Args:
        dim: Channels of the stem; stages have 1, 2, 4 and 8 times as many.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths, time = [dim, dim, 2 * dim, 4 * dim, 8 * dim], 4 * dim
        pairs = list(itertools.pairwise(widths))
        self.init_conv = nn.Conv2d(6, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(Sinusoid(dim), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, (thin, wide) in enumerate(pairs):
            resize = nn.Conv2d(thin, wide, 4, 2, 1) if i < 3 else nn.Conv2d(thin, wide, 3, padding=1)
            self.downs.append(self._stage(thin, thin, time, resize))
        self.mid_block1 = ResidualBlock(8 * dim, 8 * dim, time)
        self.mid_attn = Residual(Normed(8 * dim, FullAttention(8 * dim)))
        self.mid_block2 = ResidualBlock(8 * dim, 8 * dim, time)
        for i, (thin, wide) in enumerate(reversed(pairs)):
            conv = nn.Conv2d(wide, thin, 3, padding=1)
            up = nn.Sequential(nn.Upsample(scale_factor=2), conv) if i < 3 else conv
            self.ups.append(self._stage(wide + thin, wide, time, up))
        self.final_res_block = ResidualBlock(2 * dim, dim, time)
        self.final_conv = nn.Conv2d(dim, 3, 1)

    @staticmethod
    def _stage(given: int, width: int, time: int, resize: nn.Module) -> nn.ModuleList:
        blocks = [ResidualBlock(given, width, time) for _ in range(2)]
        return nn.ModuleList([*blocks, Residual(Normed(width, LinearAttention(width))), resize])

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Predict the residual ``(B, 3, H, W)`` from ``(B, 6, H, W)``, sides a multiple of 16."""
        x = self.init_conv(x)
        stem, t = x.clone(), self.time_mlp(time)
        skips = []
        for block1, block2, attention, resize in cast("list[list[nn.Module]]", self.downs):
            x = block1(x, t)
            skips.append(x)
            x = attention(block2(x, t))
            skips.append(x)
            x = resize(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, t)), t)
        for block1, block2, attention, resize in cast("list[list[nn.Module]]", self.ups):
            x = block1(torch.cat([x, skips.pop()], dim=1), t)
            x = block2(torch.cat([x, skips.pop()], dim=1), t)
            x = resize(attention(x))
        x = self.final_res_block(torch.cat([x, stem], dim=1), t)
        return cast("Tensor", self.final_conv(x))


class PlainTraining:
    """The published training: Adam, gradient norm at most 1, an average of the weights every tenth step.

    Args:
        dim: Of the network.
    """

    def __init__(self, dim: int) -> None:
        self.network = PlainUnet(dim)
        self.average = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.steps = 0
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), dim=0)
        self.a, self.b = 1 - kept.sqrt(), (1 - kept).sqrt()
        self.d = torch.linspace(1e-6, 1.4e-3, 1000).cumsum(dim=0).clamp(0, 1)

    def step(self, lq: Tensor, gt: Tensor) -> None:
        """Make one step on crops ``(B, 3, H, W)`` in [0, 1]."""
        c, x0 = 2 * lq - 1, 2 * gt - 1
        t = torch.randint(1000, (len(c),))
        a, b, d = (s[t][:, None, None, None] for s in (self.a, self.b, self.d))
        state = x0 + a * (c - x0) + b * torch.randn_like(c) - d * c
        predicted = self.network(torch.cat([state, c], dim=1), 1000 * self.a[t])
        loss = (predicted - (c - x0)).abs().mean()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        if self.steps % 10 == 0:
            self._take_in()

    @torch.no_grad()
    def _take_in(self) -> None:
        for name, tensor in self.network.state_dict().items():
            self.average[name].lerp_(tensor, 1 - 0.995)
