"""What a training run is told: the model's own settings and the loop's, from one YAML file.

A run stores the resolved configuration it ran with; ``--set model.width=24`` changes one value by its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, Field, ValidationError

from catalog.errors import InvalidDocumentError
from catalog.yaml_document import Document, load_yaml
from models.registry import ModelEntry, find_model
from models.stages import Stage

M = TypeVar("M", bound=BaseModel)


class TrainingConfig(Document):
    """The loop's settings, the same for every model."""

    seed: int = Field(default=1, ge=0, lt=2**32)
    """Order, crops, dropout and first weights follow from it."""
    steps: int = Field(ge=1)
    """Optimiser steps."""
    budget_s: float | None = Field(default=None, gt=0)
    """Stop after so many seconds; the learning rate then follows the clock where it is ahead of the steps.
    For demonstrations: where it cuts in, two runs differ."""
    batch: int = Field(default=8, ge=1)
    """Crops per pass and process."""
    accumulate: int = Field(default=1, ge=1)
    """Passes per optimiser step."""
    patch_px: int = Field(default=128, ge=16)
    """Side of the square crops."""
    turns: Literal["mirror", "all"] = "all"
    """How crops are laid down: mirrored left to right, or in all eight ways. Rain falls and light comes from
    above: a short training learns them sooner from upright crops."""
    crops_per_decode: int = Field(default=8, ge=1)
    """Crops cut from a pair each time it is decoded; decoding is what starves training."""
    decodes_per_block: int = Field(default=32, ge=1)
    """Pairs whose crops are shuffled together; two blocks of crops are held in memory."""
    balanced: bool = True
    """Draw every degradation class equally often; otherwise every pair."""
    stages: tuple[Stage, ...] = ()
    """Let degradation classes join one stage after the other; without stages all are drawn from the first step on.
    Stages are shares of `steps`: a `budget_s` that runs out first cuts the last ones off."""
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-6, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(default=0, ge=0)
    betas: tuple[float, float] = (0.9, 0.9)
    weight_decay: float = Field(default=0.0, ge=0)
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Weight of the past in the averaged weights; 0 switches averaging off."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16: autocast of the network; weights, losses and optimiser stay float32. auto: bf16 where the processor
    has it in hardware (elsewhere it is emulated and slower), otherwise fp32."""
    channels_last: bool = True
    compile: bool = False
    """Compile the networks at their first step. That takes minutes and a C++ compiler; it pays on a GPU."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How the processes of a `torchrun` share the work. ddp: each holds the whole model. fsdp: each holds a share of
    weights, average and optimiser state, for models that do not fit into one device."""
    cpu_threads: int | None = Field(default=None, ge=1)
    """Threads of a step where it runs on the processor; None takes one per core. A small network gains little from
    a second one (1.4 times, measured) and loses much (10 times) when anything else wants that core; with cores to
    spare, pairs are decoded while the network trains."""
    log_every: int = Field(default=20, ge=1)
    """Steps between lines in `metrics.jsonl`."""
    validate_every: int = Field(default=1000, ge=1)
    """Steps between validations; the first comes after a tenth of that."""
    validation_pairs: int = Field(default=8, ge=0)
    """Pairs looked at, spread over the classes of split `val` (of `train` where there is none)."""
    validation_px: int = Field(default=512, ge=16)
    """Side of the central part of a pair that validation restores."""
    checkpoint_every: int = Field(default=1000, ge=1)
    keep_last: int = Field(default=2, ge=1)
    keep_best: int = Field(default=2, ge=0)


class RunConfig(Document, Generic[M]):
    """Everything that decides a training run, except its pairs."""

    schema_: Literal[1] = Field(alias="schema", default=1)
    name: str
    """The model, as `models list` names it."""
    model: M
    training: TrainingConfig


def load_config(entry: ModelEntry, size: str, overrides: Sequence[str] = ()) -> RunConfig[Any]:
    """Read a shipped size, or a YAML file by its path, and apply ``key=value`` overrides.

    Raises:
        UnknownModelError: No such size and no such file.
        InvalidDocumentError: The file or an override does not fit; the message says where.
    """
    path = Path(size) if size.endswith((".yaml", ".yml")) else entry.config_path(size)
    config = load_yaml(path, config_class(entry))
    if config.name != entry.name:
        raise InvalidDocumentError(f"{path}:1:1: configures model '{config.name}', not '{entry.name}'")
    return override(config, overrides)


def config_class(entry: ModelEntry) -> type[RunConfig[Any]]:
    """Return the configuration class of runs of one model."""
    specialised: Any = RunConfig.__class_getitem__(entry.load_config_class())
    return cast("type[RunConfig[Any]]", specialised)


def override(config: RunConfig[Any], assignments: Sequence[str]) -> RunConfig[Any]:
    """Apply ``key=value`` overrides, for example ``training.steps=400``.

    Raises:
        InvalidDocumentError: Not of that form, an unknown key (the nearest is named), or a value that
            does not fit.
    """
    document = config.model_dump(mode="json", by_alias=True)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidDocumentError(f"--set {assignment}: needs the form key=value")
        _assign(document, key.strip(), _plain(text, assignment))
    try:
        return type(config).model_validate(document)
    except ValidationError as error:
        raise InvalidDocumentError(_complaint(error)) from None


def dump_config(config: RunConfig[Any]) -> str:
    """Return a configuration as YAML that `RunFolder.read` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False)


def build_config(document: Mapping[str, Any]) -> RunConfig[Any]:
    """Make a configuration from plain values that a checkpoint carries.

    Raises:
        UnknownModelError: The model it names does not exist here.
        ValidationError: The values do not fit.
    """
    entry = find_model(str(document.get("name")))
    return config_class(entry).model_validate(document)


def _plain(text: str, assignment: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidDocumentError(f"--set {assignment}: the value is not readable as YAML") from error


def _assign(document: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    target: Any = document
    for section in sections:
        target = target.get(section) if isinstance(target, dict) else None
    if not isinstance(target, dict) or leaf not in target:
        known = list(_keys(document))
        match = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"; did you mean '{match[0]}'?" if match else f"; keys: {', '.join(known)}"
        raise InvalidDocumentError(f"--set {key}: unknown key{hint}")
    target[leaf] = value


def _keys(document: Mapping[str, Any], prefix: str = "") -> list[str]:
    nested = [
        _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
        for key, value in document.items()
    ]
    return [key for keys in nested for key in keys]


def _complaint(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"--set {'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
