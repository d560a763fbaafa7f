"""A small exact world on a rail, filmed into real movie files.

Fronto-parallel planes only, so that the true picture position of everything is one line of arithmetic:
``u = f (X - x) / Z + cx``. Textures hold 2 samples per image pixel and are sampled bilinearly: a sharper
kernel would shift the truth by up to 0.05 px.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from catalog.journal import seal_journal_row
from catalog.session_folder import (
    BoardSpec,
    CameraTake,
    ColourTags,
    ExposureSettings,
    FileRecord,
    LensSpec,
    RoundRecord,
    SessionRecord,
    SweepRecord,
    TakeRecord,
    file_sha256,
    take_folder_name,
)

Light = NDArray[np.float32]

BOARDS = (
    BoardSpec(columns=7, rows=5, square_mm=100, marker_mm=78),
    BoardSpec(columns=7, rows=5, square_mm=100, marker_mm=78, first_id=17),
)


@dataclass(frozen=True)
class Plane:
    """A textured rectangle facing the camera; ``x_mm`` and ``y_mm`` are its middle."""

    depth_mm: float
    x_mm: float
    y_mm: float
    width_mm: float
    height_mm: float
    seed: int = 0
    board: BoardSpec | None = None


@dataclass(frozen=True)
class Motion:
    """A trapezoid: rest until ``start_s``, then at ``acceleration`` to ``velocity`` and back over ``travel``."""

    start_s: float
    from_mm: float
    travel_mm: float
    velocity_mm_s: float
    acceleration_mm_s2: float = 100.0
    jitter_mm: float = 0.0

    @property
    def ramp_s(self) -> float:
        return self.velocity_mm_s / self.acceleration_mm_s2

    @property
    def cruise_s(self) -> float:
        return self.travel_mm / self.velocity_mm_s - self.ramp_s

    def position_mm(self, time_s: NDArray[np.float64] | float) -> NDArray[np.float64]:
        t = np.asarray(time_s, float) - self.start_s
        up = np.clip(t, 0, self.ramp_s)
        on = np.clip(t - self.ramp_s, 0, self.cruise_s)
        down = np.clip(t - self.ramp_s - self.cruise_s, 0, self.ramp_s)
        a = self.acceleration_mm_s2
        return self.from_mm + a * up**2 / 2 + self.velocity_mm_s * (on + down) - a * down**2 / 2


@dataclass(frozen=True)
class Look:
    """What the camera and the light do to a picture."""

    exposure: float = 1.0
    gain: float = 1.0
    full_well_e: float = 8000.0
    read_noise_e: float = 4.0
    disc_radius_px: float = 0.0
    haze_per_m: float = 0.0
    cover: tuple[int, int, int, int] | None = None
    """A grey rectangle in front of everything: x, y, width, height."""


@dataclass(frozen=True)
class World:
    """Planes in front of a pinhole camera."""

    width: int = 640
    height: int = 360
    focal_px: float = 600.0
    planes: tuple[Plane, ...] = (
        Plane(4000, 20, 0, 5600, 3200, seed=1),
        Plane(2500, 700, 350, 1500, 700, seed=2),
        Plane(1900, -600, -240, 700, 500, board=BOARDS[0]),
        Plane(2600, 760, -400, 700, 500, board=BOARDS[1]),
        Plane(1600, -230, 330, 560, 240, seed=3),
    )

    def pixel(self, x_mm: float, y_mm: float, depth_mm: float, rail_mm: float) -> tuple[float, float]:
        """Project a point; the camera moves to the right."""
        scale = self.focal_px / depth_mm
        return scale * (x_mm - rail_mm) + (self.width - 1) / 2, scale * y_mm + (self.height - 1) / 2

    def light(
        self, rail_mm: float, *, angles_px: tuple[float, float] = (0, 0), haze_per_m: float = 0.0
    ) -> Light:
        """Render light ``(H, W, 3)`` 0..1 at one rail position; ``angles_px`` shifts the whole picture."""
        picture = np.zeros((self.height, self.width, 3), np.float32)
        for plane in self.planes:
            texture = _texture(plane, self.focal_px)
            x, y = self.pixel(plane.x_mm, plane.y_mm, plane.depth_mm, rail_mm)
            ox = x + angles_px[0] - (texture.shape[1] / 2 - 0.5) / 2
            oy = y + angles_px[1] - (texture.shape[0] / 2 - 0.5) / 2
            to_texture = np.array([[2, 0, -2 * ox], [0, 2, -2 * oy]])
            size = (self.width, self.height)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            layer = cv2.warpAffine(texture, to_texture, size, flags=flags)
            alpha = cv2.warpAffine(np.ones(texture.shape[:2], np.float32), to_texture, size, flags=flags)
            through = np.exp(-haze_per_m * plane.depth_mm / 1000)
            layer = through * layer + (1 - through) * 0.7 * alpha[..., None]
            picture = layer + (1 - alpha[..., None]) * picture
        return picture


@cache
def _texture(plane: Plane, focal_px: float) -> Light:
    samples = 2 * focal_px / plane.depth_mm
    size = (round(plane.width_mm * samples), round(plane.height_mm * samples))
    if plane.board is not None:
        return _board_light(plane.board, size)
    rng = np.random.default_rng(plane.seed)
    picture = np.zeros((size[1], size[0], 3), np.float32)
    for octave in range(1, 7):
        grid = rng.normal(size=(size[1] // 2**octave + 2, size[0] // 2**octave + 2, 3)).astype(np.float32)
        picture += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC) * 2 ** (0.7 * octave)
    picture = (picture - picture.mean()) / picture.std()
    return np.clip(0.3 + 0.16 * picture, 0.01, 0.95).astype(np.float32)


def _board_light(spec: BoardSpec, size: tuple[int, int]) -> Light:
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, spec.dictionary))
    ids = np.arange(spec.first_id, spec.first_id + spec.columns * spec.rows // 2)
    board = cv2.aruco.CharucoBoard((spec.columns, spec.rows), spec.square_mm, spec.marker_mm, dictionary, ids)
    drawn = board.generateImage((spec.columns * 96, spec.rows * 96))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.repeat((0.02 + 0.8 * small)[..., None], 3, axis=2)


def encode_bt709(light: Light) -> NDArray[np.float32]:
    """Turn light into code values 0..1."""
    return np.where(light < 0.018, 4.5 * light, 1.099 * np.maximum(light, 1e-9) ** 0.45 - 0.099)


def yuv_planes(codes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Turn RGB codes 0..1 into BT.709 limited 4:2:0 planes, chroma sited left."""
    rgb = codes.astype(np.float32)
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    planes = [16 + 219 * luma]
    for channel, weight in ((2, 1.8556), (0, 1.5748)):
        chroma = (rgb[..., channel] - luma) / weight
        left = 0.25 * np.roll(chroma, 1, 1) + 0.5 * chroma + 0.25 * np.roll(chroma, -1, 1)
        planes.append(128 + 224 * (left[::2, ::2] + left[1::2, ::2]) / 2)
    flat = np.concatenate([p.ravel() for p in planes])
    return np.clip(np.rint(flat), 0, 255).astype(np.uint8).reshape(-1, codes.shape[1])


