"""Measure aligned pairs against the simulator's truth: what an estimate missed and what a written pair is off by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.evidence import PairRecord
from catalog.records import degradation_key
from catalog.session_folder import SessionFolder, Take
from rig.sim.truth import displacement, read_truth

GRID = 9
"""Points per side of the grid that a pair's error is taken over."""


@dataclass(frozen=True)
class PairErrors:
    """Errors of one accepted pair: medians over a grid of points, px."""

    pair: str
    degradation_key: str
    delivered_px: float
    """Misalignment left in the written pixels."""
    estimate_px: float
    """Distance of the measured homography from the truth."""
    predicted_px: float | None
    """What the pair's own evidence predicts as its 95 % radius."""
    gap_error_mm: float
    """Position gap as measured less the true one between the middle rows."""
    camera_gap_error_mm: float | None
    """Distance of the optical centre from where parallax put it; None where it did not."""


def pair_errors(session: SessionFolder, data: Path) -> Iterator[PairErrors]:
    """Yield the errors of a session's accepted pairs."""
    takes = session.valid_takes()
    for pair in session.pairs():
        if pair.verdict == "accepted":
            yield _errors(pair, takes, data)


def _errors(pair: PairRecord, takes: dict[str, Take], data: Path) -> PairErrors:
    gt = _truth(takes[pair.gt.round], data)[pair.gt.frame_index]
    lq = _truth(takes[pair.lq.round], data)[pair.lq.frame_index]
    x, y, width, height = pair.lq_crop or (0, 0, 0, 0)
    in_pair = _grid(width, height)
    in_gt = _apply(np.array(pair.gt_from_pair), in_pair)
    true_lq = in_gt + displacement(gt, lq, in_gt)
    delivered = np.linalg.norm(true_lq - (in_pair + np.array([x, y])), axis=1)
    estimate = np.linalg.norm(true_lq - _apply(np.array(pair.homography), in_gt), axis=1)
    gap_mm = pair.camera_gap_mm
    return PairErrors(
        pair.pair,
        degradation_key(takes[pair.lq.round].round.degradations),
        float(np.median(delivered)),
        float(np.median(estimate)),
        pair.predicted_epe_px,
        float(pair.position_gap_mm - (lq.pose[0] - gt.pose[0])),
        None if gap_mm is None else float(np.linalg.norm(np.array(gap_mm) - (lq.pose - gt.pose)[:3])),
    )


def _truth(take: Take, data: Path) -> Any:
    movie = next(f for f in take.record().files if f.path.endswith((".mov", ".mp4")))
    return _truth_of(movie.sha256, data)


@cache
def _truth_of(sha256: str, data: Path) -> Any:
    return read_truth(data, sha256)


def _grid(width: int, height: int) -> NDArray[np.float64]:
    xs = np.linspace(0.05, 0.95, GRID) * (width - 1)
    ys = np.linspace(0.05, 0.95, GRID) * (height - 1)
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


def _apply(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    mapped = np.c_[points, np.ones(len(points))] @ homography.T
    return mapped[:, :2] / mapped[:, 2:]
