"""Hold one take against the ground truth, the rail and the settings: numbers, and what they say about the take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import typical_focal_px
from alignment.gates import REASON_TEXTS, GateThresholds
from alignment.matching import match_frames
from alignment.motion import TakeMotion
from alignment.reference import Reference
from alignment.registration import Registration
from alignment.takes import TakeSource
from alignment.velocity import MotionFit
from catalog.session_folder import SessionRecord
from rig.events import TakeFinding
from rig.guards import TakeNumbers
from rig.live_limits import LIVE_LIMITS, Grades, LiveLimits, Verdict
from rig.live_measure import (
    Displacement,
    Rest,
    RestPicture,
    TargetScales,
    exposure_ev,
    mean_of,
)
from rig.live_ripple import ripple_percent

AT_START, AT_END, ON_BOTH = "before its motion", "after its motion", "before and after its motion"


@dataclass(frozen=True, eq=False)
class LookedAt:
    """A take as far as it was looked at."""

    source: TakeSource
    motion: TakeMotion
    stride: int
    """Every so-manieth frame was looked at."""
    rests: tuple[Rest, Rest]
    """Before and after the motion."""
    picture: RestPicture
    """At the rest before the motion."""
    closer: TakeMotion | None = None
    """The motion by all frames, where those looked at leave open whether it was even."""


class Judge:
    """Judges one take; opens no file.

    Args:
        looked: The take.
        truths: The session's ground truths, the first one first; ``looked`` may be one of them.
        registered: Frames of the take that could be registered with the first ground truth.
        tried: How many were tried.
        reference: What the first ground truth establishes.
        record: The session.
        gates: Gates of alignment.
        limits: Limits of the live check.
    """

    def __init__(
        self,
        looked: LookedAt,
        *,
        truths: Sequence[LookedAt],
        registered: Sequence[Registration],
        tried: int,
        reference: Reference,
        record: SessionRecord,
        gates: GateThresholds,
        limits: LiveLimits = LIVE_LIMITS,
    ) -> None:
        self._looked, self._truths, self._reference = looked, truths, reference
        self._registered, self._tried = registered, tried
        self._record, self._gates, self._limits = record, gates, limits
        self._first = truths[0]
        self._is_first = looked is self._first
        self._focal_px = focal_px(record, looked.source)
        self._by_boards = reference.tracks.kind == "markers"
        self._scales = TargetScales.of(reference.tracks, reference.datum)
        self._travel = self._error(looked.rests[0], looked.rests[1])
        own = None if self._is_first else self._error(self._first.rests[0], self._first.rests[1])
        self._is_compared = own is not None
        if self._travel is not None and own is not None:  # what board and bent rail are wrong by is in both
            along_mm = self._travel.along_mm - own.along_mm
            self._travel = replace(
                self._travel,
                along_mm=along_mm,
                sigma_mm=float(np.hypot(self._travel.sigma_mm, own.sigma_mm)),
                turn_is_known=self._travel.turn_is_known and own.turn_is_known,
            )
        self._offsets = {} if self._is_first else self._places()
        self._exposure = self._exposure_stops()
        self._pairs = None if looked.source.round.role == "gt" else self._count_pairs()

    def numbers(self) -> TakeNumbers:
        """Collect what was measured."""
        looked, picture, first = self._looked, self._looked.picture, self._first.picture
        fit, start = looked.motion.fit, self._offsets.get(AT_START)
        return TakeNumbers(
            light_ratio=float(picture.light.mean() / max(first.light.mean(), 1e-9)),
            clipped_percent=picture.clipped_percent,
            sharpness_share=self._sharpness_share(),
            edge_px=picture.edge_px,
            markers_seen=self._targets_followed() if self._record.boards else None,
            camera_shift_px=None if self._is_first else self._shift_px(),
            ripple_percent=None if fit is None else self._ripple_percent(fit),
            velocity_mm_s=None if fit is None else fit.kinematics.velocity_mm_s,
            travel_error_mm=None if self._travel is None else self._travel.along_mm,
            offset_mm=None if start is None else start.along_mm,
            turn_deg=None if start is None else self._turn_deg(start),
            exposure_ev=None if self._exposure is None else self._exposure[0],
            pairs=self._pairs,
        )

    def _ripple_percent(self, fit: MotionFit) -> float | None:
        begin_s, end_s = fit.cruise(self._looked.source.frame_s)
        noise_mm = self._looked.motion.cruise.sigma_measurement_mm
        return ripple_percent(self._looked.motion.track, begin_s=begin_s, end_s=end_s, noise_mm=noise_mm)

    def findings(self) -> list[TakeFinding]:
        """Judge everything that can be judged."""
        found = [self._judge_velocity(), self._judge_length(), self._judge_markers(), self._judge_travel()]
        if self._looked.source.round.role == "gt":
            found += [self._judge_darkness(), self._judge_edges()]
        if not self._is_first:
            found += [self._judge_offset(), self._judge_exposure(), *self._judge_pairs()]
        return [f for f in found if f is not None]

    def _error(self, first: Rest, second: Rest) -> Displacement | None:
        """Displacement by the boards less that by the rail."""
        seen = self._scales.displacement(first, second)
        if seen is None or first.rail_mm is None or second.rail_mm is None:
            return None
        sweep = self._reference.source.round.sweep
        sign = -1.0 if sweep is not None and sweep.end_mm < sweep.start_mm else 1.0
        along_mm = seen.along_mm - sign * (second.rail_mm - first.rail_mm)
        return Displacement(along_mm, seen.sigma_mm, seen.common_px, seen.common_sigma_px, seen.turn_is_known)

    def _places(self) -> dict[str, Displacement]:
        """Where the carriage stood, against the first ground truth: at either rest, and on both together.

        What was lost before the take is missing at both, which tells it from two turns of the camera; what was lost
        on the way is missing at the end, and that without what the travel's other end is uncertain by.
        """
        pairs = zip((AT_START, AT_END), self._first.rests, self._looked.rests, strict=True)
        seen = {where: self._error(first, rest) for where, first, rest in pairs}
        found = {where: error for where, error in seen.items() if error is not None}
        if len(found) > 1:
            found[ON_BOTH] = mean_of(found[AT_START], found[AT_END])
        return found

    def _limit_mm(self, error: Displacement) -> float:
        limits, turn_is_known = self._limits, error.turn_is_known
        if self._is_compared or error is not self._travel:
            least_mm = max(limits.travel_mm, limits.sure_sigmas * error.sigma_mm)
        else:
            least_mm = limits.travel_mm + limits.alone_sigmas * error.sigma_mm
            turn_is_known = turn_is_known and self._scales.tell_turns
        turn_px = 0.0 if turn_is_known else np.radians(self._gates.turn_deg) * self._focal_px
        return float(least_mm + turn_px / self._reference.datum.px_per_mm)

    def _turn_deg(self, error: Displacement) -> float:
        return float(np.degrees(error.common_px / self._focal_px))

    def _judge_velocity(self) -> TakeFinding:
        record = (self._looked.closer or self._looked.motion).record
        why = ", ".join(REASON_TEXTS.get(r, r) for r in record.reasons) or "uniform"
        if record.velocity_mm_s is None:
            text = f"stills at standstill, {record.residual_sd_px or 0.0:.2f} px about their places"
            return finding("places", "spoiled" if record.reasons else "ok", text, record.residual_sd_px)
        speed = abs(record.velocity_mm_s)
        asked = record.commanded_velocity_mm_s
        against = "" if asked is None else f" against {asked:.3f} mm/s commanded"
        verdict: Verdict = "doubtful" if record.reasons else "ok"
        if self._believable(set(record.reasons)):
            verdict = "spoiled"
        return finding("velocity", verdict, f"{speed:.3f} mm/s{against}: {why}", speed)

    def _believable(self, reasons: set[str]) -> bool:
        """Tell whether alignment will refuse the take for what a retake would mend, as stick-slip: its pairs are lost.

        That the carriage arrived says nothing of how it went there.
        """
        motion = self._looked.closer or self._looked.motion
        if self._travel_is_right():  # it went as far as it should, so its mean speed was right
            reasons = reasons - {"wrong_speed"}
        if np.isin(motion.track.frame_index, motion.cruise.frame_index).sum() < self._limits.least_told:
            reasons = reasons - ({"stick_slip", "not_uniform"} if self._travel_is_right() else {"stick_slip"})
        return bool(reasons)

    def _travel_is_right(self) -> bool:
        return self._travel is not None and abs(self._travel.along_mm) <= self._limit_mm(self._travel)

    def _judge_length(self) -> TakeFinding | None:
        """Hold the frames of uniform motion that were made out against those that the plan has."""
        source, sweep = self._looked.source, self._looked.source.round.sweep
        if sweep is None or source.stops_mm is not None or source.frame_s <= 0:
            return None
        planned = abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s / source.frame_s
        share = len(self._looked.motion.cruise.frame_index) / max(planned, 1.0)
        verdict = self._limits.length_share.at_least(share)
        if verdict == "spoiled" and planned < self._limits.least_frames:
            verdict = "doubtful"
        text = f"uniform motion is made out over {100 * share:.0f} % of its planned length"
        return finding("length", verdict, text, share)

    def _judge_markers(self) -> TakeFinding | None:
        if not self._record.boards:
            return None
        share = self._seen_share()
        text = f"a board is followed in {100 * share:.0f} % of the uniform part"
        return finding("markers", self._limits.seen_share.at_least(share), text, share)

    def _judge_travel(self) -> TakeFinding | None:
        error = self._travel
        if error is None and self._record.boards and len(self._looked.source.telemetry_mm):
            return finding("travel", "doubtful", "no board was seen at both rests")
        if error is None:
            return None
        limit = self._limit_mm(error)
        seen = "boards" if self._by_boards else "picture"
        text = (
            f"travel by the {seen} differs by {error.along_mm:+.2f} mm from the rail's (limit {limit:.2f} mm)"
        )
        return finding("travel", "spoiled" if abs(error.along_mm) > limit else "ok", text, error.along_mm)

    def _judge_offset(self) -> TakeFinding | None:
        if not self._offsets:
            return None
        where = max(
            self._offsets, key=lambda w: abs(self._offsets[w].along_mm) / self._limit_mm(self._offsets[w])
        )
        worst, error = self._offsets[where], next(iter(self._offsets.values()))
        limit, turn = self._limit_mm(worst), self._turn_deg(error)
        turn_limit = self._gates.rotation_deg + 3 * np.degrees(error.common_sigma_px / self._focal_px)
        spoiled = abs(worst.along_mm) > limit or abs(turn) > turn_limit
        text = (
            f"against the first ground truth the carriage stands {worst.along_mm:+.2f} mm off {where} (limit "
            f"{limit:.2f} mm), the camera is turned by {turn:+.3f} deg (limit {turn_limit:.2f} deg)"
        )
        return finding("position", "spoiled" if spoiled else "ok", text, worst.along_mm)

    def _judge_darkness(self) -> TakeFinding:
        light = float(self._looked.picture.light.mean())
        text = f"mean light {100 * light:.2f} % of full scale"
        return finding("light", "spoiled" if light < self._limits.dark_light else "ok", text, light)

    def _judge_edges(self) -> TakeFinding | None:
        edge = self._looked.picture.edge_px
        first = self._first.picture.edge_px
        if edge is None and self._record.boards:
            soft = (
                not self._is_first and first is not None and self._sharpness_share() < self._limits.soft_share
            )
            verdict: Verdict = "spoiled" if soft else "doubtful"
            return finding("focus", verdict, "no board can be decoded at rest: blurred, dark or covered")
        if edge is None:
            return None
        grades = self._edge_grades(first)
        text = f"edges of the sharpest board spread over {edge:.2f} px (limit {grades.spoiled:.2f} px)"
        return finding("focus", grades.at_most(edge), text, edge)

    def _edge_grades(self, first_px: float | None) -> Grades:
        if self._is_first or first_px is None:
            return self._limits.edge_px
        return self._limits.edge_ratio.times(first_px)

    def _sharpness_share(self) -> float:
        return self._looked.picture.sharpness / max(self._first.picture.sharpness, 1e-9)

    def _judge_exposure(self) -> TakeFinding | None:
        if self._exposure is None:
            return None
        off, between = self._exposure
        text = f"light differs by {off:+.2f} EV from what the settings say"
        if self._looked.source.round.conditions:
            return finding("exposure", "ok", f"{text}, under other conditions", off)
        slack = self._limits.exposure_slack * abs(between)
        return finding("exposure", self._limits.exposure_ev.at_most(abs(off), slack=slack), text, off)

    def _judge_pairs(self) -> list[TakeFinding]:
        judged = [self._judge_registration()]
        if self._pairs is not None:
            judged.insert(0, self._judge_count(self._pairs))
        return judged

    def _judge_count(self, pairs: int) -> TakeFinding:
        frames = len(self._looked.motion.cruise.frame_index)
        verdict: Verdict = "ok" if pairs >= self._limits.expected_share * frames else "doubtful"
        if pairs == 0:
            verdict = "spoiled"
        text = f"{pairs} of {frames} frames have a ground truth within the parallax limit"
        return finding("pairs", verdict, text, pairs)

    def _exposure_stops(self) -> tuple[float, float] | None:
        if self._is_first:
            return None
        return exposure_ev(
            self._first.picture,
            self._looked.picture,
            gt_settings=self._first.source.camera.settings_read,
            lq_settings=self._looked.source.camera.settings_read,
        )

    def _count_pairs(self) -> int:
        offered = [f for i, truth in enumerate(self._truths) for f in truth.motion.cruise_frames(i)]
        limit_mm, spread = self._parallax_limit_mm()
        matches = match_frames(
            self._looked.motion.cruise_frames(0), offered, limit_mm=limit_mm, spread_px_per_mm=spread
        )
        return sum(abs(m.gap_mm) <= limit_mm for m in matches)

    def _parallax_limit_mm(self) -> tuple[float, float]:
        lens = self._record.lens
        if lens is None:
            spread = self._reference.datum.px_per_mm
        else:
            near_mm, far_mm = lens.scene_depth_mm
            spread = self._focal_px * (1 / near_mm - 1 / far_mm)
        return self._limits.parallax_px / max(spread, 1e-9), spread

    def _judge_registration(self) -> TakeFinding:
        found = self._registered
        if not found:
            return finding("registration", "doubtful", f"none of {self._tried} frames could be registered")
        angle = float(np.median([max(abs(a) for a in f.angles_deg) for f in found]))
        error = float(np.median([f.predicted_epe_px for f in found]))
        masked = float(np.median([f.masked_share for f in found]))
        is_sure = masked <= self._limits.masked_share and len(found) > 1
        verdict: Verdict = "ok" if is_sure else "doubtful"
        if angle > self._gates.rotation_deg and error < self._gates.local_px:
            verdict = "spoiled"
        text = (
            f"{len(found)} of {self._tried} frames registered to {error:.2f} px at half size, camera turned by "
            f"{angle:.3f} deg, {100 * masked:.0f} % of the picture shows something else"
        )
        return finding("registration", verdict, text, error)

    def _cruise_frames_seen(self) -> NDArray[np.bool_]:
        """``(T, N)``: which target was found in which frame looked at over the uniform part."""
        motion, source = self._looked.motion, self._looked.source
        frames = np.arange(len(source.time_s))
        inside = np.isin(frames, motion.cruise.frame_index) & (frames % self._looked.stride == 0)
        return np.array([t.found[inside] for t in motion.tracks])

    def _seen_share(self) -> float:
        seen = self._cruise_frames_seen()
        return float(np.mean(seen.any(axis=0))) if seen.size else 0.0

    def _targets_followed(self) -> int:
        seen = self._cruise_frames_seen()
        return int(np.sum(seen.mean(axis=1) >= self._limits.followed_share)) if seen.size else 0

    def _shift_px(self) -> float | None:
        """Mean shift of the boards at rest, less what the rail's own difference makes."""
        here, there = self._looked.rests[0], self._first.rests[0]
        if here.rail_mm is None or there.rail_mm is None:
            return None
        moved = self._scales.directions * (self._scales.px_per_mm * (here.rail_mm - there.rail_mm))[:, None]
        shifts = np.linalg.norm(here.anchors_px - there.anchors_px - moved, axis=1)
        return float(np.nanmean(shifts)) if np.isfinite(shifts).any() else None


def focal_px(record: SessionRecord, source: TakeSource) -> float:
    """Focal length by the data sheet, px of the take's frames; a usual one where no lens is known."""
    if record.lens is None:
        return typical_focal_px(source.camera.width, source.camera.height)
    return record.lens.focal_mm / record.lens.sensor_width_mm * source.camera.width


def finding(what: str, verdict: Verdict, text: str, value: float | None = None) -> TakeFinding:
    """Make a finding; arguments as its members."""
    return TakeFinding(what=what, verdict=verdict, text=text, value=value)
