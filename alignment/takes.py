"""What alignment needs to know of a take, in a form that can be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignment.decode import CACHED_FRAMES, FrameReader, open_frames
from alignment.errors import DecodeError
from alignment.photometry import ToneCurve, standard_tone_curve
from catalog.records import Degradation
from catalog.session_folder import CameraTake, RoundRecord, Take

Array = NDArray[np.float64]
ToneName = Literal["bt709", "srgb"]

_VIDEO_TRANSFERS = frozenset({"bt709", "smpte170m", "bt2020-10", "bt2020-12", "iec61966-2-4", "bt470bg"})


@dataclass(frozen=True, eq=False)
class TakeSource:
    """One camera's frames of one valid take, and when they were exposed."""

    round: RoundRecord
    take: int
    folder: Path
    camera_name: str
    camera: CameraTake
    time_s: Array
    """Mid-exposure of every frame on the take's own time line; the first exposure starts at 0."""
    start_t_host_s: float
    """What the session clock said when the first exposure started."""
    telemetry_time_s: Array
    """On the session clock; empty where there is none."""
    telemetry_mm: Array
    files_sha256: tuple[str, ...]

    @classmethod
    def of(cls, take: Take, camera_name: str) -> TakeSource:
        """Read a take's tables.

        Raises:
            SessionFolderError: `round.json` is missing or damaged.
            DecodeError: The camera has no frames in this take.
        """
        record = take.record()
        if camera_name not in record.cameras:
            raise DecodeError(f"{take.folder.name}: camera {camera_name} has no frames in this take")
        camera = record.cameras[camera_name]
        starts = np.array([f.t_host_s for f in take.frames(camera_name)])
        if starts.size == 0:
            raise DecodeError(f"{take.folder.name}: the frame table of camera {camera_name} is empty")
        exposure_s = camera.settings_read.exposure_s or take.round.settings.exposure_s or 0.0
        rail = take.telemetry()
        return cls(
            round=record.round,
            take=take.number,
            folder=take.folder,
            camera_name=camera_name,
            camera=camera,
            time_s=starts - starts[0] + exposure_s / 2,
            start_t_host_s=float(starts[0]),
            telemetry_time_s=np.array([s.t_host_s for s in rail]),
            telemetry_mm=np.array([s.position_mm for s in rail]),
            files_sha256=tuple(f.sha256 for f in record.files),
        )

    @property
    def stops_mm(self) -> Array | None:
        """Where the rail stood for each still, ``(N,)``; None for a movie, or where the table does not fit."""
        stops = np.delete(np.array(self.round.stops_mm), self.camera.missing_stills)
        at_rest = self.camera.kind == "stills" and len(stops) == len(self.time_s)
        return stops if at_rest else None

    @property
    def tone_name(self) -> ToneName:
        """Name of the tone curve: the stream's transfer tag, sRGB for stills and untagged streams."""
        return "bt709" if self.camera.colour.transfer in _VIDEO_TRANSFERS else "srgb"

    @property
    def tone(self) -> ToneCurve:
        """How the camera coded light."""
        return standard_tone_curve(self.tone_name)

    @property
    def low_light(self) -> bool:
        """The round was dark on purpose."""
        return Degradation.LOW_LIGHT in self.round.degradations

    @property
    def frame_s(self) -> float:
        """Usual time between frames."""
        return float(np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else 0.0

    def open(self, *, cached_frames: int = CACHED_FRAMES) -> FrameReader:
        """Open the frames.

        Args:
            cached_frames: So many of a movie's frames read last are kept, as decoded.

        Raises:
            DecodeError: They cannot be read, or there are fewer than the frame table lists.
        """
        reader = open_frames(self.folder, self.camera, cached_frames=cached_frames)
        if reader.frame_count < len(self.time_s):
            reader.close()
            raise DecodeError(
                f"{self.folder.name}: {reader.frame_count} frames where the table lists {len(self.time_s)}",
                next_step="take the round again",
            )
        return reader
