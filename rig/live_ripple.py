"""How much the speed of the carriage varied over the uniform part of a take."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from alignment.velocity import Track

RIPPLE_WINDOW_S = 0.5
_LEAST_WINDOWS = 3


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
