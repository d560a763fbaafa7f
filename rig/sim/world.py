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
from rig.sim.compositor import Compositor, Layer
from rig.sim.led import add_led
from rig.sim.optics import (
    Image32,
    Pinhole,
    Vectors,
    blur_radius_px,
    disc_kernel,
    exposed_poses,
    focal_length_px,
    nominal_focal_px,
)
from rig.sim.photos import Photos
from rig.sim.scene import SAMPLES_PER_PX, ScenePlane, build_scene
from rig.sim.sensor import Codes, Mosaic, Transfer, complete, develop, expose, mosaic, sensor_state
from rig.sim.truth import PlaneTruth, TruthHeader, TruthRow
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
class _Prepared:
    surface: str
    """What the textures depend on."""
    compositor: Compositor
    weather: Weather
    exposure: Exposure


def exposed_instants(spec: SimulationSpec, lens: LensSpec, poses: Vectors, shot: Shot) -> Vectors:
    """Poses (I, M, 6) of rows whose light is averaged into a picture; see `exposed_poses`."""
    return exposed_poses(
        poses,
        exposure_s=complete(shot.settings, spec.metered).exposure_s,
        readout_s=spec.readout_s,
        px_per_mm=nominal_focal_px(lens, spec.width) / lens.scene_depth_mm[0],
    )


def truth_row(
    spec: SimulationSpec, lens: LensSpec, poses: Vectors, shot: Shot, *, index: int = 0, t_s: float = 0.0
) -> TruthRow:
    """Describe one frame; needs no world.

    Args:
        spec: Picture size and readout time.
        lens: Focal length and depth range.
        poses: As for `World.render`.
        shot: Settings.
        index: Number of the frame in its recording.
        t_s: Session time when the first row's exposure began.
    """
    exposure_s = complete(shot.settings, spec.metered).exposure_s
    instants = exposed_instants(spec, lens, poses, shot)
    path_mm = float(np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1).sum())
    share = exposure_s / (exposure_s + spec.readout_s)
    return TruthRow(
        index=index,
        t_s=t_s,
        t_mid_s=t_s + (exposure_s + spec.readout_s) / 2,
        motion_px=path_mm * share * nominal_focal_px(lens, spec.width) / lens.scene_depth_mm[0],
        row_poses=tuple(map(tuple, instants.mean(axis=0).tolist())),
    )


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
        self.spec, self.lens, self.scene = spec, lens, scene
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
        spec = self.spec
        return Pinhole(focal_px, spec.width, spec.height, spec.distortion_k1, spec.distortion_k2)

    def truth_header(self, shot: Shot) -> TruthHeader:
        """Describe what holds for all frames of a shot."""
        exposure = complete(shot.settings, self.spec.metered)
        camera = self.camera(shot)
        return TruthHeader(
            scene=self.scene,
            width=camera.width,
            height=camera.height,
            focal_px=camera.focal_px,
            distortion_k1=camera.k1,
            distortion_k2=camera.k2,
            readout_s=self.spec.readout_s,
            exposure=exposure,
            conditions=dict(shot.conditions),
            planes=tuple(self._plane_truth(plane, exposure) for plane in self.planes),
        )

    def _plane_truth(self, plane: ScenePlane, exposure: Exposure) -> PlaneTruth:
        return PlaneTruth(
            name=plane.name,
            depth_mm=plane.depth_mm,
            outline_mm=tuple((float(x), float(y)) for x, y in plane.outline_mm),
            blur_radius_px=self._radius_px(exposure, plane.depth_mm),
        )

    def render(
        self,
        poses: Vectors,
        shot: Shot,
        *,
        frame_seed: int | None,
        transfer: Transfer = "bt709",
        lit: float = 0.0,
    ) -> Codes:
        """Take one picture.

        Args:
            poses: (K, 6) carriage poses at K evenly spaced times from the start of the first row's exposure to
                the end of the last row's.
            shot: Settings and conditions.
            frame_seed: Of this frame's noise and rain; None for a noise-free picture.
            transfer: Tone curve of the codes.
            lit: For which share of the exposure the sync LED was on.

        Returns:
            8-bit RGB codes, (H, W, 3).

        Raises:
            SceneError: A condition, level or white balance does not exist.
        """
        state = sensor_state(self.spec, complete(shot.settings, self.spec.metered))
        light = add_led(self.light(poses, shot, frame_seed=frame_seed or 0), lit)
        signal = expose(light, state, seed=frame_seed)
        measured = self.spec.tone_codes.get(transfer, ())
        return develop(signal, state.gains, transfer, measured=measured)

    def mosaic(
        self, poses: Vectors, shot: Shot, *, frame_seed: int, lit: float = 0.0
    ) -> tuple[Mosaic, tuple[float, float, float]]:
        """Take one picture and leave it undeveloped; arguments and errors as `render`.

        Returns:
            Raw codes of an RGGB sensor, (H, W), and the red, green and blue that the white balance makes grey.
        """
        state = sensor_state(self.spec, complete(shot.settings, self.spec.metered))
        light = add_led(self.light(poses, shot, frame_seed=frame_seed), lit)
        signal = expose(light, state, seed=frame_seed)
        red, green, blue = state.gains
        return mosaic(signal), (1 / red, 1 / green, 1 / blue)

    def light(self, poses: Vectors, shot: Shot, *, frame_seed: int = 0) -> Image32:
        """The light on the sensor before it is counted, (H, W, 3), 1 clips at the metered exposure."""
        prepared = self.prepare(shot)
        instants = exposed_instants(self.spec, self.lens, poses, shot)
        wet = prepared.weather.add_rain(
            prepared.compositor.light(instants),
            focal_px=prepared.compositor.camera.focal_px,
            exposure_s=prepared.exposure.exposure_s,
            seed=frame_seed,
        )
        return prepared.weather.add_drops(wet)

    def prepare(self, shot: Shot) -> _Prepared:
        """Blur and light the textures for a shot ahead of its first frame; the last two shots are kept."""
        exposure = complete(shot.settings, self.spec.metered)
        surface = f"{exposure.f_number} {exposure.focus_m} {sorted(shot.conditions.items())}"
        key = f"{surface} {exposure.exposure_s} {shot.take_seed}"
        if key not in self._prepared:
            weather = Weather(shot.conditions, take_seed=shot.take_seed)
            layers = self._kept_layers(surface) or self._layers(exposure, weather)
            while len(self._prepared) >= _PREPARED_SHOTS:
                self._prepared.popitem(last=False)
            compositor = Compositor(layers, self.camera(shot))
            self._prepared[key] = _Prepared(surface, compositor, weather, exposure)
        self._prepared.move_to_end(key)
        return self._prepared[key]

    def _kept_layers(self, surface: str) -> tuple[Layer, ...]:
        kept = (p.compositor.layers for p in self._prepared.values() if p.surface == surface)
        return next(kept, ())

    def _layers(self, exposure: Exposure, weather: Weather) -> tuple[Layer, ...]:
        return tuple(self._layer(plane, exposure, weather) for plane in self.planes)

    def _radius_px(self, exposure: Exposure, depth_mm: float) -> float:
        return blur_radius_px(
            self.lens,
            self.spec.width,
            f_number=exposure.f_number,
            focus_m=exposure.focus_m,
            depth_mm=depth_mm,
        )

    def _layer(self, plane: ScenePlane, exposure: Exposure, weather: Weather) -> Layer:
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
        return Layer(_blurred(colour, radius_px), cover, to_world, plane.depth_mm)


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
