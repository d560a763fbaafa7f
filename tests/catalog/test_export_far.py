"""Exports to a store: S3 spoken to moto's server, and a path by URL."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import fsspec
import pytest

from catalog import export_far
from catalog.cli import main
from catalog.errors import DamagedDataError
from catalog.export import ExportExistsError, ExportInterruptedError
from catalog.export_list import ExportRequest
from catalog.far_store import FarStore, StoreError
from catalog.splits import SplitRule
from catalog.tile_pack import TileShard

FORMATS = ("folder", "foundir", "webdataset", "parquet", "crops")


@pytest.fixture
def filled(catalog, make_session):
    """Two scenes, eight accepted pairs; scene-1 is the test part of split ``mine``."""
    for i in range(2):
        make_session(f"s{i}", scene=f"scene-{i}", counts={"iso6400": 3, "rain": 1})
        catalog.add(f"s{i}")
    catalog.split("mine", SplitRule(scenes={"scene-1": "test"}))
    return catalog


@pytest.fixture
def to(s3):
    FarStore(f"{s3}/exports").clear()
    return f"{s3}/exports"


def request(kind="folder", *, to=None, name="set-a", **changes):
    return ExportRequest(name, kind, split="mine", to=to, **changes)


def far_tree(url):
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def interrupt_after(monkeypatch, files):
    """Let an export end as by a signal once so many files were read back in the store."""
    send = FarStore.send
    sent = []

    def counted(self, source, name, **options):
        if len(sent) >= files:
            raise KeyboardInterrupt
        send(self, source, name, **options)
        sent.append(name)

    monkeypatch.setattr(FarStore, "send", counted)
    return sent


@pytest.mark.parametrize("kind", FORMATS)
def test_a_store_receives_the_very_files_of_a_local_export(filled, to, kind):
    local = filled.export(request(kind), workers=1)

    far = filled.export(request(kind, to=to, name="set-b"), workers=1)

    named = {name.replace("set-b", "set-a"): data for name, data in far_tree(f"{to}/set-b").items()}
    told = {"export.json", "SHA256SUMS"}  # they name the export
    here = tree(local.folder)
    assert named.keys() == here.keys()
    assert {k: v for k, v in named.items() if k not in told} == {
        k: v for k, v in here.items() if k not in told
    }
    assert (far.address, far.folder, far.pairs) == (f"{to}/set-b", None, 8)
    assert not list(filled.data.glob("exports/set-b*"))


def test_a_store_on_a_mounted_path_is_written_the_same_way(filled, tmp_path):
    report = filled.export(request(to=f"file://{tmp_path}/nas"), workers=1)

    local = filled.export(request(name="set-b"), workers=1)

    assert tree(tmp_path / "nas" / "set-a").keys() == tree(local.folder).keys()
    assert report.manifest_sha256 == local.manifest_sha256


def test_two_processes_send_what_one_does(filled, tmp_path):
    for workers in (1, 2):
        filled.export(request("crops", to=f"file://{tmp_path}/nas{workers}"), workers=workers)

    one, two = (tree(tmp_path / f"nas{workers}" / "set-a") for workers in (1, 2))

    assert one == two


_TWO_PROCESSES = """
import sys
from pathlib import Path
from catalog import Catalog
from catalog.executors import open_executor
from catalog.export_list import ExportRequest
from catalog.tile_pack import TileShard

if __name__ == "__main__":
    data, to = Path(sys.argv[1]), sys.argv[2]
    with Catalog(data / "catalog.db") as catalog:
        catalog.export(ExportRequest("set-a", "crops", split="mine", to=to), workers=2)
    shards = [TileShard(f"{to}/set-a/crops/{part}-00000.tiles") for part in ("test", "train")]
    with open_executor(workers=2) as executor:
        crops = [executor.submit(shard.crop, entry, 1, 2, 3, 4) for shard in shards for entry in range(4)]
        print(*(crop.result().lq.tobytes().hex() for crop in crops))
"""


def test_two_processes_write_to_s3_and_read_from_there(filled, to, tmp_path, monkeypatch):
    """What both sent is what one writes here; both then read crops by ranges, sharing one copy of each index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = tmp_path / "two_processes.py"
    script.write_text(_TWO_PROCESSES)
    local = filled.export(request("crops", name="set-b"), workers=1)

    done = subprocess.run(
        [sys.executable, "-P", str(script), str(filled.data), to],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    sent, here = far_tree(f"{to}/set-a"), tree(local.folder)
    packs = [name for name in here if name.startswith("crops/")]
    assert {name: sent.get(name) for name in packs} == {name: here[name] for name in packs}
    near = [TileShard(local.folder / "crops" / f"{part}-00000.tiles") for part in ("test", "train")]
    expected = [shard.crop(entry, 1, 2, 3, 4).lq.tobytes().hex() for shard in near for entry in range(4)]
    assert done.stdout.split() == expected
    assert len(list((tmp_path / "cache").rglob("*.index"))) == 2


@pytest.mark.parametrize("kind", ["folder", "crops"])
def test_an_interrupted_export_sends_what_is_missing_and_no_more(filled, to, kind, monkeypatch):
    """Crops of two parts are four files; a job of the folder format is four pairs here, twelve files."""
    monkeypatch.setattr(export_far, "_PAIRS_PER_JOB", 4)
    monkeypatch.setattr(export_far, "_FILES_AT_ONCE", 1)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 13 if kind == "folder" else 3)
        with pytest.raises(KeyboardInterrupt):
            filled.export(request(kind, to=to), workers=1)
    assert not FarStore(f"{to}/set-a").is_empty()
    assert "manifest.jsonl" not in far_tree(f"{to}/set-a")
    sent = interrupt_after(monkeypatch, 1_000)

    report = filled.export(request(kind, to=to), workers=1)

    assert report.resumed
    pictures = [name for name in sent if name.endswith((".png", ".tiles", ".index"))]
    assert len(pictures) == (12 if kind == "folder" else 2)
    local = filled.export(request(kind, name="set-b"), workers=1)
    assert far_tree(f"{to}/set-a").keys() == tree(local.folder).keys()
    assert report.manifest_sha256 == local.manifest_sha256


