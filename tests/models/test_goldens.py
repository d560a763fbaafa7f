"""Every golden case whose network exists here reproduces the published network's outputs.

The cases lie in ``$CLEANPLATE_GOLDENS`` (default ``../shared/goldens``). Weights and inputs are drawn from
names by `seeded.py`, so a case also proves that the official parameter names are ours. A case whose network
is not built yet is skipped by its name.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from models.backbones.nafnet import NAFNet

GOLDENS = Path(os.environ.get("CLEANPLATE_GOLDENS", Path(__file__).parents[2].parent / "shared" / "goldens"))
CASES = sorted(path.stem for path in GOLDENS.glob("*.json"))
TOLERANCE = 3e-5
"""Largest difference over max(1, largest reference): another BLAS order than the reference's is allowed."""


def _seeded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded", Path(__file__).with_name("seeded.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seeded = _seeded()


def _nafnet(config: dict[str, Any]) -> nn.Module:
    return NAFNet(**config)


BUILDERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "megvii-research/NAFNet class NAFNet": _nafnet,
}


def _load_seeded_weights(network: nn.Module, case: dict[str, Any]) -> None:
    drawn = seeded.state_dict(case["parameters"], case["seed"])
    network.load_state_dict({name: torch.from_numpy(values) for name, values in drawn.items()}, strict=True)


def _relative_difference(output: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(output - reference).max() / max(1.0, np.abs(reference).max()))


@pytest.mark.skipif(not CASES, reason=f"no golden cases in {GOLDENS}; set CLEANPLATE_GOLDENS")
@pytest.mark.parametrize("name", CASES)
def test_network_reproduces_the_published_output(name: str):
    case = seeded.load_case(GOLDENS, name)
    if case["source"] not in BUILDERS:
        pytest.skip(f"{name}: no network here for '{case['source']}' yet")
    network = BUILDERS[case["source"]](case["config"]).eval()
    _load_seeded_weights(network, case)
    references = load_file(GOLDENS / f"{name}.safetensors")

    assert sum(p.numel() for p in network.parameters()) == case["n_parameters"]
    for key, shape in case["inputs"].items():
        image = seeded.image(f"{name}/{key}", tuple(shape), case["seed"])
        with torch.inference_mode():
            output = network(torch.from_numpy(image)).numpy()
        assert _relative_difference(output, references[key]) <= TOLERANCE, key


@pytest.mark.skipif("nafnet_official" not in CASES, reason=f"no nafnet_official in {GOLDENS}")
def test_channels_last_and_odd_sizes_give_the_same_output():
    case = seeded.load_case(GOLDENS, "nafnet_official")
    network = NAFNet(**case["config"]).eval()
    _load_seeded_weights(network, case)
    network.to(memory_format=torch.channels_last)
    references = load_file(GOLDENS / "nafnet_official.safetensors")
    image = seeded.image("nafnet_official/image.1", tuple(case["inputs"]["image.1"]), case["seed"])

    with torch.inference_mode():
        output = network(torch.from_numpy(image).to(memory_format=torch.channels_last)).numpy()

    assert _relative_difference(output, references["image.1"]) <= TOLERANCE


def test_fresh_network_is_nearly_the_identity_of_its_input_plus_the_ending():
    """Zero residual scales make every block the identity, so only the convolutions act: all is finite."""
    network = NAFNet(width=8, enc_blk_nums=(1, 1), middle_blk_num=1, dec_blk_nums=(1, 1))

    for block in network.modules():
        if hasattr(block, "beta"):
            assert torch.count_nonzero(block.beta) == 0
            assert torch.count_nonzero(block.gamma) == 0


def test_unequal_numbers_of_stages_are_refused():
    with pytest.raises(ValueError, match="2 encoder and 1 decoder"):
        NAFNet(enc_blk_nums=(1, 1), dec_blk_nums=(1,))
