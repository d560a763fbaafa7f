"""A movie in segments of at most a second, each synced and renamed when it is complete."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from catalog.session_folder import sync_folder
from rig.devices.camera import ArrivalLog, CardFile
from rig.devices.frame_grabber import ArrivedFrame
from rig.errors import DeviceError

_QUEUE_BYTES = 256 << 20
"""Frames that wait for a slow disk; beyond that they are dropped, which the times of their neighbours show."""
_TICKS_PER_S = 1_000_000


@dataclass
class _Segment:
    """Frames of one file, in memory until it is sealed."""

    frames: list[ArrivedFrame] = field(default_factory=list)
    duplicated: list[int] = field(default_factory=list)


class SegmentRecording:
    """Writes segments in a thread of its own; the grabber never waits for the disk.

    Args:
        folder: Where the segments go.
        segment_s: Length of a segment, s.
        size: Width and height of the frames, px.
        origin_s: Session time that is zero in the files.
    """

    def __init__(self, folder: Path, *, segment_s: float, size: tuple[int, int], origin_s: float) -> None:
        self._folder, self._segment_s, self._size, self._origin_s = folder, segment_s, size, origin_s
        self._queue: deque[ArrivedFrame] = deque()
        self._queued_bytes = 0
        self._changed = threading.Condition()
        self._over = False
        self._files: list[CardFile] = []
        self._failure: OSError | None = None
        self._last_digest = b""
        self._thread = threading.Thread(target=self._run, name="uvc-writer", daemon=True)
        self._thread.start()

    def offer(self, frame: ArrivedFrame) -> None:
        """Queue a frame; when the disk is too slow it is dropped, which its neighbours' times then show."""
        with self._changed:
            if self._queued_bytes + len(frame.jpeg) <= _QUEUE_BYTES:
                self._queue.append(frame)
                self._queued_bytes += len(frame.jpeg)
                self._changed.notify()

    def finish(self) -> tuple[CardFile, ...]:
        """Write what is queued, seal the last segment and return all of them."""
        self.abandon()
        self._thread.join()
        if self._failure is not None:
            raise DeviceError(
                f"{self._folder}: {self._failure}",
                kept=f"{len(self._files)} sealed segments",
                next_step="free space, then record the round again",
            )
        return tuple(self._files)

    def abandon(self) -> None:
        """End the writer after what is queued."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def _run(self) -> None:
        segment = _Segment()
        try:
            while (frame := self._next()) is not None:
                if segment.frames and self._is_full(segment, frame):
                    self._seal(segment)
                    segment = _Segment()
                self._add(segment, frame)
            if segment.frames:
                self._seal(segment)
        except OSError as error:
            self._failure = error

    def _next(self) -> ArrivedFrame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._over)
            if not self._queue:
                return None
            frame = self._queue.popleft()
            self._queued_bytes -= len(frame.jpeg)
            return frame

    def _is_full(self, segment: _Segment, frame: ArrivedFrame) -> bool:
        return frame.arrived_s - segment.frames[0].arrived_s >= self._segment_s

    def _add(self, segment: _Segment, frame: ArrivedFrame) -> None:
        digest = hashlib.blake2b(frame.jpeg, digest_size=16).digest()
        if digest == self._last_digest:
            segment.duplicated.append(len(segment.frames))
        self._last_digest = digest
        segment.frames.append(frame)

    def _seal(self, segment: _Segment) -> None:
        name = f"segment-{len(self._files) + 1:04d}.mov"
        part = self._folder / f"{name}.part"
        _write_mjpeg(part, segment.frames, self._size, origin_s=self._origin_s)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(self._folder / name)
        sync_folder(self._folder)
        size_bytes = (self._folder / name).stat().st_size
        arrivals = ArrivalLog(tuple(f.arrived_s for f in segment.frames), tuple(segment.duplicated))
        self._files.append(CardFile(str(self._folder), name, size_bytes, arrivals))


def _write_mjpeg(path: Path, frames: list[ArrivedFrame], size: tuple[int, int], *, origin_s: float) -> None:
    """Put JPEG frames as they are into a QuickTime file, their arrival times as its times."""
    import av

    with av.open(str(path), "w", format="mov") as container:
        stream: Any = container.add_stream(
            "mjpeg", rate=30
        )  # a nominal rate is asked for; every frame has its own time
        (stream.width, stream.height), stream.pix_fmt = size, "yuvj422p"
        stream.time_base = Fraction(1, _TICKS_PER_S)
        for frame in frames:
            packet = av.Packet(frame.jpeg)
            packet.stream = stream
            packet.time_base = Fraction(1, _TICKS_PER_S)
            packet.pts = packet.dts = round((frame.arrived_s - origin_s) * _TICKS_PER_S)
            packet.is_keyframe = True
            container.mux(packet)
