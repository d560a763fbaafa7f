"""LPIPS: how different two pictures look to a network that was trained to recognise things.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018, version 0.1.
No weights come with this package and none are fetched. They are read from files in the published layouts:

- the backbone as torchvision publishes it (``alexnet-*.pth`` or ``vgg16-*.pth``: ``features.0.weight`` ...);
- the weights of its five layers as the `lpips` package carries them (``lin0.model.1.weight`` ...);
- or both in one file, a state dict of that package's network (``net.slice1.0.weight`` ...).

The official network drops features at random while it is trained; here it is only used, so nothing is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoint import read_foreign
from models.data import to_unit
from models.errors import CheckpointError, NoValueError, UnfitPairError
from models.images import Pixels
from models.metrics import to_8_bit

SMALLEST_PX = 64
"""Smaller pictures leave nothing after AlexNet's strides."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_TINY = 1e-10
_LAYERS = 5
_BACKBONE_KEY = re.compile(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)")
_LAYER_KEY = re.compile(r"lin(\d)\.model\.1\.weight")


class PerceptualDistance:
    """LPIPS with weights that someone published.

    Args:
        stages: The backbone in five parts; the distance looks at what each puts out.
        weights: Weight of each channel of each stage, ``(C,)``.
        device: Where to compute.
    """

    def __init__(self, stages: nn.ModuleList, weights: Sequence[Tensor], device: torch.device) -> None:
        self._stages = stages.to(device).eval().requires_grad_(requires_grad=False)
        self._weights = [w.to(device).view(1, -1, 1, 1) for w in weights]
        self._shift = torch.tensor(_SHIFT, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(_SCALE, device=device).view(1, 3, 1, 1)
        self._device = device

    @classmethod
    def load(cls, files: Sequence[Path], device: torch.device) -> PerceptualDistance:
        """Read the weights; nothing in the files is executed.

        Raises:
            CheckpointError: A file is missing or damaged, or together they are not an LPIPS of AlexNet or VGG16.
        """
        found: dict[str, Tensor] = {}
        for file in files:
            found |= _read(file)
        named = " + ".join(str(file) for file in files)
        backbone = {
            f"{m[1]}.{m[2]}": t
            for name, t in found.items()
            if (m := _BACKBONE_KEY.fullmatch(name)) is not None
        }
        layers = {int(m[1]): t for name, t in found.items() if (m := _LAYER_KEY.fullmatch(name)) is not None}
        if set(layers) != set(range(_LAYERS)):
            raise _unfit(named, f"weights of {len(layers)} of {_LAYERS} layers (lin0.model.1.weight ...)")
        stages, weights = _fill(backbone, named), [layers[i].flatten() for i in range(_LAYERS)]
        if [len(w) for w in weights] != _widths(stages):
            raise _unfit(named, "the layers of another backbone")
        return cls(stages, weights, device)

    def __call__(self, restored: Pixels, gt: Pixels) -> float:
        """Compare two ``(H, W, 3)`` RGB pictures of one size, whole; 0 for equal ones.

        Raises:
            UnfitPairError: The shapes differ.
            NoValueError: The pictures are smaller than `SMALLEST_PX`.
        """
        if restored.shape != gt.shape:
            raise UnfitPairError(f"pictures differ in shape: {restored.shape} and {gt.shape}")
        if min(gt.shape[:2]) < SMALLEST_PX:
            raise NoValueError(f"LPIPS needs pictures of at least {SMALLEST_PX} px, not {gt.shape[:2]}")
        pair = 2 * to_unit([to_8_bit(restored), to_8_bit(gt)], self._device) - 1
        with torch.inference_mode():
            return float(self._distance((pair - self._shift) / self._scale))

    def _distance(self, pair: Tensor) -> Tensor:
        total = pair.new_zeros(())
        for stage, weight in zip(self._stages, self._weights, strict=True):
            pair = stage(pair)
            a, b = pair / (pair.square().sum(dim=1, keepdim=True).sqrt() + _TINY)
            total = total + ((a - b).square() * weight[0]).sum(dim=0).mean()
        return total


def alexnet_stages() -> nn.ModuleList:
    """Return AlexNet's convolutions (Krizhevsky, 2014) in five stages, each ending in its ReLU."""
    shapes = (
        (3, 64, 11, 4, 2),
        (64, 192, 5, 1, 2),
        (192, 384, 3, 1, 1),
        (384, 256, 3, 1, 1),
        (256, 256, 3, 1, 1),
    )
    stages = []
    for number, (inputs, outputs, side, stride, padding) in enumerate(shapes):
        pool = [nn.MaxPool2d(3, 2)] if number in (1, 2) else []
        convolution = nn.Conv2d(inputs, outputs, side, stride, padding)
        stages.append(nn.Sequential(*pool, convolution, nn.ReLU()))
    return nn.ModuleList(stages)


def vgg16_stages() -> nn.ModuleList:
    """Return VGG16's convolutions (Simonyan and Zisserman, 2015) in five stages, each ending in its last ReLU."""
    stages, inputs = [], 3
    for number, (outputs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if number else []
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        stages.append(nn.Sequential(*layers))
    return nn.ModuleList(stages)


def _fill(backbone: Mapping[str, Tensor], named: str) -> nn.ModuleList:
    first = backbone.get("0.weight")
    if first is None:
        raise _unfit(named, "no backbone (features.0.weight ...)")
    stages = alexnet_stages() if first.shape[-1:] == (11,) else vgg16_stages()
    layers = [layer for stage in stages for layer in stage]  # type: ignore[attr-defined]  # a Sequential
    try:
        nn.Sequential(*layers).load_state_dict(dict(backbone))
    except RuntimeError as error:
        raise _unfit(named, "a backbone that is neither AlexNet nor VGG16") from error
    return stages


def _widths(stages: nn.ModuleList) -> list[int]:
    """Return the channels that each stage puts out: those of its last convolution."""
    convolutions = ([m for m in stage.modules() if isinstance(m, nn.Conv2d)] for stage in stages)
    return [found[-1].out_channels for found in convolutions]


def _read(file: Path) -> dict[str, Tensor]:
    content = read_foreign(file, "weights of LPIPS")
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _unfit(named: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{named}: as weights of LPIPS holds {what}",
        next_step="give the file of AlexNet or VGG16 and the one of its LPIPS layers, --lpips twice",
    )
