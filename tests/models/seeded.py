"""Weights, inputs and masks for the golden network outputs, drawn from names so that no weights need storing.

A golden case is two files: `<case>.json` (network configuration, parameter names and shapes, where each
output came from) and `<case>.safetensors` (the outputs to reproduce). Everything that goes in is drawn here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

UNIT_SCALE_LEAVES = ("temperature", "g")
SMALL_GAIN_LEAVES = ("beta", "gamma")


def draw(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Standard normal float32 values that depend only on `name`, `shape` and `seed`."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed]).standard_normal(shape, dtype=np.float32)


def parameter(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One network parameter: gains near 1, biases small, kernels scaled by their fan-in.

    Zero-initialised gains (NAFNet's beta and gamma, for one) would hide every error behind them,
    so no parameter is left at its stock initial value.
    """
    values = draw(name, shape, seed)
    leaf = name.rsplit(".", 1)[-1]
    if leaf in SMALL_GAIN_LEAVES:
        return 0.2 * values
    if leaf in UNIT_SCALE_LEAVES or (len(shape) == 1 and leaf == "weight"):
        return 1 + 0.1 * values
    if len(shape) <= 1:
        return 0.05 * values
    return values / np.float32(max(1, np.prod(shape[1:])) ** 0.5)


def state_dict(parameters: Mapping[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    """All parameters of a case, by the official names."""
    return {
        name: parameter(name, tuple(shape), seed).astype(np.float32) for name, shape in parameters.items()
    }


def image(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Uniform float32 values in [0, 1)."""
    return np.random.default_rng([zlib.crc32(name.encode()), seed]).random(shape, dtype=np.float32)


def patch_mask(name: str, shape: tuple[int, ...], seed: int, keep: float = 0.5) -> np.ndarray:
    """Boolean patch mask (B, 1, h, w), True = visible, exactly round(keep * h * w) visible per sample."""
    batch, _, rows, cols = shape
    order = (
        np.random.default_rng([zlib.crc32(name.encode()), seed]).random((batch, rows * cols)).argsort(axis=1)
    )
    visible = order < round(keep * rows * cols)
    return visible.reshape(batch, 1, rows, cols)


def load_case(folder: Path, case: str) -> dict:
    """The description of one case; read the outputs beside it with safetensors."""
    return json.loads((folder / f"{case}.json").read_text())
