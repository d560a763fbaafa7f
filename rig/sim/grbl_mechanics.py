"""The simulated carriage: where the rail truly is, analytically, at any past moment.

The controller commands; belt, end stops and faults decide what becomes of it. Every piece of motion with
constant acceleration is one row of a log, so that a camera simulation may ask afterwards, from its own thread,
for the position at any instant without sampling error.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.yaml_document import Document

_BEGINNING_S = -1e9
_SWITCH_TOLERANCE_MM = 1e-6
_ROUNDING_S = 1e-9
_MOST_ROWS = 100_000
_FORGOTTEN_ROWS = 10_000
_LEAST_SPEED_LEFT = 0.2


class RailMechanics(Document):
    """A rail as it is built: positions count from where the home switch acts."""

    start_mm: float = 10.0
    """Where the carriage stands when the simulation begins."""
    travel_mm: float = Field(default=400.0, gt=0)
    """Nominal travel."""
    lower_mm: float = 0.0
    """Rail coordinate of the home switch, the lower end of the profile's travel."""
    steps_per_mm: float = Field(default=50.0, gt=0)
    """Motor steps per mm of belt; a controller set to another ``$100`` moves by the ratio too far or too little."""
    below_mm: float = Field(default=1.0, gt=0)
    """Room behind the home switch, up to the lower end stop."""
    above_mm: float = Field(default=5.0, gt=0)
    """Room beyond the nominal travel, up to the upper end stop."""
    upper_switch_mm: float | None = Field(default=None, gt=0)
    """Where a second switch on the same input acts, from the home switch; None for none."""


@dataclass(frozen=True)
class Leg:
    """A stretch of constant acceleration along the commanded direction."""

    duration_s: float
    speed_mm_s: float
    """Speed at its beginning."""
    acceleration_mm_s2: float

    def distance_mm(self, elapsed_s: float) -> float:
        """Return the way made ``elapsed_s`` after its beginning."""
        return elapsed_s * (self.speed_mm_s + self.acceleration_mm_s2 * elapsed_s / 2)


@dataclass(frozen=True)
class MotionRow:
    """From ``t_s`` until the next row: x = x0 + v·dt + a·dt²/2."""

    t_s: float
    x_mm: float
    v_mm_s: float
    a_mm_s2: float

    def at(self, t_s: float) -> tuple[float, float]:
        """Return position and velocity."""
        dt = t_s - self.t_s
        return self.x_mm + dt * (self.v_mm_s + self.a_mm_s2 * dt / 2), self.v_mm_s + self.a_mm_s2 * dt


