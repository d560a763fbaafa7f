"""Way that the carriage lost during a take: steps and stalls, told from noise and from turns of the camera.

The rail counts steps and knows nothing of those that were not carried out. The boards do, but a position by the boards
wanders with every turn of the camera, by as much as a lost millimetre, and in noise one frame tells little. What sets a
lost step apart is that it is sudden. So the take is held against the motion that was commanded, with all that may be
wrong without anything being lost as a covariance (where and when it began, scale, speed, ramps, slow turns, noise), and
whitened; in what is left, a step or a stall at every moment is searched for with its matched filter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignment.evenness import TURN_REACH_MM
from alignment.takes import TakeSource
from alignment.velocity import Kinematics, Track

Array = NDArray[np.float64]

LEAST_LOST_MM = 0.5
"""Less is no loss that matters: pairs are matched by the boards, not by the rail."""
SURE_SIGMAS = 4.5
"""A loss must stand out by so much. Noise has the pick of a take's moments, some hundred independent ones: that is 7
false alarms in 10,000 good takes."""
_SCALE_SHARE = 0.01
_RAMP_SHARE = 0.2
"""Standard deviations of board against rail, and of a ramp against the commanded one."""
_OTHER_MOTION = 0.1
"""A fitted speed so far off, as a share, is not the commanded one with something lost, which makes some percent."""
_LEAST_PAIRS = 5
_LEAST_POINTS = 10
_LEAST_SIGMA_MM = 0.02
"""Carriages shake by so much."""
_STALL_TOLERANCE = 0.5
"""A stall leaves out all that was ahead, as a share of it; less is no stall."""
_PLACE_MM, _MOMENT_S = 10.0, 0.1
"""Standard deviation of where and when the motion began once it is laid on the track: that is, nothing is known."""
_MOST_POINTS = 250
_DOUBT_SIGMAS = 2.0
_MAD_TO_SIGMA = 1.4826
_STEP = 1e-4


@dataclass(frozen=True)
class LostWay:
    """The loss of way that explains a take best."""

    at_s: float
    """When, on the take's time line."""
    size_mm: float
    """How far the carriage is off afterwards, along its motion: negative where way is missing."""
    sigma_mm: float
    """Standard deviation of that size."""

    @property
    def is_sure(self) -> bool:
        """Whether it is there, and matters."""
        return abs(self.size_mm) > max(LEAST_LOST_MM, SURE_SIGMAS * self.sigma_mm)


@dataclass(frozen=True)
class Commanded:
    """The motion that the rail was told to make and believes it made."""

    way_mm: float
    """Between its rests, without sign."""
    velocity_mm_s: float
    acceleration_mm_s2: float

    speed_share: float = 5e-4
    """Standard deviation of that speed by the camera's clock, as a share."""

    @classmethod
    def of(cls, source: TakeSource) -> Commanded | None:
        """Take it from a take's sweep and its rail's telemetry; None without both, for stills and broken-off takes.

        The speed is that of the rail: drives that turn by whole rpm do not keep to the commanded one.
        """
        sweep, rail_mm = source.round.sweep, source.telemetry_mm
        if sweep is None or len(rail_mm) < 2 or source.stops_mm is not None:
            return None
        way_mm = abs(float(rail_mm[-1] - rail_mm[0]))
        if way_mm * sweep.acceleration_mm_s2 < sweep.velocity_mm_s**2:  # that is less than the ramps
            return None
        told, told_share = _rail_speed(source.telemetry_time_s, rail_mm)
        if abs(told / sweep.velocity_mm_s - 1) > 3 * max(told_share, cls.speed_share):
            return cls(way_mm, told, sweep.acceleration_mm_s2, max(told_share, cls.speed_share))
        return cls(way_mm, sweep.velocity_mm_s, sweep.acceleration_mm_s2)

    def kinematics(self, like: Kinematics, *, start_s: float, rest_mm: float) -> Kinematics:
        """Return it as a motion in the direction and of the shape of a fitted one."""
        ramp_s = self.velocity_mm_s / self.acceleration_mm_s2
        return replace(
            like,
            start_s=start_s,
            ramp_s=ramp_s,
            cruise_s=max(self.way_mm / self.velocity_mm_s - ramp_s, 0.0),
            velocity_mm_s=float(np.copysign(self.velocity_mm_s, like.velocity_mm_s)),
            rest_mm=rest_mm,
        )


