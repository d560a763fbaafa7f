"""Lens, boards, rail and shutter in one adjustment of all corners of all frames.

A carriage gives translations only, and boards that face the camera tell neither its focal length nor the
turn of the camera from one frame: prior knowledge enters as an observation with its sigma, and what comes out
with the sigma that went in was not measured. Boards at two depths part a shift of the carriage from a turn of
the camera; boards over the whole height part a roll from the shear of a rolling shutter, which alone grows
with the speed.

World axes are the camera's mean axes: x right, y down, z into the scene; mm. Angles are one rotation vector
that turns the world into the camera.

References:
    Triggs et al., Bundle adjustment: a modern synthesis, 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from alignment.calibration.sightings import TakeSightings
from alignment.camera_motion import row_share
from alignment.takes import Array

Index = NDArray[np.int64]

FOCAL, CX, CY, K1, K2, UP_Y, UP_Z, READOUT = range(8)
"""Places of the numbers that belong to no board in `Solution.common`; then eight per board follow."""
SHARED = 8
POSE = 6
"""Numbers of a board's or a camera's pose."""
_BOARD = POSE + 2
"""Numbers of a board: its pose, and how the pixels' grid draws its corners."""
FOCAL_PRIOR = 0.03
"""Relative sigma of a data sheet's focal length."""
_MEASURED_SHARE = 0.5
"""Share of that below which the boards count as telling it."""
_HELD_PX = 1e-3
CENTRE_PRIOR = 0.01
"""Sigma of the principal point, picture widths."""
_DISTORTION_PRIOR, _DIRECTION_PRIOR, _READOUT_PRIOR_S = 0.3, 0.1, 0.05
_BOARD_TURN_PRIOR, _BOARD_SHIFT_PRIOR_MM = 0.6, 1e4
_PINNED_MM = 1e-3
_NO_K2 = 1e-6
_GRID_PRIOR_PX = 0.05
"""Refinement draws a corner by where it lies between pixels: by the sine of its place, period one pixel and, less, half
a pixel. Measured on rendered boards of 6 px a module and more: 0.013 and 0.002 px, twice what is left as noise."""
_PULL_PRIOR_PX = 0.015
"""A print is not exact, and what detection does to a corner it does in all frames alike: a hundred of them know no
more than one. Rendered boards: 0.001 px; the rest is for printers."""
TURN_PRIOR_DEG = 0.05
"""Sigma of the camera's angles from frame to frame."""
SHIFT_PRIOR_MM = 0.1
"""Sigma of the carriage's way across the rail."""
_ALONG_PRIOR_MM = 1e4
_MOST_STEPS = 12
_CONVERGED = 1e-3
"""Largest step, in standard deviations, at which the adjustment ends."""
_HUBER = 2.0
_LEAST_SIGMA_PX = 0.005
_STEP = 1e-5


@dataclass(frozen=True, eq=False)
class Corners:
    """All corners of all frames as flat arrays of ``n``."""

    size: tuple[int, int]
    """px"""
    frame: Index
    board: Index
    plane_mm: Array
    image_px: Array
    row_share_mm_s: Array
    """Speed times the share of the picture's height below the middle row: times the readout, a way."""
    corner: Index
    """Which corner of all boards."""
    frames: int
    boards: int

    @property
    def corner_count(self) -> int:
        """Corners of all boards that were seen."""
        return int(self.corner.max()) + 1

    @classmethod
    def of(cls, takes: Sequence[TakeSightings], *, boards: int) -> Corners:
        """Join the corners of several takes of one picture size."""
        camera = takes[0].source.camera
        frames = [f for take in takes for f in take.frames]
        velocity = np.concatenate([take.velocity_mm_s for take in takes])
        counts = [len(f.board) for f in frames]
        frame = np.repeat(np.arange(len(frames)), counts)
        image = np.concatenate([f.image_px for f in frames])
        board = np.concatenate([f.board for f in frames])
        plane = np.concatenate([f.plane_mm for f in frames])
        named = np.column_stack([board, np.round(plane, 3)])
        return cls(
            (camera.width, camera.height),
            frame,
            board,
            plane,
            image,
            velocity[frame] * row_share(image, camera.height),
            np.unique(named, axis=0, return_inverse=True)[1].ravel(),
            len(frames),
            boards,
        )


