"""Wall and CPU time of what a block does, added up over any number of blocks."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

import numpy as np


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@dataclass
class Stopwatch:
    """Runs while its block does."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic(), cpu_s()
        return self

    def __exit__(self, *_error: object) -> None:
        self.wall_s += time.monotonic() - self._began[0]
        self.cpu_s += cpu_s() - self._began[1]

    def as_json(self) -> dict[str, float]:
        """Return both times, rounded."""
        return {"wall_s": round(self.wall_s, 4), "cpu_s": round(self.cpu_s, 4)}


def press_summary(delays_ms: Sequence[float], *, presses: int, lost: int) -> dict[str, float]:
    """Return how long key presses took to the wire, ms, and how many never came there."""
    p95_ms, p99_ms = np.percentile(delays_ms, (95, 99))
    return {
        "presses": presses,
        "lost": lost,
        "median_ms": round(median(delays_ms), 3),
        "p95_ms": round(float(p95_ms), 3),
        "p99_ms": round(float(p99_ms), 3),
        "max_ms": round(max(delays_ms), 3),
    }


def timed(action: Callable[[], Any], *, runs: int = 5) -> dict[str, float]:
    """Return the least and the median wall and CPU time of some runs, after one that is not counted."""
    action()
    clocks = []
    for _ in range(runs):
        with Stopwatch() as clock:
            action()
        clocks.append(clock)
    wall, cpu = [c.wall_s for c in clocks], [c.cpu_s for c in clocks]
    return {
        "wall_s": round(median(wall), 5),
        "wall_s_min": round(min(wall), 5),
        "cpu_s": round(median(cpu), 5),
        "cpu_s_min": round(min(cpu), 5),
    }
