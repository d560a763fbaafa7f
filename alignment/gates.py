"""Accept or reject, with reasons: measured numbers against thresholds, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pydantic import Field

from catalog.yaml_document import Document

Reason = Literal[
    "not_uniform",
    "marker_lost",
    "marker_occluded",
    "position_gap",
    "low_overlap",
    "low_information",
    "inconsistent",
    "unstable",
    "disagree",
    "parallax",
    "moving_object",
    "rig_disturbed",
    "bad_content",
    "exposure",
    "no_structure",
]

_EXPLAINED_BY_MOVING: frozenset[Reason] = frozenset({"low_information", "bad_content", "exposure"})
"""Reasons that a thing in front of the scene gives rise to: it leaves less to register by, of another contrast."""


class GateThresholds(Document):
    """What a pair and a round must keep to."""

    parallax_px: float = Field(default=0.25, gt=0)
    """Largest difference in shift between near and far that a position gap may cause, px."""
    occluded_share: float = Field(default=0.8, gt=0, le=1)
    """Least correlation of a board with the ground truth, as a share of what is usual in the take."""
    overlap_share: float = Field(default=0.9, gt=0, le=1)
    """Least share of the frame that both frames show."""
    predicted_epe_px: float = Field(default=0.1, gt=0)
    """Largest predicted 95 % radius of the delivered error, px."""
    predicted_epe_dark_px: float = Field(default=0.2, gt=0)
    """The same for rounds with low light."""
    consistent_px: float = Field(default=1.0, gt=0)
    """Largest difference between registration and marker boards, px."""
    consistent_floor_px: float = Field(default=0.5, gt=0)
    """Differences below this are never held against a pair, however small sigma claims to be, px."""
    forward_backward_px: float = Field(default=0.1, gt=0)
    """Largest error at the corners after going there and back, px."""
    split_half_px: float = Field(default=0.1, gt=0)
    """Largest difference between two halves of the tiles, px; three sigma if that is more."""
    local_px: float = Field(default=0.5, gt=0)
    """Largest 90th percentile of the tiles' leftover shift, px."""
    masked_share: float = Field(default=0.3, gt=0, le=1)
    """Largest share of tiles that show something else."""
    telling_masked_share: float = Field(default=0.05, gt=0, le=1)
    """Share of such tiles from which a thing that moved explains why too little is left to register by, or why the
    brightness of the whole changed."""
    rotation_deg: float = Field(default=0.1, gt=0)
    """Largest angle between the two cameras, deg."""
    structure_share: float = Field(default=0.5, gt=0, le=1)
    """Least gradient correlation, as a share of what is usual in the round."""
    clipped_share: float = Field(default=0.05, gt=0, le=1)
    """Largest share of clipped pixels where the ground truth is mid-tone; black does not count in low light."""
    gain_change: float = Field(default=0.1, gt=0)
    """Largest relative change of brightness within a round."""
    speed_error: float = Field(default=0.01, gt=0)
    """Largest relative deviation of a round's speed from the commanded one."""
    turn_deg: float = Field(default=0.02, gt=0)
    """How far the camera may turn between the ends of a sweep, deg: over a short sweep that alone changes the
    speed of the picture by more than ``speed_error``."""
    cruise_residual_px: float = Field(default=0.3, gt=0)
    """Largest standard deviation of the track about uniform motion, without noise and slow turns of the camera, px."""
    stick_slip: float = Field(default=0.5, gt=0, lt=1)
    """Largest lag-one autocorrelation of what is left so."""
    closing_light: float = Field(default=0.05, gt=0)
    """Largest relative difference in light between ground-truth rounds that serve together."""
    stick_slip_floor_px: float = Field(default=0.2, gt=0)
    """Standard deviations below this are no stick-slip, however the positions hang together, px."""


