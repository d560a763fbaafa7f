"""Existing paired datasets become sessions like any other."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from catalog.audit import AuditPair, AuditRecord, PairMeasurement
from catalog.bare_png import bare_png
from catalog.cli import app
from catalog.cli_options import StoppedError
from catalog.database import DamagedDatabaseError
from catalog.evidence import BlurRecord
from catalog.executors import InlineExecutor
from catalog.export_files import ExportBusyError, new_file, private_folder
from catalog.export_list import ExportRequest
from catalog.import_pairs import (
    ImportedPairsExistError,
    ImportInterruptedError,
    ImportOptions,
    NothingToImportError,
    import_pairs,
)
from catalog.manifest import read_manifest
from catalog.pair_folders import find_pairs
from catalog.records import Degradation, degradations_in

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def picture(seed: int, *, size=(24, 16), dtype=np.uint8) -> np.ndarray:
    width, height = size
    return np.random.default_rng(seed).integers(
        0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True
    )


def put(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def foundir(tmp_path):
    """Two classes in FoundIR's layout, three and two pairs."""
    root = tmp_path / "FoundIR-test"
    for group, count in (("05Noise", 3), ("17Lowlight_JPEG", 2)):
        for i in range(count):
            put(root / group / "GT" / f"{i:04d}.png", picture(i))
            put(root / group / "LQ" / f"{i:04d}.png", picture(i + 50))
    return root


def take(root, data, **options):
    request = ImportOptions("theirs", **options)
    return import_pairs(find_pairs(root), data, request, executor=InlineExecutor())


def take_on(root, data, **how):
    return import_pairs(find_pairs(root), data, ImportOptions("theirs"), executor=InlineExecutor(), **how)


def test_every_class_becomes_a_session_with_its_degradations(foundir, catalog):
    report = take(foundir, catalog.data)
    for session in report.sessions:
        catalog.add(session)

    assert report.sessions == ("theirs-05noise", "theirs-17lowlight_jpeg")
    assert (report.pairs, report.left_out) == (5, ())
    pairs = catalog.find()
    assert {p.degradation_class for p in pairs} == {"noise", "jpeg+low_light"}
    assert {p.scene for p in pairs} == {"theirs"}
    assert catalog.verify().findings == ()


def test_imported_pairs_are_exported_as_imported_with_the_pixels_they_had(foundir, catalog):
    for session in take(foundir, catalog.data).sessions:
        catalog.add(session)

    folder = catalog.export(ExportRequest("set-a", "folder", where="class = 'noise'")).folder

    rows = list(read_manifest(folder))
    assert [row.source for row in rows] == ["imported"] * 3
    for i, row in enumerate(rows):
        assert np.array_equal(cv2.imread(str(folder / row.gt)), picture(i))
        difference = np.abs(picture(i).astype(float) - picture(i + 50)) / 255
        assert row.mu == pytest.approx(difference.mean(), abs=1e-6)
        assert row.sigma == pytest.approx(difference.std(), abs=1e-6)


def test_a_catalog_that_is_rebuilt_has_them_too(foundir, catalog):
    for session in take(foundir, catalog.data).sessions:
        catalog.add(session)
    before = catalog.content_hash()
    assert catalog.rebuild().content_sha256 == before


def test_importing_twice_is_refused_and_changes_nothing(foundir, data):
    take(foundir, data)
    before = {p: p.stat().st_mtime_ns for p in data.rglob("*")}
    with pytest.raises(ImportedPairsExistError, match="theirs-05noise"):
        take(foundir, data)
    assert {p: p.stat().st_mtime_ns for p in data.rglob("*")} == before


def test_a_suffix_that_lies_is_not_believed(tmp_path, data):
    root = tmp_path / "set"
    put(root / "gt" / "a.png", picture(1))
    put(tmp_path / "real.jpg", picture(2))
    (root / "lq").mkdir()
    (tmp_path / "real.jpg").rename(root / "lq" / "a.png")

    report = take(root, data)

    written = data / "sessions" / report.sessions[0] / "pairs" / "lq" / "lq-000000.png"
    assert written.read_bytes().startswith(b"\x89PNG")
    assert np.array_equal(cv2.imread(str(written)), cv2.imread(str(root / "lq" / "a.png")))


