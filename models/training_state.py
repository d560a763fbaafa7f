"""What a step of training changes: weights, their average, the optimiser and the counters; saved and loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, Field, FiniteFloat, ValidationError
from torch import Tensor, nn

from models.averaging import AveragedWeights
from models.base import RestorationBatch, Restorer, Trainable
from models.checkpoint import CheckpointInfo, load_state, load_weights, save_state, save_weights
from models.config import RunConfig
from models.errors import CheckpointError
from models.precision import uses_bf16
from models.processes import Processes
from models.registry import find_model
from models.run_folder import RunFolder
from models.sharding import load_whole_state, whole, whole_state


class SavedCounters(BaseModel):
    """What a checkpoint holds beside weights: the optimiser, and what was counted."""

    optimiser: dict[str, Any]
    skipped_steps: int = Field(ge=0)
    seconds: FiniteFloat = Field(ge=0)
    """Time in the loop so far."""
    processes: int | None = Field(default=None, ge=1)
    """How many trained together; None in files of the time when nobody asked."""


@dataclass(frozen=True)
class Snapshot:
    """A state in whole tensors, ready to be written."""

    raw: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor]
    rest: SavedCounters

    def write(self, run: RunFolder, step: int, info: CheckpointInfo) -> None:
        """Write the three files of a checkpoint; the one that `models.load` reads comes last.

        Raises:
            OSError: The disk refused.
        """
        save_weights(run.raw_weights_path(step), self.raw, info)
        save_state(run.optimiser_path(step), dict(self.rest))
        save_weights(run.weights_path(step), self.averaged, info)


class TrainingState:
    """Weights, their average, optimiser and counters of one process.

    Args:
        config: Which network, and how it is trained.
        processes: Whether the network is whole here, and where.
    """

    def __init__(self, config: RunConfig[Any], processes: Processes) -> None:
        self._settings, self._processes = config.training, processes
        torch.manual_seed(self._settings.seed)
        last = self._settings.channels_last and not processes.sharded  # weights can be cut only as they are
        layout = torch.channels_last if last else torch.contiguous_format
        network = find_model(config.name).build(config.model).to(processes.device)
        self.model = network.to(memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stub
        if self._settings.compile:
            for part in self.model.children():
                part.compile()
        half = uses_bf16(self._settings.precision, processes.device)
        self._objective = Objective(self.model, half=half)
        self.objective = processes.shared(self._objective)
        self.average = AveragedWeights(self.model, self._settings.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=self._settings.learning_rate,
            betas=self._settings.betas,
            weight_decay=self._settings.weight_decay,
            fused=True,
        )
        self.step = 0
        """Steps made."""
        self.skipped = 0
        """Of them, those left out because the gradient was not finite."""
        self.skipped_in_a_row = 0

    def apply_gradient(self, *, learning_rate: float) -> float:
        """Make one step of the optimiser, or leave it out; returns the norm of the gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        clipped = nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.grad_clip)
        norm = float(whole(clipped))
        if math.isfinite(norm):
            self.optimiser.step()
            self.average.update(self.step - self.skipped)
            self.skipped_in_a_row = 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1
        self.step += 1
        return norm

    @contextmanager
    def judged(self) -> Iterator[Restorer]:
        """Lend the model with averaged weights in evaluation mode; spread weights need every process to enter."""
        with self.average.applied():
            self.model.eval()
            try:
                yield self._objective
            finally:
                self.model.train()

    def snapshot(self, *, seconds: float) -> Snapshot:
        """Gather everything that a run needs to go on from here; spread weights need every process to ask."""
        rest = SavedCounters(
            optimiser=whole_state(self.optimiser),
            skipped_steps=self.skipped,
            seconds=seconds,
            processes=self._processes.world,
        )
        raw = {name: whole(tensor) for name, tensor in self.model.state_dict().items()}
        return Snapshot(raw, self.average.state_dict(), rest)

    def load(self, run: RunFolder, step: int) -> SavedCounters:
        """Continue from a checkpoint of a run; returns what was saved beside the weights.

        Raises:
            CheckpointError: One of its files is damaged, or does not fit the network.
        """
        path = run.optimiser_path(step)
        rest = _read_counters(path)
        self.start_from(run.weights_path(step))
        load_weights(self.model, run.raw_weights_path(step))
        try:
            load_whole_state(self.optimiser, rest.optimiser)
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: its optimiser state does not fit the network: {error}") from error
        self.step, self.skipped = step, rest.skipped_steps
        return rest

    def start_from(self, checkpoint: Path) -> None:
        """Take the first weights from elsewhere.

        Raises:
            CheckpointError: The file is damaged or does not fit the network.
        """
        load_weights(self.model, checkpoint)
        self.average = AveragedWeights(self.model, self._settings.ema_decay)


class Objective(nn.Module):
    """The model's loss as a forward pass, which is what the exchange between several processes hooks."""

    def __init__(self, model: nn.Module, *, half: bool) -> None:
        super().__init__()
        self.model, self._half = model, half

    def forward(self, batch: RestorationBatch) -> Mapping[str, Tensor]:
        """Return the model's losses of a batch."""
        with torch.autocast(batch.lq.device.type, torch.bfloat16, enabled=self._half):
            return cast("Trainable", self.model).loss(batch)

    def restore(self, lq: Tensor) -> Tensor:
        """Restore as the model does."""
        return cast("Restorer", self.model).restore(lq)


def _read_counters(path: Path) -> SavedCounters:
    try:
        return SavedCounters.model_validate(load_state(path))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise CheckpointError(f"{path}: is damaged: {where}: {problem['msg']}") from error
