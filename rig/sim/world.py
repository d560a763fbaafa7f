"""The simulated world: what the camera at a given pose and setting would record.

Rendering goes back to front over planes that are parallel to the sensor, so lens blur and haze are one
constant per plane and are put into its texture once per setting; a frame then costs one bilinear warp and one
blend per plane. Motion is integrated by averaging the light of several instants, a rolling shutter gives every
row its own instant. Everything happens in linear light.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from catalog.session_folder import BoardSpec, ExposureSettings, LensSpec
from rig.profile import Exposure, SimulationSpec
from rig.sim.optics import (
    Pinhole,
    Vectors,
    blur_radius_px,
    disc_kernel,
    exposed_poses,
    focal_length_px,
    nominal_focal_px,
    rotations,
    row_interpolated,
)
from rig.sim.photos import Photos
from rig.sim.scene import SAMPLES_PER_PX, ScenePlane, build_scene
from rig.sim.sensor import Codes, Image32, Transfer, complete, develop, expose, sensor_state
from rig.sim.weather import Weather

_SHARP_PX = 0.1
_LENS_SIGMA_PX = 0.35
_BORDER_PX = 2
_PREPARED_SHOTS = 2


@dataclass(frozen=True)
class Shot:
    """Settings and surroundings of a take, the same for all its frames."""

    settings: ExposureSettings
    conditions: Mapping[str, str] = field(default_factory=dict)
    take_seed: int = 0
    """Seed of what stays put during a take, such as drops on the glass."""


@dataclass(frozen=True)
class _Layer:
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


@dataclass(frozen=True)
class _Prepared:
    layers: tuple[_Layer, ...]
    camera: Pinhole
    weather: Weather
    exposure: Exposure


class World:
    """The scene of one session in front of the simulated camera.

    Args:
        spec: Picture size, sensor, covered travel.
        lens: Focal length, sensor width, depth range of the scene.
        boards: Marker boards, at the depths of ``spec.board_depths_mm``.
        scene: Name that seeds the arrangement.
        photos: Folder of photographs for textures; None takes scikit-image's bundled ones.

    Raises:
        SceneError: The folder holds no photograph.
    """

    def __init__(
        self,
        spec: SimulationSpec,
        lens: LensSpec,
        boards: Sequence[BoardSpec],
        scene: str,
        photos: Path | None = None,
    ) -> None:
        self.spec, self.lens = spec, lens
        self.planes: tuple[ScenePlane, ...] = build_scene(
            spec, lens, boards=boards, scene=scene, photos=Photos(photos)
        )
        """Farthest first."""
        self._prepared: OrderedDict[str, _Prepared] = OrderedDict()

    def camera(self, shot: Shot) -> Pinhole:
        """The camera's geometry in this shot."""
        focus_m = complete(shot.settings, self.spec.metered).focus_m
        focal_px = focal_length_px(
            self.lens, self.spec.width, focus_m=focus_m, breathing=self.spec.focus_breathing
        )
        return Pinhole(focal_px, self.spec.width, self.spec.height, self.spec.distortion_k1)

    def blur_radii_px(self, shot: Shot) -> tuple[float, ...]:
        """Radius of the disc of confusion of each plane, px, in the order of `planes`."""
        exposure = complete(shot.settings, self.spec.metered)
        return tuple(self._radius_px(exposure, plane.depth_mm) for plane in self.planes)

    def row_poses(self, poses: Vectors, shot: Shot) -> Vectors:
        """Poses (M, 6) of M rows spread evenly over the picture, each the mean over its exposure.

        M is 1 for a global shutter. This is what the rendered picture shows.
        """
        return np.asarray(self._instants(poses, shot).mean(axis=0))

    def render(
        self, poses: Vectors, shot: Shot, *, frame_seed: int | None, transfer: Transfer = "bt709"
    ) -> Codes:
        """Take one picture.

        Args:
            poses: (K, 6) carriage poses at K evenly spaced times from the start of the first row's exposure to
                the end of the last row's.
            shot: Settings and conditions.
            frame_seed: Of this frame's noise and rain; None for a noise-free picture.
            transfer: Tone curve of the codes.

        Returns:
            8-bit RGB codes, (H, W, 3).

        Raises:
            SceneError: A condition, level or white balance does not exist.
        """
        state = sensor_state(self.spec, complete(shot.settings, self.spec.metered))
        signal = expose(self.light(poses, shot, frame_seed=frame_seed or 0), state, seed=frame_seed)
        return develop(signal, state.gains, transfer)

    def light(self, poses: Vectors, shot: Shot, *, frame_seed: int = 0) -> Image32:
        """The light on the sensor before it is counted, (H, W, 3), 1 clips at the metered exposure."""
        prepared = self.prepare(shot)
        instants = self._instants(poses, shot)
        total = self._instant(prepared, instants[0])
        for rows in instants[1:]:
            total += self._instant(prepared, rows)
        total *= np.float32(1 / len(instants))
        wet = prepared.weather.add_rain(
            total,
            focal_px=prepared.camera.focal_px,
            exposure_s=prepared.exposure.exposure_s,
            seed=frame_seed,
        )
        return prepared.weather.add_drops(wet)

    def prepare(self, shot: Shot) -> _Prepared:
        """Blur and light the textures for a shot ahead of its first frame; the last two shots are kept."""
        exposure = complete(shot.settings, self.spec.metered)
        optics = (exposure.f_number, exposure.focus_m, exposure.exposure_s)
        key = f"{optics} {shot.take_seed} {sorted(shot.conditions.items())}"
        if key not in self._prepared:
            while len(self._prepared) >= _PREPARED_SHOTS:
                self._prepared.popitem(last=False)
            weather = Weather(shot.conditions, take_seed=shot.take_seed)
            layers = tuple(self._layer(plane, exposure, weather) for plane in self.planes)
            self._prepared[key] = _Prepared(layers, self.camera(shot), weather, exposure)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def _radius_px(self, exposure: Exposure, depth_mm: float) -> float:
        return blur_radius_px(
            self.lens,
            self.spec.width,
            f_number=exposure.f_number,
            focus_m=exposure.focus_m,
            depth_mm=depth_mm,
        )

    def _layer(self, plane: ScenePlane, exposure: Exposure, weather: Weather) -> _Layer:
        radius_px = self._radius_px(exposure, plane.depth_mm)
        border = 0 if plane is self.planes[0] else math.ceil((radius_px + _BORDER_PX) * SAMPLES_PER_PX)
        lit = _lit(plane, weather)
        colour, cover = lit, None
        if border:
            cover = _padded(plane.opaque(), border)
            colour = _padded(lit, border) * cover[..., None]
            cover = _blurred(cover, radius_px)
        corner = np.array(plane.corner_mm) - border * plane.pitch_mm
        to_world = np.array([[plane.pitch_mm, 0, corner[0]], [0, plane.pitch_mm, corner[1]], [0, 0, 1.0]])
        return _Layer(_blurred(colour, radius_px), cover, to_world, plane.depth_mm)

    def _instants(self, poses: Vectors, shot: Shot) -> Vectors:
        return exposed_poses(
            poses,
            exposure_s=complete(shot.settings, self.spec.metered).exposure_s,
            readout_s=self.spec.readout_s,
            px_per_mm=nominal_focal_px(self.lens, self.spec.width) / self.lens.scene_depth_mm[0],
        )

    def _instant(self, prepared: _Prepared, rows: Vectors) -> Image32:
        wall, *things = prepared.layers
        warp = (
            _WarpByRow(prepared.camera, rows)
            if len(rows) > 1 or prepared.camera.k1
            else _Warp(prepared.camera, rows[0])
        )
        picture = warp.sample(wall.colour, wall, warp.whole)
        for layer in things:
            box = warp.box(layer)
            if box is not None and layer.cover is not None:
                _blend(
                    picture, warp.sample(layer.colour, layer, box), warp.sample(layer.cover, layer, box), box
                )
        return picture


