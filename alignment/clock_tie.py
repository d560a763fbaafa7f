"""Tie the camera's clock to the rail's by the flashes of the sync LED.

The rail's controller switches the LED and knows when. Frames before are dark there, frames after are lit, and one
that was being exposed meanwhile is lit in part: every edge bounds when the frames were exposed, and together they
bound it to a few milliseconds, from light alone. The motion that rail and camera both saw tells it more finely, but
rests on the telemetry's own times; where the two differ, steps were lost or telemetry came late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.takes import Array, TakeSource
from catalog.evidence import RoundMotion
from catalog.session_folder import SessionFolder, Take

SEARCH_S = 2.5
"""How late a camera may begin after it was told to."""
NEAR_S = 0.25
"""How far the clocks may be off where the motion has tied them already."""
_BLOCK_PX = 8
"""The picture is looked at in blocks of this size; a LED must fill one."""
_COARSE, _FINE_S = 0.25, 2e-4
"""Steps of the search: as a share of the time between frames, then s."""
_LEAST_CORRELATION = 0.9
_LEAST_LIGHT = 0.05
"""Light that the LED must add, as a share of full scale."""
_CHI2 = 4.0
"""Excess of squares over the best offset's that counts as equally good: two standard deviations."""
_LEAST_NOISE = 0.004
"""Noise assumed at least, light: one code."""


@dataclass(frozen=True)
class Flash:
    """One flash of the LED, on the rail's clock."""

    lit_s: float
    dark_s: float


@dataclass(frozen=True)
class ClockTie:
    """What the flashes say of a take's clock."""

    offset_s: float
    """Rail clock minus the take's time line, s: the middle of what fits."""
    half_width_s: float
    """Offsets this far on either side fit as well."""
    flashes: int
    """How many flashes were seen."""
    place_px: tuple[float, float]
    """Where the LED is in the picture."""


@dataclass(frozen=True, eq=False)
class _Series:
    """Light of every block in the frames around the flashes."""

    begin_s: Array
    """When each frame's exposure began, ``(N,)``, on the take's time line."""
    exposure_s: float
    light: NDArray[np.float64]
    """``(N, H / block, W / block)``."""

    def lit(self, flashes: Sequence[Flash], offset_s: float) -> Array:
        """Return for which share of each exposure the LED is on, if the clocks are so far apart."""
        begin_s = self.begin_s + offset_s
        lit_s = np.zeros_like(begin_s)
        for flash in flashes:
            overlap_s = np.minimum(begin_s + self.exposure_s, flash.dark_s) - np.maximum(begin_s, flash.lit_s)
            lit_s += np.clip(overlap_s, 0, None)
        return np.asarray(lit_s / self.exposure_s, np.float64)


def flashes_of(folder: SessionFolder, take: Take) -> tuple[Flash, ...]:
    """List the flashes that the journal tells of a take, in order.

    Raises:
        SessionFolderError: `round.json` is missing or damaged.
    """
    record = take.record()
    begin_s, end_s = record.motion_started_t_host_s, record.motion_ended_t_host_s
    if begin_s is None or end_s is None:
        return ()
    rows = [r for r in folder.journal().rows if r.kind == "sync_led" and r.get("round") == record.round.name]
    flashes = (Flash(float(r.get("lit_t_host_s")), float(r.get("dark_t_host_s"))) for r in rows)
    return tuple(f for f in flashes if begin_s <= f.lit_s <= end_s)


def with_tie(motion: RoundMotion, tie: ClockTie | None) -> RoundMotion:
    """Return a take's motion with what the flashes say of its clock; they stand in where the motion tied nothing."""
    if tie is None:
        return motion
    known = tie.offset_s if motion.clock_offset_s is None else motion.clock_offset_s
    return motion.model_copy(
        update={
            "clock_offset_s": known,
            "led_offset_s": tie.offset_s,
            "led_half_width_s": tie.half_width_s,
            "evidence": (*motion.evidence, "sync_led"),
        }
    )


def disagreement_s(motion: RoundMotion) -> float:
    """Return by how much the motion's clock lies outside what the flashes allow, s; 0 where it does not."""
    if motion.led_offset_s is None or motion.led_half_width_s is None or motion.clock_offset_s is None:
        return 0.0
    off_s = motion.clock_offset_s - motion.led_offset_s
    beyond_s = max(abs(off_s) - motion.led_half_width_s, 0.0)
    return beyond_s if off_s > 0 else -beyond_s


