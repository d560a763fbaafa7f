from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.errors import ModelError, NoPairsError
from models.images import plain_picture, read_pixels, write_png
from models.restore import Tiling, find_images, make_tiling, restore_files, restore_pixels, tile_spans

CPU = torch.device("cpu")
RNG = np.random.default_rng(3)


class Negative:
    """Restores by inverting: what a tile gives depends on nothing but its own pixels."""

    def restore(self, lq: Tensor) -> Tensor:
        assert max(lq.shape[-2:]) <= 64
        return 1 - lq


class TileBrightness:
    """Returns the mean of what it sees: neighbouring tiles disagree wherever the picture varies."""

    def restore(self, lq: Tensor) -> Tensor:
        return lq.mean(dim=(1, 2, 3), keepdim=True).expand_as(lq)


@given(extent=st.integers(1, 500), tile=st.integers(5, 200), overlap=st.integers(0, 90))
def test_tiles_cover_every_pixel_with_weights_that_sum_to_one(extent, tile, overlap):
    if 2 * overlap >= tile:
        overlap = (tile - 1) // 2
    total = np.zeros(extent)

    for span in tile_spans(extent, Tiling(tile, overlap)):
        assert 0 < len(span.weights) <= tile
        total[span.slice] += span.weights

    assert np.allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (7, 200), (200, 7), (130, 170), (64, 64)])
def test_tiles_leave_no_seam_and_keep_size_and_depth(dtype, size):
    """White minus the picture, exactly, wherever the tiles lie."""
    lq = RNG.integers(0, np.iinfo(dtype).max, (*size, 3), dtype=dtype, endpoint=True)

    restored = restore_pixels(Negative(), lq, device=CPU, tiling=Tiling(64, 16))

    assert restored.dtype == dtype
    worst = 1 if dtype == np.uint16 else 0  # float32 weights cost up to half a code value of 16 bits
    assert np.abs(restored.astype(int) - (np.iinfo(dtype).max - lq.astype(int))).max() <= worst


def test_tiles_that_disagree_are_blended_gradually():
    """Two tiles of 64 px on a ramp of 112 see means of about 72 and 182; over the 16 px between them the result
    climbs by about 110 / 16, so no step is larger than 8 code values.
    """
    ramp = np.linspace(0, 255, 112).astype(np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2)

    row = restore_pixels(TileBrightness(), ramp, device=CPU, tiling=Tiling(64, 16))[4, :, 0].astype(int)

    assert row[0] == pytest.approx(72, abs=2)
    assert row[-1] == pytest.approx(182, abs=2)
    assert 0 <= np.diff(row).min() <= np.diff(row).max() <= 8


def test_values_that_are_not_finite_are_never_written():
    class Broken:
        def restore(self, lq: Tensor) -> Tensor:
            return lq / 0

    with pytest.raises(ModelError, match="not finite"):
        restore_pixels(Broken(), np.zeros((8, 8, 3), np.uint8), device=CPU)


def test_an_overlap_too_large_for_its_tile_is_refused():
    with pytest.raises(ValueError, match="overlap of 40 px needs tiles larger"):
        make_tiling(64, 40)


def _picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, plain_picture(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)))
    return path


def test_files_are_restored_one_by_one_into_pngs_of_the_same_stem(tmp_path):
    first, second = _picture(tmp_path / "in" / "a.png"), _picture(tmp_path / "in" / "b.png")
    out = tmp_path / "out"

    written = list(
        restore_files(Negative(), find_images([tmp_path / "in"], out), out, device=CPU, tiling=Tiling())
    )

    assert written == [out / "a.png", out / "b.png"]
    assert np.array_equal(read_pixels(out / "b.png"), 255 - read_pixels(second))
    assert np.array_equal(read_pixels(out / "a.png"), 255 - read_pixels(first))


def test_results_never_overwrite_a_picture_or_each_other(tmp_path):
    one, other = _picture(tmp_path / "x" / "a.png"), _picture(tmp_path / "y" / "a.png")

    with pytest.raises(NoPairsError, match="would be overwritten by its result"):
        find_images([one], tmp_path / "x")
    with pytest.raises(NoPairsError, match=r"would both become a\.png"):
        find_images([one, other], tmp_path / "out")


def test_nothing_to_restore_is_said(tmp_path):
    with pytest.raises(NoPairsError, match="no picture in this folder"):
        find_images([tmp_path], tmp_path / "out")
    with pytest.raises(NoPairsError, match="no such file or folder"):
        find_images([tmp_path / "gone"], tmp_path / "out")
