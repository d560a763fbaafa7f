"""Checkpoints: safetensors that say by themselves which network they hold, and the optimiser beside them.

No pickled code is ever run: weights are safetensors, the optimiser's file is read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from catalog.console import default_data_folder
from catalog.errors import InvalidDocumentError
from catalog.session_folder import replace_file
from models.base import Classifier, Degrader, Restorer
from models.config import RunConfig, build_config
from models.devices import find_device
from models.errors import CheckpointError
from models.precision import REFERENCE, Usage, make_fast
from models.registry import find_model
from models.run_folder import checkpoint_path
from models.sharding import spread_like

FORMAT = "cleanplate"
_UNUSED_PARTS = 100
"""Parameters that a network may make beside those that it keeps."""
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    pickle.UnpicklingError,
)
"""What torch's reader raises for bytes that are no file of its own."""


class CheckpointInfo(BaseModel):
    """What a checkpoint says about itself, in the header of its file."""

    config: dict[str, Any]
    """The resolved configuration of the run."""
    step: int
    export_digest: str
    """sha256 of the manifest it was trained on; empty for converted weights."""
    source: str = ""
    """File and sha256 that converted weights come from."""


def load(
    run: str | Path, usage: Usage = REFERENCE, *, data: Path | None = None
) -> Restorer | Degrader | Classifier:
    """Load one trained model, ready to use: evaluation mode, averaged weights.

    Args:
        run: A run's folder or name (its newest checkpoint is taken), or one ``.safetensors`` file.
        usage: Where and how fast it is to run.
        data: Data folder in which names are looked up; default as for the commands.

    Raises:
        RunNotFoundError: No such run, or nothing saved in it yet.
        CheckpointError: The file is damaged, foreign, or does not fit the network it names.
        DeviceMissingError: No such device here.
    """
    path = checkpoint_path(run, data or default_data_folder())
    place = find_device(usage.device)
    usable = build(read_info(path), path).to(place).eval()
    if usage.precision != "fp32" or usage.compiled:
        make_fast(usable, place, precision=usage.precision, compiled=usage.compiled)
    if not isinstance(usable, Restorer | Degrader | Classifier):
        raise CheckpointError(f"{path}: {type(usable).__name__} neither restores, degrades nor classifies")
    return usable


def build(info: CheckpointInfo, path: Path) -> nn.Module:
    """Build the network that a checkpoint names and fill it.

    Raises:
        CheckpointError: It does not fit the network; nothing was allocated for it.
    """
    try:
        config = build_config(info.config)
    except ValidationError as error:
        raise CheckpointError(f"{path}: its configuration does not fit this version: {error}") from error
    require_fit(config, _shapes_in(path), path)
    model = find_model(config.name).build(config.model)
    load_weights(model, path)
    return model


def require_fit(config: RunConfig[Any], shapes: Mapping[str, Sequence[int]], path: Path) -> None:
    """Compare a file with the network that it should fill before memory is given to that network.

    The network is laid out without storage, and no further than the file reaches: a small file whose configuration
    asks for a huge network costs neither memory nor time.

    Args:
        config: What the file says, or shows, to be its network.
        shapes: Of the tensors in the file, by name.
        path: The file.

    Raises:
        CheckpointError: Names or shapes differ; the message names the first difference.
    """
    try:
        with torch.device("meta"), _parameters_limited(2 * len(shapes) + _UNUSED_PARTS, path):
            layout = find_model(config.name).build(config.model).state_dict()
    except InvalidDocumentError as error:
        raise CheckpointError(f"{path}: makes no network: {error}") from error
    _require_same(_shapes(layout), shapes, path)


def read_info(path: Path) -> CheckpointInfo:
    """Read the header of a checkpoint.

    Raises:
        CheckpointError: Damaged, or written by something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: holds no description of ours, so it was not written by `models train`",
            next_step="`models convert` reads official releases",
        )
    try:
        return CheckpointInfo.model_validate_json(header.get("info", ""))
    except ValidationError as error:
        raise CheckpointError(f"{path}: its description of itself is damaged: {error}") from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a network from a file that must fit it exactly.

    Raises:
        CheckpointError: Damaged, or names and shapes differ; the message names the first difference.
    """
    fill(model, _read_safetensors(path), path)


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network with weights that must fit it exactly; ``path`` is where they come from.

    Raises:
        CheckpointError: Names or shapes differ; the message names the first difference.
    """
    live = model.state_dict()
    _require_same(_shapes(live), _shapes(weights), path)
    model.load_state_dict({name: spread_like(tensor, live[name]) for name, tensor in weights.items()})


def save_weights(path: Path, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Write weights in one step; a reader sees the whole file or none."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = {"format": FORMAT, "info": info.model_dump_json()}
    replace_file(path, save(contiguous, metadata=header))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the optimiser's state and counters in one step."""
    packed = io.BytesIO()  # written straight to a full disk, torch would fail with an error of its own
    torch.save(dict(state), packed)
    replace_file(path, packed.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; nothing in the file is executed.

    Raises:
        CheckpointError: Missing, damaged, or holding more than tensors and plain values.
    """
    state = unpickle(path, "optimiser state")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds {type(state).__name__} instead of optimiser state")
    return state


def read_foreign(path: Path, what: str) -> Mapping[Any, Any]:
    """Read a file that others wrote with safetensors or torch; nothing in it is executed.

    Args:
        path: The file; one that ends in ``.safetensors`` is read as such.
        what: What it should hold, for the error message.

    Returns:
        Its outermost names; values may be mappings again.

    Raises:
        CheckpointError: Missing, damaged, holding more than tensors and plain values, or without names.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = unpickle(path, what)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds {type(content).__name__} instead of named tensors")
    return content


def unpickle(path: Path, what: str) -> Any:
    """Read tensors and plain values from a file of torch; nothing in it is executed.

    Args:
        path: The file.
        what: What it should hold, for the error message.

    Raises:
        CheckpointError: Missing, damaged, or holding more than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on foreign pickles; they fail below anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: not readable as {what}: {_reason(error)}") from error


def config_document(config: RunConfig[Any]) -> dict[str, Any]:
    """Return a configuration as the plain values that a checkpoint carries."""
    document: dict[str, Any] = json.loads(config.model_dump_json(by_alias=True))
    return document


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error


def _reason(error: Exception) -> str:
    """Say what is wrong with a pickle; torch's own text goes on to advise reading it without protection."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return f"it asks for {foreign[1]}, which is neither a tensor nor a plain value; nothing was executed"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds what is neither a tensor nor a plain value, or is damaged; nothing was executed"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _shapes_in(path: Path) -> dict[str, Sequence[int]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors: {error}") from error


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Sequence[int]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


@contextmanager
def _parameters_limited(most: int, path: Path) -> Iterator[None]:
    """End the construction of modules in the block as soon as they have more parameters than that."""
    made = count(1)

    def check(*_: object) -> None:
        if next(made) > most:
            raise CheckpointError(
                f"{path}: does not fit the network: its configuration asks for more tensors"
            )

    handle = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _require_same(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]], path: Path
) -> None:
    difference = _first_difference(expected, found)
    if difference:
        raise CheckpointError(f"{path}: does not fit the network: {difference}")


def _first_difference(
    expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]
) -> str | None:
    for name in sorted(expected.keys() ^ found.keys()):
        return f"{name} is {'missing' if name in expected else 'not known to it'}"
    for name, shape in expected.items():
        if tuple(shape) != tuple(found[name]):
            return f"{name} is {tuple(found[name])}, needs {tuple(shape)}"
    return None
