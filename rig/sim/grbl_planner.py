"""GRBL's look-ahead planner and the motion it produces, in closed form.

The firmware executes in segments of 10 ms, of which it keeps six ready; steps within a segment are spread
evenly, which departs from the exact trapezoid by a·dt²/8, that is 2.5 µm at 200 mm/s². The trapezoid itself is
used here, and the segments show only where a host can see them: in the reported speed and in the delay of a hold.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rig.sim.grbl_mechanics import Leg

SEGMENT_S = 0.010
HOLD_DELAY_SEGMENTS = 4
PLANNER_BLOCKS = 15
SLOWEST_MM_S = 1 / 60
"""The firmware plans nothing slower than 1 mm/min, whatever a line or ``$110`` says."""
Axes = tuple[float, float, float]
Steps = tuple[int, int, int]


@dataclass
class Block:
    """One straight move in the planner's queue."""

    target_steps: Steps
    direction: Axes
    """Unit vector."""
    length_mm: float
    rate_mm_s: float
    """Programmed speed, before overrides."""
    rate_limit_mm_s: float
    """What the axes allow in this direction."""
    acceleration_mm_s2: float
    rapid: bool = False
    overridable: bool = True
    """False for homing, jogging and probing: overrides of the feed do not apply."""
    entry_limit_mm_s: float = 0.0
    """Speed the corner before it allows."""
    entry_mm_s: float = field(default=0.0, init=False)


@dataclass(frozen=True)
class Overrides:
    """Speed overrides in percent."""

    feed: int = 100
    rapid: int = 100
    spindle: int = 100