Box = tuple[int, int, int, int]
"""Left, top, right, bottom, the last two exclusive."""


class _Warp:
    """Samples textures for a camera without distortion whose rows are all exposed together."""

    def __init__(self, camera: Pinhole, pose: Vectors) -> None:
        self.whole: Box = (0, 0, camera.width, camera.height)
        self._camera, self._pose = camera, pose

    def box(self, layer: _Layer) -> Box | None:
        """The part of the picture that a layer can touch; None when it is out of view."""
        return _box_around(self._project(layer), self._camera)

    def _project(self, layer: _Layer) -> Vectors:
        points = np.column_stack([layer.corners_mm, np.full(4, layer.depth_mm)])
        return self._camera.project(points, self._pose)

    def sample(self, texture: Image32, layer: _Layer, box: Box) -> Image32:
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
        columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        rays = camera.rays(np.stack([columns, rows], axis=-1).astype(np.float64))
        turned = np.einsum("rji,rcj->rci", rotations(poses), rays)
        self._slope = turned[..., :2] / turned[..., 2:]
        self._eye = poses[:, None, :3]

    def box(self, layer: _Layer) -> Box | None:
        """The part of the picture that a layer can touch; None when it is out of view."""
        points = np.column_stack([layer.corners_mm, np.full(4, layer.depth_mm)])
        seen = [self._camera.project(points, pose) for pose in self._knots]
        # A distorted edge bulges beyond its corners by at most its own sagitta.
        bulge = abs(self._camera.k1) * self._camera.width
        return _box_around(np.concatenate(seen), self._camera, margin_px=2 + bulge)

    def sample(self, texture: Image32, layer: _Layer, box: Box) -> Image32:
        """Sample a texture of ``layer`` at the pixels of ``box``."""
        import cv2

        left, top, right, bottom = box
        eye = self._eye[top:bottom]
        world = eye[..., :2] + self._slope[top:bottom, left:right] * (layer.depth_mm - eye[..., 2:])
        scale, corner = layer.to_world[0, 0], layer.to_world[:2, 2]
        x, y = np.moveaxis((world - corner) / scale, -1, 0).astype(np.float32)
        return np.asarray(cv2.remap(texture, x, y, cv2.INTER_LINEAR), np.float32)


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


