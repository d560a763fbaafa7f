"""What is watched between and during rounds: measured numbers against the plan's limits, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalog.yaml_document import Document
from rig.devices.camera import CameraStatus
from rig.events import TakeFinding
from rig.plan import GuardName, Guards


@dataclass(frozen=True)
class Judgment:
    """One guard's verdict, with its numbers."""

    guard: GuardName
    ok: bool
    text: str
    """What was measured against what, with units."""
    value: float | None = None
    limit: float | None = None


def judge_before_round(
    guards: Guards, *, free_gb: float, cameras: Mapping[str, CameraStatus]
) -> list[Judgment]:
    """Judge what must hold before the carriage moves.

    Args:
        guards: The plan's limits.
        free_gb: Room on the disk that takes the session, GB.
        cameras: What each camera says of itself.
    """
    judged = [_least("disk", free_gb, guards.min_free_gb, "{:.1f} GB free")]
    for name, status in cameras.items():
        if status.battery_percent is not None:
            text = f"camera {name}: battery at {{:.0f}} %"
            judged.append(_least("battery", status.battery_percent, guards.min_battery_percent, text))
        warm = f"camera {name} is too hot" if status.hot else f"camera {name} is cool enough"
        judged.append(Judgment("temperature", not status.hot, warm))
        changed = "; ".join(status.unasked_changes)
        judged.append(
            Judgment("settings", not changed, f"camera {name}: {changed or 'nothing changed unasked'}")
        )
    return [j for j in judged if guards.action(j.guard) != "off"]


class TakeNumbers(Document):
    """What a take's live check measured; None where it could not."""

    light_ratio: float | None = None
    """Light at rest over that of the first gt round."""
    clipped_percent: float | None = None
    """Share of pixels at full scale, percent."""
    sharpness_share: float | None = None
    """Sharpness at rest over that of the first gt round."""
    edge_px: float | None = None
    """Standard deviation of the sharpest board's edges, px."""
    markers_seen: int | None = None
    """Boards followed through the uniform part; None without boards."""
    camera_shift_px: float | None = None
    """Shift of the boards at rest against the first gt round's, rail position accounted for."""
    ripple_percent: float | None = None
    """Standard deviation of the speed over the uniform part, percent."""
    velocity_mm_s: float | None = None
    travel_error_mm: float | None = None
    """Travel by the boards less travel by the rail."""
    offset_mm: float | None = None
    """Place by the boards less place by the rail, against the first gt round."""
    turn_deg: float | None = None
    """Turn of the camera against the first gt round."""
    exposure_ev: float | None = None
    """Light against what the settings say, stops."""
    pairs: int | None = None
    """Frames that have a ground truth within the parallax limit."""


class TakeReport(Document):
    """What a live check found."""

    round: str
    take: int
    findings: tuple[TakeFinding, ...]
    numbers: TakeNumbers

    @property
    def spoiled(self) -> bool:
        """Whether the take should be recorded again."""
        return any(f.verdict == "spoiled" for f in self.findings)


def judge_take(guards: Guards, take: TakeNumbers, *, is_gt: bool, lost_frames: int) -> list[Judgment]:
    """Judge a take that has just ended; what could not be measured is not judged."""
    judged = [_most("frames", lost_frames, guards.max_lost_frames, "{:.0f} frames missing or doubled")]
    if take.ripple_percent is not None:
        text = "speed varies by {:.2f} % over the uniform part"
        judged.append(_most("ripple", take.ripple_percent, guards.max_ripple_percent, text))
    if is_gt:
        judged += _judge_ground_truth(guards, take)
    return [j for j in judged if guards.action(j.guard) != "off"]


def _judge_ground_truth(guards: Guards, take: TakeNumbers) -> list[Judgment]:
    judged = []
    if take.light_ratio is not None:
        drift = 100 * abs(take.light_ratio - 1)
        text = "light differs by {:.1f} % from the first gt round's"
        judged.append(_most("light", drift, guards.max_light_drift_percent, text))
    if take.clipped_percent is not None:
        text = "{:.1f} % of the picture is clipped"
        judged.append(_most("clipping", take.clipped_percent, guards.max_clipped_percent, text))
    if take.sharpness_share is not None:
        text = "sharpness is {:.2f} of the first gt round's"
        judged.append(_least("focus", take.sharpness_share, guards.min_sharpness_share, text))
    if take.markers_seen is not None:
        judged.append(_least("markers", take.markers_seen, guards.min_markers, "{:.0f} markers in view"))
    if take.camera_shift_px is not None:
        text = "the picture at rest is shifted by {:.1f} px against the first gt round's"
        judged.append(_most("camera_moved", take.camera_shift_px, guards.max_camera_shift_px, text))
    return judged


def _most(guard: GuardName, value: float, limit: float, text: str) -> Judgment:
    return Judgment(guard, value <= limit, f"{text.format(value)} (limit {limit:g})", value, limit)


def _least(guard: GuardName, value: float, limit: float, text: str) -> Judgment:
    return Judgment(guard, value >= limit, f"{text.format(value)} (at least {limit:g})", value, limit)