@dataclass(frozen=True)
class Sight:
    """How a place on a board is seen, each number with its standard deviation."""

    depth_mm: tuple[float, float]
    px_per_mm: tuple[float, float]
    """Across the line of sight, distortion taken out."""


@dataclass(frozen=True, eq=False)
class Solution:
    """The adjusted numbers."""

    corners: Corners
    common: Array
    """``(8 + 8 B + 2 C,)``: focal px, principal x and y px, k1, k2, direction of the rail (y, z for 1 in x), readout
    s; of every board its rotation vector, the place of its origin, mm, and how far the pixels' grid draws its corners,
    px: with a period of one pixel and of half a pixel; of every corner how far it lies beside its place, px.
    """
    frames: Array
    """``(F, 6)``: along, y, z mm; pitch, yaw, roll rad."""
    common_covariance: Array
    frame_covariance: Array
    """``(F, 6, 6)``, given the common numbers: those move all frames alike."""
    through: Array
    """``(F, 6, g)``: by how much less a frame's numbers become where a common number is taken larger by one."""
    sigma_px: float
    """Scatter of a corner's coordinate."""

    def sigma(self, place: int) -> float:
        """Standard deviation of one of the common numbers."""
        return float(np.sqrt(self.common_covariance[place, place]))

    @property
    def tells_focal(self) -> bool:
        """The boards tell the focal length, rather than what was known of it beforehand."""
        return self.sigma(FOCAL) < _MEASURED_SHARE * FOCAL_PRIOR * float(self.common[FOCAL])

    @property
    def tells_k2(self) -> bool:
        """The second distortion coefficient was fitted rather than held at 0."""
        return self.sigma(K2) > 2 * _NO_K2

    @property
    def distortion_covariance(self) -> float:
        """Of the two distortion coefficients; 0 where the second one was held at 0."""
        return float(self.common_covariance[K1, K2]) if self.tells_k2 else 0.0

    def board_pose(self, board: int) -> Array:
        """Rotation vector and origin of a board, ``(6,)``."""
        return self.common[board_at(board) :][:POSE]

    def sight(self, board: int, plane_mm: tuple[float, float]) -> Sight:
        """Tell depth and scale of a place in a board's plane: its middle is known better than its edges."""
        numbers = [FOCAL, *range(board_at(board), board_at(board) + POSE)]
        covariance = self.common_covariance[np.ix_(numbers, numbers)]
        pose, focal_px = self.board_pose(board), float(self.common[FOCAL])
        depth_mm = _depth_mm(pose, plane_mm)
        by_pose = [(_depth_mm(pose + _STEP * unit, plane_mm) - depth_mm) / _STEP for unit in np.eye(POSE)]
        of_depth = np.array([0.0, *by_pose])
        of_scale = (np.eye(1 + POSE)[0] - focal_px / depth_mm * of_depth) / depth_mm
        depth_sigma, scale_sigma = (float(np.sqrt(by @ covariance @ by)) for by in (of_depth, of_scale))
        return Sight((depth_mm, depth_sigma), (focal_px / depth_mm, scale_sigma))


def _depth_mm(pose: Array, plane_mm: tuple[float, float]) -> float:
    """Depth of a place in the plane of a board of this pose."""
    return float(rotation_matrices(pose[None, :3])[0, 2, :2] @ np.array(plane_mm) + pose[5])


def board_at(board: int) -> int:
    """Place of a board's first number in `Solution.common`."""
    return SHARED + _BOARD * board


