"""WaveletScan: a low-light network that scans the low band of a wavelet and lets it lead the high ones.

In the spirit of Wave-Mamba (Zou, Gao, Cheng, Li, Yu: Wave-Mamba: Wavelet State Space Model for Ultra-High-Definition
Low-Light Image Enhancement, ACM MM 2024), whose weights are FoundIR's low-light expert. Kept is its idea: a Haar
wavelet goes down and up without loss, light is global and lies in the low band, so a selective state space model runs
there over the whole picture, and details are corrected by what the low band became. **FoundIR's released
``lowlight.pth`` does not load into this network**: it is another one, and needs no compiled kernel.

What differs from Wave-Mamba:

- the scan has one decay a head (Mamba-2's form) where the official one has one for every channel and state. In this
  form all but the state between chunks is matrix products, so plain PyTorch runs it on a processor or a GPU;
- levels nest: what a deeper level made of the low band leads the high bands of this one;
- high bands get a gain and an addition from the low band instead of features matched against it;
- the picture is multiplied by a gain and added to, as light is, and a fresh network returns its input.

Convention: tensors are ``(B, C, H, W)``, sequences ``(B, L, C)``.

References:
    Gu, Dao: Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.
    Dao, Gu: Transformers are SSMs: Generalized Models and Efficient Algorithms through Structured State Space
    Duality, ICML 2024: the chunked form of section 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.nafnet import LayerNorm2d, simple_gate
from models.backbones.restormer import GatedFeedForward, padded_to

DIRECTIONS = 4
"""Along the rows, along the columns, and both backwards."""
HEAD_WIDTH = 16
"""Channels that share a decay."""
CHUNK, PART = 64, 16384
"""Positions that meet all at once, and positions held in memory at a time."""
_LARGEST_LOG_GAIN = 6.0
"""Eight stops and a half: beyond that there is no picture left to brighten."""


def selective_scan(values: Tensor, log_decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """Run a linear recurrence whose coefficients depend on the position.

    Every head has a state h of ``(N, P)`` that begins at zero:

        h_t = exp(log_decay_t) h_(t-1) + write_t values_t
        y_t = read_t h_t

    Within a chunk all pairs of positions meet in one product, between chunks only the state goes on. No exponent is
    above zero, so nothing overflows however long the sequence is.

    Args:
        values: ``(B, L, heads, P)``.
        log_decay: ``(B, L, heads)``, none above zero.
        write: ``(B, L, N)``, the same for all heads.
        read: As ``write``.

    Returns:
        y, ``(B, L, heads, P)``.
    """
    batch, length, heads, width = values.shape
    state = values.new_zeros(batch, heads, write.shape[-1], width)
    parts = []
    for start in range(0, length, PART):
        at = slice(start, start + PART)
        part, state = _scan_part(values[:, at], log_decay[:, at], write[:, at], read[:, at], state)
        parts.append(part)
    return torch.cat(parts, dim=1)


def _scan_part(
    values: Tensor, log_decay: Tensor, write: Tensor, read: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Scan a part of a sequence from a given state; returns y and the state behind it."""
    length = values.shape[1]
    values, log_decay, write, read = (_in_chunks(x) for x in (values, log_decay, write, read))
    since = log_decay.cumsum(dim=2)
    left = torch.einsum("bkjn,bkjhp->bkhnp", write, values * (since[:, :, -1:] - since).exp()[..., None])
    entering, state = _carried(left, since[:, :, -1].exp()[..., None, None], state)
    from_before = torch.einsum("bkin,bkhnp->bkihp", read, entering) * since.exp()[..., None]
    met = (read @ write.transpose(-2, -1))[..., None] * _fading(since)
    y = from_before + torch.einsum("bkijh,bkjhp->bkihp", met, values)
    return y.flatten(1, 2)[:, :length], state


def _in_chunks(x: Tensor) -> Tensor:
    """Cut ``(B, L, …)`` into ``(B, chunks, Q, …)``; what is missing is zero: it neither decays nor writes."""
    side = min(CHUNK, x.shape[1])
    padded = F.pad(x, (0, 0) * (x.dim() - 2) + (0, -x.shape[1] % side))
    chunks: Tensor = padded.unflatten(1, (-1, side))
    return chunks


