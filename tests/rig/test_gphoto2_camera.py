"""The real libgphoto2 against the simulated body over TCP: settings, focus, movies, stills and files."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from small_camera import START_DELAY_S, Bench, bench, count_frames, driver, small_body

from catalog.session_folder import ExposureSettings
from rig.devices.camera import CardFile
from rig.devices.gphoto2_camera import discover
from rig.devices.gphoto2_focus import FocusMove
from rig.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceNotFoundError,
    DeviceTimeoutError,
    SettingRefusedError,
)
from rig.sim import ptp_body
from rig.sim import ptp_settings as prop
from rig.sim.ptp_recorder import CameraFaults


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One opened camera for the tests below that only set and read."""
    with bench(tmp_path_factory.mktemp("card")) as b:
        yield b


@pytest.fixture
def plain(opened: Bench) -> Bench:
    """The camera of this file, healthy, at ISO 100, f/8, 1/200 s and daylight."""
    opened.body.body.faults = CameraFaults()
    opened.camera.configure(ExposureSettings(iso=100, f_number=8, exposure_s=0.005, white_balance="daylight"))
    return opened


def test_opening_names_the_body_and_makes_it_manual(tmp_path: Path):
    """The body is delivered in program P and autofocus."""
    with bench(tmp_path) as b:
        assert b.camera.identity.maker == "Nikon Corporation"
        assert b.camera.identity.serial == "SIM0001"
        assert b.body.body.settings.value(prop.PROGRAM) == 1
        assert b.body.body.settings.value(prop.FOCUS_MODE) == 1


def test_a_body_that_stays_in_autofocus_is_not_opened(tmp_path: Path):
    with small_body(tmp_path, ignored=["focus_mode"]) as (body, _, clock):
        with (
            pytest.raises(SettingRefusedError, match=r"focus is manual.*AF-S.*switch on lens"),
            driver(body, clock),
        ):
            pass


def test_a_body_with_another_serial_number_is_not_opened(tmp_path: Path):
    with small_body(tmp_path) as (body, _, clock):
        with pytest.raises(DeviceNotFoundError, match="6001234"), driver(body, clock, serial="6001234"):
            pass


def test_serial_numbers_compare_without_leading_zeros(tmp_path: Path):
    with small_body(tmp_path, serial="0000000000000000000006001234") as (body, _, clock):
        with driver(body, clock, serial="6001234") as camera:
            assert camera.identity.serial.endswith("6001234")


