"""Look at a take within seconds of its end: is it worth keeping, or is it to be recorded again at once?

The same code judges here that will align the session later, on every so-manieth frame and on three pairs at half
size. What only the rig knows is added: what was commanded, what the rail said, what the camera was set to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from alignment.errors import DecodeError, NoMotionError
from alignment.gates import REASON_TEXTS, GateThresholds
from alignment.matching import match_frames
from alignment.motion import TYPICAL_FOCAL_WIDTHS, TakeMotion, measure_motion
from alignment.pair_job import single_threaded
from alignment.reference import Reference, read_reference, screen_pair, spread_matches, track_take
from alignment.registration import Registration
from alignment.takes import TakeSource
from alignment.velocity import MotionFit
from catalog.session_folder import SessionFolder, SessionRecord, Take
from rig.events import TakeFinding
from rig.guards import TakeNumbers, TakeReport
from rig.live_measure import (
    Displacement,
    Rest,
    RestPicture,
    TargetScales,
    exposure_ev,
    read_rest,
    rests_of,
    ripple_percent,
)

Verdict = Literal["ok", "doubtful", "spoiled"]

LOOKED_AT = 32
"""About so many frames of a take are looked at."""
_LARGEST_STRIDE = 6
_STEP_PX = 3.0
"""Largest error of a place predicted at constant speed between two frames looked at."""
_TRAVEL_MM = 0.5
_SEEN_SHARES = (0.95, 0.75)
"""Share of the uniform part in which a board is followed: doubtful below the first, spoiled below the second."""
_LENGTH_SHARES = (0.7, 0.6)
"""The same for the share of the planned uniform motion that is made out."""
_EXPOSURE_EV = (0.25, 0.5)
_EXPOSURE_SHARE = 0.15
"""Of the stops between two settings: tone curves of real bodies are known only so well."""
_DARK_LIGHT = 0.005
_EDGE_PX = (1.3, 1.8)
_EDGE_RATIO = (1.25, 1.5)
"""The same for a later ground truth, over the first one's."""
_SOFT_SHARE = 0.7
"""Sharpness at rest over the first ground truth's below which a board that cannot be decoded is out of focus."""
_QUICK_PAIRS = 3
_EXPECTED_SHARE = 0.5
_PARALLAX_PX = 0.25
_MASKED_SHARE = 0.3
_FOLLOWED_SHARE = 0.95
_LEAST_FRAMES = 12.0
"""Frames of uniform motion by plan below which a motion need not be measurable."""
_LEAST_TOLD = 20
"""Frames that must have been looked at before their order tells anything."""


@dataclass(frozen=True, eq=False)
class _Looked:
    """A take as far as it was looked at."""

    source: TakeSource
    motion: TakeMotion
    rests: tuple[Rest, Rest]
    picture: RestPicture


class LiveChecker:
    """Checks the takes of one session; remembers its ground truths.

    Args:
        folder: The session.
        thresholds: Gates of alignment.
    """

    def __init__(self, folder: SessionFolder, thresholds: GateThresholds | None = None) -> None:
        self._folder, self._record = folder, folder.record()
        self._limits = thresholds or GateThresholds()
        self._reference: Reference | None = None
        self._truths: dict[tuple[str, int], _Looked] = {}

    def check(self, round_name: str, number: int) -> TakeReport:
        """Check one take that has a `round.json`."""
        take = next(t for t in self._folder.takes() if (t.round.name, t.number) == (round_name, number))
        self._forget_void_truths()
        with single_threaded():
            try:
                numbers, findings = self._check(take)
            except (DecodeError, NoMotionError) as error:
                numbers, findings = TakeNumbers(), [_unmeasured(take, error)]
        return TakeReport(round=round_name, take=number, findings=tuple(findings), numbers=numbers)

    def _forget_void_truths(self) -> None:
        valid = {(t.round.name, t.number) for t in self._folder.valid_takes().values()}
        self._truths = {key: looked for key, looked in self._truths.items() if key in valid}
        reference = self._reference
        if reference is not None and (reference.source.round.name, reference.source.take) not in valid:
            self._reference = None
            self._truths.clear()

    def _check(self, take: Take) -> tuple[TakeNumbers, list[TakeFinding]]:
        source = TakeSource.of(take, self._record.cameras[0])
        if self._reference is None and source.round.role != "gt":
            self._remember_reference()
        looked = self._look(source)
        if self._reference is None:
            return TakeNumbers(), []
        if source.round.role == "gt":
            self._truths[source.round.name, source.take] = looked
        judge = _Judge(
            looked,
            truths=tuple(self._truths.values()),
            reference=self._reference,
            record=self._record,
            limits=self._limits,
        )
        return judge.numbers(), judge.findings()

    def _remember_reference(self) -> None:
        """Look at the first ground truth again: this process was started after it was recorded."""
        for take in self._folder.valid_takes().values():
            if take.round.role == "gt":
                source = TakeSource.of(take, self._record.cameras[0])
                self._truths[take.round.name, take.number] = self._look(source)
                return

    def _look(self, source: TakeSource) -> _Looked:
        stride = _stride(source, self._record)
        if self._reference is None:
            self._reference = read_reference(source, self._record.boards, self._limits, stride=stride)
            motion = self._reference.motion
        else:
            reference = self._reference
            tracks = track_take(source, reference.tracks, stride=stride)
            motion = measure_motion(
                source, tracks, reference.datum, kind=reference.tracks.kind, thresholds=self._limits
            )
        rests = rests_of(motion)
        boards = self._record.boards if source.round.role == "gt" else ()
        with source.open() as frames:
            rgb = frames.read(rests[0].frame or 0).rgb()
        return _Looked(source, motion, rests, read_rest(rgb, source.tone, boards))


