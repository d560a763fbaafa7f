"""What a camera must be able to do, whatever it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from catalog.session_folder import ExposureSettings


@dataclass(frozen=True)
class CameraIdentity:
    """Which body this is."""

    maker: str
    model: str
    serial: str
    firmware: str = ""


@dataclass(frozen=True)
class CameraCapabilities:
    """What this body can do; probed after `Camera.open`, never assumed from the model's name."""

    movie: bool
    stills: bool
    live_view: bool
    preview_while_recording: bool
    """Whether `Camera.preview` works between `start_movie` and `stop_movie`."""
    focus_drive: bool
    """Whether ``focus_m`` can be set from here."""
    settable: frozenset[str]
    """Fields of `ExposureSettings` that the body takes from here."""


@dataclass(frozen=True)
class CameraStatus:
    """What must be known before a take."""

    battery_percent: int | None
    free_bytes: int | None
    movie_prohibited: str = ""
    """Plain words why no movie can be recorded, empty when it can."""
    hot: bool = False
    """Whether the body says that it is overheating."""
    clock_offset_s: float | None = None
    """Camera's clock less the host's wall clock, to the second; None where it has none."""
    unasked_changes: tuple[str, ...] = ()
    """Settings that changed on the body since `Camera.configure` without our asking, in plain words."""


@dataclass(frozen=True)
class ArrivalLog:
    """When the frames of a file reached the host, for sources whose container cannot tell when they were exposed."""

    arrived_s: tuple[float, ...]
    """Session time of every frame in the file, in order."""
    duplicated: tuple[int, ...] = ()
    """Frames of the file with the same content as the one before."""


@dataclass(frozen=True)
class CardFile:
    """A file on the camera's card."""

    folder: str
    name: str
    size_bytes: int
    arrivals: ArrivalLog | None = None
    """None where the container's own times count."""


@dataclass(frozen=True)
class FetchedFile:
    """A file copied off the card, hashed while it was received."""

    path: Path
    size_bytes: int
    sha256: str


@runtime_checkable
class Abortable(Protocol):
    """A device whose call in progress can be ended from another thread."""

    def abort(self) -> None:
        """End the call in progress, whatever it is, with a `DeviceError`; the device is lost then. Thread-safe."""


class Camera(Protocol):
    """A camera. Calls block until done or their deadline has passed; one owner per camera."""

    identity: CameraIdentity
    capabilities: CameraCapabilities

    def open(self) -> None:
        """Connect, identify, probe; capture target, focus mode, drive mode and clock are set and read back."""

    def reconnect(self, *, timeout_s: float) -> None:
        """Find the body of before by its serial number, wherever it is connected now, and apply its settings again.

        Tries again and again, waiting 0.5, 1, 2 and then 4 s, since a body that wakes up needs a while.

        Raises:
            OtherDeviceError: Another body is in its place.
            DeviceError: It did not come back in time (as the last attempt said it).
            SettingRefusedError: It is back and does not take its settings.
        """

    def close(self) -> None:
        """Stop a recording, leave live view, release the body. Safe to call twice."""

    def status(self) -> CameraStatus:
        """Read battery, card and prohibit reasons from the body (a probe that no cache answers)."""

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        """Write the settings that are not None, read everything back.

        Raises:
            SettingRefusedError: The body has no such value, or reads back another one.
        """

    def start_movie(self) -> float:
        """Start recording to the card; returns the session time of the request.

        The first frame is exposed 0.1 to 2 s later, by an amount that only the picture tells.
        """

    def stop_movie(self) -> tuple[CardFile, ...]:
        """Stop recording and return the files the body wrote, in order; blocks until they are closed."""

    def capture_still(self) -> tuple[CardFile, ...]:
        """Take one picture at standstill and return its files (raw and JPEG where the profile asks for both).

        Exposures beyond the body's list are held open by hand (bulb).
        """

    def capture_burst(self, count: int) -> tuple[CardFile, ...]:
        """Take ``count`` pictures as fast as the body goes and return their files in order."""

    def preview(self) -> bytes:
        """Return one live-view frame as JPEG bytes."""

    def fetch(
        self, file: CardFile, target: Path, *, progress: Callable[[int], None] | None = None
    ) -> FetchedFile:
        """Copy a card file to ``target`` in chunks, hashing; ``progress`` gets the bytes of each chunk.

        The caller renames and journals; a failed copy leaves no file.
        """

    def delete(self, file: CardFile) -> None:
        """Remove a file from the card, after its copy was verified."""
