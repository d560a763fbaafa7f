"""The promised numbers of registration, each beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

Row = dict[str, Any]
Document = dict[str, Any]
OURS, SCREENING, FULL_RIVAL = "cleanplate", "cleanplate_half", "ecc_multiscale"

EPE_GOALS_PX: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("clean", "iso", "motion8", "rain", "haze"), (0.03, 0.06)),
    **dict.fromkeys(("dark8", "dark64"), (0.04, 0.08)),
    **dict.fromkeys(("defocus2", "defocus4", "disc4"), (0.03, 0.06)),
    "dark64_defocus4": (0.05, 0.10),
    "mover": (0.03, 0.06),
    **dict.fromkeys(
        ("raindrop", "jpeg", "h264", "rolling_shutter", "half_speed", "s_curve", "distortion", "breathing"),
        (0.05, 0.10),
    ),
}
"""Median and 95th percentile of the pairs' delivered errors."""
WORSE_PX = 0.005
FAR_BETTER = ("defocus2", "defocus4", "disc4", "dark64_defocus4", "haze", "mover")
FAR_BETTER_TIMES = 1.5
_DRAWS = 4000


@dataclass(frozen=True)
class Paired:
    """Ours less a rival's, pair by pair, 95 % bootstrap interval of the difference of the medians."""

    rival: str
    difference_px: float
    low_px: float
    high_px: float
    times: float
    """The rival's median over ours."""


def judge(rows: Sequence[Row], classes: Mapping[str, Mapping[str, Document]]) -> list[Document]:
    """Hold the results against every goal that they can tell something about."""
    goals = []
    for kind, methods in classes.items():
        if OURS in methods:
            goals += _of_class(kind, methods[OURS])
            goals += _against_rivals(kind, [r for r in rows if r["class"] == kind])
    return goals + _overall(rows, classes)


def _of_class(kind: str, ours: Document) -> list[Document]:
    middle, high = EPE_GOALS_PX[kind]
    return [
        _goal(f"{kind}: delivered error, median px", ours["delivered_epe_px_median"], most=middle),
        _goal(f"{kind}: delivered error, p95 px", ours["delivered_epe_px_p95"], most=high),
        _goal(f"{kind}: pairs inside their predicted radius", ours["coverage"], least=0.85),
        _goal(f"{kind}: good pairs rejected", ours["rejected_share"], most=0.05),
    ]


def _against_rivals(kind: str, rows: Sequence[Row]) -> list[Document]:
    found = best_rival(rows)
    if found is None:
        return []
    goals = [
        {**_goal(f"{kind}: ours less {found.rival}, px", found.high_px, most=WORSE_PX), "paired": vars(found)}
    ]
    if kind in FAR_BETTER:
        goals.append(_goal(f"{kind}: times better than {found.rival}", found.times, least=FAR_BETTER_TIMES))
    return goals


def best_rival(rows: Sequence[Row]) -> Paired | None:
    """Compare ours with the rival of the least median delivered error; None without ours or without rivals."""
    by_method: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["scene"], row["pair"]] = row["delivered_px"]
    ours = by_method.get(OURS)
    rivals = {m: e for m, e in by_method.items() if not m.startswith(OURS) and m != "position_match"}
    if not ours or not rivals:
        return None
    rival = min(rivals, key=lambda m: median(rivals[m].values()))
    common = [pair for pair in ours if pair in rivals[rival]]
    a, b = (np.array([errors[pair] for pair in common]) for errors in (ours, rivals[rival]))
    draws = np.random.default_rng(1).integers(0, len(a), (_DRAWS, len(a)))
    differences = np.median(a[draws], axis=1) - np.median(b[draws], axis=1)
    low, high = np.percentile(differences, [2.5, 97.5])
    times = float(np.median(b) / max(np.median(a), 1e-9))
    return Paired(rival, *(round(float(v), 4) for v in (np.median(a) - np.median(b), low, high, times)))


def _overall(rows: Sequence[Row], classes: Mapping[str, Mapping[str, Document]]) -> list[Document]:
    told = [r for r in rows if r["method"] == OURS and "predicted_px" in r]
    goals = []
    if told:
        inside = float(np.mean([r["delivered_px"] <= r["predicted_px"] for r in told]))
        goals.append(_goal("all pairs inside their predicted radius", inside, least=0.90, most=0.98))
    full, half, rival = (_cost(classes, m) for m in (OURS, SCREENING, FULL_RIVAL))
    if full and rival:
        goals.append(
            _goal("times faster than ECC multi-scale, blur search included", rival / full, least=1.5)
        )
        goals.append(_goal("registration, CPU ms", full, most=150))
    if half and rival:
        goals.append(_goal("screening: times faster than ECC multi-scale", rival / half, least=4.0))
        goals.append(_goal("screening, CPU ms", half, most=60))
    return goals


def _cost(classes: Mapping[str, Mapping[str, Document]], method: str) -> float | None:
    """Median over the classes of a method's cost, over the classes that have it."""
    costs = [kind[method]["cpu_ms_per_pair"] for kind in classes.values() if method in kind]
    return median(costs) if costs else None


def _goal(what: str, number: float, *, most: float | None = None, least: float | None = None) -> Document:
    checks: list[tuple[float | None, Callable[[float, float], bool], str]] = [
        (least, lambda a, b: a >= b, "at least"),
        (most, lambda a, b: a <= b, "at most"),
    ]
    limits = [
        (check(number, limit), f"{word} {limit:g}") for limit, check, word in checks if limit is not None
    ]
    return {
        "what": what,
        "number": round(number, 4),
        "limit": ", ".join(words for _, words in limits),
        "met": all(met for met, _ in limits),
    }
