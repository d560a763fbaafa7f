"""Audits of made-up datasets with known shifts, and of published pairs by path."""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor, Future
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from typer.testing import CliRunner

from alignment.audit import audit_bytes, audit_pairs, part_key, sample
from alignment.audit_pair import ecc_shift, local_shifts, parallax_verdict
from alignment.cli import app
from alignment.local_map import LocalMap
from alignment.photometry import standard_tone_curve
from alignment.tiles import TileGrid
from catalog.audit import read_audit
from catalog.errors import InvalidDocumentError
from catalog.executors import InlineExecutor, open_executor
from catalog.pair_folders import PairFiles, find_pairs

DATA = Path(os.environ.get("CLEANPLATE_SHARED", Path(__file__).parents[3] / "shared")) / "data"
TONE = standard_tone_curve("srgb")
SHIFTS = {"01Blur/0001": (0.0, 0.0), "01Blur/0002": (3.1, -0.4), "05Noise/0301": (0.25, 0.125)}


def scene():
    """A photograph of 640 px in linear light, without what the pixels of 320 px could not show."""
    photo = TONE.light_of(cv2.resize(skimage.data.astronaut(), (640, 640)))
    return cv2.GaussianBlur(photo, (0, 0), 1.4)


def moved(light, dx, dy):
    """The scene moved by its Fourier phase and halved: 320 px, exact to a thousandth of a pixel."""
    fy, fx = np.fft.fftfreq(640)[:, None, None], np.fft.rfftfreq(640)[None, :, None]
    spectrum = np.fft.rfft2(light, axes=(0, 1)) * np.exp(-4j * np.pi * (fx * dx + fy * dy))
    full = np.fft.irfft2(spectrum, s=(640, 640), axes=(0, 1)).astype(np.float32)
    small = cv2.resize(full, (320, 320), interpolation=cv2.INTER_AREA)
    return TONE.pixels(np.ascontiguousarray(small[20:-20, 20:-20]), np.dtype(np.uint8))