def adjust(corners: Corners, *, focal_px: float) -> Solution:
    """Fit everything to all corners, by Gauss-Newton with Huber weights, the frames eliminated.

    The second distortion coefficient is 0 unless the corners speak against that by Schwarz's criterion: where boards
    leave out the picture's corners it would only make the first one uncertain. A focal length that the boards hardly
    tell is held at the one known beforehand, since what little they say is what detection makes wrong; sigmas are
    those of a free one all the same.

    Args:
        corners: Of at least a few moving frames.
        focal_px: What is known of the focal length beforehand.
    """
    start = _start(corners, focal_px)
    plain = _adjusted(start, _prior(start, k2_sigma=_NO_K2))
    bent = _adjusted(plain, _prior(start, k2_sigma=_DISTORTION_PRIOR))
    strength = (bent.common[K2] / bent.sigma(K2)) ** 2
    found = bent if strength > np.log(corners.image_px.size) else plain
    if found.tells_focal:
        return found
    k2_sigma = _DISTORTION_PRIOR if found is bent else _NO_K2
    held = _adjusted(found, _prior(start, k2_sigma=k2_sigma, focal_sigma_px=_HELD_PX))
    return replace(found, common=held.common, frames=held.frames)


def _adjusted(now: Solution, prior: _Prior) -> Solution:
    for _ in range(_MOST_STEPS):
        residual, by_common, by_frame = _linearised(now)
        sigma_px = max(_scatter_px(now.corners, residual), _LEAST_SIGMA_PX)
        weight = np.minimum(1.0, _HUBER * sigma_px / np.maximum(np.abs(residual), 1e-12)) / sigma_px**2
        step = _solve(now, prior, residual=residual, by_common=by_common, by_frame=by_frame, weight=weight)
        now = replace(
            now,
            common=now.common + step.common,
            frames=now.frames + step.frames,
            common_covariance=step.common_covariance,
            frame_covariance=step.frame_covariance,
            through=step.through,
            sigma_px=sigma_px,
        )
        moved = np.abs(step.common) / np.sqrt(np.diag(step.common_covariance))
        if float(moved.max()) < _CONVERGED:
            break
    return now


def _scatter_px(corners: Corners, residual: Array) -> float:
    """Standard deviation of a coordinate, robustly; every frame's pose has taken its share of what is left."""
    free = 1 - POSE * corners.frames / residual.size
    return 1.4826 * float(np.median(np.abs(residual)) / np.sqrt(free))


@dataclass(frozen=True, eq=False)
class _Step:
    """One step of the adjustment with the covariances behind it."""

    common: Array
    frames: Array
    common_covariance: Array
    frame_covariance: Array
    through: Array


def _start(corners: Corners, focal_px: float) -> Solution:
    """Boards face the camera at the depth their size tells; frames lie where the first board puts them."""
    middle = (np.array(corners.size) - 1) / 2
    common = np.zeros(_pulls_at(corners) + 2 * corners.corner_count)
    common[[FOCAL, CX, CY]] = focal_px, *middle
    frames = np.zeros((corners.frames, POSE))
    sightings = np.bincount(corners.board, minlength=corners.boards)
    known = np.zeros(corners.frames, bool)
    for board in np.argsort(-sightings)[: np.count_nonzero(sightings)]:
        rows, scale, origin = _similarities(corners, int(board))
        depth = focal_px / float(np.median(scale))
        place = (origin - middle) * depth / focal_px
        if not known.any():
            frames[rows, 0] = place[0, 0] - place[:, 0]
            known[rows] = True
        fresh = ~known[rows]
        tied = fresh if fresh.all() else ~fresh  # to boards of no common frame, nothing ties it
        pose = common[board_at(int(board)) :][:POSE]
        pose[3:5] = np.median(place[tied] + frames[rows[tied]][:, :1] * [1, 0], axis=0)
        pose[5] = depth
        frames[rows[fresh], 0] = pose[3] - place[fresh, 0]
        known[rows] = True
    empty = np.zeros((len(common), len(common)))
    own = np.zeros((corners.frames, POSE, POSE))
    return Solution(corners, common, frames, empty, own, np.zeros((corners.frames, POSE, len(common))), 1.0)


