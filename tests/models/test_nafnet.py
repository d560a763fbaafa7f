from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.base import RestorationBatch
from models.losses import pixel_loss
from models.nafnet import LightBranch, NafnetConfig, NafnetRestorer
from models.restore import Tiling, restore_pixels

SMALL = {"width": 4, "enc_blk_nums": (1,), "middle_blk_num": 1, "dec_blk_nums": (1,)}


def _batch(lq: torch.Tensor, gt: torch.Tensor) -> RestorationBatch:
    picture = F.interpolate(lq, size=(32, 32), mode="area")
    names = ("a",) * len(lq)
    return RestorationBatch(lq, gt, None, names, picture, names, torch.zeros(len(lq), 2))


def test_without_options_the_restorer_is_the_published_network():
    torch.manual_seed(0)
    restorer, image = NafnetRestorer(NafnetConfig(**SMALL)).eval(), torch.rand(1, 3, 21, 34)

    assert torch.equal(restorer.restore(image), restorer.network(image).clamp(0, 1))
    assert {name.split(".")[0] for name, _ in restorer.named_parameters()} == {"network"}


@pytest.mark.parametrize("unshuffle", [1, 2, 3])
@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (17, 30), (32, 32)])
def test_any_size_is_restored_at_its_size_and_in_range(unshuffle, light, size):
    torch.manual_seed(0)
    restorer = NafnetRestorer(NafnetConfig(**SMALL, unshuffle=unshuffle, light=light)).eval()

    with torch.inference_mode():
        restored = restorer.restore(torch.rand(2, 3, *size))

    assert restored.shape == (2, 3, *size)
    assert 0 <= restored.min() <= restored.max() <= 1


def test_light_leaves_a_bright_picture_alone_and_brightens_a_dark_one_by_three_and_a_half():
    """Sigmoid of -4 (log2(max) + 1): 0.9 gives 0.03 and 0.2 gives 0.995, which the wide clamp makes 0 and 1."""
    bright, dark = torch.rand(1, 3, 64, 64) * 0.2 + 0.7, torch.rand(1, 3, 64, 64) * 0.1 + 0.1
    branch = LightBranch()

    unchanged, lit = branch(bright, bright), branch(dark, dark)

    assert torch.allclose(unchanged, bright, atol=1e-6)
    assert torch.allclose(lit, 3.5 * dark, rtol=1e-4)


def test_a_dark_crop_of_a_bright_picture_stays_dark():
    picture = torch.full((1, 3, 32, 32), 0.05)
    picture[..., 4:8, 4:8] = 0.9
    crop = torch.full((1, 3, 16, 16), 0.05)

    assert torch.allclose(LightBranch()(crop, picture), crop, atol=1e-6)


def test_light_learns_a_gain_and_a_gamma_of_its_own():
    """Dark pictures made by y = 3 x^0.8: a few hundred steps find the curve to a few code values."""
    torch.manual_seed(0)
    restorer = NafnetRestorer(NafnetConfig(**SMALL, light=True))
    optimiser = torch.optim.Adam(restorer.light.parameters(), lr=2e-3)
    for _ in range(150):
        lq = torch.rand(4, 3, 16, 16) * 0.2 + 0.02
        optimiser.zero_grad()
        parts = restorer.loss(_batch(lq, 3 * lq**0.8))
        parts["loss"].backward()
        optimiser.step()

    lq = torch.rand(1, 3, 16, 16) * 0.2 + 0.02

    assert set(parts) == {"loss", "detail", "light"}
    assert (restorer.light(lq, lq) - 3 * lq**0.8).abs().max() < 4 / 255


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("l1", 0.1), ("charbonnier", math.sqrt(0.01 + 1e-6)), ("psnr", math.log10(0.01 + 1e-6))],
)
def test_losses_of_a_constant_error(kind, expected):
    """An error of 0.1: 20 dB, which the psnr loss states as -2."""
    gt = torch.full((2, 3, 4, 4), 0.5)

    assert pixel_loss(kind, gt + 0.1, gt, None).tolist() == pytest.approx([expected] * 2, rel=1e-4)


def test_losses_look_only_where_the_mask_is_set():
    gt = torch.zeros(1, 3, 4, 4)
    restored, mask = gt + 0.1, torch.ones(1, 1, 4, 4)
    restored[..., 2:], mask[..., 2:] = 0.9, 0

    assert pixel_loss("l1", restored, gt, mask).item() == pytest.approx(0.1)
    assert torch.isfinite(pixel_loss("psnr", restored, gt, torch.zeros_like(mask))).all()


def test_the_light_of_a_picture_is_judged_once_for_all_its_tiles():
    """The left half is dark and the picture is not: seen by itself, a tile of the left half would be brightened.

    The last layer is zero, so what is restored is what the light branch made of it.
    """
    torch.manual_seed(0)
    restorer = NafnetRestorer(NafnetConfig(**SMALL, light=True)).eval()
    torch.nn.init.zeros_(restorer.network.ending.weight)
    torch.nn.init.zeros_(restorer.network.ending.bias)
    lq = np.full((64, 128, 3), 13, np.uint8)
    lq[:, 72:] = 230

    restored = restore_pixels(restorer, lq, device=torch.device("cpu"), tiling=Tiling(64, 8))

    assert np.array_equal(restored, lq)
    assert restore_pixels(restorer, lq[:, :64], device=torch.device("cpu")).mean() == pytest.approx(
        3.5 * 13, abs=1
    )
