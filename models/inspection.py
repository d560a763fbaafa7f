"""What a checkpoint file holds, ours or a released one: `models inspect`."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from catalog.session_folder import file_sha256
from models.checkpoint import read_info
from models.released import read_released


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Describe a checkpoint as plain values; nothing in it is executed, no network is built.

    Returns:
        ``format`` (``cleanplate`` or ``released``), ``model``, ``config``, ``step``, ``parameters``, ``dtypes``,
        ``export_digest`` and ``source`` (for our own), ``bytes``, ``sha256``.

    Raises:
        CheckpointError: Damaged, or neither ours nor a release that is known here.
    """
    described = _our_own(path) if _is_ours(path) else _released(path)
    return {"file": str(path), **described, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def description_lines(document: dict[str, Any]) -> list[str]:
    """Lay a description out as lines of name and value."""
    return [f"{name:16} {value}" for name, value in document.items()]


def _is_ours(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "info" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _our_own(path: Path) -> dict[str, Any]:
    info = read_info(path)
    with safe_open(path, framework="pt") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118  # the file is no mapping
        parameters = sum(math.prod(part.get_shape()) for part in slices)
        dtypes = Counter(part.get_dtype() for part in slices)
    return {
        "format": "cleanplate",
        "model": info.config.get("name"),
        "config": info.config,
        "step": info.step,
        "parameters": parameters,
        "dtypes": dict(dtypes),
        "export_digest": info.export_digest,
        "source": info.source,
    }


def _released(path: Path) -> dict[str, Any]:
    released = read_released(path)
    return {
        "format": "released",
        "model": released.model,
        "config": {"model": dict(released.size)},
        "step": released.step,
        "parameters": sum(tensor.numel() for tensor in released.weights.values()),
        "dtypes": dict(Counter(str(t.dtype).removeprefix("torch.") for t in released.weights.values())),
    }