def _lit(plane: ScenePlane, weather: Weather) -> Image32:
    height, width = plane.colour.shape[:2]
    x_mm = plane.corner_mm[0] + np.arange(width, dtype=np.float64) * plane.pitch_mm
    y_mm = plane.corner_mm[1] + np.arange(height, dtype=np.float64) * plane.pitch_mm
    shade = weather.lamp(x_mm, y_mm)
    lit = plane.colour if shade is None else plane.colour * shade[..., None]
    transmission, airlight = weather.veil(plane.depth_mm)
    return np.asarray(lit * np.float32(transmission) + np.asarray(airlight, np.float32), np.float32)


def _padded(image: Image32, border: int) -> Image32:
    import cv2

    return np.asarray(
        cv2.copyMakeBorder(
            image,
            border,
            border,
            border,
            border,
            cv2.BORDER_REPLICATE if image.ndim == 3 else cv2.BORDER_CONSTANT,
        ),
        np.float32,
    )


def _blurred(image: Image32, radius_px: float) -> Image32:
    """Blur by the defocus disc, the lens's own softness and the pixel's area, in this order."""
    import cv2

    if radius_px > _SHARP_PX:
        image = np.asarray(cv2.filter2D(image, -1, disc_kernel(radius_px * SAMPLES_PER_PX)), np.float32)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), _LENS_SIGMA_PX * SAMPLES_PER_PX), np.float32)
    pixel = np.array([0.25, 0.5, 0.25], np.float32)
    return np.asarray(cv2.sepFilter2D(image, -1, pixel, pixel), np.float32)
