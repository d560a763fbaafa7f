"""The one training loop, for all models.

A step is a pure function of (weights, optimiser, step number): crops follow from the position, dropout and
diffusion noise from a seed of step and process. So a run that was stopped continues to the bit where it
would have gone, whatever the number of loader threads.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from catalog.product_version import product_version
from models.base import Restorer
from models.checkpoint import CheckpointInfo, config_document
from models.config import TrainingConfig
from models.data import CropLoader, HostBatch, PairDataset, export_digest
from models.devices import memory_told
from models.errors import DivergedError, RunExistsError, StorageError, TrainingInterruptedError
from models.job import TrainingJob
from models.processes import Processes, StopRequest, gradient_kept_back
from models.progress_log import ProgressLog
from models.resume import require_unchanged
from models.run_folder import RunRecord, SavedStep
from models.stages import training_order
from models.training_state import TrainingState
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
        StorageError: The disk refused the run's folder, a checkpoint or the log; earlier checkpoints are untouched.
        TrainingInterruptedError: SIGINT or SIGTERM came; everything was saved.
    """
    with Processes(job.device, job.config.training.parallel) as processes:
        dataset = PairDataset(job.export, "train")
        dataset.require_size(job.config.training.patch_px)
        digest = export_digest(job.export)
        if job.resume:
            require_unchanged(job, digest)
        trainer = Trainer(job, dataset, processes, digest)
        if job.resume:
            trainer.load(console)
        else:
            trainer.begin()
        processes.wait()
        return trainer.run(console)


