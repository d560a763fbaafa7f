"""Which frames a recording lost, from when its frames came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW = 25
"""Frames on either side of a gap that must agree on it: a late frame catches up within so many, a missing one never."""
_STRETCH = 8
"""Frames over which an interval is averaged: few enough that most stretches hold no gap."""
_SUSPICIOUS_INTERVALS = 1.4


@dataclass(frozen=True)
class FrameGap:
    """Frames that are missing."""

    after: int
    """Index of the last frame before the gap."""
    missing: int


def find_gaps(times_s: Sequence[float], *, rate_hz: float | None = None) -> list[FrameGap]:
    """Find missing frames in a series of frame times, exact (container) or late by a jitter (arrival at the host).

    A frame that arrives late is followed by others that come sooner; a frame that is missing shifts all later ones.
    So a long interval counts as a gap of ``n`` frames if the earliest of the frames after it, each relative to its
    number, lies ``n`` intervals behind the earliest before it.

    Args:
        times_s: When frame 0, 1, 2 … was exposed or arrived, s, ascending.
        rate_hz: Frames per second of the source; None estimates it from the times.

    Returns:
        The gaps in order.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if len(times) < 3:
        return []
    interval_s = 1 / rate_hz if rate_hz else float(np.median(_intervals_s(times)))
    late_s = times - interval_s * np.arange(len(times))
    gaps: list[FrameGap] = []
    for k in np.flatnonzero(np.diff(times) > _SUSPICIOUS_INTERVALS * interval_s) + 1:
        before_s = late_s[max(k - _WINDOW, 0) : k].min()
        behind_s = late_s[k : k + _WINDOW].min() - before_s
        missing = round(behind_s / interval_s)
        if missing > 0:
            gaps.append(FrameGap(int(k) - 1, missing))
            late_s[k:] -= missing * interval_s
    return gaps


def _intervals_s(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean interval of every stretch of frames."""
    length = min(_STRETCH, len(times) - 1)
    return (times[length:] - times[:-length]) / length