def saved(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two classes of FoundIR's layout with known shifts; one pair of two sizes, one damaged, one alone."""
    root, light = tmp_path_factory.mktemp("audit") / "set", scene()
    still = moved(light, 0, 0)
    for name, shift in SHIFTS.items():
        folder, number = name.split("/")
        saved(root / folder / "GT" / f"{number}.png", still)
        saved(root / folder / "LQ" / f"{number}.png", moved(light, *shift))
    saved(root / "05Noise" / "GT" / "0302.png", still)
    saved(root / "05Noise" / "LQ" / "0302.png", still[::2, ::2])
    saved(root / "05Noise" / "GT" / "0303.png", still)
    (root / "05Noise" / "LQ" / "0303.png").write_bytes(
        (root / "05Noise" / "LQ" / "0301.png").read_bytes()[:5000]
    )
    saved(root / "05Noise" / "GT" / "0304.png", still)
    return root


@pytest.fixture(scope="module")
def audited(dataset, tmp_path_factory):
    """The audit of the made-up dataset, in this process."""
    target = tmp_path_factory.mktemp("out") / "audit.json"
    record = audit_pairs(find_pairs(dataset), target, executor=InlineExecutor())
    return record, target


def test_known_shifts_are_found(audited):
    found = {p.pair: p.measured for p in audited[0].pairs if p.measured}

    for name, shift in SHIFTS.items():
        assert found[name].shift_px == pytest.approx(shift, abs=0.03)
        assert found[name].trustworthy
        assert found[name].parallax == "none"
        assert found[name].ecc_shift_px == pytest.approx(shift, abs=0.1)


def test_verdicts_and_classes_follow_from_the_shifts(audited):
    """Three pixels are misaligned; nothing and a quarter of a pixel are within half a pixel."""
    record = audited[0]
    blur, noise = record.groups

    assert {p.pair: p.verdict for p in record.pairs if p.measured} == {
        "01Blur/0001": "aligned",
        "01Blur/0002": "misaligned",
        "05Noise/0301": "aligned",
    }
    assert (blur.group, blur.pairs, blur.aligned, blur.misaligned) == ("01Blur", 2, 1, 1)
    assert (noise.pairs, noise.measured, noise.trusted) == (4, 1, 1)
    assert blur.epe_px_max == pytest.approx(np.hypot(3.1, 0.4), abs=0.03)


def test_what_cannot_be_measured_is_listed_with_the_reason(audited):
    problems = {p.pair: (p.problem, p.why) for p in audited[0].pairs if p.measured is None}

    assert {name: problem for name, (problem, _) in problems.items()} == {
        "05Noise/0302": "size_differs",
        "05Noise/0303": "unreadable",
        "05Noise/0304": "no_partner",
    }
    assert "super-resolution pair of scale 2" in problems["05Noise/0302"][1]
    assert "0303.png" in problems["05Noise/0303"][1]


def test_the_file_is_read_back_as_it_was(audited):
    record, target = audited

    assert read_audit(target) == record
    assert target.read_bytes() == audit_bytes(record)
    assert not target.with_name("audit.json.part").exists()


def test_no_path_of_this_machine_stands_in_the_audit(audited, dataset):
    assert str(dataset.parent) not in audited[1].read_text()


def test_processes_give_the_same_bytes(audited, dataset, tmp_path):
    target = tmp_path / "audit.json"

    with open_executor(workers=2) as executor:
        audit_pairs(find_pairs(dataset), target, executor=executor)

    assert target.read_bytes() == audited[1].read_bytes()


def test_a_dask_cluster_gives_the_same_bytes(audited, dataset, tmp_path, dask_cluster):
    target = tmp_path / "audit.json"

    with open_executor(dask=dask_cluster) as executor:
        audit_pairs(find_pairs(dataset), target, executor=executor)

    assert target.read_bytes() == audited[1].read_bytes()


class Interrupted(Executor):
    """Works until its patience ends, as a process that is killed."""

    def __init__(self, patience):
        self.done, self.patience = 0, patience

    def submit(self, fn, /, *args, **kwargs):
        if self.done >= self.patience:
            raise KeyboardInterrupt
        self.done += 1
        return InlineExecutor().submit(fn, *args, **kwargs)


class Counting(Executor):
    """Notes which pairs were measured anew: the others come back as the very answer that was known."""

    def __init__(self):
        self.anew = 0

    def submit(self, fn, job) -> Future:
        future = InlineExecutor().submit(fn, job)
        self.anew += job.known is None
        return future


def test_an_interrupted_audit_goes_on_and_ends_the_same(audited, dataset, tmp_path, monkeypatch):
    """Two of five are done when it ends; their lines are kept, a torn third is not, and three are left to do."""
    monkeypatch.setattr("alignment.audit.AHEAD", 1)
    target = tmp_path / "audit.json"
    with pytest.raises(KeyboardInterrupt):
        audit_pairs(find_pairs(dataset), target, executor=Interrupted(2))
    with target.with_name("audit.json.part").open("a") as part:
        part.write('{"pair": "05Noise/0301", "gro')
    rest = Counting()

    audit_pairs(find_pairs(dataset), target, executor=rest)

    assert rest.anew == 3
    assert target.read_bytes() == audited[1].read_bytes()


def test_a_file_that_changed_in_between_is_measured_anew(dataset, tmp_path):
    root = tmp_path / "set"
    for side in ("GT", "LQ"):
        saved(root / side / "1.png", moved(scene(), 0, 0))
    listing, target = find_pairs(root), tmp_path / "audit.json"
    part = target.with_name("audit.json.part")
    audit_pairs(listing, target, executor=InlineExecutor())
    known = read_audit(target).pairs[0]
    part.write_text(f"{part_key(root, 0.5)}\n{known.model_dump_json()}\n")
    saved(root / "LQ" / "1.png", moved(scene(), 1.0, 0))

    again = audit_pairs(listing, target, executor=InlineExecutor())

    assert known.measured.shift_px == pytest.approx((0, 0), abs=0.03)
    assert again.pairs[0].measured.shift_px == pytest.approx((1, 0), abs=0.03)


def test_a_sample_takes_from_every_class_and_is_always_the_same():
    pairs = [PairFiles(g, f"{k:04d}", Path("a"), Path("b")) for g in ("x", "y", "z") for k in range(50)]

    drawn = sample(pairs, 9)

    assert sorted(p.group for p in drawn) == ["x"] * 3 + ["y"] * 3 + ["z"] * 3
    assert drawn == sample(list(reversed(pairs)), 9)
    assert drawn != pairs[:9]


def test_the_command_writes_json_and_page_and_sums_up(dataset, tmp_path):
    target = tmp_path / "out" / "audit.json"

    result = CliRunner().invoke(
        app, ["audit", str(dataset), "-o", str(target), "--workers", "1", "--limit", "2", "--json"]
    )

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["offered"] == 5
    assert [g["group"] for g in document["groups"]] == ["01Blur", "05Noise"]
    assert read_audit(target).offered == 5
    assert "Worst pairs" in target.with_suffix(".html").read_text()


def test_a_file_that_is_no_audit_is_refused(tmp_path):
    path = tmp_path / "audit.json"
    path.write_text('{"schema": 1, "folder": 3}')

    with pytest.raises(InvalidDocumentError, match="no audit that this version reads: folder"):
        read_audit(path)


def leftover(shifts_px, *, foreign=0, sigma_px=0.02):
    """A local map of 100 tiles of which the first ones are shifted as given, and the first ``foreign`` are foreign."""
    grid = TileGrid.over((320, 320), scale=1, tile_px=32)
    innovation = np.zeros((100, 2))
    innovation[: len(shifts_px)] = np.reshape(shifts_px, (-1, 2))
    return LocalMap(
        grid=grid,
        centres_px=np.zeros((100, 2)),
        innovation_px=innovation,
        parallax_px=np.zeros((100, 2)),
        parallax_doubt_px=np.zeros((100, 2)),
        sigma_px=np.full(100, sigma_px),
        inlier=np.ones(100, bool),
        foreign=np.arange(100) < foreign,
        measured=np.ones(100, bool),
    )


ALONG = [(0.6, 0.01)] * 15 + [(-0.4, 0.0)] * 15
ABOUT = [(0.5 * np.cos(k), 0.5 * np.sin(k)) for k in range(30)]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (leftover([]), "none"),
        (leftover([(3.0, 0.0)] * 4), "none"),
        (leftover(ALONG), "parallax"),
        (leftover(ABOUT), "moving_object"),
        (leftover(ALONG, foreign=20), "moving_object"),
        (leftover(ALONG, sigma_px=0.5), "unknown"),
        (leftover([(0.2, 0.0)] * 60), "none"),
    ],
    ids=["still", "four tiles of a hundred", "one line", "all ways", "other content", "too unsure", "small"],
)
def test_parallax_is_told_by_what_the_parts_do(found, verdict):
    assert parallax_verdict(found) == verdict


