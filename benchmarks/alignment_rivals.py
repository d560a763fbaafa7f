"""What others would use to align two frames: OpenCV's estimators at their documented settings.

Every rival takes the two grey frames and returns the homography from ground truth to degraded frame, the identity
being the first guess of those that need one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import inverted, normalised

Grey = NDArray[np.float32]
Array = NDArray[np.float64]
Rival = Callable[[Grey, Grey], Array]

_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-6)
_GAUSS_PX = 5
_STRETCH_PERCENT = (0.5, 99.5)
_SIFT_FEATURES = 8000
_LOWE_RATIO = 0.8
_MAGSAC_PX = 1.0
_FLOW_STEP_PX = 16


class RivalFailedError(RuntimeError):
    """A rival found no homography."""


def ecc(gt: Grey, lq: Grey) -> Array:
    """Enhanced correlation coefficient, homography, full size."""
    _, found = cv2.findTransformECC(
        gt, lq, np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, _CRITERIA, None, _GAUSS_PX
    )
    return np.asarray(found, np.float64)


def ecc_half(gt: Grey, lq: Grey) -> Array:
    """The same on frames of half the size."""
    halves = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in (gt, lq)]
    up = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1.0]])
    return normalised(up @ ecc(halves[0], halves[1]) @ inverted(up))


def ecc_multiscale(gt: Grey, lq: Grey) -> Array:
    """The same through a pyramid, OpenCV 5's own."""
    parameters = cv2.ECCParameters()
    parameters.motionType = cv2.MOTION_HOMOGRAPHY
    _, found = cv2.findTransformECCMultiScale(gt, lq, np.eye(3, dtype=np.float32), parameters)
    return np.asarray(found, np.float64)


def sift_magsac(gt: Grey, lq: Grey) -> Array:
    """SIFT, Lowe's ratio test, homography by MAGSAC++; frames stretched to the full range."""
    sift = cv2.SIFT_create(nfeatures=_SIFT_FEATURES)
    (gt_points, gt_words), (lq_points, lq_words) = (
        sift.detectAndCompute(_stretched(f), None) for f in (gt, lq)
    )
    if gt_words is None or lq_words is None or len(lq_words) < 2:
        raise RivalFailedError("no features")
    matches = cv2.BFMatcher().knnMatch(gt_words, lq_words, k=2)
    kept = [a for a, b in matches if a.distance < _LOWE_RATIO * b.distance]
    return _magsac(
        np.array([gt_points[m.queryIdx].pt for m in kept]), np.array([lq_points[m.trainIdx].pt for m in kept])
    )


def phase_correlation(gt: Grey, lq: Grey) -> Array:
    """Shift by the whitened cross power spectrum under a Hann window."""
    window = cv2.createHanningWindow(gt.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(gt, lq, window)
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def dis_magsac(gt: Grey, lq: Grey) -> Array:
    """Dense inverse search flow on a grid of points, homography by MAGSAC++; frames stretched to the full range."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(
        _stretched(gt), _stretched(lq), None
    )
    y, x = np.mgrid[8 : gt.shape[0] : _FLOW_STEP_PX, 8 : gt.shape[1] : _FLOW_STEP_PX]
    points = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    return _magsac(points, points + flow[y.ravel(), x.ravel()])


def position_match(gt: Grey, lq: Grey) -> Array:
    """Nothing at all: what matching the positions leaves."""
    del gt, lq
    return np.eye(3)


RIVALS: Mapping[str, Rival] = {
    "position_match": position_match,
    "ecc": ecc,
    "ecc_half": ecc_half,
    "ecc_multiscale": ecc_multiscale,
    "sift_magsac": sift_magsac,
    "phase_correlation": phase_correlation,
    "dis_magsac": dis_magsac,
}


def _stretched(frame: Grey) -> NDArray[np.uint8]:
    low, high = np.percentile(frame[::4, ::4], _STRETCH_PERCENT)
    return np.clip((frame - low) * (255 / max(high - low, 1e-3)), 0, 255).astype(np.uint8)


def _magsac(gt: Array, lq: Array) -> Array:
    if len(gt) < 8:
        raise RivalFailedError(f"{len(gt)} matches")
    found, _ = cv2.findHomography(gt, lq, cv2.USAC_MAGSAC, _MAGSAC_PX, maxIters=10000, confidence=0.999)
    if found is None:
        raise RivalFailedError("no homography")
    return np.asarray(found, np.float64)