class MotionEngine:
    """Queue of blocks and the one being executed.

    Args:
        on_motion: Told the time, the new legs and the x component of the direction, whenever motion changes.
    """

    def __init__(self, on_motion: Callable[[float, Sequence[Leg], float], None]) -> None:
        self.blocks: deque[Block] = deque()
        self.steps: Steps = (0, 0, 0)
        """Where the block in execution began."""
        self.running = False
        self.holding = False
        self.overrides = Overrides()
        self._on_motion = on_motion
        self._legs: list[Leg] = []
        self._planned_s = 0.0
        self._begun_mm = 0.0
        self._end_s = math.inf
        self._hold_s = math.inf

    @property
    def next_event_s(self) -> float:
        """When something changes by itself: a block or a hold ends, a hold begins."""
        return min(self._end_s, self._hold_s) if self.running else math.inf

    @property
    def decelerating(self) -> bool:
        """Whether a hold was asked for and the carriage has not stopped yet."""
        return self.running and (self.holding or self._hold_s < math.inf)

    def append(self, block: Block, *, junction_deviation_mm: float, t_s: float) -> None:
        """Queue a block and plan the corner before it."""
        if self.blocks:
            block.entry_limit_mm_s = _corner_mm_s(self.blocks[-1], block, junction_deviation_mm)
        self.blocks.append(block)
        if self.running and not self.holding:
            self._replan(t_s)

    def start(self, t_s: float) -> None:
        """Begin or resume; does nothing without blocks."""
        if self.running or not self.blocks:
            return
        self.running, self.holding = True, False
        self._legs, self._planned_s = [], t_s
        self._replan(t_s)

    def hold(self, t_s: float) -> None:
        """Decelerate as soon as the segments that are ready have been executed."""
        if self.running and not self.decelerating:
            ready = math.ceil((t_s - self._planned_s) / SEGMENT_S) + HOLD_DELAY_SEGMENTS
            self._hold_s = self._planned_s + ready * SEGMENT_S

    def set_overrides(self, overrides: Overrides, t_s: float) -> None:
        """Change the speed of what runs and of what is queued."""
        self.overrides = overrides
        if self.running and not self.holding:
            self._replan(t_s)

    def halt(self, steps: Steps) -> None:
        """Stop dead and forget the queue; ``steps`` is where the counters stand."""
        self.blocks.clear()
        self.steps = steps
        self.running = self.holding = False
        self._legs, self._begun_mm = [], 0.0
        self._end_s = self._hold_s = math.inf

    def advance(self, t_s: float) -> None:
        """Execute what lies before ``t_s``."""
        while self.next_event_s <= t_s:
            if self._hold_s <= self._end_s:
                self.holding, begin_s = True, self._hold_s
                self._hold_s = math.inf
                self._replan(begin_s)
            else:
                self._finish_legs()

    def path_mm(self, t_s: float) -> tuple[float, float]:
        """Return way along the block in execution and speed."""
        way_mm, begin_s = self._begun_mm, self._planned_s
        for leg in self._legs:
            elapsed = min(max(t_s - begin_s, 0.0), leg.duration_s)
            way_mm += leg.distance_mm(elapsed)
            if t_s < begin_s + leg.duration_s:
                return way_mm, leg.speed_mm_s + leg.acceleration_mm_s2 * elapsed
            begin_s += leg.duration_s
        return way_mm, self._end_mm_s() if self.running else 0.0

    def position_steps(self, t_s: float, steps_per_mm: Axes) -> Steps:
        """Return the step counters."""
        if not self.blocks:
            return self.steps
        way_mm, _ = self.path_mm(t_s)
        x, y, z = (
            s + round(d * way_mm * k)
            for s, d, k in zip(self.steps, self.blocks[0].direction, steps_per_mm, strict=True)
        )
        return x, y, z

    def reported_speed_mm_s(self, t_s: float) -> float:
        """Return the speed at the end of the segment in execution, as the firmware reports it."""
        if not self.running:
            return 0.0
        segments = math.floor((t_s - self._planned_s) / SEGMENT_S) + 1
        return self.path_mm(min(self._planned_s + segments * SEGMENT_S, self._end_s))[1]

    def _end_mm_s(self) -> float:
        if not self._legs:
            return 0.0
        last = self._legs[-1]
        return max(last.speed_mm_s + last.acceleration_mm_s2 * last.duration_s, 0.0)

    def _finish_legs(self) -> None:
        end_s, speed_mm_s = self._end_s, self._end_mm_s()
        stopped_mm = self.path_mm(end_s)[0]
        block = self.blocks[0]
        if self.holding and stopped_mm < block.length_mm - 1e-9:
            self._rest(stopped_mm)
            return
        self.blocks.popleft()
        self.steps = block.target_steps
        if not self.blocks:
            self._rest(0.0)
            return
        self.blocks[0].entry_mm_s = speed_mm_s
        self._legs, self._begun_mm, self._planned_s = [], 0.0, end_s
        self._replan(end_s, speed_mm_s=speed_mm_s)

    def _rest(self, way_mm: float) -> None:
        self.running = False
        self._legs, self._begun_mm = [], way_mm
        self._end_s = self._hold_s = math.inf

    def _replan(self, t_s: float, *, speed_mm_s: float | None = None) -> None:
        """Plan the block in execution anew from its state at ``t_s``, with the queue behind it."""
        way_mm, now_mm_s = self.path_mm(t_s)
        speed_mm_s = now_mm_s if speed_mm_s is None else speed_mm_s
        block = self.blocks[0]
        remaining_mm = max(block.length_mm - way_mm, 0.0)
        if self.holding:
            self._legs = brake_legs(remaining_mm, speed_mm_s, block.acceleration_mm_s2)
        else:
            exit_mm_s = self._plan_entries(remaining_mm, speed_mm_s)
            self._legs = trapezoid_legs(
                remaining_mm,
                entry_mm_s=speed_mm_s,
                exit_mm_s=exit_mm_s,
                nominal_mm_s=self._nominal_mm_s(block),
                acceleration_mm_s2=block.acceleration_mm_s2,
            )
        self._begun_mm, self._planned_s = way_mm, t_s
        self._end_s = t_s + sum(leg.duration_s for leg in self._legs)
        self._on_motion(t_s, self._legs, block.direction[0])

    def _plan_entries(self, remaining_mm: float, speed_mm_s: float) -> float:
        """Give every queued block its entry speed; returns the exit speed of the one in execution."""
        queue = list(self.blocks)
        entry_mm_s = 0.0
        for previous, block in zip(queue[-2::-1], queue[:0:-1], strict=True):
            reachable_mm_s = math.sqrt(entry_mm_s**2 + 2 * block.acceleration_mm_s2 * block.length_mm)
            corner_mm_s = min(block.entry_limit_mm_s, self._nominal_mm_s(previous), self._nominal_mm_s(block))
            entry_mm_s = block.entry_mm_s = min(corner_mm_s, reachable_mm_s)
        length_mm = remaining_mm
        for previous, block in itertools.pairwise(queue):
            reachable_mm_s = math.sqrt(speed_mm_s**2 + 2 * previous.acceleration_mm_s2 * length_mm)
            speed_mm_s = block.entry_mm_s = min(block.entry_mm_s, reachable_mm_s)
            length_mm = block.length_mm
        return queue[1].entry_mm_s if len(queue) > 1 else 0.0

    def _nominal_mm_s(self, block: Block) -> float:
        if not block.overridable:
            return max(min(block.rate_mm_s, block.rate_limit_mm_s), SLOWEST_MM_S)
        percent = self.overrides.rapid if block.rapid else self.overrides.feed
        return max(min(block.rate_mm_s * percent / 100, block.rate_limit_mm_s), SLOWEST_MM_S)


