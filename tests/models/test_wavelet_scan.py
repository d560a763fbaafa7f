from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.backbones import wavelet_scan
from models.backbones.wavelet_scan import (
    DirectionalScan,
    WaveletScan,
    haar_merge,
    haar_split,
    selective_scan,
)

SMALL = {"width": 8, "low_blocks": (1, 1), "high_blocks": (1, 1), "state": 4}


def _coefficients(length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two sequences of two heads with three channels, four remembered numbers, decays from none to almost all."""
    generator = torch.Generator().manual_seed(length)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(2, length, *shape, generator=generator, dtype=torch.float64)

    return drawn(2, 3), -drawn(2).square() * 3, drawn(4), drawn(4)


def _one_by_one(values: Tensor, log_decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """The recurrence as it is written, position by position."""
    state = torch.zeros(2, 2, 4, 3, dtype=values.dtype)
    out = []
    for t in range(values.shape[1]):
        written = write[:, t, None, :, None] * values[:, t, :, None, :]
        state = log_decay[:, t].exp()[..., None, None] * state + written
        out.append((read[:, t, None, :, None] * state).sum(dim=2))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_the_chunked_scan_is_the_recurrence(length):
    coefficients = _coefficients(length)

    assert torch.allclose(selective_scan(*coefficients), _one_by_one(*coefficients), atol=1e-10)


def test_the_state_goes_on_from_part_to_part(monkeypatch):
    monkeypatch.setattr(wavelet_scan, "PART", 80)
    coefficients = _coefficients(200)

    assert torch.allclose(selective_scan(*coefficients), _one_by_one(*coefficients), atol=1e-10)


def test_gradients_of_the_chunked_scan_are_those_of_the_recurrence():
    chunked, single = ([x.requires_grad_() for x in _coefficients(70)] for _ in range(2))

    selective_scan(*chunked).square().sum().backward()
    _one_by_one(*single).square().sum().backward()

    for mine, other in zip(chunked, single, strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=1e-8, atol=1e-8)


def test_a_long_sequence_with_strong_decay_stays_finite():
    """Over 5,000 positions exp(-50 t) is far below what a float32 holds; only what is near is left."""
    values = torch.ones(1, 5000, 1, 1, requires_grad=True)
    log_decay = torch.full((1, 5000, 1), -50.0, requires_grad=True)
    write, read = torch.ones(2, 1, 5000, 1)

    scanned = selective_scan(values, log_decay, write, read)
    scanned.sum().backward()

    assert torch.equal(scanned, torch.ones_like(scanned))
    assert torch.isfinite(values.grad).all()
    assert torch.isfinite(log_decay.grad).all()


def test_the_wavelet_is_orthonormal_and_loses_nothing():
    """A block of 1, 2, 3, 4: sum 10 / 2; left minus right -2 / 2; above minus below -4 / 2; diagonal 0."""
    block = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    picture = torch.randn(2, 3, 6, 8, dtype=torch.float64)

    low, high = haar_split(block)
    bands = haar_split(picture)

    assert low.item() == 5
    assert high.flatten().tolist() == [-1, -2, 0]
    assert torch.allclose(haar_merge(*bands), picture)
    assert sum(band.square().sum() for band in bands) == pytest.approx(picture.square().sum().item())


def test_every_position_learns_of_every_other():
    """The four ways together reach from any corner to any other, which no single one does."""
    torch.manual_seed(0)
    layer = DirectionalScan(8, state=4)
    picture = torch.randn(1, 8, 5, 7, requires_grad=True)

    for row, column in ((0, 0), (4, 6), (2, 3)):
        (reach,) = torch.autograd.grad(layer(picture)[0, :, row, column].sum(), picture)
        assert (reach.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 50)])
def test_any_size_comes_back_and_a_fresh_network_returns_its_input(size):
    torch.manual_seed(0)
    network, image = WaveletScan(**SMALL), torch.rand(2, 3, *size)

    with torch.inference_mode():
        restored = network(image)

    assert torch.allclose(restored, image, atol=1e-6)


def test_every_weight_learns():
    torch.manual_seed(0)
    network, image = WaveletScan(**SMALL), torch.rand(2, 3, 18, 20)
    torch.nn.init.normal_(network.ending.weight, std=0.05)

    (network(image) - 0.5).square().mean().backward()

    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_learns_to_brighten_what_is_dark():
    """A sixteenth of the light: 64 steps regain at least 6 dB of it."""
    torch.manual_seed(0)
    network = WaveletScan(**SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    gt = torch.rand(2, 3, 8, 8).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)

    def error() -> Tensor:
        return (network(gt / 16) - gt).square().mean()

    before = error().item()
    for _ in range(64):
        optimiser.zero_grad()
        error().backward()
        optimiser.step()

    assert error().item() < before / 4


def test_levels_of_low_and_high_blocks_have_to_agree():
    with pytest.raises(ValueError, match="2 levels of low blocks and 1 of high"):
        WaveletScan(low_blocks=(1, 1), high_blocks=(1,))
