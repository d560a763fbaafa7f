"""Sick peers: hung, vanished, taken; and an engine that dies. The session must never hang with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_camera import bench, driver, small_body

from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
from rig.errors import DeviceBusyError, DeviceError, DeviceTimeoutError

_OPEN_AND_HOLD = """
import sys, time
from rig.clock import SessionClock
from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", address=sys.argv[1]), SessionClock())
camera.open()
print(camera._owner._child.pid, camera._owner._home.name, flush=True)
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
