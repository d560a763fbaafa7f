"""Geometry and blur of the simulated camera: where a point lands, and how wide its spot is.

World axes in mm: x along the rail, y down, z into the scene; the rail's zero is x = 0. Pixel centres are at
integers, the principal point is the picture's centre. A pose is a row of six numbers: x, y, z of the optical
centre in mm, then pitch, yaw, roll in deg, taken as one rotation vector that turns the world into the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalog.session_folder import LensSpec

Vectors = NDArray[np.float64]
Image32 = NDArray[np.float32]

ROW_KNOTS = 9
"""Rows of a rolling-shutter frame whose pose is worked out; the others lie between."""

_STILL_PX = 0.3
_INSTANT_PX = 0.5
_MAX_INSTANTS = 48
_DISC_SUPERSAMPLING = 32
_UNDISTORT_STEPS = 8


@dataclass(frozen=True)
class Pinhole:
    """A pinhole with two radial distortion coefficients (OpenCV's ``k1`` and ``k2``)."""

    focal_px: float
    width: int
    height: int
    k1: float = 0.0
    k2: float = 0.0

    @property
    def distorts(self) -> bool:
        """Straight lines come out bent."""
        return bool(self.k1 or self.k2)

    @property
    def centre_px(self) -> tuple[float, float]:
        """Principal point, px."""
        return (self.width - 1) / 2, (self.height - 1) / 2

    @property
    def matrix(self) -> Vectors:
        """Camera matrix, (3, 3)."""
        cx, cy = self.centre_px
        return np.array([[self.focal_px, 0.0, cx], [0.0, self.focal_px, cy], [0.0, 0.0, 1.0]])

    def project(self, points_mm: Vectors, poses: Vectors) -> Vectors:
        """Project world points (N, 3) seen from ``poses`` (6,) or (N, 6) to pixels (N, 2)."""
        camera = np.einsum("...ij,...j->...i", rotations(poses), points_mm - poses[..., :3])
        flat = camera[..., :2] / camera[..., 2:]
        square = np.sum(flat**2, axis=-1, keepdims=True)
        radial = 1 + (self.k1 + self.k2 * square) * square
        return np.asarray(self.focal_px * flat * radial + self.centre_px)

    def rays(self, points_px: Vectors) -> Vectors:
        """Undistorted directions (N, 3), third component 1, of pixels (N, 2) in the camera's axes."""
        flat = (points_px - np.array(self.centre_px)) / self.focal_px
        return np.concatenate([_undistorted(flat, self.k1, self.k2), np.ones((*flat.shape[:-1], 1))], axis=-1)

    def hit(self, points_px: Vectors, poses: Vectors, depth_mm: float) -> Vectors:
        """World x, y (N, 2) where the rays of pixels (N, 2) meet the plane z = ``depth_mm``."""
        turned = np.einsum("...ji,...j->...i", rotations(poses), self.rays(points_px))
        length = (depth_mm - poses[..., 2:3]) / turned[..., 2:]
        return np.asarray(poses[..., :2] + length * turned[..., :2])

    def plane_to_image(self, pose: Vectors, depth_mm: float) -> Vectors:
        """Homography (3, 3) from x, y in mm on the plane z = ``depth_mm`` to pixels, distortion left out."""
        to_camera = np.column_stack([np.eye(3)[:, :2], np.array([0.0, 0.0, depth_mm]) - pose[:3]])
        return np.asarray(self.matrix @ rotations(pose) @ to_camera)


def _undistorted(flat: Vectors, k1: float, k2: float) -> Vectors:
    radius = np.hypot(flat[..., 0], flat[..., 1])
    straight = radius.copy()
    for _ in range(_UNDISTORT_STEPS if k1 or k2 else 0):  # Newton on r (1 + k1 r^2 + k2 r^4) = r_d
        excess = straight + k1 * straight**3 + k2 * straight**5 - radius
        straight -= excess / (1 + 3 * k1 * straight**2 + 5 * k2 * straight**4)
    scale = np.divide(straight, radius, out=np.ones_like(radius), where=radius > 0)
    return flat * scale[..., None]


def rotations(poses: Vectors) -> Vectors:
    """Rotation matrices (..., 3, 3) of poses (..., 6): world to camera."""
    vector = np.radians(poses[..., 3:])
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    # np.sinc(t) is sin(pi t)/(pi t): both factors of Rodrigues' formula stay exact at angle 0.
    sine = np.sinc(angle / np.pi)
    versine = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return np.asarray(np.eye(3) + sine * cross + versine * (cross @ cross))


def exposed_poses(poses: Vectors, *, exposure_s: float, readout_s: float, px_per_mm: float) -> Vectors:
    """Poses at the instants whose light is averaged into one picture.

    Args:
        poses: (K, 6) poses at evenly spaced times from the start of the first row's exposure to the end of
            the last row's.
        exposure_s: Exposure of each row, s.
        readout_s: Delay of the last row behind the first, s; 0 exposes all rows together.
        px_per_mm: Picture scale of the nearest plane; sets how many instants the motion needs.

    Returns:
        (I, M, 6): I instants in the middle of equal parts of the exposure, M rows spread evenly over the
        picture (1 without readout delay, else `ROW_KNOTS`). The mean over I is where the picture's rows are.
    """
    share = exposure_s / (exposure_s + readout_s)
    path_mm = float(np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1).sum())
    motion_px = share * path_mm * px_per_mm
    count = 1 if motion_px <= _STILL_PX else min(math.ceil(motion_px / _INSTANT_PX), _MAX_INSTANTS)
    within_s = (np.arange(count) + 0.5) / count * exposure_s
    delay_s = np.linspace(0.0, readout_s, ROW_KNOTS if readout_s else 1)
    when = np.add.outer(within_s, delay_s) / (exposure_s + readout_s) * (len(poses) - 1)
    return np.stack([np.interp(when, np.arange(len(poses)), column) for column in poses.T], axis=-1)


