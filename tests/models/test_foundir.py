from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.base import RestorationBatch, Restorer, StartsFromNoise
from models.foundir import FoundirConfig, FoundirRestorer, ResidualDiffusion
from models.foundir_unet import HEAD_WIDTH, HEADS, FoundirUnet, LinearAttention
from models.noise_field import NoiseField
from models.precision import make_fast

SMALL = FoundirConfig(dim=8, dim_mults=(1, 2))
GATED: dict[str, Any] = {"blocks": "gated", "sampling_steps": 1, "training_times": "sampled"}


def _restorer(config: FoundirConfig = SMALL) -> FoundirRestorer:
    torch.manual_seed(1)
    return FoundirRestorer(config).eval()


def _batch(lq: Tensor, gt: Tensor, mask: Tensor | None = None) -> RestorationBatch:
    return RestorationBatch(lq, gt, mask, (), lq, (), torch.zeros(len(lq), 2))


class Knows(nn.Module):
    """A network that was told the residual, and remembers the times it was asked about."""

    def __init__(self, residual: Tensor) -> None:
        super().__init__()
        self.residual, self.times = residual, []

    def forward(self, both: Tensor, time: Tensor) -> Tensor:
        self.times.append(time[0].item())
        return self.residual


@pytest.mark.parametrize(
    ("t", "a", "b", "d"),
    [
        (0, 0.00005, 0.01000, 0.00000),
        (249, 0.27606, 0.68987, 0.04384),
        (499, 0.71967, 0.95990, 0.17520),
        (749, 0.94212, 0.99832, 0.39409),
        (999, 0.99365, 0.99998, 0.70050),
    ],
)
def test_schedules_are_the_published_ones(t: int, a: float, b: float, d: float):
    """The table of the digest, five decimals."""
    diffusion = ResidualDiffusion(1000, 1.4e-3)

    found = (diffusion.residual_share[t], diffusion.noise_std[t], diffusion.lq_removed[t])

    assert [value.item() for value in found] == pytest.approx([a, b, d], abs=6e-6)


@pytest.mark.parametrize(("steps", "times"), [(4, [999, 749, 499, 249, -1]), (3, [999, 665, 332, -1])])
def test_sampler_goes_down_the_published_times(steps: int, times: list[int]):
    assert ResidualDiffusion(1000, 1.4e-3).sampling_times(steps) == times


def test_a_step_of_the_sampler_stays_on_the_forward_process():
    """With the true residual, x_749 minus its noise becomes x_499 minus its noise: both are the formula's."""
    diffusion = ResidualDiffusion(1000, 1.4e-3)
    gt, lq = torch.rand(2, 1, 3, 4, 4) * 2 - 1
    none = torch.zeros_like(gt)
    before, after = (diffusion.state(gt, lq, none, torch.tensor([t])) for t in (749, 499))

    stepped = diffusion.step(before, lq - gt, lq, at=749, to=499)

    assert torch.allclose(stepped, after, atol=1e-6)


def test_four_calls_at_the_published_times_restore_what_the_network_knows():
    lq, gt = torch.rand(2, 1, 3, 16, 16) / 2  # so that no residual of pictures in [-1, 1] is beyond 1
    restorer = _restorer()
    restorer.network = Knows(2 * (lq - gt))

    restored = restorer.restore(lq)

    assert torch.allclose(restored, gt, atol=1e-6)
    assert restorer.network.times == pytest.approx([993.647, 942.12, 719.67, 276.06], abs=0.01)


def test_loss_is_the_distance_from_the_residual_where_the_pair_is_trusted():
    """Residual 2 (lq - gt) = 1 everywhere; the network says 0 left and 7 right: 1 on the trusted left half."""
    gt, lq = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    restorer = _restorer()
    restorer.network = Knows(torch.where(mask.bool(), 0.0, 7.0).expand(1, 3, 8, 8))

    trusted, whole = (restorer.loss(_batch(lq, gt, m))["loss"].item() for m in (mask, None))

    assert trusted == pytest.approx(1)
    assert whole == pytest.approx((1 + 6) / 2)