def _fading(since: Tensor) -> Tensor:
    """Return what is left at i of what was written at j: ``(B, K, Q, heads)`` to ``(B, K, i, j, heads)``."""
    size = since.shape[2]
    later = torch.ones(size, size, dtype=torch.bool, device=since.device).triu(1)[..., None]
    return (since[:, :, :, None] - since[:, :, None]).masked_fill(later, -math.inf).exp()


def _carried(left: Tensor, decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the state that enters each chunk, ``(B, K, heads, N, P)``, and the one behind the last."""
    entering = []
    for chunk in range(left.shape[1]):
        entering.append(state)
        state = decay[:, chunk] * state + left[:, chunk]
    return torch.stack(entering, dim=1), state


def haar_split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split ``(B, C, 2H, 2W)`` into its low band ``(B, C, H, W)`` and its three high ones ``(B, 3C, H, W)``."""
    low, *high = _butterfly(F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).unbind(dim=2))
    return low, torch.cat(high, dim=1)


def haar_merge(low: Tensor, high: Tensor) -> Tensor:
    """Put the bands of `haar_split` together again, without loss."""
    blocks = _butterfly((low, *high.chunk(3, dim=1)))
    return F.pixel_shuffle(torch.stack(blocks, dim=2).flatten(1, 2), 2)


