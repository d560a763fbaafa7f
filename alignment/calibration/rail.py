"""How the carriage really travels: its scale against the controller's, and where the rail is bent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alignment.calibration.document import Measured, RailBend
from alignment.calibration.geometry import TURN_PRIOR_DEG
from alignment.takes import Array, TakeSource

_LONGEST_OFFSET_S = 3.0
_OFFSET_STEP_S = 0.05
_SOFT_MM = 0.1
_LEAST_SAMPLES = 10
_LEAST_TRAVEL_MM = 10.0
_NODE_MM = 10.0
_BEND_LENGTH_MM = 15.0
"""Over which distance a rail bends; shorter ripples of the wheels are not followed."""
_PRIOR_SHARE = 0.5
"""Share of the prior's sigma below which a frame's angle counts as measured."""


@dataclass(frozen=True, eq=False)
class TakePath:
    """Where the camera was in the frames of one take."""

    source: TakeSource
    time_s: Array
    along_mm: Array
    """``(F,)`` mm of board, its zero anywhere."""
    across: Array
    """``(F, 5)``: pitch, yaw, roll deg; y, z mm."""
    sigma: Array
    """``(F, 5)`` of each frame by itself."""
    shared_sigma: Array
    """``(F, 5)`` of what lens and boards make wrong in all takes alike, about its mean over the take."""
    slope_sigma: float
    """Relative sigma of the way along the rail from lens and boards, shared by all takes."""


@dataclass(frozen=True)
class RailScale:
    """The controller's millimetres against the boards'."""

    mm_per_mm: float
    """Signed: negative where the picture's x runs against the rail's."""
    sigma: float
    zero_mm: float
    """Boards' way at the rail's zero."""
    count: int


def take_scale(path: TakePath) -> RailScale | None:
    """Fit the telemetry of a take to its path: scale, zero, and the offset of the clocks; None without telemetry."""
    from scipy.optimize import least_squares

    source = path.source
    if len(source.telemetry_time_s) < _LEAST_SAMPLES or np.ptp(source.telemetry_mm) < _LEAST_TRAVEL_MM:
        return None
    clock = source.telemetry_time_s - source.start_t_host_s

    def believed(offset_s: float) -> Array:
        return np.interp(path.time_s + offset_s, clock, source.telemetry_mm)

    offset_s = _clock_offset(path, believed)
    line = np.polyfit(believed(offset_s), path.along_mm, 1)

    def residual(p: Array) -> Array:
        return np.asarray(p[0] * believed(float(p[2])) + p[1] - path.along_mm, np.float64)

    found = least_squares(
        residual, np.array([*line, offset_s]), loss="soft_l1", f_scale=_SOFT_MM, x_scale=(1.0, 100.0, 0.01)
    )
    rest = residual(found.x)
    variance = float(np.mean(rest**2)) * _correlation_length(rest)
    jac = np.asarray(found.jac, np.float64)
    covariance = variance * np.linalg.pinv(jac.T @ jac)
    return RailScale(float(found.x[0]), float(np.sqrt(covariance[0, 0])), float(found.x[1]), len(rest))


def _clock_offset(path: TakePath, believed: Callable[[float], Array]) -> float:
    """Try offsets over the whole uncertainty of the clocks."""
    tries = np.arange(-_LONGEST_OFFSET_S, _LONGEST_OFFSET_S + _OFFSET_STEP_S / 2, _OFFSET_STEP_S)
    misfits = []
    for offset_s in tries:
        x = believed(float(offset_s))
        if np.ptp(x) < _LEAST_TRAVEL_MM / 2:
            misfits.append(np.inf)
            continue
        misfits.append(float(np.sum((np.polyval(np.polyfit(x, path.along_mm, 1), x) - path.along_mm) ** 2)))
    return float(tries[int(np.argmin(misfits))])


def _correlation_length(rest: Array) -> float:
    """How many neighbours share an error: a carriage shakes slowly."""
    lag = float(np.sum(rest[1:] * rest[:-1]) / max(np.sum(rest**2), 1e-18))
    lag = min(max(lag, 0.0), 0.9)
    return (1 + lag) / (1 - lag)


def mean_scale(scales: Sequence[RailScale], *, slope_sigma: float) -> Measured:
    """Average the takes' scales; their scatter counts if it is more than they claim, ``slope_sigma`` always."""
    values, sigmas = (np.array([getattr(s, n) for s in scales]) for n in ("mm_per_mm", "sigma"))
    weight = 1 / sigmas**2
    mean = float(np.average(np.abs(values), weights=weight))
    freedom = max(len(values) - 1, 1)
    excess = float(np.sum(weight * (np.abs(values) - mean) ** 2)) / freedom
    sigma = float(np.sqrt(max(excess, 1.0) / weight.sum()))
    sigma = float(np.hypot(sigma, mean * slope_sigma))
    return Measured(value=mean, sigma=sigma, count=sum(s.count for s in scales))


