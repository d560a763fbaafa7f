"""Printed ChArUco boards: draw them exactly, find them in frames, say where their middle is and how surely.

A board's homography is used for its own middle and scale only; extrapolated over the frame it would be pixels
off. Markers give position, the picture itself gives rotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import BoardSpec

Grey = NDArray[np.uint8]
Array = NDArray[np.float64]

MIN_CORNERS = 6
"""Fewer corners carry no position worth having."""

_FINEST_RATIO = 60  # a marker is drawn to the nearest such part of its square; corners stay exact
_BLURS_PX = (0.0, 1.2, 2.2)
_QUICK_THRESHOLD_PX = 13
_REPROJECTION_PX = 1.0
_CORNER_NOISE_PX = 0.01  # no corner is believed to be better known than this


class Window(NamedTuple):
    """A rectangle of whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def clipped(self, size: tuple[int, int]) -> Window:
        """Return the part inside a picture of ``size`` (width, height); may be empty."""
        x0, y0 = max(self.x, 0), max(self.y, 0)
        x1, y1 = min(self.x + self.width, size[0]), min(self.y + self.height, size[1])
        return Window(x0, y0, max(x1 - x0, 0), max(y1 - y0, 0))

    def of(self, picture: Grey) -> Grey:
        """Cut the window out of a picture; it must lie inside."""
        return picture[self.y : self.y + self.height, self.x : self.x + self.width]

    def grown(self, margin: int) -> Window:
        """Return the window with ``margin`` px more on every side."""
        return Window(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)


@dataclass(frozen=True)
class BoardSighting:
    """A board found in one frame."""

    centre_px: tuple[float, float]
    """Where the middle of the board is."""
    covariance_px2: Array
    """Of the centre, ``(2, 2)``, from the residuals of the corners."""
    homography: Array
    """Board plane in mm, origin at the board's top left, to frame px, ``(3, 3)``."""
    corners: int
    """Chessboard corners the homography rests on."""
    px_per_mm: float
    """Scale across the line of sight in the board's middle; a tilt does not shorten it."""
    window: Window
    """Bounding box of the whole board, not clipped to the frame."""
    corners_mm: Array
    """``(corners, 2)`` in the board's plane."""
    corners_px: Array
    """``(corners, 2)`` where the same corners are."""