def test_sixteen_bits_stay(tmp_path, data):
    root = tmp_path / "deep"
    put(root / "gt" / "a.png", picture(1, dtype=np.uint16))
    put(root / "lq" / "a.tif", picture(2, dtype=np.uint16))
    session = data / "sessions" / take(root, data).sessions[0]
    for side, seed in (("gt", 1), ("lq", 2)):
        written = cv2.imread(str(session / "pairs" / side / "lq-000000.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(written, picture(seed, dtype=np.uint16))


def test_what_a_file_tells_about_its_maker_stays_behind(tmp_path, data):
    root = tmp_path / "set"
    for side, seed in (("gt", 1), ("lq", 2)):
        (root / side).mkdir(parents=True)
        secret, exif = PngInfo(), Image.Exif()
        secret.add_text("Author", "Jane of 5 Elm Street")
        exif[0x013B] = "Jane of 5 Elm Street"
        Image.fromarray(picture(seed)).save(root / side / "a.png", pnginfo=secret, exif=exif)
    assert b"Elm Street" in (root / "gt" / "a.png").read_bytes()

    session = data / "sessions" / take(root, data).sessions[0]

    written = (session / "pairs" / "gt" / "lq-000000.png").read_bytes()
    assert b"Elm Street" not in written
    assert np.array_equal(np.asarray(Image.open(session / "pairs" / "gt" / "lq-000000.png")), picture(1))


def test_where_each_picture_came_from_is_kept(foundir, data):
    session = data / "sessions" / take(foundir, data).sessions[0]
    first = json.loads((session / "imported.jsonl").read_text().splitlines()[0])
    source = foundir / "05Noise" / "LQ" / "0000.png"
    assert first == {
        "pair": "lq-000000",
        "gt": "05Noise/GT/0000.png",
        "lq": "05Noise/LQ/0000.png",
        "sha256_gt": hashlib.sha256((foundir / "05Noise" / "GT" / "0000.png").read_bytes()).hexdigest(),
        "sha256_lq": hashlib.sha256(source.read_bytes()).hexdigest(),
    }


def test_pairs_that_cannot_be_used_are_left_out_and_named(foundir, data):
    (foundir / "05Noise" / "LQ" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    put(foundir / "05Noise" / "LQ" / "0002.png", picture(9, size=(30, 16)))
    put(foundir / "05Noise" / "LQ" / "0099.png", picture(9))

    report = take(foundir, data)

    assert report.pairs == 3
    assert {(p.pair, p.why) for p in report.left_out} == {
        ("05Noise/0001", "0001.png is no picture of 8 or 16 bits that can be read"),
        ("05Noise/0002", "the ground truth is (24, 16), the degraded picture (30, 16)"),
        ("05Noise/0099", "no ground truth of this name"),
    }


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 3), (".png", 3), (".png", 1)])
def test_a_picture_whose_end_is_missing_is_left_out(foundir, data, suffix, channels):
    """A copy that broke off would become training data, grey where the rest should be."""
    _, encoded = cv2.imencode(suffix, picture(1, size=(240, 160))[..., :channels])
    for side in ("GT", "LQ"):
        (foundir / "05Noise" / side / "0001.png").write_bytes(encoded.tobytes()[: -len(encoded) // 4])

    report = take(foundir, data)

    assert report.pairs == 4
    assert [out.pair for out in report.left_out] == ["05Noise/0001"]


def test_a_dataset_without_one_good_pair_leaves_nothing_behind(tmp_path, data):
    for side in ("gt", "lq"):
        (tmp_path / "set" / side).mkdir(parents=True)
        (tmp_path / "set" / side / "a.png").write_bytes(b"no picture")
    with pytest.raises(NothingToImportError, match=r"a\.png is no picture"):
        take(tmp_path / "set", data)
    assert list((data / "sessions").iterdir()) == []


def measured(*, epe_px: float) -> PairMeasurement:
    return PairMeasurement(
        shift_px=(epe_px, 0.0), epe_px=epe_px, epe_p95_px=epe_px, rotation_deg=(0.0, 0.0, 0.0), scale=1.0,
        homography=IDENTITY, predicted_error_px=0.04, local_p90_px=None, local_map=(), masked_share=0.0,
        parallax="none", ecc_shift_px=None, blur=BlurRecord(kind="none", size_px=0.0), exposure_ratio=1.0,
        trustworthy=True, confidence=0.9,
    )  # fmt: skip


def test_an_audit_brings_residuals_and_rejects_what_is_misaligned(foundir, catalog):
    facts = {
        "group": "05Noise",
        "gt": "x",
        "lq": "x",
        "sha256_gt": None,
        "sha256_lq": None,
        "width": 24,
        "height": 16,
    }
    audit = AuditRecord(
        folder="FoundIR-test", layout="folders", versions={}, aligned_px=0.5, offered=5, groups=(),
        pairs=(
            AuditPair(pair="05Noise/0000", verdict="aligned", measured=measured(epe_px=0.1), **facts),
            AuditPair(pair="05Noise/0001", verdict="misaligned", measured=measured(epe_px=3.3), **facts),
        ),
    )  # fmt: skip

    for session in take(foundir, catalog.data, audit=audit).sessions:
        catalog.add(session)

    found = {p.id: p for p in catalog.find("class = 'noise'")}
    assert found["theirs-05noise/lq-000000"].residual_px == pytest.approx(0.1)
    assert found["theirs-05noise/lq-000000"].status == "accepted"
    assert found["theirs-05noise/lq-000001"].status == "rejected"
    assert found["theirs-05noise/lq-000002"].residual_px is None


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("05Noise", {"noise"}),
        ("18Lowlight_Blur_Noise", {"low_light", "motion_blur", "noise"}),
        ("test/Rain100H", {"rain"}),
        ("derain", {"rain"}),
        ("RainDrop", {"raindrop"}),
        ("LOL-v2/low-light", {"low_light"}),
        ("defocus", {"defocus_blur"}),
        ("SIDD", set()),
    ],
)
def test_degradations_are_read_off_folders(folder, expected):
    assert {d.value for d in degradations_in(folder)} == expected


