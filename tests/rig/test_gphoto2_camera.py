"""The camera driver through the real libgphoto2 over real TCP against the simulated body."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from camera_peer import MOVIE_BYTES, Peer, camera_peer
from PIL import Image

from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
from rig.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, SettingRefusedError
from rig.sim import ptp_settings as prop
from rig.sim.ptpip import CameraFaults

SETTINGS = ExposureSettings(iso=6400, f_number=5.6, exposure_s=0.00008, focus_m=1.5, white_balance="daylight")


def driver(peer: Peer, **changes) -> Gphoto2Camera:
    settings = {"kind": "gphoto2", "address": peer.address, "serial": "T1", **changes}
    return Gphoto2Camera(Gphoto2Settings.model_validate(settings), SessionClock())


@contextmanager
def open_camera(faults: CameraFaults | None = None, *, movie_s: float = 0.0, **changes) -> Iterator[tuple]:
    with camera_peer(faults, movie_s=movie_s) as peer:
        camera = driver(peer, **changes)
        camera.open()
        try:
            yield camera, peer
        finally:
            camera.close()


def test_settings_are_written_read_back_and_in_force_in_the_body():
    """1/12500 s is 0.00008 s; 1.5 m is 600/1.5 = 400 steps from the infinity stop."""
    with open_camera() as (camera, peer):
        read = camera.configure(SETTINGS)

        assert read == SETTINGS
        assert peer.ask("settings") == pytest.approx(SETTINGS.model_dump())
        assert peer.ask("focus_steps") == 400


def test_settings_that_are_not_given_stay_as_they_are():
    with open_camera() as (camera, peer):
        camera.configure(SETTINGS)

        camera.configure(ExposureSettings(iso=100))

        assert peer.ask("settings") == pytest.approx({**SETTINGS.model_dump(), "iso": 100})


def test_a_value_the_body_lacks_is_refused_with_its_neighbours():
    """ISO 140 lies 0.16 stops from 125 and 0.19 from 160: within a sixth of 125 only; 142 is within neither."""
    with open_camera() as (camera, _):
        with pytest.raises(SettingRefusedError, match="no iso of 142; nearest are 160 and 125"):
            camera.configure(ExposureSettings(iso=142))


def test_a_setting_that_the_body_ignores_is_noticed_by_reading_back():
    with open_camera(CameraFaults(ignored_properties=(prop.ISO,))) as (camera, _):
        with pytest.raises(SettingRefusedError, match="was told iso '6400' and reads back '100'"):
            camera.configure(ExposureSettings(iso=6400))


def test_a_setting_that_the_body_refuses_is_an_error():
    with open_camera(CameraFaults(refused_properties=(prop.F_NUMBER,))) as (camera, _):
        with pytest.raises(SettingRefusedError):
            camera.configure(ExposureSettings(f_number=4))


def test_focus_nearer_than_the_lens_reaches_is_refused():
    with open_camera() as (camera, _):
        with pytest.raises(SettingRefusedError, match=r"0\.2 m is nearer than the lens reaches \(0\.4 m\)"):
            camera.configure(ExposureSettings(focus_m=0.2))


def test_a_movie_is_announced_fetched_and_hashed(tmp_path):
    with open_camera(movie_s=1.0) as (camera, peer):
        camera.configure(SETTINGS)
        camera.start_movie()
        time.sleep(0.6)
        received = []

        files = camera.stop_movie()
        fetched = camera.fetch(files[0], tmp_path / "main-01.mov", progress=received.append)

        assert len(files) == 1
        assert fetched.sha256 == hashlib.sha256(MOVIE_BYTES).hexdigest()
        assert fetched.path.read_bytes() == MOVIE_BYTES
        assert sum(received) == files[0].size_bytes == len(MOVIE_BYTES)
        movie = peer.ask("movies")[0]
        assert movie["length_s"] == pytest.approx(0.5, abs=0.3)
        assert movie["settings"]["iso"] == 6400


def test_a_file_announced_twice_is_one_file():
    with open_camera(CameraFaults(announced_twice=True)) as (camera, _):
        camera.start_movie()

        assert len(camera.stop_movie()) == 1


def test_a_movie_that_never_started_delivers_no_file():
    with open_camera(CameraFaults(movie_never_starts=True), movie_close_s=1.0) as (camera, _):
        camera.start_movie()

        assert camera.stop_movie() == ()


def test_a_deleted_file_is_gone_from_the_card():
    with open_camera() as (camera, _):
        (file,) = camera.capture_still()
        free_before = camera.status().free_bytes

        camera.delete(file)

        assert camera.status().free_bytes > free_before
        with pytest.raises(DeviceError):
            camera.delete(file)


def test_a_full_card_is_told_before_a_movie_is_tried():
    with open_camera(CameraFaults(card_bytes=1_000_000)) as (camera, _):
        assert camera.status().movie_prohibited
        with pytest.raises(DeviceError, match="a movie cannot be recorded"):
            camera.start_movie()


def test_live_view_shows_what_the_settings_do():
    with open_camera() as (camera, _):
        camera.configure(ExposureSettings(iso=6400))

        picture = Image.open(io.BytesIO(camera.preview()))

        assert picture.size == (64, 48)
        assert picture.getpixel((30, 20)) == pytest.approx(64, abs=2)


def test_a_busy_body_is_waited_for():
    with open_camera(CameraFaults(busy_answers=5)) as (camera, peer):
        camera.configure(ExposureSettings(focus_m=2.0))

        assert peer.ask("focus_steps") == 300


def test_another_body_than_the_profile_names_is_not_taken():
    with camera_peer(serial="OTHER") as peer, pytest.raises(DeviceNotFoundError, match="serial number T1"):
        driver(peer).open()


def test_a_frozen_body_costs_a_bounded_time_and_the_engine_lives_on(monkeypatch):
    """The library itself would block for 7.5 s and more; the watchdog ends its process after 2 s."""
    monkeypatch.setattr("rig.devices.gphoto2_camera._CALL_S", 2.0)
    with open_camera() as (camera, peer):
        peer.ask("freeze")

        with pytest.raises(DeviceTimeoutError, match="no answer to 'status' within 2 s"):
            camera._call("status", timeout_s=2.0)

        with pytest.raises(DeviceError, match="not open"):
            camera.status()


def test_a_body_that_vanished_is_an_error_and_a_new_one_can_be_opened():
    with open_camera() as (camera, peer):
        peer.ask("vanish")
        with pytest.raises(DeviceError):
            camera.status()
        camera.close()

    with open_camera() as (camera, _):
        assert camera.status().battery_percent == 87
