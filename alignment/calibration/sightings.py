"""Where the boards' corners lie in a choice of frames of a session's clean takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.decode import Frame
from alignment.errors import NoMotionError
from alignment.markers import BoardSighting, MarkerBoard, Window
from alignment.takes import Array, TakeSource
from alignment.velocity import FIT_SCALE_PX, Track, fit_kinematics
from catalog.session_folder import BoardSpec

MOVING_FRAMES = 40
"""Frames looked at per take, spread evenly over it."""
_SEARCH_MARGIN_PX = 24
_LEAST_SIGHTINGS = 12
_STILL_MM_S = 0.2
_RESTS = 4
"""Frames at rest repeat one error: only every so-manieth is kept."""
_LEAST_REACH_PX, _MOST_REACH_PX = 3, 9
"""Of the refinement to either side of a corner: what is farther says little, and costs."""
_SOFTENED_PX = 1.0
"""Standard deviation of the smoothing before refinement, whose own interpolation is linear: edges as sharp as a pixel
it puts 0.025 px beside their place, by where they lie between pixels. Rendered boards of 5.7 to 8.2 px a module: 0.012,
a quarter of what is left in all frames alike (0.003 to 0.005 px before) and a tenth less noise; more smoothing gains
nothing and lets the markers in."""
_STRAYED_PX = 0.5
_PLACE_SIGMA_PX = 0.02
_STEP_S = 1e-3
_UNTIL = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
"""Detection itself stops at a tenth of a pixel."""


@dataclass(frozen=True, eq=False)
class BoardFrame:
    """The corners of the boards in one frame."""

    time_s: float
    """Mid-exposure of the middle row on the take's own time line."""
    board: NDArray[np.int64]
    """``(n,)`` which board each corner belongs to."""
    plane_mm: Array
    """``(n, 2)`` in that board's plane."""
    image_px: Array
    """``(n, 2)``"""


@dataclass(frozen=True, eq=False)
class TakeSightings:
    """What one take shows of the boards."""

    source: TakeSource
    frames: tuple[BoardFrame, ...]
    velocity_mm_s: Array
    """``(F,)`` of the camera at the frames, mm of board."""

    @property
    def time_s(self) -> Array:
        """``(F,)`` of the frames."""
        return np.array([f.time_s for f in self.frames])

    def at_places(self, place_mm: Array, *, px_per_mm: float) -> TakeSightings:
        """Return the same at the speeds that other places of the camera along the rail ``(F,)`` tell."""
        try:
            velocity = _fitted_velocities(self.time_s, place_mm, at_s=self.time_s, px_per_mm=px_per_mm)
        except NoMotionError:
            return self
        return replace(self, velocity_mm_s=velocity)


def sight_boards(source: TakeSource, boards: Sequence[BoardSpec]) -> TakeSightings | None:
    """Find the boards' corners in a take; None where too few frames show one or nothing moves.

    Raises:
        DecodeError: The take cannot be decoded.
    """
    markers = [MarkerBoard(spec) for spec in boards]
    count = len(source.time_s)
    wanted = np.unique(np.linspace(0, count - 1, min(count, MOVING_FRAMES)).astype(int))
    near: list[Window | None] = [None] * len(markers)
    frames = []
    with source.open() as reader:
        for index in wanted:
            found = _sight(reader.read(int(index)), float(source.time_s[index]), markers, near)
            if found is not None:
                frames.append(found)
    if len(frames) < _LEAST_SIGHTINGS:
        return None
    try:
        velocity = _velocities(frames)
    except NoMotionError:
        return None
    kept = _thinned(velocity)
    return TakeSightings(source, tuple(frames[i] for i in kept), velocity[kept])


def _sight(
    frame: Frame, time_s: float, markers: Sequence[MarkerBoard], near: list[Window | None]
) -> BoardFrame | None:
    grey, parts = frame.grey(), []
    soft = np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _SOFTENED_PX), np.float32)
    for number, marker in enumerate(markers):
        seen = marker.detect(grey, near=near[number])
        if seen is None and near[number] is not None:
            seen = marker.detect(grey)
        near[number] = None if seen is None else seen.window.grown(_SEARCH_MARGIN_PX)
        if seen is not None:
            image = _refined(soft, seen, marker.spec)
            parts.append((np.full(seen.corners, number), seen.corners_mm, image))
    if not parts:
        return None
    return BoardFrame(time_s, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _refined(soft: NDArray[np.float32], seen: BoardSighting, spec: BoardSpec) -> Array:
    """Refine the corners over all that is black and white about each, up to the markers beside it: ``(n, 2)`` px."""
    white_px = (spec.square_mm - spec.marker_mm) / 2 * seen.px_per_mm
    reach = int(np.clip(white_px - 1, _LEAST_REACH_PX, _MOST_REACH_PX))
    corners = seen.corners_px.astype(np.float32)[:, None].copy()
    found = cv2.cornerSubPix(soft, corners, (reach, reach), (-1, -1), _UNTIL)[:, 0].astype(np.float64)
    strayed = np.linalg.norm(found - seen.corners_px, axis=1) > _STRAYED_PX
    return np.where(strayed[:, None], seen.corners_px, found)


def _velocities(frames: Sequence[BoardFrame]) -> Array:
    """Differentiate the motion fitted to the board seen most often, in mm of that board.

    Where the lens distorts, the picture's scale differs along the way: they are a percent wrong.
    """
    numbers = np.concatenate([np.unique(f.board) for f in frames])
    board = int(np.bincount(numbers).argmax())
    seen = [f for f in frames if (f.board == board).any()]
    matrices = [_similarity(f, board) for f in seen]
    scale = float(np.median([s for s, _ in matrices]))
    place = np.array([-x for _, x in matrices]) / scale
    time_s, at_s = (np.array([f.time_s for f in some]) for some in (seen, frames))
    return _fitted_velocities(time_s, place, at_s=at_s, px_per_mm=scale)


def _fitted_velocities(time_s: Array, place_mm: Array, *, at_s: Array, px_per_mm: float) -> Array:
    """Fit a motion to places at times ``(n,)`` and differentiate it at times ``(F,)``."""
    sigma_mm = np.full(len(time_s), _PLACE_SIGMA_PX / px_per_mm)
    track = Track(np.arange(len(time_s)), time_s, place_mm, sigma_mm)
    motion = fit_kinematics(track, fit_scale_mm=FIT_SCALE_PX / px_per_mm).kinematics
    apart = motion.position(at_s + _STEP_S) - motion.position(at_s - _STEP_S)
    return np.asarray(apart / (2 * _STEP_S), np.float64)


def _similarity(frame: BoardFrame, board: int) -> tuple[float, float]:
    """Return px per mm and the picture's x of the board's origin, by least squares."""
    own = frame.board == board
    plane, image = frame.plane_mm[own], frame.image_px[own]
    centred, shifted = plane - plane.mean(axis=0), image - image.mean(axis=0)
    scale = float(np.sqrt((shifted**2).sum() / (centred**2).sum()))
    return scale, float(image.mean(axis=0)[0] - scale * plane.mean(axis=0)[0])


def _thinned(velocity_mm_s: Array) -> list[int]:
    kept, rests = [], 0
    for number, velocity in enumerate(velocity_mm_s):
        rests = rests + 1 if abs(velocity) < _STILL_MM_S else 0
        if rests <= 1 or rests % _RESTS == 0:
            kept.append(number)
    return kept
