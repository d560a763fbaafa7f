"""A UVC camera or HDMI grabber through OpenCV: compressed frames, stamped when they arrive, recorded as they come.

The device's own JPEG frames are never decoded and encoded again: they go into segments of at most a second, each
synced and renamed when it is complete, so that a crash costs no sealed segment. Settings that the device does not
offer (all of a camera's behind an HDMI grabber) are set by hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from catalog.session_folder import ExposureSettings, file_sha256, sync_folder
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.devices.camera import (
    ArrivalLog,
    CameraCapabilities,
    CameraIdentity,
    CameraStatus,
    CardFile,
    FetchedFile,
)
from rig.devices.frame_grabber import READ_S, STALE_S, ArrivedFrame, FrameGrabber, open_source
from rig.devices.segment_recording import SegmentRecording
from rig.errors import DeviceError, DeviceTimeoutError, SettingRefusedError

if TYPE_CHECKING:
    import cv2

_FIRST_FRAME_S = 5.0


class UvcSettings(Document):
    """A UVC camera or HDMI grabber in a profile."""

    kind: Literal["uvc"]
    path: str = Field(min_length=1)
    """Device, best ``/dev/v4l/by-id/…``, or the URL of an MJPEG stream."""
    width: int = Field(default=1920, gt=0, le=8192)
    height: int = Field(default=1080, gt=0, le=8192)
    frame_rate_hz: float = Field(default=30.0, gt=0, le=240)
    """Rate to ask for; the real one is measured in every take."""
    segment_s: float = Field(default=1.0, gt=0.1, le=10)
    """Length of a file; what a crash can cost at most, s."""
    set_by_hand: bool = False
    """Whether somebody sets at the camera what the device cannot be told; the plan's settings then count as set."""


