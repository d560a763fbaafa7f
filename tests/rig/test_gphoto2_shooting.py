"""Stills, bursts, bulb, formats and abilities of a Nikon body, through the real libgphoto2 over TCP."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal

import pytest
from small_camera import SmallRawBackend, bench, count_frames, driver, small_body

from catalog.session_folder import ExposureSettings
from rig.errors import DeviceError, DeviceTimeoutError, SettingRefusedError
from rig.sim import ptp_settings as prop
from rig.sim.ptp_recorder import CameraFaults
from rig.sim.ptpip import PtpIpCamera


def shorten_list(body: PtpIpCamera, longest_s: float) -> None:
    """Let the body list no exposure time beyond this one, bulb aside, so that a test need not wait for 30 s."""
    for code in (prop.FINE_EXPOSURE_TIME, prop.EXPOSURE_TIME):
        item = body.body.settings.properties[code]
        in_s = [c / 1e4 if code == prop.EXPOSURE_TIME else (c >> 16) / (c & 0xFFFF) for c in item.choices]
        item.choices = tuple(
            c for c, s in zip(item.choices, in_s, strict=True) if c == prop.BULB or s <= longest_s
        )


def test_what_a_body_can_do_is_asked_of_it(tmp_path: Path):
    with bench(tmp_path) as b:
        able = b.camera.capabilities

        assert (able.movie, able.stills, able.live_view, able.preview_while_recording) == (True,) * 4
        assert able.focus_drive
        assert able.settable == {"iso", "f_number", "exposure_s", "white_balance", "focus_m"}


def test_a_body_that_lacks_things_is_known_to_lack_them(tmp_path: Path):
    """Without the operations for movies and the focus motor, and with an aperture that only the lens's ring sets."""
    with small_body(tmp_path) as (body, _, clock):
        for code in (0x920A, 0x920B, 0x9204):
            del body.body._operations[code]
        body.body.settings.properties[prop.F_NUMBER].writable = False

        with driver(body, clock) as camera:
            able = camera.capabilities

            assert (able.movie, able.preview_while_recording, able.focus_drive) == (False, False, False)
            assert (able.stills, able.live_view) == (True, True)
            assert able.settable == {"iso", "exposure_s", "white_balance"}
            with pytest.raises(DeviceError, match="records no movies under remote control"):
                camera.start_movie()


def test_live_view_goes_on_while_a_movie_runs(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.start_movie()
        frames = [b.camera.preview() for _ in range(3)]
        (file,) = b.camera.stop_movie()

        assert all(f.startswith(b"\xff\xd8") for f in frames)
        assert count_frames(b.camera.fetch(file, tmp_path / "main-01.mov").path) > 0


def test_a_body_that_shows_nothing_while_it_records_is_asked_once(tmp_path: Path):
    with bench(tmp_path, pictures_cut=True) as b:
        b.camera.start_movie()

        with pytest.raises(DeviceError, match="reading live view failed"):
            b.camera.preview()
        with pytest.raises(DeviceError, match="shows no live view while it records"):
            b.camera.preview()

        assert not b.camera.capabilities.preview_while_recording
        assert len(b.camera.stop_movie()) == 1


@pytest.mark.parametrize(
    ("still_format", "suffixes"),
    [("raw+jpeg", [".JPG", ".NEF"]), ("raw", [".NEF"]), ("jpeg", [".JPG"])],
)
def test_pictures_have_the_files_of_the_profile(tmp_path: Path, still_format: str, suffixes: list[str]):
    """Both files of a picture share its number, and the second is waited for."""
    with bench(tmp_path, backend=SmallRawBackend(tmp_path), settings={"still_format": still_format}) as b:
        files = b.camera.capture_still()
        fetched = [b.camera.fetch(f, tmp_path / f.name) for f in files]

        assert [f.name for f in files] == [f"CLN_0001{s}" for s in suffixes]
        assert all(f.size_bytes == f.path.stat().st_size > 0 for f in fetched)


def test_a_format_that_the_body_has_not_is_refused_with_those_it_has(tmp_path: Path):
    with small_body(tmp_path) as (body, _, clock):
        with (
            pytest.raises(SettingRefusedError, match=r"no picture format 'raw'; it has: JPEG Basic"),
            driver(body, clock, still_format="raw"),
        ):
            pass


@pytest.mark.parametrize(
    ("maker", "wanted", "fault"),
    [
        ("nikon", "raw", "refused"),
        ("nikon", "raw+jpeg", "rounded"),
        ("canon", "raw", "rounded"),
        ("canon", "raw", "ignored"),
    ],
)
def test_a_picture_format_that_the_body_does_not_keep_is_refused(
    tmp_path: Path, maker: Literal["nikon", "canon"], wanted: str, fault: str
):
    backend = SmallRawBackend(tmp_path)
    with small_body(tmp_path, maker=maker, backend=backend, **{fault: ["still_format"]}) as (body, _, clock):
        with (
            pytest.raises(
                SettingRefusedError, match=rf"'pictures are {re.escape(wanted)}' is needed, but image"
            ),
            driver(body, clock, still_format=wanted),
        ):
            pass


@pytest.mark.parametrize("count", [1, 5])
def test_a_burst_brings_its_pictures_in_order_and_leaves_single_pictures_behind(tmp_path: Path, count: int):
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(exposure_s=0.01))

        files = b.camera.capture_burst(count)

        assert [f.name for f in files] == [f"CLN_{k:04d}.JPG" for k in range(1, count + 1)]
        assert len(b.backend.stills) == count
        assert b.body.body.settings.value(prop.DRIVE_MODE) == prop.SINGLE
        assert [f.name for f in b.camera.capture_still()] == [f"CLN_{count + 1:04d}.JPG"]


