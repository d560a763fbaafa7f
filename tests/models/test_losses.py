from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.base import RestorationBatch
from models.losses import best_shifts, pixel_loss, shift_tolerant
from models.plain import PixelLossConfig, PlainRestorer


def _scene(seed: int = 3, side: int = 40) -> Tensor:
    """Smoothed noise: every shift of it is another picture."""
    rough = torch.rand((2, 3, side, side), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(rough, 3, stride=1, padding=1)


def _moved(scene: Tensor, shifts: list[tuple[int, int]]) -> Tensor:
    return torch.stack(
        [torch.roll(one, (dy, dx), dims=(1, 2)) for one, (dy, dx) in zip(scene, shifts, strict=True)]
    )


def test_every_reference_is_found_where_it_lies():
    shifts = [(2, -3), (-1, 0)]
    scene = _scene()

    found = best_shifts(scene, _moved(scene, shifts), None, radius_px=3)

    assert found.tolist() == [list(shift) for shift in shifts]


def test_a_shift_is_found_while_the_brightness_is_still_wrong():
    """A quarter of the light and an offset: correlation does not ask for either."""
    scene = _scene()

    found = best_shifts(0.25 * scene + 0.1, _moved(scene, [(1, 2), (-3, 3)]), None, radius_px=3)

    assert found.tolist() == [[1, 2], [-3, 3]]


@pytest.mark.parametrize("kind", ["l1", "charbonnier", "psnr"])
def test_a_shift_within_the_radius_costs_nothing(kind):
    """Inside the borders the moved reference is the same picture, so the loss is that of equal pictures."""
    scene = _scene()
    moved = _moved(scene, [(3, 1), (0, -2)])

    equal = pixel_loss(kind, scene, scene, None)

    assert torch.allclose(pixel_loss(kind, scene, moved, None, shift_px=3), equal, atol=1e-6)
    assert (pixel_loss(kind, scene, moved, None) > equal + 0.01).all()


def test_masked_pixels_decide_neither_the_shift_nor_the_loss():
    """The right part shows something else, moved another way; it is masked out."""
    scene, other = _scene(), _scene(seed=4)
    reference = _moved(scene, [(1, 1), (1, 1)])
    reference[..., 22:] = other[..., 22:]
    mask = torch.zeros(2, 1, 40, 40)
    mask[..., :18] = 1

    assert best_shifts(scene, reference, mask, radius_px=2).tolist() == [[1, 1], [1, 1]]
    assert torch.allclose(pixel_loss("l1", scene, reference, mask, shift_px=2), torch.zeros(2), atol=1e-6)


def test_the_gradient_reaches_the_picture_and_not_the_search():
    scene = _scene().requires_grad_()

    pixel_loss("l1", scene, _moved(_scene(seed=5), [(1, 0), (0, 1)]), None, shift_px=2).sum().backward()

    assert scene.grad is not None
    assert torch.isfinite(scene.grad).all()
    border = torch.ones(40, 40, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert (scene.grad[..., border] == 0).all()
    assert (scene.grad[..., ~border] != 0).float().mean() > 0.99


def test_every_plain_network_can_forgive_a_shift():
    """A network that returns its input, and references one pixel lower: only the unforgiving loss sees a mistake."""
    scene = _scene()
    batch = RestorationBatch(
        scene, _moved(scene, [(1, 0), (1, 0)]), None, (), scene, (), torch.zeros(len(scene), 2)
    )

    def mistake(shift_px: int) -> float:
        return PlainRestorer(nn.Identity, PixelLossConfig(shift_px=shift_px)).loss(batch)["loss"].item()

    assert mistake(2) == pytest.approx(0, abs=1e-6)
    assert mistake(0) > 0.01


def test_flat_pictures_have_no_shift_and_no_trouble():
    flat = torch.full((1, 3, 12, 12), 0.5)

    restored, gt, _ = shift_tolerant(flat, flat, None, radius_px=2)

    assert torch.equal(restored, gt)


def test_without_tolerance_nothing_is_cut():
    scene = _scene()

    assert shift_tolerant(scene, scene, None, radius_px=0)[0] is scene


def test_losses_by_hand():
    """An error of 0.1 everywhere: L1 0.1, Charbonnier sqrt(0.01 + 1e-6), negative PSNR of 20 dB in tens: -2."""
    gt = torch.full((1, 3, 4, 4), 0.5)

    values = [float(pixel_loss(kind, gt + 0.1, gt, None)) for kind in ("l1", "charbonnier", "psnr")]

    assert values == pytest.approx([0.1, np.sqrt(0.01 + 1e-6), np.log10(0.01 + 1e-6)], abs=1e-6)
