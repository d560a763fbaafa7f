"""FoundIR's generalist: residual diffusion from the degraded picture to the clean one in four network calls.

Li, Chen, Dong, Tang, Pan: FoundIR: Unleashing Million-scale Training Data to Advance Foundation Models for Image
Restoration, ICCV 2025, arXiv 2412.01427; official code House-Leo/FoundIR. Schedules, objective and sampler are those of
DiffUIR, with less of the degraded picture removed at the end of time. With the defaults the network, the forward
process, the loss and the sampler give the official numbers (golden case ``foundir_generalist``).

The paper writes alpha-bar, delta-bar and beta-bar for the sums A, B and D below; the official code calls B
``betas_cumsum`` and D ``delta_cumsum``.

What is ours:

- the start noise of the sampler is part of one plane of noise, so that tiles of a picture agree (`models.noise_field`);
- the loss leaves out pixels that a pair's mask does not trust, and can forgive a reference its shift;
- for training in minutes on a CPU: ``unshuffle: 2`` runs the network on 2x2 blocks of pixels as channels,
  ``blocks: gated`` makes its U-net of NAFNet's blocks, and loss, noise and times of the training and its start can be
  other than the published ones.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from catalog.yaml_document import Document
from models.foundir_gated import GatedUnet
from models.foundir_unet import GROUPS, FoundirUnet
from models.losses import PixelLoss, pixel_loss, shift_tolerant
from models.noise_field import NoiseField

if TYPE_CHECKING:
    from models.base import RestorationBatch


class FoundirConfig(Document):
    """Size of the network, the schedules, and the sampler."""

    dim: int = Field(default=64, ge=GROUPS, le=4096, multiple_of=GROUPS)
    """Channels at full resolution; the paper's 64 makes 36,261,187 parameters."""
    dim_mults: tuple[int, ...] = Field(default=(1, 2, 4, 8), min_length=1)
    """Width of each stage as a multiple of ``dim``; at most five, since sides are padded to a multiple of 16."""
    timesteps: int = Field(default=1000, ge=2, le=100_000)
    delta_end: float = Field(default=1.4e-3, gt=0)
    """Last step of the removal of the degraded picture; the larger, the less the end state says about it."""
    start_noise_std: float = Field(default=0.1, ge=0)
    """Noise that the sampler starts from, of pictures in [-1, 1]."""
    sampling_steps: int = Field(default=4, ge=1, le=1000)
    """Network calls per picture: officially 4 for real pictures, 3 for synthetic ones."""
    unshuffle: int = Field(default=1, ge=1, le=4)
    """Side of the blocks of pixels that the network sees as one position."""
    blocks: Literal["residual", "gated"] = "residual"
    """What the U-net is made of: the published blocks, or NAFNet's, which learn mixed degradations in few steps but are
    not told the time, so they serve a sampler of one call."""
    loss: PixelLoss = "l1"
    """How the residual is compared; officially l1. ``psnr`` weighs faint residuals and strong ones alike, which is
    what a short training of mixed degradations needs."""
    starts_at_input: bool = False
    """Begin with a residual of nothing, so that a training starts from the picture as it is."""
    training_noise: float = Field(default=1.0, ge=0)
    """The noise of training beside the published one. The sampler meets ``start_noise_std`` and no more."""
    training_times: Literal["all", "sampled"] = "all"
    """Train at any time, or only at those that the sampler asks about: a short training learns these sooner."""
    shift_px: int = Field(default=0, ge=0, le=8)
    """Train on references moved by up to so many pixels to where the degraded crop lies, for pairs that are not
    aligned."""

    @field_validator("dim_mults")
    @classmethod
    def _fits_the_padding(cls, mults: tuple[int, ...]) -> tuple[int, ...]:
        if len(mults) > 5 or not 1 <= min(mults) <= max(mults) <= 64:
            raise ValueError("needs one to five whole numbers from 1 to 64")
        return mults

    @model_validator(mode="after")
    def _tells_the_time(self) -> Self:
        if self.blocks == "gated" and (self.sampling_steps, self.training_times) != (1, "sampled"):
            raise ValueError("blocks: gated needs sampling_steps: 1 and training_times: sampled")
        return self


