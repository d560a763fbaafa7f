"""The one training loop, for all models.

A step is a pure function of (weights, optimiser, step number): crops follow from the position, dropout and
diffusion noise from a seed of step and process. So a run that was stopped continues to the bit where it
would have gone, whatever the number of loader threads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from models.averaging import AveragedWeights
from models.base import RestorationBatch, Trainable
from models.checkpoint import (
    CheckpointInfo,
    config_document,
    load_state,
    load_weights,
    save_state,
    save_weights,
)
from models.config import TrainingConfig
from models.data import Crop, CropLoader, PairDataset, collate, export_digest
from models.errors import DivergedError, ResumeRefusedError, StorageError, TrainingInterruptedError
from models.job import TrainingJob
from models.precision import uses_bf16
from models.processes import Processes, StopRequest
from models.progress_log import ProgressLog
from models.registry import find_model
from models.run_folder import RunRecord, SavedStep
from models.stages import training_order
from models.validation import Validator

if TYPE_CHECKING:
    from catalog.console import Console

MAX_SKIPPED_IN_A_ROW = 50


@dataclass(frozen=True)
class TrainingResult:
    """What came out."""

    run: str
    checkpoint: str
    steps: int
    skipped_steps: int
    """Steps left out because a gradient was not finite."""
    seconds: float
    """Time in the loop, over all parts of the run."""
    seconds_per_step: float


def train(job: TrainingJob, console: Console) -> TrainingResult:
    """Train a model, or continue a run.

    Raises:
        NoPairsError: The export has nothing to train on.
        RunExistsError: There is a run already and ``resume`` is not set.
        ResumeRefusedError: Configuration or export changed since the run began.
        DivergedError: No finite gradient for many steps in a row.
        StorageError: The disk refused a checkpoint; the last complete one is untouched.
        TrainingInterruptedError: SIGINT or SIGTERM came; everything was saved.
    """
    with Processes() as processes:
        dataset = PairDataset(job.export, "train")
        dataset.require_size(job.config.training.patch_px)
        digest = export_digest(job.export)
        if job.resume:
            _require_unchanged(job, digest)
        elif processes.leads:
            job.run.create(
                job.config, RunRecord(export=str(job.export), export_digest=digest, version=_version())
            )
        processes.wait()
        trainer = Trainer(job, dataset, processes, digest)
        if job.resume:
            trainer.load()
        elif job.init is not None:
            trainer.start_from(job.init)
        return trainer.run(console)


class Trainer:
    """Weights, optimiser and counters of one process."""

    def __init__(self, job: TrainingJob, dataset: PairDataset, processes: Processes, digest: str) -> None:
        self._job, self._dataset, self._processes, self._digest = job, dataset, processes, digest
        self._settings: TrainingConfig = job.config.training
        self._device = torch.device(job.device)
        self._validator = Validator(job.export, self._settings)
        if self._settings.cpu_threads is not None:
            torch.set_num_threads(self._settings.cpu_threads)
        torch.manual_seed(self._settings.seed)
        layout = torch.channels_last if self._settings.channels_last else torch.contiguous_format
        network = find_model(job.config.name).build(job.config.model).to(self._device)
        self.model = network.to(memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stub
        self._objective = processes.shared(
            _Objective(self.model, half=uses_bf16(self._settings.precision, self._device))
        )
        self.average = AveragedWeights(self.model, self._settings.ema_decay)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=self._settings.learning_rate,
            betas=self._settings.betas,
            weight_decay=self._settings.weight_decay,
            fused=True,
        )
        self.step = 0
        self._skipped, self._skipped_in_a_row = 0, 0
        self._seconds_before = 0.0
        self._started_s = time.perf_counter()
        self._grad_norm = 0.0
        self._psnr_db: float | None = None

    def run(self, console: Console) -> TrainingResult:
        """Train to the last step, or until a signal asks to stop."""
        settings, self._started_s = self._settings, time.perf_counter()
        log_target = self._job.run if self._processes.leads else None
        with (
            self._loader() as loader,
            StopRequest() as stop,
            ProgressLog(log_target, console, first_step=self.step) as log,
        ):
            batches = loader.batches(self.step * settings.batch * settings.accumulate)
            last = self._progress() >= 1
            while not last:
                self._set_learning_rate()
                self._advance(batches, log)
                self.step += 1
                last = self._progress() >= 1
                if last or self.step % settings.log_every == 0:
                    log.training(self.step, **self._state_values())
                if last or self._validation_is_due():
                    self._validate(log)
                stopping = self._processes.any(stop.requested, self._device)
                if last or stopping or self.step % settings.checkpoint_every == 0:
                    self.save()
                if stopping and not last:
                    raise self._interruption()
        return self._result()

    def save(self) -> None:
        """Write a complete checkpoint; the newest one is replaced only when all its files are on the disk.

        Raises:
            StorageError: The disk refused; earlier checkpoints are untouched.
        """
        if not self._processes.leads:
            return
        run, settings = self._job.run, self._settings
        try:
            self._write_checkpoint()
            saved = SavedStep(step=self.step, psnr_db=self._psnr_db)
            run.commit(saved, keep_last=settings.keep_last, keep_best=settings.keep_best)
        except OSError as error:
            raise StorageError(
                f"{run.path}: checkpoint of step {self.step} could not be written: {error.strerror or error}",
                kept="the checkpoints before it",
                next_step=f"make room, then continue with `{self._job.resume_command}`",
            ) from error

    def load(self) -> None:
        """Continue from the run's newest checkpoint.

        Raises:
            RunNotFoundError: Nothing was saved yet.
            CheckpointError: One of its files is damaged.
        """
        run = self._job.run
        step = run.latest_step()
        state = load_state(run.optimiser_path(step))
        load_weights(self.model, run.weights_path(step))
        self.average = AveragedWeights(self.model, self._settings.ema_decay)
        load_weights(self.model, run.raw_weights_path(step))
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self._skipped = step, int(state["skipped_steps"])
        self._seconds_before = float(state["seconds"])

    def start_from(self, checkpoint: Path) -> None:
        """Take the first weights from elsewhere."""
        load_weights(self.model, checkpoint)
        self.average = AveragedWeights(self.model, self._settings.ema_decay)

    def _loader(self) -> CropLoader:
        settings, processes = self._settings, self._processes
        cores = len(os.sched_getaffinity(0)) // processes.world
        spare = cores if self._device.type != "cpu" else cores - torch.get_num_threads()
        order = training_order(self._dataset.classes, settings, rank=processes.rank, world=processes.world)
        return CropLoader(
            self._dataset,
            order,
            batch=settings.batch,
            patch_px=settings.patch_px,
            turns=settings.turns,
            workers=self._job.workers or max(1, spare),
            ahead=spare > 0,
        )

    def _advance(self, batches: Iterator[list[Crop]], log: ProgressLog) -> None:
        """Make one optimiser step of ``accumulate`` passes."""
        torch.manual_seed(self._step_seed())
        self.optimiser.zero_grad(set_to_none=True)
        for _ in range(self._settings.accumulate):
            asked_s = time.perf_counter()
            crops = next(batches)
            waited_s = time.perf_counter() - asked_s
            parts = self._objective(collate(crops, self._device))
            (parts["loss"] / self._settings.accumulate).backward()
            log.count({k: v.detach() for k, v in parts.items()}, crops=len(crops), waited_s=waited_s)
        self._apply_gradient()

    def _apply_gradient(self) -> None:
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.grad_clip)
        self._grad_norm = float(norm)
        if not math.isfinite(self._grad_norm):
            self._skip()
            return
        self._skipped_in_a_row = 0
        self.optimiser.step()
        self.average.update(self.step - self._skipped)

    def _skip(self) -> None:
        self._skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise DivergedError(
                f"step {self.step}: no finite gradient in {MAX_SKIPPED_IN_A_ROW} steps in a row",
                kept=f"the checkpoints in {self._job.run.checkpoints}",
                next_step="lower training.learning_rate, or look for broken pairs with `catalog verify`",
            )

    def _progress(self) -> float:
        """Share of the training that is done: of the steps, or of the time where that is further on."""
        done = self.step / self._settings.steps
        if self._settings.budget_s is None:
            return done
        return max(done, self._elapsed_s() / self._settings.budget_s)

    def _elapsed_s(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started_s

    def _set_learning_rate(self) -> None:
        rate = learning_rate_at(self._progress(), self.step, self._settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _validation_is_due(self) -> bool:
        every = self._settings.validate_every
        return self.step % every == 0 or self.step == max(1, every // 10)

    def _validate(self, log: ProgressLog) -> None:
        if not self._processes.leads:
            return
        with self.average.applied():
            self.model.eval()
            result = self._validator.validate(self.model, self._device)
            self.model.train()
        if result is not None:
            self._psnr_db = result.psnr_db
            log.validation(self.step, result.by_class, psnr_db=result.psnr_db)
            log.samples(self.step, result.triptychs)

    def _write_checkpoint(self) -> None:
        run, step = self._job.run, self.step
        info = CheckpointInfo(config=config_document(self._job.config), step=step, export_digest=self._digest)
        state = {
            "optimiser": self.optimiser.state_dict(),
            "skipped_steps": self._skipped,
            "seconds": self._elapsed_s(),
        }
        save_weights(run.raw_weights_path(step), self.model.state_dict(), info)
        save_state(run.optimiser_path(step), state)
        save_weights(run.weights_path(step), self.average.state_dict(), info)

    def _state_values(self) -> dict[str, float]:
        return {
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "grad_norm": self._grad_norm,
            "skipped_steps": self._skipped,
            "elapsed_s": self._elapsed_s(),
        }

    def _step_seed(self) -> int:
        # Distinct for every (seed, step, process) within 2^63.
        return (self._settings.seed << 40) + self.step * self._processes.world + self._processes.rank

    def _interruption(self) -> TrainingInterruptedError:
        return TrainingInterruptedError(
            f"training stopped at step {self.step} of {self._settings.steps}",
            kept=str(self._job.run.weights_path(self.step)),
            next_step=self._job.resume_command,
        )

    def _result(self) -> TrainingResult:
        seconds = self._elapsed_s()
        return TrainingResult(
            run=str(self._job.run.path),
            checkpoint=str(self._job.run.weights_path(self.step)),
            steps=self.step,
            skipped_steps=self._skipped,
            seconds=seconds,
            seconds_per_step=seconds / max(1, self.step),
        )


class _Objective(nn.Module):
    """The model's loss as a forward pass, which is what the gradient averaging of several processes hooks."""

    def __init__(self, model: nn.Module, *, half: bool) -> None:
        super().__init__()
        self.model, self._half = model, half

    def forward(self, batch: RestorationBatch) -> Mapping[str, Tensor]:
        with torch.autocast(batch.lq.device.type, torch.bfloat16, enabled=self._half):
            return cast("Trainable", self.model).loss(batch)


def learning_rate_at(progress: float, step: int, settings: TrainingConfig) -> float:
    """Linear warm-up by steps, then half a cosine over the progress in [0, 1]."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.final_learning_rate + share * (settings.learning_rate - settings.final_learning_rate)


def _require_unchanged(job: TrainingJob, digest: str) -> None:
    config, record = job.run.read()
    if record.export_digest != digest:
        raise ResumeRefusedError(
            f"{job.run.path}: the export {job.export} is not the one the run began with "
            f"(manifest {digest[:12]}, was {record.export_digest[:12]})",
            kept="the run is untouched",
            next_step="resume with the first export, or start a new run with --init",
        )
    changed = _changed_keys(config_document(config), config_document(job.config))
    if changed:
        raise ResumeRefusedError(
            f"{job.run.path}: the configuration changed: {', '.join(changed)}",
            kept="the run is untouched",
            next_step="resume with the first configuration, or start a new run with --init",
        )


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changed: list[str] = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changed += [f"{key}.{name}" for name in _changed_keys(old, new)]
        elif old != new:
            changed.append(key)
    return sorted(changed)


def _version() -> str:
    try:
        return version("cleanplate")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