def test_a_loss_in_decibels_weighs_by_the_ratio_of_errors():
    """Residual 1 everywhere, said to be 0.9: a mean square error of 0.01, whose logarithm is -2."""
    gt, lq = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    restorer = _restorer(SMALL.model_copy(update={"loss": "psnr"}))
    restorer.network = Knows(torch.full((1, 3, 8, 8), 0.9))

    assert restorer.loss(_batch(lq, gt))["loss"].item() == pytest.approx(-2, abs=1e-3)


@pytest.mark.parametrize("given", [{}, GATED], ids=["residual", "gated"])
def test_a_training_that_starts_at_the_input_returns_it_at_first(given: dict[str, Any]):
    restorer = _restorer(SMALL.model_copy(update={"starts_at_input": True, **given}))
    lq = torch.rand(1, 3, 16, 24)

    with torch.inference_mode():
        assert torch.allclose(restorer.restore(lq), lq, atol=1e-6)


def test_training_can_keep_to_the_times_that_the_sampler_asks_about():
    """999 and 499 of 1000, which the network hears as 1000 A_t: see the table above."""
    restorer = _restorer(SMALL.model_copy(update={"training_times": "sampled", "sampling_steps": 2}))
    restorer.network = network = Knows(torch.zeros(1, 3, 8, 8))
    torch.manual_seed(1)

    for _ in range(20):
        restorer.loss(_batch(*torch.rand(2, 1, 3, 8, 8)))

    assert sorted(set(network.times)) == pytest.approx([719.67, 993.65], abs=0.01)


def test_training_noise_is_scaled():
    """Of a grey pair nothing but noise varies over the state, and at the last time it has a deviation of 1."""
    config = SMALL.model_copy(
        update={"training_noise": 0.1, "training_times": "sampled", "sampling_steps": 1}
    )
    restorer, seen = _restorer(config), []
    restorer.network.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    grey = torch.full((1, 3, 64, 64), 0.5)

    restorer.loss(_batch(grey, grey))

    assert seen[0][:, :3].std().item() == pytest.approx(0.1, rel=0.05)
    assert seen[0][:, 3:].std().item() == 0


