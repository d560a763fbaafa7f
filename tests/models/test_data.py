from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from catalog.errors import ExitCode
from catalog.manifest import ManifestError, write_manifest
from catalog.tile_format import Codec
from catalog.tile_pack_writer import PackPair, write_shard
from models.data import Crop, CropLoader, HostBatch, PairDataset, Turn, evenly, export_digest
from models.errors import DamagedImageError, NoPairsError, UnfitPairError
from models.job import plan_training
from models.order import CropOrder
from models.train import train

CPU = torch.device("cpu")


def _batches(export: Path, count: int, *, position: int = 0, **changes: object) -> list[list[Crop]]:
    dataset = PairDataset(export, "train")
    order = CropOrder(dataset.classes, seed=5, balanced=True, crops_per_decode=3, decodes_per_block=4)
    settings = {"batch": 4, "patch_px": 24, **changes}
    with CropLoader(dataset, order, **settings) as loader:
        return list(islice(loader.batches(position), count))


def _same(a: Crop, b: Crop) -> bool:
    return a.row.id == b.row.id and np.array_equal(a.lq, b.lq) and np.array_equal(a.gt, b.gt)


def test_a_pair_is_read_as_the_files_hold_it(make_export):
    export = make_export(size=(96, 64))

    pair = PairDataset(export, "train")[1]

    assert pair.lq.shape == pair.gt.shape == (64, 96, 3)
    assert pair.lq.dtype == np.uint8
    assert np.array_equal(pair.gt, cv2.imread(str(export / pair.row.gt))[..., ::-1])


