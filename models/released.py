"""What an official released checkpoint holds: which network, of which size, and its weights under our names.

Releases wrap their weights differently (``params``, ``state_dict``, ``model``, ``ema``; leading ``module.`` or
``restoration_network.``). So the tensors of the whole file are laid out flat, and a network is found by a tensor that
only it has: what stands in front of that name is the wrapping. Averaged weights are preferred to those beside them.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from models.backbones.key_maps import KEY_MAPS, renamed
from models.checkpoint import read_foreign
from models.errors import CheckpointError

Weights = Mapping[str, Tensor]
_MOST_STEPS = 10**12
"""A file that says more is not believed."""


@dataclass(frozen=True)
class Released:
    """The contents of a released file."""

    model: str
    """The model it fits, as `models list` names it."""
    size: Mapping[str, Any]
    """What the model's configuration must say for the weights to fit; the rest is as by default."""
    weights: Weights
    """The network's tensors under our names."""
    step: int
    """Optimiser steps behind the weights, 0 where the file does not say."""


@dataclass(frozen=True)
class Family:
    """How to know a network's weights, and how to read its size off them."""

    model: str
    mark: str
    """Name of a tensor that this network has and those after it in `FAMILIES` have not."""
    key_map: str | None
    size: Callable[[Weights, bool], dict[str, Any]]
    """From the renamed weights, and whether renaming changed any name."""


def read_released(path: Path) -> Released:
    """Read a released checkpoint; nothing in it is executed.

    Args:
        path: A file that torch or safetensors wrote.

    Raises:
        CheckpointError: Damaged, holding more than tensors and plain values, or no network that is known here.
    """
    content = read_foreign(path, "a released checkpoint")
    tensors = dict(_flat(content))
    for family in FAMILIES:
        prefix = _prefix(tensors, family.mark)
        if prefix is not None:
            return _released(family, prefix, tensors, _step(content), path)
    known = ", ".join(dict.fromkeys(family.model for family in FAMILIES))
    raise CheckpointError(
        f"{path}: {len(tensors)} tensors, but none of them is of a network known here ({known})",
        next_step="`models inspect` describes files of ours; see models/README.md for the releases that are read",
    )


def _released(family: Family, prefix: str, tensors: Weights, step: int, path: Path) -> Released:
    stripped = {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
    try:
        weights = renamed(stripped, KEY_MAPS[family.key_map] if family.key_map else ())
        size = family.size(weights, weights.keys() != stripped.keys())
    except (LookupError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: looks like {family.model}, but it is incomplete: {error}") from error
    return Released(family.model, size, weights, step)


def _flat(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors under their full names; a mapping that is met again, even within itself, is passed over."""
    waiting, met = deque([("", content)]), {id(content)}
    while waiting:
        prefix, part = waiting.popleft()
        for name, value in part.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, Mapping) and id(value) not in met:
                met.add(id(value))
                waiting.append((f"{prefix}{name}.", value))


def _prefix(tensors: Weights, mark: str) -> str | None:
    """Find what stands in front of a network's names; averaged weights first, then the least wrapped."""
    found = [name.removesuffix(mark) for name in tensors if name == mark or name.endswith(f".{mark}")]
    return min(found, key=lambda prefix: ("ema" not in prefix, len(prefix)), default=None)


def _step(content: Mapping[Any, Any]) -> int:
    step = content.get("step", content.get("iter", 0))
    number = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
    return int(number) if isinstance(number, int | float) and 0 <= number < _MOST_STEPS else 0


def _count(weights: Weights, stem: str) -> int:
    """Count the numbered layers behind a name: ``encoders.0.`` has as many as ``encoders.0.N.`` are found."""
    pattern = re.compile(re.escape(stem) + r"(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})


def _foundir_size(weights: Weights, _: bool) -> dict[str, Any]:
    dim, channels = weights["init_conv.weight"].shape[:2]
    mults = [weights[f"downs.{i}.3.weight"].shape[0] // dim for i in range(_count(weights, "downs."))]
    return {"dim": dim, "dim_mults": mults, "unshuffle": max(1, math.isqrt(channels // 6))}


def _nafnet_size(weights: Weights, other_names: bool) -> dict[str, Any]:
    stages = range(_count(weights, "encoders."))
    return {
        "width": weights["intro.weight"].shape[0],
        "enc_blk_nums": [_count(weights, f"encoders.{i}.") for i in stages],
        "middle_blk_num": _count(weights, "middle_blks."),
        "dec_blk_nums": [_count(weights, f"decoders.{i}.") for i in stages],
        "norm_eps": 1e-5 if other_names else 1e-6,  # MaskDCPT's copy differs in both
    }


_RESTORMER_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def _restormer_size(weights: Weights, _: bool) -> dict[str, Any]:
    first = [f"{level}.0" for level in _RESTORMER_LEVELS]
    widths = [tuple(weights[f"{block}.ffn.project_out.weight"].shape[:2]) for block in first]
    return {
        "dim": weights["patch_embed.proj.weight"].shape[0],
        "num_blocks": [_count(weights, f"{level}.") for level in _RESTORMER_LEVELS],
        "num_refinement_blocks": _count(weights, "refinement."),
        "heads": [weights[f"{block}.attn.temperature"].shape[0] for block in first],
        "ffn_expansion_factor": _expansion(widths),
        "bias": "encoder_level1.0.attn.qkv.bias" in weights,
        "LayerNorm_type": "WithBias" if "encoder_level1.0.norm1.body.bias" in weights else "BiasFree",
    }


def _promptir_size(weights: Weights, other_names: bool) -> dict[str, Any]:
    return {**_restormer_size(weights, other_names), "official_leftovers": "chnl_reduce1.weight" in weights}


def _swinir_size(weights: Weights, _: bool) -> dict[str, Any]:
    groups = [f"encode_layers.{i}" for i in range(_count(weights, "encode_layers."))]
    groups += [f"decode_layers{i}" for i in range(len({n.split(".")[0] for n in weights if "decode_l" in n}))]
    channels = weights["conv_first.weight"].shape[0]
    return {
        "embed_dim": channels,
        "depths": [_count(weights, f"{group}.residual_group.blocks.") for group in groups],
        "num_heads": [6] * len(groups),  # no shape shows the heads; every released size has six
        "mlp_ratio": weights[f"{groups[0]}.residual_group.blocks.0.mlp.fc1.weight"].shape[0] / channels,
    }


def _expansion(widths: list[tuple[int, ...]]) -> float:
    """Return the roundest factor that gives every hidden width, which is the whole part of factor times channels."""
    low = max(hidden / channels for channels, hidden in widths)
    high = min((hidden + 1) / channels for channels, hidden in widths)
    for digits in range(1, 8):
        factor = math.ceil(low * 10.0**digits) / 10.0**digits
        if factor < high:
            return factor
    raise ValueError(f"no expansion factor gives the widths {widths}")


FAMILIES = (
    Family("foundir", "downs.0.0.block1.proj.weight", None, _foundir_size),
    Family("nafnet", "intro.weight", "maskdcpt-nafnet", _nafnet_size),
    Family("promptir", "prompt1.prompt_param", "maskdcpt-restormer", _promptir_size),
    Family("swinir", "encode_layers.0.residual_group.blocks.0.attn.qkv.weight", None, _swinir_size),
    Family("restormer", "patch_embed.proj.weight", "maskdcpt-restormer", _restormer_size),
)
"""In the order in which they are looked for; the key maps leave official names as they are."""
