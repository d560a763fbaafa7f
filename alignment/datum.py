"""One datum for all rounds: from where targets lie in the picture to where the camera is on the rail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Pinhole, row_share
from alignment.errors import NoMotionError
from alignment.tracking import ReferenceTracks, TargetTrack
from alignment.velocity import Track

Array = NDArray[np.float64]

_OCCLUDED_SHARE = 0.8
_LEAST_SIGMA_PX = 0.01
_LEAST_VOTERS = 3
_OUTVOTED_SIGMA = 5.0
_OUTVOTED_PX = 0.3
"""Deviation from the median of three or more targets beyond which one does not count: that many standard deviations
and so many px for what bends of the rail make of different depths."""


@dataclass(frozen=True, eq=False)
class _TargetScale:
    """How one target runs through the picture while the camera moves."""

    origin_px: Array
    """Anchor at position 0, ``(2,)``."""
    direction: Array
    """Unit vector of the anchor's motion for growing positions, ``(2,)``."""
    px_per_mm: float

    def position(self, anchor_px: Array) -> Array:
        """Return positions of anchors ``(N, 2)``."""
        return np.asarray((anchor_px - self.origin_px) @ self.direction / self.px_per_mm, np.float64)


@dataclass(frozen=True, eq=False)
class Datum:
    """Positions in mm of the reference board, 0 where the first ground-truth round stood at rest.

    Positions grow in the direction in which that round moved.
    """

    scales: tuple[_TargetScale, ...]
    reference: int
    """Which target sets the scale."""
    metric: bool
    """True if the scale is that of a board of known size; otherwise positions count px."""
    lens: Pinhole | None = None
    """Takes distortion out of the anchors; None where no calibration knows the lens."""

    @classmethod
    def of(
        cls, tracks: ReferenceTracks, *, lens: Pinhole | None = None, readout_mm: Array | None = None
    ) -> Datum:
        """Establish the datum on a ground-truth round.

        Args:
            tracks: Of that round.
            lens: The calibrated lens.
            readout_mm: ``(N,)`` way of the carriage while each frame is read out; None for a global shutter.

        Raises:
            NoMotionError: No target moves.
        """
        reference = _best_target(tracks)
        own = tracks.targets[reference].px_per_mm
        anchors = [_ideal(track.anchor_px, lens) for track in tracks.tracks]
        px_per_mm = float(np.median(own)) / _stretch(tracks.tracks[reference], lens) if own else 1.0
        rows = [_row_way(track, lens, readout_mm) for track in tracks.tracks]
        scale = _first_scale(anchors[reference][tracks.tracks[reference].found], px_per_mm)
        position = scale.position(anchors[reference]) - rows[reference]
        scales = [
            scale if i == reference else _fitted_scale(anchor, position + row)
            for i, (anchor, row) in enumerate(zip(anchors, rows, strict=True))
        ]
        return cls(tuple(scales), reference, metric=bool(own), lens=lens)

    @property
    def px_per_mm(self) -> float:
        """Picture motion of the reference target per mm of camera motion."""
        return self.scales[self.reference].px_per_mm

    @property
    def direction(self) -> Array:
        """Unit vector of the reference target's motion for growing positions, ``(2,)``."""
        return self.scales[self.reference].direction

    def scaled(self, px_per_mm: float) -> Datum:
        """Return the datum in mm, given the reference target's scale as telemetry or a command tells it."""
        factor = px_per_mm / self.px_per_mm
        scales = tuple(_TargetScale(s.origin_px, s.direction, s.px_per_mm * factor) for s in self.scales)
        return Datum(scales, self.reference, metric=True, lens=self.lens)

    def positions(
        self, tracks: Sequence[TargetTrack], *, time_s: Array, readout_mm: Array | None = None
    ) -> Track:
        """Combine the targets of a take, each weighted by how well it tells the position.

        Frames in which a target correlates much less than it usually does in this take do not count for it:
        something stands in front of it.

        Args:
            tracks: The targets' paths.
            time_s: Mid-exposure of every frame.
            readout_mm: ``(N,)`` way of the carriage while each frame is read out: a target above or below the
                middle row was seen earlier or later. None for a global shutter.
        """
        position, sigma_mm = np.full((2, len(tracks), len(time_s)), np.nan)
        for i, (scale, track) in enumerate(zip(self.scales, tracks, strict=True)):
            good = visible(track)
            place = scale.position(_ideal(track.anchor_px, self.lens)) - _row_way(
                track, self.lens, readout_mm
            )
            position[i, good] = place[good]
            sigma_mm[i, good] = np.maximum(track.sigma_px[good], _LEAST_SIGMA_PX) / scale.px_per_mm
        weights = np.where(self._agrees(position, sigma_mm), 1 / sigma_mm**2, 0.0)
        total = weights.sum(axis=0)
        index = np.flatnonzero(total > 0)
        mean = np.nansum(weights * position, axis=0)[index] / total[index]
        return Track(index, time_s[index], mean, 1 / np.sqrt(total[index]))

    def _agrees(self, position: Array, sigma_mm: Array) -> NDArray[np.bool_]:
        """Tell which targets to believe, ``(T, N)``: three or more outvote one that was taken for something else.

        Where only two of them are in view and contradict each other, neither is believed.
        """
        known = np.isfinite(position)
        if len(position) < _LEAST_VOTERS:
            return known
        shown = known.any(axis=0)
        off = np.abs(position[:, shown] - np.nanmedian(position[:, shown], axis=0))
        agrees = known.copy()
        agrees[:, shown] &= off <= _OUTVOTED_SIGMA * sigma_mm[:, shown] + _OUTVOTED_PX / self.px_per_mm
        return agrees


