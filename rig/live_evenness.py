"""How evenly the carriage went through the uniform part of a take, told from noise and from turns of the camera."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignment.gates import GateThresholds
from alignment.lost_way import TURN_REACH_MM
from alignment.motion import TakeMotion, turn_sigma_px
from alignment.velocity import Track

Array = NDArray[np.float64]

RIPPLE_WINDOW_S = 0.5
_LEAST_WINDOWS = 3
_MOVING_NOISE = 2.0
"""By how much more the positions may scatter on the way than they do at rest and claim."""
_LINE_SIGMA = 1e3
"""Standard deviation of place and speed, in mm and mm per unit of time: that is, nothing is known."""
_MAD_TO_SIGMA = 1.4826
_OUTLIER_SIGMAS = 5.0


def shaken_px(motion: TakeMotion, *, px_per_mm: float, gates: GateThresholds) -> float:
    """Measure by how much the carriage itself left uniform motion, standard deviation in px; 0 where noise explains it.

    Args:
        motion: A take that moved.
        px_per_mm: Scale of its positions.
        gates: Gates of alignment: what turns a camera may make, what shaking does not matter.
    """
    track, cruise = motion.track, motion.cruise
    inside = np.isin(track.frame_index, cruise.frame_index)
    noise_mm = max(cruise.sigma_measurement_mm, float(np.median(track.sigma_mm)))
    sudden_mm = _without_turns(
        track.time_s[inside],
        track.position_mm[inside],
        turn_mm=turn_sigma_px(motion.source.camera.width, gates) / px_per_mm,
        sudden_mm=max(noise_mm, gates.stick_slip_floor_px / px_per_mm),
    )
    return px_per_mm * float(np.sqrt(max(_spread(sudden_mm) ** 2 - (_MOVING_NOISE * noise_mm) ** 2, 0.0)))


def _without_turns(time_s: Array, position_mm: Array, *, turn_mm: float, sudden_mm: float) -> Array:
    """Take off the uniform motion and the most likely turns of the camera: what is left is noise and the carriage.

    Turns come with bends of the rail. They change slowly along it, alignment takes them out by parallax, and the next
    take would have them again; stick-slip is over within millimetres.
    """
    line = np.column_stack([np.ones_like(time_s), time_s - time_s.mean()])
    even_mm = line @ np.linalg.lstsq(line, position_mm, rcond=None)[0]
    apart = (even_mm[:, None] - even_mm[None, :]) / TURN_REACH_MM
    slow = turn_mm**2 * np.exp(-(apart**2) / 2) + _LINE_SIGMA**2 * line @ line.T
    covariance = slow + sudden_mm**2 * np.eye(len(time_s))
    return np.asarray(sudden_mm**2 * np.linalg.solve(covariance, position_mm - even_mm), np.float64)


def _spread(values: Array) -> float:
    """Standard deviation without outliers."""
    usual = _MAD_TO_SIGMA * float(np.median(np.abs(values)))
    kept = values[np.abs(values) <= _OUTLIER_SIGMAS * usual]
    return float(np.sqrt(np.mean(kept**2))) if len(kept) else 0.0


def ripple_percent(track: Track, *, begin_s: float, end_s: float, noise_mm: float) -> float | None:
    """Return the standard deviation of the speed over the uniform part, percent; None where it is too short.

    The speed is that over half a second. What the noise of the positions can add is taken off: its variance and
    three standard deviations of how far a variance of so few speeds strays (√(2/(n-1)) of itself).
    """
    count = int((end_s - begin_s) / RIPPLE_WINDOW_S)
    if count < _LEAST_WINDOWS:
        return None
    edges = np.linspace(begin_s, end_s, count + 1)
    slopes, noise = [], []
    for low, high in pairwise(edges):
        inside = (track.time_s >= low) & (track.time_s < high)
        if inside.sum() < 3:
            continue
        time = track.time_s[inside] - track.time_s[inside].mean()
        moment = float(np.sum(time**2))
        slopes.append(float(np.sum(time * track.position_mm[inside])) / moment)
        noise.append(noise_mm**2 / moment)
    if len(slopes) < _LEAST_WINDOWS:
        return None
    by_noise = float(np.mean(noise)) * (1 + 3 * np.sqrt(2 / (len(slopes) - 1)))
    variance = max(float(np.var(slopes, ddof=1)) - by_noise, 0.0)
    return 100 * float(np.sqrt(variance)) / max(abs(float(np.mean(slopes))), 1e-9)
