"""Exports: what they hold, how they lie on disk, and what an interruption leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from postgres_server import address_of

from catalog import export_files
from catalog.errors import DamagedDataError
from catalog.export import ExportExistsError, ExportInterruptedError
from catalog.export_files import ExportBusyError, private_folder
from catalog.export_list import EmptyExportError, ExportNameError, ExportRequest
from catalog.manifest import read_manifest
from catalog.splits import SplitError, SplitRule

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def filled(catalog, make_session):
    """Four scenes; scene-3 is the test part of split ``mine``, the others train."""
    for i in range(4):
        make_session(f"s{i}", scene=f"scene-{i}", counts={"iso6400": 3, "rain": 2, "snow": 1})
        catalog.add(f"s{i}")
    catalog.split("mine", SplitRule(scenes={"scene-3": "test"}))
    return catalog


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder_layout_is_what_basicsr_reads(filled):
    """BasicSR takes the first word of a line, opens gt/<it> and looks for lq/<plain name of it>."""
    report = filled.export(ExportRequest("set-a", "folder", split="mine"))

    assert report.folder == filled.data / "exports" / "set-a"
    for name, part in (
        ("meta_info.txt", None),
        ("meta_info_train.txt", "train"),
        ("meta_info_test.txt", "test"),
    ):
        wanted = [row for row in read_manifest(report.folder) if part in {None, row.split}]
        lines = (report.folder / name).read_text().splitlines()
        assert len(lines) == len(wanted) > 0
        for line, row in zip(lines, wanted, strict=True):
            gt_name = line.split(" ")[0]
            base, suffix = os.path.splitext(os.path.basename(gt_name))  # noqa: PTH119, PTH122
            with Image.open(report.folder / "gt" / gt_name) as gt:
                assert line.endswith(f"({gt.height},{gt.width},3)")
            assert (report.folder / "lq" / f"{base}{suffix}").is_file()
            assert (row.gt, row.lq) == (f"gt/{gt_name}", f"lq/{gt_name}")
    assert (report.folder / "meta_info_val.txt").read_text() == ""


def test_the_foundir_layout_is_what_foundir_reads(filled):
    """Its loader splits a line at comma and space: GT path first, both relative to the root."""
    report = filled.export(ExportRequest("set-b", "foundir", split="mine"))

    listed = []
    for part in ("train", "test"):
        for line in (report.folder / f"set-b_{part}_meta_info.txt").read_text().splitlines():
            gt, lq = line.split(", ")
            assert (report.folder / gt).is_file()
            assert (report.folder / lq).is_file()
            listed.append((gt, lq))
    assert listed[0] == ("05Noise/GT/0001.png", "05Noise/LQ/0001.png")
    assert {Path(gt).parent.as_posix() for gt, _ in listed} == {"05Noise/GT", "10Rain/GT"}
    numbers = sorted(int(Path(gt).stem) for gt, _ in listed)
    assert numbers == list(range(1, 21))
    single = (report.folder / "set-b_single_train_meta_info.txt").read_text()
    assert single == (report.folder / "set-b_train_meta_info.txt").read_text()
    assert report.left_out == {"no FoundIR class": 4, "rejected": 12}


def test_the_manifest_leads_back_to_every_pair(filled):
    report = filled.export(ExportRequest("set-a", "folder", split="mine"))

    rows = list(read_manifest(report.folder))
    assert len(rows) == report.pairs == 24
    noisy = next(row for row in rows if row.id == "s2/iso6400-000001")
    assert (noisy.scene, noisy.session, noisy.round) == ("scene-2", "s2", "iso6400")
    assert noisy.settings == {"iso": 6400, "f_number": 8.0, "exposure_s": 0.001}
    assert (noisy.mu, noisy.sigma, noisy.source) == (0.1, 0.02, "captured")
    assert (noisy.width, noisy.height) == (6, 4)
    details = filled.show(noisy.id)
    assert noisy.sha256_lq == details.files["lq"].sha256
    assert hashlib.sha256((report.folder / noisy.lq).read_bytes()).hexdigest() == noisy.sha256_lq
    assert noisy.mask is not None
    assert (report.folder / noisy.mask).is_file()


def test_no_scene_stands_in_two_parts(filled):
    report = filled.export(ExportRequest("set-a", "folder", split="mine"))

    parts = {(row.scene, row.split) for row in read_manifest(report.folder)}
    assert parts == {("scene-0", "train"), ("scene-1", "train"), ("scene-2", "train"), ("scene-3", "test")}


def test_the_sums_cover_every_file(filled):
    report = filled.export(ExportRequest("set-a", "folder"))

    sums = dict(
        reversed(line.split("  ")) for line in (report.folder / "SHA256SUMS").read_text().splitlines()
    )
    files = tree(report.folder)
    del files["SHA256SUMS"]
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_the_record_names_query_catalog_split_and_counts(filled):
    request = ExportRequest("set-a", "folder", where="class = noise", split="mine", balance=5)

    report = filled.export(request)

    record = json.loads((report.folder / "export.json").read_text())
    assert record["where"] == "class = noise"
    assert record["split_rule"]["scenes"] == {"scene-3": "test"}
    assert record["catalog"]["content_sha256"] == filled.content_hash()
    assert record["pairs"] == 5
    assert record["left_out"] == {"balance": 7, "rejected": 4}
    assert (
        record["manifest_sha256"]
        == hashlib.sha256((report.folder / "manifest.jsonl").read_bytes()).hexdigest()
    )


def test_the_same_catalog_and_request_give_the_same_bytes(filled):
    request = ExportRequest("set-a", "folder", split="mine")
    first = filled.export(request)
    one = tree(first.folder)
    first.folder.rename(first.folder.with_name("moved-away"))

    second = filled.export(request)

    assert tree(second.folder) == one


def test_a_balanced_choice_is_not_reshuffled_by_growth(filled, make_session):
    """Pairs are chosen by the smallest keys of their class: new pairs can only take places, not shuffle."""
    first = filled.export(ExportRequest("small", "folder", balance=4))
    chosen = {row.id for row in read_manifest(first.folder)}

    make_session("s9", scene="scene-9", counts={"rain": 2})
    filled.add("s9")
    second = filled.export(ExportRequest("small-2", "folder", balance=4))

    again = {row.id for row in read_manifest(second.folder)}
    assert first.classes.keys() == {"noise", "rain", "snow"}
    assert [sum(parts.values()) for parts in first.classes.values()] == [4, 4, 4]
    assert {uid for uid in again - chosen if not uid.startswith("s9/")} == set()


def test_files_are_linked_and_read_only(filled):
    report = filled.export(ExportRequest("set-a", "folder"))

    row = next(read_manifest(report.folder))
    source = Path(filled.show(row.id).files["gt"].path)
    assert (report.folder / row.gt).samefile(source)
    assert (report.folder / row.gt).stat().st_mode & 0o222 == 0


def test_files_are_copied_where_links_are_impossible(filled, monkeypatch):
    def refuse(*_arguments, **_options):
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(export_files.os, "link", refuse)
    report = filled.export(ExportRequest("set-a", "folder"))

    row = next(read_manifest(report.folder))
    assert not (report.folder / row.gt).samefile(filled.show(row.id).files["gt"].path)
    assert hashlib.sha256((report.folder / row.gt).read_bytes()).hexdigest() == row.sha256_gt
    assert not [name for name in tree(report.folder) if "copy" in name]


def test_only_accepted_and_whole_pairs_leave(filled):
    filled.reject(["s0/rain-000000"])
    (filled.data / "sessions" / "s1" / "pairs" / "lq" / "rain-000001.png").unlink()
    filled.add("s1")

    report = filled.export(ExportRequest("set-a", "folder"))

    ids = {row.id for row in read_manifest(report.folder)}
    assert len(ids) == 22
    assert not {"s0/rain-000000", "s1/rain-000001"} & ids
    assert report.left_out == {"quarantined": 1, "rejected": 13}


def test_a_dry_run_counts_and_writes_nothing(filled):
    before = set(tree(filled.data))

    planned = filled.export(ExportRequest("set-a", "folder", split="mine"), dry_run=True)

    assert set(tree(filled.data)) == before
    done = filled.export(ExportRequest("set-a", "folder", split="mine"))
    assert (planned.pairs, planned.classes, planned.left_out) == (done.pairs, done.classes, done.left_out)


def test_nothing_is_overwritten(filled):
    report = filled.export(ExportRequest("set-a", "folder"))
    before = tree(report.folder)

    with pytest.raises(ExportExistsError) as refused:
        filled.export(ExportRequest("set-a", "foundir"), restart=True)

    assert refused.value.exit_code == 2
    assert tree(report.folder) == before


def test_a_folder_that_stands_there_by_chance_is_not_touched(filled):
    stranger = filled.data / "exports" / "set-a"
    stranger.mkdir(parents=True)
    (stranger / "thesis.txt").write_text("mine")

    with pytest.raises(ExportExistsError):
        filled.export(ExportRequest("set-a", "folder"))

    assert tree(stranger) == {"thesis.txt": b"mine"}


def test_an_empty_choice_is_refused_and_leaves_nothing(filled):
    with pytest.raises(EmptyExportError, match=r"left out: \{'rejected': 12\}"):
        filled.export(ExportRequest("set-a", "folder", where="verdict = rejected"))

    assert not list((filled.data / "exports").iterdir())
    assert filled.export(ExportRequest("set-a", "folder")).pairs == 24


@pytest.mark.parametrize("name", ["../evil", "/abs/x", "A", "", ".hidden", "x" * 65, "a/b", "x.part"])
def test_a_name_that_is_no_safe_folder_is_refused(name):
    with pytest.raises(ExportNameError):
        ExportRequest(name)


def test_an_unknown_split_is_refused(filled):
    with pytest.raises(SplitError, match="did you mean 'mine'"):
        filled.export(ExportRequest("set-a", "folder", split="mien"))


def test_a_file_of_another_size_stops_the_export(filled):
    path = filled.data / "sessions" / "s1" / "pairs" / "lq" / "rain-000001.png"
    path.write_bytes(path.read_bytes() + b"x")

    with pytest.raises(DamagedDataError, match="bytes instead of"):
        filled.export(ExportRequest("set-a", "folder"))

    assert not (filled.data / "exports" / "set-a").exists()


def test_a_changed_content_is_found_by_check(filled):
    path = filled.data / "sessions" / "s1" / "pairs" / "lq" / "rain-000001.png"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)

    with pytest.raises(DamagedDataError, match=r"rain-000001\.png: its content is not what was recorded"):
        filled.export(ExportRequest("set-a", "folder"), check=True)


def test_a_link_in_place_of_a_source_is_not_exported(filled, tmp_path):
    path = filled.data / "sessions" / "s1" / "pairs" / "lq" / "rain-000001.png"
    secret = tmp_path / "secret"
    secret.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(secret)

    with pytest.raises(DamagedDataError, match="a link or folder"):
        filled.export(ExportRequest("set-a", "folder"))

    assert not any(p.is_symlink() for p in (filled.data / "exports").rglob("*"))


_KILLED_EXPORT = """
import os, signal, sys
from pathlib import Path
from catalog import Catalog
from catalog.export_list import ExportRequest