class MotionLog:
    """The true trajectory, past and planned. One thread writes, any thread reads the past."""

    def __init__(self, x_mm: float) -> None:
        self._rows = [MotionRow(_BEGINNING_S, x_mm, 0.0, 0.0)]
        self._times = [_BEGINNING_S]
        self._lock = threading.Lock()
        self._table: NDArray[np.float64] | None = None
        self.version = 0
        """Grows with every change of what is planned."""

    def rewrite(self, t_s: float, rows: Iterable[MotionRow]) -> None:
        """Replace everything from ``t_s`` on."""
        with self._lock:
            keep = max(1, bisect.bisect_left(self._times, t_s))
            self._rows[keep:] = rows
            self._times[keep:] = [row.t_s for row in self._rows[keep:]]
            self._table = None
            self.version += 1
            if len(self._rows) > _MOST_ROWS:
                self._forget(_FORGOTTEN_ROWS)

    def _forget(self, count: int) -> None:
        """Drop the oldest rows: a controller that runs for days must not fill the memory."""
        x_mm = self._rows[count].x_mm
        self._rows[:count] = [MotionRow(_BEGINNING_S, x_mm, 0.0, 0.0)]
        self._times[:count] = [_BEGINNING_S]

    def at(self, t_s: float) -> tuple[float, float]:
        """Return position and velocity at one time."""
        return self._rows[bisect.bisect_right(self._times, t_s) - 1].at(t_s)

    def from_time(self, t_s: float) -> Sequence[MotionRow]:
        """Return the row in force at ``t_s`` and all later ones."""
        return self._rows[bisect.bisect_right(self._times, t_s) - 1 :]

    def evaluate(self, t_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return positions and velocities, each of the shape of ``t_s``."""
        with self._lock:
            if self._table is None:
                self._table = np.array([(r.t_s, r.x_mm, r.v_mm_s, r.a_mm_s2) for r in self._rows])
            table = self._table
        row = table[np.searchsorted(table[:, 0], t_s, side="right") - 1]
        dt = t_s - row[..., 0]
        return row[..., 1] + dt * (row[..., 2] + row[..., 3] * dt / 2), row[..., 2] + row[..., 3] * dt


class Carriage:
    """Mass, belt and end stops: turns commanded legs into true motion.

    Args:
        mechanics: How the rail is built.
    """

    def __init__(self, mechanics: RailMechanics) -> None:
        self.mechanics = mechanics
        self.log = MotionLog(mechanics.start_mm)
        self.slip_fraction = 0.0
        self.speed_drift_per_s = 0.0
        """Share of the commanded speed lost per second since `drifts_since_s`."""
        self.drifts_since_s = 0.0
        self.powered = True
        self._blocked_direction = 0.0

    @property
    def lower_stop_mm(self) -> float:
        """Where the lower end stop holds the carriage."""
        return -self.mechanics.below_mm

    @property
    def upper_stop_mm(self) -> float:
        """Where the upper end stop holds the carriage."""
        return self.mechanics.travel_mm + self.mechanics.above_mm

    def follow(self, t_s: float, legs: Sequence[Leg], *, gain: float) -> None:
        """Take over new commanded motion from ``t_s`` on; ``gain`` is true mm per commanded mm, signed."""
        direction = math.copysign(1.0, gain) if gain else 0.0
        if direction and direction != self._blocked_direction:
            self._blocked_direction = 0.0
        x_mm, _ = self.log.at(t_s)
        held = not self.powered or self._blocked_direction != 0.0
        self.log.rewrite(t_s, self._rows(t_s, x_mm, legs, 0.0 if held else gain * (1 - self.slip_fraction)))

    def _rows(self, t_s: float, x_mm: float, legs: Sequence[Leg], gain: float) -> list[MotionRow]:
        """Turn legs into rows; a drift bends what was meant to be uniform."""
        rows = []
        for leg in legs:
            left, then = self._speed_left(t_s), self._speed_left(t_s + leg.duration_s)
            bend = (left - then) / leg.duration_s if not leg.acceleration_mm_s2 and leg.duration_s else 0.0
            a_mm_s2 = gain * (left * leg.acceleration_mm_s2 - bend * leg.speed_mm_s)
            row = MotionRow(t_s, x_mm, gain * left * leg.speed_mm_s, a_mm_s2)
            t_s += leg.duration_s
            x_mm = row.at(t_s)[0]
            rows.append(row)
        return [*rows, MotionRow(t_s, x_mm, 0.0, 0.0)]

    def _speed_left(self, t_s: float) -> float:
        return max(1 - self.speed_drift_per_s * (t_s - self.drifts_since_s), _LEAST_SPEED_LEFT)

    def halt(self, t_s: float) -> None:
        """Stop dead."""
        x_mm, _ = self.log.at(t_s)
        self.log.rewrite(t_s, [MotionRow(t_s, x_mm, 0.0, 0.0)])

    def block(self, t_s: float) -> None:
        """Run against something: no further motion in this direction until it goes the other way."""
        _, v_mm_s = self.log.at(t_s)
        self._blocked_direction = math.copysign(1.0, v_mm_s)
        self.halt(t_s)

    def shift(self, t_s: float, distance_mm: float) -> None:
        """Lose steps: displace the rest of the trajectory at once."""
        x_mm, v_mm_s = self.log.at(t_s)
        later = self.log.from_time(t_s)
        rows = [MotionRow(t_s, x_mm + distance_mm, v_mm_s, later[0].a_mm_s2)]
        rows += [MotionRow(r.t_s, r.x_mm + distance_mm, r.v_mm_s, r.a_mm_s2) for r in later[1:]]
        self.log.rewrite(t_s, rows)

    def presses_switch(self, t_s: float) -> bool:
        """Tell whether the carriage stands on a switch."""
        place_mm, upper_mm = self.place_mm(t_s), self.mechanics.upper_switch_mm
        above = upper_mm is not None and place_mm >= upper_mm - _SWITCH_TOLERANCE_MM
        return above or place_mm <= _SWITCH_TOLERANCE_MM

    def next_closing_s(self, t_s: float) -> float:
        """Return when a switch closes next under the planned trajectory."""
        upper_mm = self.mechanics.upper_switch_mm
        lower_s = self.next_crossing_s(0.0, t_s, direction=-1)
        return lower_s if upper_mm is None else min(lower_s, self.next_crossing_s(upper_mm, t_s, direction=1))

    def next_opening_s(self, t_s: float, beyond_mm: float) -> float:
        """Return when the carriage is next so far off a switch, on its way off it."""
        upper_mm = self.mechanics.upper_switch_mm
        lower_s = self.next_crossing_s(beyond_mm, t_s, direction=1)
        if upper_mm is None:
            return lower_s
        return min(lower_s, self.next_crossing_s(upper_mm - beyond_mm, t_s, direction=-1))

    def place_mm(self, t_s: float) -> float:
        """Return where the carriage truly is, from the home switch."""
        return self.log.at(t_s)[0]

    def next_crossing_s(self, level_mm: float, t_s: float, *, direction: int = 0) -> float:
        """Return when the planned trajectory next passes ``level_mm`` after ``t_s``; infinity for never.

        Args:
            level_mm: The place.
            t_s: Only later crossings count.
            direction: +1 or -1 for crossings that way only, 0 for both.
        """
        rows = self.log.from_time(t_s)
        ends = [row.t_s for row in rows[1:]] + [math.inf]
        for row, end_s in zip(rows, ends, strict=True):
            for crossing_s in _roots(row, level_mm):
                v_mm_s = row.at(crossing_s)[1]
                passes = v_mm_s * direction > 0 if direction else v_mm_s != 0
                within = row.t_s - _ROUNDING_S <= crossing_s <= end_s
                if passes and within and crossing_s > t_s:
                    return crossing_s
        return math.inf


def _roots(row: MotionRow, level_mm: float) -> list[float]:
    """Return the times at which one row passes a level, ascending."""
    a, b, c = row.a_mm_s2 / 2, row.v_mm_s, row.x_mm - level_mm
    if a == 0:
        return [row.t_s - c / b] if b else []
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return []
    root = math.sqrt(discriminant)
    return sorted(row.t_s + (-b + sign * root) / (2 * a) for sign in (-1, 1))
