"""Where the boards' corners lie in a choice of frames of a session's clean takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.decode import Frame
from alignment.errors import NoMotionError
from alignment.markers import BoardSighting, MarkerBoard, Window
from alignment.takes import Array, TakeSource
from alignment.velocity import Track, fit_kinematics
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
_STRAYED_PX = 0.5
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
    for number, marker in enumerate(markers):
        seen = marker.detect(grey, near=near[number])
        if seen is None and near[number] is not None:
            seen = marker.detect(grey)
        near[number] = None if seen is None else seen.window.grown(_SEARCH_MARGIN_PX)
        if seen is not None:
            image = _refined(grey, seen, marker.spec)
            parts.append((np.full(seen.corners, number), seen.corners_mm, image))
    if not parts:
        return None
    return BoardFrame(time_s, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _refined(grey: NDArray[np.uint8], seen: BoardSighting, spec: BoardSpec) -> Array:
    """Refine the corners over all that is black and white about each, up to the markers beside it: ``(n, 2)`` px."""
    white_px = (spec.square_mm - spec.marker_mm) / 2 * seen.px_per_mm
    reach = int(np.clip(white_px - 1, _LEAST_REACH_PX, _MOST_REACH_PX))
    corners = seen.corners_px.astype(np.float32)[:, None].copy()
    found = cv2.cornerSubPix(grey, corners, (reach, reach), (-1, -1), _UNTIL)[:, 0].astype(np.float64)
    strayed = np.linalg.norm(found - seen.corners_px, axis=1) > _STRAYED_PX
    return np.where(strayed[:, None], seen.corners_px, found)


def _velocities(frames: Sequence[BoardFrame]) -> Array:
    """Differentiate the motion fitted to the board seen most often, in mm of that board."""
    numbers = np.concatenate([np.unique(f.board) for f in frames])
    board = int(np.bincount(numbers).argmax())
    seen = [f for f in frames if (f.board == board).any()]
    matrices = [_similarity(f, board) for f in seen]
    scale = float(np.median([s for s, _ in matrices]))
    place = np.array([-x for _, x in matrices]) / scale
    track = Track(
        np.arange(len(seen)), np.array([f.time_s for f in seen]), place, np.full(len(seen), 0.02 / scale)
    )
    motion = fit_kinematics(track, fit_scale_mm=0.3 / scale).kinematics
    time_s, step_s = np.array([f.time_s for f in frames]), 1e-3
    return (motion.position(time_s + step_s) - motion.position(time_s - step_s)) / (2 * step_s)


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
