"""Recordings made elsewhere enter as a session, or are refused with one clear message and no session."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from alignment.errors import DecodeError
from catalog.errors import InvalidDocumentError, SessionFolderError
from catalog.session_folder import SessionFolder, file_sha256
from rig.errors import FootageError
from rig.footage import import_footage

SHEET = """
schema: 1
scene: shelf
board: {columns: 7, rows: 5, square_mm: 40, marker_mm: 30, dictionary: DICT_4X4_50}
rounds:
  - {name: gt, files: gt.mov, role: gt, settings: {iso: 100, exposure_s: 0.002}}
  - {name: rain, files: rain/, role: external, degradations: [rain], timestamps: rain/times.csv,
     telemetry: rain/rail.csv}
"""


def write_movie(path: Path, *, frames: int = 12, size: tuple[int, int] = (64, 48)) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, 25)
        for k in range(frames):
            picture = np.full((size[1], size[0], 3), 5 * k, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def footage(tmp_path) -> Path:
    folder = tmp_path / "footage"
    (folder / "rain").mkdir(parents=True)
    (folder / "session.yaml").write_text(SHEET)
    write_movie(folder / "gt.mov")
    for k in range(3):
        Image.new("RGB", (64, 48), (9 * k, 0, 0)).save(folder / "rain" / f"{k}.png")
    (folder / "rain" / "times.csv").write_text("file,time_s\n0.png,0.5\n1.png,0.75\n2.png,1.0\n")
    (folder / "rain" / "rail.csv").write_text("t_host_s,position_mm,velocity_mm_s,state\n0.5,10,20,moving\n")
    return folder


def no_session_was_made(data: Path) -> bool:
    return not list((data / "sessions").glob("*")) if (data / "sessions").is_dir() else True


def test_movies_and_stills_become_takes_with_their_own_times(footage, tmp_path):
    session = SessionFolder(import_footage(footage, data=tmp_path / "data"))

    takes = session.valid_takes()
    gt, rain = takes["gt"], takes["rain"]
    assert session.record().source == "imported"
    assert [f.t_host_s for f in gt.frames("main")] == pytest.approx([k / 25 for k in range(12)])
    assert [f.t_host_s for f in rain.frames("main")] == [0.5, 0.75, 1.0]
    assert rain.telemetry()[0].position_mm == 10
    assert gt.record().cameras["main"].settings_read.iso == 100
    assert rain.record().cameras["main"].kind == "stills"


def test_the_original_bytes_are_copied_and_their_hashes_recorded(footage, tmp_path):
    session = SessionFolder(import_footage(footage, data=tmp_path / "data"))

    gt = session.valid_takes()["gt"]
    recorded = {f.path: f.sha256 for f in gt.record().files}
    assert (
        recorded["main-01.mov"] == file_sha256(footage / "gt.mov") == file_sha256(gt.folder / "main-01.mov")
    )


def test_files_that_the_sheet_does_not_name_are_ignored(footage, tmp_path):
    (footage / "holiday.mov").write_bytes(b"not a movie at all")

    session = SessionFolder(import_footage(footage, data=tmp_path / "data"))

    assert set(session.valid_takes()) == {"gt", "rain"}


def test_a_truncated_movie_is_refused(footage, tmp_path):
    write_movie(footage / "gt.mov", frames=50)
    whole = (footage / "gt.mov").read_bytes()
    (footage / "gt.mov").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DecodeError, match=r"gt\.mov"):
        import_footage(footage, data=tmp_path / "data")

    assert no_session_was_made(tmp_path / "data")


def test_a_missing_recording_is_named_with_what_to_do(footage, tmp_path):
    (footage / "gt.mov").unlink()

    with pytest.raises(
        FootageError, match=r"round gt: gt\.mov is not there; kept: nothing was imported; next: put it"
    ):
        import_footage(footage, data=tmp_path / "data")


def test_rounds_of_different_sizes_are_refused(footage, tmp_path):
    write_movie(footage / "gt.mov", size=(80, 48))

    with pytest.raises(FootageError, match="round rain is 64x48, round gt 80x48"):
        import_footage(footage, data=tmp_path / "data")

    assert no_session_was_made(tmp_path / "data")


def test_an_empty_folder_of_stills_is_refused(footage, tmp_path):
    for still in (footage / "rain").glob("*.png"):
        still.unlink()

    with pytest.raises(FootageError, match="holds no stills"):
        import_footage(footage, data=tmp_path / "data")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ("file,time_s\n0.png,0.5\n1.png,0.75\n", "no time for 1 of 3 frames, the first is 2.png"),
        ("file,time_s\n0.png,0.5\n1.png,x\n", r"times\.csv:3:1: not a timestamp row"),
        ("index,time_s\n0,0.5\n1,0.4\n2,0.6\n", "times do not grow"),
        ("file,seconds\n0.png,0.5\n", r"times\.csv:2:1: not a timestamp row"),
    ],
)
def test_timestamps_that_do_not_fit_are_refused(footage, tmp_path, times: str, expected: str):
    (footage / "rain" / "times.csv").write_text(times)

    with pytest.raises(FootageError, match=expected):
        import_footage(footage, data=tmp_path / "data")


def test_telemetry_without_its_columns_is_refused(footage, tmp_path):
    (footage / "rain" / "rail.csv").write_text("time,x\n1,2\n")

    with pytest.raises(SessionFolderError, match="columns are t_host_s"):
        import_footage(footage, data=tmp_path / "data")


@pytest.mark.parametrize("hostile", ["../gt.mov", "/etc/passwd", "rain/../../x.mov"])
def test_a_path_that_leaves_the_folder_is_refused(footage, tmp_path, hostile: str):
    (footage / "session.yaml").write_text(SHEET.replace("gt.mov", hostile))

    with pytest.raises(InvalidDocumentError, match="leaves its folder"):
        import_footage(footage, data=tmp_path / "data")


def test_a_link_that_leads_out_of_the_folder_is_refused(footage, tmp_path):
    (tmp_path / "secret.mov").write_bytes(b"x")
    (footage / "gt.mov").unlink()
    (footage / "gt.mov").symlink_to(tmp_path / "secret.mov")

    with pytest.raises(FootageError, match="leads out of the folder"):
        import_footage(footage, data=tmp_path / "data")


def test_a_sheet_without_ground_truth_is_refused(footage, tmp_path):
    (footage / "session.yaml").write_text(SHEET.replace("role: gt", "role: internal"))

    with pytest.raises(InvalidDocumentError, match="no round has role gt"):
        import_footage(footage, data=tmp_path / "data")
