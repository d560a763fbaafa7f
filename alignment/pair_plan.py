"""Which frames of a degraded round to register with which of the ground truth, and what is told beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path

import numpy as np

from alignment.camera_motion import gap_over_rows_mm
from alignment.gates import GateThresholds, PairMeasurements
from alignment.matching import Match, match_frames
from alignment.motion import TakeMotion
from alignment.pair_job import PairJob, PairTask
from alignment.scene_depths import SceneDepths
from alignment.takes import Array

_PICTURE_TRACK_SIGMA_PX = 0.4
"""How far the picture's middle may move other than the whole picture does: it follows one of its depths."""
_UNKNOWN_SPREAD = 1.0
"""Parallax over the scene, px per mm of position, where depths could not be measured: one board px."""


@dataclass(frozen=True, eq=False)
class PairPlanner:
    """What the pairs of all degraded rounds of a session have in common."""

    session: Path
    truths: Sequence[TakeMotion]
    """The ground-truth takes, the reference first."""
    depths: SceneDepths | None
    """None where they could not be measured."""
    focal_px: float
    thresholds: GateThresholds
    pairs_per_run: int
    """Matches that are registered one after the other."""

    def plan(self, motion: TakeMotion) -> PairJob:
        """Match the frames of a degraded take and cut the matches into runs."""
        offered = [f for i, t in enumerate(self.truths) for f in (*t.cruise_frames(i), *t.other_frames(i))]
        matches = match_frames(
            motion.cruise_frames(0),
            offered,
            limit_mm=self.thresholds.parallax_px / max(self._spread_px_per_mm, 1e-9),
            spread_px_per_mm=self._spread_px_per_mm,
        )
        tasks = [self._task(match, motion) for match in matches]
        size = self.pairs_per_run
        return PairJob(
            session=self.session,
            gt_sources=tuple(t.source for t in self.truths),
            lq_source=motion.source,
            lq_evidence=motion.record.evidence,
            runs=tuple(tuple(tasks[i : i + size]) for i in range(0, len(tasks), size)),
            focal_px=self.focal_px,
            depths=self.depths,
            thresholds=self.thresholds,
        )

    @property
    def _spread_px_per_mm(self) -> float:
        return _UNKNOWN_SPREAD if self.depths is None else self.depths.spread_px_per_mm

    def _task(self, match: Match, degraded: TakeMotion) -> PairTask:
        truth, lq = self.truths[match.gt.source], degraded.source
        readout_gap_mm = degraded.way_while_read_mm(match.lq.index) - truth.way_while_read_mm(match.gt.index)
        shear_px = readout_gap_mm * self._shear_px_per_mm(lq.camera.height)
        before = PairMeasurements(
            uniform=match.gt.uniform and match.lq.uniform,
            marker_share=degraded.marker_share(match.lq.index),
            parallax_px=gap_over_rows_mm(match.reach_mm, readout_gap_mm) * self._spread_px_per_mm,
            kinematics_sigma_px=0.0 if "markers" in degraded.record.evidence else _PICTURE_TRACK_SIGMA_PX,
        )
        return PairTask(
            name=f"{lq.round.number:02d}-{lq.round.name[:40]}.t{lq.take}-{match.lq.index:06d}",
            match=match,
            gt_anchors=tuple(truth.anchors_at(match.gt.index)),
            lq_anchors=tuple(degraded.anchors_at(match.lq.index)),
            target_sigma_px=tuple(
                map(hypot, truth.sigmas_at(match.gt.index), degraded.sigmas_at(match.lq.index))
            ),
            before=before,
            readout_gap_mm=readout_gap_mm,
            shear_px=(float(shear_px[0]), float(shear_px[1])),
        )

    def _shear_px_per_mm(self, height: int) -> Array:
        """Shear of the picture from its first row to its last per mm of way between them, ``(2,)``."""
        depths = self.depths
        return np.zeros(2) if depths is None else depths.shear_px_per_mm(height) * depths.direction
