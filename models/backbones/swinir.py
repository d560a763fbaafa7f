"""SwinIR as MaskDCPT uses it: shifted-window attention at full resolution, three encoding and three decoding groups.

Liang, Cao, Sun, Zhang, Van Gool, Timofte: SwinIR: Image Restoration Using Swin Transformer, ICCVW 2021; MaskDCPT's
class ``SwinIR`` (MILab-PKU/MaskDCPT), whose parameter names these are.

What differs from the paper, as in that release: no relative position bias; the shifted windows wrap round without a
mask, so that opposite borders attend to each other; the groups are named ``encode_layers`` and ``decode_layers``. Sides
that are no multiple of the window are padded by reflection and cut again. Upscaling is left out: the network restores
at the same size.

Convention: features inside groups are channels-last, ``(B, H, W, C)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.restormer import padded_to

MEAN_RGB = (0.4488, 0.4371, 0.4040)
"""Of DIV2K; taken off the picture and put back."""


class WindowAttention(nn.Module):
    """Self-attention within one window."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} attention heads do not divide {channels} channels")
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend in windows ``(windows, positions, C)``; same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, int(channels * ratio))
        self.fc2 = nn.Linear(int(channels * ratio), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position; same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwinBlock(nn.Module):
    """Window attention and feed-forward, each a residual; every second block shifts its windows by half."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, ratio: float) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, H, W, C)``; same shape."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        batch, height, width, channels = x.shape
        rows, columns, side = height // self.window, width // self.window, self.window
        tiled = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        attended = self.attn(tiled.reshape(-1, side * side, channels))
        x = attended.view(batch, rows, columns, side, side, channels).transpose(2, 3).reshape(x.shape)
        return x.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else x


class SwinBlocks(nn.Module):
    """Blocks one after the other; every second one shifts its windows."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, ratio: float) -> None:
        super().__init__()
        shifts = (0 if i % 2 == 0 else window // 2 for i in range(depth))
        self.blocks = nn.ModuleList(SwinBlock(channels, heads, window, s, ratio) for s in shifts)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, H, W, C)``; same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class SwinGroup(nn.Module):
    """Residual Swin transformer block: blocks, a 3x3 convolution, and the way past them."""

    def __init__(self, channels: int, depth: int, heads: int, window: int, ratio: float) -> None:
        super().__init__()
        self.residual_group = SwinBlocks(channels, depth, heads, window, ratio)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(B, H, W, C)``; same shape."""
        y = self.residual_group(x)
        out: Tensor = x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class SwinIR(nn.Module):
    """The published network. Arguments carry the official names.

    Args:
        in_chans: Channels of the picture.
        embed_dim: Channels of the features.
        depths: Blocks of each group; the first half of the groups encodes, the second decodes.
        num_heads: Attention heads of each group.
        window_size: Side of a window, px.
        mlp_ratio: Width of the feed-forward layers.
    """

    mean: Tensor

    def __init__(
        self,
        *,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 8,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        if len(depths) != len(num_heads):
            raise ValueError(f"{len(depths)} groups, but heads for {len(num_heads)}")
        groups = [
            SwinGroup(embed_dim, depth, heads, window_size, mlp_ratio)
            for depth, heads in zip(depths, num_heads, strict=True)
        ]
        self.window_size = window_size
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        half = len(groups) // 2
        self.encode_layers = nn.ModuleList(groups[:half])
        self._decoders = len(groups) - half
        for number, group in enumerate(groups[half:]):
            self.add_module(f"decode_layers{number}", group)
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        self.conv_last = nn.Conv2d(embed_dim, in_chans, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)``; same shape, not clamped."""
        height, width = image.shape[-2:]
        centred = padded_to(image, self.window_size) - self.mean
        shallow = self.conv_first(centred)
        x = self.patch_embed["norm"](shallow.permute(0, 2, 3, 1))
        for group in self._groups():
            x = group(x)
        deep = self.conv_after_body(self.norm(x).permute(0, 3, 1, 2)) + shallow
        restored: Tensor = centred + self.conv_last(deep) + self.mean
        return restored[..., :height, :width]

    def _groups(self) -> list[nn.Module]:
        return [
            *self.encode_layers,
            *(self.get_submodule(f"decode_layers{n}") for n in range(self._decoders)),
        ]
