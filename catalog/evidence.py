"""The evidence that alignment leaves in a session folder: `pairs.jsonl` and `alignment.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from catalog.yaml_document import Document, Name


class PairFrame(Document):
    """One side of a pair."""

    round: str
    """Name in the plan or in `session.yaml`."""
    take: int
    frame_index: int
    """Counts decoded frames from 0."""
    time_s: float
    """Mid-exposure on the take's own time line."""
    position_mm: float


class BlurRecord(Document):
    """The blur found between GT and LQ."""

    kind: Literal["none", "disc", "motion"]
    size_px: float
    """Radius of the disc or length of the horizontal box, px."""


class PairHashes(Document):
    """sha256 of the written files; None where none was written."""

    gt: str | None
    lq: str | None
    mask: str | None


Matrix3x3 = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


class TargetRecord(Document):
    """A board, or a part of the picture, that the positions of a pair were measured by."""

    lq_px: tuple[float, float]
    """Where it was followed to in the LQ frame."""
    misfit_px: tuple[float, float]
    """How far from there the registration puts it."""
    sigma_px: float
    """Standard deviation of the place it was followed to, against that in the GT frame, in either direction."""


class PairRecord(Document):
    """One line of `pairs.jsonl`: a candidate pair, accepted or not, with its evidence."""

    pair: Name
    gt: PairFrame
    lq: PairFrame
    verdict: Literal["accepted", "rejected"]
    reasons: tuple[str, ...]
    """Reject reason codes; empty when accepted."""
    homography: Matrix3x3 | None
    """GT frame pixel to LQ frame pixel, as measured; None where nothing could be measured."""
    lq_crop: tuple[int, int, int, int] | None
    """x, y, width, height in the LQ frame."""
    gt_from_pair: Matrix3x3 | None
    """Pixel of the written pair to GT frame pixel; an integer translation when GT was left unwarped."""
    gt_warped: bool
    residual_px: float | None
    """What is left in the written pair, as measured."""
    predicted_epe_px: float | None
    """Predicted 95 % radius of the delivered error."""
    bound_px: float | None
    """Cramér-Rao bound of the estimate."""
    position_gap_mm: float
    """Of the carriage, as the frames' positions tell it."""
    camera_gap_mm: tuple[float, float, float] | None = None
    """How far the optical centre of the LQ frame lies to the right of that of the GT frame, below it and before it, as
    parallax tells; None where the depths are not known, and in records that are older."""
    camera_gap_sigma_mm: tuple[float, float, float] | None = None
    """Standard deviations of it."""
    blur: BlurRecord
    gates: dict[str, float | None]
    """Every gate's measured value by the gate's name."""
    evidence: tuple[str, ...] = ()
    """What the pair rests on: ``markers``, ``telemetry``, ``picture``."""
    targets: tuple[TargetRecord, ...] = ()
    """What was followed in both frames, where the pair was registered."""
    mask: str | None
    mu: float | None
    sigma: float | None
    sha256: PairHashes


class MotionPhases(Document):
    """Change times of a round's motion, s on the take's own time line (first displayed frame = 0)."""

    start_s: float
    """The carriage leaves rest."""
    cruise_start_s: float
    """Uniform motion begins, guard included."""
    cruise_end_s: float
    """Uniform motion ends, guard included."""
    stop_s: float
    """The carriage is at rest again."""


class RoundMotion(Document):
    """How one take moved, as measured."""

    round: str
    take: int
    camera: str
    verdict: Literal["used", "rejected"]
    reasons: tuple[str, ...] = ()
    evidence: tuple[str, ...]
    """What the positions rest on: ``markers``, ``telemetry``, ``picture``, ``sync_led``."""
    profile: Literal["trapezoid", "s_curve"] | None
    phases: MotionPhases | None
    velocity_mm_s: float | None
    velocity_sigma_mm_s: float | None
    acceleration_mm_s2: float | None
    commanded_velocity_mm_s: float | None
    residual_sd_px: float | None
    """Standard deviation of the track about the fit during the cruise."""
    shaken_sd_px: float | None = None
    """The part of it that neither noise nor slow turns of the camera explain; None in records that are older."""
    autocorrelation: float | None
    """Lag one, of the positions without slow turns; high means stick-slip."""
    sigma_measurement_mm: float | None
    sigma_jitter_mm: float | None
    clock_offset_s: float | None
    """Rail clock minus the take's time line; None without telemetry."""
    led_offset_s: float | None = None
    """The same as the flashes of the sync LED tell it; None where none was seen."""
    led_half_width_s: float | None = None
    """Offsets this far on either side fit the flashes as well."""
    datum_shift_mm: float = 0.0
    """Added to the take's positions because parallax told that the camera had come back turned, mm."""
    frames: int
    frames_tracked: int
    time_s: tuple[float, ...]
    """Mid-exposure time of every frame used in the fit."""
    position_mm: tuple[float, ...]
    """Measured position of the same frames in the common datum."""
    residual_px: tuple[float, ...]
    """Measured minus fitted, px in the board's plane."""
    telemetry_time_s: tuple[float, ...] = ()
    """Rail telemetry moved to the take's time line."""
    telemetry_position_mm: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()
    """What its motion had to be measured without."""


class AlignmentRecord(Document):
    """`alignment.json`: what an alignment rests on. No wall time in it: same input, same bytes."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    session: str
    versions: dict[str, str]
    parameters: dict[str, float | int | str | bool]
    focal_px: float | None
    """Focal length used, px."""
    focal_source: str
    """Where it comes from: ``calibration``, ``lens`` (the session's lens), ``assumed`` (a usual view, for want of a
    lens)."""
    calibration: str | None = None
    """Hash of the calibration that lens, shutter and tone curve were taken from; None where none was in force."""
    px_per_mm: float | None
    """Image scale in the plane of the reference board."""
    tone_curve: str
    """``bt709``, ``srgb`` or the hash of a calibration."""
    disparity_px_per_mm: tuple[float, float] | None
    """2nd and 98th percentile over tiles of picture motion per mm of carriage motion."""
    position_limit_mm: float | None
    """Largest position gap a pair may have under the parallax limit."""
    rounds: tuple[RoundMotion, ...]
    warnings: tuple[str, ...] = ()

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """Those of the session, then those of its rounds, each with the round's name."""
        return (*self.warnings, *(f"{r.round}: {text}" for r in self.rounds for text in r.warnings))