def row_interpolated(knots: Vectors, rows: Vectors, height: int) -> Vectors:
    """Poses (N, 6) of picture rows (N,) between the poses (M, 6) of evenly spread rows."""
    at = np.linspace(0.0, height - 1, len(knots))
    return np.stack([np.interp(rows, at, column) for column in knots.T], axis=-1)


def nominal_focal_px(lens: LensSpec, width: int) -> float:
    """Focal length of the data sheet in px of a picture ``width`` px wide."""
    return lens.focal_mm / lens.sensor_width_mm * width


def focal_length_px(lens: LensSpec, width: int, *, focus_m: float, breathing: float) -> float:
    """Focal length in px at a focus distance.

    Args:
        lens: Focal length and sensor width.
        width: Picture width, px.
        focus_m: Focus distance, m.
        breathing: Share of a thin lens's change of picture scale with focus: 0 none, 1 all of it.
    """
    return nominal_focal_px(lens, width) * (1 + breathing * lens.focal_mm / (focus_m * 1000 - lens.focal_mm))


def blur_radius_px(lens: LensSpec, width: int, *, f_number: float, focus_m: float, depth_mm: float) -> float:
    """Radius in px of the disc of confusion of a point at ``depth_mm``, by the thin lens.

    The aperture's diameter is F/N; a point at Z is imaged to a disc of diameter
    (F/N) |Z - Zf|/Z F/(Zf - F) on the sensor that is focused on Zf.
    """
    focus_mm = focus_m * 1000
    aperture_mm = lens.focal_mm / f_number
    magnification = lens.focal_mm / (focus_mm - lens.focal_mm)
    diameter_mm = aperture_mm * abs(depth_mm - focus_mm) / depth_mm * magnification
    return diameter_mm / 2 / lens.sensor_width_mm * width


def disc_kernel(radius: float) -> Image32:
    """A disc of ``radius`` samples with exact-area edges, odd side, sum 1, centred."""
    reach = max(math.ceil(radius), 1)
    fine = np.arange((2 * reach + 1) * _DISC_SUPERSAMPLING)
    axis = (fine + 0.5) / _DISC_SUPERSAMPLING - 0.5 - reach
    inside = np.hypot(axis[:, None], axis[None, :]) <= radius
    cells = inside.reshape(2 * reach + 1, _DISC_SUPERSAMPLING, 2 * reach + 1, _DISC_SUPERSAMPLING)
    kernel = cells.mean(axis=(1, 3), dtype=np.float64)
    return np.asarray(kernel / kernel.sum(), np.float32)
