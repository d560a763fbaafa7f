"""What stands between lamp, scene and lens: blocked light, haze, rain, drops on the glass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from rig.errors import SceneError

Image32 = NDArray[np.float32]
Series = NDArray[np.float64]

OFF = "off"
AIRLIGHT = (0.60, 0.63, 0.66)
"""Light of an infinitely thick haze, relative."""

_HAZE_PER_M = MappingProxyType({"light": 0.12, "moderate": 0.25, "heavy": 0.5})
_LAMP_SHARE = MappingProxyType({"dim": (1 / 3, 1 / 5), "blocked": (1 / 12, 1 / 20)})
_LAMP_PERIOD_MM = (1900.0, 1300.0)


@dataclass(frozen=True)
class _Rain:
    streaks_per_mpx: float
    opacity: float
    """How much of the light behind a still drop it replaces, spread over its streak."""
    haze_per_m: float


_RAIN = MappingProxyType({
    "light": _Rain(300.0, 4.0, 0.004),
    "moderate": _Rain(650.0, 5.0, 0.01),
    "heavy": _Rain(1300.0, 6.0, 0.025),
})  # fmt: skip
_RAIN_GLOW = (0.85, 0.88, 0.92)
_FALL_MM_S = 7000.0
_DROP_MM = 2.0
_SLANT = 0.08
_RAIN_STREAM, _GLASS_STREAM = 0x3A1, 0xD207


@dataclass(frozen=True)
class _Shell:
    """A layer of air that rain falls through."""

    distance_mm: float
    share: float
    """Of all streaks."""
    softness_px: float


_RAIN_SHELLS = (_Shell(700.0, 0.12, 2.2), _Shell(1300.0, 0.28, 1.2), _Shell(2600.0, 0.60, 0.6))

_GLASS_DROPS = MappingProxyType({"light": 12, "moderate": 30, "heavy": 70})
_GLASS_RADIUS = (0.007, 0.028)
"""Radius of a drop on the glass, in picture widths."""
_GLASS_MINIFICATION = 5.0
_GLASS_COARSE = 8

CONDITION_LEVELS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "rain": tuple(_RAIN),
    "haze": tuple(_HAZE_PER_M),
    "light": tuple(_LAMP_SHARE),
    "raindrop": tuple(_GLASS_DROPS),
})  # fmt: skip
"""The conditions that the simulated world knows, and their levels besides `OFF`."""


def check_condition(name: str, level: str) -> None:
    """Accept a condition and level that the world can show.

    Raises:
        SceneError: No such condition, or it has no such level.
    """
    if name not in CONDITION_LEVELS:
        raise SceneError(
            f"the simulated world has no condition '{name}'",
            next_step=f"one of {', '.join(CONDITION_LEVELS)}",
        )
    if level not in (OFF, *CONDITION_LEVELS[name]):
        raise SceneError(
            f"condition {name} has no level '{level}'",
            next_step=f"one of {', '.join((OFF, *CONDITION_LEVELS[name]))}",
        )


class Weather:
    """One state of all conditions, fixed during a take.

    Args:
        conditions: Level by name; absent ones are off.
        take_seed: Where the drops on the glass sit, and how the rain slants.

    Raises:
        SceneError: See `check_condition`.
    """

    def __init__(self, conditions: Mapping[str, str], *, take_seed: int = 0) -> None:
        for name, level in conditions.items():
            check_condition(name, level)
        self._levels = {name: level for name, level in conditions.items() if level != OFF}
        self._take_seed = take_seed
        self._rain = _RAIN.get(self._levels.get("rain", OFF))
        self._glass: _Glass | None = None

    @property
    def haze_per_m(self) -> float:
        """Extinction coefficient of haze and distant rain, 1/m."""
        haze = _HAZE_PER_M.get(self._levels.get("haze", OFF), 0.0)
        return haze + (self._rain.haze_per_m if self._rain else 0.0)

    @property
    def _lamp_share(self) -> tuple[float, float]:
        return _LAMP_SHARE.get(self._levels.get("light", OFF), (1.0, 1.0))

    @property
    def _ambient(self) -> float:
        return math.sqrt(self._lamp_share[0] * self._lamp_share[1])

    def lamp(self, x_mm: Series, y_mm: Series) -> Image32 | None:
        """Share of the lamp's light at world x (W,), y (H,) in mm as (H, W); None when nothing is blocked.

        The shade has soft, uneven edges: it varies smoothly between the level's two shares.
        """
        brightest, darkest = self._lamp_share
        if brightest == 1.0:
            return None
        waves = np.sin(2 * np.pi * x_mm / _LAMP_PERIOD_MM[0]) + np.cos(
            2 * np.pi * y_mm[:, None] / _LAMP_PERIOD_MM[1]
        )
        return np.asarray(brightest * (darkest / brightest) ** (0.5 + waves / 4), np.float32)

    def veil(self, depth_mm: float) -> tuple[float, tuple[float, float, float]]:
        """Transmission to ``depth_mm`` and the airlight added on the way (Koschmieder).

        What arrives is J t + A (1 - t) with t = exp(-beta Z); the second value is A (1 - t).
        """
        transmission = math.exp(-self.haze_per_m * depth_mm / 1000)
        red, green, blue = (a * self._ambient * (1 - transmission) for a in AIRLIGHT)
        return transmission, (red, green, blue)

    def add_rain(self, light: Image32, *, focal_px: float, exposure_s: float, seed: int) -> Image32:
        """Draw this frame's falling drops over relative light (H, W, 3)."""
        import cv2

        if self._rain is None:
            return light
        rng = np.random.default_rng([seed, _RAIN_STREAM])
        share = np.zeros(light.shape[:2], np.float32)
        for shell in _RAIN_SHELLS:
            px_per_mm = focal_px / shell.distance_mm
            streaks = self._streaks(shell, light.shape, px_per_mm * _FALL_MM_S * exposure_s, rng)
            drop_px = _DROP_MM * px_per_mm
            thickness = max(round(drop_px), 1)
            opacity = min(0.6, self._rain.opacity * drop_px / (drop_px + px_per_mm * _FALL_MM_S * exposure_s))
            share += np.float32(opacity / 255) * _drawn(streaks, light.shape, thickness, shell.softness_px)
        cover = cv2.merge([np.minimum(share, 0.9)] * 3)
        glow = np.asarray(_RAIN_GLOW, np.float32) * np.float32(self._ambient)
        return np.asarray(light + cover * (glow - light), np.float32)

    def _streaks(
        self, shell: _Shell, shape: Sequence[int], length_px: float, rng: np.random.Generator
    ) -> Series:
        """Start and end points of the streaks in a shell, (N, 2, 2) px."""
        height, width = shape[:2]
        per_mpx = self._rain.streaks_per_mpx * shell.share if self._rain else 0.0
        count = rng.poisson(per_mpx * width * (height + length_px) / 1e6)
        start = rng.uniform((0, -length_px), (width, height), (count, 2))
        slant = rng.normal(_SLANT + 0.02 * math.sin(self._take_seed), 0.015, count)
        run = length_px * rng.uniform(0.7, 1.3, count)
        return np.stack([start, start + np.stack([slant * run, run], axis=-1)], axis=1)

    def add_drops(self, light: Image32) -> Image32:
        """Look through the drops that sit on the glass: each shows the scene small, upside down and soft."""
        import cv2

        if "raindrop" not in self._levels:
            return light
        if self._glass is None:
            count = _GLASS_DROPS[self._levels["raindrop"]]
            self._glass = _Glass.scatter(light.shape[1], light.shape[0], count=count, seed=self._take_seed)
        glass = self._glass
        small = (light.shape[1] // _GLASS_COARSE, light.shape[0] // _GLASS_COARSE)
        coarse = cv2.resize(light, small, interpolation=cv2.INTER_AREA)
        inside = cv2.remap(coarse, glass.x, glass.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(light + glass.cover * (inside * glass.shade[..., None] - light), np.float32)


def _drawn(streaks: Series, shape: Sequence[int], thickness: int, softness_px: float) -> Image32:
    import cv2

    mask = np.zeros(shape[:2], np.uint8)
    lines = list(np.round(streaks * 16).astype(np.int32))
    cv2.polylines(mask, lines, False, (255,), thickness, cv2.LINE_AA, 4)
    return np.asarray(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), softness_px), np.float32)