class ResidualDiffusion(nn.Module):
    """The schedules; times are whole numbers from 0 to ``timesteps - 1``, pictures lie in [-1, 1].

    A state between the clean picture x0 and the degraded one c, with R = c - x0 and noise e, is

        x_t = x0 + A_t R + B_t e - D_t c
    """

    def __init__(self, timesteps: int, delta_end: float) -> None:
        super().__init__()
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, timesteps), dim=0)
        removed = torch.linspace(1e-6, delta_end, timesteps).cumsum(dim=0)
        self.register_buffer("residual_share", 1 - kept.sqrt(), persistent=False)
        self.register_buffer("noise_std", (1 - kept).sqrt(), persistent=False)
        self.register_buffer("lq_removed", removed.clamp(0, 1), persistent=False)
        self.residual_share: Tensor
        """A_t, ``(timesteps,)`` float32."""
        self.noise_std: Tensor
        """B_t."""
        self.lq_removed: Tensor
        """D_t."""

    def __len__(self) -> int:
        return len(self.residual_share)

    def state(self, gt: Tensor, lq: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return x_t for pictures ``(B, 3, H, W)`` and times ``(B,)``."""
        a, b, d = (s[t, None, None, None] for s in (self.residual_share, self.noise_std, self.lq_removed))
        return gt + a * (lq - gt) + b * noise - d * lq

    def start(self, lq: Tensor, noise: Tensor) -> Tensor:
        """Return the state that sampling starts from; ``noise`` is scaled already."""
        return (1 - self.lq_removed[-1]) * lq + noise

    def step(self, x: Tensor, residual: Tensor, lq: Tensor, *, at: int, to: int) -> Tensor:
        """Go from one time to an earlier one, given the predicted residual; no noise is added or taken away."""
        forward = self.residual_share[at] - self.residual_share[to]
        return x - forward * residual + (self.lq_removed[at] - self.lq_removed[to]) * lq

    def network_time(self, t: Tensor) -> Tensor:
        """Return what the network is told about the time: 1000 A_t."""
        return 1000 * self.residual_share[t]

    def sampling_times(self, steps: int) -> list[int]:
        """Return the times of a sampler from the last one down to -1, which stands for the clean picture.

        >>> ResidualDiffusion(1000, 1.4e-3).sampling_times(4)
        [999, 749, 499, 249, -1]
        """
        times: list[int] = torch.linspace(-1, len(self) - 1, steps + 1).int().tolist()
        return times[::-1]


class FoundirRestorer(nn.Module):
    """The network with its forward process, loss and sampler."""

    def __init__(self, config: FoundirConfig) -> None:
        super().__init__()
        self.config = config
        self.diffusion = ResidualDiffusion(config.timesteps, config.delta_end)
        unet = FoundirUnet if config.blocks == "residual" else GatedUnet
        self.network = unet(
            in_channels=6 * config.unshuffle**2,
            out_channels=3 * config.unshuffle**2,
            dim=config.dim,
            dim_mults=config.dim_mults,
        )
        if config.starts_at_input:
            for weights in self.network.final_conv.parameters():
                nn.init.zeros_(weights)

    def forward(self, state: Tensor, lq: Tensor, t: Tensor) -> Tensor:
        """Predict the residual of pictures in [-1, 1] at times ``(B,)``; ``(B, 3, H, W)`` float32, not clamped."""
        side = self.config.unshuffle
        time, both = self.diffusion.network_time(t), torch.cat([state, lq], dim=1)
        if side == 1:
            return self._predict(both, time)
        height, width = lq.shape[-2:]
        padded = F.pad(both, (0, -width % side, 0, -height % side), mode="replicate")
        blocks = self._predict(F.pixel_unshuffle(padded, side), time)
        return F.pixel_shuffle(blocks, side)[..., :height, :width]

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Distance of the predicted from the true residual, at a random time for each picture."""
        # Moved before there is a state: one made of a shifted reference would tell the network the shift.
        lq, gt, mask = shift_tolerant(batch.lq, batch.gt, batch.mask, radius_px=self.config.shift_px)
        noise = self.config.training_noise * torch.randn_like(lq)
        aligned = replace(batch, lq=lq, gt=gt, mask=mask)
        return {"loss": self.residual_loss(aligned, self._training_times(len(lq), lq.device), noise)}

    def residual_loss(self, batch: RestorationBatch, t: Tensor, noise: Tensor) -> Tensor:
        """Return the loss for given times ``(B,)`` and noise ``(B, 3, H, W)``."""
        lq, gt = 2 * batch.lq - 1, 2 * batch.gt - 1
        predicted = self(self.diffusion.state(gt, lq, noise, t), lq, t)
        return pixel_loss(self.config.loss, predicted, lq - gt, batch.mask).mean()

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1]; the same picture gives the same result every time."""
        noise = torch.from_numpy(NoiseField().window(0, 0, *lq.shape[-2:]))
        return self.restore_from(lq, noise.to(lq.device))

    def restore_from(self, lq: Tensor, noise: Tensor) -> Tensor:
        """Restore from given start noise.

        Args:
            lq: ``(B, 3, H, W)`` float32 RGB in [0, 1].
            noise: Standard normal, ``(3, H, W)`` for all or ``(B, 3, H, W)``.
        """
        c = 2 * lq - 1
        x = self.diffusion.start(c, self.config.start_noise_std * noise)
        *times, _ = self.diffusion.sampling_times(self.config.sampling_steps)
        for at, to in pairwise(times):
            x = self.diffusion.step(x, self._residual(x, c, at), c, at=at, to=to)
        clean = (c - self._residual(x, c, times[-1])).clamp(-1, 1)
        return (clean + 1) / 2

    def _training_times(self, count: int, device: torch.device) -> Tensor:
        if self.config.training_times == "all":
            return torch.randint(len(self.diffusion), (count,), device=device)
        asked = torch.tensor(self.diffusion.sampling_times(self.config.sampling_steps)[:-1], device=device)
        return asked[torch.randint(len(asked), (count,), device=device)]

    def _residual(self, x: Tensor, c: Tensor, at: int) -> Tensor:
        predicted: Tensor = self(x, c, torch.full((len(c),), at, device=c.device))
        return predicted.clamp(-1, 1)

    def _predict(self, both: Tensor, time: Tensor) -> Tensor:
        predicted: Tensor = self.network(both, time)
        return predicted.float()