class MarkerBoard:
    """One printed board.

    Args:
        spec: Its geometry and its slice of the marker dictionary.

    Raises:
        ValueError: The dictionary is unknown to OpenCV or too small for the slice, or the markers do not fit.
    """

    def __init__(self, spec: BoardSpec) -> None:
        self.spec = spec
        if not hasattr(cv2.aruco, spec.dictionary):
            raise ValueError(f"OpenCV has no marker dictionary {spec.dictionary}")
        if spec.marker_mm >= spec.square_mm:
            raise ValueError(f"markers of {spec.marker_mm} mm do not fit into squares of {spec.square_mm} mm")
        self._dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, spec.dictionary))
        last = spec.first_id + spec.columns * spec.rows // 2
        if last > len(self._dictionary.bytesList):
            raise ValueError(f"{spec.dictionary} has no marker {last - 1}, which this board needs")
        self._ids = np.arange(spec.first_id, last)

    @property
    def corner_count(self) -> int:
        """Chessboard corners of the whole board."""
        return (self.spec.columns - 1) * (self.spec.rows - 1)

    @property
    def centre_mm(self) -> tuple[float, float]:
        """Middle of the board in its own plane."""
        return self.spec.columns * self.spec.square_mm / 2, self.spec.rows * self.spec.square_mm / 2

    @cached_property
    def _board(self) -> Any:
        spec = self.spec
        size = (spec.columns, spec.rows)
        return cv2.aruco.CharucoBoard(size, spec.square_mm, spec.marker_mm, self._dictionary, self._ids)

    @cached_property
    def _detector(self) -> Any:
        return self._detector_of(cv2.aruco.DetectorParameters())

    @cached_property
    def _quick_detector(self) -> Any:
        """Half the work: the middle one of the usual three sizes of neighbourhood that black is told from white in."""
        parameters = cv2.aruco.DetectorParameters()
        parameters.adaptiveThreshWinSizeMin = parameters.adaptiveThreshWinSizeMax = _QUICK_THRESHOLD_PX
        return self._detector_of(parameters)

    def _detector_of(self, parameters: Any) -> Any:
        charuco = cv2.aruco.CharucoParameters()
        charuco.checkMarkers = False  # the check drops valid boards under strong perspective
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
        parameters.cornerRefinementWinSize = 3
        return cv2.aruco.CharucoDetector(self._board, charuco, parameters)

    def draw(self, *, min_square_px: int = 100) -> Grey:
        """Draw the board so that every edge falls on a pixel edge.

        Args:
            min_square_px: Least side of a square; the side used is the next that suits the markers' modules.

        Returns:
            ``(rows × side, columns × side)`` uint8, black and white, no margin.
        """
        modules = self._dictionary.markerSize + 2
        ratio = Fraction(self.spec.marker_mm / self.spec.square_mm).limit_denominator(_FINEST_RATIO)
        side = 2 * modules * ratio.denominator  # even margins, whole modules
        side *= -(-min_square_px // side)
        marker = self._dictionary.generateImageMarker
        return self._paint(side, int(side * ratio), marker)

    def _paint(self, side: int, marker_px: int, marker: Any) -> Grey:
        """Paint black squares and markers; a square is black where column and row have the same parity."""
        picture = np.zeros((self.spec.rows * side, self.spec.columns * side), np.uint8)
        margin = (side - marker_px) // 2
        white = [(r, c) for r in range(self.spec.rows) for c in range(self.spec.columns) if (r + c) % 2]
        for number, (row, column) in zip(self._ids, white, strict=True):
            square = picture[row * side : (row + 1) * side, column * side : (column + 1) * side]
            square[:] = 255
            inner = square[margin : margin + marker_px, margin : margin + marker_px]
            inner[:] = marker(int(number), marker_px)
        return picture

    def detect(
        self, grey: Grey, *, near: Window | None = None, neighbours: Sequence[Grey] = ()
    ) -> BoardSighting | None:
        """Find the board, trying harder step by step.

        The steps are a percentile stretch, two strengths of smoothing, and the mean with neighbouring frames.

        Args:
            grey: ``(H, W)`` uint8.
            near: Where to look; the whole frame if not given.
            neighbours: Frames of the same size, moved so that the board lies where it lies in ``grey``.

        Returns:
            The sighting, or None where fewer than `MIN_CORNERS` corners were found.
        """
        window = (near or Window(0, 0, grey.shape[1], grey.shape[0])).clipped((grey.shape[1], grey.shape[0]))
        if min(window.width, window.height) < 16:
            return None
        for view in _ladder(window.of(grey), [window.of(n) for n in neighbours]):
            sighting = self._sight(view, window)
            if sighting is not None:
                return sighting
        return None

    def _sight(self, view: Grey, window: Window) -> BoardSighting | None:
        corners, ids, _, _ = self._quick_detector.detectBoard(view)
        if np.size(ids) < self.corner_count:  # None counts as one
            corners, ids, _, _ = self._detector.detectBoard(view)
        if ids is None or np.size(ids) < MIN_CORNERS:
            return None
        # Shapes differ between OpenCV 4 and 5.
        image = np.asarray(np.reshape(corners, (-1, 2)), np.float64) + np.array([window.x, window.y])
        plane = np.asarray(self._board.getChessboardCorners(), np.float64)[np.ravel(ids), :2]
        return self._fit(plane, image)

    def _fit(self, plane: Array, image: Array) -> BoardSighting | None:
        found, inlier = cv2.findHomography(plane, image, cv2.RANSAC, _REPROJECTION_PX)
        keep = np.zeros(len(plane), bool) if inlier is None else np.ravel(inlier).astype(bool)
        if found is None or keep.sum() < MIN_CORNERS:
            return None
        homography = np.asarray(found, np.float64)
        plane, image = plane[keep], image[keep]
        centre = np.array(self.centre_mm)
        scatter = (image - _map(homography, plane)) ** 2
        variance = max(float(scatter.sum() / (2 * len(plane) - 8)), _CORNER_NOISE_PX**2)
        away = centre - plane.mean(axis=0)
        spread = np.cov(plane.T, bias=True) + np.eye(2) * 1e-9
        leverage = (1 + away @ np.linalg.solve(spread, away)) / len(plane)
        u, v = _map(homography, centre[None])[0]
        return BoardSighting(
            centre_px=(float(u), float(v)),
            covariance_px2=variance * leverage * np.eye(2),
            homography=homography,
            corners=len(plane),
            px_per_mm=_scale(homography, centre),
            window=self._outline(homography),
            corners_mm=plane,
            corners_px=image,
        )

    def _outline(self, homography: Array) -> Window:
        width, height = self.spec.columns * self.spec.square_mm, self.spec.rows * self.spec.square_mm
        corners = _map(homography, np.array([[0, 0], [width, 0], [0, height], [width, height]], float))
        x0, y0 = np.floor(corners.min(axis=0)).astype(int)
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int)
        return Window(int(x0), int(y0), int(x1 - x0 + 1), int(y1 - y0 + 1))


def _ladder(view: Grey, neighbours: Sequence[Grey]) -> Iterator[Grey]:
    for sigma in _BLURS_PX:
        yield _stretched(view if not sigma else np.asarray(cv2.GaussianBlur(view, (0, 0), sigma), np.uint8))
    if neighbours:
        mean = np.asarray(np.mean([view, *neighbours], axis=0), np.float32)
        yield _stretched(np.asarray(cv2.GaussianBlur(mean, (0, 0), _BLURS_PX[1]), np.float32))


def _stretched(view: NDArray[Any]) -> Grey:
    low, high = np.percentile(view, (0.5, 99.5))
    scale = 255.0 / max(float(high - low), 1.0)
    return np.asarray(cv2.convertScaleAbs(np.maximum(view, low), alpha=scale, beta=-low * scale), np.uint8)


def _map(homography: Array, points: Array) -> Array:
    return np.asarray(cv2.perspectiveTransform(points[:, None], homography)[:, 0], np.float64)


def _scale(homography: Array, centre: Array) -> float:
    """Return the larger singular value of the map's slope at a point, px per mm."""
    steps = _map(homography, centre + np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]]))
    slope = np.column_stack([steps[0] - steps[1], steps[2] - steps[3]])
    return float(np.linalg.svd(slope, compute_uv=False)[0])
