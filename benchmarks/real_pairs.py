"""Real pairs, as published: do our residuals agree with what other estimators say where those agree?

    python -P -m benchmarks.real_pairs [--shared DIR] [--output FILE]

For every pair of the shared test data the displacement is measured by `alignment.measure`, OpenCV's ECC (homography,
and translation), SIFT with MAGSAC, and phase correlation. Judged is the median displacement over the picture, the one
quantity that all of them measure; how far whole fields lie from ours stands beside it. Two questions are answered:
where ECC (homography), SIFT and phase correlation all agree within 0.1 px, and where at least two of them do.

An arbiter that has no vote stands beside them: plain cross-correlation in windows of 256 px, of which the median
counts. It fits no model, so neither a brightness that changes over the picture nor a thing that moved pulls it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import grid_points, map_points
from alignment.decode import read_still
from alignment.evidence_files import versions
from alignment.misalignment import measure

Array = NDArray[np.float64]
Plane = NDArray[np.float32]

AGREE_PX = 0.1
"""Rivals agree, and we agree with them, within this."""
VOTERS = ("ecc_homography", "sift_magsac", "phase_correlation")
"""One of each kind: two kinds of ECC are no two opinions."""
GRID = 12
_WINDOW_PX, _BACKGROUND_PX = 256, 12.0
_LIKE = 0.5
"""Least correlation of two windows that are compared."""
_LEAST_WINDOWS = 5
_ECC = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-6)


def pairs(data: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name every published pair of one view: name, ground truth, degraded side."""
    for gt in sorted((data / "pairs" / "foundir").glob("*_GT.png")):
        yield f"foundir/{gt.stem[:-3]}", gt, gt.with_name(gt.name.replace("_GT", "_LQ"))
    for noisy in sorted((data / "pairs" / "polyu_noisy").glob("*_noisy.jpg")):
        scene = noisy.stem.removesuffix("_noisy")
        yield f"polyu/{scene}", data / "photos" / "polyu_mean" / f"{scene}_mean.jpg", noisy
    for sequence in ("bikes", "leuven"):
        folder = data / "pairs" / f"oxford_{sequence}"
        for number in range(2, 7):
            yield f"oxford_{sequence}/1-{number}", folder / "img1.png", folder / f"img{number}.png"


def grey(picture: NDArray[np.uint8]) -> Plane:
    """Grey in the full range, stretched: ECC and SIFT see little in a dark picture."""
    plane = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low, high = np.percentile(plane, (0.5, 99.5))
    return np.asarray(np.clip((plane - low) * (255 / max(high - low, 1)), 0, 255), np.float32)


def ours(gt: NDArray[np.uint8], lq: NDArray[np.uint8]) -> tuple[Array, dict[str, Any]]:
    """Measure with the product; the field's homography and what it says of itself."""
    found = measure(gt, lq)
    said = {
        "predicted_error_px": round(found.predicted_error_px, 4),
        "trustworthy": found.trustworthy,
        "local_p90_px": None if found.local_p90_px is None else round(found.local_p90_px, 4),
        "blur": found.blur.model_dump(),
        "model": found.registration.model,
    }
    return found.registration.homography, said


def ecc(motion: int) -> Callable[[Plane, Plane], Array]:
    """Make an estimator by OpenCV's ECC, as in the design's table: Gaussian of 5 px, a hundred iterations."""
    rows = 3 if motion == cv2.MOTION_HOMOGRAPHY else 2

    def estimate(gt: Plane, lq: Plane) -> Array:
        start, everywhere = np.eye(rows, 3, dtype=np.float32), np.full(gt.shape, 255, np.uint8)
        _, warp = cv2.findTransformECC(gt, lq, start, motion, _ECC, everywhere, 5)
        return np.vstack([warp, [0, 0, 1]])[:3].astype(np.float64)

    return estimate


def sift(gt: Plane, lq: Plane) -> Array:
    """SIFT, ratio test 0.75, homography by MAGSAC."""
    detector = cv2.SIFT_create(6000)
    (points, clean), (others, worse) = (detector.detectAndCompute(p.astype(np.uint8), None) for p in (gt, lq))
    matches = [m for m, n in cv2.BFMatcher().knnMatch(clean, worse, k=2) if m.distance < 0.75 * n.distance]
    source = np.float32([points[m.queryIdx].pt for m in matches])
    target = np.float32([others[m.trainIdx].pt for m in matches])
    found, _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 1.0, maxIters=20_000, confidence=0.9999)
    return np.asarray(found, np.float64)


