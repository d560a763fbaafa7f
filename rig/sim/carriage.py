"""The carriage's true pose: the commanded motion plus what a real rail adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rig.profile import SimulationSpec

Series = NDArray[np.float64]

_WAVES = 8
_VIBRATION_HZ = (0.4, 5.0)
_BENDS_PER_MM = (1 / 500, 1 / 60)
_MOVING_MM_S = 1.0
_STEP_S = 1e-3
_RAIL_STREAM = 0x7A11


@dataclass(frozen=True)
class Slip:
    """A lost step: from ``at_s`` on the carriage is ``by_mm`` off, and the controller does not know."""

    at_s: float
    by_mm: float


class Carriage:
    """Where the camera really was during one take, as a function of session time.

    The controller's position is followed with an error of the datum that is drawn once per take, a smooth
    vibration along the rail while moving, and small angles: half of their variance is the bent rail and comes
    back in every take at the same place, half belongs to the take. The same seed gives the same take.

    Args:
        spec: Sizes of the errors, and the seed of the rail itself.
        position_mm: The controller's position in mm at session times in s, vectorised.
        seed: Seed of the take.
        slip: Steps lost during the take, if any.
    """

    def __init__(
        self,
        spec: SimulationSpec,
        position_mm: Callable[[Series], Series],
        *,
        seed: int,
        slip: Slip | None = None,
    ) -> None:
        self._position_mm = position_mm
        self._slip = slip
        take = np.random.default_rng([spec.seed, seed])
        rail = np.random.default_rng([spec.seed, _RAIL_STREAM])
        self._offset_mm = take.normal(0.0, spec.repeatability_mm, 3)
        self._vibration = _Waves(take, spec.jitter_mm, _VIBRATION_HZ)
        sizes_deg = np.array([spec.pitch_yaw_deg, spec.pitch_yaw_deg, spec.roll_deg]) / np.sqrt(2)
        known = np.array(spec.rail_bends_deg).reshape(-1, 4)
        self._bends: list[tuple[Callable[[Series], Series], _Waves]] = [
            (
                _Curve(known[:, 0], known[:, axis + 1])
                if len(known)
                else _Waves(rail, float(size), _BENDS_PER_MM),
                _Waves(take, float(size), _BENDS_PER_MM),
            )
            for axis, size in enumerate(sizes_deg)
        ]

    def poses(self, t_s: Series) -> Series:
        """Poses (N, 6) at session times (N,): x, y, z in mm, pitch, yaw, roll in deg."""
        commanded = self._position_mm(t_s)
        shaken = self._vibration(t_s) * self._moving(t_s)
        x_mm = commanded + self._offset_mm[0] + shaken + self._lost_mm(t_s)
        still = [np.full_like(x_mm, offset) for offset in self._offset_mm[1:]]
        angles = [rail(commanded) + take(commanded) for rail, take in self._bends]
        return np.stack([x_mm, *still, *angles], axis=-1)

    def bends_deg(self, position_mm: Series) -> Series:
        """Pitch, yaw, roll (N, 3) that the rail itself gives the camera at places (N,), the same in every take."""
        return np.stack([rail(position_mm) for rail, _ in self._bends], axis=-1)

    def _moving(self, t_s: Series) -> Series:
        """0 at standstill, 1 from a slow crawl on: an idle motor does not shake."""
        run_mm = np.abs(self._position_mm(t_s + _STEP_S) - self._position_mm(t_s - _STEP_S))
        return np.minimum(run_mm / (2 * _STEP_S) / _MOVING_MM_S, 1.0)

    def _lost_mm(self, t_s: Series) -> Series:
        if self._slip is None:
            return np.zeros_like(t_s)
        return np.where(t_s >= self._slip.at_s, self._slip.by_mm, 0.0)


class _Waves:
    """A smooth random function of standard deviation ``sd``: a few sines of random frequency and phase."""

    def __init__(self, rng: np.random.Generator, sd: float, frequencies: tuple[float, float]) -> None:
        self._angular = 2 * np.pi * rng.uniform(*frequencies, _WAVES)
        self._phase = rng.uniform(0, 2 * np.pi, _WAVES)
        self._amplitude = sd * np.sqrt(2 / _WAVES)

    def __call__(self, argument: Series) -> Series:
        waves = np.sin(np.multiply.outer(argument, self._angular) + self._phase)
        return np.asarray(self._amplitude * waves.sum(axis=-1))


class _Curve:
    """A function by its values at some places, smooth between them and level beyond."""

    def __init__(self, places: Series, values: Series) -> None:
        self._ends = places.min(), places.max()
        self._smooth: Callable[[Series], Series] = _spline(places, values)

    def __call__(self, argument: Series) -> Series:
        return np.asarray(self._smooth(np.clip(argument, *self._ends)), np.float64)


def _spline(places: Series, values: Series) -> Callable[[Series], Series]:
    from scipy.interpolate import make_interp_spline

    order = np.argsort(places)
    degree = min(3, len(places) - 1)
    return make_interp_spline(places[order], values[order], k=degree)
