"""Look at a take within seconds of its end: is it worth keeping, or is it to be recorded again at once?

The same code judges here that will align the session later, on every so-manieth frame and on three pairs at half
size. What only the rig knows is added: what was commanded, what the rail said, what the camera was set to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from alignment.decode import CACHED_FRAMES, FrameReader
from alignment.errors import DecodeError, NoMotionError
from alignment.gates import GateThresholds
from alignment.matching import Match, PlacedFrame, match_frames
from alignment.motion import TakeMotion, measure_motion
from alignment.pair_job import single_threaded
from alignment.photometry import Rgb
from alignment.picture import Picture
from alignment.reference import Reference, establish_reference, screen_pair, track_frames
from alignment.registration import Registration
from alignment.takes import TakeSource
from catalog.session_folder import SessionFolder, SessionRecord, Take
from rig.events import TakeFinding
from rig.guards import TakeNumbers, TakeReport
from rig.live_judge import Judge, LookedAt, finding, focal_px
from rig.live_limits import LIVE_LIMITS, Verdict
from rig.live_measure import read_rest, rests_of

LOOKED_AT = 32
"""At most about so many frames of a take are looked at."""
_LARGEST_STRIDE = 6
_STEP_PX = 3.0
"""Largest error of a place predicted at constant speed between two frames looked at."""
_LEAST_UNIFORM = 7
"""Frames of the planned uniform motion looked at: five must be left when its ends are taken off."""
_SCREENED_PLACES = 3
_FRAMES_AT_PLACE = 3
"""Frames of the ground truth kept at each place: at the usual third of the speed one of them is within half a step."""
_KEPT_BYTES = 160_000_000
"""Decoded frames of the take that are kept while it is checked: all of a short one at 1280x720."""


@dataclass(frozen=True, eq=False)
class _Screen:
    """A frame of the ground truth that others are registered with."""

    frame: PlacedFrame
    rgb: Rgb


class LiveChecker:
    """Checks the takes of one session; remembers its ground truths.

    Args:
        folder: The session.
        thresholds: Gates of alignment.
    """

    def __init__(self, folder: SessionFolder, thresholds: GateThresholds | None = None) -> None:
        self._folder, self._record = folder, folder.record()
        self._gates = thresholds or GateThresholds()
        self._reference: Reference | None = None
        self._screens: list[list[_Screen]] = []
        self._truths: dict[tuple[str, int], LookedAt] = {}

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
        with _opened(source) as frames:
            looked = self._look(source, frames)
            reference = self._reference
            if reference is None:
                return TakeNumbers(), []
            judge = Judge(
                looked,
                truths=tuple(self._truths.values()),
                registered=self._register(looked, frames),
                tried=_SCREENED_PLACES,
                reference=reference,
                record=self._record,
                gates=self._gates,
            )
        return judge.numbers(), judge.findings()

    def _remember_reference(self) -> None:
        """Look at the first ground truth again: this process was started after it was recorded."""
        for take in self._folder.valid_takes().values():
            if take.round.role == "gt":
                source = TakeSource.of(take, self._record.cameras[0])
                with _opened(source) as frames:
                    self._look(source, frames)
                return

    def _look(self, source: TakeSource, frames: FrameReader) -> LookedAt:
        stride, is_reference = _stride(source, self._record), self._reference is None
        motion = self._motion(source, frames, stride)
        closer = None if stride == 1 or is_reference else self._closer(source, frames, motion)
        rests = rests_of(motion)
        is_gt = source.round.role == "gt"
        rgb = frames.read(rests[0].frame or 0).rgb()
        picture = read_rest(rgb, source.tone, self._record.boards if is_gt else ())
        looked = LookedAt(source, motion, stride, rests, picture, closer)
        if is_gt:
            if not self._truths:
                self._screens = _screens(motion, frames)
            self._truths[source.round.name, source.take] = looked
        return looked

    def _closer(self, source: TakeSource, frames: FrameReader, motion: TakeMotion) -> TakeMotion | None:
        """Measure the motion by all frames, as alignment will, where some of them show more than noise and turns.

        The order of frames far apart does not tell stick-slip.
        """
        reference = self._reference
        if reference is None or motion.fit is None:
            return None
        is_even = (motion.record.shaken_sd_px or 0.0) <= self._gates.stick_slip_floor_px
        return None if is_even else self._motion(source, frames, 1)

    def _motion(self, source: TakeSource, frames: FrameReader, stride: int) -> TakeMotion:
        reference = self._reference
        if reference is None:
            boards = self._record.boards
            self._reference = establish_reference(source, frames, boards, self._gates, stride=stride)
            return self._reference.motion
        tracks = track_frames(source, frames, reference.tracks, stride=stride)
        return measure_motion(
            source,
            tracks,
            reference.datum,
            kind=reference.tracks.kind,
            thresholds=self._gates,
            tie_clock=False,
        )

    def _register(self, looked: LookedAt, frames: FrameReader) -> list[Registration]:
        """Register the take with the first ground truth at a few places, at half size."""
        truth = next(iter(self._truths.values()))
        if looked is truth:
            return []
        focal, tone = focal_px(self._record, looked.source), truth.source.tone
        found = []
        for match, gt in _screened(looked.motion.cruise_frames(0), self._screens):
            lq = Picture(frames.read(match.lq.index).rgb(), tone=looked.source.tone)
            gt_picture = Picture(gt, tone=tone)
            found.append(screen_pair(truth.motion, looked.motion, match, gt_picture, lq, focal_px=focal))
        return [f for f in found if f is not None]


def _opened(source: TakeSource) -> FrameReader:
    """Open a take so that what was decoded once for its motion need not be decoded again for its pictures."""
    frame_bytes = max(1, source.camera.width * source.camera.height * 3 // 2)
    return source.open(cached_frames=max(CACHED_FRAMES, _KEPT_BYTES // frame_bytes))


def _screens(motion: TakeMotion, frames: FrameReader) -> list[list[_Screen]]:
    """Keep a few neighbouring frames of a ground truth at each of the places."""
    placed = motion.cruise_frames(0)
    shares = (
        np.arange(_SCREENED_PLACES) + 0.5
    ) / _SCREENED_PLACES  # faster takes are uniform over a shorter part
    firsts = np.unique((shares * max(len(placed) - _FRAMES_AT_PLACE + 1, 1)).astype(int))
    return [
        [_Screen(frame, frames.read(frame.index).rgb()) for frame in placed[first : first + _FRAMES_AT_PLACE]]
        for first in firsts
    ]


def _screened(taken: list[PlacedFrame], screens: Iterable[list[_Screen]]) -> list[tuple[Match, Rgb]]:
    """Match the nearest frame of a take at each place, with the picture of its ground truth."""
    found = []
    for place in screens:
        offered = [s.frame for s in place]
        matches = match_frames(taken, offered, limit_mm=np.inf, spread_px_per_mm=1.0)
        best = min(matches, key=lambda m: abs(m.gap_mm), default=None)
        if best is not None:
            found.append((best, next(s.rgb for s in place if s.frame.index == best.gt.index)))
    return found


def _unmeasured(take: Take, error: DecodeError | NoMotionError) -> TakeFinding:
    """Tell a take that was spoiled from one whose plan leaves too few frames: a retake would not mend that."""
    if isinstance(error, DecodeError):
        return finding("movie", "spoiled", error.message)
    sweep, camera = take.round.sweep, next(iter(take.record().cameras.values()))
    frames = float("inf")
    if sweep is not None:
        frames = abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s * camera.measured_rate_hz
    verdict: Verdict = "spoiled" if frames >= LIVE_LIMITS.least_frames else "doubtful"
    return finding("motion", verdict, error.message, frames)


def _stride(source: TakeSource, record: SessionRecord) -> int:
    """Choose how many frames to pass over: few enough to follow the boards through the ramps."""
    if source.stops_mm is not None:
        return 1
    wanted = max(1, math.ceil(len(source.time_s) / LOOKED_AT))
    sweep, lens = source.round.sweep, record.lens
    if sweep is None or lens is None or source.frame_s <= 0:
        return min(wanted, 2)
    px_per_mm = focal_px(record, source) / lens.scene_depth_mm[0]
    longest_s = float(np.sqrt(_STEP_PX / (sweep.acceleration_mm_s2 * px_per_mm)))
    uniform = abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s / source.frame_s
    most = min(longest_s // source.frame_s, uniform // _LEAST_UNIFORM)
    return int(np.clip(min(wanted, most), 1, _LARGEST_STRIDE))
