from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torch import Tensor, nn
from torch.nn import functional

import models.restore
from catalog.errors import InvalidDocumentError
from models.errors import ModelError, NoPairsError, StorageError
from models.images import Picture, plain_picture, read_picture, read_pixels, write_png
from models.noise_field import NoiseField
from models.restore import (
    Tiling,
    find_images,
    restore_files,
    restore_pixels,
    restored_bands,
    tile_spans,
)

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


class NoisyConvolutions(nn.Module):
    """Starts from noise, halves the sides twice, and sees 15 px to every side: a sampler in small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.down = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.SiLU(), nn.Conv2d(4, 8, 4, 2, 1), nn.SiLU())
        self.up = nn.ConvTranspose2d(8, 3, 4, 4)

    def restore(self, lq: Tensor) -> Tensor:
        return self.restore_from(lq, torch.zeros_like(lq[0]))

    def restore_from(self, lq: Tensor, noise: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        padded = functional.pad(lq + noise, (0, -width % 4, 0, -height % 4))
        return torch.sigmoid(self.up(self.down(padded)))[..., :height, :width]


def test_tiles_agree_with_the_whole_picture_away_from_their_seams():
    """What a network sees reaches less far than tiles overlap, they begin on its grid, and their noise is the whole
    picture's: so where one tile alone counts the difference is rounding, and between two it is small too.
    """
    lq = RNG.integers(0, 256, (150, 170, 3), dtype=np.uint8)
    model, tiling = NoisyConvolutions(), Tiling(80, 16)

    whole = np.concatenate(list(restored_bands(model, lq, device=CPU, tiling=Tiling(512, 16), seed=3)))
    tiled = np.concatenate(list(restored_bands(model, lq, device=CPU, tiling=tiling, seed=3)))
    other = np.concatenate(list(restored_bands(model, lq, device=CPU, tiling=tiling, seed=4)))

    alone = np.ix_(*(_alone(extent, tiling) for extent in lq.shape[:2]))
    assert np.abs(tiled - whole)[alone].max() <= 1e-5
    assert np.abs(other - whole)[alone].max() > 1 / 255


def _alone(extent: int, tiling: Tiling) -> np.ndarray:
    """Pixels along one axis that lie in one tile only."""
    count = np.zeros(extent)
    for span in tile_spans(extent, tiling):
        count[span.slice] += 1
    return np.flatnonzero(count == 1)


@given(extent=st.integers(300, 5000), tile=st.integers(64, 2000), overlap=st.integers(0, 31))
def test_tiles_begin_on_the_grid_of_networks_that_halve_four_times(extent, tile, overlap):
    spans = list(tile_spans(extent, Tiling(tile, overlap)))

    assert all(span.start % 16 == 0 for span in spans)
    assert len({len(span.weights) for span in spans[:-1]}) <= 1
    assert len(spans[-1].weights) > overlap or len(spans) == 1


def test_the_noise_of_a_tile_is_its_part_of_the_whole_plane():
    whole = NoiseField(7).window(0, 0, 300, 280)

    assert np.array_equal(NoiseField(7).window(120, 130, 60, 150), whole[:, 120:180, 130:280])
    assert not np.array_equal(NoiseField(8).window(0, 0, 300, 280), whole)
    assert whole.dtype == np.float32
    # 252,000 values: the mean's standard error is 0.002, that of the standard deviation 0.0014.
    assert whole.mean() == pytest.approx(0, abs=0.01)
    assert whole.std() == pytest.approx(1, abs=0.01)
    assert (
        np.abs(
            np.corrcoef(whole[:, :128, :128].reshape(3, -1), whole[:, :128, 128:256].reshape(3, -1))
            - np.eye(6)
        ).max()
        < 0.05
    )


def test_values_that_are_not_finite_are_never_written():
    class Broken:
        def restore(self, lq: Tensor) -> Tensor:
            return lq / 0

    with pytest.raises(ModelError, match="not finite"):
        restore_pixels(Broken(), np.zeros((8, 8, 3), np.uint8), device=CPU)


def test_an_overlap_too_large_for_its_tile_is_refused():
    with pytest.raises(InvalidDocumentError, match="overlap of 40 px needs tiles larger"):
        Tiling(64, 40)


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


def test_depth_profile_orientation_and_alpha_survive_a_tiled_restoration(tmp_path):
    """A 16-bit picture with alpha, an ICC profile and EXIF orientation 6, larger than a tile."""
    pixels = RNG.integers(0, 65536, (40, 150, 3), dtype=np.uint16)
    alpha = RNG.integers(0, 65536, (40, 150), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    source = Picture(
        pixels, alpha, grey=False, icc=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
    )  # fmt: skip
    write_png(tmp_path / "deep.png", source)

    (written,) = restore_files(
        Negative(), [tmp_path / "deep.png"], tmp_path / "out", device=CPU, tiling=Tiling(64, 16)
    )

    restored = read_picture(written)
    assert np.abs(restored.pixels.astype(int) - (65535 - pixels.astype(int))).max() <= 1
    assert np.array_equal(restored.alpha, alpha)
    assert (restored.icc, restored.exif) == (source.icc, source.exif)


def test_a_full_disk_is_said_with_what_was_kept(tmp_path, monkeypatch):
    """The second of two pictures finds no room."""
    _picture(tmp_path / "in" / "a.png")
    _picture(tmp_path / "in" / "b.png")
    written, write = [], models.restore.write_png

    def write_one(path: Path, picture: Picture) -> None:
        if path.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, picture)

    monkeypatch.setattr(models.restore, "write_png", write_one)
    files = find_images([tmp_path / "in"], tmp_path / "out")

    with pytest.raises(
        StorageError, match=r"b\.png: could not be written: No space left.*kept: the pictures"
    ):
        written.extend(restore_files(Negative(), files, tmp_path / "out", device=CPU, tiling=Tiling()))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]


def test_an_output_folder_that_cannot_be_made_is_said(tmp_path):
    source, blocked = _picture(tmp_path / "a.png"), tmp_path / "file"
    blocked.write_text("no folder")

    with pytest.raises(StorageError, match="could not be written: Not a directory"):
        list(restore_files(Negative(), [source], blocked / "out", device=CPU, tiling=Tiling()))


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