def test_a_png_cut_short_is_refused():
    _, png = cv2.imencode(".png", picture(1))
    whole = png.tobytes()
    assert bare_png(whole) == whole
    for end in (9, 30, len(whole) - 13, len(whole) - 12):
        with pytest.raises(ValueError, match="PNG"):
            bare_png(whole[:end])


def test_the_command_imports_adds_and_says_what_was_left_out(foundir, data):
    (foundir / "05Noise" / "LQ" / "0001.png").write_bytes(b"no picture")
    arguments = [
        "import-pairs",
        str(foundir),
        "--data",
        str(data),
        "--name",
        "theirs",
        "--workers",
        "1",
        "--json",
    ]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["sessions"] == ["theirs-05noise", "theirs-17lowlight_jpeg"]
    assert told["pairs"] == 4
    assert [p["pair"] for p in told["left_out"]] == ["05Noise/0001"]


def test_given_degradations_win_over_names(foundir, data, catalog):
    report = take(foundir, data, degradations=(Degradation.SNOW,))
    for session in report.sessions:
        catalog.add(session)
    assert {p.degradation_class for p in catalog.find()} == {"snow"}


def _content(data) -> dict[str, bytes]:
    """Every file of the sessions; the time of the import, and what hangs on it, left out."""
    files = {p.relative_to(data).as_posix(): p for p in data.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name != "session.json"}


def _written(data) -> set[tuple[int, int]]:
    """Every picture of the sessions, wherever it was moved: the file itself and when it was written."""
    return {(p.stat().st_ino, p.stat().st_mtime_ns) for p in data.rglob("*.png")}


def _stop_after(pairs: int) -> Callable[[float], None]:
    """Interrupt an import at its next pair once so many are done."""
    done = []

    def progress(amount: float) -> None:
        done.append(amount)
        if len(done) >= pairs:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("pairs", range(1, 6))
def test_an_interrupted_import_goes_on_and_equals_one_that_was_not(foundir, tmp_path, data, pairs):
    """The three pairs of the first class and two of the second, stopped behind each: nothing is written twice."""
    undisturbed, added = tmp_path / "undisturbed", []
    take(foundir, undisturbed)
    with pytest.raises(KeyboardInterrupt):
        take_on(foundir, data, progress=_stop_after(pairs))
    before = _written(data)

    report = take_on(foundir, data, add=added.append)

    assert len(before) == 2 * pairs
    assert before <= _written(data)
    assert added == list(report.sessions) == ["theirs-05noise", "theirs-17lowlight_jpeg"]
    assert report.pairs == 5
    assert _content(data) == _content(undisturbed)
    assert not list(data.glob("sessions/.*"))


