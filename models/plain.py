"""Published backbones as restorers of their own: the network as it is, and one of the shared pixel losses.

The networks and what they differ in from the official code stand in `models.backbones`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from catalog.yaml_document import Document
from models.backbones.promptir import PromptIR
from models.backbones.restormer import NormKind, Restormer
from models.backbones.swinir import SwinIR
from models.backbones.wavelet_scan import HEAD_WIDTH, WaveletScan
from models.losses import PixelLoss, pixel_loss

if TYPE_CHECKING:
    from models.base import RestorationBatch


class RestormerConfig(Document):
    """Size of a Restormer, in the official words, and its loss."""

    dim: int = Field(default=48, ge=1)
    """Channels at full resolution."""
    num_blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    num_refinement_blocks: int = Field(default=4, ge=0)
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    ffn_expansion_factor: float = Field(default=2.66, gt=0)
    bias: bool = False
    LayerNorm_type: NormKind = "WithBias"
    loss: PixelLoss = "l1"


class PromptirConfig(RestormerConfig):
    """Size of a PromptIR, in the official words, and its loss."""

    decoder: bool = True
    """Whether prompts are used."""
    official_leftovers: bool = False
    """Hold the unused tensors of the official checkpoints."""


class SwinirConfig(Document):
    """Size of MaskDCPT's SwinIR, in the official words, and its loss."""

    embed_dim: int = Field(default=180, ge=1)
    depths: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    num_heads: tuple[int, ...] = (6, 6, 6, 6, 6, 6)
    window_size: int = Field(default=8, ge=1)
    mlp_ratio: float = Field(default=2.0, gt=0)
    loss: PixelLoss = "l1"


class WaveletScanConfig(Document):
    """Size of a WaveletScan, and its loss."""

    width: int = Field(default=32, ge=HEAD_WIDTH // 2, multiple_of=HEAD_WIDTH // 2)
    """Channels, the same at every level."""
    low_blocks: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1)
    """Blocks on the low band of each level, highest resolution first."""
    high_blocks: tuple[int, ...] = Field(default=(1, 1, 2), min_length=1)
    """Blocks on the high bands of as many levels."""
    state: int = Field(default=16, ge=1)
    """Numbers that each head of a scan remembers of each channel."""
    ffn_expansion_factor: float = Field(default=2.0, gt=0)
    loss: PixelLoss = "l1"


class PlainRestorer(nn.Module):
    """A network from picture to picture, with its loss."""

    def __init__(self, network: nn.Module, loss_kind: PixelLoss) -> None:
        super().__init__()
        self.network = network
        self.loss_kind = loss_kind

    def forward(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32; same shape, not clamped."""
        restored: Tensor = self.network(lq)
        return restored.float()

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Mean pixel loss over the batch."""
        return {"loss": pixel_loss(self.loss_kind, self(batch.lq), batch.gt, batch.mask).mean()}

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1]; same shape and range."""
        restored: Tensor = self(lq)
        return restored.clamp(0, 1)


class RestormerRestorer(PlainRestorer):
    """Restormer."""

    def __init__(self, config: RestormerConfig) -> None:
        super().__init__(Restormer(**config.model_dump(exclude={"loss"})), config.loss)


class PromptirRestorer(PlainRestorer):
    """PromptIR."""

    def __init__(self, config: PromptirConfig) -> None:
        super().__init__(PromptIR(**config.model_dump(exclude={"loss"})), config.loss)


class SwinirRestorer(PlainRestorer):
    """SwinIR."""

    def __init__(self, config: SwinirConfig) -> None:
        super().__init__(SwinIR(**config.model_dump(exclude={"loss"})), config.loss)


class WaveletScanRestorer(PlainRestorer):
    """WaveletScan."""

    def __init__(self, config: WaveletScanConfig) -> None:
        super().__init__(WaveletScan(**config.model_dump(exclude={"loss"})), config.loss)
