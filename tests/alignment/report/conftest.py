"""A session folder written by hand through the catalog's contract, for the report to read.

Motion and errors follow closed forms, so that what the report must say can be worked out; pictures are two
bundled photographs in a few written pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from catalog.evidence import (
    AlignmentRecord,
    BlurRecord,
    MotionPhases,
    PairFrame,
    PairHashes,
    PairRecord,
    RoundMotion,
)
from catalog.journal import seal_journal_row
from catalog.session_folder import (
    BoardSpec,
    CameraTake,
    ColourTags,
    ExposureSettings,
    FileRecord,
    LensSpec,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    SweepRecord,
    TakeRecord,
    file_sha256,
    take_folder_name,
    write_alignment,
    write_pairs,
)

RATE_HZ = 30.0
CRUISE_MM = 240.0
RAMP_S = 0.4
CLEAN = ExposureSettings(iso=100, f_number=8.0, exposure_s=0.005, focus_m=2.0)
SHARP = BlurRecord(kind="none", size_px=0.0)
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Sketch:
    """A round to draw up."""

    name: str
    role: str = "internal"
    velocity_mm_s: float = 40.0
    degradations: tuple[str, ...] = ()
    settings: ExposureSettings = CLEAN
    read: ExposureSettings | None = None
    """What the camera read back, where that is not what was asked."""
    conditions: dict[str, str] = field(default_factory=dict)
    pairs: int = 0
    rejected: tuple[str, ...] = ()
    """One rejected candidate per entry; reasons joined by ``+``."""
    residual_px: float = 0.02
    shaken_sd_px: float | None = 0.01
    autocorrelation: float = 0.05
    void_reasons: tuple[str, ...] = ()
    """A void take for each, before the valid one."""
    valid: bool = True
    dropped: int = 0
    model: str = "Bench 100"
    blur: BlurRecord = SHARP
    pictures: int = 24


SKETCHES = (
    Sketch("gt", "gt", velocity_mm_s=13.0),
    Sketch(
        "iso6400",
        degradations=("noise",),
        settings=ExposureSettings(iso=6400, f_number=8.0, exposure_s=0.000078, focus_m=2.0),
        pairs=24,
        rejected=("position_gap", "position_gap+not_uniform", "not_uniform"),
    ),
    Sketch(
        "defocus",
        degradations=("defocus_blur",),
        settings=ExposureSettings(iso=100, f_number=8.0, exposure_s=0.005, focus_m=0.9),
        pairs=20,
        rejected=("moving_object",) * 3 + ("low_information",),
        residual_px=0.03,
        blur=BlurRecord(kind="disc", size_px=3.2),
    ),
    Sketch(
        "rain",
        "external",
        degradations=("rain",),
        conditions={"rain": "light"},
        pairs=16,
        rejected=("bad_content",),
        residual_px=0.025,
        void_reasons=("the camera stopped after 3.2 s",),
    ),
)


class SessionSketch:
    """Writes a session folder from sketches of its rounds."""

    def __init__(
        self, path: Path, sketches: Sequence[Sketch], *, session: str = "bookshelf-20260102"
    ) -> None:
        self.path = path
        self.session = session
        self.sketches = sketches
        self._lines: list[bytes] = []
        path.mkdir(parents=True)

    def write(self, *, aligned: bool = True, warnings: tuple[str, ...] = (), **more: Any) -> SessionFolder:
        """Write everything; ``more`` replaces members of `session.json`."""
        records = [self._record(i, s) for i, s in enumerate(self.sketches, start=1)]
        self._note("session_created", session=self.session)
        self._note("devices", rail="GRBL 1.1h on a pseudo-terminal", photos=None)
        for record, sketch in zip(records, self.sketches, strict=True):
            self._write_takes(record, sketch)
        (self.path / "journal.jsonl").write_bytes(b"".join(self._lines))
        document = self._session(records).model_copy(update=more)
        (self.path / "session.json").write_text(document.model_dump_json(by_alias=True))
        if aligned:
            self._write_alignment(warnings)
        return SessionFolder(self.path)

    def _session(self, records: Sequence[RoundRecord]) -> SessionRecord:
        return SessionRecord(
            schema=1,
            session=self.session,
            scene="bookshelf",
            created_utc_us=1_767_323_045_000_000,
            source="captured",
            rig="bench-a",
            simulated=True,
            cameras=("main",),
            boards=(BoardSpec(columns=7, rows=5, square_mm=40, marker_mm=30),),
            lens=LensSpec(focal_mm=35, sensor_width_mm=35.9, scene_depth_mm=(1500, 4000)),
            rounds=tuple(records),
            plan={"scene": "bookshelf", "sweep": {"start_mm": 60, "end_mm": 300, "velocity_mm_s": 40}},
            profile={"name": "bench-a", "simulated": True},
            versions={"cleanplate": "0.1.0", "gphoto2": "2.6.4"},
        )

    def _record(self, number: int, sketch: Sketch) -> RoundRecord:
        return RoundRecord(
            number=number,
            name=sketch.name,
            role=sketch.role,
            degradations=sketch.degradations,
            settings=sketch.settings,
            conditions=sketch.conditions,
            sweep=SweepRecord(
                start_mm=60, end_mm=300, velocity_mm_s=sketch.velocity_mm_s, acceleration_mm_s2=100
            ),
        )

    def _note(self, kind: str, **members: Any) -> None:
        count = len(self._lines) + 1
        row = {
            "seq": count,
            "t_utc_us": 1_767_323_045_000_000 + 10_000 * count,
            "t_host_s": 1.5 * count,
            "kind": kind,
        }
        last = self._lines[-1] if self._lines else None
        self._lines.append(seal_journal_row({**row, **members}, previous_line=last))

    def _write_takes(self, record: RoundRecord, sketch: Sketch) -> None:
        for take, reason in enumerate(sketch.void_reasons, start=1):
            self._note("take_intent", round=record.name, take=take)
            self._note("take_outcome", round=record.name, take=take, state="void", reason=reason)
        if sketch.valid:
            take = len(sketch.void_reasons) + 1
            self._note("take_intent", round=record.name, take=take)
            self._write_take(record, sketch, take)
            self._note("take_outcome", round=record.name, take=take, state="valid", reason="")

    def _write_take(self, record: RoundRecord, sketch: Sketch, take: int) -> None:
        folder = self.path / "rounds" / take_folder_name(record.number, record.name, take)
        folder.mkdir(parents=True)
        (folder / "main-01.mov").write_bytes(f"movie of {record.name}".encode())
        kept = [i for i in range(len(times_s(sketch)) + sketch.dropped) if not 20 <= i < 20 + sketch.dropped]
        rows = [f"{n},{1000 * i},1/30000,{5 + i / RATE_HZ:.6f}" for n, i in enumerate(kept)]
        (folder / "main.frames.csv").write_text("\n".join(["index,pts,time_base,t_host_s", *rows]) + "\n")
        files = tuple(
            FileRecord(path=p.name, size_bytes=p.stat().st_size, sha256=file_sha256(p))
            for p in sorted(folder.iterdir())
        )
        camera = CameraTake(
            kind="movie",
            files=("main-01.mov",),
            frames_csv="main.frames.csv",
            width=1280,
            height=720,
            frame_count=len(kept),
            measured_rate_hz=29.97,
            colour=ColourTags(matrix="bt709", range="tv", transfer="bt709"),
            model=sketch.model,
            serial="6001234",
            settings_read=sketch.read or sketch.settings,
        )
        document = TakeRecord(schema=1, round=record, take=take, cameras={"main": camera}, files=files)
        (folder / "round.json").write_text(document.model_dump_json(by_alias=True))

    def _write_alignment(self, warnings: tuple[str, ...]) -> None:
        aligned = [s for s in self.sketches if s.valid]
        write_alignment(
            self.path,
            AlignmentRecord(
                schema=1,
                session=self.session,
                versions={"cleanplate": "0.1.0", "numpy": "2.4.6"},
                parameters={
                    "parallax_px": 0.25,
                    "unwarped_px": 0.05,
                    "cruise_residual_px": 0.3,
                    "stick_slip": 0.5,
                    "stick_slip_floor_px": 0.2,
                },
                focal_px=1248.0,
                focal_source="lens",
                px_per_mm=0.6569,
                tone_curve="bt709",
                disparity_px_per_mm=(0.312, 0.832),
                position_limit_mm=0.3,
                rounds=tuple(motion_of(s) for s in aligned),
                warnings=warnings,
            ),
        )
        pairs = [p for s in aligned for p in pairs_of(s)]
        write_pairs(self.path, pairs)
        self._write_pictures(pairs)

    def _write_pictures(self, pairs: Sequence[PairRecord]) -> None:
        """Write pictures for the first pairs of each round that its sketch asks for."""
        wanted = {s.name: s.pictures for s in self.sketches}
        for side in ("gt", "lq"):
            (self.path / "pairs" / side).mkdir(parents=True)
        for name, count in wanted.items():
            accepted = [p for p in pairs if p.lq.round == name and p.verdict == "accepted"]
            for pair in accepted[:count]:
                self._write_picture(pair)

    def _write_picture(self, pair: PairRecord) -> None:
        clean = photograph(pair.lq.frame_index)
        worse = (clean // 3).astype(np.uint8)
        for side, picture in (("gt", clean), ("lq", worse)):
            Image.fromarray(picture).save(self.path / "pairs" / side / f"{pair.pair}.png", compress_level=1)


def photograph(index: int = 0) -> NDArray[np.uint8]:
    """A window of a bundled photograph, 320 by 192, moved by four pixels for every index."""
    left = 4 * (index % 60)
    return np.ascontiguousarray(data.coffee()[60:252, left : left + 320])


def times_s(sketch: Sketch) -> NDArray[np.float64]:
    """Mid-exposure times of a round: half a second of rest, the move, half a second of rest."""
    move_s = CRUISE_MM / sketch.velocity_mm_s + 2 * RAMP_S
    return np.arange(int((1.0 + move_s) * RATE_HZ)) / RATE_HZ


def position_mm(sketch: Sketch, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trapezoid: ramps of ``RAMP_S`` around ``CRUISE_MM`` of uniform motion."""
    since = time_s - 0.5
    v, cruise_s = sketch.velocity_mm_s, CRUISE_MM / sketch.velocity_mm_s
    up = np.clip(since, 0, RAMP_S)
    on = np.clip(since - RAMP_S, 0, cruise_s)
    down = np.clip(since - RAMP_S - cruise_s, 0, RAMP_S)
    return v * (up**2 / (2 * RAMP_S) + on + down - down**2 / (2 * RAMP_S)) - v * RAMP_S / 2


