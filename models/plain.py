"""Published backbones as restorers of their own: the network as it is, and one of the shared pixel losses.

The networks and what they differ in from the official code stand in `models.backbones`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from catalog.yaml_document import Document
from models.backbones.promptir import PromptIR
from models.backbones.restormer import NormKind, Restormer
from models.backbones.swinir import SwinIR
from models.backbones.wavelet_scan import HEAD_WIDTH, WaveletScan
from models.losses import PixelLoss, pixel_loss

if TYPE_CHECKING:
    from models.base import RestorationBatch


class PixelLossConfig(Document):
    """What a network from picture to picture learns from."""

    loss: PixelLoss = "l1"
    shift_px: int = Field(default=0, ge=0, le=8)
    """Forgive the references a shift of so many pixels, for pairs that are not aligned."""


class RestormerConfig(PixelLossConfig):
    """Size of a Restormer, in the official words, and its loss."""

    dim: int = Field(default=48, ge=1, le=4096)
    """Channels at full resolution."""
    num_blocks: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt, NonNegativeInt] = (4, 6, 6, 8)
    num_refinement_blocks: int = Field(default=4, ge=0)
    heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1, 2, 4, 8)
    """Attention heads of the same levels; each divides its level's channels, which double from level to level."""
    ffn_expansion_factor: float = Field(default=2.66, gt=0, le=16)
    bias: bool = False
    LayerNorm_type: NormKind = "WithBias"


class PromptirConfig(RestormerConfig):
    """Size of a PromptIR, in the official words, and its loss."""

    decoder: bool = True
    """Whether prompts are used."""
    official_leftovers: bool = False
    """Hold the unused tensors of the official checkpoints."""


class SwinirConfig(PixelLossConfig):
    """Size of MaskDCPT's SwinIR, in the official words, and its loss."""

    embed_dim: int = Field(default=180, ge=1, le=4096)
    depths: tuple[NonNegativeInt, ...] = Field(default=(6, 6, 6, 6, 6, 6), min_length=1, max_length=64)
    num_heads: tuple[PositiveInt, ...] = (6, 6, 6, 6, 6, 6)
    """Attention heads of each group; each divides the channels."""
    window_size: int = Field(default=8, ge=1, le=256)
    mlp_ratio: float = Field(default=2.0, gt=0, le=16)


class WaveletScanConfig(PixelLossConfig):
    """Size of a WaveletScan, and its loss."""

    width: int = Field(default=32, ge=HEAD_WIDTH // 2, le=4096, multiple_of=HEAD_WIDTH // 2)
    """Channels, the same at every level."""
    low_blocks: tuple[NonNegativeInt, ...] = Field(default=(1, 2, 4), min_length=1, max_length=8)
    """Blocks on the low band of each level, highest resolution first."""
    high_blocks: tuple[NonNegativeInt, ...] = Field(default=(1, 1, 2), min_length=1, max_length=8)
    """Blocks on the high bands of as many levels."""
    state: int = Field(default=16, ge=1, le=1024)
    """Numbers that each head of a scan remembers of each channel."""
    ffn_expansion_factor: float = Field(default=2.0, gt=0, le=16)


class PlainRestorer(nn.Module):
    """A network from picture to picture, with its loss.

    Args:
        make: The network's class, which takes all but the loss by the same names.
        config: Its size, and the loss.
    """

    def __init__(self, make: Callable[..., nn.Module], config: PixelLossConfig) -> None:
        super().__init__()
        self.network = make(**config.model_dump(exclude=set(PixelLossConfig.model_fields)))
        self.loss_kind, self.shift_px = config.loss, config.shift_px

    def forward(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32; same shape, not clamped."""
        restored: Tensor = self.network(lq)
        return restored.float()

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Mean pixel loss over the batch."""
        restored = self(batch.lq)
        losses = pixel_loss(self.loss_kind, restored, batch.gt, batch.mask, shift_px=self.shift_px)
        return {"loss": losses.mean()}

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1]; same shape and range."""
        restored: Tensor = self(lq)
        return restored.clamp(0, 1)


class RestormerRestorer(PlainRestorer):
    """Restormer."""

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__(Restormer, config)


class PromptirRestorer(PlainRestorer):
    """PromptIR."""

    def __init__(self, config: PromptirConfig) -> None:
        super().__init__(PromptIR, config)


class SwinirRestorer(PlainRestorer):
    """SwinIR."""

    def __init__(self, config: SwinirConfig) -> None:
        super().__init__(SwinIR, config)


class WaveletScanRestorer(PlainRestorer):
    """WaveletScan."""

    def __init__(self, config: WaveletScanConfig) -> None:
        super().__init__(WaveletScan, config)
