"""The rows of a manifest that stay in the file."""

from __future__ import annotations

import gc
import pickle
import tracemalloc

import pytest

from catalog.manifest import MANIFEST_NAME, ManifestError, ManifestRow, read_manifest, write_manifest
from catalog.manifest_index import ManifestIndex
from catalog.records import Degradation

SPLITS = ("train", "val", "train", "train", "test")


def row(number, split):
    packed = f"crops/{split}-{number // 4:05d}.tiles"
    return ManifestRow(
        id=f"späť/{number}",
        gt=packed,
        lq=packed,
        mask=None,
        scene="shelf",
        session="s1",
        round="rain",
        degradations=(Degradation.RAIN,) if number % 2 else (Degradation.NOISE, Degradation.HAZE),
        foundir_class=None,
        settings={"iso": 100},
        mu=0.1,
        sigma=0.02,
        residual_px=None,
        predicted_epe_px=0.01,
        split=split,
        width=600 + number,
        height=400,
        sha256_gt="0" * 64,
        sha256_lq="1" * 64,
        source="captured",
    )


@pytest.fixture
def folder(tmp_path):
    """Ten rows, six of them of split train: 0, 2, 3, 5, 7 and 8."""
    write_manifest(tmp_path, (row(i, SPLITS[i % 5]) for i in range(10)))
    return tmp_path


def test_rows_are_those_of_the_split_in_the_manifests_order(folder):
    index = ManifestIndex(folder, "train", packed=".tiles")

    expected = [found for found in read_manifest(folder) if found.split == "train"]
    assert list(index) == expected
    assert (index[-1], index[1:3]) == (expected[-1], expected[1:3])
    with pytest.raises(IndexError):
        index[6]


def test_columns_are_known_without_reading_rows(folder):
    index = ManifestIndex(folder, "train", packed=".tiles")
    (folder / MANIFEST_NAME).unlink()

    assert index.classes == ("haze+noise", "haze+noise", "rain", "rain", "rain", "haze+noise")
    assert index.sizes[:, 0].tolist() == [600, 602, 603, 605, 607, 608]
    assert index.splits == {"train": 6, "val": 2, "test": 2}
    assert list(index.shards.items()) == [
        ("crops/train-00000.tiles", 3),
        ("crops/train-00001.tiles", 2),
        ("crops/train-00002.tiles", 1),
    ]


def test_pictures_that_lie_as_files_are_no_shards(folder):
    assert ManifestIndex(folder, "val", packed=".tar").shards == {}


def test_a_manifest_that_changes_afterwards_is_found_out(folder):
    index = ManifestIndex(folder, "train", packed=".tiles")
    path = folder / MANIFEST_NAME
    path.write_bytes(b"{ }\n\n" + path.read_bytes())

    with pytest.raises(ManifestError, match="row 2, which may have changed"):
        index[2]
    path.unlink()
    with pytest.raises(ManifestError, match="cannot be read any more"):
        index[2]


def test_it_travels_to_another_process(folder):
    index = ManifestIndex(folder, "train", packed=".tiles")

    assert list(pickle.loads(pickle.dumps(index))) == list(index)


def test_a_thousand_rows_take_the_memory_of_some(tmp_path):
    """24 bytes of columns a row and what grows with the number of classes; a parsed row takes about 2,000."""
    write_manifest(tmp_path, (row(i, "train") for i in range(1_000)))
    ManifestIndex(tmp_path, "train", packed=".png")
    gc.collect()
    tracemalloc.start()

    index = ManifestIndex(tmp_path, "train", packed=".png")

    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 1_000
    assert held < 60_000
