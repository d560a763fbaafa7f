"""The library's own virtual camera, on its USB port: a body with little of what ours have, as the driver finds out.

It offers no ISO, white balance, focus, live view or movie, and breaks down when a bulb exposure is begun.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_camera import grey_jpeg

from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.devices.gphoto2_camera import DiscoveredCamera, Gphoto2Camera, Gphoto2Settings, discover
from rig.errors import DeviceError, OtherDeviceError, SettingRefusedError


@pytest.fixture
def on_usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A virtual camera on USB; returns its serial number. It copies the pictures of its folder."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "A.JPG").write_bytes(grey_jpeg(320, 240))
    monkeypatch.setenv("VCAMERADIR", str(store))
    return "0.1"


@pytest.fixture
def camera(on_usb: str) -> Iterator[Gphoto2Camera]:
    """It, opened by its serial number alone."""
    camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", serial=on_usb), SessionClock())
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


@pytest.mark.usefixtures("on_usb")
def test_a_camera_on_usb_is_discovered():
    assert discover() == [DiscoveredCamera("Nikon DSC D750", "usb:001,001")]


def test_what_it_lacks_is_found_out_and_not_taken_from_its_model(camera: Gphoto2Camera):
    """The library knows a Nikon D750 as a body with live view and movies; this one answers that it has none."""
    able = camera.capabilities

    assert (able.movie, able.live_view, able.preview_while_recording) == (False, False, False)
    assert (able.stills, able.focus_drive) == (True, False)
    assert able.settable == {"f_number", "exposure_s"}
    with pytest.raises(SettingRefusedError, match="offers no setting for iso"):
        camera.configure(ExposureSettings(iso=100))


def test_settings_and_pictures_work_as_with_any_body(camera: Gphoto2Camera, tmp_path: Path):
    read = camera.configure(ExposureSettings(f_number=8, exposure_s=1 / 200))
    (file,) = camera.capture_still()
    fetched = camera.fetch(file, tmp_path / "000000.jpg")

    assert (read.iso, read.f_number, read.exposure_s) == (None, 8.0, 0.005)
    assert fetched.path.read_bytes() == (tmp_path / "store" / "A.JPG").read_bytes()
    assert len(camera.capture_burst(3)) == 3


def test_a_body_that_breaks_down_in_a_bulb_exposure_is_reconnected(camera: Gphoto2Camera):
    """Its list ends at 1 s; ``bulb`` makes every later call on the library's object fail."""
    camera.configure(ExposureSettings(exposure_s=3.0))

    with pytest.raises(DeviceError, match=r"the link broke \(code -7\).*"):
        camera.capture_still()
    with pytest.raises(DeviceError, match="not open"):
        camera.status()

    camera.reconnect(timeout_s=30.0)
    camera.configure(ExposureSettings(exposure_s=1 / 200))
    assert len(camera.capture_still()) == 1


def test_only_the_wanted_serial_number_will_do(on_usb: str):
    camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", serial="6001234"), SessionClock())

    with pytest.raises(OtherDeviceError, match=f"has serial number {on_usb}, but 6001234 is wanted"):
        camera.open()