def motion_of(sketch: Sketch) -> RoundMotion:
    """The measured motion of a round, with a residual of 0.02 px."""
    time = times_s(sketch)
    noise = 0.02 * np.random.default_rng(len(sketch.name)).normal(size=time.shape)
    exact = position_mm(sketch, time)
    end_s = 0.5 + RAMP_S + CRUISE_MM / sketch.velocity_mm_s
    return RoundMotion(
        round=sketch.name,
        take=len(sketch.void_reasons) + 1,
        camera="main",
        verdict="used",
        evidence=("markers", "telemetry"),
        profile="trapezoid",
        phases=MotionPhases(
            start_s=0.5, cruise_start_s=0.5 + RAMP_S, cruise_end_s=end_s, stop_s=end_s + RAMP_S
        ),
        velocity_mm_s=1.0005 * sketch.velocity_mm_s,
        velocity_sigma_mm_s=0.002,
        acceleration_mm_s2=sketch.velocity_mm_s / RAMP_S,
        commanded_velocity_mm_s=sketch.velocity_mm_s,
        residual_sd_px=0.02,
        shaken_sd_px=sketch.shaken_sd_px,
        autocorrelation=sketch.autocorrelation,
        sigma_measurement_mm=0.02,
        sigma_jitter_mm=0.01,
        clock_offset_s=0.31,
        frames=len(time),
        frames_tracked=len(time) - 2,
        time_s=tuple(time.round(6).tolist()),
        position_mm=tuple((exact + noise).round(4).tolist()),
        residual_px=tuple(noise.round(5).tolist()),
        telemetry_time_s=tuple(time[::3].round(6).tolist()),
        telemetry_position_mm=tuple((60 + exact[::3]).round(4).tolist()),
    )


