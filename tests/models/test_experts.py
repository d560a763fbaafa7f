from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from catalog.errors import InvalidDocumentError
from models.base import Refiner, RestorationBatch, Restorer, StartsFromNoise
from models.checkpoint import load
from models.config import load_config
from models.experts import ExpertConfig, ExpertRestorer
from models.job import plan_training
from models.printed_text import degraded_alike, print_on
from models.registry import find_model
from models.stages import Part, Stage, parts_of
from models.text_expert import TextExpert, TextExpertConfig
from models.train import train

SMALL_NETWORK = {
    "name": "nafnet",
    "model": {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]},
}
SMALL_TEXT = TextExpertConfig(width=8, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,))


def _batch(lq: Tensor, gt: Tensor) -> RestorationBatch:
    picture, names = F.interpolate(lq, size=(32, 32), mode="area"), ("rain",) * len(lq)
    return RestorationBatch(lq, gt, None, names, picture, names, torch.zeros(len(lq), 2))


def _expert(generalist: Path | None) -> ExpertRestorer:
    torch.manual_seed(2)
    given = {"generalist": None if generalist is None else str(generalist), "network": SMALL_NETWORK}
    return ExpertRestorer(ExpertConfig.model_validate(given)).eval()


@pytest.fixture
def generalist(saved_run) -> Path:
    return saved_run("nafnet", "tiny", "model.width=4", "model.enc_blk_nums=[1]", "model.dec_blk_nums=[1]")


def test_an_expert_restores_what_the_generalist_left(generalist):
    expert, lq = _expert(generalist), torch.rand(2, 3, 20, 24)

    with torch.inference_mode():
        first = load(generalist).restore(lq)
        both = expert.restore(lq)

    assert isinstance(expert, Refiner)
    assert not torch.equal(first, lq)
    assert torch.equal(both, expert.refine(first, lq))


def test_noise_reaches_a_generalist_that_starts_from_it(saved_run):
    sampler = saved_run("foundir", "tiny", "model.dim=8", "model.dim_mults=[1,1]", "model.sampling_steps=1")
    expert, lq, noise = _expert(sampler), torch.rand(1, 3, 16, 16), torch.randn(3, 16, 16)
    assert isinstance(expert, StartsFromNoise)

    with torch.inference_mode():
        expected = expert.refine(load(sampler).restore_from(lq, noise), lq)

        assert torch.equal(expert.restore_from(lq, noise), expected)
        assert not torch.equal(expert.restore(lq), expected)


def test_a_generalist_without_noise_takes_none(generalist):
    expert, lq = _expert(generalist), torch.rand(1, 3, 16, 16)

    with torch.inference_mode():
        assert torch.equal(expert.restore_from(lq, torch.randn(3, 16, 16)), expert.restore(lq))


def test_the_loss_is_the_networks_own_and_the_generalist_stays_as_it_is(generalist):
    expert, lq, gt = _expert(generalist), *torch.rand(2, 2, 3, 16, 16)
    with torch.no_grad():
        first = load(generalist).restore(lq)

    parts = expert.loss(_batch(lq, gt))
    parts["loss"].backward()

    assert torch.equal(parts["loss"], expert.network.loss(_batch(first, gt))["loss"])
    assert {name.split(".")[0] for name in expert.state_dict()} == {"network"}
    assert all(p.grad is not None for p in expert.parameters())


def test_an_expert_without_a_generalist_sees_the_degraded_picture():
    expert, lq = _expert(None), torch.rand(1, 3, 16, 16)

    assert torch.equal(expert.restore(lq), expert.refine(lq, lq))


def test_an_expert_is_trained_on_what_it_serves_and_used_as_a_run(make_export, generalist, console):
    export = make_export(classes=["noise", "rain", "haze+rain"])
    job = plan_training(
        "expert", str(export), data=console.data, config="weather-tiny", out="weather",
        overrides=(
            f"model.generalist={generalist}", "model.network.model.width=4", "training.steps=2",
            "training.crops_per_decode=1", "training.patch_px=16", "training.cpu_threads=1",
        ),
    )  # fmt: skip

    result = train(job, console)
    expert = load(result.checkpoint)

    assert isinstance(expert, Restorer)
    assert expert.restore(torch.rand(1, 3, 20, 20)).shape == (1, 3, 20, 20)


def test_stages_can_be_kept_to_pairs_that_suffer_from_something():
    present = {"noise", "rain", "haze+rain", "low_light+rain", "low_light"}
    weather = Stage(name="weather", classes="all", suffering=("haze", "rain"))

    assert parts_of([weather], present) == [Part(1.0, ("haze+rain", "low_light+rain", "rain"), (), None)]


@pytest.mark.parametrize("name", ["wavelet-scan", "expert", "text-expert", "router"])
def test_shipped_configurations_fit(name):
    entry = find_model(name)
    assert entry.sizes()

    for size in entry.sizes():
        config = load_config(entry, size)
        if "tiny" in size:
            assert sum(p.numel() for p in entry.build(config.model).parameters()) < 1_000_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.network={name: nafnet, model: {widht: 4}}", "widht"),
        ("model.network={name: nafnte, model: {}}", "did you mean 'nafnet'"),
    ],
)
def test_a_network_that_does_not_exist_is_refused_in_one_line(override, message):
    with pytest.raises(InvalidDocumentError, match=message) as refused:
        load_config(find_model("expert"), "weather-tiny", [override])

    assert len(str(refused.value).splitlines()) == 1


