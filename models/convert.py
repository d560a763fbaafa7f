"""Official released checkpoints into runs of ours: `models convert FILE -o RUN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from catalog.product_version import product_version
from catalog.session_folder import file_sha256
from models.checkpoint import CheckpointInfo, config_document, fill, require_fit, save_weights
from models.config import RunConfig, build_config, override
from models.errors import CheckpointError, RunExistsError, StorageError
from models.registry import find_model
from models.released import Released, read_released
from models.run_folder import RunFolder, RunRecord, SavedStep


@dataclass(frozen=True)
class Conversion:
    """What came out."""

    run: str
    checkpoint: str
    model: str
    parameters: int
    step: int
    source_sha256: str


def convert(path: Path, run: RunFolder, *, assignments: Sequence[str] = ()) -> Conversion:
    """Turn a released checkpoint into a run that can be loaded, evaluated and trained on from.

    The run holds averaged weights and a configuration, no optimiser: `models train --init RUN` starts from it,
    `--resume` does not.

    Args:
        path: File that torch or safetensors wrote; nothing in it is executed.
        run: Where to put it.
        assignments: ``key=value`` changes for what no tensor shows, such as ``model.num_heads=[8, 8]``.

    Raises:
        CheckpointError: Damaged, foreign, or its weights do not fit the network they seem to be of.
        RunExistsError: There is a run already.
        StorageError: The disk refused a write.
    """
    released = read_released(path)
    config = override(_config_of(released, path), assignments)
    weights = {f"network.{name}": tensor for name, tensor in released.weights.items()}
    _require_stored(weights, path)
    require_fit(config, {name: tensor.shape for name, tensor in weights.items()}, path)
    network = find_model(released.model).build(config.model)
    fill(network, weights, path)
    digest = file_sha256(path)
    info = CheckpointInfo(
        config=config_document(config),
        step=released.step,
        export_digest="",
        source=f"{path.name} sha256 {digest}",
    )
    _write(run, info, network.state_dict())
    return Conversion(
        run=str(run.path),
        checkpoint=str(run.weights_path(released.step)),
        model=released.model,
        parameters=sum(p.numel() for p in network.parameters()),
        step=released.step,
        source_sha256=digest,
    )


def _require_stored(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that repeat a few stored numbers: written out, they would fill any memory."""
    claimed, stored = sum(t.numel() * t.element_size() for t in weights.values()), path.stat().st_size
    if claimed > stored:
        raise CheckpointError(f"{path}: claims {claimed:,} bytes of weights in a file of {stored:,} bytes")


def _config_of(released: Released, path: Path) -> RunConfig[Any]:
    steps = {"steps": max(1, released.step)}
    try:
        return build_config({"name": released.model, "model": dict(released.size), "training": steps})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise CheckpointError(
            f"{path}: looks like {released.model}, but {where}: {problem['msg']}"
        ) from error


def _write(run: RunFolder, info: CheckpointInfo, weights: Mapping[str, Tensor]) -> None:
    record = RunRecord(export="", export_digest="", version=product_version())
    try:
        run.create(build_config(info.config), record)
        save_weights(run.weights_path(info.step), weights, info)
        run.commit(SavedStep(step=info.step, psnr_db=None), keep_last=1, keep_best=0)
    except RunExistsError:
        raise
    except OSError as error:
        raise StorageError(
            f"{run.path}: the converted weights could not be written: {error.strerror or error}",
            kept="the released file",
            next_step=f"make room, remove {run.path} and convert again",
        ) from error