def pairs_of(sketch: Sketch) -> Iterator[PairRecord]:
    """Accepted pairs spread over the cruise, then the rejected candidates."""
    places = np.linspace(5, CRUISE_MM - 5, sketch.pairs)
    for i, place in enumerate(places):
        share = (i % 7 + 1) / 4  # residuals from a quarter to seven quarters of the round's usual one
        yield _pair(sketch, i, float(place), residual_px=share * sketch.residual_px, reasons=())
    for i, reasons in enumerate(sketch.rejected, start=sketch.pairs):
        yield _pair(sketch, i, -3.0 - i % 5, residual_px=None, reasons=tuple(reasons.split("+")))


def _pair(
    sketch: Sketch, index: int, place_mm: float, *, residual_px: float | None, reasons: tuple[str, ...]
) -> PairRecord:
    gap = 0.02 * (index % 13 - 6) if not reasons else 0.4 + 0.1 * (index % 3)
    take = len(sketch.void_reasons) + 1
    name = f"{sketch.name}-{index:04d}"
    digest = None if reasons else hashlib.sha256(name.encode()).hexdigest()
    return PairRecord(
        pair=name,
        gt=PairFrame(round="gt", take=1, frame_index=3 * index, time_s=1.0, position_mm=place_mm - gap),
        lq=PairFrame(
            round=sketch.name,
            take=take,
            frame_index=index,
            time_s=round(0.9 + max(place_mm, -8) / sketch.velocity_mm_s, 4),
            position_mm=place_mm,
        ),
        verdict="rejected" if reasons else "accepted",
        reasons=reasons,
        homography=None if reasons else ((1.0, 0.0, 0.5), (0.0, 1.0, -0.25), (0.0, 0.0, 1.0)),
        lq_crop=None if reasons else (0, 0, 320, 192),
        gt_from_pair=None if reasons else IDENTITY,
        gt_warped=index % 2 == 1,
        residual_px=residual_px,
        predicted_epe_px=None if residual_px is None else 1.5 * residual_px,
        bound_px=None if residual_px is None else 0.002,
        position_gap_mm=gap,
        blur=sketch.blur,
        gates={"position": 0.1, "markers": 1.0, "local_map": None},
        evidence=("markers", "telemetry"),
        mask=None,
        mu=None,
        sigma=None,
        sha256=PairHashes(gt=digest, lq=digest, mask=None),
    )


@pytest.fixture(scope="session")
def bench_session(tmp_path_factory: pytest.TempPathFactory) -> SessionFolder:
    """A complete session of a ground truth and three degraded rounds, one of them with a void take."""
    path = tmp_path_factory.mktemp("report") / "session"
    return SessionSketch(path, SKETCHES).write()


@pytest.fixture
def draw_up(tmp_path: Path) -> Any:
    """A function that writes a session of its own for a test, from the usual sketches with changes by name."""

    def make(changes: dict[str, dict[str, Any]] | None = None, **options: Any) -> SessionFolder:
        sketches = [replace(s, **{"pictures": 2, **(changes or {}).get(s.name, {})}) for s in SKETCHES]
        return SessionSketch(tmp_path / "session", sketches).write(**options)

    return make
