"""One camera body through libgphoto2, as the owner process sees it.

Every public method is one call of `rig.devices.gphoto2_camera.Gphoto2Camera`; what it raises is a `DeviceError` in
plain words, since it crosses a process boundary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.session_folder import ExposureSettings
from rig.devices.camera import CameraCapabilities, CameraIdentity, CameraStatus, CardFile
from rig.devices.gphoto2_exposure import Configured, ExposureControl
from rig.devices.gphoto2_files import CardFiles
from rig.devices.gphoto2_focus import FocusMotor, FocusTable
from rig.devices.gphoto2_link import BACK_OFF_S, CameraLink, autodetect
from rig.devices.gphoto2_settings import NAMES, PREPARATIONS, Preparation, StillFormat, nearest_format
from rig.devices.gphoto2_shooting import Shooting
from rig.devices.gphoto2_state import BodyState
from rig.devices.gphoto2_watch import SettingsWatch
from rig.devices.gphoto2_wholeness import jpeg_damage
from rig.errors import DeviceError, DeviceNotFoundError, OtherDeviceError


@dataclass(frozen=True)
class Wanted:
    """Which body to open, and what must be so on it."""

    addresses: tuple[str, ...] = ()
    """Ports to look at, in this order; none: all of USB."""
    serial: str = ""
    """Its serial number; empty takes the first body found. With one, USB is looked through, too."""
    focus: FocusTable = field(default_factory=FocusTable)
    still_format: StillFormat | None = None
    rate: float = 1.0
    """Session seconds per second; a simulated body may live faster than this process."""
    is_patient: bool = True
    """Whether to try again when the body does not answer at once; whoever asks again anyway does not want that."""


@dataclass(frozen=True)
class Opened:
    """What `CameraBody.open` found."""

    identity: CameraIdentity
    capabilities: CameraCapabilities


class CameraBody:
    """The one user of the library's camera object.

    Args:
        hold: Folder for pictures taken out of the body's memory.

    Attributes:
        progress: Called with the count of bytes of each chunk that arrived.
    """

    def __init__(self, hold: Path) -> None:
        self.progress: Callable[[int], None] = lambda _: None
        self._link = CameraLink()
        self._files = CardFiles(self._link, hold)
        self._state = BodyState(self._link)
        self._watch = SettingsWatch(self._link)
        self._attach(Wanted())

    def discover(self) -> list[tuple[str, str]]:
        """List model and address of every camera on USB."""
        return autodetect()

    def open(self, wanted: Wanted) -> Opened:
        """Connect to the wanted body and set what must be so.

        Raises:
            OtherDeviceError: Only bodies with another serial number are there.
            DeviceNotFoundError: None is there.
        """
        self._attach(wanted)
        identity = self._connected(wanted)
        with self._link.explained("preparing it"):
            self._prepare(wanted.still_format)
            capabilities = self._state.capabilities(
                settable=self._exposure.settable(), focus_drive=self._motor.is_there()
            )
        return Opened(identity, capabilities)

    def close(self) -> None:
        """End a recording and live view, let go of the body. Safe to call twice."""
        with contextlib.suppress(DeviceError), self._link.explained("closing"):
            if self._state.is_recording():
                self._shooting.end_recording()
            self._link.switch_live_view(False)
        self._link.release()

    def status(self) -> CameraStatus:
        """Read card, battery, heat, clock, reasons against a movie, and what changed unasked."""
        with self._link.explained("reading its state"):
            free_bytes = self._state.free_bytes()  # first, since no cache answers for it
            self._files.note_events()
            return self._state.status(free_bytes, self._watch)

    def configure(self, settings: ExposureSettings) -> Configured:
        """Write the settings that are given and read all back; nothing is written when one has no choice."""
        with self._link.explained("setting the exposure"):
            done = self._exposure.configure(settings)
            self._files.note_events()  # the body's echo of these very settings
            self._watch.settle()
            return done

    def come_to_rest(self, wait_s: float, close_s: float) -> bool:
        """End what an earlier take left running; tells whether the body has written all it had."""
        with self._link.explained("ending what it recorded before"):
            return self._shooting.come_to_rest(wait_s, close_s)

    def start_movie(self) -> None:
        """Begin to record to the card, and make sure that the body says so."""
        with self._link.explained("starting the movie"):
            self._shooting.start_movie()

    def stop_movie(self, timeout_s: float) -> tuple[CardFile, ...]:
        """End the recording and wait until its files are closed."""
        with self._link.explained("stopping the movie"):
            return self._shooting.stop_movie(timeout_s)

    def capture_still(self, timeout_s: float) -> tuple[CardFile, ...]:
        """Take one picture and return its files."""
        with self._link.explained("taking a picture"):
            return self._shooting.still(timeout_s)

    def capture_burst(self, count: int, timeout_s: float) -> tuple[CardFile, ...]:
        """Take pictures as fast as the body goes."""
        with self._link.explained(f"taking {count} pictures"):
            return self._shooting.burst(count, timeout_s)

    def preview(self) -> bytes:
        """Return one live-view frame as JPEG."""
        import gphoto2 as gp

        frame = gp.CameraFile()
        with self._link.explained("reading live view"):
            self._link.camera.capture_preview(frame, self._link.context)
            picture = bytes(frame.get_data_and_size())
        if damage := jpeg_damage(picture):
            raise DeviceError(
                f"{self._link.name}: live view: {damage}", next_step="try again; it is one frame"
            )
        return picture

    def fetch(self, file: CardFile, part: Path) -> str:
        """Copy a card file to ``part``, reporting progress; returns the sha256 of the bytes as they arrived."""
        with self._link.explained(f"copying {file.name}"):
            return self._files.copy(file, part, progress=self.progress)

    def delete(self, file: CardFile) -> None:
        """Remove a card file."""
        with self._link.explained(f"deleting {file.name}"):
            self._files.delete(file)

    def _attach(self, wanted: Wanted) -> None:
        self._motor = FocusMotor(self._link, wanted.focus)
        self._exposure = ExposureControl(self._link, self._motor)
        self._shooting = Shooting(self._link, self._state, self._exposure, self._files, rate=wanted.rate)

    def _connected(self, wanted: Wanted) -> CameraIdentity:
        failures: list[DeviceError] = []
        for address in _places(wanted):
            try:
                identity = self._link.connect(address, BACK_OFF_S if wanted.is_patient else ())
            except DeviceError as error:
                failures.append(error)
                continue
            if not wanted.serial or _plain(wanted.serial) in map(_plain, self._link.serials):
                return identity
            failures.insert(0, _other_body(identity, address, wanted.serial))
            self._link.release()
        raise failures[0] if failures else _not_connected(wanted.serial)

    def _prepare(self, still_format: StillFormat | None) -> None:
        for preparation in PREPARATIONS:
            self._shooting.bring_about(preparation)
        if still_format is not None:
            self._shooting.bring_about(self._picture_format(still_format))
        self._state.synchronise_clock()
        self._files.forget_events()
        self._watch.begin()

    def _picture_format(self, wanted: StillFormat) -> Preparation:
        entry = self._link.first(NAMES["still_format"])
        choice = nearest_format(wanted, self._link.choices(entry) if entry else ())
        return Preparation(
            f"pictures are {wanted}",
            NAMES["still_format"],
            (choice.lower(),),
            "choose the format in its menu",
            is_exact=True,
        )


def _places(wanted: Wanted) -> Sequence[str]:
    on_usb = [address for _, address in autodetect()] if wanted.serial or not wanted.addresses else []
    return tuple(dict.fromkeys((*wanted.addresses, *on_usb)))


def _plain(serial: str) -> str:
    return serial.lstrip("0")


def _other_body(found: CameraIdentity, address: str, serial: str) -> OtherDeviceError:
    return OtherDeviceError(
        f"{found.model} at {address} has serial number {found.serial}, but {serial} is wanted",
        kept="every take recorded so far",
        next_step=f"connect the body {serial}, or give the other one's number in the profile and begin a new session",
    )


def _not_connected(serial: str) -> DeviceNotFoundError:
    return DeviceNotFoundError(
        f"no camera with serial number {serial} is connected" if serial else "no camera is connected",
        next_step="check cable, battery and that the camera is on; `rig devices` lists what is seen",
    )