def _rail_speed(time_s: Array, position_mm: Array) -> tuple[float, float]:
    """Measure the speed in the middle of the way, and how uncertain it is as a share; (nan, inf) by few readings.

    The median over pairs half the stretch apart: a reading that came late on a busy machine does not count.
    """
    share = np.abs(position_mm - position_mm[0]) / max(abs(float(position_mm[-1] - position_mm[0])), 1e-9)
    middle = (share > 0.2) & (share < 0.8)
    half = int(middle.sum()) // 2
    if half < _LEAST_PAIRS:
        return float("nan"), float("inf")
    at_s, at_mm = time_s[middle], position_mm[middle]
    speeds = np.abs((at_mm[half:] - at_mm[:-half]) / np.maximum(at_s[half:] - at_s[:-half], 1e-9))
    speed = float(np.median(speeds))
    spread = _MAD_TO_SIGMA * float(np.median(np.abs(speeds - speed)))
    return speed, 1.25 * spread / (max(speed, 1e-9) * float(np.sqrt(half)))


@dataclass(frozen=True, eq=False)
class _Points:
    """A take's frames, some of them taken together: ``n`` points."""

    time_s: Array
    way_mm: Array
    """Commanded, from the rest."""
    off_mm: Array
    """Measured minus commanded, along the motion."""
    sigma_mm: Array
    nuisances: Array
    """``(n, k)`` what each of the things that may be wrong does, at its standard deviation."""


def find_lost_way(
    track: Track, fitted: Kinematics, commanded: Commanded, *, turn_mm: float
) -> LostWay | None:
    """Search a take for the step or stall that explains it best.

    Args:
        track: Its measured positions.
        fitted: A motion fitted to them, to begin with.
        commanded: What the rail believes.
        turn_mm: Standard deviation of what slow turns of the camera do to the positions.

    Returns:
        The most likely loss, sure or not; None where the track is too short to tell, or shows another motion.

    References:
        Turin, An introduction to matched filters, 1960; Basseville and Nikiforov, Detection of Abrupt Changes, 1993.
    """
    if abs(abs(fitted.velocity_mm_s) / commanded.velocity_mm_s - 1) > _OTHER_MOTION:
        return None
    expected = _aligned(track, fitted, commanded)
    points = _points(track, expected, speed_share=commanded.speed_share)
    onsets_s = _onsets(points.time_s, expected)
    if len(points.time_s) < _LEAST_POINTS or not onsets_s.size:
        return None
    stalls, missing_mm = _stalls(points, onsets_s, expected)
    whiten = _whitening(points, turn_mm)
    data, shapes = whiten(points.off_mm), whiten(np.hstack([_steps(points, onsets_s), stalls]))
    power = np.maximum(np.sum(shapes**2, axis=0), 1e-12)
    score = shapes.T @ data / np.sqrt(power)
    size_mm = score / np.sqrt(power)
    is_stall = np.abs(-size_mm[len(onsets_s) :] / missing_mm - 1) < _STALL_TOLERANCE
    possible = np.concatenate([np.ones(len(onsets_s), np.bool_), is_stall])
    best = int(np.argmax(np.abs(score) * possible))
    misfit = (float(data @ data) - float(score[best]) ** 2) / (len(data) - 1)
    sigma_mm = float(np.sqrt(max(misfit, 1.0) / power[best]))
    return LostWay(float(np.tile(onsets_s, 2)[best]), float(size_mm[best]), sigma_mm)


def _aligned(track: Track, fitted: Kinematics, commanded: Commanded) -> Kinematics:
    """Lay the commanded motion on the track: only when and where it began are free."""
    from scipy.optimize import least_squares

    sigma_mm = max(float(np.median(track.sigma_mm)), _LEAST_SIGMA_MM)

    def off(p: Array) -> Array:
        motion = commanded.kinematics(fitted, start_s=float(p[0]), rest_mm=float(p[1]))
        return (motion.position(track.time_s) - track.position_mm) / sigma_mm

    begun = [fitted.start_s, fitted.rest_mm]
    found = least_squares(off, begun, loss="soft_l1", f_scale=3.0, x_scale=(0.01, 1.0), max_nfev=50).x
    return commanded.kinematics(fitted, start_s=float(found[0]), rest_mm=float(found[1]))


def _points(track: Track, expected: Kinematics, *, speed_share: float) -> _Points:
    sign = float(np.sign(expected.velocity_mm_s))
    off_mm = sign * (track.position_mm - expected.position(track.time_s))
    claimed_mm = np.maximum(track.sigma_mm, _LEAST_SIGMA_MM)
    sigma_mm = _with_doubts(off_mm, claimed_mm * _honesty(off_mm, claimed_mm))
    time_s = track.time_s
    group = np.arange(len(time_s)) * min(_MOST_POINTS, len(time_s)) // max(len(time_s), 1)
    count = np.bincount(group)

    def together(values: Array) -> Array:
        return np.asarray(np.bincount(group, values) / count, np.float64)

    return _Points(
        together(time_s),
        together(sign * (expected.position(time_s) - expected.rest_mm)),
        together(off_mm),
        np.sqrt(together(sigma_mm**2) / count),
        np.column_stack([together(column) for column in _nuisances(time_s, expected, speed_share)]),
    )