class _Judge:
    """Holds one take against the ground truth, the rail and the settings."""

    def __init__(
        self,
        looked: _Looked,
        *,
        truths: Sequence[_Looked],
        reference: Reference,
        record: SessionRecord,
        limits: GateThresholds,
    ) -> None:
        self._looked, self._truths, self._reference = looked, truths, reference
        self._record, self._limits = record, limits
        self._first = truths[0]
        self._is_first = looked is self._first
        self._focal_px = _focal_px(record, looked.source)
        self._scales = TargetScales.of(reference.tracks, reference.datum)
        self._travel = self._error(looked.rests[0], looked.rests[1])
        own = None if self._is_first else self._error(self._first.rests[0], self._first.rests[1])
        if self._travel is not None and own is not None:  # what board and bent rail are wrong by is in both
            along_mm = self._travel.along_mm - own.along_mm
            self._travel = replace(
                self._travel, along_mm=along_mm, sigma_mm=float(np.hypot(self._travel.sigma_mm, own.sigma_mm))
            )
        self._offset = None if self._is_first else self._error(self._first.rests[0], looked.rests[0])
        self._exposure = self._exposure_stops()
        self._pairs = None if looked.source.round.role == "gt" else self._count_pairs()

    def numbers(self) -> TakeNumbers:
        """Collect what was measured."""
        looked, picture, first = self._looked, self._looked.picture, self._first.picture
        fit = looked.motion.fit
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
            offset_mm=None if self._offset is None else self._offset.along_mm,
            turn_deg=None if self._offset is None else self._turn_deg(self._offset),
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

    def _limit_mm(self, error: Displacement) -> float:
        turn_px = 0.0 if error.turn_is_known else np.radians(self._limits.turn_deg) * self._focal_px
        return float(_TRAVEL_MM + 3 * error.sigma_mm + turn_px / self._reference.datum.px_per_mm)

    def _turn_deg(self, error: Displacement) -> float:
        return float(np.degrees(error.common_px / self._focal_px))

    def _judge_velocity(self) -> TakeFinding:
        record = self._looked.motion.record
        why = ", ".join(REASON_TEXTS.get(r, r) for r in record.reasons) or "uniform"
        if record.velocity_mm_s is None:
            text = f"stills at standstill, {record.residual_sd_px or 0.0:.2f} px about their places"
            return _finding("places", "spoiled" if record.reasons else "ok", text, record.residual_sd_px)
        speed = abs(record.velocity_mm_s)
        asked = record.commanded_velocity_mm_s
        against = "" if asked is None else f" against {asked:.3f} mm/s commanded"
        verdict: Verdict = "spoiled" if record.reasons else "ok"
        if not self._believable(set(record.reasons)):
            verdict = "doubtful" if record.reasons else "ok"
        return _finding("velocity", verdict, f"{speed:.3f} mm/s{against}: {why}", speed)

    def _believable(self, reasons: set[str]) -> bool:
        """Tell whether the carriage is to blame, so that a retake would mend it: noise and turns can look alike."""
        cruise, track = self._looked.motion.cruise, self._looked.motion.track
        if self._travel_is_right():  # it went as far as it should, so its mean speed was right
            reasons = reasons - {"wrong_speed"}
        noise_mm = max(cruise.sigma_measurement_mm, float(np.median(track.sigma_mm)))
        shaken_mm = float(np.sqrt(max(cruise.residual_sd_mm**2 - (2 * noise_mm) ** 2, 0.0)))
        if shaken_mm * self._reference.datum.px_per_mm <= self._limits.cruise_residual_px:
            reasons = reasons - {"not_uniform"}
        if np.isin(track.frame_index, cruise.frame_index).sum() < _LEAST_TOLD:
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
        verdict: Verdict = "ok" if share >= _LENGTH_SHARES[0] else "doubtful"
        if share < _LENGTH_SHARES[1] and planned >= _LEAST_FRAMES:
            verdict = "spoiled"
        text = f"uniform motion is made out over {100 * share:.0f} % of its planned length"
        return _finding("length", verdict, text, share)

    def _judge_markers(self) -> TakeFinding | None:
        if not self._record.boards:
            return None
        share = self._seen_share()
        verdict: Verdict = "ok" if share >= _SEEN_SHARES[0] else "doubtful"
        if share < _SEEN_SHARES[1]:
            verdict = "spoiled"
        return _finding(
            "markers", verdict, f"a board is followed in {100 * share:.0f} % of the uniform part", share
        )

    def _judge_travel(self) -> TakeFinding | None:
        error = self._travel
        if error is None and self._record.boards and len(self._looked.source.telemetry_mm):
            return _finding("travel", "doubtful", "no board was seen at both rests")
        if error is None:
            return None
        limit = self._limit_mm(error)
        text = (
            f"travel by the boards differs by {error.along_mm:+.2f} mm from the rail's (limit {limit:.2f} mm)"
        )
        return _finding("travel", "spoiled" if abs(error.along_mm) > limit else "ok", text, error.along_mm)

    def _judge_offset(self) -> TakeFinding | None:
        error = self._offset
        if error is None:
            return None
        limit, turn = self._limit_mm(error), self._turn_deg(error)
        turn_limit = self._limits.rotation_deg + 3 * np.degrees(error.common_sigma_px / self._focal_px)
        spoiled = abs(error.along_mm) > limit or abs(turn) > turn_limit
        text = (
            f"against the first ground truth the carriage stands {error.along_mm:+.2f} mm off (limit {limit:.2f} mm), "
            f"the camera is turned by {turn:+.3f} deg (limit {turn_limit:.2f} deg)"
        )
        return _finding("position", "spoiled" if spoiled else "ok", text, error.along_mm)

    def _judge_darkness(self) -> TakeFinding:
        light = float(self._looked.picture.light.mean())
        text = f"mean light {100 * light:.2f} % of full scale"
        return _finding("light", "spoiled" if light < _DARK_LIGHT else "ok", text, light)

    def _judge_edges(self) -> TakeFinding | None:
        edge = self._looked.picture.edge_px
        first = self._first.picture.edge_px
        if edge is None and self._record.boards:
            soft = not self._is_first and first is not None and self._sharpness_share() < _SOFT_SHARE
            verdict: Verdict = "spoiled" if soft else "doubtful"
            return _finding("focus", verdict, "no board can be decoded at rest: blurred, dark or covered")
        if edge is None:
            return None
        limits = (
            _EDGE_PX if self._is_first or first is None else (_EDGE_RATIO[0] * first, _EDGE_RATIO[1] * first)
        )
        verdict = "spoiled" if edge > limits[1] else "doubtful" if edge > limits[0] else "ok"
        text = f"edges of the sharpest board spread over {edge:.2f} px (limit {limits[1]:.2f} px)"
        return _finding("focus", verdict, text, edge)

    def _sharpness_share(self) -> float:
        return self._looked.picture.sharpness / max(self._first.picture.sharpness, 1e-9)

    def _judge_exposure(self) -> TakeFinding | None:
        if self._exposure is None:
            return None
        off, between = self._exposure
        slack = _EXPOSURE_SHARE * abs(between)
        text = f"light differs by {off:+.2f} EV from what the settings say"
        if self._looked.source.round.conditions:
            return _finding("exposure", "ok", f"{text}, under other conditions", off)
        verdict: Verdict = "ok" if abs(off) <= _EXPOSURE_EV[0] + slack else "doubtful"
        if abs(off) > _EXPOSURE_EV[1] + slack:
            verdict = "spoiled"
        return _finding("exposure", verdict, text, off)

    def _judge_pairs(self) -> list[TakeFinding]:
        found = self._register()
        judged = [_judge_registration(found, self._limits)]
        if self._pairs is not None:
            judged.insert(0, self._judge_count(self._pairs))
        return judged

    def _judge_count(self, pairs: int) -> TakeFinding:
        frames = len(self._looked.motion.cruise.frame_index)
        verdict: Verdict = "ok" if pairs >= _EXPECTED_SHARE * frames else "doubtful"
        if pairs == 0:
            verdict = "spoiled"
        text = f"{pairs} of {frames} frames have a ground truth within the parallax limit"
        return _finding("pairs", verdict, text, pairs)

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
        return _PARALLAX_PX / max(spread, 1e-9), spread

    def _register(self) -> list[Registration]:
        truth, take = self._first.motion, self._looked.motion
        matches = spread_matches(truth, take, _QUICK_PAIRS)
        with truth.source.open() as gt, take.source.open() as lq:
            found = [screen_pair(truth, take, m, gt, lq, focal_px=self._focal_px) for m in matches]
        return [f for f in found if f is not None]

    def _cruise_frames_seen(self) -> np.ndarray:
        """``(T, N)``: which target was found in which frame looked at over the uniform part."""
        motion, source = self._looked.motion, self._looked.source
        stride = _stride(source, self._record)
        inside = np.isin(np.arange(len(source.time_s)), motion.cruise.frame_index)
        inside &= np.arange(len(source.time_s)) % stride == 0
        return np.array([t.found[inside] for t in motion.tracks])

    def _seen_share(self) -> float:
        seen = self._cruise_frames_seen()
        return float(np.mean(seen.any(axis=0))) if seen.size else 0.0

    def _targets_followed(self) -> int:
        seen = self._cruise_frames_seen()
        return int(np.sum(seen.mean(axis=1) >= _FOLLOWED_SHARE)) if seen.size else 0

    def _shift_px(self) -> float | None:
        """Mean shift of the boards at rest, less what the rail's own difference makes."""
        here, there = self._looked.rests[0], self._first.rests[0]
        if here.rail_mm is None or there.rail_mm is None:
            return None
        moved = self._scales.directions * (self._scales.px_per_mm * (here.rail_mm - there.rail_mm))[:, None]
        shifts = np.linalg.norm(here.anchors_px - there.anchors_px - moved, axis=1)
        return float(np.nanmean(shifts)) if np.isfinite(shifts).any() else None