def test_a_body_that_counts_no_bursts_is_released_again_and_again(tmp_path: Path):
    with small_body(tmp_path) as (body, backend, clock):
        del body.body.settings.properties[prop.BURST_NUMBER]

        with driver(body, clock) as camera:
            files = camera.capture_burst(3)

        assert [f.name for f in files] == ["CLN_0001.JPG", "CLN_0002.JPG", "CLN_0003.JPG"]
        assert len(backend.stills) == 3


def test_a_burst_of_nothing_is_a_mistake(tmp_path: Path):
    with bench(tmp_path) as b:
        with pytest.raises(ValueError, match="a burst of 0 pictures"):
            b.camera.capture_burst(0)


def test_an_exposure_beyond_the_list_is_held_open_by_hand(tmp_path: Path):
    """The list ends at 0.1 s; 0.5 s is timed by the driver, late by what two commands take on a busy machine."""
    with small_body(tmp_path) as (body, backend, clock):
        shorten_list(body, 0.1)
        with driver(body, clock) as camera:
            read = camera.configure(ExposureSettings(iso=100, exposure_s=0.5))
            camera.capture_still()

            assert read.exposure_s == 0.5
            assert backend.stills[0].exposure_s is not None
            assert 0.5 <= backend.stills[0].exposure_s < 1.5
            assert not body.body.settings.is_bulb
            assert camera.status().unasked_changes == ()


def test_after_a_bulb_exposure_the_listed_ones_are_as_before(tmp_path: Path):
    with small_body(tmp_path) as (body, backend, clock):
        shorten_list(body, 0.1)
        with driver(body, clock) as camera:
            camera.configure(ExposureSettings(exposure_s=0.4))
            camera.capture_still()

            read = camera.configure(ExposureSettings(exposure_s=0.05))
            camera.capture_still()

            assert read.exposure_s == 0.05
            assert backend.stills[1].exposure_s == 0.05


def test_a_bulb_exposure_lasts_session_seconds(tmp_path: Path):
    """At rate 4 a second of the session is a quarter of the machine's."""
    with small_body(tmp_path, rate=4.0) as (body, backend, clock):
        shorten_list(body, 0.1)
        with driver(body, clock) as camera:
            camera.configure(ExposureSettings(exposure_s=2.0))
            began_s = time.monotonic()
            camera.capture_still()

            assert backend.stills[0].exposure_s == pytest.approx(2.0, abs=2.0)
            assert backend.stills[0].exposure_s >= 2.0
            assert time.monotonic() - began_s >= 0.5


def test_a_movie_has_no_frames_of_bulb_length(tmp_path: Path):
    with small_body(tmp_path) as (body, _, clock):
        shorten_list(body, 0.1)
        with driver(body, clock) as camera:
            camera.configure(ExposureSettings(exposure_s=2.0))

            with pytest.raises(SettingRefusedError, match="no frame of a movie is exposed for 2 s"):
                camera.start_movie()


def test_pictures_that_went_to_memory_are_taken_out_before_the_next_replaces_them(tmp_path: Path):
    """The one object in the body's memory is handle 0xFFFF0001 each time."""
    with bench(tmp_path, pictures_to_memory=True) as b:
        files = [file for _ in range(3) for file in b.camera.capture_still()]
        fetched = [b.camera.fetch(f, tmp_path / f"{k:06d}.jpg").path for k, f in enumerate(files)]

        assert len({f.name for f in files}) == 3
        assert all(p.read_bytes().startswith(b"\xff\xd8") for p in fetched)
        b.camera.delete(files[0])
        with pytest.raises(DeviceError):
            b.camera.fetch(files[0], tmp_path / "again.jpg")