@dataclass(frozen=True)
class _Glass:
    """Drops on the glass: what each pixel shows instead (coarse picture coordinates) and how much of it."""

    x: Image32
    y: Image32
    shade: Image32
    cover: Image32
    """(H, W, 3), 0 beside the drops."""

    @classmethod
    def scatter(cls, width: int, height: int, *, count: int, seed: int) -> _Glass:
        rng = np.random.default_rng([seed, _GLASS_STREAM])
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        x, y = columns / _GLASS_COARSE, rows / _GLASS_COARSE
        shade, cover = np.ones((height, width), np.float32), np.zeros((height, width), np.float32)
        for _ in range(count):
            radius = rng.uniform(*_GLASS_RADIUS) * width
            middle, flat = rng.uniform((0, 0), (width, height)), rng.uniform(0.75, 1.05)
            across, down = (columns - middle[0]) / (radius * flat), (rows - middle[1]) / radius
            distance = np.hypot(across, down)
            inside = distance < 1.15
            x[inside] = (middle[0] - across[inside] * radius * _GLASS_MINIFICATION) / _GLASS_COARSE
            y[inside] = (middle[1] - down[inside] * radius * _GLASS_MINIFICATION) / _GLASS_COARSE
            shade[inside] = 0.9 + 0.35 * down[inside]
            cover = np.maximum(cover, np.clip((1.15 - distance) / 0.3, 0.0, 1.0))
        return cls(x, y, shade, np.repeat(cover[..., None], 3, axis=2))