def test_the_users_own_library_settings_are_neither_read_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A stored capture target of 'sdram' would otherwise send the picture to RAM."""
    stored = tmp_path / "home" / ".config" / "gphoto" / "settings"
    stored.parent.mkdir(parents=True)
    stored.write_text("ptp2=capturetarget=sdram\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    with bench(tmp_path) as b:
        files = b.camera.capture_still()

    assert files[0].folder.startswith("/store_00010001/DCIM")
    assert stored.read_text() == "ptp2=capturetarget=sdram\n"
    assert [p.name for p in stored.parent.iterdir()] == ["settings"]


@pytest.mark.parametrize(
    ("asked", "iso", "f_number", "exposure_s"),
    [
        (ExposureSettings(iso=6400, f_number=8, exposure_s=0.00008), 6400, 8.0, 1 / 12500),
        (ExposureSettings(iso=100, f_number=1.8, exposure_s=30), 100, 1.8, 30.0),
        (ExposureSettings(iso=25600, f_number=22, exposure_s=1 / 3), 25600, 22.0, 1 / 3),
        (ExposureSettings(iso=123, f_number=5.65, exposure_s=0.0166), 125, 5.6, 1 / 60),
    ],
)
def test_settings_reach_the_body_and_are_read_back(
    plain: Bench, asked: ExposureSettings, iso: int, f_number: float, exposure_s: float
):
    """The last row asks for values between the marked ones: 123 is 0.02 stops from 125."""
    read = plain.camera.configure(asked)

    assert (read.iso, read.f_number) == (iso, f_number)
    assert read.exposure_s == pytest.approx(exposure_s, rel=1e-9)
    body = plain.body.body.settings.exposure()
    assert (body.iso, body.f_number) == (iso, f_number)
    assert body.exposure_s == pytest.approx(exposure_s, rel=1e-9)


def test_white_balance_is_spoken_in_our_words(plain: Bench):
    read = plain.camera.configure(ExposureSettings(white_balance="auto"))

    assert plain.body.body.settings.value(prop.WHITE_BALANCE) == 2
    assert read.white_balance == "automatic"


def test_nothing_is_written_when_one_setting_has_no_choice(plain: Bench):
    before = plain.body.body.settings.exposure()

    with pytest.raises(SettingRefusedError, match=r"no f_number of 64; nearest are f/22 and f/20"):
        plain.camera.configure(ExposureSettings(iso=800, f_number=64))

    assert plain.body.body.settings.exposure() == before


@pytest.mark.parametrize("fault", ["refused", "ignored", "rounded"])
@pytest.mark.parametrize(
    ("name", "value"), [("iso", 6400), ("f_number", 4.0), ("exposure_s", 0.001), ("white_balance", "cloudy")]
)
def test_a_setting_that_the_body_does_not_keep_is_refused(plain: Bench, fault: str, name: str, value: object):
    plain.body.body.faults = CameraFaults.model_validate({fault: [name]})

    with pytest.raises(SettingRefusedError):
        plain.camera.configure(ExposureSettings.model_validate({name: value}))


@pytest.mark.parametrize("start_steps", [0, 299, prop.NEAR_STOP_STEPS])
def test_focus_is_counted_from_the_infinity_stop(tmp_path: Path, start_steps: int):
    """2 m are 0.5 dioptres, at 600 steps per dioptre 300 steps, wherever the lens stood."""
    with bench(tmp_path) as b:
        b.body.body.settings.focus_steps = start_steps

        read = b.camera.configure(ExposureSettings(focus_m=2.0))

        assert b.body.body.settings.focus_steps == 300
        assert read.focus_m == pytest.approx(2.0)
        # 500 steps a stride; the one that meets the stop counts
        assert b.camera.last_focus == FocusMove((start_steps // 500 + 1) * 500, 300)


def test_a_lens_that_stands_right_already_is_left_alone(tmp_path: Path):
    """Driving it again would move the picture by the slack of its gears between two rounds."""
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(focus_m=2.0))
        b.body.body.settings.focus_steps = 301

        b.camera.configure(ExposureSettings(iso=6400, focus_m=2.0))

        assert b.body.body.settings.focus_steps == 301


def test_a_lens_that_meets_its_near_stop_is_an_error(tmp_path: Path):
    """The table promises 0.25 m, 2400 steps; the lens ends at 1800."""
    with bench(tmp_path, settings={"focus": {"nearest_m": 0.2}}) as b:
        with pytest.raises(DeviceError, match=r"near stop on the way to 0.25 m.*steps_per_dioptre"):
            b.camera.configure(ExposureSettings(focus_m=0.25))


def test_a_distance_nearer_than_the_lens_is_refused_before_anything_moves(tmp_path: Path):
    with bench(tmp_path) as b:
        with pytest.raises(SettingRefusedError, match="nearer than the lens reaches"):
            b.camera.configure(ExposureSettings(iso=800, focus_m=0.2))

        assert b.body.body.settings.value(prop.ISO) == 100
        assert b.body.body.settings.focus_steps == 300


def test_a_focus_motor_that_is_too_slow_for_the_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """At 100 steps a second a stride of 500 takes 5 s; the library waits one."""
    monkeypatch.setattr(ptp_body, "FOCUS_STEPS_PER_S", 100.0)
    with bench(tmp_path) as b:
        with pytest.raises(DeviceBusyError, match=r"lower focus\.stride_steps"):
            b.camera.configure(ExposureSettings(focus_m=2.0))


def test_live_view_is_a_jpeg(plain: Bench):
    assert Image.open(io.BytesIO(plain.camera.preview())).size == (64, 48)


def test_a_movie_comes_off_the_card_as_it_was_rendered(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(iso=6400, exposure_s=0.00008, focus_m=2.0))
        free_bytes = b.camera.status().free_bytes
        requested_s = b.camera.start_movie()
        b.clock.sleep(0.5)
        (file,) = b.camera.stop_movie()
        chunks: list[int] = []

        fetched = b.camera.fetch(file, tmp_path / "main-01.mov", progress=chunks.append)
        kept = b.camera.status().free_bytes
        b.camera.delete(file)

        settings, start_s, stop_s = b.backend.movies[0]
        assert (settings.iso, settings.focus_m) == (6400, 2.0)
        assert (
            START_DELAY_S[0] <= start_s - requested_s <= START_DELAY_S[1] + 0.3
        )  # the request takes time, too
        assert count_frames(fetched.path) == round((stop_s - start_s) * 30)
        assert fetched.sha256 == hashlib.sha256(fetched.path.read_bytes()).hexdigest()
        assert fetched.size_bytes == sum(chunks) == file.size_bytes
        assert kept == pytest.approx(free_bytes - file.size_bytes, abs=1024)  # the library counts in KiB
        assert b.camera.status().free_bytes == free_bytes
        assert not list(tmp_path.glob("*.part"))


def test_a_slow_renderer_does_not_break_the_link(tmp_path: Path):
    """Four seconds are longer than the 2.5 s for which the library waits for any one answer."""
    with bench(tmp_path, render_s=4.0) as b:
        (file,) = b.film(0.2)

        assert file.name == "CLN_0001.MOV"
        assert b.camera.status().movie_prohibited == ""


def test_movies_start_and_stop_on_a_session_clock_that_runs_faster(tmp_path: Path):
    with bench(tmp_path, rate=4.0) as b:
        b.film(4.0)

        _, start_s, stop_s = b.backend.movies[0]
        assert 4.0 - START_DELAY_S[1] <= stop_s - start_s < 6.0


def test_a_movie_stopped_before_its_first_frame_has_one(tmp_path: Path):
    with bench(tmp_path) as b:
        (file,) = b.film(0.0)

        _, start_s, stop_s = b.backend.movies[0]
        assert stop_s - start_s == pytest.approx(1 / 30)
        assert count_frames(b.camera.fetch(file, tmp_path / "short.mov").path) == 1


def test_a_file_that_is_announced_twice_counts_once(tmp_path: Path):
    with bench(tmp_path, announced_twice=True) as b:
        assert [f.name for f in b.film(0.2)] == ["CLN_0001.MOV"]


def test_a_file_that_is_announced_late_is_waited_for(tmp_path: Path):
    with bench(tmp_path, announced_late_s=1.5) as b:
        assert [f.name for f in b.film(0.2)] == ["CLN_0001.MOV"]


def test_a_split_movie_comes_in_order(tmp_path: Path):
    """1.3 s in parts of half a second, less the delay of the start: three files."""
    with bench(tmp_path, movie_split_after_s=0.5, render_s=0.2) as b:
        files = b.film(1.3)

        assert [f.name for f in files] == ["CLN_0001.MOV", "CLN_0002.MOV", "CLN_0003.MOV"]
        assert b.backend.movies[0][2] == b.backend.movies[1][1]


def test_a_movie_that_ended_by_itself_is_delivered(tmp_path: Path):
    with bench(tmp_path, movie_ends_after_s=0.3) as b:
        b.camera.start_movie()
        assert b.backend.rendered.wait(10)
        (file,) = b.camera.stop_movie()

        _, start_s, stop_s = b.backend.movies[0]
        assert stop_s - start_s == pytest.approx(0.3)
        assert file.size_bytes > 0


def test_a_movie_that_does_not_start_is_noticed_before_the_carriage_moves(tmp_path: Path):
    with bench(tmp_path, movie_never_starts=True) as b:
        with pytest.raises(DeviceError, match="the movie did not start"):
            b.camera.start_movie()


def test_a_movie_whose_file_never_comes_is_given_up(tmp_path: Path):
    with bench(tmp_path, movie_is_lost=True, settings={"movie_close_s": 1.0}) as b:
        b.camera.start_movie()

        with pytest.raises(DeviceTimeoutError, match="announced no file"):
            b.camera.stop_movie()


def test_files_of_a_spoiled_take_are_not_taken_for_the_next_ones(tmp_path: Path):
    with bench(tmp_path) as b:
        b.film(0.2)
        b.body.body._announce(b.backend.movie(ExposureSettings(), 0.0, 0.1))

        assert [f.name for f in b.film(0.2)] == ["CLN_0003.MOV"]


def test_a_busy_body_is_waited_for(tmp_path: Path):
    with bench(tmp_path, busy_answers=5) as b:
        b.camera.configure(ExposureSettings(focus_m=1.0))

        assert len(b.film(0.2)) == 1
        assert len(b.camera.capture_still()) == 1


def test_a_full_card_is_told_before_and_at_the_start_of_a_movie(tmp_path: Path):
    with bench(tmp_path, card_bytes=1_000_000) as b:
        status = b.camera.status()

        assert status.free_bytes == pytest.approx(1_000_000, abs=1024)
        assert status.movie_prohibited == "Card full"
        with pytest.raises(DeviceError, match="cannot be recorded: Card full"):
            b.camera.start_movie()
        with pytest.raises(DeviceError, match="no picture can be taken: Card full"):
            b.camera.capture_still()


def test_every_reason_against_a_movie_is_named(tmp_path: Path):
    """Bit 0 is no card, bit 11 a protected one."""
    with bench(tmp_path, movie_prohibit_bits=1 | 1 << 11) as b:
        assert b.camera.status().movie_prohibited == "Card protected, No card"


def test_a_still_is_taken_with_the_settings_and_fetched(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(iso=400, exposure_s=0.5))
        (file,) = b.camera.capture_still()
        fetched = b.camera.fetch(file, tmp_path / "000000.jpg")

        assert b.backend.stills[0].iso == 400
        assert Image.open(io.BytesIO(fetched.path.read_bytes())).size == (320, 240)


def test_a_file_that_arrives_short_leaves_nothing_behind(tmp_path: Path):
    with bench(tmp_path, bytes_missing=7) as b:
        (file,) = b.film(0.2)

        with pytest.raises(DeviceError, match=f"{file.size_bytes - 7} of {file.size_bytes} bytes"):
            b.camera.fetch(file, tmp_path / "main-01.mov")

        assert not list(tmp_path.glob("main-01*"))


def test_an_existing_file_is_never_replaced(tmp_path: Path):
    target = tmp_path / "main-01.mov"
    target.write_bytes(b"a take")
    with bench(tmp_path) as b:
        (file,) = b.film(0.2)

        with pytest.raises(DeviceError, match="exists already"):
            b.camera.fetch(file, target)

        assert target.read_bytes() == b"a take"


def test_a_part_left_by_a_crash_does_not_hinder(tmp_path: Path):
    (tmp_path / "main-01.mov.part").write_bytes(b"torn")
    with bench(tmp_path) as b:
        (file,) = b.film(0.2)

        assert b.camera.fetch(file, tmp_path / "main-01.mov").path.stat().st_size == file.size_bytes


def test_a_file_that_is_not_on_the_card_is_an_error(plain: Bench):
    ghost = CardFile("/store_00010001/DCIM/100CLEAN", "GONE.MOV", 10)

    with pytest.raises(DeviceError, match="no such file on the card"):
        plain.camera.delete(ghost)


def test_calls_before_opening_say_so(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.close()
        b.camera.close()

        with pytest.raises(DeviceError, match="not open"):
            b.camera.status()


def test_the_driver_does_not_load_the_library_into_this_process():
    code = "import sys, rig.devices.gphoto2_camera; sys.exit('gphoto2' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_discovery_lists_model_and_address():
    for found in discover():
        assert found.model
        assert found.address.startswith("usb:")
