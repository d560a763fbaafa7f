"""What a small movement of the camera does to its picture: models, Jacobians, homographies.

If the optical centre returns to the same place, two pictures differ by a rotation of the camera alone,
whatever the depth of the scene: three numbers, exact. Focus breathing adds a scale. A free homography
is for what is left, such as the shear of a rolling shutter.

Pixel centres are at integers, x right, y down. ``H`` maps a pixel of the ground truth to the degraded frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ModelName = Literal["shift", "rotation", "scale", "homography"]

PARAMETERS: dict[ModelName, int] = {"shift": 2, "rotation": 3, "scale": 4, "homography": 8}

TYPICAL_FOCAL_WIDTHS = 1.2
"""Focal length over the longer side of a picture whose lens is not known: a view of 45 degrees."""
_UNDISTORT_STEPS = 6


def typical_focal_px(width: int, height: int) -> float:
    """Guess the focal length of an unknown lens, px."""
    return TYPICAL_FOCAL_WIDTHS * max(width, height)


@dataclass(frozen=True)
class Pinhole:
    """A camera with at most two radial distortion coefficients, its principal point in the middle of the picture."""

    focal_px: float
    width: int
    """px"""
    height: int
    """px"""
    k1: float = 0.0
    """OpenCV's first radial coefficient, as a calibration tells it."""
    k2: float = 0.0
    """The second one."""

    @property
    def distorts(self) -> bool:
        """Straight lines come out bent."""
        return bool(self.k1 or self.k2)

    @property
    def matrix(self) -> Array:
        """The 3×3 matrix K that maps a ray to a pixel."""
        cx, cy = (self.width - 1) / 2, (self.height - 1) / 2
        return np.array([[self.focal_px, 0, cx], [0, self.focal_px, cy], [0, 0, 1]])

    @property
    def centre_px(self) -> Array:
        """Middle of the picture, ``(2,)``."""
        return np.array([(self.width - 1) / 2, (self.height - 1) / 2])

    def rays(self, points_px: Array) -> Array:
        """Map pixels ``(n, 2)`` to rays ``(n, 2)``: the tangents of their angles to the optical axis."""
        seen = np.asarray((points_px - self.centre_px) / self.focal_px, np.float64)
        ideal = seen
        for _ in range(_UNDISTORT_STEPS if self.distorts else 0):
            ideal = seen / self._radial(np.sum(ideal**2, axis=-1, keepdims=True))
        return ideal

    def ideal(self, points_px: Array) -> Array:
        """Move pixels ``(n, 2)`` to where a lens without distortion would show the same."""
        if not self.distorts:
            return points_px
        return np.asarray(self.rays(points_px) * self.focal_px + self.centre_px)

    def pixels(self, rays: Array) -> Array:
        """Map rays ``(n, 2)`` to pixels ``(n, 2)``, the inverse of `rays`."""
        radial = self._radial(np.sum(rays**2, axis=-1, keepdims=True))
        return np.asarray(rays * radial * self.focal_px + self.centre_px, np.float64)

    def _radial(self, square: Array) -> Array:
        """How much farther from the middle a ray lands, by the square of its tangent."""
        return np.asarray(1 + (self.k1 + self.k2 * square) * square, np.float64)

    def stretch(self, rays: Array) -> Array:
        """How the distortion stretches the picture at rays ``(n, 2)``: ``(n, 2, 2)``, identity without it."""
        square = np.sum(rays**2, axis=-1)[:, None, None]
        outer = rays[:, :, None] * rays[:, None, :]
        along = 2 * self.k1 + 4 * self.k2 * square
        return np.asarray(np.eye(2) * self._radial(square) + along * outer, np.float64)


def jacobian(model: ModelName, camera: Pinhole, points_px: Array) -> Array:
    """Differentiate the picture's displacement by the model's parameters.

    Args:
        model: ``shift`` (dx, dy in px), ``rotation`` (pitch, yaw, roll in rad), ``scale`` (rotation and the
            relative scale), ``homography`` (the first eight entries of a matrix in rays, minus identity).
        camera: Its focal length turns angles into pixels.
        points_px: ``(n, 2)``.

    Returns:
        ``(n, 2, p)``, px per unit of parameter.
    """
    rays = camera.rays(points_px)
    x, y = rays.T
    one, nil = np.ones_like(x), np.zeros_like(x)
    if model == "shift":
        rows = [[one, nil], [nil, one]]
        return np.moveaxis(np.array(rows), -1, 0)
    if model == "homography":
        rows = [[x, y, one, nil, nil, nil, -x * x, -x * y], [nil, nil, nil, x, y, one, -x * y, -y * y]]
    else:
        rows = [[-x * y, 1 + x * x, -y], [-(1 + y * y), x * y, x]]
        if model == "scale":
            rows = [[*rows[0], x], [*rows[1], y]]
    straight = camera.focal_px * np.moveaxis(np.array(rows), -1, 0)
    return np.asarray(camera.stretch(rays) @ straight if camera.distorts else straight, np.float64)


