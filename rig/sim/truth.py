"""What the simulated camera really saw: written beside the data, read by demo, tests and benchmarks only.

One file per movie or still, named by the sha256 of its bytes: a header line (`TruthHeader`) and one line per
frame (`TruthRow`). `displacement` gives the true field between two frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from catalog.session_folder import file_sha256, replace_file
from catalog.yaml_document import Document
from rig.errors import SceneError
from rig.profile import Exposure
from rig.sim.optics import Pinhole, Vectors, row_interpolated
from rig.sim.shapes import contains

TRUTH_FOLDER = "sim-truth"

_ROW_STEPS = 5
_DENSE = 16


class PlaneTruth(Document):
    """One plane of the scene, parallel to the sensor."""

    name: str
    depth_mm: float
    outline_mm: tuple[tuple[float, float], ...]
    """Closed polygon, world x and y."""
    blur_radius_px: float
    """Radius of the disc of confusion."""


class TruthHeader(Document):
    """What holds for all frames of one recording."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    scene: str
    width: int
    height: int
    focal_px: float
    distortion_k1: float
    distortion_k2: float = 0.0
    readout_s: float
    exposure: Exposure
    conditions: dict[str, str]
    planes: tuple[PlaneTruth, ...]
    """Farthest first."""


class TruthRow(Document):
    """One frame."""

    index: int
    t_s: float
    """Session time when the first row's exposure began."""
    t_mid_s: float
    """Session time in the middle of the middle row's exposure."""
    motion_px: float
    """Length of the motion blur in the nearest plane."""
    row_poses: tuple[tuple[float, ...], ...]
    """x, y, z in mm and pitch, yaw, roll in deg, mean over the exposure, of evenly spread rows."""


@dataclass(frozen=True)
class FrameTruth:
    """One frame with the geometry to answer questions about it."""

    header: TruthHeader
    row: TruthRow

    @property
    def pose(self) -> Vectors:
        """Pose (6,) of the middle row."""
        return np.asarray(self._knots[len(self._knots) // 2])

    @cached_property
    def camera(self) -> Pinhole:
        """The camera's geometry."""
        h = self.header
        return Pinhole(h.focal_px, h.width, h.height, h.distortion_k1, h.distortion_k2)

    @cached_property
    def _knots(self) -> Vectors:
        return np.array(self.row.row_poses)

    def locate(self, points_px: Vectors) -> Vectors:
        """World points (N, 3) in mm that pixels (N, 2) show: on the nearest plane that covers them."""
        poses = row_interpolated(self._knots, points_px[:, 1], self.camera.height)
        world = np.full((len(points_px), 3), np.nan)
        for plane in reversed(self.header.planes):
            on_plane = self.camera.hit(points_px, poses, plane.depth_mm)
            shown = np.isnan(world[:, 2]) & contains(np.array(plane.outline_mm), on_plane)
            world[shown, :2], world[shown, 2] = on_plane[shown], plane.depth_mm
        return world

    def project(self, points_mm: Vectors) -> Vectors:
        """Pixels (N, 2) where world points (N, 3) are seen, hidden or not."""
        pixels = self.camera.project(points_mm, np.broadcast_to(self.pose, (len(points_mm), 6)))
        for _ in range(_ROW_STEPS if len(self._knots) > 1 else 0):  # the row decides the pose, and back
            poses = row_interpolated(self._knots, pixels[:, 1], self.camera.height)
            pixels = self.camera.project(points_mm, poses)
        return pixels

    def depth_map(self) -> NDArray[np.float32]:
        """Depth in mm of the nearest plane at every pixel, (H, W)."""
        import cv2

        depth = np.zeros((self.camera.height, self.camera.width), np.float32)
        for plane in self.header.planes:
            outline = _dense(np.array(plane.outline_mm))
            points = np.column_stack([outline, np.full(len(outline), plane.depth_mm)])
            vertices = np.round(self.project(points) * 16).astype(np.int32)
            cv2.fillPoly(depth, [vertices], (plane.depth_mm,), lineType=cv2.LINE_8, shift=4)
        return depth


def displacement(gt: FrameTruth, lq: FrameTruth, points_px: Vectors) -> Vectors:
    """The true field p_lq - p_gt, (N, 2) px, at pixels (N, 2) of the GT frame.

    The scene point is the one that the GT frame shows there; whether the LQ frame sees it too is not asked.
    """
    return lq.project(gt.locate(points_px)) - points_px


def truth_path(data: Path, sha256: str) -> Path:
    """Where the truth of a recording with this hash is kept in a data folder."""
    return data / TRUTH_FOLDER / f"{sha256}.jsonl"


def write_truth(data: Path, recording: Path, header: TruthHeader, rows: Iterable[TruthRow]) -> Path:
    """Write the truth of a finished recording and return the file's path."""
    path = truth_path(data, file_sha256(recording))
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [header.model_dump_json(by_alias=True), *(row.model_dump_json() for row in rows)]
    replace_file(path, "".join(line + "\n" for line in lines).encode())
    return path


def read_truth(data: Path, sha256: str) -> Sequence[FrameTruth]:
    """Read the truth of a recording by the sha256 of its bytes, one entry per frame.

    Raises:
        SceneError: The data folder holds no truth for these bytes.
    """
    path = truth_path(data, sha256)
    if not path.is_file():
        raise SceneError(
            f"{path}: no truth for this recording", next_step="only recordings of the simulated rig have one"
        )
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    header = TruthHeader.model_validate_json(first)
    return [FrameTruth(header, TruthRow.model_validate_json(line)) for line in rest]


def _dense(outline: Vectors) -> Vectors:
    share = np.arange(_DENSE)[:, None, None] / _DENSE
    edges = outline + share * (np.roll(outline, -1, axis=0) - outline)
    return np.asarray(edges.transpose(1, 0, 2).reshape(-1, 2))