@dataclass(frozen=True)
class PairMeasurements:
    """The raw numbers of one candidate pair; None where nothing could be measured."""

    uniform: bool
    """Both frames were exposed in uniform motion."""
    marker_share: float | None
    """Correlation of the boards over what is usual in the take; None where no board was tracked."""
    parallax_px: float
    """Parallax that the position gap and two of its sigmas may cause, over the rows of a rolling shutter."""
    overlap_share: float | None = None
    predicted_epe_px: float | None = None
    kinematics_px: float | None = None
    """Registration less boards, px."""
    kinematics_sigma_px: float = 0.0
    forward_backward_px: float | None = None
    split_half_px: float | None = None
    split_half_sigma_px: float = 0.0
    local_p90_px: float | None = None
    depth_correlation: float = 0.0
    """Correlation of the leftover shift with the scene's disparity, 0..1."""
    masked_share: float | None = None
    rotation_deg: float | None = None
    gradient_ncc: float | None = None
    clipped_white_share: float | None = None
    clipped_black_share: float | None = None
    gain: float | None = None
    """Contrast of the degraded frame over the ground truth."""
    registered: bool = False
    """False where the registration failed or was not tried."""


@dataclass(frozen=True)
class RoundNorms:
    """What is usual in a round; single pairs are judged against it."""

    gradient_ncc: float | None
    gain: float | None

    @classmethod
    def of(cls, pairs: Sequence[PairMeasurements]) -> RoundNorms:
        """Take the medians over the registered pairs of a round."""
        ncc = [p.gradient_ncc for p in pairs if p.gradient_ncc is not None]
        gain = [p.gain for p in pairs if p.gain is not None]
        return cls(median(ncc) if ncc else None, median(gain) if gain else None)


def judge_pair(
    pair: PairMeasurements, *, thresholds: GateThresholds, norms: RoundNorms, low_light: bool
) -> tuple[dict[str, float | None], tuple[Reason, ...]]:
    """Hold a candidate against every gate.

    Args:
        pair: Its raw numbers.
        thresholds: The limits.
        norms: What is usual in its round.
        low_light: The round was dark on purpose.

    Returns:
        The value of every gate by name, and the reasons to reject; none if the pair is accepted.
    """
    reasons = [
        *_place_reasons(pair, thresholds),
        *_registration_reasons(pair, thresholds, low_light),
        *_content_reasons(pair, thresholds, norms, low_light),
    ]
    masked = pair.masked_share or 0.0
    if masked > thresholds.telling_masked_share and _EXPLAINED_BY_MOVING.intersection(reasons):
        reasons.append("moving_object")
    return _gate_values(pair, norms), tuple(dict.fromkeys(reasons))


def needs_registration(pair: PairMeasurements, *, thresholds: GateThresholds) -> bool:
    """Tell whether a candidate is worth registering, from its place alone."""
    return not _place_reasons(pair, thresholds)


def _place_reasons(pair: PairMeasurements, limits: GateThresholds) -> list[Reason]:
    reasons: list[Reason] = []
    if not pair.uniform:
        reasons.append("not_uniform")
    if pair.marker_share is not None and pair.marker_share < limits.occluded_share:
        reasons.append("marker_lost" if pair.marker_share <= 0 else "marker_occluded")
    if pair.parallax_px > limits.parallax_px:
        reasons.append("position_gap")
    return reasons


def _registration_reasons(pair: PairMeasurements, limits: GateThresholds, low_light: bool) -> list[Reason]:
    if not pair.registered:
        return [] if _place_reasons(pair, limits) else ["no_structure"]
    epe = limits.predicted_epe_dark_px if low_light else limits.predicted_epe_px
    halves = max(limits.split_half_px, 3 * pair.split_half_sigma_px)
    consistent = min(limits.consistent_px, max(3 * pair.kinematics_sigma_px, limits.consistent_floor_px))
    checks: list[tuple[Reason, float | None, float]] = [
        ("low_information", pair.predicted_epe_px, epe),
        ("inconsistent", pair.kinematics_px, consistent),
        ("unstable", pair.forward_backward_px, limits.forward_backward_px),
        ("disagree", pair.split_half_px, halves),
        ("moving_object", pair.masked_share, limits.masked_share),
        ("rig_disturbed", pair.rotation_deg, limits.rotation_deg),
        (_local_reason(pair), pair.local_p90_px, limits.local_px),
    ]
    reasons: list[Reason] = [reason for reason, value, limit in checks if value is not None and value > limit]
    if pair.overlap_share is not None and pair.overlap_share < limits.overlap_share:
        reasons.append("low_overlap")
    return reasons


def _local_reason(pair: PairMeasurements) -> Reason:
    return "parallax" if pair.depth_correlation > 0.5 else "moving_object"


