"""A camera that several threads may call: one call at a time, and live view only while nobody else needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from catalog.session_folder import ExposureSettings
from rig.devices.camera import (
    Abortable,
    Camera,
    CameraCapabilities,
    CameraIdentity,
    CameraStatus,
    CardFile,
    FetchedFile,
)
from rig.errors import DeviceError, SettingRefusedError

T = TypeVar("T")

_LETTING_GO_S = 2.0
"""How long a call in progress may go on when the camera is to be closed."""


class SharedCamera:
    """Satisfies `rig.devices.camera.Camera` and remembers what it last heard, for whoever only shows it.

    Args:
        camera: The camera, open; nobody else may call it.
    """

    def __init__(self, camera: Camera) -> None:
        self.identity: CameraIdentity = camera.identity
        self.capabilities: CameraCapabilities = camera.capabilities
        self._camera = camera
        self._lock = threading.RLock()
        self._recording = self._closed = False
        self.last_status: CameraStatus | None = None
        self.last_settings = ExposureSettings()
        self.heard_s = time.monotonic()
        """Machine's monotonic reading at the last answer."""
        self.trouble = ""
        """Plain words about the last call when it failed, empty when it did not."""

    def open(self) -> None:
        """Connect, identify, probe."""
        self._recording = self._closed = False
        self._exclusively(self._camera.open)
        self.identity, self.capabilities = self._camera.identity, self._camera.capabilities

    def reconnect(self, *, timeout_s: float) -> None:
        """Find the body of before again and apply its settings."""
        self._recording = False
        self._exclusively(lambda: self._camera.reconnect(timeout_s=timeout_s))

    def close(self) -> None:
        """Release the body for good, ending a call in progress that takes long. Safe to call twice.

        Whoever else still knows the camera gets a `DeviceError` from now on: one that looks for a lost camera would
        otherwise connect to it again behind the back of its next owner.
        """
        self._closed = True
        is_mine = self._lock.acquire(timeout=_LETTING_GO_S)
        if not is_mine and isinstance(self._camera, Abortable):
            self._camera.abort()
            is_mine = self._lock.acquire(timeout=_LETTING_GO_S)
        try:
            self._camera.close()
        finally:
            if is_mine:
                self._lock.release()

    def status(self) -> CameraStatus:
        """Read battery, card and prohibit reasons."""
        self.last_status = self._exclusively(self._camera.status)
        return self.last_status

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        """Write the settings that are not None, read everything back."""
        self.last_settings = self._exclusively(lambda: self._camera.configure(settings))
        return self.last_settings

    def start_movie(self) -> float:
        """Start recording to the card; returns the session time of the request."""
        started_s = self._exclusively(self._camera.start_movie)
        self._recording = True
        return started_s

    def stop_movie(self) -> tuple[CardFile, ...]:
        """Stop recording and return the files the body wrote."""
        self._recording = False
        return self._exclusively(self._camera.stop_movie)

    def capture_still(self) -> tuple[CardFile, ...]:
        """Take one picture and return its files."""
        return self._exclusively(self._camera.capture_still)

    def capture_burst(self, count: int) -> tuple[CardFile, ...]:
        """Take pictures as fast as the body goes and return their files."""
        return self._exclusively(lambda: self._camera.capture_burst(count))

    def preview(self) -> bytes:
        """Return one live-view frame as JPEG bytes."""
        return self._exclusively(self._camera.preview)

    def try_preview(self) -> bytes | None:
        """Return a live-view frame, or None at once while the camera does something else."""
        if self._recording and not self.capabilities.preview_while_recording:
            return None
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self.preview()
        finally:
            self._lock.release()

    def try_status(self) -> CameraStatus | None:
        """Return the status, or None at once while the camera does something else."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self.status()
        finally:
            self._lock.release()

    def end_leftover(self, *, unwanted: Callable[[], bool]) -> None:
        """End a movie that a take given up left running; does nothing while the camera does something else.

        Args:
            unwanted: Asked when nobody can start a movie any more: whether one that runs is nobody's.
        """
        if self._lock.acquire(blocking=False):
            try:
                if self._recording and unwanted():
                    self.stop_movie()
            finally:
                self._lock.release()

    def fetch(
        self, file: CardFile, target: Path, *, progress: Callable[[int], None] | None = None
    ) -> FetchedFile:
        """Copy a card file to ``target``, hashing."""
        return self._exclusively(lambda: self._camera.fetch(file, target, progress=progress))

    def delete(self, file: CardFile) -> None:
        """Remove a file from the card."""
        self._exclusively(lambda: self._camera.delete(file))

    def _exclusively(self, call: Callable[[], T]) -> T:
        with self._lock:
            if self._closed:
                raise DeviceError(f"camera {self.identity.model}: was closed", next_step="open the rig again")
            try:
                answer = call()
            except SettingRefusedError:
                raise  # the camera is there, it only disagrees
            except DeviceError as error:
                self.trouble = error.message
                raise
            self.trouble, self.heard_s = "", time.monotonic()
            return answer
