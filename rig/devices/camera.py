"""What a camera must be able to do, whatever it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from catalog.session_folder import ExposureSettings


@dataclass(frozen=True)
class CameraIdentity:
    """Which body this is."""

    maker: str
    model: str
    serial: str
    firmware: str = ""


@dataclass(frozen=True)
class CameraStatus:
    """What must be known before a take."""

    battery_percent: int | None
    free_bytes: int | None
    movie_prohibited: str = ""
    """Plain words why no movie can be recorded, empty when it can."""


@dataclass(frozen=True)
class CardFile:
    """A file on the camera's card."""

    folder: str
    name: str
    size_bytes: int


@dataclass(frozen=True)
class FetchedFile:
    """A file copied off the card, hashed while it was received."""

    path: Path
    size_bytes: int
    sha256: str


class Camera(Protocol):
    """A camera. Calls block until done or their deadline has passed; one owner per camera."""

    identity: CameraIdentity

    def open(self) -> None:
        """Connect and identify; capture target, focus mode and drive mode are set and read back."""

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
        """Take one picture at standstill and return its files."""

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
