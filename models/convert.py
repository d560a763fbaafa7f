"""Official released checkpoints into runs of ours: `models convert FILE -o RUN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from catalog.session_folder import file_sha256
from models.checkpoint import CheckpointInfo, config_document, fill, save_weights
from models.config import build_config, override
from models.errors import RunExistsError, StorageError
from models.registry import find_model
from models.released import read_released
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
    steps = {"steps": max(1, released.step)}
    document = {"name": released.model, "model": dict(released.size), "training": steps}
    config = override(build_config(document), assignments)
    network = find_model(released.model).build(config.model)
    fill(network, {f"network.{name}": tensor for name, tensor in released.weights.items()}, path)
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


def _write(run: RunFolder, info: CheckpointInfo, weights: Mapping[str, Tensor]) -> None:
    record = RunRecord(export="", export_digest="", version=version("cleanplate"))
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
