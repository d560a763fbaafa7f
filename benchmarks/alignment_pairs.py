"""Pairs of frames with known truth, straight from the simulator's renderer: no session, no movie, no engine.

A pair is a ground truth and a degraded frame of the same scene from poses that differ by the rail's repeatability.
Scenes, poses and noise depend on the pair's number alone, so every class shows the same pairs and columns of a table
can be compared. Photographs are split: one half to tune estimators on, the other to report on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.camera_motion import Pinhole
from alignment.decode import open_movie
from alignment.depth import BASELINES_PX, StereoView, measure_depths
from alignment.photometry import standard_tone_curve
from alignment.picture import Picture
from alignment.scene_depths import SceneDepths
from catalog.session_folder import BoardSpec, ExposureSettings, LensSpec
from rig.profile import SimulationSpec
from rig.sim.encoder import to_yuv420
from rig.sim.optics import disc_kernel, nominal_focal_px
from rig.sim.photos import Photos
from rig.sim.sensor import complete, develop, expose, sensor_state
from rig.sim.truth import FrameTruth, displacement
from rig.sim.world import Shot, World, truth_row

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Light = NDArray[np.float32]
Array = NDArray[np.float64]
SetName = Literal["tuning", "report"]

LENS = LensSpec(focal_mm=35, sensor_width_mm=35.9, scene_depth_mm=(1500, 4000))
BOARDS = (
    BoardSpec(columns=7, rows=5, square_mm=60, marker_mm=45),
    BoardSpec(columns=7, rows=5, square_mm=80, marker_mm=60, first_id=17),
)
TRAVEL_MM = (0.0, 60.0)
TONE_NAME: Literal["bt709"] = "bt709"
REPEATABILITY = np.array([0.05, 0.05, 0.05, 0.01, 0.01, 0.005])
"""One sigma of x, y, z in mm and pitch, yaw, roll in deg."""
JITTER = REPEATABILITY / 10
"""The same from frame to frame of one sweep, where the rail's bends and the motor's ripple are all there is."""
EXPOSURE_S = 0.005
ALONG_THE_RAIL = np.array([-1.0, 0.0])
"""How the picture moves for growing positions."""
DEPTH_PLACES = 6
"""Places that depths are measured from, as `alignment run` takes them."""
REFERENCE_DEPTH_MM = 2200.0
"""Depth at which a class's radius and motion length hold: the middle of the scene in disparity."""
MOVER_STEP_PX = (8.0, 40.0)
_KEPT_GROUND_TRUTHS = 8
"""The pairs of one scene, with and without a thing that moves."""
_PHOTO_WIDTH_PX = 1000
"""Larger photographs are reduced to this: the renderer takes them pixel for pixel and would show flat parts."""
_CLIP_FRAMES = 12
_CLIP_VELOCITY_MM_S = 40.0
_CLIP_RATE_HZ = 30


def focus_for(radius_px: float, *, width: int = 1920, f_number: float = 8.0) -> float:
    """Focus distance in m, in front of the scene, that blurs `REFERENCE_DEPTH_MM` by a disc of ``radius_px``."""
    disc_mm = 2 * radius_px * LENS.sensor_width_mm / width
    aperture_mm = LENS.focal_mm / f_number
    light, depth = aperture_mm * LENS.focal_mm, REFERENCE_DEPTH_MM
    focus_mm = (light * depth + disc_mm * depth * LENS.focal_mm) / (disc_mm * depth + light)
    return float(focus_mm / 1000)


def breathing_focus_for(change: float, *, metered_m: float = 2.0) -> float:
    """Focus distance in m at which a thin lens pictures ``change`` larger than focused on ``metered_m``."""
    extension = LENS.focal_mm / (metered_m * 1000 - LENS.focal_mm)
    return (LENS.focal_mm / ((1 + extension) * (1 + change) - 1) + LENS.focal_mm) / 1000