def _patches(count: int, side: int) -> Tensor:
    """Patches of colour with edges."""
    coarse = torch.rand(count, 3, side // 8, side // 8)
    return coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def test_print_is_drawn_in_two_colours_that_can_be_told_apart():
    torch.manual_seed(1)
    gt = _patches(6, 64)

    printed = print_on(gt, gt, share=1.0)

    assert printed.where.shape == printed.ink.shape == (6, 1, 64, 64)
    assert (printed.ink <= printed.where).all()
    for picture, ink, where in zip(printed.gt, printed.ink, printed.where, strict=True):
        pen = picture.mean(dim=0)[ink[0] > 0.6]
        ground = picture.mean(dim=0)[(ink[0] == 0) & (where[0] == 1)]
        assert len(pen) > 0
        assert (pen.mean() - ground.mean()).abs() >= 0.6 * 0.35


def test_what_is_printed_follows_from_the_seed_and_no_share_prints_nothing():
    gt = torch.full((4, 3, 48, 48), 0.5)

    torch.manual_seed(7)
    first = print_on(gt, gt, share=0.5)
    torch.manual_seed(7)
    again = print_on(gt, gt, share=0.5)

    assert torch.equal(first.gt, again.gt)
    assert torch.equal(print_on(gt, gt, share=0.0).gt, gt)
    assert not torch.equal(first.gt, gt)


def test_print_is_degraded_as_the_crop_is():
    """A quarter of the light, a blur of 1.2 px, some haze and noise of one code value: so is what was drawn."""
    torch.manual_seed(4)
    gt, change = _patches(2, 64), torch.zeros(2, 3, 64, 64)
    change[..., 20:40, 30:33] = 0.5

    def captured(image: Tensor) -> Tensor:
        blurred = gaussian_filter(image.numpy(), (0, 0, 1.2, 1.2), mode="nearest")
        return 0.25 * torch.from_numpy(blurred)

    lq = captured(gt) + 0.3 + torch.randn(gt.shape) / 255

    assert (degraded_alike(change, lq, gt) - captured(change)).abs().max() < 0.01


def test_on_a_flat_crop_print_is_drawn_as_it_is():
    flat, change = torch.full((1, 3, 32, 32), 0.4), torch.rand(1, 3, 32, 32)

    assert torch.allclose(degraded_alike(change, flat, flat), change, atol=1e-3)


def test_where_no_print_is_seen_the_generalists_picture_stays():
    torch.manual_seed(0)
    expert = TextExpert(SMALL_TEXT).eval()
    with torch.no_grad():
        expert.network.ending.weight[3].zero_()
        expert.network.ending.bias[3] = -30
    picture = torch.rand(1, 3, 21, 30)

    assert torch.allclose(expert.refine(picture, picture), picture, atol=1e-6)


def test_print_that_the_generalist_smeared_is_taken_from_the_degraded_picture():
    """A network that adds nothing to either picture, sees print everywhere, and trusts the degraded one."""
    torch.manual_seed(0)
    expert = TextExpert(SMALL_TEXT).eval()
    with torch.no_grad():
        expert.network.ending.weight.zero_()
        expert.network.ending.bias.copy_(torch.tensor([0.0, 0, 0, 30, 0, 0, 0, 30]))
    smeared, lq = torch.rand(2, 1, 3, 21, 30)

    assert torch.allclose(expert.refine(smeared, lq), lq, atol=1e-6)


def test_what_is_not_print_is_left_to_the_generalist():
    """A network that changes nothing makes no mistake on noisy crops without print, and one with print does."""
    torch.manual_seed(0)
    gt = _patches(2, 32)
    noisy = _batch(gt + 0.1 * torch.randn_like(gt), gt)

    def mistake(share: float) -> float:
        expert = TextExpert(SMALL_TEXT.model_copy(update={"printed_share": share}))
        torch.nn.init.zeros_(expert.network.ending.weight)
        torch.nn.init.zeros_(expert.network.ending.bias)
        return expert.loss(noisy)["reading"].item()

    assert mistake(0.0) == pytest.approx(0, abs=1e-7)
    assert mistake(1.0) > 0.01


def test_every_weight_of_the_text_expert_learns_and_masked_pixels_do_not_count():
    torch.manual_seed(0)
    expert, gt = TextExpert(SMALL_TEXT), _patches(2, 32)
    for block in (m for m in expert.modules() if hasattr(m, "beta")):
        torch.nn.init.ones_(block.beta)
        torch.nn.init.ones_(block.gamma)
    mask = torch.zeros(2, 1, 32, 32)
    batch = RestorationBatch(gt, gt, mask, (), gt, (), torch.zeros(2, 2))

    parts = expert.loss(_batch(gt, gt))
    parts["loss"].backward()

    assert [n for n, p in expert.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert expert.loss(batch)["reading"].item() == 0


def test_the_text_expert_learns_to_read():
    """Blurred print: after 150 small steps it is nearer to the sharp one than it was, on crops never seen."""
    torch.manual_seed(0)
    expert = TextExpert(SMALL_TEXT)
    optimiser = torch.optim.Adam(expert.parameters(), lr=5e-3)

    def drawn() -> tuple[Tensor, Tensor]:
        gt = _patches(4, 48)
        blurred = gaussian_filter(gt.numpy(), (0, 0, 1.2, 1.2), mode="nearest")
        return torch.from_numpy(blurred.astype(np.float32)), gt

    for _ in range(150):
        optimiser.zero_grad()
        expert.loss(_batch(*drawn()))["loss"].backward()
        optimiser.step()

    torch.manual_seed(99)
    printed = print_on(*drawn(), share=1.0)
    with torch.inference_mode():
        restored = expert.refine(printed.lq, printed.lq)
    before, after = (
        ((image - printed.gt).square() * printed.where).sum().item() for image in (printed.lq, restored)
    )
    assert after < 0.8 * before
