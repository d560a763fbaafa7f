"""The standstills of a take, cut into flat patches: their mean codes and how these flicker from frame to frame.

Before and after the sweep the camera looks at the same thing for a second or more. What changes there from
frame to frame is noise; what changes from round to round is the exposure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignment.decode import Frame, FrameReader
from alignment.takes import Array, TakeSource

PATCH_PX = 8
_REDUCTION = 8
_LEAST_FRAMES = 4
_MOST_FRAMES = 24
_GUARD_FRAMES = 2
_MOVED = 2.0
"""Mean square difference from the first frame, over what noise makes it, at which the carriage has left."""
_LEAST_DIFFERENCE = 0.02
"""Mean square difference that rounding may make, codes²."""
_FLAT_CODES = 4.0
"""Standard deviation inside a patch, noise taken out, up to which a shift of 0.1 px changes its mean by 0.2 codes."""


@dataclass(frozen=True, eq=False)
class StillPhase:
    """One standstill of one take."""

    source: TakeSource
    at_end: bool
    """After the sweep rather than before it."""
    frames: int
    mean_rgb: Array
    """``(K, 3)`` codes of all patches, row by row."""
    flat: NDArray[np.bool_]
    """``(K,)``"""
    luma_variance: Array
    """``(K,)`` codes²: of the luma of a pixel from frame to frame."""

    @property
    def place(self) -> tuple[float, float, bool]:
        """Phases of the same value look at the same thing: start and speed of the sweep, and which end."""
        sweep = self.source.round.sweep
        return (
            (0.0, 0.0, self.at_end) if sweep is None else (sweep.start_mm, sweep.velocity_mm_s, self.at_end)
        )


def still_phases(source: TakeSource) -> list[StillPhase]:
    """Find and measure the standstills of a movie at its ends; those too short are left out.

    Raises:
        DecodeError: The movie cannot be decoded.
    """
    if source.stops_mm is not None or source.camera.kind == "stills":
        return []
    phases = []
    with source.open() as reader:
        for at_end in (False, True):
            chosen = _still_indices(reader, len(source.time_s), at_end=at_end)
            if len(chosen) >= _LEAST_FRAMES:
                phases.append(_measure(source, [reader.read(i) for i in chosen], at_end=at_end))
    return phases


def _still_indices(reader: FrameReader, count: int, *, at_end: bool) -> list[int]:
    """Number the frames from one end of the movie up to where the picture begins to move."""
    order = range(count - 1, -1, -1) if at_end else range(count)
    span = order[: _MOST_FRAMES + _GUARD_FRAMES + 1]
    small = {f.index: _reduced(f) for f in reader.frames(min(span), max(span) + 1)}
    first = small[span[0]]
    apart = np.array([np.mean((small[i] - first) ** 2) for i in span[1:]])
    if len(apart) < _LEAST_FRAMES:
        return []
    limit = _MOVED * float(np.median(apart[:_LEAST_FRAMES])) + _LEAST_DIFFERENCE
    moved = np.flatnonzero((apart > limit) & (np.append(apart[1:], apart[-1]) > limit))
    stop = int(moved[0]) + 1 - _GUARD_FRAMES if moved.size else len(span)
    return sorted(span[: min(max(stop, 0), _MOST_FRAMES)])


def _reduced(frame: Frame) -> Array:
    grey = frame.grey()
    rows, columns = grey.shape[0] // _REDUCTION, grey.shape[1] // _REDUCTION
    cut = grey[: rows * _REDUCTION, : columns * _REDUCTION].reshape(rows, _REDUCTION, columns, _REDUCTION)
    return np.asarray(cut.mean(axis=(1, 3)), np.float64)


def _measure(source: TakeSource, frames: Sequence[Frame], *, at_end: bool) -> StillPhase:
    mean = np.mean([frame.rgb().astype(np.float32) for frame in frames], axis=0)
    luma = [_as_stored(frame.grey(), source) for frame in frames]
    # A difference of two frames varies twice as much as one of them.
    flicker = [patch_means((b - a) ** 2) / 2 for a, b in pairwise(luma)]
    luma_variance = np.asarray(np.mean(flicker, axis=0), np.float64)
    means = np.column_stack([patch_means(mean[..., c]) for c in range(3)])
    return StillPhase(
        source, at_end, len(frames), means, _flat(mean[..., 1], luma_variance, len(frames)), luma_variance
    )


def _as_stored(grey: NDArray[np.uint8], source: TakeSource) -> NDArray[np.float32]:
    """Undo the rounding from video to full range, which makes some steps of the luma twice as high as others."""
    if source.camera.colour.range == "pc":
        return grey.astype(np.float32)
    return np.asarray(np.rint(grey * np.float32(219 / 255)) * np.float32(255 / 219), np.float32)


def _flat(green: NDArray[np.float32], luma_variance: Array, frames: int) -> NDArray[np.bool_]:
    inside = patch_means(green**2) - patch_means(green) ** 2
    return np.asarray(inside - 2 * luma_variance / frames < _FLAT_CODES**2, np.bool_)


def patch_means(plane: NDArray[np.float32]) -> Array:
    """Average a plane over its patches, row by row, ``(K,)``; what fills no patch is left out."""
    rows, columns = plane.shape[0] // PATCH_PX, plane.shape[1] // PATCH_PX
    cut = plane[: rows * PATCH_PX, : columns * PATCH_PX].astype(np.float64)
    return np.asarray(cut.reshape(rows, PATCH_PX, columns, PATCH_PX).mean(axis=(1, 3)).ravel(), np.float64)