def motion_matrix(model: ModelName, camera: Pinhole, parameters: Array) -> Array:
    """Build the 3×3 pixel homography of finite parameters, exact where `jacobian` is their first order."""
    if model == "shift":
        return np.array([[1, 0, parameters[0]], [0, 1, parameters[1]], [0, 0, 1]])
    if model == "homography":
        inner = np.eye(3) + np.append(parameters, 0.0).reshape(3, 3)
    else:
        inner = np.asarray(cv2.Rodrigues(parameters[:3])[0], np.float64)
        if model == "scale":
            inner = inner @ np.diag([1 + parameters[3], 1 + parameters[3], 1])
    if camera.distorts:
        return _seen_through_lens(inner, camera)
    return normalised(camera.matrix @ inner @ inverted(camera.matrix))


def _seen_through_lens(inner: Array, camera: Pinhole) -> Array:
    """Fit the pixel homography to what a movement does behind a distorting lens.

    For a picture that moves by a pixel and k1 = -0.05 the fit is good to 0.01 px in the corners.
    """
    seen = grid_points(0, 0, camera.width, camera.height)
    moved = camera.pixels(map_points(inner, camera.rays(seen)))
    found, _ = cv2.findHomography(seen, moved, 0)
    return normalised(np.asarray(found, np.float64))


def normalised(homography: Array) -> Array:
    """Scale a homography so that its last entry is 1."""
    return np.asarray(homography / homography[2, 2], np.float64)


def angles_and_scale(homography: Array, camera: Pinhole) -> tuple[tuple[float, float, float], float]:
    """Read pitch, yaw and roll in degrees and the scale out of a homography, by the nearest rotation."""
    inner = inverted(camera.matrix) @ homography @ camera.matrix
    norms = np.linalg.norm(inner, axis=0)
    u, _, vt = np.linalg.svd(inner / norms)
    pitch, yaw, roll = np.degrees(cv2.Rodrigues(u @ vt)[0].ravel())
    return (float(pitch), float(yaw), float(roll)), float(np.sqrt(norms[0] * norms[1]) / norms[2])


def inverted(matrix: Array) -> Array:
    """Invert a matrix."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


def map_points(homography: Array, points_px: Array) -> Array:
    """Map pixels ``(n, 2)`` through a homography."""
    mapped = points_px @ homography[:, :2].T + homography[:, 2]
    return np.asarray(mapped[:, :2] / mapped[:, 2:], np.float64)


def row_share(points_px: Array, height: int) -> Array:
    """Place of pixels ``(n, 2)`` between the first and the last of ``height`` rows, ``(n,)``: -0.5 to 0.5."""
    return np.asarray((points_px[:, 1] - (height - 1) / 2) / (height - 1), np.float64)


def gap_over_rows_mm(gap_mm: float, readout_gap_mm: float) -> float:
    """Position gap between two frames, root mean square over the rows of a rolling shutter.

    Args:
        gap_mm: In the middle row.
        readout_gap_mm: How much it changes from the first row to the last.
    """
    return math.hypot(gap_mm, readout_gap_mm / math.sqrt(12))


def grid_points(x: float, y: float, width: float, height: float, *, columns: int = 9, rows: int = 7) -> Array:
    """Lay a grid of points over a rectangle, corners included: ``(columns × rows, 2)`` px."""
    xs, ys = np.meshgrid(np.linspace(x, x + width - 1, columns), np.linspace(y, y + height - 1, rows))
    return np.column_stack([xs.ravel(), ys.ravel()])


def at_scale(homography: Array, scale: int) -> Array:
    """Express a homography between frames as one between the same frames reduced ``scale`` times."""
    offset = (scale - 1) / 2
    up = np.array([[scale, 0, offset], [0, scale, offset], [0, 0, 1.0]])
    return normalised(inverted(up) @ homography @ up)