def test_an_import_killed_at_any_pair_goes_on(foundir, tmp_path, data):
    """SIGKILL behind the fourth pair: the first class is whole, the second half done and its last note cut short."""
    take(foundir, tmp_path / "undisturbed")
    killed = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom catalog.executors import InlineExecutor\n"
        "from catalog.import_pairs import ImportOptions, import_pairs\nfrom catalog.pair_folders import find_pairs\n"
        "done = []\n"
        "def progress(n):\n    done.append(n)\n    len(done) == 4 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_pairs(find_pairs(Path(sys.argv[1])), Path(sys.argv[2]), ImportOptions('theirs'),"
        " executor=InlineExecutor(), progress=progress)\n"
    )
    ended = subprocess.run([sys.executable, "-c", killed, str(foundir), str(data)], check=False, timeout=50)
    notes = data / "sessions" / ".theirs.importing" / "theirs-17lowlight_jpeg.jsonl"
    with notes.open("ab") as file:
        file.write(b'{"number":1,"outc')

    report = take(foundir, data)

    assert ended.returncode == -signal.SIGKILL
    assert report.pairs == 5
    assert _content(data) == _content(tmp_path / "undisturbed")


def test_a_picture_that_changed_since_the_interruption_is_read_again(foundir, data):
    with pytest.raises(KeyboardInterrupt):
        take_on(foundir, data, progress=_stop_after(2))
    put(foundir / "05Noise" / "LQ" / "0000.png", picture(77))
    (
        data / "sessions" / ".theirs.importing" / "theirs-05noise" / "pairs" / "gt" / "lq-000001.png"
    ).write_bytes(b"?")

    session = data / "sessions" / take(foundir, data).sessions[0]

    assert np.array_equal(cv2.imread(str(session / "pairs" / "lq" / "lq-000000.png")), picture(77))
    assert np.array_equal(cv2.imread(str(session / "pairs" / "gt" / "lq-000001.png")), picture(1))


def test_what_was_left_out_before_the_interruption_is_said_afterwards(foundir, data):
    (foundir / "05Noise" / "LQ" / "0001.png").write_bytes(b"no picture")
    with pytest.raises(KeyboardInterrupt):
        take_on(foundir, data, progress=_stop_after(4))

    report = take(foundir, data)

    assert (report.pairs, [out.pair for out in report.left_out]) == (4, ["05Noise/0001"])


def test_another_request_does_not_go_on_with_an_interrupted_import(foundir, data):
    """The first class is finished and stays whatever is asked; what is half done can be thrown away."""
    with pytest.raises(KeyboardInterrupt):
        take_on(foundir, data, progress=_stop_after(4))
    before = _content(data)

    with pytest.raises(ImportInterruptedError, match=r"another request.*--restart"):
        take(foundir, data, degradations=(Degradation.SNOW,))
    assert _content(data) == before
    with pytest.raises(ImportedPairsExistError, match="theirs-05noise"):
        take_on(foundir, data, restart=True)
    with (
        private_folder(data / "sessions" / ".theirs.importing"),
        pytest.raises(ExportBusyError, match="import"),
    ):
        take(foundir, data)


def test_a_full_disk_leaves_no_pair_out(foundir, data, monkeypatch):
    """A pair that could not be written is no pair that cannot be used: the import ends, and goes on."""

    def refuse(path):
        if path.name == "lq-000002.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return new_file(path)

    monkeypatch.setattr("catalog.taken_pairs.new_file", refuse)
    with pytest.raises(OSError, match="No space left"):
        take(foundir, data)
    monkeypatch.undo()

    assert take(foundir, data).pairs == 5


def test_a_catalog_that_cannot_take_them_is_told_before_anything_is_read(foundir, data):
    (data / "catalog.db").write_bytes(b"no database at all, but long enough to be looked at " * 4)

    ended = CliRunner().invoke(app, ["import-pairs", str(foundir), "--data", str(data), "--workers", "1"])

    assert isinstance(ended.exception, DamagedDatabaseError)
    assert not (data / "sessions").exists()


def test_an_import_of_nothing_makes_no_catalog(tmp_path, data):
    put(tmp_path / "set" / "gt" / "a.png", picture(1))
    put(tmp_path / "set" / "lq" / "a.png", picture(1, size=(30, 16)))

    ended = CliRunner().invoke(
        app, ["import-pairs", str(tmp_path / "set"), "--data", str(data), "--workers", "1"]
    )

    assert isinstance(ended.exception, NothingToImportError)
    assert not (data / "catalog.db").exists()


def test_the_command_says_how_an_interrupted_import_goes_on(foundir, data, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["catalog", "import-pairs", str(foundir), "--restart"])
    monkeypatch.setattr("catalog.import_pairs.take_over", lambda _: os.kill(os.getpid(), signal.SIGTERM))

    ended = CliRunner().invoke(app, ["import-pairs", str(foundir), "--data", str(data), "--workers", "1"])

    assert isinstance(ended.exception, StoppedError)
    assert ended.exception.next_step == f"catalog import-pairs {foundir}"