def _ideal(anchor_px: Array, lens: Pinhole | None) -> Array:
    return anchor_px if lens is None else lens.ideal(anchor_px)


def _stretch(track: TargetTrack, lens: Pinhole | None) -> float:
    """By how much the lens enlarges the target, as `BoardSighting.px_per_mm` counts it: along the longer axis."""
    if lens is None:
        return 1.0
    middle = np.median(track.anchor_px[track.found], axis=0)
    return float(np.linalg.svd(lens.stretch(lens.rays(middle[None]))[0], compute_uv=False)[0])


def _row_way(track: TargetTrack, lens: Pinhole | None, readout_mm: Array | None) -> Array:
    """Way of the carriage between the middle row's exposure and that of the target's row, ``(N,)``."""
    if lens is None or readout_mm is None:
        return np.zeros(len(track.sigma_px))
    return np.asarray(readout_mm * row_share(track.anchor_px, lens.height), np.float64)


def mean_shift(gt: Sequence[Array], lq: Sequence[Array]) -> Array | None:
    """Average the picture shift of the targets between two frames, ``(2,)``; None where no target is in both.

    Args:
        gt: Every target's anchor in the one frame, NaN where it was not seen.
        lq: The same in the other frame.
    """
    shifts = np.array([b - a for a, b in zip(gt, lq, strict=True)])
    seen = shifts[np.isfinite(shifts).all(axis=1)]
    return np.asarray(seen.mean(axis=0), np.float64) if len(seen) else None


def visible(track: TargetTrack) -> NDArray[np.bool_]:
    """Tell in which frames a target was found and not covered, ``(N,)``."""
    if not track.found.any():
        return track.found
    usual = float(np.median(track.ncc[track.found]))
    return track.found & (np.nan_to_num(track.ncc) >= _OCCLUDED_SHARE * usual)


def _best_target(tracks: ReferenceTracks) -> int:
    """Choose, among those that are in view longest, one of known scale, and the one that moves most."""
    if not tracks.targets:
        raise NoMotionError("no target to measure positions by")
    found = [int(track.found.sum()) for track in tracks.tracks]
    scales = [float(np.median(t.px_per_mm)) if t.px_per_mm else 0.0 for t in tracks.targets]
    longest = [i for i, count in enumerate(found) if count >= 0.95 * max(found)]
    return max(longest, key=lambda i: scales[i])


def _first_scale(anchors: Array, px_per_mm: float) -> _TargetScale:
    travel = anchors[-1] - anchors[0]
    length = float(np.linalg.norm(travel))
    if length < 1.0:
        raise NoMotionError(
            f"the picture moves by {length:.2f} px in the whole ground-truth round",
            next_step="check that the rail moved while the camera recorded",
        )
    _, _, rows = np.linalg.svd(anchors - anchors.mean(axis=0), full_matrices=False)
    direction = rows[0] * np.sign(rows[0] @ travel)
    still = anchors[: max(1, min(3, len(anchors) // 4))]
    return _TargetScale(still.mean(axis=0), direction, px_per_mm)


def _fitted_scale(anchor_px: Array, position: Array) -> _TargetScale:
    """Fit ``anchor = origin + slope · position`` over the frames in which both are known."""
    both = np.isfinite(anchor_px).all(axis=1) & np.isfinite(position)
    if both.sum() < 3 or np.ptp(position[both]) <= 0:
        raise NoMotionError("two boards are never in view together, so they share no datum")
    design = np.column_stack([np.ones(both.sum()), position[both]])
    (origin, slope), *_ = np.linalg.lstsq(design, anchor_px[both], rcond=None)
    px_per_mm = float(np.linalg.norm(slope))
    return _TargetScale(origin, slope / px_per_mm, px_per_mm)
