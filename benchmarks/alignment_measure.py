"""Measure one rendered pair: every estimator on the same two frames, against the same truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import map_points
from alignment.errors import AlignmentError
from alignment.gates import GateThresholds, PairMeasurements, RoundNorms, judge_pair
from alignment.pair_job import measurements
from alignment.photometry import grey_codes, standard_tone_curve
from alignment.picture import NO_BLUR, Picture
from alignment.registration import Pinhole, Registration, register
from alignment.resampling import Cut, delivered_radius_px, plan_cut
from alignment.scene_depths import DisparityMap
from benchmarks.alignment_pairs import CLASSES, LENS, TONE_NAME, BenchPair, PairPlace, Studio
from benchmarks.alignment_rivals import RIVALS, Rival, RivalFailedError
from rig.sim.optics import nominal_focal_px

Array = NDArray[np.float64]
Row = dict[str, Any]
Result = TypeVar("Result")
GRID = (25, 15)
"""Columns and rows of the points that a pair's error is taken over."""
FAILED_PX = 1.0
"""A pair has failed where its median error is over this, or where the estimator gave up."""
SCREENING: dict[str, Any] = {"finest_scale": 2, "models": ("scale",), "blur": NO_BLUR}
"""The pass that only asks whether a pair is worth more: half size, one model, no search for blur."""
NO_DEPTHS = "cleanplate_no_depths"
"""The whole of it without the depths that a ground-truth round tells, as `alignment measure` works."""
OURS = {"cleanplate": 1, "cleanplate_half": 2, NO_DEPTHS: 1}
"""Finest scale by method: all of it, the screening pass at half size, and all of it without depths."""


@dataclass(frozen=True)
class Errors:
    """Of one pair and method, px."""

    estimate: Array
    """Distance of the homography from the truth at every point."""
    delivered: Array
    """Misalignment left in the pixels that would be written."""


def pair_errors(pair: BenchPair, homography: Array, cut: Cut) -> Errors:
    """Hold a homography and the cut that follows from it against the truth; things that moved are left out."""
    x, y, width, height = cut.lq_crop
    in_pair = _grid(width, height)
    in_gt = map_points(cut.gt_from_pair, in_pair)
    true_lq = pair.true_lq(in_gt)
    delivered = np.hypot(*(true_lq - in_pair - [x, y]).T)
    estimate = np.hypot(*(true_lq - map_points(homography, in_gt)).T)
    seen = np.isfinite(delivered)
    return Errors(estimate[seen], delivered[seen])


def _grid(width: int, height: int) -> Array:
    xs = np.linspace(0.05, 0.95, GRID[0]) * (width - 1)
    ys = np.linspace(0.05, 0.95, GRID[1]) * (height - 1)
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Task:
    """One class of pairs in one scene."""

    kind: str
    places: tuple[PairPlace, ...]
    methods: tuple[str, ...]
    size: tuple[int, int]
    photos: Path
    work: Path


def run_task(task: Task) -> list[Row]:
    """Render a task's pairs and measure them by every method, on one thread."""
    cv2.setNumThreads(1)
    studio = _studio(task.places[0].scene, task.photos, task.work, task.size)
    rows = []
    for place in task.places:
        pair = studio.pair(CLASSES[task.kind], place)
        disparities = studio.depths(CLASSES[task.kind]).seen_from(float(pair.gt_truth.pose[0]))
        for method in task.methods:
            known = {"class": task.kind, "scene": place.scene, "pair": place.index, "method": method}
            rows.append(
                {**known, **measure(pair, method, disparities, low_light=CLASSES[task.kind].low_light)}
            )
    return rows


@lru_cache(maxsize=1)
def _studio(scene: str, photos: Path, work: Path, size: tuple[int, int]) -> Studio:
    """Keep the last scene: building one costs as much as ten pictures of it."""
    return Studio(scene, photos=photos, work=work, size=size)


def measure(pair: BenchPair, method: str, disparities: DisparityMap | None, *, low_light: bool) -> Row:
    """Run one method on one pair.

    Args:
        pair: The pair.
        method: One of `OURS` or of the rivals.
        disparities: What the ground-truth round tells of depths; the rivals have no use for it.
        low_light: The pair's class is dark.
    """
    if method in OURS:
        known = None if method == NO_DEPTHS else disparities
        return _ours(pair, known, finest_scale=OURS[method], low_light=low_light)  # type: ignore[arg-type]
    return _rival(pair, RIVALS[method])