def _similarities(corners: Corners, board: int) -> tuple[Index, Array, Array]:
    """Return the frames that show a board, its px per mm and its origin's place in each."""
    rows, scales, origins = [], [], []
    for frame in np.unique(corners.frame[corners.board == board]):
        own = (corners.board == board) & (corners.frame == frame)
        plane, image = corners.plane_mm[own], corners.image_px[own]
        centred, shifted = plane - plane.mean(axis=0), image - image.mean(axis=0)
        scale = float(np.sqrt((shifted**2).sum() / (centred**2).sum()))
        rows.append(frame)
        scales.append(scale)
        origins.append(image.mean(axis=0) - scale * plane.mean(axis=0))
    return np.array(rows, np.int64), np.array(scales), np.array(origins)


@dataclass(frozen=True, eq=False)
class _Prior:
    """What is believed before a corner is seen."""

    common: Array
    common_weight: Array
    frame_weight: Array
    """``(6,)``, about 0."""


def _prior(start: Solution, *, k2_sigma: float, focal_sigma_px: float | None = None) -> _Prior:
    """Say how far every number may lie from where the adjustment starts; the focal length by a data sheet's error."""
    corners, width = start.corners, start.corners.size[0]
    shared = [
        focal_sigma_px or FOCAL_PRIOR * start.common[FOCAL],
        CENTRE_PRIOR * width,
        CENTRE_PRIOR * width,
        _DISTORTION_PRIOR,
        k2_sigma,
        _DIRECTION_PRIOR,
        _DIRECTION_PRIOR,
        _READOUT_PRIOR_S,
    ]
    board = [_BOARD_TURN_PRIOR] * 3 + [_BOARD_SHIFT_PRIOR_MM] * 3 + [_GRID_PRIOR_PX] * 2
    sigma = np.array(shared + board * corners.boards + [_PULL_PRIOR_PX] * 2 * corners.corner_count)
    sigma[board_at(int(corners.board.min())) + 3] = _PINNED_MM  # x: where the rail's zero is, is free
    turn = np.radians(TURN_PRIOR_DEG)
    frame = np.array([_ALONG_PRIOR_MM, SHIFT_PRIOR_MM, SHIFT_PRIOR_MM, turn, turn, turn])
    return _Prior(start.common, 1 / sigma**2, 1 / frame**2)


def project(corners: Corners, common: Array, frames: Array) -> Array:
    """Predict where the corners are found, ``(n, 2)`` px."""
    true = _pulled(corners, common, frames)
    once, twice = _grid(corners, common)
    phase = 2 * np.pi * true
    return np.asarray(true + once * np.sin(phase) + twice * np.sin(2 * phase), np.float64)


def _pulled(corners: Corners, common: Array, frames: Array) -> Array:
    """Predict where the corners lie, each with its own pull, ``(n, 2)`` px."""
    pulls = common[_pulls_at(corners) :].reshape(-1, 2)
    return _seen(corners, common, frames) + pulls[corners.corner]


def _seen(corners: Corners, common: Array, frames: Array) -> Array:
    """Predict where the corners would lie without pulls, ``(n, 2)`` px."""
    poses = _boards(corners, common)[:, :POSE]
    turned = rotation_matrices(poses[:, :3])[:, :, :2]
    world = np.einsum("nij,nj->ni", turned[corners.board], corners.plane_mm) + poses[corners.board, 3:]
    rail = np.array([1.0, common[UP_Y], common[UP_Z]])
    own = frames[corners.frame]
    along = own[:, 0] + corners.row_share_mm_s * common[READOUT]
    centre = along[:, None] * rail
    centre[:, 1:] += own[:, 1:3]
    seen = np.einsum("nij,nj->ni", rotation_matrices(frames[:, 3:])[corners.frame], world - centre)
    flat = seen[:, :2] / seen[:, 2:]
    square = np.sum(flat**2, axis=1, keepdims=True)
    radial = 1 + (common[K1] + common[K2] * square) * square
    return np.asarray(common[FOCAL] * flat * radial + common[[CX, CY]], np.float64)


def _boards(corners: Corners, common: Array) -> Array:
    """The boards' numbers, ``(B, 8)``."""
    return common[SHARED : _pulls_at(corners)].reshape(-1, _BOARD)