def phase(gt: Plane, lq: Plane) -> Array:
    """OpenCV's phase correlation under a Hanning window: one shift for the whole picture."""
    window = cv2.createHanningWindow(gt.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(gt, lq, window)
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def windowed_correlation(gt: Plane, lq: Plane) -> Array:
    """Median shift of windows by cross-correlation of their detail, upsampled a hundred times."""
    from skimage.registration import phase_cross_correlation

    planes = [
        p - cv2.GaussianBlur(p, (0, 0), _BACKGROUND_PX)
        for p in (cv2.GaussianBlur(q, (0, 0), 1.5) for q in (gt, lq))
    ]
    window = cv2.createHanningWindow((_WINDOW_PX, _WINDOW_PX), cv2.CV_32F)
    shifts = []
    for y in range(0, gt.shape[0] - _WINDOW_PX + 1, _WINDOW_PX):
        for x in range(0, gt.shape[1] - _WINDOW_PX + 1, _WINDOW_PX):
            a, b = (p[y : y + _WINDOW_PX, x : x + _WINDOW_PX] for p in planes)
            if np.corrcoef(a.ravel(), b.ravel())[0, 1] > _LIKE:
                back, _, _ = phase_cross_correlation(
                    a * window, b * window, normalization=None, upsample_factor=100
                )
                shifts.append(-back[::-1])
    if len(shifts) < _LEAST_WINDOWS:
        raise ValueError(f"{len(shifts)} windows look alike")
    dx, dy = np.median(shifts, axis=0)
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


RIVALS: dict[str, Callable[[Plane, Plane], Array]] = {
    "ecc_homography": ecc(cv2.MOTION_HOMOGRAPHY),
    "ecc_translation": ecc(cv2.MOTION_TRANSLATION),
    "sift_magsac": sift,
    "phase_correlation": phase,
    "windowed_correlation": windowed_correlation,
}


def field(homography: Array, size: tuple[int, int]) -> Array:
    """Displacement on a grid over the picture, ``(GRID², 2)``."""
    points = grid_points(0, 0, *size, columns=GRID, rows=GRID)
    return np.asarray(map_points(homography, points) - points, np.float64)


def distance_px(one: Array, other: Array) -> float:
    """Median distance of two fields."""
    return round(float(np.median(np.hypot(*(one - other).T))), 4)


def compare(gt_file: Path, lq_file: Path) -> dict[str, Any]:
    """Measure one pair by everything and say who agrees with whom."""
    gt, lq = read_still(gt_file), read_still(lq_file)
    size = gt.shape[1], gt.shape[0]
    started = time.process_time()
    homography, said = ours(gt, lq)
    said["cpu_s"] = round(time.process_time() - started, 2)
    fields, failed = {}, {}
    planes = grey(gt), grey(lq)
    for name, estimate in RIVALS.items():
        try:
            fields[name] = field(estimate(*planes), size)
        except (cv2.error, ValueError, TypeError) as error:
            failed[name] = str(error).strip().splitlines()[-1][:120]
    mine = field(homography, size)
    rivals = {
        name: {"shift_px": _middle(f), "from_ours_px": distance_px(f, mine)} for name, f in fields.items()
    }
    found = {"size": size, "ours": {"shift_px": _middle(mine), **said}, "rivals": rivals, "failed": failed}
    return found | agreement({name: rival["shift_px"] for name, rival in rivals.items()}, _middle(mine))


def agreement(shifts_px: Mapping[str, Sequence[float]], mine_px: Sequence[float]) -> dict[str, Any]:
    """Find the largest set of voters that agree pairwise, the closest of equal size, and ours from their mean."""
    voters = {name: np.array(shifts_px[name]) for name in VOTERS if name in shifts_px}
    for count in range(len(voters), 1, -1):
        sets = [(_apart(voters, names), names) for names in combinations(voters, count)]
        apart, names = min(sets)
        if apart <= AGREE_PX:
            mean = np.mean([voters[name] for name in names], axis=0)
            off = round(float(np.hypot(*(np.array(mine_px) - mean))), 4)
            return {"agreeing": names, "ours_from_their_mean_px": off, "within": off <= AGREE_PX}
    return {"agreeing": (), "ours_from_their_mean_px": None, "within": None}


def _apart(shifts_px: Mapping[str, Array], names: Sequence[str]) -> float:
    return max(float(np.hypot(*(shifts_px[a] - shifts_px[b]))) for a, b in combinations(names, 2))


def summary(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Count where all voters agree, and where two do."""
    return {
        "schema": 1,
        "goal": "ours within 0.1 px of the mean of ECC, SIFT and phase correlation where all three agree so closely",
        "pairs": len(found),
        "all_three_agree": _count([f for f in found.values() if len(f["agreeing"]) == len(VOTERS)]),
        "at_least_two_agree": _count([f for f in found.values() if f["agreeing"]]),
        "arbiter_px": {
            name: _from_arbiter(f) for name, f in found.items() if "windowed_correlation" in f["rivals"]
        },
        "versions": versions(),
        "machine": platform.machine(),
        "results": found,
    }


def _count(counted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": len(counted),
        "ours_within": sum(f["within"] for f in counted),
        "largest_px": max((f["ours_from_their_mean_px"] for f in counted), default=None),
    }


def _from_arbiter(found: Mapping[str, Any]) -> dict[str, float]:
    """Distance of every median shift from the arbiter's, px."""
    shifts = {"ours": found["ours"], **found["rivals"]}
    arbiter = np.array(shifts.pop("windowed_correlation")["shift_px"])
    return {n: round(float(np.hypot(*(np.array(s["shift_px"]) - arbiter))), 4) for n, s in shifts.items()}


def _middle(displacement: Array) -> tuple[float, float]:
    dx, dy = np.median(displacement, axis=0)
    return round(float(dx), 4), round(float(dy), 4)


def main() -> None:
    """Measure all pairs and write the document: results/real_pairs.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("CLEANPLATE_SHARED", Path(__file__).parents[2] / "shared"))
    parser.add_argument(
        "--shared", type=Path, default=default, help="folder that holds data/pairs and data/photos"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "real_pairs.json")
    given = parser.parse_args()
    data = given.shared / "data"
    found = {}
    for name, gt, lq in pairs(data):
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = compare(gt, lq)
    document = summary(found)
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({key: document[key] for key in ("all_three_agree", "at_least_two_agree")}, indent=1))


if __name__ == "__main__":
    main()