def _butterfly(bands: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Multiply four numbers by the orthonormal 2x2 Haar matrix, which is its own inverse."""
    a, b, c, d = bands
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


class DirectionalScan(nn.Module):
    """A selective state space model over the positions of a picture, in four directions.

    Args:
        channels: Of the picture, in and out.
        state: Numbers that each head remembers of each channel.
    """

    def __init__(self, channels: int, *, state: int) -> None:
        super().__init__()
        inner = 2 * channels
        self._split = (inner // HEAD_WIDTH, state, state)
        heads = inner // HEAD_WIDTH
        self.project = nn.Conv2d(channels, 2 * inner, 1)
        self.near = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.control = nn.Conv2d(inner, DIRECTIONS * sum(self._split), 1)
        # Rates and steps as Mamba begins, paired so that heads remember from a thousand positions down to one.
        self.log_rate = nn.Parameter(torch.linspace(1, 16, heads).log().repeat(DIRECTIONS, 1))
        steps = torch.exp(torch.linspace(math.log(0.001), math.log(0.1), heads))
        self.step_bias = nn.Parameter(steps.expm1().log().repeat(DIRECTIONS, 1))
        self.skip = nn.Parameter(torch.ones(inner, 1, 1))
        self.norm = LayerNorm2d(inner)
        self.out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Let every position learn of all others; same shape."""
        values, gate = self.project(x).chunk(2, dim=1)
        values = F.silu(self.near(values))
        controls = self.control(values).float().chunk(DIRECTIONS, dim=1)
        with torch.autocast(x.device.type, enabled=False):  # sums over thousands of positions stay float32
            exact = values.float()
            ways = [self._one_way(exact, control, way) for way, control in enumerate(controls)]
            scanned = sum(ways, start=exact * self.skip)
        out: Tensor = self.out(self.norm(scanned) * F.silu(gate))
        return out

    def _one_way(self, values: Tensor, control: Tensor, way: int) -> Tensor:
        step, write, read = _laid_out(control, way).split(self._split, dim=-1)
        step = F.softplus(step + self.step_bias[way])
        sequence = _laid_out(values, way).unflatten(-1, (-1, HEAD_WIDTH))
        log_decay = -step * self.log_rate[way].exp()
        scanned = selective_scan(sequence * step[..., None], log_decay, write, read)
        return _laid_back(scanned.flatten(-2), way, (values.shape[-2], values.shape[-1]))


def _laid_out(x: Tensor, way: int) -> Tensor:
    """Lay ``(B, C, H, W)`` out as a sequence ``(B, H W, C)``: rows, rows backwards, columns, columns backwards."""
    turned = x.transpose(-2, -1) if way >= 2 else x
    sequence = turned.flatten(2).transpose(1, 2)
    return sequence.flip(1) if way % 2 else sequence


def _laid_back(sequence: Tensor, way: int, size: tuple[int, int]) -> Tensor:
    """Undo `_laid_out`."""
    height, width = size
    forward = sequence.flip(1) if way % 2 else sequence
    extents = (width, height) if way >= 2 else (height, width)
    planes: Tensor = forward.transpose(1, 2).unflatten(-1, extents)
    return planes.transpose(-2, -1) if way >= 2 else planes


class LowBlock(nn.Module):
    """A scan, then a gated feed-forward network, each a residual."""

    def __init__(self, channels: int, *, state: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.scan = DirectionalScan(channels, state=state)
        self.norm2 = LayerNorm2d(channels)
        self.ffn = GatedFeedForward(channels, expansion, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the low band; same shape."""
        x = x + self.scan(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class HighBlock(nn.Module):
    """Corrects the high bands by what the low one has become: a gain, and details of its own.

    A picture that is brightened needs its details raised by as much, so the gain is read off the low band.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 3 * channels
        self.norm_low, self.norm_high = LayerNorm2d(channels), LayerNorm2d(wide)
        self.gain = nn.Conv2d(channels, wide, 3, padding=1)
        self.mix = nn.Conv2d(channels + wide, 2 * channels, 1)
        self.near = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.out = nn.Conv2d(channels, wide, 1)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Correct ``(B, 3C, H, W)`` by ``(B, C, H, W)``."""
        low = self.norm_low(low)
        mixed = self.near(self.mix(torch.cat([low, self.norm_high(high)], dim=1)))
        corrected: Tensor = high * (1 + self.gain(low)) + self.out(simple_gate(mixed))
        return corrected


class WaveletLevel(nn.Module):
    """One halving of the wavelet with all that lies below it.

    Args:
        channels: Of the features.
        low_blocks: Blocks on the low band of this level and of each deeper one.
        high_blocks: The same for the high bands.
        state: Numbers that each head of a scan remembers of each channel.
        expansion: Width of the feed-forward networks.
    """

    def __init__(
        self,
        channels: int,
        low_blocks: Sequence[int],
        high_blocks: Sequence[int],
        *,
        state: int,
        expansion: float,
    ) -> None:
        super().__init__()
        self.low = nn.Sequential(
            *(LowBlock(channels, state=state, expansion=expansion) for _ in range(low_blocks[0]))
        )
        self.deeper = (
            WaveletLevel(channels, low_blocks[1:], high_blocks[1:], state=state, expansion=expansion)
            if len(low_blocks) > 1
            else nn.Identity()
        )
        self.high = nn.ModuleList(HighBlock(channels) for _ in range(high_blocks[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Transform; same shape, whose sides halve as often as there are levels."""
        low, high = haar_split(x)
        low = self.deeper(self.low(low))
        for block in self.high:
            high = block(high, low)
        return haar_merge(low, high)


class WaveletScan(nn.Module):
    """The network. The defaults are Wave-Mamba's width and depth, at 332,566 parameters for its 1,512,718.

    Args:
        width: Channels, the same at all levels; a multiple of 8.
        low_blocks: Blocks on the low band of each level, highest resolution first.
        high_blocks: Blocks on the high bands of each level.
        state: Numbers that each head of a scan remembers of each channel.
        ffn_expansion_factor: Width of the feed-forward networks.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        low_blocks: Sequence[int] = (1, 2, 4),
        high_blocks: Sequence[int] = (1, 1, 2),
        state: int = 16,
        ffn_expansion_factor: float = 2.0,
    ) -> None:
        super().__init__()
        if len(low_blocks) != len(high_blocks):
            raise ValueError(f"{len(low_blocks)} levels of low blocks and {len(high_blocks)} of high ones")
        self._multiple = 2 ** len(low_blocks)
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.levels = WaveletLevel(
            width, low_blocks, high_blocks, state=state, expansion=ffn_expansion_factor
        )
        self.ending = nn.Conv2d(width, 6, 3, padding=1)
        nn.init.zeros_(self.ending.weight)
        nn.init.zeros_(self.ending.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, image: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` of any size; same shape, not clamped."""
        height, width = image.shape[-2:]
        padded = padded_to(image, self._multiple)
        log_gain, added = self.ending(self.levels(self.intro(padded))).float().chunk(2, dim=1)
        restored: Tensor = padded * log_gain.clamp(max=_LARGEST_LOG_GAIN).exp() + added
        return restored[..., :height, :width]