@dataclass(frozen=True)
class PairClass:
    """What makes the degraded frame worse than its ground truth, and what both have in common."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Camera settings of the degraded frame that differ from the metered ones."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    world: Mapping[str, float] = field(default_factory=dict)
    """Fields of the simulation, for both frames."""
    velocity_mm_s: tuple[float, float] = (0.0, 0.0)
    """Of the carriage while the ground truth and the degraded frame are exposed."""
    acceleration_mm_s2: float = 0.0
    """Of the carriage while the degraded frame is exposed."""
    motion_px: float = 0.0
    """Length of the motion blur at `REFERENCE_DEPTH_MM`."""
    disc_px: float = 0.0
    """Radius of a disc that blurs every depth alike, which no lens does but other renderers do."""
    mover_share: float = 0.0
    jpeg_quality: int | None = None
    h264_bit_s: int | None = None
    low_light: bool = False


DARK_64 = {"exposure_s": EXPOSURE_S / 64}
CLASSES: Mapping[str, PairClass] = {
    "clean": PairClass(),
    "iso": PairClass({"iso": 6400, **DARK_64}),
    "dark8": PairClass({"exposure_s": EXPOSURE_S / 8}, low_light=True),
    "dark64": PairClass(DARK_64, low_light=True),
    "defocus2": PairClass({"focus_m": focus_for(2.0)}),
    "defocus4": PairClass({"focus_m": focus_for(4.0)}),
    "disc4": PairClass(disc_px=4.0),
    "motion8": PairClass(motion_px=8.0),
    "dark64_defocus4": PairClass({"focus_m": focus_for(4.0), **DARK_64}, low_light=True),
    "rain": PairClass(conditions={"rain": "heavy"}),
    "haze": PairClass(conditions={"haze": "heavy"}),
    "raindrop": PairClass(conditions={"raindrop": "heavy"}),
    "mover": PairClass(mover_share=0.2),
    "jpeg": PairClass(jpeg_quality=30),
    "h264": PairClass(h264_bit_s=8_000_000),
    "rolling_shutter": PairClass(world={"readout_s": 0.015}, velocity_mm_s=(40 / 3, 40.0)),
    "s_curve": PairClass(world={"readout_s": 0.015}, velocity_mm_s=(40.0, 40.0), acceleration_mm_s2=300.0),
    "half_speed": PairClass(world={"readout_s": 0.01}, velocity_mm_s=(20.0, 40.0)),
    "distortion": PairClass(world={"distortion_k1": -0.05}),
    "breathing": PairClass({"focus_m": breathing_focus_for(0.005)}, world={"focus_breathing": 1.0}),
}


@dataclass(frozen=True, eq=False)
class BenchPair:
    """Two frames and what lies between them."""

    gt: Rgb
    lq: Rgb
    gt_truth: FrameTruth
    lq_truth: FrameTruth
    moved: Mask | None
    """``(H, W)`` of the ground truth: where a thing stands in one of the frames only; None where nothing moved."""

    def true_lq(self, points_px: Array) -> Array:
        """Where the degraded frame shows what the ground truth shows at ``(n, 2)`` px; NaN on things that moved."""
        found = points_px + displacement(self.gt_truth, self.lq_truth, points_px)
        if self.moved is not None:
            column, row = np.clip(np.rint(points_px), 0, np.array(self.moved.shape[::-1]) - 1).astype(int).T
            found[self.moved[row, column]] = np.nan
        return np.asarray(found, np.float64)


@dataclass(frozen=True)
class PairPlace:
    """Which scene a pair shows and from where, the same for all classes."""

    scene: str
    index: int
    """Number of the pair in its scene."""

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of this place for one purpose."""
        return np.random.default_rng([purpose, self.index, *self.scene.encode()])

    def poses(self) -> tuple[Array, Array]:
        """Pose (6,) of the ground truth and of the degraded frame at mid-exposure."""
        rng = self.rng(1)
        gt = np.concatenate([[rng.uniform(5.0, 55.0)], np.zeros(5)]) + rng.normal(size=6) * REPEATABILITY
        return gt, gt + rng.normal(size=6) * REPEATABILITY