def trapezoid_legs(
    length_mm: float, *, entry_mm_s: float, exit_mm_s: float, nominal_mm_s: float, acceleration_mm_s2: float
) -> list[Leg]:
    """Plan a block: from its entry speed to the nominal one and down to its exit speed, as far as its length allows."""
    if entry_mm_s > nominal_mm_s:
        braking_mm = (entry_mm_s**2 - nominal_mm_s**2) / (2 * acceleration_mm_s2)
        if braking_mm >= length_mm:
            return brake_legs(length_mm, entry_mm_s, acceleration_mm_s2)
        first = Leg((entry_mm_s - nominal_mm_s) / acceleration_mm_s2, entry_mm_s, -acceleration_mm_s2)
        rest = trapezoid_legs(
            length_mm - braking_mm,
            entry_mm_s=nominal_mm_s,
            exit_mm_s=exit_mm_s,
            nominal_mm_s=nominal_mm_s,
            acceleration_mm_s2=acceleration_mm_s2,
        )
        return [first, *rest]
    peak_mm_s = min(
        nominal_mm_s, math.sqrt(acceleration_mm_s2 * length_mm + (entry_mm_s**2 + exit_mm_s**2) / 2)
    )
    if peak_mm_s < entry_mm_s:
        return brake_legs(length_mm, entry_mm_s, acceleration_mm_s2)
    exit_mm_s = min(exit_mm_s, peak_mm_s)
    ramps_mm = (2 * peak_mm_s**2 - entry_mm_s**2 - exit_mm_s**2) / (2 * acceleration_mm_s2)
    legs = [
        Leg((peak_mm_s - entry_mm_s) / acceleration_mm_s2, entry_mm_s, acceleration_mm_s2),
        Leg(max(length_mm - ramps_mm, 0.0) / peak_mm_s if peak_mm_s else 0.0, peak_mm_s, 0.0),
        Leg((peak_mm_s - exit_mm_s) / acceleration_mm_s2, peak_mm_s, -acceleration_mm_s2),
    ]
    return [leg for leg in legs if leg.duration_s > 0]


def brake_legs(length_mm: float, speed_mm_s: float, acceleration_mm_s2: float) -> list[Leg]:
    """Brake to standstill, or until ``length_mm`` is used up."""
    left = math.sqrt(max(speed_mm_s**2 - 2 * acceleration_mm_s2 * length_mm, 0.0))
    return [Leg((speed_mm_s - left) / acceleration_mm_s2, speed_mm_s, -acceleration_mm_s2)]


def _corner_mm_s(before: Block, after: Block, deviation_mm: float) -> float:
    """Return the speed a corner allows: unlimited straight on, zero for a reversal (GRBL's junction deviation)."""
    cosine = -sum(a * b for a, b in zip(before.direction, after.direction, strict=True))
    if cosine > 0.999999:
        return 0.0
    if cosine < -0.999999:
        return math.inf
    sine_half = math.sqrt((1 - cosine) / 2)
    acceleration_mm_s2 = min(before.acceleration_mm_s2, after.acceleration_mm_s2)
    return math.sqrt(acceleration_mm_s2 * deviation_mm * sine_half / (1 - sine_half))