@pytest.mark.parametrize("size", [(16, 16), (37, 50), (5, 3)])
@pytest.mark.parametrize("given", [{}, {"unshuffle": 2}, {"unshuffle": 2, **GATED}], ids=str)
def test_any_size_comes_back_in_range_and_every_weight_learns(given: dict[str, Any], size: tuple[int, int]):
    """NAFNet's blocks begin as the identity, by scales of zero: these are set first."""
    restorer = _restorer(FoundirConfig(dim=8, dim_mults=(1, 2), **given))
    for name, weights in restorer.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.ones_(weights)
    lq, gt = torch.rand(2, 2, 3, *size)

    restorer.loss(_batch(lq, gt))["loss"].backward()
    with torch.inference_mode():
        restored = restorer.restore(lq)

    assert restored.shape == lq.shape
    assert 0 <= restored.min() <= restored.max() <= 1
    assert [name for name, p in restorer.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_picture_gives_the_same_result_every_time_and_in_any_batch():
    restorer, lq = _restorer(), torch.rand(2, 3, 24, 24)
    assert isinstance(restorer, Restorer)
    assert isinstance(restorer, StartsFromNoise)

    with torch.inference_mode():
        torch.manual_seed(5)
        alone = restorer.restore(lq[1:])
        torch.manual_seed(6)
        together = restorer.restore(lq)[1:]
        other = restorer.restore_from(lq[1:], torch.from_numpy(NoiseField(1).window(0, 0, 24, 24)))

    assert torch.allclose(alone, together, atol=1e-5)
    assert not torch.allclose(alone, other, atol=1e-5)


def test_linear_attention_is_its_definition_with_and_without_gradients():
    """softmax(q) over channels, softmax(k) over pixels, v over the number of pixels; one head at a time by hand."""
    torch.manual_seed(2)
    layer, x = LinearAttention(8), torch.randn(1, 8, 6, 5)
    q, k, v = layer.to_qkv(x).view(3, HEADS, HEAD_WIDTH, 30)
    by_hand = [
        v[h] / 30 @ k[h].softmax(dim=1).T @ q[h].softmax(dim=0) * HEAD_WIDTH**-0.5 for h in range(HEADS)
    ]
    expected = layer.to_out(torch.cat(by_hand).view(1, HEADS * HEAD_WIDTH, 6, 5))

    with_gradients = layer(x)
    with torch.inference_mode():
        without = layer(x)

    assert torch.allclose(with_gradients, expected, atol=1e-5)
    assert torch.allclose(without, expected, atol=1e-5)


def test_fast_path_stays_close_to_the_reference():
    """Each of some twenty layers in a row rounds to one part in 2^9 and the norms carry that on: about
    sqrt(20) / 512 = 1 % of what the network changes, in four calls up to twice that.
    """
    reference, fast, lq = _restorer(), _restorer(), torch.rand(1, 3, 32, 48)
    make_fast(fast, torch.device("cpu"), precision="bf16", compiled=False)

    with torch.inference_mode():
        expected, restored = reference.restore(lq), fast.restore(lq)

    change, difference = (image.square().mean().sqrt() for image in (expected - lq, restored - expected))
    assert 0 < difference <= 0.03 * change
    assert next(fast.parameters()).dtype == torch.float32


def test_auto_precision_leaves_the_reference_where_the_device_lacks_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    reference, auto, lq = _restorer(), _restorer(), torch.rand(1, 3, 16, 16)
    make_fast(auto, torch.device("cpu"), precision="auto", compiled=False)

    with torch.inference_mode():
        assert torch.allclose(reference.restore(lq), auto.restore(lq), atol=1e-5)


def test_a_network_deeper_than_its_padding_is_refused():
    with pytest.raises(ValidationError, match="one to five"):
        FoundirConfig(dim_mults=(1, 2, 4, 8, 8, 8))
    with pytest.raises(ValidationError, match="multiple of 8"):
        FoundirConfig(dim=12)


def test_a_network_that_is_not_told_the_time_serves_one_call():
    with pytest.raises(ValidationError, match="sampling_steps: 1 and training_times: sampled"):
        FoundirConfig(blocks="gated", training_times="sampled")
    with pytest.raises(ValidationError, match="sampling_steps: 1 and training_times: sampled"):
        FoundirConfig(blocks="gated", sampling_steps=1)


def test_the_time_reaches_every_stage():
    torch.manual_seed(3)
    network, x = FoundirUnet(dim=8, dim_mults=(1, 2)).eval(), torch.randn(1, 6, 16, 16)

    with torch.inference_mode():
        early, late = (network(x, torch.tensor([time])) for time in (0.05, 993.6))

    assert not torch.allclose(early, late, atol=1e-3)


def test_a_reference_that_lies_elsewhere_is_moved_before_anything_is_learned_from_it():
    """Half the light, and references 1 px lower and 2 to the right: the network that knows the residual of the
    aligned pair makes no mistake.
    """
    torch.manual_seed(2)
    scene = torch.rand(2, 3, 8, 8).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    lq, moved = scene / 2, scene.roll((1, 2), dims=(2, 3))
    residual = 2 * (lq - scene)

    def mistake(shift_px: int) -> float:
        restorer = _restorer(SMALL.model_copy(update={"shift_px": shift_px}))
        restorer.network = Knows(residual[..., shift_px : 32 - shift_px, shift_px : 32 - shift_px])
        return restorer.loss(_batch(lq, moved))["loss"].item()

    assert mistake(3) == pytest.approx(0, abs=1e-6)
    assert mistake(0) > 0.1