@dataclass(frozen=True)
class Bends:
    """The rail's repeatable deviations."""

    nodes: tuple[RailBend, ...]
    turn_scatter_deg: float | None


def measure_bends(paths: Sequence[TakePath], positions_mm: Sequence[Array]) -> Bends | None:
    """Average the takes' smoothed paths at even places of the rail.

    Args:
        paths: The takes.
        positions_mm: Rail position of every frame of each.

    Returns:
        None where turns and shifts cannot be told apart, or the takes share too little of the rail.
    """
    if float(np.median(np.concatenate([p.sigma[:, :2] for p in paths]))) > _PRIOR_SHARE * TURN_PRIOR_DEG:
        return None
    low, high = max(p.min() for p in positions_mm), min(p.max() for p in positions_mm)
    if high - low < 3 * _NODE_MM:
        return None
    nodes = np.linspace(low, high, int((high - low) // _NODE_MM) + 1)
    smooth = [_smoothed(p, x, nodes) for p, x in zip(paths, positions_mm, strict=True)]
    values, variance = np.stack([v for v, _ in smooth]), np.stack([s for _, s in smooth])
    values = _level(values, nodes)
    mean, count = values.mean(axis=0), len(paths)
    # One take does not tell what repeats; half of what it shows is believed to.
    between = values.var(axis=0, ddof=1).mean(axis=0) if count > 1 else mean.var(axis=0) / 2
    own = np.maximum(between - variance.mean(axis=(0, 1)), 0.0)
    shared = np.mean(
        [_at(nodes, x, p.shared_sigma) for p, x in zip(paths, positions_mm, strict=True)], axis=0
    )
    sigma = np.sqrt((variance.mean(axis=0) + own) / count + shared**2)
    scatter = float(np.sqrt(own[:2].mean())) if count > 1 else None
    return Bends(tuple(_bend(*row, count) for row in zip(nodes, mean, sigma, strict=True)), scatter)


def _at(nodes: Array, position_mm: Array, columns: Array) -> Array:
    order = np.argsort(position_mm)
    return np.column_stack([np.interp(nodes, position_mm[order], c[order]) for c in columns.T])


def _smoothed(path: TakePath, position_mm: Array, nodes: Array) -> tuple[Array, Array]:
    """Predict the five deviations at the nodes by Gaussian-process regression: values and variances ``(N, 5)``."""
    values, variances = np.zeros((len(nodes), 5)), np.zeros((len(nodes), 5))
    between, onto = _kernel(position_mm, position_mm), _kernel(nodes, position_mm)
    for column in range(5):
        seen, noise = path.across[:, column], path.sigma[:, column] ** 2
        mean = float(np.average(seen, weights=1 / noise))
        power = max(float(np.var(seen) - np.median(noise)), 0.05 * float(np.median(noise)))
        gain = np.linalg.solve(power * between + np.diag(noise), power * onto.T).T
        values[:, column] = mean + gain @ (seen - mean)
        variances[:, column] = np.maximum(power - np.sum(gain * power * onto, axis=1), 0.0)
    return values, variances


def _kernel(a: Array, b: Array) -> Array:
    return np.asarray(np.exp(-(((a[:, None] - b[None, :]) / _BEND_LENGTH_MM) ** 2) / 2), np.float64)


def _level(values: Array, nodes: Array) -> Array:
    """Take the means off, and the slopes of y and z: a rail that is mounted askew is straight."""
    level = values - values.mean(axis=1, keepdims=True)
    along = nodes - nodes.mean()
    slopes = np.einsum("n,tnc->tc", along, level) / np.sum(along**2)
    slopes[:, :3] = 0.0
    return np.asarray(level - slopes[:, None, :] * along[None, :, None], np.float64)


def _bend(position_mm: float, mean: Array, sigma: Array, count: int) -> RailBend:
    pitch, yaw, roll, y, z = (
        Measured(value=float(m), sigma=float(s), count=count) for m, s in zip(mean, sigma, strict=True)
    )
    return RailBend(
        position_mm=float(position_mm), pitch_deg=pitch, yaw_deg=yaw, roll_deg=roll, y_mm=y, z_mm=z
    )