class OpencvCamera:
    """Satisfies `rig.devices.camera.Camera` for sources that OpenCV can open.

    Args:
        settings: The profile's camera.
        clock: The session clock; frames are stamped with it.
        spool: Folder for segments until they are fetched, on the disk of the data folder.
    """

    def __init__(self, settings: UvcSettings, clock: SessionClock, *, spool: Path) -> None:
        self._settings, self._clock = settings, clock
        self._spool = spool / f"uvc-{os.getpid()}"
        self._grabber: FrameGrabber | None = None
        self._recording: SegmentRecording | None = None
        self._takes = 0
        self.identity = CameraIdentity("", settings.path, "")
        self.capabilities = CameraCapabilities(
            movie=True,
            stills=True,
            live_view=True,
            preview_while_recording=True,
            focus_drive=False,
            settable=frozenset(),
        )

    def open(self) -> None:
        """Open the device, check what it delivers, wait for the first frame.

        Raises:
            DeviceNotFoundError: Nothing can be opened there.
            SettingRefusedError: It delivers another size, or no compressed frames.
            DeviceTimeoutError: It opens but no frame comes.
        """
        self.close()
        _remove_left_over(self._spool.parent)
        self._spool.mkdir(parents=True, exist_ok=True)
        wanted = self._settings
        source = open_source(
            wanted.path, width=wanted.width, height=wanted.height, frame_rate_hz=wanted.frame_rate_hz
        )
        self._grabber = FrameGrabber(source, wanted.path, self._clock)
        self._grabber.wait_for_frame(_FIRST_FRAME_S)
        self.identity = CameraIdentity(
            "", Path(self._settings.path).name or self._settings.path, source.getBackendName()
        )
        self.capabilities = self._probed(source)

    def close(self) -> None:
        """Stop recording and let go of the device. Safe to call twice."""
        if self._recording is not None:
            self._recording.abandon()
            self._recording = None
        if self._grabber is not None:
            self._grabber.close()
            self._grabber = None

    def reconnect(self, *, timeout_s: float) -> None:
        """Open the device again, trying until the time is up. Raises as `open`."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

        patient = Retrying(
            stop=stop_after_delay(timeout_s / self._clock.rate),
            wait=wait_exponential(multiplier=0.5, max=4),
            retry=retry_if_exception_type(DeviceError),
            reraise=True,
        )
        patient(self.open)

    def status(self) -> CameraStatus:
        """Say whether frames come, and how much room the spool has; a grabber has neither battery nor card."""
        stat = os.statvfs(self._spool)
        age_s = self._live().age_s()
        silent = f"no frame for {age_s:.1f} s" if age_s > STALE_S else ""
        return CameraStatus(
            battery_percent=None, free_bytes=stat.f_bavail * stat.f_frsize, movie_prohibited=silent
        )

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        """Write what the device offers and read it back; the rest is refused, or taken as set by hand.

        Raises:
            SettingRefusedError: A setting that the device does not offer, or does not take.
        """
        wanted = {k: v for k, v in settings.model_dump().items() if v is not None}
        foreign = sorted(set(wanted) - self.capabilities.settable)
        if foreign and not self._settings.set_by_hand:
            raise SettingRefusedError(
                f"camera {self._settings.path}: {', '.join(foreign)} cannot be set from here",
                kept="its settings",
                next_step="set them at the camera and put `set_by_hand: true` into the profile",
            )
        if "exposure_s" in wanted and "exposure_s" in self.capabilities.settable:
            self._live().set_exposure(wanted["exposure_s"])
        return settings

    def start_movie(self) -> float:
        """Record from the next frame on; returns the session time of the request."""
        live = self._live()
        self._takes += 1
        requested_s = self._clock.now()
        folder = self._spool / f"take-{self._takes:04d}"
        folder.mkdir()
        size = (self._settings.width, self._settings.height)
        self._recording = SegmentRecording(
            folder, segment_s=self._settings.segment_s, size=size, origin_s=requested_s
        )
        live.feed(self._recording.offer)
        return requested_s

    def stop_movie(self) -> tuple[CardFile, ...]:
        """Stop recording and return the segments, in order.

        Raises:
            DeviceError: The link broke meanwhile, or the disk failed; the sealed segments stay in the spool.
        """
        if self._recording is None:
            raise DeviceError(f"camera {self._settings.path}: it is not recording")
        live = self._live()
        live.feed(None)
        recording, self._recording = self._recording, None
        files = recording.finish()
        live.require_alive()
        return files

    def capture_still(self) -> tuple[CardFile, ...]:
        """Keep the next frame as a picture."""
        return self.capture_burst(1)

    def capture_burst(self, count: int) -> tuple[CardFile, ...]:
        """Keep the next ``count`` frames as pictures."""
        self._takes += 1
        frames = [self._live().next_frame(READ_S) for _ in range(count)]
        return tuple(self._keep(frame, number) for number, frame in enumerate(frames))

    def preview(self) -> bytes:
        """Return the newest frame.

        Raises:
            DeviceTimeoutError: None came within the last second.
        """
        frame = self._live().newest
        if frame is None or self._clock.now() - frame.arrived_s > STALE_S * self._clock.rate:
            raise DeviceTimeoutError(f"camera {self._settings.path}: no frame for {STALE_S:g} s")
        return frame.jpeg

    def fetch(
        self, file: CardFile, target: Path, *, progress: Callable[[int], None] | None = None
    ) -> FetchedFile:
        """Move a segment to its place; an existing file is never replaced."""
        if target.exists():
            raise DeviceError(f"{target} exists already", kept="it, and the segment in the spool")
        source = Path(file.folder) / file.name
        os.link(source, target)
        sync_folder(target.parent)
        if progress is not None:
            progress(file.size_bytes)
        return FetchedFile(target, file.size_bytes, file_sha256(target))

    def delete(self, file: CardFile) -> None:
        """Remove a segment from the spool."""
        (Path(file.folder) / file.name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            Path(file.folder).rmdir()

    def _live(self) -> FrameGrabber:
        if self._grabber is None:
            raise DeviceError(f"camera {self._settings.path}: not open", next_step="open the rig again")
        return self._grabber

    def _keep(self, frame: ArrivedFrame, number: int) -> CardFile:
        name = f"still-{self._takes:04d}-{number:02d}.jpg"
        _write_synced(self._spool / name, frame.jpeg)
        return CardFile(str(self._spool), name, len(frame.jpeg), ArrivalLog((frame.arrived_s,)))

    def _probed(self, source: cv2.VideoCapture) -> CameraCapabilities:
        import cv2

        settable = set()
        exposure = source.get(cv2.CAP_PROP_EXPOSURE)
        if exposure > 0 and source.set(cv2.CAP_PROP_EXPOSURE, exposure):
            settable.add("exposure_s")
        return CameraCapabilities(
            movie=True,
            stills=True,
            live_view=True,
            preview_while_recording=True,
            focus_drive=False,
            settable=frozenset(settable),
        )


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    sync_folder(path.parent)


def _remove_left_over(spool: Path) -> None:
    """Delete what engines left behind that were killed: their takes are void."""
    for folder in spool.glob("uvc-*"):
        pid = folder.name.removeprefix("uvc-")
        if pid.isdigit() and int(pid) != os.getpid() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
