"""Live view and the cameras' state, from a thread that never keeps a camera from recording."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alignment.markers import MarkerBoard
from catalog.session_folder import BoardSpec
from rig.clock import SessionClock
from rig.devices.shared_camera import SharedCamera
from rig.engine.clients import ClientLink
from rig.errors import DeviceError
from rig.events import Preview

PREVIEW_WIDTH_PX = 480
STATUS_EVERY_S = 2.0
_TURN_S = 0.02
RECONNECT_S = 15.0
_RETRY_S = 0.5
_MARKERS_EVERY_S = 1.0
_HISTOGRAM_BINS = 32
_JPEG_QUALITY = 70


@dataclass
class _Watcher:
    link: ClientLink
    interval_s: float
    due_s: float = 0.0


@dataclass
class CameraWatch:
    """Serves live view to whoever watches; looks after idle cameras and finds lost ones again.

    Args:
        cameras: Returns the cameras that are open now.
        at_rest: Tells whether no act is in progress: only then are lost cameras opened again.
        boards: Marker boards to look for.
        clock: The session clock.
    """

    cameras: Callable[[], dict[str, SharedCamera]]
    at_rest: Callable[[], bool]
    boards: tuple[BoardSpec, ...]
    clock: SessionClock
    skipped: int = 0
    """Live-view frames left out since the camera was busy with something else."""
    _watchers: dict[int, _Watcher] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _status_due_s: float = 0.0
    _markers: tuple[float, int] = (0.0, 0)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread = threading.Thread(target=self._live, name="engine-cameras", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; a camera call in progress is not waited for."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=0.5)

    def watch(self, link: ClientLink, rate_hz: float | None) -> None:
        """Send live view to a client at a rate, or no longer."""
        with self._lock:
            if rate_hz is None:
                self._watchers.pop(link.number, None)
            else:
                self._watchers[link.number] = _Watcher(link, 1.0 / rate_hz)

    def _live(self) -> None:
        while not self._over.wait(_TURN_S):
            now_s = time.monotonic()
            due = self._due(now_s)
            if due:
                self._show(due)
            if not self.at_rest():
                self._status_due_s = now_s  # an act's end is the next time to look
            elif now_s >= self._status_due_s:
                self._look_after(now_s)

    def _due(self, now_s: float) -> list[_Watcher]:
        with self._lock:
            due = [w for w in self._watchers.values() if now_s >= w.due_s]
            for watcher in due:
                watcher.due_s = max(watcher.due_s + watcher.interval_s, now_s)
        return due

    def _show(self, watchers: list[_Watcher]) -> None:
        for name, camera in self.cameras().items():
            if camera.trouble or not camera.capabilities.live_view:
                continue
            try:
                jpeg = camera.try_preview()
            except DeviceError:
                continue  # the camera's reading tells
            if jpeg is None:
                self.skipped += 1
                continue
            event = self._describe(name, jpeg)
            for watcher in watchers:
                watcher.link.tell(event)

    def _describe(self, name: str, jpeg: bytes) -> Preview:
        picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
        markers = self._count_markers(np.asarray(picture))
        picture.thumbnail((PREVIEW_WIDTH_PX, PREVIEW_WIDTH_PX))
        codes = np.asarray(picture)
        grey = np.asarray(picture.convert("L"))
        small = io.BytesIO()
        picture.save(small, "JPEG", quality=_JPEG_QUALITY)
        histogram, _ = np.histogram(grey, bins=_HISTOGRAM_BINS, range=(0, 256))
        return Preview(
            t_host_s=self.clock.now(),
            camera=name,
            jpeg_base64=base64.b64encode(small.getvalue()).decode(),
            width=picture.width,
            height=picture.height,
            clipped_percent=float(100 * (codes.max(axis=2) == 255).mean()),
            sharpness=_sharpness(grey),
            histogram=tuple(int(n) for n in histogram),
            markers_seen=markers,
        )

    def _count_markers(self, codes: NDArray[np.uint8]) -> int:
        """Count the boards in view; looked at once a second, which costs more than the rest."""
        seen_s, count = self._markers
        if time.monotonic() - seen_s >= _MARKERS_EVERY_S:
            count = sum(MarkerBoard(b).detect(codes) is not None for b in self.boards)
            self._markers = (time.monotonic(), count)
        return count

    def _look_after(self, now_s: float) -> None:
        self._status_due_s = now_s + STATUS_EVERY_S
        for camera in self.cameras().values():
            try:
                if camera.trouble:
                    camera.reconnect(timeout_s=RECONNECT_S)
                camera.end_leftover(unwanted=self.at_rest)  # still: finding a camera takes a while
                camera.try_status()
            except DeviceError:  # the camera's reading tells; it is looked for again soon
                self._status_due_s = time.monotonic() + _RETRY_S


def _sharpness(grey: NDArray[np.uint8]) -> float:
    """Return the variance of the Laplacian, 8-bit codes squared."""
    g = grey.astype("float32")
    laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(laplacian.var())