def _grid(corners: Corners, common: Array) -> tuple[Array, Array]:
    """How far the pixels' grid draws each corner at most, ``(n, 1)`` px, by either period."""
    drawn = _boards(corners, common)[corners.board, POSE:]
    return drawn[:, :1], drawn[:, 1:]


def _pulls_at(corners: Corners) -> int:
    """Place of the corners' pulls among the common numbers."""
    return board_at(corners.boards)


def rotation_matrices(vectors: Array) -> Array:
    """Turn rotation vectors ``(n, 3)`` in rad into matrices ``(n, 3, 3)``."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_rotvec(vectors).as_matrix(), np.float64)


def _linearised(now: Solution) -> tuple[Array, Array, Array]:
    """Residuals ``(n, 2)`` and their derivatives by the common ``(n, 2, g)`` and the frame's ``(n, 2, 6)`` numbers.

    What the pixels' grid does is differentiated by its formula: it bends so quickly that the error of finite
    differences would seem to tell what nothing tells, such as the focal length.
    """
    corners, each = now.corners, np.arange(len(now.corners.frame))
    here = _seen(corners, now.common, now.frames)
    by_common = np.zeros((*here.shape, len(now.common)))
    steps = _STEP * np.maximum(np.abs(now.common), 1.0)
    for place in range(_pulls_at(corners)):
        moved = now.common.copy()
        moved[place] += steps[place]
        by_common[..., place] = (_seen(corners, moved, now.frames) - here) / steps[place]
    for axis in range(2):
        by_common[each, axis, _pulls_at(corners) + 2 * corners.corner + axis] = 1.0
    by_frame = np.stack(
        [(_seen(corners, now.common, now.frames + _STEP * unit) - here) / _STEP for unit in np.eye(POSE)],
        axis=-1,
    )
    phase = 2 * np.pi * _pulled(corners, now.common, now.frames)
    once, twice = _grid(corners, now.common)
    stretch = (1 + 2 * np.pi * (once * np.cos(phase) + 2 * twice * np.cos(2 * phase)))[..., None]
    by_common *= stretch
    for number in range(_BOARD - POSE):
        column = SHARED + _BOARD * corners.board + POSE + number
        by_common[each, :, column] = np.sin((1 + number) * phase)
    return corners.image_px - project(corners, now.common, now.frames), by_common, by_frame * stretch


def _solve(
    now: Solution, prior: _Prior, *, residual: Array, by_common: Array, by_frame: Array, weight: Array
) -> _Step:
    """Take one step: solve for the common numbers with every frame's own eliminated, then for the frames."""
    corners, frame = now.corners, now.corners.frame
    weighted_common, weighted_frame = by_common * weight[..., None], by_frame * weight[..., None]
    own = np.zeros((corners.frames, POSE, POSE))
    mixed = np.zeros((corners.frames, POSE, len(now.common)))
    right = np.zeros((corners.frames, POSE))
    np.add.at(own, frame, np.einsum("nip,niq->npq", by_frame, weighted_frame))
    np.add.at(mixed, frame, np.einsum("nip,niq->npq", weighted_frame, by_common))
    np.add.at(right, frame, np.einsum("nip,ni->np", weighted_frame, residual))
    own += np.diag(prior.frame_weight)
    right -= prior.frame_weight * now.frames
    inverse = np.asarray(np.linalg.inv(own), np.float64)
    through = np.einsum("fpq,fqg->fpg", inverse, mixed)
    normal = np.einsum("nig,nih->gh", by_common, weighted_common) + np.diag(prior.common_weight)
    normal -= np.einsum("fpg,fph->gh", mixed, through)
    left = np.einsum("nig,ni->g", weighted_common, residual)
    left += prior.common_weight * (prior.common - now.common) - np.einsum("fpg,fp->g", through, right)
    covariance = np.asarray(np.linalg.inv(normal), np.float64)
    common = covariance @ left
    frames = np.einsum("fpq,fq->fp", inverse, right - mixed @ common)
    return _Step(common, frames, covariance, inverse, through)
