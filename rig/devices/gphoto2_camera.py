"""A camera that libgphoto2 can control: Nikon, Canon EOS, Sony and Fuji bodies, over USB or PTP/IP.

The library runs in a child process, since a call into it cannot be cancelled: killing the child is the only way
to end one that never returns. This process gives every call a deadline and never imports the library.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from catalog.session_folder import ExposureSettings, sync_folder
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.devices.camera import CameraIdentity, CameraStatus, CardFile, FetchedFile
from rig.devices.gphoto2_body import Configured
from rig.devices.gphoto2_focus import FocusMove, FocusTable
from rig.devices.gphoto2_process import OwnerProcess
from rig.errors import DeviceError

T = TypeVar("T")

_OPEN_S = 60.0
_CONFIGURE_S = 90.0
"""Focus is driven to its stop first, which takes a slow lens half a minute."""
_CLOSE_S = 5.0
_STILL_S = 30.0
_LONGEST_STILL_S = 60.0
"""Exposure time assumed where none was set from here."""
_FETCH_BYTES_PER_S = 1e6
_DISCOVERY_S = 30.0


class Gphoto2Settings(Document):
    """A gphoto2 camera in a profile."""

    kind: Literal["gphoto2"]
    serial: str = ""
    """Serial number as the body reports it; empty takes the only camera connected."""
    address: str = ""
    """Port as libgphoto2 writes it (``ptpip:192.168.1.2``); empty finds the body by its serial number."""
    focus: FocusTable = FocusTable()
    """How the focus motor's steps relate to distance."""
    call_s: float = Field(default=25.0, gt=0)
    """How long an ordinary call may take, s; the library itself gives up on USB after 20 s."""
    movie_close_s: float = Field(default=180.0, gt=0)
    """How long a body may take to close its movie file after the stop, s."""


@dataclass(frozen=True)
class DiscoveredCamera:
    """A camera that libgphoto2 sees."""

    model: str
    address: str


class Gphoto2Camera:
    """Satisfies `rig.devices.camera.Camera`; the owner of the library is a child process.

    Every call may raise `DeviceTimeoutError`, after which the child is gone and the camera must be opened again,
    and `DeviceError` for what the body or the library refuses.

    Args:
        settings: Which body, and its focus table.
        clock: The session clock, for the time of the request to record.

    Attributes:
        identity: Who the body is; empty until opened.
        last_focus: How the lens was driven last.
    """

    def __init__(self, settings: Gphoto2Settings, clock: SessionClock) -> None:
        self._settings, self._clock = settings, clock
        self._owner: OwnerProcess | None = None
        self._exposure_s = _LONGEST_STILL_S
        self.identity = CameraIdentity("", "", settings.serial)
        self.last_focus: FocusMove | None = None

    def open(self) -> None:
        """Start the owner process and connect."""
        self.close()
        self._owner = OwnerProcess()
        wanted = self._settings
        try:
            self.identity = self._call(
                "open", CameraIdentity, wanted.address, wanted.serial, wanted.focus, timeout_s=_OPEN_S
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the body; ends the owner process by force when it does not answer."""
        if self._owner is None:
            return
        with contextlib.suppress(DeviceError):
            self._call("close", type(None), timeout_s=_CLOSE_S)
        self._owner.close()
        self._owner = None

    def status(self) -> CameraStatus:
        """Read battery, card and prohibit reasons."""
        return self._call("status", CameraStatus)

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        """Write settings and read them back."""
        done = self._call("configure", Configured, settings, timeout_s=_CONFIGURE_S)
        self.last_focus = done.focus or self.last_focus
        self._exposure_s = done.settings.exposure_s or _LONGEST_STILL_S
        return done.settings

    def start_movie(self) -> float:
        """Start recording to the card."""
        requested_s = self._clock.now()
        self._call("start_movie", type(None))
        return requested_s

    def stop_movie(self) -> tuple[CardFile, ...]:
        """Stop recording and wait for the files."""
        close_s = self._settings.movie_close_s
        return self._call("stop_movie", tuple, close_s, timeout_s=close_s + self._settings.call_s)

    def capture_still(self) -> tuple[CardFile, ...]:
        """Take one picture."""
        file_s = 2 * self._exposure_s + _STILL_S  # noise reduction takes as long as the exposure
        return self._call("capture_still", tuple, file_s, timeout_s=file_s + self._settings.call_s)

    def preview(self) -> bytes:
        """Return one live-view frame."""
        return self._call("preview", bytes)

    def fetch(
        self, file: CardFile, target: Path, *, progress: Callable[[int], None] | None = None
    ) -> FetchedFile:
        """Copy a card file to ``target``, by way of a file beside it; an existing file is never replaced."""
        if target.exists():
            raise DeviceError(
                f"{target} exists already",
                kept="it, and the file on the card",
                next_step="choose another name",
            )
        part = target.with_name(target.name + ".part")
        part.unlink(missing_ok=True)
        timeout_s = self._settings.call_s + file.size_bytes / _FETCH_BYTES_PER_S
        try:
            sha256 = self._call(
                "fetch",
                str,
                file,
                part,
                timeout_s=timeout_s,
                progress=progress,
                stall_s=self._settings.call_s,
            )
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(target.parent)
        return FetchedFile(target, file.size_bytes, sha256)

    def delete(self, file: CardFile) -> None:
        """Remove a card file."""
        self._call("delete", type(None), file)

    def _call(
        self,
        method: str,
        kind: type[T],
        *arguments: object,
        timeout_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        stall_s: float | None = None,
    ) -> T:
        if self._owner is None or not self._owner.alive:
            raise DeviceError(f"{self._name}: not open", next_step="open the rig again")
        result: Any = self._owner.call(
            method,
            *arguments,
            camera=self._name,
            timeout_s=timeout_s or self._settings.call_s,
            progress=progress,
            stall_s=stall_s,
        )
        if not isinstance(result, kind):
            raise DeviceError(f"{self._name}: {method} returned {type(result).__name__}")
        return result

    @property
    def _name(self) -> str:
        return f"camera {self.identity.model or self._settings.serial or self._settings.address or 'gphoto2'}"


def discover() -> Sequence[DiscoveredCamera]:
    """List the cameras on USB, asked for in a process of their own."""
    owner = OwnerProcess()
    try:
        found: list[tuple[str, str]] = owner.call("discover", camera="USB", timeout_s=_DISCOVERY_S)
    finally:
        owner.kill()
    return [DiscoveredCamera(model, address) for model, address in found]
