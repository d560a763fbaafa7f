"""Raw stills of the simulated rig: whole files that LibRaw opens, and pairs that come out of them."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from small_rig import run_rig, write_plan, write_profile
from test_stop_and_shoot import delivered_px

from alignment.decode import read_still
from alignment.pairing import align_session
from alignment.raw import develop
from catalog.session_folder import SessionFolder, file_sha256
from rig.sim.dng import dng
from rig.sim.sensor import RAW_BLACK, RAW_WHITE, mosaic
from rig.sim.truth import read_truth

rawpy = pytest.importorskip("rawpy")


def test_the_mosaic_has_red_first_and_blue_in_the_second_row():
    """White less black is 16127: a quarter is 256 + 4031.75, a half 8319.5 (rounded to even), three 12351.25."""
    signal = np.broadcast_to(np.array([0.25, 0.5, 0.75], np.float32), (4, 6, 3))

    codes = mosaic(signal)

    assert codes[0, 0] == codes[2, 4] == 4288
    assert codes[0, 1] == codes[1, 0] == 8320
    assert codes[1, 1] == codes[3, 5] == 12351


def test_what_clips_is_white_and_noise_below_black_is_kept():
    signal = np.array([[[1.5] * 3, [-0.01] * 3], [[0.0] * 3, [-1.0] * 3]], np.float32)

    codes = mosaic(signal)

    assert codes.tolist() == [[RAW_WHITE, RAW_BLACK - 161], [RAW_BLACK, 0]]


def test_a_raw_converter_reads_the_samples_back():
    rng = np.random.default_rng(5)
    codes = rng.integers(0, RAW_WHITE + 1, (48, 64)).astype(np.uint16)

    with rawpy.imread(io.BytesIO(dng(codes, neutral=(1.0, 1.0, 1.0)))) as raw:
        assert np.array_equal(raw.raw_image, codes)
        assert raw.black_level_per_channel == [RAW_BLACK] * 4
        assert raw.white_level == RAW_WHITE
        assert raw.raw_pattern.tolist() == [[0, 1], [3, 2]]


@pytest.mark.parametrize("neutral", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.25)])
def test_grey_light_is_developed_to_its_srgb_code_whatever_the_body_took_for_grey(
    tmp_path: Path, neutral: tuple[float, float, float]
):
    """Light of 0.2 is sRGB 0.4845, code 123.5; ground truth and degraded stills get the same development."""
    codes = mosaic(np.full((64, 96, 3), 0.2, np.float32))
    path = tmp_path / "grey.nef"
    path.write_bytes(dng(codes, neutral=neutral))

    developed = develop(path)

    assert developed.shape == (64, 96, 3)
    assert np.abs(developed.astype(int) - 123.5).max() <= 1.5


def test_brightness_does_not_follow_the_brightest_place_of_a_picture(tmp_path: Path):
    """The same grey of 0.2 beside light of 0.5 and of 0.8; LibRaw would take 0.8 for white by its own choice."""
    codes = []
    for brightest in (0.5, 0.8):
        light = np.full((64, 96, 3), 0.2, np.float32)
        light[:, 60:] = brightest
        path = tmp_path / f"{brightest}.dng"
        path.write_bytes(dng(mosaic(light), neutral=(1.0, 1.0, 1.0)))
        codes.append(np.median(develop(path)[:, :40]))

    assert codes == [pytest.approx(123.5, abs=1), codes[0]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a session of two stop-and-shoot rounds, raw and JPEG, nine stops 1.25 mm apart."""
    folder = tmp_path_factory.mktemp("raw")
    profile = write_profile(folder, width=640, height=360)
    document = yaml.safe_load(profile.read_text())
    document["cameras"]["main"]["still_format"] = "raw+jpeg"
    profile.write_text(yaml.safe_dump(document))
    stops = [{"stop_and_shoot": {"step_mm": 1.25, "settle_s": 0.2}} for _ in range(2)]
    noise = {"set": {"iso": 1600, "exposure_s": 0.0003125}, "degradations": ["noise"]}
    plan = write_plan(
        folder,
        sweep={"start_mm": 100, "end_mm": 110, "velocity_mm_s": 40},
        rounds=[
            {"name": "gt", "role": "gt", **stops[0]},
            {"name": "noise", "role": "internal", **noise, **stops[1]},
        ],
    )
    done = run_rig("record", plan, "--profile", profile, "--data", folder / "data", timeout_s=170)
    assert done.returncode == 0, done.stderr
    return folder / "data"


def only_session(data: Path) -> SessionFolder:
    (session,) = (data / "sessions").iterdir()
    return SessionFolder(session)


@pytest.mark.timeout(200)
def test_raw_files_are_the_frames_of_a_round_and_stay_as_the_camera_wrote_them(recorded: Path):
    """The simulator keeps its truth by the hash of what it wrote: a file that anybody touched has none."""
    take = only_session(recorded).valid_takes()["gt"]

    record = take.record()

    names = record.cameras["main"].files
    assert [Path(n).name for n in names] == [f"{k:06d}.nef" for k in range(9)]
    kept = {Path(f.path).name for f in record.files}
    assert {f"{k:06d}.jpg" for k in range(9)} <= kept
    for file in (f for f in record.files if f.path in names):
        assert file_sha256(take.folder / file.path) == file.sha256
        assert len(read_truth(recorded, file.sha256)) == 1


@pytest.mark.timeout(200)
def test_both_files_of_a_picture_show_the_same(recorded: Path):
    """Away from edges, where demosaicing invents two of three colours, they differ by rounding and JPEG alone."""
    folder = only_session(recorded).valid_takes()["gt"].folder / "main"

    raw, jpeg = (cv2.GaussianBlur(read_still(folder / f"000004.{s}"), (0, 0), 3) for s in ("nef", "jpg"))

    assert np.median(np.abs(raw.astype(int) - jpeg)) <= 1


@pytest.mark.timeout(200)
def test_raw_stills_become_aligned_pairs(recorded: Path):
    folder = only_session(recorded)

    alignment = align_session(folder, workers=1)

    assert [r.verdict for r in alignment.rounds] == ["used", "used"], alignment.warnings
    accepted = [p for p in folder.pairs() if p.verdict == "accepted"]
    assert len(accepted) >= 7, [p.reasons for p in folder.pairs()]
    takes = folder.valid_takes()
    assert np.median([delivered_px(p, takes, recorded) for p in accepted]) < 0.1
