"""Which ground-truth frame belongs to which degraded frame: the one from the same place on the rail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNWARPED_PX = 0.05
"""Up to this distance from a whole-pixel shift a ground truth needs no warp."""
_SMALL_PARALLAX_PX = 0.1
"""A frame further away is taken only to save a warp, and only if its parallax stays below this."""


@dataclass(frozen=True)
class PlacedFrame:
    """A frame and where it was taken."""

    source: int
    """Number of the take among those that offer ground truth; 0 for degraded frames."""
    index: int
    position_mm: float
    sigma_mm: float
    uniform: bool
    """Exposed in uniform motion."""
    anchor_px: tuple[float, float] | None = None
    """Mean place of the targets in the picture; None where none was seen."""


@dataclass(frozen=True)
class Match:
    """A degraded frame and the ground truth proposed for it."""

    lq: PlacedFrame
    gt: PlacedFrame
    gap_mm: float
    """Position of the degraded frame less that of the ground truth."""
    sigma_mm: float
    """Standard deviation of the gap."""

    @property
    def reach_mm(self) -> float:
        """What the gap may be: its size and two standard deviations."""
        return abs(self.gap_mm) + 2 * self.sigma_mm


def match_frames(
    lq: Iterable[PlacedFrame],
    gt: Iterable[PlacedFrame],
    *,
    limit_mm: float,
    spread_px_per_mm: float,
) -> list[Match]:
    """Pair every degraded frame with the nearest ground truth; no ground truth serves twice.

    The closest pairs are made first. Where a slightly farther frame would spare the ground truth a warp at the
    price of hardly any parallax, it is preferred. Frames left over keep their nearest neighbour as a proposal
    that the position gate will refuse.

    Args:
        lq: Degraded frames of one take.
        gt: Frames of all takes that offer ground truth.
        limit_mm: Largest reach of a match under the parallax limit.
        spread_px_per_mm: Parallax between near and far per mm of gap.

    Returns:
        One match per degraded frame, in their order.
    """
    offered = sorted(gt, key=lambda f: (f.position_mm, f.source, f.index))
    wanted = list(lq)
    if not offered:
        return []
    positions = np.array([f.position_mm for f in offered])
    choices = [
        _Choice(i, j, *_rank(frame, offered[j], limit_mm, spread_px_per_mm))
        for i, frame in enumerate(wanted)
        for j in _near(positions, frame.position_mm, limit_mm)
    ]
    chosen = _assign(choices)
    return [
        _match(frame, offered[chosen.get(i, _nearest(positions, frame.position_mm))])
        for i, frame in enumerate(wanted)
    ]


@dataclass(frozen=True, order=True)
class _Choice:
    lq: int
    gt: int
    group: int
    """0: within the limit and no warp needed; 1: within the limit; 2: beyond it."""
    gap_mm: float


def _assign(choices: Sequence[_Choice]) -> dict[int, int]:
    chosen: dict[int, int] = {}
    used: set[int] = set()
    for choice in sorted(choices, key=lambda c: (c.group, c.gap_mm, c.lq, c.gt)):
        if choice.group < 2 and choice.lq not in chosen and choice.gt not in used:
            chosen[choice.lq] = choice.gt
            used.add(choice.gt)
    return chosen


def _rank(lq: PlacedFrame, gt: PlacedFrame, limit_mm: float, spread: float) -> tuple[int, float]:
    match = _match(lq, gt)
    gap = abs(match.gap_mm)
    if match.reach_mm > limit_mm or not gt.uniform:
        return 2, gap
    spared = gap * spread <= _SMALL_PARALLAX_PX and _fraction_px(lq, gt) <= UNWARPED_PX
    return (0 if spared else 1), gap


def _fraction_px(lq: PlacedFrame, gt: PlacedFrame) -> float:
    """Distance of the expected shift from whole pixels."""
    if lq.anchor_px is None or gt.anchor_px is None:
        return np.inf
    shift = np.subtract(lq.anchor_px, gt.anchor_px)
    return float(np.abs(shift - np.rint(shift)).max())


def _near(positions: Array, position_mm: float, limit_mm: float) -> range:
    first = int(np.searchsorted(positions, position_mm - limit_mm))
    last = int(np.searchsorted(positions, position_mm + limit_mm, side="right"))
    return range(first, last)


def _nearest(positions: Array, position_mm: float) -> int:
    return int(np.argmin(np.abs(positions - position_mm)))


def _match(lq: PlacedFrame, gt: PlacedFrame) -> Match:
    sigma = float(np.hypot(lq.sigma_mm, gt.sigma_mm))
    return Match(lq, gt, gap_mm=lq.position_mm - gt.position_mm, sigma_mm=sigma)
