"""The calibration of a rig as it is kept: every number with its sigma, and what could not be measured and why.

No wall time is in it, so that the same session gives the same bytes; its date is that of the recording.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from catalog.yaml_document import Document, Name


class Measured(Document):
    """A number with what is known of its error."""

    value: float
    sigma: float = Field(ge=0)
    """Standard deviation."""
    count: int = Field(ge=0)
    """Observations it rests on."""


class MissingMeasurement(Document):
    """Something that this session could not tell."""

    what: str
    why: str
    next_step: str
    """What to record to get it."""


class LensCalibration(Document):
    """A pinhole with radial distortion, in px of the calibrated picture size."""

    focal_px: Measured
    focal_source: Literal["boards", "profile"]
    """``profile``: boards that face the camera do not tell it; the value is the data sheet's."""
    principal_px: tuple[Measured, Measured]
    """x, y; near the picture's middle by assumption where the sigma is about a hundredth of the width."""
    distortion_k1: Measured
    """OpenCV's first radial coefficient."""
    distortion_k2: Measured | None = None
    """The second one; None where the boards do not tell it from 0, which then goes with the first."""
    distortion_covariance: float = 0.0
    """Of the two coefficients: over the picture, one makes up for much of the other."""

    @property
    def k2(self) -> float:
        """The second coefficient, 0 where it was not told from that."""
        return 0.0 if self.distortion_k2 is None else self.distortion_k2.value


class BoardCalibration(Document):
    """One board as the rig saw it."""

    first_id: int
    """Of its slice of the dictionary; tells which board it is."""
    px_per_mm: Measured
    """Picture scale at the board's middle across the line of sight, distortion taken out."""
    depth_mm: Measured
    """Distance of its middle along the optical axis; as uncertain as the focal length."""
    tilt_deg: Measured
    """Angle between the board and the sensor."""


class RailBend(Document):
    """The rail's repeatable deviation at one place."""

    position_mm: float
    """On the rail."""
    pitch_deg: Measured
    yaw_deg: Measured
    roll_deg: Measured
    y_mm: Measured
    """Down."""
    z_mm: Measured
    """Towards the scene."""


class RailCalibration(Document):
    """How the carriage really travels. Means over the travel are taken off, slopes of y and z too: they are no bend."""

    mm_per_mm: Measured | None
    """True way, by the boards' printed measures, over the way that the controller believes; its steps per mm are to be
    divided by it."""
    bends: tuple[RailBend, ...] = ()
    turn_scatter_deg: float | None = None
    """Standard deviation of pitch and yaw from take to take at the same place: what no calibration can take out."""


class ReadoutCalibration(Document):
    """The rolling shutter."""

    readout_s: Measured
    """From the first to the last row; negative if rows are read from the bottom."""


class ToneCalibration(Document):
    """The camera's tone curve as an exposure ladder tells it, relative to a standard curve."""

    kind: Literal["movie", "stills"]
    base: Literal["bt709", "srgb"]
    """The curve that the stream's transfer tag names."""
    codes: tuple[float, ...]
    """Nodes, 0..255, closer near black."""
    log_light: tuple[float, ...]
    """Natural logarithm of measured light over the base curve's at the nodes; its constant is free."""
    sigma: tuple[float, ...]
    """Of the same, against the median code seen."""
    measured_codes: tuple[float, float]
    """Lowest and highest code that was seen; beyond, the curve is continued."""
    exposures_s: tuple[float, ...]
    count: int = Field(ge=0)
    """Patches compared."""


class NoiseCalibration(Document):
    """Noise of one ISO setting as recorded: the camera's compression is part of it."""

    iso: int
    electrons_at_white: Measured
    """Electrons that fill the codes' range."""
    read_noise_e: Measured | None
    """None where no dark patch was in view."""


class Calibration(Document):
    """What is known of one camera on one rig."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    rig: str
    camera: Name
    session: str
    """The session it was measured in."""
    recorded_utc_us: int
    """When that session was created."""
    width: int = Field(gt=0)
    """px"""
    height: int = Field(gt=0)
    """px"""
    lens: LensCalibration | None = None
    boards: tuple[BoardCalibration, ...] = ()
    rail: RailCalibration | None = None
    readout: ReadoutCalibration | None = None
    tone: ToneCalibration | None = None
    noise: tuple[NoiseCalibration, ...] = ()
    missing: tuple[MissingMeasurement, ...] = ()
    warnings: tuple[str, ...] = ()
    """Why what was measured may be less exact than its sigmas say."""
    files_sha256: tuple[str, ...] = ()
    """Hashes of the recordings it rests on."""
    versions: dict[str, str] = {}

    @property
    def date(self) -> str:
        """Day of the recording in UTC, e.g. ``2026-01-02``."""
        return datetime.fromtimestamp(self.recorded_utc_us / 1e6, UTC).date().isoformat()
