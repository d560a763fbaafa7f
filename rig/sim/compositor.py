"""Puts prepared planes together into one instant of the picture, back to front.

The wall is warped into the whole picture, every other plane into the box it can touch and blended over what
lies behind by its cover. Warps are bilinear: other kernels of OpenCV move the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rig.sim.optics import Image32, Pinhole, Vectors, rotations, row_interpolated

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, the last two exclusive."""


@dataclass(frozen=True)
class Layer:
    """A plane ready for one shot: blurred, lit and veiled."""

    colour: Image32
    """Multiplied by `cover`."""
    cover: Image32 | None
    """None for the wall, which covers everything."""
    to_world: Vectors
    """Texture sample to world x, y in mm, (3, 3)."""
    depth_mm: float

    @property
    def corners_mm(self) -> Vectors:
        """World x, y of the texture's corners, (4, 2)."""
        height, width = self.colour.shape[:2]
        samples = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1]])
        return np.asarray((samples @ self.to_world.T)[:, :2])


class Compositor:
    """Averages the light of the instants of an exposure; what does not move is composed once.

    Args:
        layers: Farthest first; the first fills the view.
        camera: Geometry.
    """

    def __init__(self, layers: tuple[Layer, ...], camera: Pinhole) -> None:
        self.layers, self.camera = layers, camera
        self._last: tuple[Vectors, Image32] | None = None

    def light(self, instants: Vectors) -> Image32:
        """Render one exposure.

        Args:
            instants: (I, M, 6) poses as `rig.sim.optics.exposed_poses` gives them.

        Returns:
            Light (H, W, 3); the caller may overwrite it.
        """
        if self._last is not None and np.array_equal(self._last[0], instants):
            return self._last[1].copy()
        total = compose(self.layers, self.camera, instants[0])
        for rows in instants[1:]:
            total += compose(self.layers, self.camera, rows)
        if len(instants) > 1:
            total *= np.float32(1 / len(instants))
        self._last = instants.copy(), total.copy()
        return total


def compose(layers: Sequence[Layer], camera: Pinhole, rows: Vectors) -> Image32:
    """Render one instant.

    Args:
        layers: Farthest first; the first fills the view.
        camera: Geometry.
        rows: Poses (M, 6) of evenly spread rows; one pose for a picture whose rows are exposed together.

    Returns:
        Light on the sensor, (H, W, 3).
    """
    warp = _WarpByRow(camera, rows) if len(rows) > 1 or camera.distorts else _Warp(camera, rows[0])
    picture = warp.sample(layers[0].colour, layers[0], warp.whole)
    for layer in layers[1:]:
        box = warp.box(layer)
        if box is not None and layer.cover is not None:
            _blend(picture, warp.sample(layer.colour, layer, box), warp.sample(layer.cover, layer, box), box)
    return picture


class _Warp:
    """Samples textures for a camera without distortion whose rows are all exposed together."""

    def __init__(self, camera: Pinhole, pose: Vectors) -> None:
        self.whole: Box = (0, 0, camera.width, camera.height)
        self._camera, self._pose = camera, pose

    def box(self, layer: Layer) -> Box | None:
        """The part of the picture that a layer can touch; None when it is out of view."""
        return _box_around(self._project(layer), self._camera)

    def _project(self, layer: Layer) -> Vectors:
        points = np.column_stack([layer.corners_mm, np.full(4, layer.depth_mm)])
        return self._camera.project(points, self._pose)

    def sample(self, texture: Image32, layer: Layer, box: Box) -> Image32:
        """Sample a texture of ``layer`` at the pixels of ``box``."""
        import cv2

        left, top, right, bottom = box
        to_image = self._camera.plane_to_image(self._pose, layer.depth_mm) @ layer.to_world
        from_box = np.linalg.inv(to_image) @ np.array([[1.0, 0, left], [0, 1.0, top], [0, 0, 1.0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (right - left, bottom - top)
        return np.asarray(
            cv2.warpPerspective(texture, from_box / from_box[2, 2], size, flags=flags), np.float32
        )


class _WarpByRow:
    """Samples textures for a distorting lens or a rolling shutter: every row has its own pose."""

    def __init__(self, camera: Pinhole, knots: Vectors) -> None:
        self.whole: Box = (0, 0, camera.width, camera.height)
        self._camera, self._knots = camera, knots
        poses = row_interpolated(knots, np.arange(camera.height, dtype=np.float64), camera.height)
        turned = _pixel_rays(camera) @ rotations(poses)
        self._slopes = turned[..., 0] / turned[..., 2], turned[..., 1] / turned[..., 2]
        self._eye = poses[:, None, :3]

    def box(self, layer: Layer) -> Box | None:
        """The part of the picture that a layer can touch; None when it is out of view."""
        points = np.column_stack([layer.corners_mm, np.full(4, layer.depth_mm)])
        seen = [self._camera.project(points, pose) for pose in self._knots]
        # A distorted edge bulges beyond its corners by at most its own sagitta.
        bulge = (abs(self._camera.k1) + abs(self._camera.k2)) * self._camera.width
        return _box_around(np.concatenate(seen), self._camera, margin_px=2 + bulge)

    def sample(self, texture: Image32, layer: Layer, box: Box) -> Image32:
        """Sample a texture of ``layer`` at the pixels of ``box``."""
        import cv2

        left, top, right, bottom = box
        eye, scale = self._eye[top:bottom], layer.to_world[0, 0]
        reach = (layer.depth_mm - eye[..., 2]) / scale
        x, y = (
            (
                self._slopes[axis][top:bottom, left:right] * reach
                + (eye[..., axis] - layer.to_world[axis, 2]) / scale
            )
            for axis in (0, 1)
        )
        maps = x.astype(np.float32), y.astype(np.float32)
        return np.asarray(cv2.remap(texture, *maps, cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=2)
def _pixel_rays(camera: Pinhole) -> Vectors:
    """Undistorted directions of all pixels, (H, W, 3)."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    return camera.rays(np.stack([columns, rows], axis=-1).astype(np.float64))


def _box_around(points_px: Vectors, camera: Pinhole, margin_px: float = 2.0) -> Box | None:
    low = np.floor(points_px.min(axis=0) - margin_px).astype(int)
    high = np.ceil(points_px.max(axis=0) + margin_px).astype(int) + 1
    left, top = max(int(low[0]), 0), max(int(low[1]), 0)
    right, bottom = min(int(high[0]), camera.width), min(int(high[1]), camera.height)
    return (left, top, right, bottom) if right > left and bottom > top else None


def _blend(picture: Image32, colour: Image32, cover: Image32, box: Box) -> None:
    import cv2

    left, top, right, bottom = box
    behind = picture[top:bottom, left:right]
    seen_through = cv2.merge([1 - cover] * 3)
    picture[top:bottom, left:right] = cv2.add(cv2.multiply(behind, seen_through), colour)
