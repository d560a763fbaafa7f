"""What a model is to the rest of the package: it restores or degrades, and it can be trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class RestorationBatch:
    """Aligned crops on the device, RGB in [0, 1]."""

    lq: Tensor
    """Degraded crops, ``(B, 3, H, W)`` float32."""
    gt: Tensor
    """Their references, same shape."""
    mask: Tensor | None
    """``(B, 1, H, W)`` float32, 1 where the pair is to be trusted; None where all of it is."""
    ids: tuple[str, ...]
    """The manifest's id of each pair."""
    picture: Tensor
    """The whole degraded picture each crop is from, reduced to ``(B, 3, 32, 32)`` whatever its shape."""
    classes: tuple[str, ...]
    """The degradation class of each pair: sorted names joined by ``+``."""
    intensity: Tensor
    """``(B, 2)`` float32: mu and sigma of ``|lq - gt|`` over the whole pair (GenDeg's intensity)."""


class Trainable(Protocol):
    """What the training loop asks of a module. Randomness comes from torch's global generator."""

    def loss(self, batch: RestorationBatch) -> Mapping[str, Tensor]:
        """Return the scalar to minimise as ``loss`` and, beside it, any other scalars worth logging."""


@runtime_checkable
class Restorer(Protocol):
    """Turns a degraded picture into a restored one."""

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` float32 RGB in [0, 1] of any size; same shape and range."""


@runtime_checkable
class StartsFromNoise(Protocol):
    """A restorer that starts from noise: each tile of a picture needs its part of one and the same noise."""

    def restore_from(self, lq: Tensor, noise: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)`` as `Restorer.restore` does; ``noise`` is standard normal ``(3, H, W)``."""


@runtime_checkable
class Refiner(Protocol):
    """A restorer made for what another one left behind: FoundIR's specialists behind its generalist."""

    def refine(self, restored: Tensor, lq: Tensor) -> Tensor:
        """Restore further what a first pass made of a degraded picture.

        Args:
            restored: What it made, ``(B, 3, H, W)`` float32 RGB in [0, 1].
            lq: The degraded picture itself, of the same shape and range.

        Returns:
            The same shape and range.
        """


@runtime_checkable
class ChoosesRestorer(Protocol):
    """Looks at a picture as a whole before it is cut into tiles."""

    def restorer_for(self, lq: Tensor) -> Restorer:
        """Return what restores the picture ``(1, 3, H, W)`` float32 RGB in [0, 1], and each tile of it.

        The picture lies in the computer's memory, whole: only what is needed of it goes to the model's device.
        """


@runtime_checkable
class Classifier(Protocol):
    """Tells what a picture suffers from."""

    def classify(self, lq: Tensor) -> Mapping[str, float]:
        """Return how sure it is of each degradation, and of ``text``, in ``(1, 3, H, W)`` float32 RGB in [0, 1].

        The picture may lie in the computer's memory wherever the model is.
        """


@runtime_checkable
class Degrader(Protocol):
    """Turns a clean picture into a degraded one."""

    def degrade(self, gt: Tensor, *, intensity: Tensor) -> Tensor:
        """Degrade ``(B, 3, H, W)`` float32 RGB in [0, 1]; ``intensity`` is ``(B, 2)``: mu and sigma."""
