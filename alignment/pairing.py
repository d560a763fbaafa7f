"""Align a whole session: motion of every take, depths, matching, registration, gates, files.

Movies are streamed; a process holds a few dozen frames at most. The same input gives the same bytes,
whatever the number of workers, and a run that was interrupted goes on where whole rounds were done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from pydantic import Field

from alignment.calibration.store import StoredCalibration, find_calibration
from alignment.camera_motion import typical_focal_px
from alignment.clock_tie import disagreement_s, flashes_of, tie_clocks, with_tie
from alignment.errors import (
    CalibrationNotFoundError,
    DamagedCalibrationError,
    DecodeError,
    NoMotionError,
    NothingToAlignError,
)
from alignment.evidence_files import finish_round, finished_round, publish, round_key, versions
from alignment.gates import REASON_TEXTS, GateThresholds
from alignment.matching import Match
from alignment.motion import TakeMotion, measure_motion, rejected_motion
from alignment.pair_job import (
    PairJob,
    PairOutcome,
    run_pair_job,
    shared_out,
    single_threaded,
)
from alignment.pair_plan import PairPlanner
from alignment.pair_records import judge_round
from alignment.reference import Reference, read_depths, read_reference, track_take
from alignment.scene_depths import SceneDepths
from alignment.take_shift import TakeShift, sample_shift, shift_matches
from alignment.takes import TakeSource
from alignment.tracking import TargetTrack
from catalog.evidence import AlignmentRecord, PairRecord, RoundMotion
from catalog.executors import open_executor
from catalog.session_folder import SessionFolder, SessionRecord
from catalog.yaml_document import Document

_CLOCKS_DISAGREE_S = 0.02
"""Clocks from light and from motion this far apart are told: twice what a serial line's report may be late."""


class AlignmentOptions(Document):
    """How a session is aligned; kept in `alignment.json`."""

    thresholds: GateThresholds = GateThresholds()
    """Gates of pairs and rounds."""
    pairs_per_run: int = Field(default=12, ge=1)
    """Matches that are registered one after the other; part of the result, since a pair starts from the one before."""
    depth_pairs: int = Field(default=6, ge=1)
    """Pairs of ground-truth frames from which depths are measured."""


Progress = Callable[[float], object]


def align_session(
    folder: SessionFolder,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress = lambda _: None,
    options: AlignmentOptions | None = None,
) -> AlignmentRecord:
    """Turn a session into aligned pairs: `pairs/`, `pairs.jsonl` and `alignment.json`.

    Args:
        folder: The session.
        executor: Where parallel jobs run; a pool of processes of our own if not given.
        workers: How many jobs run at a time: the size of our own pool, the number of processors by default (1 works
            in this process); of a given executor, for work cut no finer than it need be.
        progress: Told the share of the work done since the last call; all calls add up to 1.
        options: Thresholds and such.

    Returns:
        What was written to `alignment.json`. Rounds that could not be used are in it with their reasons.

    Raises:
        NothingToAlignError: The session has no usable ground-truth round or nothing to pair with it.
        SessionFolderError: The session folder is damaged.
    """
    count = workers if workers or executor else os.cpu_count()
    own = nullcontext(executor) if executor is not None else open_executor(workers=count)
    with own as pool, single_threaded():
        return _Session(folder, options or AlignmentOptions(), pool, count, progress).align()


