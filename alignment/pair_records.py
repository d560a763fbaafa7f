"""The record of every pair of a round, accepted or not, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.gates import RoundNorms, judge_pair
from alignment.pair_job import NOT_WRITTEN, PairJob, PairOutcome, target_records
from alignment.takes import TakeSource
from catalog.evidence import PairFrame, PairRecord


def judge_round(job: PairJob, outcomes: Sequence[PairOutcome]) -> list[PairRecord]:
    """Hold the pairs of a round against the gates and against each other."""
    norms = RoundNorms.of([o.measured for o in outcomes])
    return [_pair_record(job, outcome, norms) for outcome in outcomes]


def _pair_record(job: PairJob, outcome: PairOutcome, norms: RoundNorms) -> PairRecord:
    gates, reasons = judge_pair(
        outcome.measured, thresholds=job.thresholds, norms=norms, low_light=job.lq_source.low_light
    )
    match, name = outcome.task.match, outcome.task.name
    written = NOT_WRITTEN if reasons else outcome.hashes
    return PairRecord(
        pair=name,
        gt=_pair_frame(job.gt_sources[match.gt.source], match.gt.index, match.gt.position_mm),
        lq=_pair_frame(job.lq_source, match.lq.index, match.lq.position_mm),
        verdict="rejected" if reasons else "accepted",
        reasons=reasons,
        homography=outcome.homography,
        lq_crop=outcome.lq_crop,
        gt_from_pair=outcome.gt_from_pair,
        gt_warped=outcome.gt_warped,
        residual_px=outcome.residual_px,
        predicted_epe_px=outcome.predicted_epe_px,
        bound_px=outcome.bound_px,
        position_gap_mm=match.gap_mm,
        camera_gap_mm=outcome.camera_gap_mm,
        camera_gap_sigma_mm=outcome.camera_gap_sigma_mm,
        blur=outcome.blur,
        gates=gates,
        evidence=job.lq_evidence,
        targets=target_records(outcome),
        mask=f"pairs/mask/{name}.png" if written.mask else None,
        mu=outcome.mu if not reasons else None,
        sigma=outcome.sigma if not reasons else None,
        sha256=written,
    )


def _pair_frame(source: TakeSource, index: int, position_mm: float) -> PairFrame:
    return PairFrame(
        round=source.round.name,
        take=source.take,
        frame_index=index,
        time_s=round(float(source.time_s[index]), 6),
        position_mm=position_mm,
    )
