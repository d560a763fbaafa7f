"""A tiny real session folder, written through the contract modules alone."""

from __future__ import annotations

import hashlib
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from postgres_server import PostgresServer, postgres_programs

from catalog.evidence import (
    AlignmentRecord,
    BlurRecord,
    PairFrame,
    PairHashes,
    PairRecord,
)
from catalog.journal import seal_journal_row
from catalog.records import Degradation
from catalog.session_folder import (
    CameraTake,
    ColourTags,
    ExposureSettings,
    FileRecord,
    RoundRecord,
    SessionRecord,
    TakeRecord,
    take_folder_name,
    write_alignment,
    write_pairs,
)
from catalog.store import Catalog

WIDTH, HEIGHT = 6, 4
IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def png(seed: int, *, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Make a small RGB PNG whose pixels depend on the seed."""
    pixels = hashlib.shake_256(str(seed).encode()).digest(width * height * 3)
    rows = b"".join(b"\0" + pixels[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


NOISE = RoundRecord(
    number=2,
    name="iso6400",
    role="internal",
    degradations=(Degradation.NOISE,),
    settings=ExposureSettings(iso=6400, exposure_s=0.001),
)
RAIN = RoundRecord(
    number=3,
    name="rain",
    role="external",
    degradations=(Degradation.RAIN,),
    settings=ExposureSettings(iso=100, exposure_s=0.002),
    conditions={"rain": "light"},
)
SNOW = RoundRecord(number=4, name="snow", role="external", degradations=(Degradation.SNOW,))
GT = RoundRecord(number=1, name="gt", role="gt", settings=ExposureSettings(iso=100, exposure_s=0.002))
ROUNDS = (GT, NOISE, RAIN, SNOW)


@dataclass
class SessionWriter:
    """Writes a session folder as rig and alignment would."""

    folder: Path
    scene: str
    rounds: Sequence[RoundRecord] = ROUNDS
    last_line: bytes | None = None
    seq: int = 0
    pairs: list[PairRecord] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    def capture(self) -> SessionWriter:
        self.folder.mkdir(parents=True)
        record = SessionRecord(
            session=self.name,
            scene=self.scene,
            created_utc_us=1_760_000_000_000_000,
            source="captured",
            rig="sim",
            simulated=True,
            cameras=("main",),
            boards=(),
            rounds=tuple(self.rounds),
            versions={"cleanplate": "0.1.0"},
        )
        (self.folder / "session.json").write_text(record.model_dump_json(by_alias=True))
        self.note("session_created", session=self.name)
        for round_ in self.rounds:
            self.take(round_, 1)
        return self

    def note(self, kind: str, **members: object) -> None:
        self.seq += 1
        row = {"seq": self.seq, "t_utc_us": 1, "t_host_s": 0.5, "kind": kind, **members}
        self.last_line = seal_journal_row(row, previous_line=self.last_line)
        with (self.folder / "journal.jsonl").open("ab") as journal:
            journal.write(self.last_line)

    def take(self, round_: RoundRecord, number: int) -> None:
        name = take_folder_name(round_.number, round_.name, number)
        folder = self.folder / "rounds" / name
        folder.mkdir(parents=True)
        self.note("take_intent", round=round_.name, take=number)
        movie = self.save(f"rounds/{name}", "main-01.mov", f"movie of {self.name} {name}".encode())
        record = TakeRecord(
            round=round_,
            take=number,
            cameras={
                "main": CameraTake(
                    kind="movie",
                    files=("main-01.mov",),
                    frames_csv="main.frames.csv",
                    width=WIDTH,
                    height=HEIGHT,
                    frame_count=9,
                    measured_rate_hz=30.0,
                    colour=ColourTags(),
                    settings_read=ExposureSettings(f_number=8.0, iso=round_.settings.iso),
                )
            },
            files=(movie,),
        )
        self.save(f"rounds/{name}", "round.json", record.model_dump_json(by_alias=True).encode())
        self.note("take_outcome", round=round_.name, take=number, state="valid", reason="")

    def save(self, folder: str, name: str, data: bytes) -> FileRecord:
        (self.folder / folder / name).write_bytes(data)
        self.note("saved", path=f"{folder}/{name}", size_bytes=len(data), sha256=sha256(data))
        return FileRecord(path=name, size_bytes=len(data), sha256=sha256(data))

    def align(self, counts: Mapping[str, int], *, salt: int = 0, rejected: int = 1) -> SessionWriter:
        """Write so many accepted pairs per round and some rejected ones; ``salt`` changes the pixels."""
        self.pairs = []
        for side in ("gt", "lq", "mask"):
            (self.folder / "pairs" / side).mkdir(parents=True, exist_ok=True)
        for round_name, count in counts.items():
            self.pairs += [self._accepted(round_name, i, salt) for i in range(count)]
            self.pairs += [self._rejected(round_name, count + i) for i in range(rejected)]
        write_pairs(self.folder, self.pairs)
        write_alignment(self.folder, _alignment_record(self.name))
        return self

    def _accepted(self, round_name: str, index: int, salt: int) -> PairRecord:
        name = f"{round_name}-{index:06d}"
        images = {side: png(hash_number(self.name, name, side, salt)) for side in ("gt", "lq", "mask")}
        for side, data in images.items():
            (self.folder / "pairs" / side / f"{name}.png").write_bytes(data)
        hashes = PairHashes(**{side: sha256(data) for side, data in images.items()})
        return _pair(name, round_name, index, hashes)

    def _rejected(self, round_name: str, index: int) -> PairRecord:
        name = f"{round_name}-{index:06d}"
        return _pair(name, round_name, index, PairHashes(gt=None, lq=None, mask=None))


def hash_number(*words: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big")


def _pair(name: str, round_name: str, index: int, hashes: PairHashes) -> PairRecord:
    written = hashes.gt is not None
    return PairRecord(
        pair=name,
        gt=PairFrame(round="gt", take=1, frame_index=3 * index, time_s=index / 10, position_mm=60.0 + index),
        lq=PairFrame(
            round=round_name, take=1, frame_index=index, time_s=index / 30, position_mm=60.01 + index
        ),
        verdict="accepted" if written else "rejected",
        reasons=() if written else ("parallax", "residual"),
        homography=IDENTITY if written else None,
        lq_crop=(0, 0, WIDTH, HEIGHT) if written else None,
        gt_from_pair=IDENTITY if written else None,
        gt_warped=False,
        residual_px=0.01 * (index + 1) if written else None,
        predicted_epe_px=0.02 * (index + 1) if written else None,
        bound_px=0.005 if written else None,
        position_gap_mm=0.01,
        blur=BlurRecord(kind="none", size_px=0.0),
        gates={"ecc": 0.99, "overlap": None},
        evidence=("markers",),
        mask=f"pairs/mask/{name}.png" if written else None,
        mu=0.1 if written else None,
        sigma=0.02 if written else None,
        sha256=hashes,
    )


def _alignment_record(session: str) -> AlignmentRecord:
    return AlignmentRecord(
        session=session,
        versions={"cleanplate": "0.1.0"},
        parameters={"guard_s": 0.1},
        focal_px=1000.0,
        focal_source="lens",
        px_per_mm=1.0,
        tone_curve="srgb",
        disparity_px_per_mm=None,
        position_limit_mm=0.2,
        rounds=(),
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


class MakeSession(Protocol):
    def __call__(
        self,
        name: str = ...,
        *,
        scene: str = ...,
        counts: Mapping[str, int] | None = ...,
        rounds: Sequence[RoundRecord] = ...,
    ) -> SessionWriter: ...


@pytest.fixture
def make_session(data: Path) -> MakeSession:
    """Write a captured and aligned session: three noise pairs and two rain pairs, one rejected of each."""

    def make(
        name: str = "s1",
        *,
        scene: str = "shelf",
        counts: Mapping[str, int] | None = None,
        rounds: Sequence[RoundRecord] = ROUNDS,
    ) -> SessionWriter:
        writer = SessionWriter(data / "sessions" / name, scene, rounds).capture()
        return writer.align({"iso6400": 3, "rain": 2} if counts is None else counts)

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    databases = getattr(metafunc.module, "DATABASES", None)
    if databases and "catalog" in metafunc.fixturenames:
        metafunc.parametrize("catalog", databases, indirect=True)


@pytest.fixture
def catalog(data: Path, request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """A new catalog, on each of a module's ``DATABASES``; on SQLite where it names none."""
    kind = getattr(request, "param", "sqlite")
    address = data / "catalog.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    with Catalog(address, data=data) as opened:
        opened.init()
        yield opened


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database on the server."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server of our own on loopback."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("needs system package postgresql")
    with tempfile.TemporaryDirectory() as folder, PostgresServer(programs, Path(folder)) as server:
        yield server
