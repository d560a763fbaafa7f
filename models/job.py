"""TrainingJob: everything one call of `models train` was told, resolved; no torch yet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from catalog.errors import InvalidDocumentError
from models.config import RunConfig, load_config, override
from models.errors import UnknownModelError
from models.registry import ModelEntry, find_model
from models.run_folder import RUNS, RunFolder, checkpoint_path, find_export


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, and where to put it."""

    config: RunConfig[Any]
    export: Path | str
    """Folder, or URL in a store."""
    run: RunFolder
    resume: bool = False
    init: Path | None = None
    """Checkpoint whose weights are the first ones."""
    device: str = "cpu"
    workers: int | None = None
    """Decoding threads, None for as many as the cores allow; they change the speed, never the result."""
    resume_command: str = "models train --resume"
    """What to tell the person when training is interrupted."""


def plan_training(
    model: str,
    export: str,
    *,
    data: Path,
    config: str | None = None,
    overrides: Sequence[str] = (),
    out: str | None = None,
    init: str | None = None,
    resume: bool = False,
    device: str = "cpu",
    workers: int | None = None,
) -> TrainingJob:
    """Resolve the words of the command line.

    Args:
        model: Name of the model.
        export: Name in the data folder, a path, or a URL.
        data: Data folder.
        config: Size, or a YAML file; when resuming, None takes what the run began with.
        overrides: ``key=value`` changes to it.
        out: Run, a name in the data folder or a path; None makes a name from model and size.
        init: Run or checkpoint to take the first weights from.
        resume: Continue the run.
        device: Where to compute.
        workers: Decoding threads, None for as many as the cores allow.

    Raises:
        UnknownModelError: No such model or size, or no size given for a new run.
        RunNotFoundError: Nothing to resume or to start from, or no such run to train an expert behind.
        InvalidDocumentError: The configuration does not fit.
    """
    entry = find_model(model)
    name = out or f"{entry.name}-{Path(config or '').stem}".rstrip("-")
    run = RunFolder.find(name, data) if resume else RunFolder(run_path(name, data))
    resolved = _resolve_config(entry, run, config, overrides, resume=resume)
    _require_first_pass(resolved, data)
    _require_room_to_shift(resolved)
    return TrainingJob(
        config=resolved,
        export=find_export(export, data),
        run=run,
        resume=resume,
        init=None if init is None else checkpoint_path(init, data),
        device=device,
        workers=workers,
        resume_command=_resume_command(model, export, run, device),
    )


def _resume_command(model: str, export: str, run: RunFolder, device: str) -> str:
    where = [] if device == "cpu" else ["--device", device]
    return shlex.join(
        ["models", "train", model, "--data", export, "--out", str(run.path), *where, "--resume"]
    )


def _resolve_config(
    entry: ModelEntry, run: RunFolder, config: str | None, overrides: Sequence[str], *, resume: bool
) -> RunConfig[Any]:
    if config is not None:
        return load_config(entry, config, overrides)
    if resume:
        return override(run.read()[0], overrides)
    raise UnknownModelError(
        f"a new run of {entry.name} needs --config", next_step=f"give one of {', '.join(entry.sizes())}"
    )


def _require_first_pass(config: RunConfig[Any], data: Path) -> None:
    """Refuse to train an expert on degraded pictures because nobody said whose output it restores."""
    if "generalist" not in type(config.model).model_fields:
        return
    if config.model.generalist is None:
        raise InvalidDocumentError(
            f"model.generalist is not set: {config.name} learns to restore what a generalist returns",
            next_step="name its run with --set model.generalist=RUN; a network that restores degraded pictures "
            "themselves is trained by its own name, see `models list`",
        )
    checkpoint_path(config.model.generalist, data)


def _require_room_to_shift(config: RunConfig[Any]) -> None:
    """Refuse crops of which a shift-tolerant loss would cut away more than half of each side."""
    needed = 4 * _largest_shift_px(config.model)
    if config.training.patch_px < needed:
        raise InvalidDocumentError(
            f"training.patch_px: crops of {config.training.patch_px} px leave too little inside a shift of "
            f"{needed // 4} px, which is cut from every side",
            next_step=f"set training.patch_px to {needed} or more, or lower shift_px",
        )


def _largest_shift_px(model: BaseModel) -> int:
    inner = (value for _, value in model if isinstance(value, BaseModel))
    return max(getattr(model, "shift_px", 0), *map(_largest_shift_px, inner), 0)


def run_path(name: str, data: Path) -> Path:
    """Return where a new run goes: a path as it is, a name into the data folder."""
    return Path(name) if "/" in name else data / RUNS / name
