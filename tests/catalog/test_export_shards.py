"""Packed exports, read back by the libraries that their users use."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from catalog.errors import DamagedDataError
from catalog.export_formats import OutPaths, Placement, ShardFormat
from catalog.export_list import ExportRequest
from catalog.manifest import read_manifest
from catalog.splits import SplitRule
from catalog.tile_pack import TilePack

KINDS = ("webdataset", "parquet", "crops")


@pytest.fixture
def filled(catalog, make_session):
    """Three scenes; scene-2 is the test part of split ``mine``, the others train."""
    for i in range(3):
        make_session(f"s{i}", scene=f"scene-{i}", counts={"iso6400": 3, "rain": 2})
        catalog.add(f"s{i}")
    catalog.split("mine", SplitRule(scenes={"scene-2": "test"}))
    return catalog


def export(catalog, kind, **options):
    request = ExportRequest(f"set-{kind}", kind, split="mine")
    return catalog.export(request, workers=options.pop("workers", 1), **options)


def originals(catalog) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pictures of every pair by id, from a folder export."""
    folder = catalog.export(ExportRequest("plain", "folder", split="mine")).folder
    return {row.id: (rgb(folder / row.gt), rgb(folder / row.lq)) for row in read_manifest(folder)}


def rgb(file) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its shards open
def test_webdataset_reads_the_tar_shards(filled):
    import webdataset

    report = export(filled, "webdataset")
    wanted = originals(filled)

    url = str(report.folder / "train-00000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode("rgb8"))

    assert {s["json"]["id"] for s in samples} == {
        r.id for r in read_manifest(report.folder) if r.split == "train"
    }
    for sample in samples:
        gt, lq = wanted[sample["json"]["id"]]
        assert np.array_equal(sample["gt.png"], gt)
        assert np.array_equal(sample["lq.png"], lq)
    assert sorted(p.name for p in report.folder.glob("*.tar")) == ["test-00000.tar", "train-00000.tar"]


def test_datasets_reads_the_parquet_with_its_pictures(filled, tmp_path):
    import datasets

    report = export(filled, "parquet")
    wanted = originals(filled)

    found = datasets.load_dataset(str(report.folder), cache_dir=str(tmp_path / "cache"))

    assert {part: len(rows) for part, rows in found.items()} == {"train": 10, "test": 5}
    for row in found["train"]:
        gt, lq = wanted[row["id"]]
        assert np.array_equal(np.asarray(row["gt"].convert("RGB")), gt)
        assert np.array_equal(np.asarray(row["lq"].convert("RGB")), lq)
        assert row["class"] in {"noise", "rain"}


def test_crops_are_the_pictures_windows(filled):
    report = export(filled, "crops")
    wanted = originals(filled)
    rows = list(read_manifest(report.folder))
    for part in ("train", "test"):
        own = [row for row in rows if row.split == part]
        pack = TilePack([report.folder / f"crops/{part}-00000.tiles"], [len(own)])
        for i, row in enumerate(own):
            gt, lq = wanted[row.id]
            crop = pack.crop(i, 1, 2, row.height - 2, row.width - 3)
            assert np.array_equal(crop.gt, gt[1:-1, 2:-1])
            assert np.array_equal(crop.lq, lq[1:-1, 2:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers_writes_the_same_bytes(filled, kind):
    first = export(filled, kind)
    second = filled.export(ExportRequest("again", kind, split="mine"), workers=2)
    with_name = {"export.json", "SHA256SUMS"}
    one, two = ({k: v for k, v in tree(r.folder).items() if k not in with_name} for r in (first, second))
    assert one == two
    assert first.manifest_sha256 == second.manifest_sha256


def test_a_dask_cluster_writes_the_same_bytes(filled, dask_cluster):
    first = export(filled, "crops")
    second = filled.export(ExportRequest("again", "crops", split="mine"), dask=dask_cluster)
    shards = [path.relative_to(first.folder) for path in first.folder.rglob("*.tiles")]
    assert shards
    assert all((first.folder / s).read_bytes() == (second.folder / s).read_bytes() for s in shards)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sums_are_those_of_the_files(filled, kind):
    folder = export(filled, kind).folder
    listed = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {k: hashlib.sha256(v).hexdigest() for k, v in tree(folder).items() if k != "SHA256SUMS"}
    assert listed == files


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_picture_stops_the_export_and_names_it(filled, kind):
    picture = next((filled.data / "sessions" / "s1" / "pairs" / "lq").iterdir())
    content = bytearray(picture.read_bytes())
    content[-20] ^= 1
    picture.chmod(0o644)
    picture.write_bytes(content)
    with pytest.raises(DamagedDataError, match=picture.name):
        export(filled, kind)
    assert not (filled.data / "exports" / f"set-{kind}").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_export_keeps_its_finished_shards(filled, monkeypatch, kind):
    from catalog import export_places as module

    job = module.run_shard_job

    def dies_at_the_second(shard):
        if not shard.target.name.startswith("test"):
            raise KeyboardInterrupt
        return job(shard)

    monkeypatch.setattr(module, "run_shard_job", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export(filled, kind)
    part = filled.data / "exports" / f"set-{kind}.part"
    done = next(path for path in part.rglob("test-00000.*") if path.suffix != ".index")
    before = done.stat().st_mtime_ns
    monkeypatch.setattr(module, "run_shard_job", job)

    report = export(filled, kind)

    assert report.resumed
    assert next(report.folder.rglob(done.name)).stat().st_mtime_ns == before


def test_shards_fill_up_part_by_part():
    layout = ShardFormat("webdataset", ".tar", limit_bytes=100)

    def place(part, nbytes, masked=False):
        pair = Placement(
            1, "s/p", None, suffix=".png", masked=masked, part=part, file_bytes=nbytes, picture_bytes=1
        )
        return layout.place(pair)

    assert place("train", 60).gt == "train-00000.tar"
    assert place("train", 40).gt == "train-00000.tar"
    assert place("train", 1).gt == "train-00001.tar"
    assert place("val", 500) == OutPaths("val-00000.tar", "val-00000.tar", None)
    assert place("val", 1, masked=True).mask == "val-00001.tar"


def test_a_tar_opens_with_plain_tar_and_says_who_is_who(filled):
    folder = export(filled, "webdataset").folder
    with tarfile.open(folder / "test-00000.tar") as tar:
        names = tar.getnames()
        facts = json.loads(tar.extractfile("00000001.json").read())
        picture = rgb(io.BytesIO(tar.extractfile("00000001.lq.png").read()))
    assert {"00000001.gt.png", "00000001.lq.png", "00000001.json"} <= set(names)
    assert names == sorted(names, key=lambda name: name.split(".")[0])
    assert facts["split"] == "test"
    assert picture.shape == (facts["height"], facts["width"], 3)


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
