"""The report's tables of rounds: their settings, and their motion against the ground truth's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from alignment.report_source import ReportSource, RoundSource
from alignment.report_words import NOTHING, exposure, listed, number, reason_words, with_unit
from catalog.evidence import PairRecord, RoundMotion
from catalog.session_folder import ExposureSettings


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    differs: bool = False
    """The value is not that of the ground truth."""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table about a round."""

    head: str
    note: str
    cells: tuple[Cell, ...]


SETTINGS_COLUMNS = (
    "take",
    "ISO",
    "aperture",
    "exposure",
    "focus",
    "white balance",
    "conditions",
    "velocity",
    "frames",
    "frame rate",
)


def settings_rows(source: ReportSource) -> tuple[Row, ...]:
    """List every round's settings, those that differ from the first ground truth marked."""
    reference = source.gt.record.settings if source.gt else ExposureSettings()
    return tuple(_settings_row(r, reference) for r in source.rounds)


def _settings_row(round_: RoundSource, reference: ExposureSettings) -> Row:
    record, camera = round_.record, round_.valid.camera if round_.valid else None
    asked, base = _settings_words(record.settings), _settings_words(reference)
    got = _settings_words(camera.settings_read) if camera else asked
    values = [_setting(*words) for words in zip(asked, got, base, strict=True)]
    cells = (
        take_state(round_),
        *values,
        Cell(", ".join(f"{k}: {v}" for k, v in record.conditions.items()) or "none", bool(record.conditions)),
        Cell(with_unit(record.sweep.velocity_mm_s if record.sweep else None, 1, "mm/s")),
        Cell(str(camera.frame_count) if camera else NOTHING),
        Cell(with_unit(camera.measured_rate_hz if camera else None, 2, "Hz")),
    )
    return Row(record.name, f"{record.role} · {round_.degradation}", cells)


def _setting(asked: str, got: str, base: str) -> Cell:
    """Show what was asked for, or what the camera had where nothing was asked."""
    if asked == NOTHING:
        return Cell(got)
    return Cell(asked, asked != base, f"read back {got}" if got not in {asked, NOTHING} else "")


def _settings_words(settings: ExposureSettings) -> tuple[str, ...]:
    return (
        str(settings.iso) if settings.iso else NOTHING,
        f"f/{settings.f_number:g}" if settings.f_number else NOTHING,
        exposure(settings.exposure_s),
        f"{settings.focus_m:.3g} m" if settings.focus_m else NOTHING,
        settings.white_balance or NOTHING,
    )


def take_state(round_: RoundSource) -> Cell:
    """Say which take counts."""
    void = sum(t.take.state == "void" for t in round_.takes)
    note = f"{void} void" if void else ""
    if round_.valid is None:
        return Cell("✕ missing", note=note)
    return Cell(f"● take {round_.valid.take.number}", note=note)


MOTION_COLUMNS = (
    "used",
    "velocity",
    "against GT",
    "residual σ",
    "shaken σ",
    "frames tracked",
    "shift x, y",
    "yaw drift",
)


def motion_rows(source: ReportSource) -> tuple[Row, ...]:
    """List how every round moved, and how its camera stood against the ground truth's."""
    gt = source.gt.motion.velocity_mm_s if source.gt and source.gt.motion else None
    focal_px = source.alignment.focal_px if source.alignment else None
    limits = source.alignment.parameters if source.alignment else {}
    return tuple(_motion_row(r, r.motion, gt, focal_px, limits) for r in source.rounds if r.motion)