def expose(light: Light, look: Look, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur, take photons, add read noise, amplify, clip: code values 0..1."""
    if look.disc_radius_px:
        half = int(np.ceil(look.disc_radius_px))
        sub = (np.arange((2 * half + 1) * 16) + 0.5) / 16 - half - 0.5
        disc = (sub[:, None] ** 2 + sub**2 <= look.disc_radius_px**2).astype(np.float32)
        kernel = disc.reshape(2 * half + 1, 16, -1, 16).mean(axis=(1, 3))
        light = cv2.filter2D(light, -1, kernel / kernel.sum())
    electrons = light * np.float32(look.full_well_e * look.exposure)
    spread = np.sqrt(np.maximum(electrons, 0) + np.float32(look.read_noise_e**2))
    noisy = electrons + spread * rng.standard_normal(light.shape, dtype=np.float32)
    return encode_bt709(np.clip(noisy * np.float32(look.gain / look.full_well_e), 0, 1))


@dataclass
class RoundShot:
    """A round to film."""

    name: str
    role: str
    motion: Motion
    look: Look = Look()
    degradations: tuple[str, ...] = ()
    duration_s: float | None = None
    rate_hz: float = 30.0
    exposure_s: float = 0.002
    angles_px: tuple[float, float] = (0.0, 0.0)
    seed: int = 1
    truth_mm: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def film(path: Path, world: World, shot: RoundShot) -> int:
    """Film a round into a movie; fills in ``shot.truth_mm`` at mid-exposure and returns the frame count."""
    motion = shot.motion
    end_s = shot.duration_s or motion.start_s + 2 * motion.ramp_s + motion.cruise_s + 0.3
    count = int(end_s * shot.rate_hz)
    times = np.arange(count) / shot.rate_hz + shot.exposure_s / 2
    rng = np.random.default_rng(shot.seed)
    moving = np.gradient(motion.position_mm(times)) > 0.05
    shot.truth_mm = motion.position_mm(times) + motion.jitter_mm * rng.normal(size=count) * moving
    pictures = (
        yuv_planes(
            _cover(
                expose(
                    world.light(float(x), angles_px=shot.angles_px, haze_per_m=shot.look.haze_per_m),
                    shot.look,
                    rng,
                ),
                shot.look,
            )
        )
        for x in shot.truth_mm
    )
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("libx264", rate=Fraction(shot.rate_hz))
        stream.width, stream.height, stream.pix_fmt = world.width, world.height, "yuv420p"
        stream.options = {"crf": "8", "preset": "ultrafast", "g": "12"}
        context = stream.codec_context
        context.time_base = Fraction(1, 30000)
        context.colorspace = context.color_trc = context.color_primaries = context.color_range = 1
        for i, planes in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = round(i * 30000 / shot.rate_hz), Fraction(1, 30000)
            movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))
    return count


def _cover(codes: NDArray[np.float32], look: Look) -> NDArray[np.float32]:
    if look.cover is not None:
        x, y, width, height = look.cover
        codes[y : y + height, x : x + width] = 0.45
    return codes


class SessionBuilder:
    """Writes a session folder through the catalog's contract."""

    def __init__(
        self,
        path: Path,
        *,
        world: World | None = None,
        boards: tuple[BoardSpec, ...] = BOARDS,
        lens: bool = True,
        telemetry: bool = True,
    ) -> None:
        self.path = path
        self.world = world or World()
        self._boards, self._lens, self._telemetry = boards, lens, telemetry
        self._rounds: list[RoundRecord] = []
        self._lines: list[bytes] = []
        self.shots: dict[str, RoundShot] = {}
        path.mkdir(parents=True)

    def shoot(self, shot: RoundShot) -> None:
        """Film a round and write its take."""
        self.shots[shot.name] = shot
        number = len(self._rounds) + 1
        record = RoundRecord(
            number=number,
            name=shot.name,
            role=shot.role,
            degradations=shot.degradations,
            settings=ExposureSettings(exposure_s=shot.exposure_s),
            sweep=self._sweep(shot) if self._telemetry else None,
        )
        self._rounds.append(record)
        folder = self.path / "rounds" / take_folder_name(number, shot.name, 1)
        folder.mkdir(parents=True)
        count = film(folder / "main-01.mov", self.world, shot)
        self._write_tables(folder, shot, count)
        self._write_take(folder, record, shot, count)
        self._journal(shot.name)

    def void(self, name: str) -> None:
        """Announce a round that has no valid take."""
        self._rounds.append(RoundRecord(number=len(self._rounds) + 1, name=name, role="internal"))

    def finish(self, session: str = "bench") -> Path:
        """Write `session.json` and the journal."""
        record = SessionRecord(
            schema=1,
            session=session,
            scene="test",
            created_utc_us=0,
            source="captured",
            rig="test",
            simulated=True,
            cameras=("main",),
            boards=self._boards,
            lens=LensSpec(
                focal_mm=36 * self.world.focal_px / self.world.width,
                sensor_width_mm=36,
                scene_depth_mm=(1500, 4000),
            )
            if self._lens
            else None,
            rounds=tuple(self._rounds),
        )
        (self.path / "session.json").write_text(record.model_dump_json(by_alias=True))
        (self.path / "journal.jsonl").write_bytes(b"".join(self._lines))
        return self.path

    def _sweep(self, shot: RoundShot) -> SweepRecord:
        m = shot.motion
        run_up = m.velocity_mm_s * m.ramp_s / 2
        return SweepRecord(
            start_mm=m.from_mm + run_up,
            end_mm=m.from_mm + m.travel_mm - run_up,
            velocity_mm_s=m.velocity_mm_s,
            acceleration_mm_s2=m.acceleration_mm_s2,
        )

    def _write_tables(self, folder: Path, shot: RoundShot, count: int) -> None:
        with (folder / "main.frames.csv").open("w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(["index", "pts", "time_base", "t_host_s"])
            for i in range(count):
                pts = round(i * 30000 / shot.rate_hz)
                rows.writerow([i, pts, "1/30000", f"{50 + pts / 30000:.6f}"])
        if self._telemetry:
            # The rail's clock and the movie's differ by 0.4 s, which alignment must find out.
            times = np.arange(0, count / shot.rate_hz, 0.05)
            position = shot.motion.position_mm(times)
            with (folder / "telemetry.csv").open("w", newline="") as out:
                rows = csv.writer(out)
                rows.writerow(["t_host_s", "position_mm", "velocity_mm_s", "state"])
                for t, x, v in zip(times, position, np.gradient(position, 0.05), strict=True):
                    rows.writerow([f"{50.4 + t:.4f}", f"{100 + x:.3f}", f"{v:.2f}", "run"])

    def _write_take(self, folder: Path, record: RoundRecord, shot: RoundShot, count: int) -> None:
        files = tuple(
            FileRecord(path=p.name, size_bytes=p.stat().st_size, sha256=file_sha256(p))
            for p in sorted(folder.iterdir())
        )
        take = TakeRecord(
            schema=1,
            round=record,
            take=1,
            cameras={
                "main": CameraTake(
                    kind="movie",
                    files=("main-01.mov",),
                    frames_csv="main.frames.csv",
                    width=self.world.width,
                    height=self.world.height,
                    frame_count=count,
                    measured_rate_hz=shot.rate_hz,
                    colour=ColourTags(matrix="bt709", range="tv", transfer="bt709"),
                    settings_read=ExposureSettings(exposure_s=shot.exposure_s),
                )
            },
            telemetry="telemetry.csv" if self._telemetry else None,
            files=files,
        )
        (folder / "round.json").write_text(take.model_dump_json(by_alias=True))

    def _journal(self, name: str) -> None:
        for kind, more in (("take_intent", {}), ("take_outcome", {"state": "valid", "reason": ""})):
            row = {
                "seq": len(self._lines),
                "t_utc_us": 0,
                "t_host_s": 0.0,
                "kind": kind,
                "round": name,
                "take": 1,
                **more,
            }
            last = self._lines[-1] if self._lines else None
            self._lines.append(seal_journal_row(row, previous_line=last))


def gt_shot(name: str = "gt", **kwargs: object) -> RoundShot:
    """A slow well-lit ground-truth round over 14 mm of uniform motion."""
    motion = Motion(0.5, 0.0, 15.0, 10.0)
    return RoundShot(name, "gt", **{"motion": motion, "seed": 11, **kwargs})


def lq_shot(name: str, look: Look, **kwargs: object) -> RoundShot:
    """A faster degraded round over the same stretch, with a longer run-up."""
    motion = Motion(0.35, -2.0, 18.0, 25.0, acceleration_mm_s2=150.0, jitter_mm=0.01)
    return RoundShot(name, "internal", **{"motion": motion, "look": look, "seed": 12, **kwargs})


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> SessionBuilder:
    """A session of a ground-truth round, two degraded ones and one without a take; `bench.path` is its folder."""
    root = tmp_path_factory.mktemp("bench")
    builder = SessionBuilder(root / "session")
    builder.shoot(gt_shot())
    noisy = Look(exposure=1 / 16, gain=16.0)
    builder.shoot(lq_shot("noise", noisy, degradations=("noise",), angles_px=(0.15, -0.1), seed=21))
    soft = Look(disc_radius_px=2.5)
    builder.shoot(lq_shot("defocus", soft, degradations=("defocus_blur",), angles_px=(-0.1, 0.05), seed=23))
    builder.void("rain")
    builder.finish()
    return builder


class FilmKit:
    """The parts of this file, for tests that film something of their own."""

    World, Plane, Motion, Look, RoundShot = World, Plane, Motion, Look, RoundShot
    SessionBuilder = SessionBuilder
    expose = staticmethod(expose)
    gt_shot = staticmethod(gt_shot)
    lq_shot = staticmethod(lq_shot)


@pytest.fixture(scope="session")
def film_kit() -> type[FilmKit]:
    """The parts a test can build worlds and sessions from."""
    return FilmKit
