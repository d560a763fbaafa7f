"""A camera that libgphoto2 can control: Nikon, Canon EOS, Sony and Fuji bodies, over USB or PTP/IP.

The library runs in a child process, since a call into it cannot be cancelled: killing the child is the only way
to end one that never returns. This process gives every call a deadline and never imports the library.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from catalog.session_folder import ExposureSettings, sync_folder
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.devices.camera import CameraCapabilities, CameraIdentity, CameraStatus, CardFile, FetchedFile
from rig.devices.gphoto2_body import Opened, Wanted
from rig.devices.gphoto2_exposure import Configured
from rig.devices.gphoto2_focus import FocusMove, FocusTable
from rig.devices.gphoto2_process import OwnerProcess
from rig.devices.gphoto2_settings import StillFormat
from rig.errors import DeviceError, DeviceTimeoutError, OtherDeviceError, SettingRefusedError

T = TypeVar("T")

_BACK_OFF_S = (0.5, 1.0, 2.0, 4.0)
_SHORTEST_OPEN_S = 8.0
"""What an attempt is given at least: less would end it while its process is still starting on a busy machine."""
_CONFIGURE_S = 90.0
"""Focus is driven to its stop first, which takes a slow lens half a minute."""
_CLOSE_S = 5.0
_REST_SLICE_S = 5.0
_STILL_S = 30.0
_LONGEST_STILL_S = 60.0
"""Exposure time assumed where none was set from here."""
_FETCH_BYTES_PER_S = 1e6
_DISCOVERY_S = 30.0
_NOTHING = CameraCapabilities(
    movie=False,
    stills=False,
    live_view=False,
    preview_while_recording=False,
    focus_drive=False,
    settable=frozenset(),
)


class Gphoto2Settings(Document):
    """A gphoto2 camera in a profile."""

    kind: Literal["gphoto2"]
    serial: str = ""
    """Serial number as the body reports it; empty takes the only camera connected."""
    address: str = ""
    """Port as libgphoto2 writes it (``ptpip:192.168.1.2``); empty finds the body by its serial number."""
    more_addresses: tuple[str, ...] = ()
    """Where else to look for it, such as the other addresses that a network camera is given."""
    focus: FocusTable = FocusTable()
    """How the focus motor's steps relate to distance."""
    still_format: StillFormat | None = None
    """Files of a still: ``raw``, ``jpeg``, ``raw+jpeg``; None leaves the body as it is set."""
    call_s: float = Field(default=25.0, gt=0)
    """How long an ordinary call may take, s; the library itself gives up on USB after 20 s."""
    open_s: float = Field(default=60.0, gt=0)
    """How long connecting and preparing may take, s."""
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
        capabilities: What it can do; nothing until opened.
        last_focus: How the lens was driven last.
    """

    def __init__(self, settings: Gphoto2Settings, clock: SessionClock) -> None:
        self._settings, self._clock = settings, clock
        self._owner: OwnerProcess | None = None
        self._exposure_s = _LONGEST_STILL_S
        self._asked = ExposureSettings()
        self._is_recording = False
        self._aborted = threading.Event()
        self.identity = CameraIdentity("", "", settings.serial)
        self.capabilities = _NOTHING
        self.last_focus: FocusMove | None = None

    def open(self) -> None:
        """Start the owner process and connect."""
        self._aborted.clear()
        self._open(self._wanted(self._settings.serial), self._settings.open_s)
        self._asked = ExposureSettings()

    def reconnect(self, *, timeout_s: float) -> None:
        """Find the body of before again, and apply its settings."""
        import tenacity as again

        began_s = time.monotonic()
        wanted = replace(self._wanted(self.identity.serial), is_patient=False)
        attempts = again.Retrying(
            wait=again.wait_chain(*map(again.wait_fixed, _BACK_OFF_S)),
            stop=again.stop_after_delay(timeout_s) | again.stop_when_event_set(self._aborted),
            sleep=again.sleep_using_event(self._aborted),
            retry=again.retry_if_exception(_may_pass),
            reraise=True,
        )
        for attempt in attempts:
            with attempt:
                left_s = began_s + timeout_s - time.monotonic()
                self._open(wanted, min(self._settings.open_s, max(left_s, _SHORTEST_OPEN_S)))
        self.configure(self._asked)

    def close(self) -> None:
        """Let go of the body; ends the owner process by force when it does not answer."""
        self._is_recording = False
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if owner.alive:
            with contextlib.suppress(DeviceError):
                owner.call("close", camera=self._name, timeout_s=_CLOSE_S)
        owner.close()

    def abort(self) -> None:
        """End the call in progress, whatever it is, with a `DeviceError`; the camera is lost then. Thread-safe."""
        self._aborted.set()
        owner = self._owner
        if owner is not None:
            owner.abort()

    def status(self) -> CameraStatus:
        """Read battery, card and prohibit reasons."""
        return self._call("status", CameraStatus)

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        """Write settings and read them back."""
        done = self._call("configure", Configured, settings, timeout_s=_CONFIGURE_S)
        self._asked = self._asked.model_copy(update=settings.model_dump(exclude_none=True))
        self.last_focus = done.focus or self.last_focus
        self._exposure_s = done.settings.exposure_s or _LONGEST_STILL_S
        return done.settings

    def start_movie(self) -> float:
        """Start recording to the card, once the body has written what an earlier take left it with."""
        self._come_to_rest("start_movie")
        requested_s = self._clock.now()
        self._call("start_movie", type(None))
        self._is_recording = True
        return requested_s

    def stop_movie(self) -> tuple[CardFile, ...]:
        """Stop recording and wait for the files."""
        close_s = self._settings.movie_close_s
        self._is_recording = False
        return self._call("stop_movie", tuple, close_s, timeout_s=close_s + self._settings.call_s)

    def capture_still(self) -> tuple[CardFile, ...]:
        """Take one picture."""
        self._come_to_rest("capture_still")
        file_s = 2 * self._exposure_s + _STILL_S  # noise reduction takes as long as the exposure
        return self._call("capture_still", tuple, file_s, timeout_s=file_s + self._settings.call_s)

    def capture_burst(self, count: int) -> tuple[CardFile, ...]:
        """Take pictures as fast as the body goes."""
        if count < 1:
            raise ValueError(f"a burst of {count} pictures")
        self._come_to_rest("capture_burst")
        files_s = 2 * count * self._exposure_s + _STILL_S
        return self._call("capture_burst", tuple, count, files_s, timeout_s=files_s + self._settings.call_s)

    def preview(self) -> bytes:
        """Return one live-view frame; a body that gives none while it records is not asked for one again."""
        if self._is_recording and not self.capabilities.preview_while_recording:
            raise DeviceError(
                f"{self._name}: shows no live view while it records", next_step="wait for the end of the take"
            )
        try:
            return self._call("preview", bytes)
        except DeviceError:
            if self._is_recording:
                self.capabilities = replace(self.capabilities, preview_while_recording=False)
            raise

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

    def _come_to_rest(self, before: str) -> None:
        """Bring the body to a known state, a little at a time: each call keeps its own short deadline.

        Raises:
            DeviceTimeoutError: It still writes what it recorded before.
        """
        close_s, call_s = self._settings.movie_close_s, self._settings.call_s
        slice_s, deadline_s = min(_REST_SLICE_S, close_s), time.monotonic() + close_s
        while not self._call(
            "come_to_rest", bool, slice_s, close_s, timeout_s=slice_s + call_s, within=before
        ):
            if time.monotonic() > deadline_s:
                raise DeviceTimeoutError(
                    f"{self._name}: still writes what it recorded before, after {close_s:g} s",
                    kept="every file on the card",
                    next_step="wait for its card light to go out, then go on; if it stays lit, switch it off and on",
                )
        self._is_recording = False

    def _wanted(self, serial: str) -> Wanted:
        settings = self._settings
        addresses = tuple(a for a in (settings.address, *settings.more_addresses) if a)
        return Wanted(addresses, serial, settings.focus, settings.still_format, self._clock.rate)

    def _open(self, wanted: Wanted, timeout_s: float) -> None:
        self.close()
        self._owner = OwnerProcess()
        try:
            opened = self._call("open", Opened, wanted, timeout_s=timeout_s)
        except BaseException:
            self.close()
            raise
        self.identity, self.capabilities = opened.identity, opened.capabilities

    def _call(
        self,
        method: str,
        kind: type[T],
        *arguments: object,
        timeout_s: float | None = None,
        progress: Callable[[int], None] | None = None,
        stall_s: float | None = None,
        within: str = "",
    ) -> T:
        owner = self._owner
        if owner is None or not owner.alive:
            raise DeviceError(f"{self._name}: not open", next_step="open the rig again")
        result: Any = owner.call(
            method,
            *arguments,
            camera=self._name,
            timeout_s=timeout_s or self._settings.call_s,
            progress=progress,
            stall_s=stall_s,
            within=within,
        )
        if not isinstance(result, kind):
            raise DeviceError(f"{self._name}: {method} returned {type(result).__name__}")
        return result

    @property
    def _name(self) -> str:
        return f"camera {self.identity.model or self._settings.serial or self._settings.address or 'gphoto2'}"


def _may_pass(error: BaseException) -> bool:
    """Tell whether waiting may help: not where another body is there, nor where the right one refuses."""
    return isinstance(error, DeviceError) and not isinstance(error, OtherDeviceError | SettingRefusedError)


def discover() -> Sequence[DiscoveredCamera]:
    """List the cameras on USB, asked for in a process of their own."""
    owner = OwnerProcess()
    try:
        found: list[tuple[str, str]] = owner.call("discover", camera="USB", timeout_s=_DISCOVERY_S)
    finally:
        owner.kill()
    return [DiscoveredCamera(model, address) for model, address in found]