def _unmeasured(take: Take, error: DecodeError | NoMotionError) -> TakeFinding:
    """Tell a take that was spoiled from one whose plan leaves too few frames: a retake would not mend that."""
    if isinstance(error, DecodeError):
        return _finding("movie", "spoiled", error.message)
    sweep, camera = take.round.sweep, next(iter(take.record().cameras.values()))
    frames = float("inf")
    if sweep is not None:
        frames = abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s * camera.measured_rate_hz
    return _finding("motion", "spoiled" if frames >= _LEAST_FRAMES else "doubtful", error.message, frames)


def _judge_registration(found: list[Registration], limits: GateThresholds) -> TakeFinding:
    if not found:
        return _finding("registration", "doubtful", f"none of {_QUICK_PAIRS} frames could be registered")
    angle = float(np.median([max(abs(a) for a in f.angles_deg) for f in found]))
    error = float(np.median([f.predicted_epe_px for f in found]))
    masked = float(np.median([f.masked_share for f in found]))
    certain = error < limits.local_px
    verdict: Verdict = "ok" if masked <= _MASKED_SHARE and len(found) > 1 else "doubtful"
    if angle > limits.rotation_deg and certain:
        verdict = "spoiled"
    text = (
        f"{len(found)} of {_QUICK_PAIRS} frames registered to {error:.2f} px at half size, camera turned by "
        f"{angle:.3f} deg, {100 * masked:.0f} % of the picture shows something else"
    )
    return _finding("registration", verdict, text, error)


def _stride(source: TakeSource, record: SessionRecord) -> int:
    """Choose how many frames to pass over: few enough to follow the boards through the ramps."""
    if source.stops_mm is not None:
        return 1
    wanted = max(1, len(source.time_s) // LOOKED_AT)
    sweep, lens = source.round.sweep, record.lens
    if sweep is None or lens is None or source.frame_s <= 0:
        return min(wanted, 2)
    px_per_mm = _focal_px(record, source) / lens.scene_depth_mm[0]
    longest_s = float(np.sqrt(_STEP_PX / (sweep.acceleration_mm_s2 * px_per_mm)))
    return int(np.clip(min(wanted, longest_s // source.frame_s), 1, _LARGEST_STRIDE))


def _focal_px(record: SessionRecord, source: TakeSource) -> float:
    if record.lens is None:
        return TYPICAL_FOCAL_WIDTHS * source.camera.width
    return record.lens.focal_mm / record.lens.sensor_width_mm * source.camera.width


def _finding(what: str, verdict: Verdict, text: str, value: float | None = None) -> TakeFinding:
    return TakeFinding(what=what, verdict=verdict, text=text, value=value)
