"""Compressed frames from anything that OpenCV opens, read without a pause and stamped when they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rig.clock import SessionClock
from rig.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, SettingRefusedError

if TYPE_CHECKING:
    import cv2

READ_S = 2.0
"""How long a network source may be silent before it counts as lost, s; V4L2 has a limit of its own."""
STALE_S = 1.0
"""Age at which the newest frame is no longer what the camera sees, s."""
_OPEN_S = 10.0
_EXPOSURE_UNIT_S = 1e-4
"""V4L2's unit of absolute exposure."""


@dataclass(frozen=True)
class ArrivedFrame:
    """One frame as the device compressed it."""

    jpeg: bytes
    arrived_s: float
    """Session time."""


class FrameGrabber:
    """Reads without a pause, so that nothing ages in a driver's buffer; hands each frame on."""

    def __init__(self, source: cv2.VideoCapture, name: str, clock: SessionClock) -> None:
        self.newest: ArrivedFrame | None = None
        self._source, self._name, self._clock = source, name, clock
        self._sink: Callable[[ArrivedFrame], None] | None = None
        self._arrival = threading.Condition()
        self._closing = False
        self._lost_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="uvc-grabber", daemon=True)
        self._thread.start()

    def feed(self, sink: Callable[[ArrivedFrame], None] | None) -> None:
        """Send every frame from now on to ``sink``."""
        with self._arrival:
            self._sink = sink

    def wait_for_frame(self, timeout_s: float) -> None:
        """Return when the first frame is there."""
        with self._arrival:
            came = self._arrival.wait_for(lambda: self.newest or self._lost_s is not None, timeout_s)
        if not came or self.newest is None:
            self.close()
            raise DeviceTimeoutError(
                f"camera {self._name}: it opened, but no frame came within {timeout_s:g} s",
                next_step="check the source (HDMI cable, camera's output mode, another program?)",
            )

    def next_frame(self, timeout_s: float) -> ArrivedFrame:
        """Return a frame that arrives after this call.

        Raises:
            DeviceTimeoutError: None came in time.
            DeviceError: The link has broken.
        """
        with self._arrival:
            before = self.newest
            self._arrival.wait_for(lambda: self.newest is not before or self._lost_s is not None, timeout_s)
            if self.newest is None or self.newest is before:
                self.require_alive()
                raise DeviceTimeoutError(f"camera {self._name}: no frame within {timeout_s:g} s")
            return self.newest

    def age_s(self) -> float:
        """Return how long ago the newest frame came, s."""
        return float("inf") if self.newest is None else self._clock.now() - self.newest.arrived_s

    def require_alive(self) -> None:
        """Raise when the link has broken."""
        if self._lost_s is not None:
            raise DeviceError(
                f"camera {self._name}: the link broke at session time {self._lost_s:.2f} s",
                kept="the segments that were complete",
                next_step="check cable and source; the take is recorded again after reconnecting",
            )

    def set_exposure(self, exposure_s: float) -> None:
        """Set the exposure time, manual mode, and compare with what reads back."""
        import cv2

        self._source.set(cv2.CAP_PROP_AUTO_EXPOSURE, 1)
        self._source.set(cv2.CAP_PROP_EXPOSURE, exposure_s / _EXPOSURE_UNIT_S)
        read_s = self._source.get(cv2.CAP_PROP_EXPOSURE) * _EXPOSURE_UNIT_S
        if abs(read_s / exposure_s - 1) > 0.05:
            raise SettingRefusedError(
                f"camera {self._name}: exposure_s {exposure_s:g} was asked for, {read_s:g} reads back"
            )

    def close(self) -> None:
        """End the thread and the device; a read in progress is waited for, it has a time limit."""
        self._closing = True
        self._thread.join(READ_S + _OPEN_S)
        self._source.release()

    def _run(self) -> None:
        while not self._closing:
            if not self._source.grab():
                self._lost_s = self._clock.now()
                break
            arrived_s = self._stamp_s()
            ok, packet = self._source.retrieve()
            if ok:
                self._hand_on(ArrivedFrame(packet.tobytes(), arrived_s))
        with self._arrival:
            self._arrival.notify_all()

    def _hand_on(self, frame: ArrivedFrame) -> None:
        with self._arrival:
            self.newest = frame
            sink = self._sink
            self._arrival.notify_all()
        if sink is not None:
            sink(frame)

    def _stamp_s(self) -> float:
        """Return the kernel's stamp where the driver gives one on this clock, the present time otherwise."""
        import cv2

        now_s = self._clock.now()
        kernel_s = (self._source.get(cv2.CAP_PROP_POS_MSEC) / 1000 - self._clock.origin_s) * self._clock.rate
        return kernel_s if 0 <= now_s - kernel_s < STALE_S else now_s


def open_source(path: str, *, width: int, height: int, frame_rate_hz: float) -> cv2.VideoCapture:
    """Open a V4L2 device or the URL of an MJPEG stream for compressed frames of this size.

    Raises:
        DeviceNotFoundError: Nothing can be opened there.
        SettingRefusedError: It delivers another size, or no MJPEG.
    """
    import cv2

    if "://" in path:
        parameters = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * _OPEN_S),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * READ_S),
            cv2.CAP_PROP_FORMAT, -1,
        ]  # fmt: skip
        source = cv2.VideoCapture(path, cv2.CAP_FFMPEG, parameters)
    else:
        parameters = [
            cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"),
            cv2.CAP_PROP_FRAME_WIDTH, width,
            cv2.CAP_PROP_FRAME_HEIGHT, height,
            cv2.CAP_PROP_FPS, round(frame_rate_hz),
            cv2.CAP_PROP_CONVERT_RGB, 0,
        ]  # fmt: skip
        source = cv2.VideoCapture(path, cv2.CAP_V4L2, parameters)
    if not source.isOpened():
        raise DeviceNotFoundError(
            f"camera {path}: cannot be opened",
            next_step="plug it in, close other programs that use it; `rig devices` lists what is there",
        )
    _require_format(source, path, size=(width, height))
    return source


def _require_format(source: cv2.VideoCapture, path: str, *, size: tuple[int, int]) -> None:
    """Compare what was negotiated with what was asked for: drivers choose something else without a word."""
    import cv2

    delivered = (round(source.get(cv2.CAP_PROP_FRAME_WIDTH)), round(source.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    if delivered != size:
        source.release()
        raise SettingRefusedError(
            f"camera {path}: {size[0]}x{size[1]} was asked for, it delivers {delivered[0]}x{delivered[1]}",
            next_step="put the size it delivers into the profile, or change the source's output mode",
        )
    fourcc = round(source.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").upper()
    if fourcc != b"MJPG":
        source.release()
        raise SettingRefusedError(
            f"camera {path}: it delivers {fourcc.decode(errors='replace')}, not MJPG",
            next_step="choose a mode that the device offers as MJPEG",
        )