class Trainer:
    """The loop of one process."""

    def __init__(self, job: TrainingJob, dataset: PairDataset, processes: Processes, digest: str) -> None:
        self._job, self._dataset, self._processes, self._digest = job, dataset, processes, digest
        self._settings: TrainingConfig = job.config.training
        self._validator = Validator(job.export, self._settings)
        self._order = training_order(
            dataset.classes, self._settings, rank=processes.rank, world=processes.world
        )
        if self._settings.cpu_threads is not None:
            torch.set_num_threads(self._settings.cpu_threads)
        self.state = TrainingState(job.config, processes)
        self._seconds_before, self._started_s = 0.0, time.perf_counter()
        self._grad_norm = 0.0
        self._psnr_db: float | None = None

    def run(self, console: Console) -> TrainingResult:
        """Train to the last step, or until a signal asks to stop."""
        settings, state, self._started_s = self._settings, self.state, time.perf_counter()
        with self._loader() as loader, StopRequest() as stop, self._log(console) as log:
            position = state.step * settings.batch * settings.accumulate
            batches = loader.host_batches(position, pinned=self._processes.device.type == "cuda")
            last = self._progress() >= 1
            while not last:
                self._advance(batches, log)
                last = self._progress() >= 1
                if last or state.step % settings.log_every == 0:
                    with self._storing("the log"):
                        log.training(state.step, **self._state_values())
                if last or self._validation_is_due():
                    with log.aside():
                        self._validate(log)
                stopping = self._processes.any(flag=stop.requested)
                if last or stopping or state.step % settings.checkpoint_every == 0:
                    with log.aside():
                        self.save()
                if stopping and not last:
                    self._processes.wait()  # `torchrun` ends them all when the first one leaves, and one is writing
                    raise self._interruption()
        return self._result()

    def begin(self) -> None:
        """Take the first weights, and make the run's folder once nothing else stands in the way.

        Raises:
            CheckpointError: The first weights are damaged, or those of another network.
            RunExistsError: There is a run already.
            StorageError: The disk refused.
        """
        if self._job.init is not None:
            self.state.start_from(self._job.init)
        if self._processes.leads:
            _make_folder(self._job, self._digest)

    def save(self) -> None:
        """Write a complete checkpoint; the newest one is replaced only when all its files are on the disk.

        Raises:
            StorageError: The disk refused; earlier checkpoints are untouched.
        """
        if not self._processes.works_for_lead:
            return
        run, settings, step = self._job.run, self._settings, self.state.step
        snapshot = self.state.snapshot(seconds=self._elapsed_s())
        if not self._processes.leads:
            return
        info = CheckpointInfo(config=config_document(self._job.config), step=step, export_digest=self._digest)
        with self._storing(f"checkpoint of step {step}"):
            snapshot.write(run, step, info)
            saved = SavedStep(step=step, psnr_db=self._psnr_db)
            run.commit(saved, keep_last=settings.keep_last, keep_best=settings.keep_best)

    def load(self, console: Console) -> None:
        """Continue from the run's newest checkpoint.

        Raises:
            RunNotFoundError: Nothing was saved yet.
            CheckpointError: One of its files is damaged.
            StorageError: The disk refused.
        """
        run, world = self._job.run, self._processes.world
        rest = self.state.load(run, run.latest_step())
        self._seconds_before = rest.seconds
        if not self._processes.leads:
            return
        with self._storing("the log"):
            run.forget_after(self.state.step)
        if rest.processes not in (None, world):
            console.say(
                f"the run began with {rest.processes} processes and goes on with {world}: "
                "other crops follow than would have"
            )

    def _loader(self) -> CropLoader:
        settings, processes = self._settings, self._processes
        cores = len(os.sched_getaffinity(0)) // processes.world
        spare = cores if processes.device.type != "cpu" else cores - torch.get_num_threads()
        return CropLoader(
            self._dataset,
            self._order,
            batch=settings.batch,
            patch_px=settings.patch_px,
            turns=settings.turns,
            workers=self._job.workers or max(1, spare),
            ahead=spare > 0,
        )

    def _log(self, console: Console) -> ProgressLog:
        run = self._job.run if self._processes.leads else None
        return ProgressLog(run, console, first_step=self.state.step, processes=self._processes.world)

    def _advance(self, batches: Iterator[HostBatch], log: ProgressLog) -> None:
        """Make one optimiser step of ``accumulate`` passes."""
        self._psnr_db = None  # what was measured before is not of the weights that come now
        torch.manual_seed(self._step_seed())
        self.state.optimiser.zero_grad(set_to_none=True)
        passes = self._settings.accumulate
        for number in range(passes):
            asked_s = time.perf_counter()
            batch = next(batches).to(self._processes.device)
            waited_s = time.perf_counter() - asked_s
            with self._fitting(), gradient_kept_back(self.state.objective, wanted=number < passes - 1):
                parts = self.state.objective(batch)
                (parts["loss"] / passes).backward()
            log.count({k: v.detach() for k, v in parts.items()}, crops=len(batch.ids), waited_s=waited_s)
        rate = learning_rate_at(self._progress(), self.state.step, self._settings)
        self._grad_norm = self.state.apply_gradient(learning_rate=rate)
        if self.state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise self._divergence()

    def _fitting(self) -> AbstractContextManager[None]:
        settings = self._settings
        return memory_told(
            f"a pass of {settings.batch} crops of {settings.patch_px} px",
            kept=f"the checkpoints in {self._job.run.checkpoints}",
            next_step="lower training.batch and raise training.accumulate as much, or lower training.patch_px",
        )

    def _divergence(self) -> DivergedError:
        return DivergedError(
            f"step {self.state.step}: no finite gradient in {MAX_SKIPPED_IN_A_ROW} steps in a row",
            kept=f"the checkpoints in {self._job.run.checkpoints}",
            next_step="lower training.learning_rate, or look for broken pairs with `catalog verify`",
        )

    def _progress(self) -> float:
        """Share of the training that is done: of the steps, or of the time where that is further on."""
        done = self.state.step / self._settings.steps
        if self._settings.budget_s is None:
            return done
        return max(done, self._processes.agreed(self._elapsed_s()) / self._settings.budget_s)

    def _elapsed_s(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started_s

    def _validation_is_due(self) -> bool:
        every = self._settings.validate_every
        return self.state.step % every == 0 or self.state.step == max(1, every // 10)

    def _validate(self, log: ProgressLog) -> None:
        if not (self._processes.works_for_lead and isinstance(self.state.model, Restorer)):
            return
        with self.state.judged() as model:
            result = self._validator.validate(model, self._processes.device)
        if result is not None:
            self._psnr_db = result.psnr_db
            with self._storing("the log"):
                log.validation(self.state.step, result.by_class, psnr_db=result.psnr_db)
                log.samples(self.state.step, result.triptychs)

    @contextmanager
    def _storing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self._job.run.path}: {what} could not be written: {error.strerror or error}",
                kept="the checkpoints before it",
                next_step=f"make room, then continue with `{self._job.resume_command}`",
            ) from error

    def _state_values(self) -> dict[str, float]:
        return {
            "learning_rate": self.state.optimiser.param_groups[0]["lr"],
            "grad_norm": self._grad_norm,
            "skipped_steps": self.state.skipped,
            "elapsed_s": self._elapsed_s(),
        }

    def _step_seed(self) -> int:
        # Distinct for every step and process; seeds from 2^24 on share this noise, and nothing else, with smaller ones.
        number = (self._settings.seed << 40) + self.state.step * self._processes.world + self._processes.rank
        return number % 2**64

    def _interruption(self) -> TrainingInterruptedError:
        return TrainingInterruptedError(
            f"training stopped at step {self.state.step} of {self._settings.steps}",
            kept=str(self._job.run.weights_path(self.state.step)),
            next_step=self._job.resume_command,
        )

    def _result(self) -> TrainingResult:
        seconds, step = self._elapsed_s(), self.state.step
        return TrainingResult(
            run=str(self._job.run.path),
            checkpoint=str(self._job.run.weights_path(step)),
            steps=step,
            skipped_steps=self.state.skipped,
            seconds=seconds,
            seconds_per_step=seconds / max(1, step),
        )


def learning_rate_at(progress: float, step: int, settings: TrainingConfig) -> float:
    """Linear warm-up by steps, then half a cosine over the progress in [0, 1]."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.final_learning_rate + share * (settings.learning_rate - settings.final_learning_rate)


def _make_folder(job: TrainingJob, digest: str) -> None:
    try:
        job.run.create(
            job.config, RunRecord(export=str(job.export), export_digest=digest, version=product_version())
        )
    except RunExistsError:
        raise
    except OSError as error:
        raise StorageError(
            f"{job.run.path}: the run's folder could not be made: {error.strerror or error}",
            kept="nothing was trained yet",
            next_step="make room, or give another --out",
        ) from error
