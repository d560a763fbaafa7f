"""The simulated sensor: light to electrons to 8-bit codes.

Light is relative: 1 fills the well at ISO 100 with the metered exposure. More aperture or time means more
photons, more ISO means more gain on the same photons, so high ISO at the same brightness is noisier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import ExposureSettings
from rig.errors import SceneError
from rig.profile import Exposure, SimulationSpec

Image32 = NDArray[np.float32]
Codes = NDArray[np.uint8]
Mosaic = NDArray[np.uint16]
Transfer = Literal["bt709", "srgb"]
"""Tone curve of the codes: BT.709 for movies, as they are tagged; sRGB for stills."""

WHITE_BALANCE: Mapping[str, tuple[float, float, float]] = MappingProxyType({
    "automatic": (1.0, 1.0, 1.0),
    "daylight": (1.0, 1.0, 1.0),
    "flash": (1.0, 1.0, 1.0),
    "cloudy": (1.10, 1.0, 0.88),
    "shade": (1.20, 1.0, 0.78),
    "fluorescent": (0.80, 1.0, 1.25),
    "tungsten": (0.65, 1.0, 1.60),
})  # fmt: skip
"""Gain of red, green and blue; the scene is lit by daylight."""

RAW_BLACK, RAW_WHITE = 256, 16383
"""Codes of a raw file for no light and for clipping: 14 bits, room for the noise below black."""
_FULL_SCALE = 65535
_EXACT_BELOW_READ_NOISE_E = 1.0
_NOISE_ROWS = 16


@dataclass(frozen=True)
class SensorState:
    """How one exposure turns light into codes."""

    electrons_per_unit: float
    """Electrons that light of 1 gives, on average."""
    clip_e: float
    """Electrons at which the codes end."""
    read_noise_e: float
    gains: tuple[float, float, float]
    """White balance, after clipping."""


def complete(settings: ExposureSettings, metered: Exposure) -> Exposure:
    """Fill in settings that are not known from the metered exposure."""
    known = settings.model_dump(exclude_none=True)
    return metered.model_copy(update=known)


def sensor_state(spec: SimulationSpec, exposure: Exposure) -> SensorState:
    """Work out gain and photon count of an exposure.

    Raises:
        SceneError: The white balance has no such name.
    """
    if exposure.white_balance not in WHITE_BALANCE:
        raise SceneError(
            f"no white balance '{exposure.white_balance}'", next_step=f"one of {', '.join(WHITE_BALANCE)}"
        )
    light = exposure.exposure_s / exposure.f_number**2
    metered = spec.metered.exposure_s / spec.metered.f_number**2 * spec.metered.iso / 100
    return SensorState(
        electrons_per_unit=spec.full_well_e * light / metered,
        clip_e=spec.full_well_e * 100 / exposure.iso,
        read_noise_e=spec.read_noise_e,
        gains=WHITE_BALANCE[exposure.white_balance],
    )


def expose(light: Image32, state: SensorState, *, seed: int | None) -> Image32:
    """Count electrons with shot and read noise.

    Args:
        light: Relative light, (H, W, 3); overwritten.
        state: Gain and photon count.
        seed: Of this frame's noise; None leaves the noise out.

    Returns:
        Electrons as a share of those at which the codes end, not yet clipped, (H, W, 3).
    """
    electrons = np.multiply(light, np.float32(state.electrons_per_unit), out=light)
    if seed is not None and state.read_noise_e < _EXACT_BELOW_READ_NOISE_E:
        electrons = _counted(electrons, state.read_noise_e, seed)
    elif seed is not None:
        electrons = _with_noise(electrons, state.read_noise_e, seed)
    electrons *= np.float32(1 / state.clip_e)
    return electrons


def _counted(electrons: Image32, read_noise_e: float, seed: int) -> Image32:
    rng = np.random.Generator(np.random.SFC64(seed))
    counts = rng.poisson(np.maximum(electrons, 0)).astype(np.float32)
    return np.asarray(counts + np.float32(read_noise_e) * rng.standard_normal(electrons.shape, np.float32))


def _with_noise(electrons: Image32, read_noise_e: float, seed: int) -> Image32:
    """Draw Poisson counts plus Gaussian read noise from one normal z per sample.

    With variance s2 = e + r2, e + sqrt(s2) z + e/(6 s2) (z2 - 1) has the mean and the third moment of the sum,
    and its variance to within 1/18 electron2 (Cornish-Fisher). The read noise of an electron or more hides
    that counts are whole numbers.

    A few rows at a time stay in the processor's cache: half the time of whole frames.
    """
    import cv2

    cv2.setRNGSeed(int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0] >> 1))
    rows = np.ascontiguousarray(electrons).reshape(len(electrons), -1)
    buffers = np.empty((3, min(_NOISE_ROWS, len(rows)), rows.shape[1]), np.float32)
    for top in range(0, len(rows), _NOISE_ROWS):
        block = rows[top : top + _NOISE_ROWS]
        _add_noise(block, np.float32(read_noise_e**2), *buffers[:, : len(block)])
    return rows.reshape(electrons.shape)


def _add_noise(
    electrons: Image32, read_variance: np.float32, z: Image32, variance: Image32, skew: Image32
) -> None:
    """Add noise to (N, M) electrons; the last three are buffers of that shape."""
    import cv2

    cv2.randn(z, np.zeros(1), np.ones(1))
    np.add(electrons, read_variance, out=variance)
    np.divide(electrons, variance, out=skew)
    skew *= np.float32(1 / 6)
    np.sqrt(variance, out=variance)
    variance *= z
    electrons += variance
    z *= z
    z -= np.float32(1)
    z *= skew
    electrons += z


def develop(
    signal: Image32,
    gains: tuple[float, float, float],
    transfer: Transfer,
    *,
    measured: tuple[float, ...] = (),
) -> Codes:
    """Clip, balance the colours and code: share of full scale (H, W, 3) to 8-bit RGB codes.

    Args:
        signal: Overwritten.
        gains: White balance.
        transfer: Standard tone curve.
        measured: Codes of a camera's own curve at even steps of the root of light; empty for the standard one.
    """
    import cv2

    scaled = np.clip(signal, 0.0, 1.0, out=signal)
    if gains != (1.0, 1.0, 1.0):
        scaled = np.minimum(scaled * np.asarray(gains, np.float32), np.float32(1))
    scaled *= np.float32(_FULL_SCALE)
    return np.asarray(cv2.LUT(scaled.astype(np.uint16), _table(transfer, measured)), np.uint8)


@lru_cache(maxsize=4)
def _table(transfer: Transfer, measured: tuple[float, ...]) -> Codes:
    if not measured:
        return _CODES[transfer]
    codes = np.interp(np.sqrt(_LEVELS), np.linspace(0.0, 1.0, len(measured)), measured)
    return np.asarray(np.round(np.clip(codes, 0, 255)), np.uint8)


def mosaic(signal: Image32) -> Mosaic:
    """Digitise without developing: share of full scale (H, W, 3) to the raw codes (H, W) of an RGGB sensor."""
    seen = signal[..., 1].copy()
    seen[::2, ::2], seen[1::2, 1::2] = signal[::2, ::2, 0], signal[1::2, 1::2, 2]
    codes = np.rint(seen * np.float32(RAW_WHITE - RAW_BLACK) + np.float32(RAW_BLACK))
    return np.asarray(np.clip(codes, 0, RAW_WHITE), np.uint16)


def bt709_code(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.709 transfer: linear light in [0, 1] to signal in [0, 1]."""
    return np.where(light < 0.018, 4.5 * light, 1.099 * np.maximum(light, 0.018) ** 0.45 - 0.099)


def srgb_code(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """IEC 61966-2-1 transfer: linear light in [0, 1] to signal in [0, 1]."""
    return np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    )


_LEVELS = (np.arange(_FULL_SCALE + 1) + 0.5) / (_FULL_SCALE + 1)
_CODES: Mapping[Transfer, Codes] = MappingProxyType({
    "bt709": np.round(255 * bt709_code(_LEVELS)).astype(np.uint8)[None],
    "srgb": np.round(255 * srgb_code(_LEVELS)).astype(np.uint8)[None],
})  # fmt: skip