action, number, address, data = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
seen = 0

def watch(event, arguments):
    global seen
    if event == action and (action != "os.rename" or str(arguments[1]).endswith("set-a")):
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

with Catalog(address, data=data) as catalog:
    sys.addaudithook(watch)
    catalog.export(ExportRequest("set-a", "folder", split="mine"))
"""


def kill_export(catalog, action, number):
    where = (address_of(catalog), str(catalog.data))
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED_EXPORT, action, str(number), *where], check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL


def test_a_killed_export_is_finished_with_the_same_bytes(filled):
    """Killed at the first and the 30th of 72 links and before the final rename; then run to its end."""
    for action, number in (("os.link", 1), ("os.link", 30), ("os.rename", 1)):
        kill_export(filled, action, number)
        assert not (filled.data / "exports" / "set-a").exists()

    resumed = filled.export(ExportRequest("set-a", "folder", split="mine"))

    assert resumed.resumed
    bytes_resumed = tree(resumed.folder)
    resumed.folder.rename(filled.data / "away")
    fresh = filled.export(ExportRequest("set-a", "folder", split="mine"))
    assert not fresh.resumed
    assert tree(fresh.folder) == bytes_resumed


def test_an_interrupted_export_keeps_its_list_while_the_catalog_grows(filled, make_session):
    kill_export(filled, "os.link", 10)
    make_session("s9", scene="scene-9")
    filled.add("s9")

    report = filled.export(ExportRequest("set-a", "folder", split="mine"))

    assert (report.resumed, report.pairs) == (True, 24)


def test_an_interrupted_export_of_pairs_that_changed_since_asks_for_a_restart(filled):
    kill_export(filled, "os.link", 10)
    filled.data.joinpath("sessions", "s0", "pairs.jsonl").write_text(
        filled.data.joinpath("sessions", "s0", "pairs.jsonl").read_text().replace('"mu":0.1', '"mu":0.3')
    )
    filled.add("s0")

    with pytest.raises(ExportInterruptedError, match="have changed"):
        filled.export(ExportRequest("set-a", "folder", split="mine"))
    report = filled.export(ExportRequest("set-a", "folder", split="mine"), restart=True)

    assert not report.resumed
    assert {row.mu for row in read_manifest(report.folder)} == {0.1, 0.3}


def test_another_request_does_not_continue_an_interrupted_export(filled):
    kill_export(filled, "os.link", 10)

    with pytest.raises(ExportInterruptedError, match="another request"):
        filled.export(ExportRequest("set-a", "folder"))


def test_an_export_killed_after_it_got_its_name_is_acknowledged(filled):
    report = filled.export(ExportRequest("set-a", "folder", split="mine"))
    with filled.database.write() as connection:
        connection.exec_driver_sql("UPDATE exports SET state = 'running'")

    again = filled.export(ExportRequest("set-a", "folder", split="mine"))

    assert again.resumed
    assert again.pairs == report.pairs
    with pytest.raises(ExportExistsError):
        filled.export(ExportRequest("set-a", "folder", split="mine"))


def test_two_processes_do_not_write_one_export(filled):
    with private_folder(filled.data / "exports" / "set-a.part"), pytest.raises(ExportBusyError):
        filled.export(ExportRequest("set-a", "folder"))


def test_a_link_in_place_of_the_working_folder_is_not_followed(filled, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (filled.data / "exports").mkdir()
    (filled.data / "exports" / "set-a.part").symlink_to(target)

    with pytest.raises(Exception, match="not a folder of ours"):
        filled.export(ExportRequest("set-a", "folder"))

    assert not list(target.iterdir())
