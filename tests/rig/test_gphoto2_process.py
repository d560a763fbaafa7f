"""Sick peers: hung, vanished, taken; and an engine that dies. The session must never hang with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_camera import bench, driver, small_body

from catalog.session_folder import ExposureSettings
from rig.devices import gphoto2_camera
from rig.devices.camera import CardFile
from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
from rig.devices.gphoto2_process import OwnerProcess
from rig.errors import DeviceBusyError, DeviceError, DeviceTimeoutError, SettingRefusedError
from rig.sim.ptp_recorder import CameraFaults

_OPEN_AND_HOLD = """
import sys, time
from rig.clock import SessionClock
from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", address=sys.argv[1]), SessionClock())
camera.open()
print(camera._owner._child.pid, camera._owner._home.path, flush=True)
time.sleep(60)
"""


def test_a_hung_body_ends_in_a_timeout_and_can_be_opened_again(tmp_path: Path):
    """The library alone would block for 7.5 s; the watchdog is set to 1.5 s."""
    with small_body(tmp_path, freezes_at="preview") as (body, _, clock):
        with driver(body, clock, call_s=1.5) as camera:
            child = _child_of(camera)
            began_s = time.monotonic()

            with pytest.raises(DeviceTimeoutError, match=r"no answer to 'preview' within 2 s.*off and on"):
                camera.preview()

            assert time.monotonic() - began_s < 4.0
            assert not _runs(child)
            with pytest.raises(DeviceError, match="not open"):
                camera.status()

        body.body.faults = body.body.faults.model_copy(update={"freezes_at": None})
        body.body.thaw.set()
        with driver(body, clock) as camera:
            assert camera.preview().startswith(b"\xff\xd8")


def test_an_owner_process_that_another_thread_found_ended_first_is_a_device_error():
    """It had tidied up what the message quotes; an act ended in an error without a code since the quote was missing."""
    owner = OwnerProcess()
    owner.kill()

    with pytest.raises(DeviceError, match=r"X: its owner process ended during 'status'; next"):
        owner.call("status", camera="camera X", timeout_s=5.0)


def test_closing_on_a_hung_body_is_bounded(tmp_path: Path):
    with small_body(tmp_path) as (body, _, clock):
        with driver(body, clock) as camera:
            child = _child_of(camera)
            body.body.thaw.clear()
            began_s = time.monotonic()

            camera.close()

            assert time.monotonic() - began_s < 15.0
            assert not _runs(child)
        body.body.thaw.set()


def test_a_cable_pulled_while_copying_leaves_the_file_on_the_card(tmp_path: Path):
    with bench(tmp_path, vanishes_at="fetch") as b:
        (file,) = b.film(0.2)

        with pytest.raises(DeviceError, match=r"CLN_0001.MOV failed.*code -"):
            b.camera.fetch(file, tmp_path / "main-01.mov")
        assert not list(tmp_path.glob("main-01*"))

        b.body.body.faults = b.body.body.faults.model_copy(update={"vanishes_at": None})
        b.body.appear()
        b.camera.open()
        fetched = b.camera.fetch(file, tmp_path / "main-01.mov")

        assert fetched.size_bytes == file.size_bytes


def test_the_state_of_a_body_that_is_gone_is_never_read_from_a_cache(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.status()
        b.body.vanish()

        with pytest.raises(DeviceError):
            b.camera.status()


def test_a_body_that_vanishes_while_recording_fails_the_stop(tmp_path: Path):
    with bench(tmp_path, vanishes_at="stop_movie") as b:
        b.camera.start_movie()

        with pytest.raises(DeviceError, match="code -"):
            b.camera.stop_movie()


def test_a_second_driver_is_refused_and_the_first_goes_on(tmp_path: Path):
    with bench(tmp_path) as b:
        with pytest.raises(DeviceBusyError, match="another program may have it"), driver(b.body, b.clock):
            pass

        assert b.camera.status().battery_percent == 87


def test_nobody_at_the_address_is_an_error(tmp_path: Path):
    with small_body(tmp_path) as (body, _, clock):
        body.vanish()

        with pytest.raises(DeviceError, match="connecting failed"), driver(body, clock):
            pass


def test_the_owner_process_ends_with_the_engine(tmp_path: Path):
    with small_body(tmp_path) as (body, _, clock):
        engine = subprocess.Popen(
            [sys.executable, "-c", _OPEN_AND_HOLD, body.address], stdout=subprocess.PIPE, text=True
        )
        with engine:
            assert engine.stdout is not None
            child, home = engine.stdout.readline().split()

            engine.send_signal(signal.SIGKILL)

        assert _within(10.0, lambda: not _runs(int(child)))
        assert not Path(home).exists()
        with driver(body, clock) as camera:
            assert camera.status().battery_percent == 87


def test_an_owner_process_that_dies_is_reported_with_what_it_said(tmp_path: Path):
    with bench(tmp_path) as b:
        os.kill(_child_of(b.camera), signal.SIGKILL)

        with pytest.raises(DeviceError, match=r"ended during 'status'|not open"):
            b.camera.status()


CALLS: dict[str, Callable[[Gphoto2Camera, Path], object]] = {
    "status": lambda camera, _: camera.status(),
    "configure": lambda camera, _: camera.configure(ExposureSettings(iso=400)),
    "start_movie": lambda camera, _: camera.start_movie(),
    "stop_movie": lambda camera, _: camera.stop_movie(),
    "capture_still": lambda camera, _: camera.capture_still(),
    "capture_burst": lambda camera, _: camera.capture_burst(3),
    "preview": lambda camera, _: camera.preview(),
    "fetch": lambda camera, folder: camera.fetch(CardFile("/", "A.MOV", 10), folder / "a.mov"),
    "delete": lambda camera, _: camera.delete(CardFile("/", "A.MOV", 10)),
}


def test_every_call_that_reaches_the_body_is_tried_below():
    asked = {n for n, f in vars(Gphoto2Camera).items() if callable(f) and not n.startswith("_")}

    assert asked - {"open", "reconnect", "close", "abort"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_no_call_waits_for_an_owner_process_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """A stopped process answers nothing at all, whatever time-outs the library has."""
    for constant in ("_CONFIGURE_S", "_STILL_S", "_CLOSE_S", "_LONGEST_STILL_S"):
        monkeypatch.setattr(gphoto2_camera, constant, 0.2)
    with small_body(tmp_path) as (body, _, clock), driver(body, clock) as camera:
        camera._settings = camera._settings.model_copy(update={"call_s": 0.2, "movie_close_s": 0.2})
        child = _child_of(camera)
        os.kill(child, signal.SIGSTOP)

        with pytest.raises(DeviceTimeoutError, match=f"no answer to '{name}'"):
            CALLS[name](camera, tmp_path)

        assert not _runs(child)
        assert not list(tmp_path.glob("a.mov*"))


def test_a_camera_whose_owner_process_died_is_reconnected_with_its_settings(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(iso=1600, focus_m=2.0))
        b.camera.configure(ExposureSettings(f_number=4.0))
        os.kill(_child_of(b.camera), signal.SIGKILL)
        b.body.body.return_from(CameraFaults())  # it was switched off and on, too

        b.camera.reconnect(timeout_s=30.0)

        exposure = b.body.body.settings.exposure()
        assert (exposure.iso, exposure.f_number, exposure.focus_m) == (1600, 4.0, 2.0)
        assert len(b.film(0.2)) == 1


def test_a_body_that_comes_back_late_is_waited_for(tmp_path: Path):
    with bench(tmp_path) as b:
        b.body.vanish()
        back = threading.Timer(3.0, b.body.appear)
        back.start()

        b.camera.reconnect(timeout_s=40.0)

        assert b.camera.status().battery_percent == 87
        back.join()


def test_a_body_that_refuses_its_settings_after_coming_back_is_not_tried_again(tmp_path: Path):
    with bench(tmp_path) as b:
        b.camera.configure(ExposureSettings(iso=1600))
        b.body.body.return_from(CameraFaults())
        b.body.body.faults = CameraFaults(ignored=("iso",))

        with pytest.raises(SettingRefusedError, match="told iso 1600 and reads back 100"):
            b.camera.reconnect(timeout_s=30.0)


def test_opening_with_an_unknown_kind_of_address_is_an_error(tmp_path: Path):
    with small_body(tmp_path) as (_, _, clock):
        camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", address="nonsense:1"), clock)

        with pytest.raises(DeviceError, match="camera at nonsense:1: connecting failed"):
            camera.open()


def _child_of(camera: Gphoto2Camera) -> int:
    assert camera._owner is not None
    return camera._owner._child.pid


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _within(limit_s: float, condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