def _rival(pair: BenchPair, rival: Rival) -> Row:
    def run() -> Array | None:
        try:
            return rival(grey_codes(pair.gt), grey_codes(pair.lq))
        except (cv2.error, RivalFailedError):
            return None

    found, cpu_ms = _timed(run)
    return {**numbers(pair, found), "cpu_ms": cpu_ms}


def _ours(
    pair: BenchPair, disparities: DisparityMap | None, *, finest_scale: Literal[1, 2], low_light: bool
) -> Row:
    def run() -> Registration | None:
        tone = standard_tone_curve(TONE_NAME)
        height, width = pair.gt.shape[:2]
        try:
            return register(
                Picture(pair.gt, tone=tone),
                Picture(pair.lq, tone=tone),
                camera=Pinhole(nominal_focal_px(LENS, width), width, height),
                initial=np.eye(3),
                disparities=disparities,
                **SCREENING if finest_scale == 2 else {},
            )
        except AlignmentError:
            return None

    found, cpu_ms = _timed(run)
    if found is None:
        return {**numbers(pair, None), "cpu_ms": cpu_ms, "reasons": ["no_structure"]}
    radius_px = _delivered_radius_px(found)
    return {
        **numbers(pair, found.homography, radius_px=radius_px),
        "cpu_ms": cpu_ms,
        "predicted_px": radius_px,
        "bound_px": found.bound_px,
        "model": found.model,
        "gap_error_mm": _gap_error_mm(pair, found),
        "blur": [found.blur.kind, round(found.blur.size_px, 3)],
        "iterations": found.iterations,
        "masked_share": found.masked_share,
        "reasons": _reasons(found, low_light=low_light),
    }


def _gap_error_mm(pair: BenchPair, found: Registration) -> float | None:
    """Distance of the optical centre from where parallax puts it; None where depths were not told."""
    if found.gap_mm is None:
        return None
    true_mm = pair.lq_truth.pose[:3] - pair.gt_truth.pose[:3]
    return float(np.linalg.norm(np.array(found.gap_mm) - true_mm))


def _delivered_radius_px(found: Registration) -> float:
    """Radius that is predicted for the written pair, as `alignment run` notes it."""
    try:
        cut = plan_cut(found.homography, found.size)
    except AlignmentError:
        return found.predicted_epe_px
    return delivered_radius_px(found, cut)


def _timed(run: Callable[[], Result]) -> tuple[Result, float]:
    start = time.process_time()
    result = run()
    return result, 1000 * (time.process_time() - start)


def numbers(pair: BenchPair, homography: Array | None, *, radius_px: float = 0.0) -> Row:
    """Medians and 95th percentiles over the picture; a method that gave up leaves the frames where they were.

    Args:
        pair: The pair.
        homography: What the method found; None where it gave up.
        radius_px: Inside which points are counted.
    """
    size = (pair.gt.shape[1], pair.gt.shape[0])
    used = np.eye(3) if homography is None else homography
    try:
        cut = plan_cut(used, size)
    except AlignmentError:
        homography, used, cut = None, np.eye(3), plan_cut(np.eye(3), size)
    errors = pair_errors(pair, used, cut)
    return {
        "estimate_px": float(np.median(errors.estimate)),
        "estimate_rms_px": float(np.sqrt(np.mean(errors.estimate**2))),
        "delivered_px": float(np.median(errors.delivered)),
        "local_p95_px": float(np.percentile(errors.delivered, 95)),
        "inside_share": float(np.mean(errors.delivered <= radius_px)),
        "gave_up": homography is None,
        "failed": homography is None or bool(np.median(errors.estimate) > FAILED_PX),
        "gt_warped": cut.gt_warped,
    }


def _reasons(found: Registration, *, low_light: bool) -> list[str]:
    """What the gates would reject it for; what is usual in a round is not known of single pairs."""
    _, reasons = judge_pair(
        measurements(found, like=PairMeasurements(uniform=True, marker_share=None, parallax_px=0.0)),
        thresholds=GateThresholds(),
        norms=RoundNorms(gradient_ncc=None, gain=None),
        low_light=low_light,
    )
    return list(reasons)