def _motion_row(
    round_: RoundSource,
    motion: RoundMotion,
    gt_mm_s: float | None,
    focal_px: float | None,
    limits: Mapping[str, float | str],
) -> Row:
    used = motion.verdict == "used"
    why = ", ".join(reason_words(code).title.lower() for code in motion.reasons)
    cells = (
        Cell("● yes" if used else "✕ no", note=why),
        Cell(with_unit(motion.velocity_mm_s, 3, "mm/s"), note=_plus_minus(motion.velocity_sigma_mm_s)),
        Cell(
            _ratio(motion.velocity_mm_s, gt_mm_s),
            note=_percent(motion.velocity_mm_s, motion.commanded_velocity_mm_s),
        ),
        Cell(with_unit(motion.residual_sd_px, 3, "px"), note=(motion.profile or "").replace("_", "-")),
        _shaken(motion, limits),
        Cell(_tracked(motion), note=f"by {listed(motion.evidence)}" if motion.evidence else ""),
        *_pose_cells(round_, focal_px),
    )
    return Row(round_.name, f"take {motion.take}" if motion.take else "", cells)


def _shaken(motion: RoundMotion, limits: Mapping[str, float | str]) -> Cell:
    """Show the carriage's own shaking and the limit it is held to, a lower one where it sticks and slips."""
    if motion.shaken_sd_px is None:
        return Cell(NOTHING)
    lag_one, slips_from = motion.autocorrelation or 0.0, limits.get("stick_slip")
    slips = slips_from is not None and lag_one > float(slips_from)
    limit = limits.get("stick_slip_floor_px" if slips else "cruise_residual_px")
    note = "" if limit is None else f"limit {number(float(limit), 3)} px"
    if slips:
        note += f" at autocorrelation {number(lag_one, 2)}"
    return Cell(with_unit(motion.shaken_sd_px, 3, "px"), note=note)


def _tracked(motion: RoundMotion) -> str:
    return f"{motion.frames_tracked} of {motion.frames}" if motion.frames else NOTHING


def _ratio(value: float | None, reference: float | None) -> str:
    return f"× {number(value / reference, 4)}" if value is not None and reference else NOTHING


def _percent(value: float | None, reference: float | None) -> str:
    if value is None or not reference:
        return ""
    return f"{number(100 * abs(value) / abs(reference), 2)} % of commanded"


def _plus_minus(sigma: float | None) -> str:
    return "" if sigma is None else f"± {number(sigma, 4)}"


@dataclass(frozen=True)
class Pose:
    """How the degraded frame lies on the ground truth's."""

    x_px: float
    y_px: float
    roll_deg: float


def pose(pair: PairRecord, *, width: int, height: int) -> Pose | None:
    """Read shift in the middle and rotation from a pair's homography; None where it has none."""
    if pair.homography is None:
        return None
    (a, b, c), (d, e, f), (g, h, i) = pair.homography
    x, y = (width - 1) / 2, (height - 1) / 2
    scale = g * x + h * y + i
    if not scale:
        return None
    shift = (a * x + b * y + c) / scale - x, (d * x + e * y + f) / scale - y
    return Pose(*shift, math.degrees(math.atan2(d - b, a + e)))


def _pose_cells(round_: RoundSource, focal_px: float | None) -> tuple[Cell, Cell]:
    poses = _poses(round_)
    if not poses:
        return Cell(NOTHING), Cell(NOTHING)
    shift = f"{number(median(p.x_px for p in poses), 2)}, {number(median(p.y_px for p in poses), 2)} px"
    roll = number(median(p.roll_deg for p in poses), 4)
    return Cell(shift, note=f"roll {roll}°"), Cell(_yaw_drift(poses, focal_px))


def _poses(round_: RoundSource) -> list[Pose]:
    camera = round_.valid.camera if round_.valid else None
    if camera is None:
        return []
    ordered = sorted(round_.accepted, key=lambda p: p.lq.time_s)
    found = (pose(p, width=camera.width, height=camera.height) for p in ordered)
    return [p for p in found if p is not None]


def _yaw_drift(poses: Sequence[Pose], focal_px: float | None) -> str:
    """Compare the last quarter of a round with its first: a loose mount turns slowly."""
    if focal_px is None or len(poses) < 8:
        return NOTHING
    quarter = len(poses) // 4
    drift = median(p.x_px for p in poses[-quarter:]) - median(p.x_px for p in poses[:quarter])
    return f"{number(math.degrees(math.atan(drift / focal_px)), 4)}°"
