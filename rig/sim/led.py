"""The sync LED: a bright disc on an arm of the carriage, in a corner of the picture, lit by an output of the rail."""

from __future__ import annotations

import threading
from bisect import bisect_right
from functools import lru_cache

import numpy as np

from rig.sim.optics import Image32

PLACE = (0.94, 0.08)
"""Centre of the disc as shares of the picture's width and height; on the carriage, so that it stays there."""
_RADIUS_SHARE = 0.012
"""Of the width."""
_EDGE = 0.25
"""Soft rim of a disc that is near and out of focus, as a share of the radius."""
_LIGHT = (0.12, 0.85, 0.15)
"""Red, green and blue; it just does not clip at the metered exposure."""


class OutputLog:
    """When an output of the rail's controller was on. Thread-safe; one writer, times in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes_s: list[float] = []
        """Switched on, off, on … at these session times."""

    def note(self, t_s: float, *, on: bool) -> None:
        """Note what the output is from now on."""
        with self._lock:
            if on != bool(len(self._changes_s) % 2):
                self._changes_s.append(t_s)

    def share(self, begin_s: float, end_s: float) -> float:
        """Return for which share of an interval the output was on; what is noted last holds on."""
        if end_s <= begin_s:
            return 0.0
        return (self._lit_s(end_s) - self._lit_s(begin_s)) / (end_s - begin_s)

    def _lit_s(self, t_s: float) -> float:
        with self._lock:
            past = self._changes_s[: bisect_right(self._changes_s, t_s)]
        edges = [*past, t_s] if len(past) % 2 else past
        return sum(edges[1::2]) - sum(edges[::2])


def add_led(light: Image32, share: float) -> Image32:
    """Add the light of the LED to a picture.

    Args:
        light: Relative light, (H, W, 3); changed in place.
        share: For which share of the exposure it was lit.
    """
    if share > 0:
        height, width = light.shape[:2]
        light += _disc(height, width) * np.float32(share)
    return light


@lru_cache(maxsize=2)
def _disc(height: int, width: int) -> Image32:
    y, x = np.mgrid[:height, :width]
    radius_px = _RADIUS_SHARE * width
    away_px = np.hypot(x - PLACE[0] * width, y - PLACE[1] * height)
    cover = np.clip((radius_px - away_px) / (_EDGE * radius_px) + 0.5, 0, 1)
    return np.asarray(cover[..., None] * np.array(_LIGHT), np.float32)
