"""Exponential moving average of the weights: what training shows, saves and ships."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AveragedWeights:
    """A running average of a module's parameters, in float32, with warm-up.

    Early weights are poor, so the average forgets quickly at first: the decay is at most
    ``(1 + n) / (10 + n)`` after ``n`` updates. Buffers are taken as they are.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        self._live = list(module.parameters())
        self._average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self, updates_before: int) -> None:
        """Take the module's present weights in; ``updates_before`` counts the earlier calls."""
        decay = min(self._decay, (1 + updates_before) / (10 + updates_before))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._live], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the module's state dict with averaged parameters in it."""
        with self.applied():
            return {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from a saved average."""
        names = (name for name, _ in self._module.named_parameters())
        for average, name in zip(self._average, names, strict=True):
            average.copy_(weights[name])

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
        for live, average in zip(self._live, self._average, strict=True):
            kept = live.detach().clone()
            live.copy_(average)
            average.copy_(kept)