def tie_clocks(
    source: TakeSource, flashes: Sequence[Flash], *, near_s: float | None = None
) -> ClockTie | None:
    """Find the LED in a take's frames and how far the clocks are apart.

    Args:
        source: A movie; its LED stays in one place of the picture.
        flashes: What the rail did; one is enough, each further one narrows the result.
        near_s: Rail clock minus the take's time line as the motion tells it, s; None where it does not, and the
            frame table's own start is taken, which cameras begin later than by up to `SEARCH_S`.

    Returns:
        None where no place in the picture flashes as the LED did. A rolling shutter's delay down to the LED's row
        is in the result: at most the readout time.

    Raises:
        DecodeError: A frame cannot be read.
    """
    if not flashes or source.frame_s <= 0:
        return None
    guess_s = source.start_t_host_s if near_s is None else near_s
    late_s = SEARCH_S if near_s is None else NEAR_S
    series = _read(source, flashes, guess_s - NEAR_S, guess_s + late_s)
    if series is None:
        return None
    steps = np.arange(guess_s - NEAR_S, guess_s + late_s, _COARSE * source.frame_s)
    correlation, offset_s, block = max(_best_block(series, flashes, float(s)) for s in steps)
    if correlation < _LEAST_CORRELATION:
        return None
    row, column = divmod(block, series.light.shape[2])
    middle_s, half_width_s = _refined(series, flashes, series.light[:, row, column], offset_s, source.frame_s)
    return ClockTie(
        middle_s, half_width_s, len(flashes), ((column + 0.5) * _BLOCK_PX, (row + 0.5) * _BLOCK_PX)
    )


def _read(source: TakeSource, flashes: Sequence[Flash], lowest_s: float, highest_s: float) -> _Series | None:
    """Read the frames that may show a flash, and a few beside them."""
    beside_s = 3 * source.frame_s
    exposure_s = max(2 * float(source.time_s[0]), 1e-6)
    begin_s = source.time_s - source.time_s[0]
    near = np.zeros(len(begin_s), bool)
    for flash in flashes:
        near |= (begin_s + highest_s > flash.lit_s - beside_s) & (
            begin_s + lowest_s < flash.dark_s + beside_s
        )
    wanted = np.flatnonzero(near)
    if wanted.size < 3:
        return None
    with source.open() as reader:
        grey = np.stack([_blocks(reader.read(int(i)).grey()) for i in wanted])
    light = np.asarray(source.tone.light(grey.astype(np.float32)), np.float64)
    return _Series(begin_s[wanted], exposure_s, light)


def _blocks(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = (n // _BLOCK_PX * _BLOCK_PX for n in grey.shape)
    parts = grey[:height, :width].reshape(height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    return np.asarray(parts.mean(axis=(1, 3)), np.float32)


def _best_block(series: _Series, flashes: Sequence[Flash], offset_s: float) -> tuple[float, float, int]:
    """Return how well the best block follows the flashes at an offset, the offset, and which block it is."""
    lit = series.lit(flashes, offset_s)
    lit = lit - lit.mean()
    power = float(lit @ lit)
    if power <= 0:
        return 0.0, offset_s, 0
    light = series.light.reshape(len(lit), -1)
    light = light - light.mean(axis=0)
    along = lit @ light
    length = np.sqrt(power * np.sum(light**2, axis=0))
    follows = np.where(along / power > _LEAST_LIGHT, along / np.maximum(length, 1e-12), 0.0)
    best = int(np.argmax(follows))
    return float(follows[best]), offset_s, best


def _refined(
    series: _Series, flashes: Sequence[Flash], light: Array, offset_s: float, frame_s: float
) -> tuple[float, float]:
    """Return middle and half width of the offsets about a good one that fit a block's light as well as the best."""
    offsets_s = np.arange(offset_s - frame_s, offset_s + frame_s, _FINE_S)
    squares = np.array([_unexplained(series.lit(flashes, float(s)), light) for s in offsets_s])
    noise = max(float(squares.min()) / max(len(light) - 3, 1), _LEAST_NOISE**2)
    fits = offsets_s[squares <= squares.min() + _CHI2 * noise]
    return float(fits[0] + fits[-1]) / 2, float(fits[-1] - fits[0] + _FINE_S) / 2


def _unexplained(lit: Array, light: Array) -> float:
    """Return the squares that are left when a constant and the LED's light are taken from a series."""
    model = np.column_stack([np.ones_like(lit), lit])
    coefficients = np.linalg.lstsq(model, light, rcond=None)[0]
    rest = light - model @ coefficients
    return float(rest @ rest)
