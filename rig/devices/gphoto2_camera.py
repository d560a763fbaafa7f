"""A camera that libgphoto2 can control: Nikon, Canon EOS, Sony and Fuji bodies, over USB or PTP/IP.

The library runs in a child process, since a call into it cannot be cancelled: killing the child is the only way
to end one that never returns. This process gives every call a deadline and never imports the library.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from catalog.session_folder import ExposureSettings, sync_folder
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.devices.camera import CameraIdentity, CameraStatus, CardFile, FetchedFile
from rig.devices.gphoto2_settings import FocusTable
from rig.errors import DeviceError, DeviceTimeoutError

T = TypeVar("T")

_OPEN_S = 30.0
_CALL_S = 15.0
_CONFIGURE_S = 90.0
"""Focus is driven to its stop first, which takes a slow lens half a minute."""
_FETCH_BYTES_PER_S = 2e6
_KILL_S = 5.0
DISCOVERY_TIMEOUT_S = 20.0


class Gphoto2Settings(Document):
    """A gphoto2 camera in a profile."""

    kind: Literal["gphoto2"]
    serial: str = ""
    """Serial number as the body reports it; empty takes the only camera connected."""
    address: str = ""
    """Port as libgphoto2 writes it (``ptpip:192.168.1.2``); empty finds the body by its serial number."""
    focus: FocusTable = FocusTable()
    """How the focus motor's steps relate to distance."""
    movie_close_s: float = Field(default=180.0, gt=0)
    """How long a body may take to close its movie file after the stop, s."""


@dataclass(frozen=True)
class DiscoveredCamera:
    """A camera that libgphoto2 sees."""

    model: str
    address: str


class Gphoto2Camera:
    """Satisfies `rig.devices.camera.Camera`; the owner of the library is a child process.

    Args:
        settings: Which body, and its focus table.
        clock: The session clock, for the time of the request to record.
    """

    def __init__(self, settings: Gphoto2Settings, clock: SessionClock) -> None:
        self._settings, self._clock = settings, clock
        self._child: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.identity = CameraIdentity("", "", settings.serial)

    def open(self) -> None:
        """Start the owner process and connect."""
        self._pipe, self._child = _start_worker()
        try:
            self.identity = self._call(
                "open", self._settings.address, self._settings.serial, self._settings.focus, timeout_s=_OPEN_S
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the body; kills the owner process when it does not answer."""
        if self._child is None or self._pipe is None:
            return
        with contextlib.suppress(DeviceError):
            self._call("close", timeout_s=_KILL_S)
        self._kill()

    def status(self) -> CameraStatus:
        """Read battery, card and prohibit reasons."""
        return self._typed("status", CameraStatus)

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        """Write settings and read them back."""
        return self._typed("configure", ExposureSettings, settings, timeout_s=_CONFIGURE_S)

    def start_movie(self) -> float:
        """Start recording to the card."""
        requested_s = self._clock.now()
        self._call("start_movie")
        return requested_s

    def stop_movie(self) -> tuple[CardFile, ...]:
        """Stop recording and wait for the files."""
        close_s = self._settings.movie_close_s
        return self._typed("stop_movie", tuple, close_s, timeout_s=close_s + _CALL_S)

    def capture_still(self) -> tuple[CardFile, ...]:
        """Take one picture."""
        return self._typed("capture_still", tuple, timeout_s=60.0)

    def preview(self) -> bytes:
        """Return one live-view frame."""
        return self._typed("preview", bytes)

    def fetch(
        self, file: CardFile, target: Path, *, progress: Callable[[int], None] | None = None
    ) -> FetchedFile:
        """Copy a card file."""
        part = target.with_name(target.name + ".part")
        timeout_s = _CALL_S + file.size_bytes / _FETCH_BYTES_PER_S
        try:
            sha256 = self._typed("fetch", str, file, part, timeout_s=timeout_s, progress=progress)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(target.parent)
        return FetchedFile(target, target.stat().st_size, sha256)

    def delete(self, file: CardFile) -> None:
        """Remove a card file."""
        self._call("delete", file)

    def _typed(self, method: str, kind: type[T], *arguments: object, **options: Any) -> T:
        result = self._call(method, *arguments, **options)
        if not isinstance(result, kind):
            raise DeviceError(f"{self._name}: {method} returned {type(result).__name__}")
        return result

    def _call(
        self,
        method: str,
        *arguments: object,
        timeout_s: float = _CALL_S,
        progress: Callable[[int], None] | None = None,
    ) -> Any:
        if self._pipe is None:
            raise DeviceError(f"{self._name}: not open", next_step="open the rig again")
        try:
            self._pipe.send((method, arguments))
            kind, value = self._await(self._pipe, timeout_s, progress)
        except (EOFError, BrokenPipeError, ConnectionError) as error:
            self._kill()
            raise DeviceError(
                f"{self._name}: its owner process ended during '{method}'", next_step="open the rig again"
            ) from error
        if kind == "silence":
            self._kill()
            raise DeviceTimeoutError(
                f"{self._name}: no answer to '{method}' within {timeout_s:.0f} s; its owner process was ended",
                next_step="switch the camera off and on, then resume",
            )
        return _result(kind, value)

    def _await(
        self, pipe: Connection, timeout_s: float, progress: Callable[[int], None] | None
    ) -> tuple[str, Any]:
        while pipe.poll(timeout_s):
            kind, value = pipe.recv()
            if kind != "progress":
                return kind, value
            if progress is not None:
                progress(value)
        return "silence", None

    @property
    def _name(self) -> str:
        return f"camera {self.identity.model or self._settings.serial or self._settings.address or 'gphoto2'}"

    def _kill(self) -> None:
        child, pipe = self._child, self._pipe
        self._child = self._pipe = None
        if pipe is not None:
            pipe.close()
        if child is not None:
            child.join(timeout=0.5)
            child.kill()
            child.join()


def _result(kind: str, value: Any) -> Any:
    if kind == "error":
        raise value
    return value


def _start_worker() -> tuple[Connection, BaseProcess]:
    from rig.devices.gphoto2_worker import serve

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs,), name="camera-owner", daemon=True)
    child.start()
    theirs.close()
    return ours, child


def discover() -> Sequence[DiscoveredCamera]:
    """List the cameras on USB, asked for in a process of their own."""
    pipe, child = _start_worker()
    try:
        pipe.send(("discover", ()))
        if not pipe.poll(DISCOVERY_TIMEOUT_S):
            raise DeviceTimeoutError(f"looking for cameras took longer than {DISCOVERY_TIMEOUT_S:.0f} s")
        found: list[tuple[str, str]] = _result(*pipe.recv())
        return [DiscoveredCamera(model, address) for model, address in found]
    finally:
        pipe.close()
        child.kill()
        child.join()
