from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import CheckpointError
from models.perceptual import PerceptualDistance, vgg16_stages

CPU = torch.device("cpu")
ALEX = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))
"""Index, channels in, channels out and side of AlexNet's convolutions, as torchvision numbers them."""
CHANNELS = (64, 192, 384, 256, 256)
RNG = np.random.default_rng(5)
PICTURE = RNG.integers(0, 256, (70, 83, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (70, 83, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone() -> dict[str, Tensor]:
    """AlexNet with random weights, with a classifier beside it, under torchvision's names."""
    random = torch.Generator().manual_seed(1)
    weights = {"classifier.1.weight": torch.zeros(1)}
    for index, inputs, outputs, side in ALEX:
        shape = (outputs, inputs, side, side)
        weights[f"features.{index}.weight"] = torch.randn(shape, generator=random) / (inputs * side**2) ** 0.5
        weights[f"features.{index}.bias"] = 0.1 * torch.randn(outputs, generator=random)
    return weights


@pytest.fixture(scope="module")
def layers() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(2)
    return {
        f"lin{i}.model.1.weight": torch.rand((1, c, 1, 1), generator=random) for i, c in enumerate(CHANNELS)
    }


def _saved(path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save(weights, path)
    return path


def _by_the_book(
    a: np.ndarray, b: np.ndarray, backbone: dict[str, Tensor], layers: dict[str, Tensor]
) -> float:
    """LPIPS 0.1 as its paper's equation 1 and its authors' constants have it, layer by layer."""

    def features(pixels: np.ndarray) -> list[Tensor]:
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor(
            [0.458, 0.448, 0.450]
        ).view(1, 3, 1, 1)
        found = []
        for index, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if index in (3, 6):
                x = F.max_pool2d(x, 3, 2)
            weight, bias = backbone[f"features.{index}.weight"], backbone[f"features.{index}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    gaps = ((x - y) ** 2 for x, y in zip(features(a), features(b), strict=True))
    return float(sum(F.conv2d(gap, layers[f"lin{i}.model.1.weight"]).mean() for i, gap in enumerate(gaps)))


def test_the_distance_is_the_published_one(tmp_path, backbone, layers):
    files = [_saved(tmp_path / "alexnet.pth", backbone), _saved(tmp_path / "alex.pth", layers)]

    distance = PerceptualDistance.load(files, CPU)

    expected = _by_the_book(PICTURE, OTHER, backbone, layers)
    assert expected > 0.1
    assert distance(PICTURE, OTHER) == pytest.approx(expected, rel=1e-5)
    assert distance(PICTURE, PICTURE) == 0
    assert distance(OTHER, PICTURE) == pytest.approx(expected, rel=1e-5)


def test_one_file_of_the_packages_own_network_says_the_same(tmp_path, backbone, layers):
    """There the backbone lies in slices under the same numbers, and the layers twice."""
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    renamed = {
        f"net.slice{slices[name.split('.')[1]]}.{name.removeprefix('features.')}": tensor
        for name, tensor in backbone.items()
        if name.startswith("features")
    }
    twice = {name.replace("lin", "lins."): tensor for name, tensor in layers.items()}
    shift = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    file = _saved(tmp_path / "lpips.pth", {**shift, **renamed, **layers, **twice})

    distance = PerceptualDistance.load([file], CPU)

    assert distance(PICTURE, OTHER) == pytest.approx(_by_the_book(PICTURE, OTHER, backbone, layers), rel=1e-5)


def test_sixteen_bits_are_rounded_first(tmp_path, backbone, layers):
    distance = PerceptualDistance.load([_saved(tmp_path / "both.pth", {**backbone, **layers})], CPU)

    assert distance(PICTURE.astype(np.uint16) * 257, PICTURE) == 0


def test_weights_of_something_else_are_refused(tmp_path, backbone, layers):
    lacking = {name: tensor for name, tensor in backbone.items() if "8" not in name}
    cases = {
        "weights of 0 of 5 layers": backbone,
        "no backbone": layers,
        "neither AlexNet nor VGG16": {**lacking, **layers},
        "the layers of another backbone": {
            **backbone,
            **layers,
            "lin4.model.1.weight": torch.rand(1, 512, 1, 1),
        },
    }
    for number, (message, weights) in enumerate(cases.items()):
        with pytest.raises(CheckpointError, match=message):
            PerceptualDistance.load([_saved(tmp_path / f"{number}.pth", weights)], CPU)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "half.safetensors").write_bytes(b"\x10")

    for name, what in (
        ("half.pth", "weights of LPIPS"),
        ("half.safetensors", "safetensors"),
        ("gone.pth", "LPIPS"),
    ):
        with pytest.raises(CheckpointError, match=f"{name}: not readable as .*{what}"):
            PerceptualDistance.load([tmp_path / name], CPU)


def test_small_or_unequal_pictures_are_refused(tmp_path, backbone, layers):
    distance = PerceptualDistance.load([_saved(tmp_path / "both.pth", {**backbone, **layers})], CPU)

    with pytest.raises(ValueError, match="at least 64 px"):
        distance(PICTURE[:40], OTHER[:40])
    with pytest.raises(ValueError, match="differ in shape"):
        distance(PICTURE[1:], OTHER)


def test_vgg16_has_the_published_layers(tmp_path):
    """Convolutions at torchvision's numbers; the stages end after relu1_2, 2_2, 3_3, 4_3 and 5_3."""
    stages = vgg16_stages()

    layers = [layer for stage in stages for layer in stage]
    numbers = [i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Conv2d)]
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert [len(stage) for stage in stages] == [4, 5, 7, 7, 7]
    x = torch.rand(1, 3, 64, 64)
    shapes = [tuple((x := stage(x)).shape[1:]) for stage in stages]
    assert shapes == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