def test_the_local_map_keeps_the_median_of_every_part():
    """All tiles in one part of the picture, 60 of 100 shifted by 0.3 px: the median is 0.3; one arrow."""
    crowd = leftover([(0.3, -0.1)] * 60)

    (arrow,) = local_shifts(crowd, (320, 320))

    assert (arrow.dx_px, arrow.dy_px) == (0.3, -0.1)


def test_ecc_gives_no_answer_where_there_is_no_structure():
    blank = np.full((64, 64, 3), 128, np.uint8)

    assert ecc_shift(blank, blank) is None


@pytest.mark.parametrize(
    ("folder", "pair", "low_px", "high_px"), [("foundir", "1118", 0.35, 0.5), ("foundir", "1006", 0.1, 0.25)]
)
def test_published_pairs_are_audited(tmp_path, folder, pair, low_px, high_px):
    """ECC finds 0.45 px in 1118 and 0.13 px in 1006 at the middle of the picture."""
    root = DATA / "pairs" / folder
    if not root.is_dir():
        pytest.skip(f"{root} is not there; set CLEANPLATE_SHARED")
    listing = find_pairs(root)
    only = type(listing)(listing.root, listing.layout, tuple(p for p in listing.pairs if p.name == pair), ())

    record = audit_pairs(only, tmp_path / "a.json", executor=InlineExecutor())

    assert low_px <= record.pairs[0].measured.epe_px <= high_px