def _honesty(off_mm: Array, sigma_mm: Array) -> float:
    """By how much the positions scatter more than they claim: second differences know neither drift nor speed."""
    bend = off_mm[1:-1] - (off_mm[:-2] + off_mm[2:]) / 2
    claimed = np.sqrt(sigma_mm[1:-1] ** 2 + (sigma_mm[:-2] ** 2 + sigma_mm[2:] ** 2) / 4)
    return max(1.0, _MAD_TO_SIGMA * float(np.median(np.abs(bend) / claimed))) if len(bend) else 1.0


def _with_doubts(off_mm: Array, sigma_mm: Array) -> Array:
    """Raise the sigma of frames that agree with neither side: something stood in front of the boards.

    A frame is held against the two before it and the two after it; on either side of a step it agrees with one.
    """
    padded = np.pad(off_mm, 2, mode="edge")
    before, after = (padded[:-4] + padded[1:-3]) / 2, (padded[3:-1] + padded[4:]) / 2
    apart_mm = np.minimum(np.abs(off_mm - before), np.abs(off_mm - after))
    return np.asarray(sigma_mm * np.maximum(1.0, apart_mm / (_DOUBT_SIGMAS * sigma_mm)) ** 2, np.float64)


def _nuisances(time_s: Array, expected: Kinematics, speed_share: float) -> list[Array]:
    """What may be wrong although nothing was lost: place, moment, scale, speed and ramps, each at its sigma."""
    way_mm = expected.position(time_s) - expected.rest_mm
    more = 1 + _STEP
    slow_s, ramp_s = expected.cruise_s + expected.ramp_s, expected.ramp_s
    later = replace(expected, start_s=expected.start_s + _STEP)
    faster = replace(expected, velocity_mm_s=expected.velocity_mm_s * more, cruise_s=slow_s / more - ramp_s)
    softer = replace(expected, ramp_s=ramp_s * more, cruise_s=slow_s - ramp_s * more)
    by_motion = [
        sigma * (motion.position(time_s) - expected.position(time_s)) / _STEP
        for motion, sigma in ((later, _MOMENT_S), (faster, speed_share), (softer, _RAMP_SHARE))
    ]
    return [np.full_like(time_s, _PLACE_MM), _SCALE_SHARE * way_mm, *by_motion]


def _onsets(time_s: Array, expected: Kinematics) -> Array:
    """Moments between two points of the motion at which something may have been lost."""
    between = (time_s[1:] + time_s[:-1]) / 2
    moving = (between > expected.start_s) & (between < expected.stop_s)
    return np.asarray(between[moving], np.float64)


def _steps(points: _Points, onsets_s: Array) -> Array:
    """``(n, m)``: from a moment on everything is 1 mm off."""
    return np.asarray(points.time_s[:, None] > onsets_s[None, :], np.float64)


def _stalls(points: _Points, onsets_s: Array, expected: Kinematics) -> tuple[Array, Array]:
    """``(n, m)``: from a moment on nothing moves, scaled to 1 mm; ``(m,)`` what is really missing at the end then."""
    sign = float(np.sign(expected.velocity_mm_s))
    frozen_mm = sign * (expected.position(onsets_s) - expected.rest_mm)
    end_mm = sign * (float(expected.position(np.array([expected.stop_s]))[0]) - expected.rest_mm)
    ahead_mm = np.maximum(points.way_mm[:, None] - frozen_mm[None, :], 0.0)
    missing_mm = np.maximum(end_mm - frozen_mm, 1e-6)
    return np.asarray(ahead_mm / missing_mm, np.float64), missing_mm


def _whitening(points: _Points, turn_mm: float) -> Callable[[Array], Array]:
    """Return what turns the errors of a take in which nothing was lost into independent ones of variance 1."""
    from scipy.linalg import cholesky, solve_triangular

    apart = (points.way_mm[:, None] - points.way_mm[None, :]) / TURN_REACH_MM
    covariance = turn_mm**2 * np.exp(-(apart**2) / 2) + points.nuisances @ points.nuisances.T
    root = cholesky(covariance + np.diag(points.sigma_mm**2), lower=True)
    return lambda values: np.asarray(solve_triangular(root, values, lower=True), np.float64)