@dataclass(eq=False)
class _Session:
    folder: SessionFolder
    options: AlignmentOptions
    pool: Executor
    workers: int | None
    progress: Progress
    record: SessionRecord = field(init=False)
    rejected: dict[str, RoundMotion] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    calibration: StoredCalibration | None = None

    def __post_init__(self) -> None:
        self.record = self.folder.record()

    def align(self) -> AlignmentRecord:
        self.calibration = calibration_in_force(self.folder, self.record, self.warnings)
        sources = self._sources()
        reference = self._reference([s for s in sources if s.round.role == "gt"])
        self.progress(0.2)
        others = [s for s in sources if s.round.name != reference.source.round.name]
        focal_px, focal_source = _focal(self.record, reference.source)
        measured = self.pool.submit(
            read_depths, reference.motion, reference.datum, focal_px, self.options.depth_pairs
        )
        motions = self._motions(others, reference)
        depths = self._depths(measured)
        self.progress(0.1)
        motions = self._shifted(motions, reference, depths, focal_px)
        self.progress(0.1)
        pairs = self._pairs(reference, motions, depths, focal_px)
        alignment = self._alignment(reference, motions, depths, focal_px, focal_source)
        publish(self.folder, pairs, alignment)
        return alignment

    def _sources(self) -> list[TakeSource]:
        """Open what every valid take offers; rounds without one are noted as rejected."""
        valid = self.folder.valid_takes()
        sources = []
        for planned in self.record.rounds:
            take = valid.get(planned.name)
            if take is None:
                self._reject(planned.name, 0, "no_valid_take")
                continue
            try:
                sources.append(TakeSource.of(take, self.record.cameras[0], calibration=self.calibration))
            except DecodeError as error:
                self._reject(planned.name, take.number, "unreadable", str(error))
        return sources

    def _reject(self, name: str, take: int, reason: str, why: str = "", *, frames: int = 0) -> None:
        camera = self.record.cameras[0]
        self.rejected[name] = rejected_motion(name, take=take, camera=camera, reason=reason, frames=frames)
        if why:
            self.warnings.append(f"{name}: {why}")

    def _reference(self, truths: Sequence[TakeSource]) -> Reference:
        for source in truths:
            try:
                found = read_reference(source, self.record.boards, self.options.thresholds)
            except (NoMotionError, DecodeError) as error:
                reason = "unreadable" if isinstance(error, DecodeError) else "no_motion"
                self._reject(source.round.name, source.take, reason, str(error), frames=len(source.time_s))
                continue
            if found.motion.used:
                self.warnings.extend(found.warnings)
                return found
            self.rejected[source.round.name] = found.motion.record
            words = ", ".join(REASON_TEXTS[r] for r in found.motion.record.reasons)
            self.warnings.append(f"{source.round.name}: {words}")
        why = "; ".join(self.warnings) or "none was recorded"
        raise NothingToAlignError(
            f"{self.record.session}: no ground-truth round can be used ({why})",
            kept="the session as it was",
            next_step="take the ground-truth round again",
        )

    def _motions(self, sources: Sequence[TakeSource], reference: Reference) -> list[TakeMotion]:
        if not any(s.round.role != "gt" for s in sources):
            raise NothingToAlignError(
                f"{self.record.session}: no degraded round has a valid take",
                next_step=f"rig record --session {self.record.session}",
            )
        futures = [self.pool.submit(track_take, s, reference.tracks) for s in sources]
        motions = []
        for source, future in zip(sources, futures, strict=True):
            motion = self._motion(source, future, reference)
            if motion is not None:
                motions.append(motion)
        return motions

    def _motion(
        self, source: TakeSource, future: Future[list[TargetTrack]], reference: Reference
    ) -> TakeMotion | None:
        name, frames = source.round.name, len(source.time_s)
        try:
            tracks = future.result()
            return measure_motion(
                source,
                tracks,
                reference.datum,
                kind=reference.tracks.kind,
                thresholds=self.options.thresholds,
            )
        except DecodeError as error:
            self._reject(name, source.take, "unreadable", str(error), frames=frames)
        except NoMotionError as error:
            self._reject(name, source.take, "no_motion", str(error), frames=frames)
        return None

    def _depths(self, measured: Future[SceneDepths | None]) -> SceneDepths | None:
        found = measured.result()
        if found is None:
            self.warnings.append("depths could not be measured; the position limit is that of one board px")
        return found

    def _shifted(
        self,
        motions: Sequence[TakeMotion],
        reference: Reference,
        depths: SceneDepths | None,
        focal_px: float,
    ) -> list[TakeMotion]:
        """Correct every take's positions by what parallax tells; drop a ground truth whose light has drifted."""
        if depths is None:
            return list(motions)
        parts = max((self.workers or 1) // max(len(motions), 1), 1)
        futures = [
            [
                self.pool.submit(
                    sample_shift, reference.motion, motion, part,
                    depths=depths, focal_px=focal_px,
                )
                for part in _parts(shift_matches(reference.motion, motion), parts)
            ]
            for motion in motions
        ]  # fmt: skip
        found = [TakeShift.of([s for part in of_take for s in part.result()]) for of_take in futures]
        return [self._apply(m, s, reference) for m, s in zip(motions, found, strict=True)]

    def _apply(self, motion: TakeMotion, shift: TakeShift | None, reference: Reference) -> TakeMotion:
        if shift is None:
            return motion
        moved = measure_motion(
            motion.source,
            motion.tracks,
            reference.datum,
            kind=reference.tracks.kind,
            thresholds=self.options.thresholds,
            correction=shift.correction,
        )
        drifted = abs(shift.exposure_ratio - 1) > self.options.thresholds.closing_light
        if motion.source.round.role == "gt" and drifted:
            self.warnings.append(
                f"{motion.source.round.name}: light differs by {100 * (shift.exposure_ratio - 1):+.0f} % from the"
                " first ground truth; not used"
            )
            return moved.rejected("light_drift")
        return moved

    def _pairs(
        self,
        reference: Reference,
        motions: Sequence[TakeMotion],
        depths: SceneDepths | None,
        focal_px: float,
    ) -> list[PairRecord]:
        used = [m for m in motions if m.used]
        planner = PairPlanner(
            session=self.folder.path,
            truths=(reference.motion, *(m for m in used if m.source.round.role == "gt")),
            depths=depths,
            focal_px=focal_px,
            thresholds=self.options.thresholds,
            pairs_per_run=self.options.pairs_per_run,
        )
        return self._registered([planner.plan(m) for m in used if m.source.round.role != "gt"])

    def _registered(self, rounds: Sequence[PairJob]) -> list[PairRecord]:
        """Register the pairs of all rounds; take over what an interrupted run has finished."""
        keys = [round_key(whole, self.options) for whole in rounds]
        done = [finished_round(self.folder.path, key) for key in keys]
        left = [w if known is None else replace(w, runs=()) for w, known in zip(rounds, done, strict=True)]
        futures = [
            [self.pool.submit(run_pair_job, job) for job in jobs]
            for jobs in shared_out(left, workers=self.workers)
        ]
        share = 0.6 / max(sum(map(len, futures)), 1)
        records: list[PairRecord] = []
        for whole, key, known, running in zip(rounds, keys, done, futures, strict=True):
            new = known if known is not None else self._finish(whole, key, running, share)
            records.extend(new)
        return records

    def _finish(
        self, whole: PairJob, key: str, running: Sequence[Future[list[PairOutcome]]], share: float
    ) -> list[PairRecord]:
        outcomes: list[PairOutcome] = []
        for future in running:
            outcomes.extend(future.result())
            self.progress(share)
        records = judge_round(whole, outcomes)
        finish_round(self.folder.path, records, key)
        return records

    def _tied(self, motions: Sequence[TakeMotion]) -> dict[str, RoundMotion]:
        """Add what the flashes of the sync LED say of every take's clock."""
        takes = self.folder.valid_takes()
        flashes = [flashes_of(self.folder, takes[m.source.round.name]) for m in motions]
        futures = [
            self.pool.submit(tie_clocks, m.source, f, near_s=m.record.clock_offset_s) if f else None
            for m, f in zip(motions, flashes, strict=True)
        ]
        tied = {
            m.source.round.name: with_tie(m.record, future.result() if future else None)
            for m, future in zip(motions, futures, strict=True)
        }
        for name, motion in tied.items():
            if abs(beyond_s := disagreement_s(motion)) > _CLOCKS_DISAGREE_S:
                self.warnings.append(
                    f"{name}: the sync LED puts the camera's clock {1e3 * beyond_s:+.0f} ms beside what the motion"
                    " tells: telemetry came late, or the carriage was not where the rail said"
                )
        return tied

    def _alignment(
        self,
        reference: Reference,
        motions: Sequence[TakeMotion],
        depths: SceneDepths | None,
        focal_px: float,
        focal_source: str,
    ) -> AlignmentRecord:
        measured = self._tied([reference.motion, *motions])
        rounds = [
            measured.get(r.name) or self.rejected[r.name]
            for r in self.record.rounds
            if r.name in measured or r.name in self.rejected
        ]
        limit = depths.position_limit_mm(self.options.thresholds.parallax_px) if depths else None
        return AlignmentRecord(
            schema=1,
            session=self.record.session,
            versions=versions(),
            parameters=_parameters(self.options),
            focal_px=focal_px,
            focal_source=focal_source,
            calibration=None if self.calibration is None else self.calibration.hash,
            px_per_mm=reference.datum.px_per_mm if reference.datum.metric else None,
            tone_curve=reference.source.tone_name,
            disparity_px_per_mm=depths.range_px_per_mm if depths else None,
            position_limit_mm=limit if limit is not None and np.isfinite(limit) else None,
            rounds=tuple(rounds),
            warnings=tuple(self.warnings),
        )


def calibration_in_force(
    folder: SessionFolder, record: SessionRecord, warnings: list[str]
) -> StoredCalibration | None:
    """Load the calibration a session names; without it the session is aligned all the same, with a warning."""
    if record.calibration is None:
        return None
    data = folder.path.parent.parent
    try:
        return find_calibration(record.calibration, data=data, rig=record.rig)
    except (CalibrationNotFoundError, DamagedCalibrationError) as error:
        warnings.append(f"aligned without the calibration that the session names: {error.message}")
        return None


def _parts(matches: Sequence[Match], count: int) -> list[Sequence[Match]]:
    """Cut into parts of about one size, none of them empty."""
    ends = np.linspace(0, len(matches), count + 1).astype(int)
    return [matches[a:b] for a, b in pairwise(ends) if b > a]


def _focal(record: SessionRecord, source: TakeSource) -> tuple[float, str]:
    if source.lens is not None:
        return source.lens.focal_px, "calibration"
    if record.lens is not None:
        return record.lens.focal_mm / record.lens.sensor_width_mm * source.camera.width, "lens"
    return typical_focal_px(source.camera.width, source.camera.height), "assumed"


def _parameters(options: AlignmentOptions) -> dict[str, float | int | str | bool]:
    own: dict[str, float | int | str | bool] = options.model_dump(exclude={"thresholds"})
    return own | options.thresholds.model_dump()
