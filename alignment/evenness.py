"""How evenly a carriage went through the uniform part of a take, told from noise and from turns of the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.velocity import CruisePositions, Track

Array = NDArray[np.float64]

TURN_REACH_MM = 16.0
"""Way over which the camera's turns hang together: bends of rails are some 60 mm long and longer."""
_KNOT_REACHES = 0.75
"""Knots of slow turns lie so many reaches apart: less than a thousandth of such a turn falls between them."""
_MOVING_NOISE = 2.0
"""By how much more the positions may scatter on the way than they do at rest and claim."""
_MAD_TO_SIGMA = 1.4826
_OUTLIER_SIGMAS = 5.0


@dataclass(frozen=True)
class Shaking:
    """What the carriage itself did beside moving uniformly."""

    sd_mm: float
    """Standard deviation of the positions, 0 where noise explains them."""
    autocorrelation: float
    """Lag one, of the same positions: high where the carriage sticks and slips."""


def shaking(
    track: Track, cruise: CruisePositions, course: Array, *, turn_mm: float, least_mm: float
) -> Shaking:
    """Measure by how much a carriage left its uniform motion.

    Bends of the rail turn the camera, and the picture moves as if the carriage had. Turns change slowly along the rail,
    alignment takes them out by parallax, and every take has them; stick-slip is over within millimetres.

    Args:
        track: Measured positions.
        cruise: Those in uniform motion.
        course: ``(N,)`` of all frames of the take: what positions should follow in a straight line, that is their times
            or the places where the carriage was sent.
        turn_mm: Standard deviation of what slow turns of the camera do to the positions.
        least_mm: Shaking that does not matter.
    """
    inside = np.isin(track.frame_index, cruise.frame_index)
    noise_mm = max(cruise.sigma_measurement_mm, float(np.median(track.sigma_mm)))
    sudden_mm = _without_turns(
        course[track.frame_index[inside]],
        track.position_mm[inside],
        turn_mm=turn_mm,
        sudden_mm=max(noise_mm, least_mm),
    )
    by_noise = (_MOVING_NOISE * noise_mm) ** 2
    return Shaking(float(np.sqrt(max(_spread(sudden_mm) ** 2 - by_noise, 0.0))), _lag_one(sudden_mm))


def _without_turns(course: Array, position_mm: Array, *, turn_mm: float, sudden_mm: float) -> Array:
    """Take off the uniform motion and the most likely turns of the camera: what is left is noise and the carriage.

    References:
        Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 8.3.1 (subset of regressors).
    """
    line = np.column_stack([np.ones_like(course), course - course.mean()])
    line /= np.maximum(np.linalg.norm(line, axis=0), 1e-12)
    even_mm = line @ (line.T @ position_mm)
    shapes = np.hstack([line, turn_mm * _slow_shapes(even_mm)])
    penalty = np.full(shapes.shape[1], sudden_mm**2)
    penalty[:2] = 0.0  # any place and any speed will do
    off_mm = position_mm - even_mm
    found = np.linalg.solve(shapes.T @ shapes + np.diag(penalty), shapes.T @ off_mm)
    return np.asarray(off_mm - shapes @ found, np.float64)


def _slow_shapes(place_mm: Array) -> Array:
    """``(N, K)`` whose random sums, with variance 1 each, are functions that hang together over `TURN_REACH_MM`."""
    low, high = float(place_mm.min()), float(place_mm.max())
    count = int(np.ceil((high - low) / (_KNOT_REACHES * TURN_REACH_MM))) + 3
    knots = np.linspace(low - TURN_REACH_MM, high + TURN_REACH_MM, count)
    root = np.linalg.cholesky(_hang_together(knots, knots) + 1e-9 * np.eye(count))
    return np.asarray(np.linalg.solve(root, _hang_together(knots, place_mm)).T, np.float64)


def _hang_together(first_mm: Array, second_mm: Array) -> Array:
    return np.asarray(np.exp(-(((first_mm[:, None] - second_mm) / TURN_REACH_MM) ** 2) / 2), np.float64)


def _spread(values: Array) -> float:
    """Standard deviation without outliers."""
    usual = _MAD_TO_SIGMA * float(np.median(np.abs(values)))
    kept = values[np.abs(values) <= _OUTLIER_SIGMAS * usual]
    return float(np.sqrt(np.mean(kept**2))) if len(kept) else 0.0


def _lag_one(values: Array) -> float:
    power = float(np.sum(values**2))
    return float(np.sum(values[1:] * values[:-1]) / power) if power > 0 else 0.0