def test_a_movie_left_running_does_not_hinder_the_next(tmp_path: Path):
    """A take was given up while it recorded; its file is not taken for the next one's."""
    with bench(tmp_path) as b:
        b.camera.start_movie()
        b.clock.sleep(0.3)

        (file,) = b.film(0.3)

        assert file.name == "CLN_0002.MOV"
        assert len(b.backend.movies) == 2


@pytest.mark.parametrize("maker", ["nikon", "canon"])
def test_a_movie_that_is_still_being_written_does_not_hinder_the_next(
    tmp_path: Path, maker: Literal["nikon", "canon"]
):
    """The engine died while it recorded: the body ends the movie by itself and has its buffer to write when it is back.

    Nikon's says "not yet record in buffer" for 1.5 s, Canon's is busy; each new file is its own.
    """
    with small_body(tmp_path, maker=maker, render_s=1.5) as (body, backend, clock):
        with driver(body, clock) as camera:
            camera.start_movie()
            clock.sleep(0.3)
            assert camera._owner is not None
            camera._owner.kill()

        with driver(body, clock) as camera:
            camera.start_movie()
            clock.sleep(0.3)
            files = camera.stop_movie()

    assert len(backend.movies) == 2
    assert len(files) == 1
    assert files[0].name.endswith("0002.MOV")


def test_a_canon_movie_left_running_is_not_taken_for_the_next_one(tmp_path: Path):
    """An EOS body does not say when it has written; the file itself is waited for."""
    with bench(tmp_path, maker="canon", render_s=0.8) as b:
        b.camera.start_movie()
        b.clock.sleep(0.3)

        (file,) = b.film(0.3)

        assert len(b.backend.movies) == 2
        assert file.name.endswith("0002.MOV")


def test_a_picture_after_a_movie_left_running_is_the_picture(tmp_path: Path):
    with bench(tmp_path, render_s=0.5) as b:
        b.camera.start_movie()
        b.clock.sleep(0.3)

        (file,) = b.camera.capture_still()

        assert file.name.endswith(".JPG")


def test_a_body_that_never_ends_its_writing_is_given_up_with_what_to_do(tmp_path: Path):
    """Its buffer stays unwritten for longer than the profile allows; the body stays usable."""
    with bench(tmp_path, movie_prohibit_bits=1 << 9, settings={"movie_close_s": 0.3}) as b:
        with pytest.raises(
            DeviceTimeoutError, match="still writes what it recorded before, after 0"
        ) as caught:
            b.camera.start_movie()

        assert "card light" in caught.value.next_step
        assert b.camera.status().battery_percent is not None


def test_a_file_told_of_while_the_state_is_read_is_not_lost(tmp_path: Path):
    """The movie ends by itself; asking for the state reads the event that tells of its file."""
    with bench(tmp_path, movie_ends_after_s=0.2) as b:
        b.camera.start_movie()
        assert b.backend.rendered.wait(10)
        b.clock.sleep(0.3)
        b.camera.status()

        assert [f.name for f in b.camera.stop_movie()] == ["CLN_0001.MOV"]


def test_the_clock_is_set_when_the_body_is_opened(tmp_path: Path):
    """It is delivered 37 s slow; the wire carries whole seconds."""
    with bench(tmp_path) as b:
        offset_s = b.camera.status().clock_offset_s

        assert offset_s is not None
        assert abs(offset_s) <= 2
        assert abs(b.body.body.settings.value(prop.CLOCK)) <= 2


def test_changes_that_nobody_asked_for_are_told_until_the_next_configure(tmp_path: Path):
    """They are noticed while the movie runs and remembered after it."""
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(iso=400))
        b.body.body.faults = CameraFaults(drifting=("iso", "white_balance"))
        b.camera.start_movie()
        during = b.camera.status().unasked_changes
        b.camera.stop_movie()
        after = b.camera.status().unasked_changes
        b.camera.configure(ExposureSettings(iso=400, white_balance="daylight"))

        assert during == ("iso was 400 and became 500", "whitebalance was Daylight and became Fluorescent")
        assert after == during
        assert b.camera.status().unasked_changes == ()


def test_a_dial_that_was_turned_is_noticed_without_a_word_from_the_body(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(f_number=8))
        b.body.body.settings.properties[prop.F_NUMBER].value = 1100

        assert b.camera.status().unasked_changes == ("f-number was f/8 and became f/11",)


def test_a_hot_body_says_so_and_records_nothing(tmp_path: Path):
    with bench(tmp_path, is_hot=True) as b:
        assert b.camera.status().hot
        with pytest.raises(DeviceError, match="cannot be recorded: Temperature too high"):
            b.camera.start_movie()
