from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models.restore
from models.foundir import FoundirConfig, FoundirRestorer
from models.nafnet import NafnetConfig, NafnetRestorer
from models.picture_mean import PictureMean, PictureMeans
from models.restore import Tiling, restore_pixels, restored_bands, tile_spans

CPU = torch.device("cpu")
TILING = Tiling(128, 48)
NAFNET = NafnetConfig(width=4, enc_blk_nums=(1,), middle_blk_num=1, dec_blk_nums=(1,), unshuffle=2)
FOUNDIR = FoundirConfig(
    dim=8, dim_mults=(1, 2), blocks="gated", sampling_steps=1, training_times="sampled", unshuffle=2
)


def _lively(restorer: nn.Module) -> nn.Module:
    """NAFNet's blocks begin as the identity, by scales of zero: these are set first."""
    for name, weights in restorer.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.ones_(weights)
    return restorer.eval()


def _uneven(height: int, width: int) -> np.ndarray:
    """A picture whose tiles have other means than the whole: it is brighter to the right and below."""
    rng = np.random.default_rng(5)
    ramp = np.linspace(0, 120, width) + np.linspace(0, 80, height)[:, None]
    return (ramp[..., None] + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)


def _covered_once(extent: int) -> np.ndarray:
    count = np.zeros(extent)
    for span in tile_spans(extent, TILING):
        count[span.slice] += 1
    return np.flatnonzero(count == 1)


@pytest.mark.parametrize(
    "make",
    [lambda: NafnetRestorer(NAFNET), lambda: FoundirRestorer(FOUNDIR)],
    ids=["nafnet", "gated foundir"],
)
def test_a_tile_says_what_the_whole_picture_says(make, monkeypatch):
    """Sides that no halving fits, so the picture is padded; what convolutions see reaches less far than 48 px."""
    torch.manual_seed(2)
    restorer, lq = _lively(make()), _uneven(205, 331)

    def bands(tiling: Tiling) -> np.ndarray:
        return np.concatenate(list(restored_bands(restorer, lq, device=CPU, tiling=tiling, seed=3)))

    whole, tiled = bands(Tiling(512, 48)), bands(TILING)
    monkeypatch.setattr(models.restore, "_LOOKS", 0)
    by_themselves = bands(TILING)

    alone = np.ix_(*(_covered_once(extent) for extent in lq.shape[:2]))
    assert 255 * np.abs(tiled - whole)[alone].max() <= 0.5
    assert 255 * np.abs(by_themselves - whole)[alone].max() > 2


class Average(nn.Module):
    """Restores by the mean: an even picture."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = PictureMean()

    def restore(self, lq: Tensor) -> Tensor:
        return self.mean(lq).expand_as(lq)


def test_the_means_of_a_picture_in_tiles_are_those_of_its_pixels():
    """Wherever tiles lie and overlap, every pixel counts once; half a code is lost to rounding at the end."""
    lq = _uneven(150, 400)

    restored = restore_pixels(Average(), lq, device=CPU, tiling=TILING)

    assert np.ptp(restored, axis=(0, 1)).tolist() == [0, 0, 0]
    assert np.abs(restored[0, 0] - lq.mean(axis=(0, 1))).max() <= 0.501


def test_weights_of_pixels_become_those_of_the_positions_that_a_network_makes_of_them():
    """Five columns of weights 1, 1, 0, 0, 4, which a network halves to three, the last padded: 1, 0 and 4 of a row
    0, 10, 20 are (0 + 0 + 80) / (1 + 0 + 4).
    """
    means, mean = PictureMeans(), PictureMean()
    row = torch.tensor([0.0, 10.0, 20.0]).view(1, 1, 1, 3)

    with means.of_tile(np.ones(2, np.float32), np.array([1, 1, 0, 0, 4], np.float32)):
        mean(row)
    means.settle()

    assert means.known[0].item() == pytest.approx(80 / 5)
    assert mean(row).item() == 10


def test_a_network_without_such_means_sees_each_tile_once():
    seen = []

    class Counts:
        def restore(self, lq: Tensor) -> Tensor:
            seen.append(tuple(lq.shape[-2:]))
            return lq

    lq = _uneven(150, 400)

    restored = restore_pixels(Counts(), lq, device=CPU, tiling=TILING)

    assert np.array_equal(restored, lq)
    assert len(seen) == len(list(tile_spans(150, TILING))) * len(list(tile_spans(400, TILING)))
