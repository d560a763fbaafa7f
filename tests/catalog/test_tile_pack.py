"""Tile packs: what goes in comes out, crop by crop, and damage is noticed."""

from __future__ import annotations

import pickle
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.tile_format import ENTRY, THUMBNAIL_PX, TilePackError, read_header
from catalog.tile_pack import TilePack, TileShard
from catalog.tile_pack_writer import PackPair, write_shard

HEIGHT, WIDTH = 150, 211


def picture(seed: int, dtype=np.uint8, shape=(HEIGHT, WIDTH)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, shape[1])[None, :, None] + rng.normal(0, 9, (*shape, 3))
    scale = 1 if dtype == np.uint8 else 256
    return np.clip(ramp * scale, 0, np.iinfo(dtype).max).astype(dtype)


def three_pairs() -> list[PackPair]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:90, 50:] = 255
    return [
        PackPair("a/1", picture(1), picture(2)),
        PackPair("a/2", picture(3, np.uint16), picture(4, np.uint16), mask),
        PackPair("b/1", picture(5, shape=(64, 32)), picture(6, shape=(64, 32))),
    ]


def write(folder, pairs, codec="zstd", tile_px=64, name="pack-00000"):
    path = folder / f"{name}.tiles"
    write_shard(path, pairs, codec=codec, tile_px=tile_px, advance=lambda _: None)
    return path


@pytest.fixture(scope="module", params=["raw", "zstd"])
def shard(request, tmp_path_factory):
    return TileShard(write(tmp_path_factory.mktemp("pack"), three_pairs(), request.param))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_crop_is_what_the_pictures_hold_there(shard, data):
    entry = data.draw(st.integers(0, 2))
    pair = three_pairs()[entry]
    height, width = pair.gt.shape[:2]
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    tall, wide = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))

    crop = shard.crop(entry, top, left, tall, wide)

    window = np.s_[top : top + tall, left : left + wide]
    assert crop.gt.dtype == pair.gt.dtype
    assert np.array_equal(crop.gt, pair.gt[window])
    assert np.array_equal(crop.lq, pair.lq[window])
    assert (crop.mask is None) == (pair.mask is None)
    assert pair.mask is None or np.array_equal(crop.mask, pair.mask[window])


def test_a_whole_pair_comes_back(shard):
    for entry, pair in enumerate(three_pairs()):
        whole = shard.whole(entry)
        assert np.array_equal(whole.gt, pair.gt)
        assert np.array_equal(whole.lq, pair.lq)


def test_a_thumbnail_has_the_pictures_mean_light(shard):
    assert shard.thumbnail(0).shape == (THUMBNAIL_PX, THUMBNAIL_PX, 3)
    assert shard.thumbnail(0).mean() == pytest.approx(three_pairs()[0].lq.mean(), abs=1)
    assert shard.thumbnail(1).mean() == pytest.approx(three_pairs()[1].lq.mean() / 256, abs=1)


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, HEIGHT + 1, 5), (0, WIDTH - 4, 5, 5), (0, 0, 0, 5)])
def test_a_window_outside_is_refused(shard, window):
    with pytest.raises(ValueError, match="leaves a picture of 211x150"):
        shard.crop(0, *window)


def test_the_same_pairs_give_the_same_bytes(tmp_path):
    first = write(tmp_path, three_pairs(), name="one")
    second = write(tmp_path, three_pairs(), name="two")
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".index").read_bytes() == second.with_suffix(".index").read_bytes()


def test_photographs_shrink_without_loss(tmp_path):
    skimage_data = pytest.importorskip("skimage.data")
    photo = skimage_data.astronaut()
    pairs = [PackPair("p", photo, photo[::-1])]
    raw = write(tmp_path, pairs, "raw", name="raw").stat().st_size
    packed = write(tmp_path, pairs, "zstd", name="zstd").stat().st_size
    assert packed < 0.7 * raw


def test_a_shard_travels_to_another_process_and_serves_several_threads(shard):
    copy = pickle.loads(pickle.dumps(shard))
    pair, found = three_pairs()[0], []

    def read() -> None:
        found.extend(np.array_equal(copy.whole(0).gt, pair.gt) for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


def test_a_pack_counts_through_its_shards(tmp_path):
    pairs = three_pairs()
    shards = [write(tmp_path, pairs[:2], name="s0"), write(tmp_path, pairs[2:], name="s1")]
    pack = TilePack(shards, [2, 1])
    assert len(pack) == 3
    assert np.array_equal(pack.crop(2, 3, 4, 5, 6).gt, pairs[2].gt[3:8, 4:10])
    assert np.array_equal(pickle.loads(pickle.dumps(pack)).crop(0, 0, 0, 9, 9).lq, pairs[0].lq[:9, :9])
    with pytest.raises(IndexError):
        pack.crop(3, 0, 0, 1, 1)
    with pytest.raises(TilePackError, match="holds 2 pairs instead of 3"):
        TilePack(shards, [3, 0]).crop(0, 0, 0, 1, 1)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_verify_finds_one_flipped_bit_anywhere_in_the_tiles(tmp_path, codec):
    path = write(tmp_path, three_pairs(), codec)
    for entry in range(3):
        TileShard(path).verify(entry)
    flip(path, 4096 + 20_000)
    with pytest.raises(TilePackError, match="pair a/1, tile row 0"):
        TileShard(path).verify(0)


def test_a_damaged_compressed_tile_is_never_handed_out(tmp_path):
    path = write(tmp_path, three_pairs())
    size = path.stat().st_size
    for offset in range(4096, size - 40_000, size // 25):
        flip(path, offset)
        try:
            same = all(
                np.array_equal(TileShard(path).whole(e).gt, p.gt)
                and np.array_equal(TileShard(path).whole(e).lq, p.lq)
                for e, p in enumerate(three_pairs())
            )
        except TilePackError:
            same = True
        assert same, offset
        flip(path, offset)


@pytest.mark.parametrize("suffix", [".tiles", ".index"])
@pytest.mark.parametrize("keep", [0, 10, 5000, -1])
def test_a_shard_cut_short_is_refused_with_its_name(tmp_path, suffix, keep):
    path = write(tmp_path, three_pairs())
    file = path.with_suffix(suffix)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(TilePackError, match=r"pack-00000\.tiles"):
        TileShard(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_hostile_index_gives_a_clear_error_or_the_pictures(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("hostile")
    path = write(folder, three_pairs()[2:])
    index = path.with_suffix(".index")
    content = bytearray(index.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    index.write_bytes(content)
    try:
        shard = TileShard(path)
        shard.crop(0, 0, 0, 20, 20)
    except (TilePackError, ValueError):
        pass


@pytest.mark.parametrize(
    ("gt", "lq"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint16)),
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.float32)),
    ],
)
def test_pairs_that_are_none_are_refused(gt, lq):
    with pytest.raises(ValueError, match="pair x"):
        PackPair("x", gt, lq)


def flip(path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_verify_names_an_index_that_counts_further_than_its_digests(tmp_path):
    path = write(tmp_path, three_pairs())
    index = path.with_suffix(".index")
    content = bytearray(index.read_bytes())
    _, tables = read_header(bytes(content), "index")
    struct.pack_into("<Q", content, tables + ENTRY.fields["first_row"][1], 1 << 40)
    index.write_bytes(content)

    with pytest.raises(TilePackError, match="its index points nowhere"):
        TileShard(path).verify(0)