def _content_reasons(
    pair: PairMeasurements, limits: GateThresholds, norms: RoundNorms, low_light: bool
) -> list[Reason]:
    reasons: list[Reason] = []
    structure = _ratio(pair.gradient_ncc, norms.gradient_ncc)
    if structure is not None and structure < limits.structure_share:
        reasons.append("bad_content")
    gain = _ratio(pair.gain, norms.gain)
    clipped = pair.clipped_white_share or 0.0
    if not low_light:
        clipped = max(clipped, pair.clipped_black_share or 0.0)
    if clipped > limits.clipped_share or (gain is not None and abs(gain - 1) > limits.gain_change):
        reasons.append("exposure")
    return reasons


def _ratio(value: float | None, usual: float | None) -> float | None:
    return value / usual if value is not None and usual else None


def _gate_values(pair: PairMeasurements, norms: RoundNorms) -> dict[str, float | None]:
    gain = _ratio(pair.gain, norms.gain)
    return {
        "phase": float(pair.uniform),
        "markers": pair.marker_share,
        "position": pair.parallax_px,
        "overlap": pair.overlap_share,
        "predicted_epe": pair.predicted_epe_px,
        "kinematics": pair.kinematics_px,
        "forward_backward": pair.forward_backward_px,
        "split_half": pair.split_half_px,
        "local_map": pair.local_p90_px,
        "depth_correlation": pair.depth_correlation if pair.registered else None,
        "masked_tiles": pair.masked_share,
        "rotation": pair.rotation_deg,
        "structure": pair.gradient_ncc,
        "clipped_white": pair.clipped_white_share,
        "clipped_black": pair.clipped_black_share,
        "gain_change": None if gain is None else gain - 1,
    }


RoundReason = Literal["wrong_speed", "not_uniform", "stick_slip", "lost_way"]


def judge_motion(
    *,
    velocity_mm_s: float,
    commanded_mm_s: float | None,
    shaken_sd_px: float,
    autocorrelation: float,
    thresholds: GateThresholds,
    angle_error: float = 0.0,
) -> tuple[RoundReason, ...]:
    """Hold a round's motion against its gates; no speed check where no speed was commanded.

    Args:
        velocity_mm_s: As fitted.
        commanded_mm_s: As commanded, None where nothing is known.
        shaken_sd_px: Standard deviation about uniform motion that neither noise nor slow turns explain.
        autocorrelation: Lag one, of the same positions.
        thresholds: The limits.
        angle_error: Relative error of the speed that a permitted turn of the camera makes.
    """
    reasons: list[RoundReason] = []
    allowed = max(thresholds.speed_error, angle_error)
    if commanded_mm_s and abs(abs(velocity_mm_s) / commanded_mm_s - 1) > allowed:
        reasons.append("wrong_speed")
    if shaken_sd_px > thresholds.cruise_residual_px:
        reasons.append("not_uniform")
    if autocorrelation > thresholds.stick_slip and shaken_sd_px > thresholds.stick_slip_floor_px:
        reasons.append("stick_slip")
    return tuple(reasons)


REASON_TEXTS: Mapping[str, str] = {
    "not_uniform": "not exposed in uniform motion",
    "marker_lost": "no board could be followed",
    "marker_occluded": "something stands in front of the boards",
    "position_gap": "no ground truth from close enough to the same place",
    "low_overlap": "the two frames share too little",
    "low_information": "too little structure for the accuracy asked for",
    "inconsistent": "picture and boards tell different shifts",
    "unstable": "going there and back does not return to the start",
    "disagree": "two halves of the picture tell different shifts",
    "parallax": "near and far things are shifted differently",
    "moving_object": "something moved in the scene",
    "rig_disturbed": "the camera was turned",
    "bad_content": "the structure of the ground truth is not found again",
    "exposure": "brightness clipped or changed within the round",
    "no_structure": "nothing to register by",
    "wrong_speed": "speed differs from the commanded one",
    "stick_slip": "the carriage stuck and slipped",
    "lost_way": "the carriage suddenly lost way that the rail does not know of",
    "no_valid_take": "the round has no valid take",
    "no_motion": "no uniform motion could be made out",
    "unreadable": "the take cannot be decoded",
    "light_drift": "the light differs from that of the first ground truth",
    "no_target": "neither boards nor picture could be followed",
}
"""What each code means, for tables and reports."""