def places(photo_set: SetName, count: int) -> list[PairPlace]:
    """Spread ``count`` pairs over the scenes of a set."""
    names = [name for name in SCENES if name.startswith(photo_set)]
    return [PairPlace(names[i % len(names)], i // len(names)) for i in range(count)]


SCENES: Mapping[str, tuple[str, slice]] = {
    "tuning-1": ("kodak", slice(0, 6)),
    "tuning-2": ("bundled", slice(None)),
    "tuning-3": ("kodak", slice(0, 6)),
    "tuning-4": ("bundled", slice(None)),
    "report-1": ("polyu_mean", slice(0, None, 2)),
    "report-2": ("kodak", slice(6, 12)),
    "report-3": ("polyu_mean", slice(1, None, 2)),
    "report-4": ("kodak", slice(6, 12)),
    "report-5": ("polyu_mean", slice(None)),
}
"""Collection and selection of photographs by scene; the name seeds the arrangement."""


def photo_folder(scene: str, photos: Path, work: Path) -> Path | None:
    """Copy a scene's photographs, reduced where too large, into a folder of their own; None for the bundled ones."""
    collection, chosen = SCENES[scene]
    if collection == "bundled":
        return None
    folder = work / "photos" / scene
    if not folder.is_dir():
        sources = sorted(p for p in (photos / collection).iterdir() if p.suffix in (".png", ".jpg"))[chosen]
        part = Path(tempfile.mkdtemp(dir=work))
        for source in sources:
            picture = cv2.imread(str(source), cv2.IMREAD_COLOR)
            scale = min(1.0, _PHOTO_WIDTH_PX / picture.shape[1])
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(part / f"{source.stem}.png"), small)
        folder.parent.mkdir(exist_ok=True)
        try:
            part.rename(folder)
        except OSError:
            shutil.rmtree(part)
            if not folder.is_dir():  # else another process was there first
                raise
    return folder


class Studio:
    """Renders pairs of one scene.

    Args:
        scene: One of `SCENES`.
        photos: Folder of the photograph collections.
        work: Folder for reduced copies.
        size: Width and height of the frames, px.
    """

    def __init__(self, scene: str, *, photos: Path, work: Path, size: tuple[int, int]) -> None:
        self._size = size
        self._folder = photo_folder(scene, photos, work)
        self._scene = scene
        self._world = lru_cache(maxsize=1)(self._build)
        self._ground_truth = lru_cache(maxsize=_KEPT_GROUND_TRUTHS)(self._take_ground_truth)
        self._depths = lru_cache(maxsize=1)(self._measure_depths)

    def _build(self, changes: tuple[tuple[str, float], ...]) -> World:
        spec = SimulationSpec(
            width=self._size[0], height=self._size[1], covered_travel_mm=TRAVEL_MM
        ).model_copy(update=dict(changes))
        return World(spec, LENS, BOARDS, self._scene, self._folder)

    def pair(self, kind: PairClass, place: PairPlace) -> BenchPair:
        """Render one pair of a class; classes that share a ground truth share its rendering."""
        changes = tuple(sorted(kind.world.items()))
        world, lq_pose = self._world(changes), place.poses()[1]
        gt, gt_truth = self._ground_truth(changes, place, kind.velocity_mm_s[0], kind.mover_share)
        lq_shot = Shot(ExposureSettings(**kind.settings), kind.conditions, take_seed=_seed(place, 4))
        lq_poses = _swept(
            lq_pose,
            world,
            lq_shot,
            velocity_mm_s=_lq_velocity_mm_s(kind, world, lq_shot),
            acceleration_mm_s2=kind.acceleration_mm_s2,
        )
        mover = self._mover(kind.mover_share, place)
        if kind.h264_bit_s:
            lq = _last_of_clip(world, lq_pose, lq_shot, kind, seed=_seed(place, 3))
        else:
            lq = _taken(world, lq_poses, lq_shot, kind, seed=_seed(place, 3), mover=mover and mover.after)
        return BenchPair(
            gt=gt,
            lq=lq,
            gt_truth=gt_truth,
            lq_truth=_truth(world, lq_poses, lq_shot),
            moved=None if mover is None else mover.area(),
        )

    def _take_ground_truth(
        self,
        changes: tuple[tuple[str, float], ...],
        place: PairPlace,
        velocity_mm_s: float,
        mover_share: float,
    ) -> tuple[Rgb, FrameTruth]:
        world, shot = self._world(changes), Shot(ExposureSettings())
        poses = _swept(place.poses()[0], world, shot, velocity_mm_s=velocity_mm_s)
        mover = self._mover(mover_share, place)
        codes = _taken(world, poses, shot, PairClass(), seed=_seed(place, 2), mover=mover and mover.before)
        codes.setflags(write=False)
        return codes, _truth(world, poses, shot)

    def depths(self, kind: PairClass) -> SceneDepths:
        """Measure the scene's depths on frames of a ground-truth round, as the product does."""
        return self._depths(tuple(sorted(kind.world.items())), kind.velocity_mm_s[0])

    def _measure_depths(self, changes: tuple[tuple[str, float], ...], velocity_mm_s: float) -> SceneDepths:
        world, shot = self._world(changes), Shot(ExposureSettings())
        focal_px, tone = nominal_focal_px(LENS, self._size[0]), standard_tone_curve(TONE_NAME)
        gaps_mm = [px * REFERENCE_DEPTH_MM / focal_px for px in BASELINES_PX]
        rng = np.random.default_rng([6, *self._scene.encode()])
        offset = rng.normal(size=6) * REPEATABILITY

        def frame(position_mm: float) -> Picture:
            pose = np.array([position_mm, 0, 0, 0, 0, 0]) + offset + rng.normal(size=6) * JITTER
            poses = _swept(pose, world, shot, velocity_mm_s=velocity_mm_s)
            seed = int(rng.integers(1, 2**31))
            return Picture(_taken(world, poses, shot, PairClass(), seed=seed), tone=tone)

        def views() -> Iterator[StereoView]:
            for position_mm in np.linspace(TRAVEL_MM[0], TRAVEL_MM[1] - gaps_mm[-1], DEPTH_PLACES):
                yield StereoView(
                    frame(position_mm),
                    position_mm,
                    [(frame(position_mm + gap_mm), position_mm + gap_mm) for gap_mm in gaps_mm],
                    shift_px=-BASELINES_PX[0] * ALONG_THE_RAIL,
                )

        camera = Pinhole(focal_px, *self._size)
        found = measure_depths(views(), camera=camera, direction=ALONG_THE_RAIL)
        if found is None:
            raise RuntimeError(f"the depths of {self._scene} could not be measured")
        return found

    def _mover(self, share: float, place: PairPlace) -> Mover | None:
        return Mover.draw(share, place, size=self._size, photos=Photos(self._folder))


def _seed(place: PairPlace, purpose: int) -> int:
    return int(place.rng(purpose).integers(1, 2**31))


def _lq_velocity_mm_s(kind: PairClass, world: World, shot: Shot) -> float:
    if not kind.motion_px:
        return kind.velocity_mm_s[1]
    focal_px = nominal_focal_px(LENS, world.spec.width)
    return (
        kind.motion_px
        * REFERENCE_DEPTH_MM
        / focal_px
        / complete(shot.settings, world.spec.metered).exposure_s
    )


def _swept(
    pose: Array, world: World, shot: Shot, *, velocity_mm_s: float, acceleration_mm_s2: float = 0.0
) -> Array:
    """Poses (K, 6) from the first row's start to the last row's end, ``pose`` in the middle of the middle row."""
    span_s = complete(shot.settings, world.spec.metered).exposure_s + world.spec.readout_s
    t_s = np.linspace(-span_s / 2, span_s / 2, 9)
    poses = np.repeat(pose[None], len(t_s), axis=0)
    poses[:, 0] += velocity_mm_s * t_s + acceleration_mm_s2 / 2 * t_s**2
    return poses


def _truth(world: World, poses: Array, shot: Shot) -> FrameTruth:
    return FrameTruth(world.truth_header(shot), truth_row(world.spec, LENS, poses, shot))


def _taken(
    world: World, poses: Array, shot: Shot, kind: PairClass, *, seed: int, mover: Layer | None = None
) -> Rgb:
    light = world.light(poses, shot, frame_seed=seed)
    if mover is not None:
        light = mover.over(light)
    if kind.disc_px:
        light = np.asarray(cv2.filter2D(light, -1, disc_kernel(kind.disc_px)), np.float32)
    state = sensor_state(world.spec, complete(shot.settings, world.spec.metered))
    codes = develop(expose(light, state, seed=seed), state.gains, TONE_NAME)
    return codes if kind.jpeg_quality is None else _through_jpeg(codes, kind.jpeg_quality)


def _through_jpeg(codes: Rgb, quality: int) -> Rgb:
    bgr = cv2.cvtColor(codes, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def _last_of_clip(world: World, pose: Array, shot: Shot, kind: PairClass, *, seed: int) -> Rgb:
    """The last frame of a clip at the class's bit rate, decoded as the product does."""
    step_mm = _CLIP_VELOCITY_MM_S / _CLIP_RATE_HZ
    clip = []
    for back in range(_CLIP_FRAMES - 1, -1, -1):
        there = pose - [back * step_mm, 0, 0, 0, 0, 0]
        clip.append(_taken(world, there[None], shot, PairClass(), seed=seed + back))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mov"
        _encode(path, clip, kind.h264_bit_s or 0)
        with open_movie([path]) as movie:
            return np.asarray(movie.read(_CLIP_FRAMES - 1).rgb(), np.uint8)


def _encode(path: Path, frames: Sequence[Rgb], bit_s: int) -> None:
    import av

    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("libx264", rate=Fraction(_CLIP_RATE_HZ))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", bit_s
        stream.options = {"preset": "veryfast", "maxrate": str(bit_s), "bufsize": str(bit_s // 2)}
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(to_yuv420(frame), format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, _CLIP_RATE_HZ)
            picture.colorspace = picture.color_range = 1
            movie.mux(stream.encode(picture))
        movie.mux(stream.encode(None))


@dataclass(frozen=True, eq=False)
class Layer:
    """A thing in front of everything."""

    colour: Light
    cover: Light

    def over(self, light: Light) -> Light:
        """Put it over a picture's light, (H, W, 3)."""
        return np.asarray(light + self.cover[..., None] * (self.colour - light), np.float32)


@dataclass(frozen=True, eq=False)
class Mover:
    """A photograph cut to an ellipse that stands elsewhere in the degraded frame."""

    before: Layer
    after: Layer

    @classmethod
    def draw(cls, share: float, place: PairPlace, *, size: tuple[int, int], photos: Photos) -> Mover | None:
        """Draw a thing that covers ``share`` of the frame, and its step; None for a share of 0."""
        if not share:
            return None
        rng = place.rng(5)
        width, height = size
        aspect = rng.uniform(0.6, 1.2)
        half = np.sqrt(share * width * height / np.pi / aspect) * np.array([aspect, 1.0])
        half *= min(1.0, 0.48 * height / half[1])
        half[0] = share * width * height / np.pi / half[1]
        middle = rng.uniform(half, np.array(size) - half)
        turn = rng.uniform(0, 2 * np.pi)
        step = rng.uniform(*MOVER_STEP_PX) * np.array([np.cos(turn), np.sin(turn)])
        photo = photos.load(str(rng.choice(list(photos.names))))
        return cls(*(_standing(photo, m, half, size) for m in (middle, middle + step)))

    def area(self) -> Mask:
        """Where either frame shows the thing, and a little around."""
        seen = np.maximum(self.before.cover, self.after.cover)
        return np.asarray(cv2.dilate(seen, np.ones((9, 9), np.uint8)) > 0, np.bool_)


def _standing(photo: Light, middle: Array, half: Array, size: tuple[int, int]) -> Layer:
    scale = float(np.max(2 * half / np.array(photo.shape[1::-1])))
    corner = middle - scale * np.array(photo.shape[1::-1]) / 2
    to_frame = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    colour = cv2.warpAffine(photo, to_frame, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size))
    distance = np.hypot((x - middle[0]) / half[0], (y - middle[1]) / half[1])
    return Layer(colour, np.clip((1 - distance) * half.min() + 0.5, 0, 1).astype(np.float32))
