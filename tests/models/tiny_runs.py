"""Runs of the tiniest network, and what to do to them while they train."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.base import RestorationBatch
from models.job import TrainingJob, plan_training
from models.nafnet import NafnetRestorer
from models.run_folder import RunFolder

TINY = (
    "model.width=4",
    "training.batch=2",
    "training.patch_px=16",
    "training.crops_per_decode=3",
    "training.decodes_per_block=4",
    "training.log_every=2",
    "training.validation_pairs=0",
)


def tiny_job(
    export: Path,
    tmp_path: Path,
    *overrides: str,
    out: str = "run",
    resume: bool = False,
    device: str = "cpu",
) -> TrainingJob:
    return plan_training(
        "nafnet",
        str(export),
        data=tmp_path / "data",
        config="tiny",
        overrides=(*TINY, *overrides),
        out=out,
        resume=resume,
        device=device,
    )


def weights_at(folder: RunFolder, step: int) -> list[dict[str, Tensor]]:
    return [load_file(folder.weights_path(step)), load_file(folder.raw_weights_path(step))]


def same_bits(a: Sequence[dict[str, Tensor]], b: Sequence[dict[str, Tensor]]) -> bool:
    return all(torch.equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, *, step: int) -> None:
    """Send this process SIGTERM from within the given step."""
    call_at(monkeypatch, step=step, action=lambda: os.kill(os.getpid(), signal.SIGTERM))


def call_at(monkeypatch: pytest.MonkeyPatch, *, step: int, action: Callable[[], object]) -> None:
    loss, calls = NafnetRestorer.loss, []

    def loss_and_action(self: NafnetRestorer, batch: RestorationBatch) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == step:
            action()
        return loss(self, batch)

    monkeypatch.setattr(NafnetRestorer, "loss", loss_and_action)