def test_check_reads_what_was_sent_before_back_once_more(filled, to, monkeypatch):
    monkeypatch.setattr(export_far, "_PAIRS_PER_JOB", 4)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 13)
        with pytest.raises(KeyboardInterrupt):
            filled.export(request(to=to), workers=1)
    name = next(n for n in far_tree(f"{to}/set-a") if n.startswith("gt/"))
    whole = far_tree(f"{to}/set-a")[name]
    FarStore(f"{to}/set-a").put_bytes(bytes(len(whole)), name)

    filled.export(request(to=to), check=True, workers=1)

    assert far_tree(f"{to}/set-a")[name] == whole


def test_nothing_in_a_store_is_overwritten(filled, to):
    filled.export(request(to=to), workers=1)
    before = far_tree(f"{to}/set-a")

    with pytest.raises(ExportExistsError, match="never overwritten"):
        filled.export(request(to=to, where="class = rain"), restart=True, workers=1)

    assert far_tree(f"{to}/set-a") == before


def test_a_place_with_foreign_files_is_left_alone(filled, to):
    FarStore(f"{to}/set-a").put_bytes(b"mine", "thesis.txt")

    with pytest.raises(ExportExistsError):
        filled.export(request(to=to), workers=1)

    assert far_tree(f"{to}/set-a") == {"thesis.txt": b"mine"}


def test_another_catalogs_unfinished_export_is_thrown_away_only_when_told(filled, to):
    far = FarStore(f"{to}/set-a")
    far.put_bytes(json.dumps({"schema": 1, "list_sha256": "0" * 64}).encode(), "unfinished.json")
    far.put_bytes(b"theirs", "gt/old.png")

    for _ in range(2):
        with pytest.raises(ExportInterruptedError, match="another list"):
            filled.export(request(to=to), workers=1)
    filled.export(request(to=to), restart=True, workers=1)

    found = far_tree(f"{to}/set-a")
    assert "gt/old.png" not in found
    assert "unfinished.json" not in found


def test_an_export_killed_after_its_manifest_arrived_is_acknowledged(filled, to, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(export_far.FarPlace, "tidy", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            filled.export(request(to=to), workers=1)

    report = filled.export(request(to=to), workers=1)

    assert (report.resumed, report.pairs) == (True, 8)
    assert "unfinished.json" not in far_tree(f"{to}/set-a")
    assert not list(filled.data.glob("exports/*"))


def test_a_dry_run_writes_nothing_anywhere(filled, to):
    planned = filled.export(request(to=to), dry_run=True)

    assert planned.pairs == 8
    assert far_tree(to) == {}
    assert not (filled.data / "exports").exists()


@pytest.mark.parametrize("kind", ["folder", "crops"])
def test_a_changed_picture_never_reaches_the_store_as_an_export(filled, to, kind):
    path = filled.data / "sessions" / "s1" / "pairs" / "lq" / "rain-000000.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)

    with pytest.raises(DamagedDataError, match=r"rain-000000\.png"):
        filled.export(request(kind, to=to), workers=1)

    assert "manifest.jsonl" not in far_tree(f"{to}/set-a")


def test_a_store_that_damages_what_it_takes_gets_no_manifest(filled, to, monkeypatch):
    real = FarStore.sha256
    monkeypatch.setattr(FarStore, "sha256", lambda self, name, **k: real(self, name, **k)[::-1])

    with pytest.raises(StoreError, match="reads back differently"):
        filled.export(request(to=to), workers=1)

    assert "manifest.jsonl" not in far_tree(f"{to}/set-a")


def test_an_interrupted_command_exits_6_and_says_how_to_go_on(filled, tmp_path, monkeypatch, capsys):
    """Even after `--restart`: what is said goes on, it does not start anew."""
    filled.close()
    arguments = ["catalog", "export", "set-a", "--format", "folder", "--to", f"file://{tmp_path}/my nas"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--restart", "--workers", "1", "--data", str(filled.data)])
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(SystemExit) as stopped:
            main()
    told = capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", shlex.split(told.partition("next: ")[2]))

    with pytest.raises(SystemExit) as finished:
        main()

    assert (stopped.value.code, finished.value.code or 0) == (6, 0)
    assert f"next: catalog export set-a --format folder --to 'file://{tmp_path}/my nas'" in told
    assert "--restart" not in told
    assert (tmp_path / "my nas" / "set-a" / "manifest.jsonl").is_file()