@pytest.mark.parametrize("changes", [{"workers": 1}, {"workers": 3}, {"workers": 2, "ahead": True}])
def test_crops_do_not_depend_on_the_number_of_workers(make_export, changes):
    export = make_export()
    expected = _batches(export, 9)

    found = _batches(export, 9, **changes)

    assert all(
        _same(a, b) for one, two in zip(expected, found, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_reading_on_from_a_position_gives_the_batches_that_would_have_come(make_export):
    """Batches of 4 crops; 7 batches end in the middle of the third block of 12."""
    export = make_export()
    expected = _batches(export, 9)[7:]

    found = _batches(export, 2, position=28)

    assert all(
        _same(a, b) for one, two in zip(expected, found, strict=True) for a, b in zip(one, two, strict=True)
    )


def test_lq_gt_and_mask_are_cut_and_turned_together(make_export):
    """The mask is white left of the middle: after any turn it must still follow the gt it came from."""
    export = make_export(masked=True)
    dataset = PairDataset(export, "train")
    sources = {row.id: dataset[i].gt for i, row in enumerate(dataset.rows)}

    crops = [crop for batch in _batches(export, 6) for crop in batch]

    for crop in crops:
        assert crop.mask is not None
        trusted = sources[crop.row.id][:, :48].reshape(-1, 3)
        rest = {tuple(p) for p in sources[crop.row.id][:, 48:].reshape(-1, 3)}
        inside = {tuple(p) for p in crop.gt[crop.mask]}
        assert inside <= {tuple(p) for p in trusted}
        assert {tuple(p) for p in crop.gt[~crop.mask]} <= rest


def test_crops_are_laid_down_in_all_eight_ways(make_export):
    """A patch as large as the picture leaves only the turn to chance: 4 mirrorings, each transposed or not."""
    export = make_export(classes=["noise"], size=(24, 24))

    crops = [crop for batch in _batches(export, 30) for crop in batch]

    assert len({crop.gt.tobytes() for crop in crops}) == 8
    assert len({crop.lq.tobytes() for crop in crops}) == 8


@pytest.mark.parametrize("mirror_x", [False, True])
@pytest.mark.parametrize("mirror_y", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_a_turn_mirrors_and_then_transposes(mirror_x: bool, mirror_y: bool, transpose: bool, dtype: type):
    part = np.random.default_rng(1).integers(0, 200, (5, 7, 3)).astype(dtype)[:, 1:]

    turned = Turn(mirror_x=mirror_x, mirror_y=mirror_y, transpose=transpose).apply(part)

    expected = part[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    assert np.array_equal(turned, expected.swapaxes(0, 1) if transpose else expected)
    assert turned.flags.c_contiguous


def test_upright_crops_are_mirrored_only_left_to_right(make_export):
    """The whole picture as its crop, so the two ways are the picture and its mirror image."""
    export = make_export(classes=["noise"], size=(24, 24))
    picture = PairDataset(export, "train")[0].gt

    crops = [crop for batch in _batches(export, 8, turns="mirror") for crop in batch]

    assert {crop.gt.tobytes() for crop in crops} == {picture.tobytes(), picture[:, ::-1].tobytes()}


def test_a_batch_is_rgb_in_unit_range_with_its_whole_picture(make_export):
    crops = _batches(make_export(), 1)[0]

    batch = HostBatch.of(crops).to(CPU)

    assert batch.lq.shape == batch.gt.shape == (4, 3, 24, 24)
    assert batch.picture.shape == (4, 3, 32, 32)
    assert batch.intensity.shape == (4, 2)
    assert batch.mask is None
    assert torch.equal(batch.gt[0, 2], torch.from_numpy(crops[0].gt[..., 2]).float() / 255)


def test_sixteen_bits_reach_the_device_and_mix_with_eight(make_export):
    """Code value v of 8 bits is 257 v of 16: the same share of full scale."""
    deep = _batches(make_export("deep", deep=True), 1)[0]
    flat = _batches(make_export("flat"), 1)[0]

    mixed = HostBatch.of([deep[0], flat[1]]).to(CPU)

    assert deep[0].lq.dtype == np.uint16
    assert torch.allclose(mixed.gt, HostBatch.of([flat[0], flat[1]]).to(CPU).gt, atol=1e-6)


def test_masks_of_some_pairs_trust_the_others_entirely(make_export):
    masked = _batches(make_export("masked", masked=True), 1)[0]
    open_ = _batches(make_export("open"), 1)[0]

    batch = HostBatch.of([masked[0], open_[0]]).to(CPU)

    assert batch.mask is not None
    assert batch.mask[1].min() == 1


def test_an_empty_split_says_what_the_export_holds(make_export):
    export = make_export(classes=["rain"], split="val")

    with pytest.raises(NoPairsError, match=r"no pairs in split 'train' .*1 in 'val'") as caught:
        PairDataset(export, "train")
    assert caught.value.exit_code == ExitCode.INVALID_INPUT
    assert "catalog" in caught.value.next_step


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="not an export"):
        PairDataset(tmp_path, "train")


def test_a_changed_file_is_noticed_by_its_checksum(make_export):
    export = make_export()
    changed = export / "lq" / "001.png"
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0")

    with pytest.raises(DamagedImageError, match=r"lq/001\.png.*checksum") as caught:
        PairDataset(export, "train")[1]
    assert caught.value.exit_code == ExitCode.DAMAGED


def test_a_missing_file_is_named_while_loading(make_export):
    export = make_export()
    (export / "gt" / "000.png").unlink()

    with pytest.raises(DamagedImageError, match=r"gt/000\.png: cannot be read"):
        _batches(export, 10)


def test_pairs_smaller_than_the_patch_are_refused_at_once(make_export):
    with pytest.raises(UnfitPairError, match=r"4 of 4 pairs are smaller than the patch of 80 px.*96x64"):
        _batches(make_export(size=(96, 64)), 1, patch_px=80)


def test_spread_takes_every_class_and_the_same_pairs_every_time(make_export):
    """Six noise pairs and two rain pairs; four of them are two of each."""
    dataset = PairDataset(make_export(classes=["noise"] * 6 + ["rain"] * 2), "train")

    chosen = dataset.spread(4)

    assert [dataset.classes[i] for i in chosen] == ["noise", "noise", "rain", "rain"]
    assert chosen == dataset.spread(4)
    assert evenly(range(6), 2) == [1, 4]


def packed(export: Path, codec: Codec) -> Path:
    """Pack an export's pairs as `catalog export --format crops` does."""
    folder = export.with_name(f"{export.name}-{codec}")
    (folder / "crops").mkdir(parents=True)
    dataset = PairDataset(export, "train")
    pairs = [
        PackPair(p.row.id, p.gt, p.lq, None if p.mask is None else np.uint8(255) * p.mask)
        for p in (dataset[i] for i in range(len(dataset)))
    ]
    rows = []
    for number, part in enumerate((pairs[:2], pairs[2:])):
        shard = f"crops/train-{number:05d}.tiles"
        write_shard(folder / shard, part, codec=codec, tile_px=32, advance=lambda _: None)
        rows += [
            row.model_copy(update={"gt": shard, "lq": shard})
            for row in dataset.rows
            if row.id in {p.id for p in part}
        ]
    write_manifest(folder, rows)
    return folder


@pytest.mark.parametrize("codec", ["raw", "zstd"])
@pytest.mark.parametrize("kind", [{}, {"deep": True}, {"masked": True}])
def test_a_tile_pack_gives_the_very_crops_of_the_files(
    make_export, codec: Codec, kind: dict[str, bool]
) -> None:
    export = make_export(**kind)
    from_files, from_tiles = (first_crops(folder, 24) for folder in (export, packed(export, codec)))
    for one, two in zip(from_files, from_tiles, strict=True):
        assert one.row.id == two.row.id
        assert np.array_equal(one.gt, two.gt)
        assert np.array_equal(one.lq, two.lq)
        assert (one.mask is None) == (two.mask is None)
        assert one.mask is None or np.array_equal(one.mask, two.mask)
        assert one.picture.shape == two.picture.shape


def first_crops(export: Path | str, count: int) -> list[Crop]:
    dataset = PairDataset(export, "train")
    order = CropOrder(dataset.classes, seed=5, balanced=True, crops_per_decode=3, decodes_per_block=4)
    with CropLoader(dataset, order, batch=count, patch_px=40, workers=2) as loader:
        return next(loader.batches(0))


def test_a_pack_of_another_export_is_refused(make_export) -> None:
    folder = packed(make_export(), "raw")
    manifest = folder / "manifest.jsonl"
    first, second, *others = manifest.read_text().splitlines()
    manifest.write_text("\n".join([second, first, *others]) + "\n")

    with pytest.raises(UnfitPairError, match=r"pair-001: pack .* holds pair-000 of 96x64"):
        PairDataset(folder, "train")[0]


def test_whole_pairs_come_out_of_a_pack(make_export) -> None:
    export = make_export(masked=True)
    files, tiles = PairDataset(export, "train"), PairDataset(packed(export, "zstd"), "train")
    for i in range(len(files)):
        assert np.array_equal(files[i].gt, tiles[i].gt)
        assert np.array_equal(files[i].lq, tiles[i].lq)
        assert np.array_equal(files[i].mask, tiles[i].mask)


def in_a_store(export: Path, s3: str) -> str:
    """Put an export into the bucket as it is; answers its URL."""
    import fsspec

    url = f"{s3}/{export.name}"
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    if files.exists(root):
        files.rm(root, recursive=True)
    files.put(f"{export}/", f"{root}/", recursive=True)
    return url


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", ["files", "raw", "zstd"])
def test_a_store_gives_the_very_crops_of_the_folder(make_export, s3, cache, kind):
    export = make_export(masked=True)
    if kind != "files":
        export = packed(export, kind)

    url = in_a_store(export, s3)

    for here, there in zip(first_crops(export, 24), first_crops(url, 24), strict=True):
        assert _same(here, there)
        assert np.array_equal(here.mask, there.mask)
        assert np.array_equal(here.picture, there.picture)
    assert export_digest(url) == export_digest(export)


def test_indexes_are_fetched_once_and_crops_by_the_bytes_they_need(make_export, s3, cache, monkeypatch):
    """A second reader finds manifest and index here; a window of one tile moves that tile, 6 KB."""
    from catalog.far_store import FarStore

    export = packed(make_export(classes=["noise"], size=(256, 192)), "raw")
    url = in_a_store(export, s3)
    PairDataset(url, "train")[0]
    fetched: list[str] = []
    moved: list[int] = []
    get, read = FarStore.get, FarStore.read_ranges
    monkeypatch.setattr(FarStore, "get", lambda s, name, t, **k: fetched.append(name) or get(s, name, t, **k))
    monkeypatch.setattr(
        FarStore,
        "read_ranges",
        lambda s, name, ranges: moved.extend(e - b for b, e in ranges) or read(s, name, ranges),
    )

    dataset = PairDataset(url, "train")
    found = dataset.open(0)
    opening = len(moved)
    window = found.windows([(32, 64)], 32)[0]

    assert fetched == []
    assert moved[opening:] == [32 * 32 * 3 * 2]
    assert np.array_equal(window.gt, PairDataset(export, "train")[0].gt[32:64, 64:96])


def test_an_export_that_was_written_anew_under_its_old_name_is_read_anew(make_export, s3, cache):
    first = in_a_store(packed(make_export(seed=1), "zstd"), s3)
    before = first_crops(first, 8)
    other = packed(make_export("other", seed=2), "zstd")
    shutil.rmtree(other.with_name("export-zstd"))
    second = in_a_store(other.rename(other.with_name("export-zstd")), s3)

    after = first_crops(second, 8)

    assert first == second
    assert not any(np.array_equal(a.gt, b.gt) for a, b in zip(before, after, strict=True))


def test_a_store_without_an_export_says_so(s3, cache):
    with pytest.raises(ManifestError, match=r"s3://rig/nothing: no manifest\.jsonl"):
        PairDataset(f"{s3}/nothing", "train")


def test_a_file_missing_in_the_store_is_named(make_export, s3, cache):
    from catalog.far_store import FarStore, StoreError

    url = in_a_store(make_export(), s3)
    FarStore(url).remove("gt/001.png")

    with pytest.raises(StoreError, match=r"gt/001\.png"):
        PairDataset(url, "train")[1]


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_made_ahead_or_not_are_those_of_their_crops(make_export, ahead):
    export = make_export(masked=True, deep=True)
    dataset = PairDataset(export, "train")
    order = CropOrder(dataset.classes, seed=5, balanced=True, crops_per_decode=3, decodes_per_block=4)
    with CropLoader(dataset, order, batch=4, patch_px=24, workers=2, ahead=ahead) as loader:
        made = [batch.to(CPU) for batch in islice(loader.host_batches(8), 3)]
        crops = list(islice(loader.batches(8), 3))

    for batch, expected in zip(made, (HostBatch.of(c).to(CPU) for c in crops), strict=True):
        assert batch.ids == expected.ids
        for name in ("lq", "gt", "mask", "picture", "intensity"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))


def test_pixels_stay_bytes_until_they_are_on_the_device(make_export):
    """Of 8 bits a batch of 4 crops of 24 px is 4 * 24 * 24 * 3 bytes to hand over, of 16 bits twice that."""
    flat = HostBatch.of(_batches(make_export(), 1)[0])
    deep = HostBatch.of(_batches(make_export("deep", deep=True), 1)[0])

    assert (flat.gt.dtype, flat.gt.nbytes) == (torch.uint8, 4 * 24 * 24 * 3)
    assert (deep.gt.dtype, deep.gt.nbytes) == (torch.uint16, 2 * 4 * 24 * 24 * 3)


_SHARE = """
import hashlib, json, sys
from itertools import islice
from models.data import CropLoader, PairDataset
from models.order import CropOrder
import torch.distributed as dist

dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
dataset = PairDataset(sys.argv[1], "train")
order = CropOrder(
    dataset.classes, seed=5, balanced=True, crops_per_decode=3, decodes_per_block=4, rank=rank, world=world
)
with CropLoader(dataset, order, batch=6, patch_px=24, workers=1 + rank, ahead=True) as loader:
    own = [
        [crop.row.id, hashlib.sha256(crop.lq.tobytes() + crop.gt.tobytes()).hexdigest()]
        for batch in islice(loader.batches(0), 4) for crop in batch
    ]
shares = [None] * world
dist.all_gather_object(shares, own)
if rank == 0:
    print(json.dumps(shares))
dist.destroy_process_group()
"""


def test_two_processes_see_their_shares_and_together_the_order_of_one(make_export, tmp_path):
    """Under torchrun with gloo: blocks of 12 crops, in turn; the first process has one thread, the second two."""
    export = packed(make_export(), "zstd")
    program = tmp_path / "share.py"
    program.write_text(_SHARE)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    told = subprocess.run(
        [sys.executable, *torchrun, str(program), str(export)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=55, check=False,
    )  # fmt: skip

    assert told.returncode == 0, told.stderr[-2000:]
    one, two = json.loads(told.stdout)
    together = one[:12] + two[:12] + one[12:] + two[12:]
    alone = [crop for batch in _batches(export, 8, batch=6) for crop in batch]
    digests = [hashlib.sha256(c.lq.tobytes() + c.gt.tobytes()).hexdigest() for c in alone]
    assert together == [[c.row.id, digest] for c, digest in zip(alone, digests, strict=True)]


def test_a_run_is_trained_on_an_export_in_a_store(make_export, s3, cache, tmp_path, console):
    """The same three steps from the folder and from the bucket end in the same weights."""
    export = packed(make_export(size=(64, 64)), "zstd")
    weights = []
    for name, place in (("here", str(export)), ("there", in_a_store(export, s3))):
        settings = (
            "training.steps=3",
            "training.patch_px=16",
            "training.batch=2",
            "training.validation_pairs=0",
        )
        job = plan_training("nafnet", place, data=tmp_path, config="tiny", overrides=settings, out=name)
        weights.append(load_file(train(job, console).checkpoint))

    here, there = weights
    assert here.keys() == there.keys()
    assert all(torch.equal(here[key], there[key]) for key in here)
