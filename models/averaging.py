"""Exponential moving average of the weights: what training shows, saves and ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.sharding import own_share, whole


class AveragedWeights:
    """A running average of a module's parameters, in float32, with warm-up.

    Early weights are poor, so the average forgets quickly at first: the decay is at most
    ``(1 + n) / (10 + n)`` after ``n`` updates. Buffers are taken as they are. Of weights that are spread over
    processes, each averages its share.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._average = [p.clone() for p in self._live()]

    @torch.no_grad()
    def update(self, updates_before: int) -> None:
        """Take the module's present weights in; ``updates_before`` counts the earlier calls."""
        decay = min(self._decay, (1 + updates_before) / (10 + updates_before))
        torch._foreach_lerp_(self._average, self._live(), 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the module's state dict with averaged parameters in it, in whole tensors."""
        with self.applied():
            return {
                name: whole(tensor).detach().clone() for name, tensor in self._module.state_dict().items()
            }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the module while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, average in zip(self._live(), self._average, strict=True):
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def _live(self) -> list[Tensor]:
        return [own_share(p.detach()) for p in self._module.parameters()]
