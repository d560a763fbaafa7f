"""Every golden case whose network exists here reproduces the published network's outputs.

The cases lie in ``$CLEANPLATE_GOLDENS`` (default ``../shared/goldens``). Weights and inputs are drawn from
names by `seeded.py`, so a case also proves that the official parameter names are ours. A case whose network
is not built yet is skipped by its name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from models.backbones.key_maps import KEY_MAPS, renamed
from models.backbones.nafnet import NAFNet
from models.backbones.promptir import PromptIR
from models.backbones.restormer import Restormer, padded_to
from models.backbones.swinir import SwinIR
from models.base import RestorationBatch
from models.foundir import FoundirConfig, FoundirRestorer
from models.foundir_unet import FoundirUnet

GOLDENS = Path(os.environ.get("CLEANPLATE_GOLDENS", Path(__file__).parents[2].parent / "shared" / "goldens"))
CASES = sorted(path.stem for path in GOLDENS.glob("*.json"))
DIFFUSION_CASES = [
    name for name in CASES if '"House-Leo/FoundIR' in (GOLDENS / f"{name}.json").read_text(encoding="utf-8")
]
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


def _maskdcpt_nafnet(config: dict[str, Any]) -> nn.Module:
    config = {k: v for k, v in config.items() if k != "window_size"}  # it pads, which ours does by itself
    return NAFNet(**config, norm_eps=1e-5)


def _maskdcpt_swinir(config: dict[str, Any]) -> nn.Module:
    assert config.get("upscale", 1) == 1
    return SwinIR(**{k: v for k, v in config.items() if k not in {"img_size", "upscale"}})


BUILDERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "megvii-research/NAFNet class NAFNet": lambda config: NAFNet(**config),
    "swz30/Restormer class Restormer": lambda config: Restormer(**config),
    "va1shn9v/PromptIR class PromptIR": lambda config: PromptIR(**config, official_leftovers=True),
    "MILab-PKU/MaskDCPT class NAFNetBaseline": _maskdcpt_nafnet,
    "MILab-PKU/MaskDCPT class Restormer": lambda config: Restormer(**config),
    "MILab-PKU/MaskDCPT class PromptIR": lambda config: PromptIR(**config, bias=True),
    "MILab-PKU/MaskDCPT class SwinIR": _maskdcpt_swinir,
}
RELEASES = {
    "MILab-PKU/MaskDCPT class NAFNetBaseline": "maskdcpt-nafnet",
    "MILab-PKU/MaskDCPT class Restormer": "maskdcpt-restormer",
    "MILab-PKU/MaskDCPT class PromptIR": "maskdcpt-restormer",
}
"""Whose names differ from ours, and the map that leads to them."""


def _load_seeded_weights(network: nn.Module, case: dict[str, Any]) -> None:
    drawn = seeded.state_dict(case["parameters"], case["seed"])
    ours = renamed(drawn, KEY_MAPS.get(RELEASES.get(case["source"], ""), ()))
    network.load_state_dict({name: torch.from_numpy(values) for name, values in ours.items()}, strict=True)


def _relative_difference(output: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(output - reference).max() / max(1.0, np.abs(reference).max()))


@pytest.mark.skipif(not CASES, reason=f"no golden cases in {GOLDENS}; set CLEANPLATE_GOLDENS")
@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFUSION_CASES])
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


@pytest.mark.skipif(not DIFFUSION_CASES, reason=f"no case of FoundIR in {GOLDENS}")
@pytest.mark.parametrize("name", DIFFUSION_CASES)
def test_residual_diffusion_reproduces_the_published_calls_states_loss_and_samples(name: str):
    case = seeded.load_case(GOLDENS, name)
    references = load_file(GOLDENS / f"{name}.safetensors")
    calls = {call["output"]: call for call in case["calls"]}
    restorer = _foundir(case, steps=4)

    outputs = {
        key: _foundir_forward(restorer, call, case["seed"])
        for key, call in calls.items()
        if key.startswith("forward.")
    }
    if "q_sample and loss" in calls:
        outputs |= _foundir_objective(restorer, name, calls["q_sample and loss"]["input"], case["seed"])
    for key in (key for key in calls if key.startswith("sample.")):
        sampler = _foundir(case, steps=int(key.removeprefix("sample.")))
        lq, noise = _drawn(calls[key]["input"], case["seed"]).values()
        with torch.inference_mode():
            outputs[key] = sampler.restore_from(lq, noise).numpy()

    assert sum(p.numel() for p in restorer.parameters()) == case["n_parameters"]
    assert outputs.keys() == references.keys()
    for key, output in outputs.items():
        assert _relative_difference(output, references[key]) <= TOLERANCE, key


def _foundir(case: dict[str, Any], *, steps: int) -> FoundirRestorer:
    given = case["config"]
    sizes = {key: given[key] for key in ("dim", "dim_mults", "timesteps", "delta_end")}
    config = FoundirConfig(**sizes, start_noise_std=given["sum_scale"] ** 0.5, sampling_steps=steps)
    restorer = FoundirRestorer(config).eval()
    drawn = renamed(seeded.state_dict(case["parameters"], case["seed"]), KEY_MAPS["foundir"])
    restorer.network.load_state_dict({key: torch.from_numpy(values) for key, values in drawn.items()})
    return restorer


def _drawn(text: str, seed: int) -> dict[str, torch.Tensor]:
    """Draw what a description names: ``image(NAME, (1,3,48,64)) ... draw(NAME, (1,3,48,64))``, in its order."""
    found = re.findall(r"(image|draw)\(([^,()]+), \(([\d,]+)\)\)", text)
    return {
        name: torch.from_numpy(getattr(seeded, kind)(name, tuple(map(int, shape.split(","))), seed))
        for kind, name, shape in found
    }


def _foundir_forward(restorer: FoundirRestorer, call: dict[str, Any], seed: int) -> np.ndarray:
    (state,) = _drawn(call["input"], seed).values()
    with torch.inference_mode():
        return restorer.network(state, torch.tensor([call["time_argument"]])).numpy()


def _foundir_objective(restorer: FoundirRestorer, name: str, text: str, seed: int) -> dict[str, np.ndarray]:
    shape = tuple(map(int, re.search(r"\((\d+,\d+,\d+,\d+)\)", text)[1].split(",")))  # type: ignore[index]
    t = torch.tensor(json.loads(re.search(r"t=(\[[\d, ]+\])", text)[1]))  # type: ignore[index]
    gt, lq = (torch.from_numpy(seeded.image(f"{name}/{part}", shape, seed)) for part in ("gt", "lq"))
    noise = torch.from_numpy(seeded.draw(f"{name}/noise", shape, seed))
    batch = RestorationBatch(lq, gt, None, (), lq, (), torch.zeros(len(lq), 2))
    with torch.inference_mode():
        state = restorer.diffusion.state(2 * gt - 1, 2 * lq - 1, noise, t)
        loss = restorer.residual_loss(batch, t, noise)
    return {"q_sample": state.numpy(), "loss": loss.reshape(1).numpy()}


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


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (
            lambda: NAFNet(width=64, enc_blk_nums=(1, 1, 1, 28), middle_blk_num=1, dec_blk_nums=(1, 1, 1, 1)),
            67_888_835,
        ),
        (Restormer, 26_126_644),
        (lambda: PromptIR(bias=True), 35_539_290),
        (lambda: PromptIR(official_leftovers=True), 35_592_263),
        (SwinIR, 11_455_563),
        (FoundirUnet, 36_261_187),
    ],
    ids=["nafnet", "restormer", "promptir of maskdcpt", "promptir", "swinir", "foundir"],
)
def test_the_released_sizes_have_their_numbers_of_parameters(build: Callable[[], nn.Module], parameters: int):
    with torch.device("meta"):
        network = build()
    assert sum(p.numel() for p in network.parameters()) == parameters


SMALL: dict[str, Callable[[], nn.Module]] = {
    "restormer": lambda: Restormer(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
    "promptir": lambda: PromptIR(dim=12, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
    "swinir": lambda: SwinIR(embed_dim=12, depths=(2, 2), num_heads=(2, 2)),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [(37, 50), (5, 3), (64, 64)])
def test_any_size_comes_back_as_it_was_and_learns(name: str, size: tuple[int, int]):
    torch.manual_seed(1)
    network, image = SMALL[name](), torch.rand(2, 3, *size)
    restored = network(image)
    restored.square().mean().backward()
    assert restored.shape == image.shape
    unused = [n for n, p in network.named_parameters() if p.grad is None]
    assert unused == []


def test_padding_reflects_where_the_picture_is_large_enough():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    assert padded_to(image, 4)[0, 0, 3].tolist() == image[0, 0, 1].tolist()
    assert padded_to(image, 8).shape == (1, 1, 8, 8)
    assert padded_to(image[..., :2, :], 2) is not None


def test_two_names_that_would_become_one_are_refused():
    with pytest.raises(ValueError, match="two tensors"):
        renamed({"a.blocks.0.w": 1, "a.0.w": 2}, KEY_MAPS["maskdcpt-nafnet"])
