"""What alignment needs to know of a take, in a form that can be sent to another process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignment.calibration.curve import tone_curve
from alignment.calibration.store import StoredCalibration
from alignment.camera_motion import Pinhole
from alignment.decode import CACHED_FRAMES, FrameReader, open_frames
from alignment.errors import DecodeError
from alignment.photometry import ToneCurve, standard_tone_curve
from catalog.errors import SessionFolderError
from catalog.records import Degradation
from catalog.session_folder import CameraTake, RoundRecord, Take, TelemetrySample

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
    calibration: StoredCalibration | None = None
    """The calibration in force; None where there is none."""
    warnings: tuple[str, ...] = ()
    """What the take should have and has not."""

    @classmethod
    def of(cls, take: Take, camera_name: str, *, calibration: StoredCalibration | None = None) -> TakeSource:
        """Read a take's tables; telemetry that cannot be read is a warning, since the picture alone tells a motion.

        Raises:
            SessionFolderError: `round.json` is missing or damaged.
            DecodeError: The camera has no frames in this take, or their table cannot be read.
        """
        record = take.record()
        if camera_name not in record.cameras:
            raise DecodeError(f"{take.folder.name}: camera {camera_name} has no frames in this take")
        camera = record.cameras[camera_name]
        try:
            starts = np.array([f.t_host_s for f in take.frames(camera_name)])
        except SessionFolderError as error:
            raise DecodeError(error.message, kept=error.kept, next_step=error.next_step) from error
        if starts.size == 0:
            raise DecodeError(f"{take.folder.name}: the frame table of camera {camera_name} is empty")
        exposure_s = camera.settings_read.exposure_s or take.round.settings.exposure_s or 0.0
        rail, warnings = _rail_reports(take)
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
            calibration=calibration,
            warnings=warnings,
        )

    @property
    def stops_mm(self) -> Array | None:
        """Where the rail stood for each still, ``(N,)``; None for a movie, or where the table does not fit."""
        stops = np.delete(np.array(self.round.stops_mm), self.camera.missing_stills)
        at_rest = self.camera.kind == "stills" and len(stops) == len(self.time_s)
        return stops if at_rest else None

    @property
    def course(self) -> Array:
        """``(N,)`` what positions should follow in a straight line: times, s, or where the rail stood, mm."""
        stops_mm = self.stops_mm
        return self.time_s if stops_mm is None else stops_mm

    @property
    def tag_tone_name(self) -> ToneName:
        """Name of the tone curve by the stream's transfer tag, sRGB for stills and untagged streams."""
        return "bt709" if self.camera.colour.transfer in _VIDEO_TRANSFERS else "srgb"

    @property
    def tone_name(self) -> str:
        """Name of the tone curve: the calibration's hash, or what the tag says."""
        return self.tone.name

    @property
    def tone(self) -> ToneCurve:
        """How the camera coded light: as a calibration measured it, otherwise by the tag."""
        stored = self.calibration
        measured = None if stored is None else stored.calibration.tone
        if stored is None or measured is None or (measured.kind, measured.base) != self._coding:
            return standard_tone_curve(self.tag_tone_name)
        return tone_curve(measured, stored.hash)

    @property
    def _coding(self) -> tuple[str, str]:
        return self.camera.kind, self.tag_tone_name

    @property
    def lens(self) -> Pinhole | None:
        """The calibrated lens; None without one, or where the calibration is of another picture size."""
        known = None if self.calibration is None else self.calibration.calibration
        size = self.camera.width, self.camera.height
        if known is None or known.lens is None or (known.width, known.height) != size:
            return None
        return Pinhole(known.lens.focal_px.value, *size, k1=known.lens.distortion_k1.value, k2=known.lens.k2)

    @property
    def readout_s(self) -> float:
        """Time from the first to the last row, as a calibration knows it; 0 otherwise, and for stills at rest."""
        known = None if self.lens is None or self.calibration is None else self.calibration.calibration
        moving = self.camera.kind == "movie"
        return known.readout.readout_s.value if known is not None and known.readout and moving else 0.0

    def pinhole(self, focal_px: float) -> Pinhole:
        """Return the camera with a focal length, and the calibrated distortion where there is one."""
        lens = self.lens
        if lens is None:
            return Pinhole(focal_px, self.camera.width, self.camera.height)
        return replace(lens, focal_px=focal_px)

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


def _rail_reports(take: Take) -> tuple[list[TelemetrySample], tuple[str, ...]]:
    """Read a take's telemetry; none where it cannot be read, with a warning that says so."""
    try:
        return take.telemetry(), ()
    except SessionFolderError as error:
        return [], (
            f"telemetry left out ({error.message}): its clock and the way it kept could not be checked against the"
            f" rail; {error.next_step} and repeat this",
        )
