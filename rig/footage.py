"""Make a session from recordings made elsewhere: movies or folders of stills described by `session.yaml`.

Every recording is decoded to its end once, so that a broken file is refused here and not at night in training.
The originals are copied and never changed.
"""

from __future__ import annotations

import csv
import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from alignment.decode import FrameReader, StreamInfo, list_stills, open_movie, open_stills, probe
from catalog.errors import SessionFolderError
from catalog.manifest import RelativePath
from catalog.records import Degradation
from catalog.session_folder import (
    SESSIONS_FOLDER,
    TELEMETRY_FILE,
    BoardSpec,
    CameraTake,
    ColourTags,
    ExposureSettings,
    FrameTime,
    LensSpec,
    Role,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    TakeRecord,
    read_telemetry,
)
from catalog.yaml_document import Document, Name, load_yaml
from rig.clock import SessionClock
from rig.errors import FootageError
from rig.session import SessionRecorder, TakeRecorder

SHEET_NAME = "session.yaml"
CAMERA = "main"
UNTIMED_INTERVAL_S = 1.0
"""Spacing given to stills that come without times: one still, one second."""
_COPY_CHUNK = 1 << 20


class FootageRound(Document):
    """One recording and what it shows."""

    name: Name
    files: RelativePath
    """A movie file, or a folder of stills read in the order of their names."""
    role: Role
    degradations: tuple[Degradation, ...] = ()
    settings: ExposureSettings = ExposureSettings()
    conditions: dict[str, str] = {}
    timestamps: RelativePath | None = None
    """Table `index,time_s` or `file,time_s`: start of exposure of every frame, s."""
    telemetry: RelativePath | None = None
    """Table `t_host_s,position_mm,velocity_mm_s,state` on the same clock as the timestamps."""


class FootageSheet(Document):
    """`session.yaml`: which recordings belong together."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    scene: Name
    boards: tuple[BoardSpec, ...] = ()
    board: BoardSpec | None = None
    """Short form of `boards` for one board."""
    lens: LensSpec | None = None
    rounds: tuple[FootageRound, ...] = Field(min_length=1, max_length=99)

    @model_validator(mode="after")
    def _has_a_reference(self) -> Self:
        names = [r.name for r in self.rounds]
        if len(set(names)) != len(names):
            raise ValueError("two rounds have the same name")
        if not any(r.role == "gt" for r in self.rounds):
            raise ValueError("no round has role gt, so there is nothing to compare the others with")
        return self

    @property
    def all_boards(self) -> tuple[BoardSpec, ...]:
        """The boards, whichever form named them."""
        return self.boards or ((self.board,) if self.board else ())


def import_footage(folder: Path, *, data: Path, progress: Callable[[float], None] = lambda _: None) -> Path:
    """Make a session from a folder with `session.yaml` and recordings.

    Args:
        folder: Where the sheet and the recordings are.
        data: Data folder that gets the session.
        progress: Called with the number of frames checked since the last call.

    Returns:
        The new session's folder.

    Raises:
        InvalidDocumentError: The sheet does not fit.
        FootageError: A recording is missing, empty, or does not go with the others; no session was made.
        DecodeError: A recording is damaged; no session was made.
    """
    sheet = load_yaml(folder / SHEET_NAME, FootageSheet)
    recordings = [_Recording(folder, r) for r in sheet.rounds]
    for recording in recordings:
        recording.check(progress)
    _require_one_size(recordings)
    sessions = data / SESSIONS_FOLDER
    sessions.mkdir(parents=True, exist_ok=True)
    begun = SessionRecorder.begin(
        sessions, sheet.scene, SessionClock(), record=lambda name: _session_record(sheet, name)
    )
    with begun as recorder:
        rounds = SessionFolder(recorder.folder).record().rounds
        for recording, round_ in zip(recordings, rounds, strict=True):
            recording.copy_into(recorder.begin_take(round_))
        return recorder.folder


def _session_record(sheet: FootageSheet, name: str) -> SessionRecord:
    rounds = tuple(
        RoundRecord(
            number=number,
            name=r.name,
            role=r.role,
            degradations=r.degradations,
            settings=r.settings,
            conditions=r.conditions,
        )
        for number, r in enumerate(sheet.rounds, start=1)
    )
    return SessionRecord(
        session=name,
        scene=sheet.scene,
        created_utc_us=time.time_ns() // 1000,
        source="imported",
        rig="imported",
        simulated=False,
        cameras=(CAMERA,),
        boards=sheet.all_boards,
        lens=sheet.lens,
        rounds=rounds,
        plan=sheet.model_dump(mode="json", by_alias=True),
        versions={"cleanplate": version("cleanplate"), "python": platform.python_version()},
    )


class _Recording:
    """One round's files on their way into a session."""

    def __init__(self, folder: Path, round_: FootageRound) -> None:
        self._folder, self.round = folder, round_
        self._source = self._beneath(round_.files)
        self.is_movie = self._source.is_file()
        self.paths = [self._source] if self.is_movie else list_stills(self._source)
        if not self.paths:
            raise FootageError(
                f"round {round_.name}: {round_.files} holds no stills", kept="nothing was imported"
            )
        self._info: StreamInfo | None = probe(self._source) if self.is_movie else None
        self.size = (0, 0)
        self.frame_count = 0
        self._times_s = self._frame_times()

    def _beneath(self, relative: str) -> Path:
        path = (self._folder / relative).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise FootageError(f"round {self.round.name}: {relative} leads out of the folder")
        if not path.exists():
            raise FootageError(
                f"round {self.round.name}: {relative} is not there",
                kept="nothing was imported",
                next_step=f"put it into {self._folder} or correct {SHEET_NAME}",
            )
        return path

    def _frame_times(self) -> list[float]:
        """Return the start of exposure of every frame, s."""
        if self.round.timestamps is not None:
            return self._read_timestamps(self._beneath(self.round.timestamps))
        if self._info is not None:
            return [float(p * self._info.time_base) for p in self._info.pts]
        return [k * UNTIMED_INTERVAL_S for k in range(len(self.paths))]

    def _read_timestamps(self, path: Path) -> list[float]:
        count = self._info.frame_count if self._info else len(self.paths)
        keys = [str(k) for k in range(count)] if self._info else [p.name for p in self.paths]
        with path.open(newline="", encoding="utf-8-sig") as rows:
            reader = csv.DictReader(rows)
            column = "file" if "file" in (reader.fieldnames or []) else "index"
            try:
                table = {row[column]: float(row["time_s"]) for row in reader}
            except (KeyError, TypeError, ValueError) as error:
                raise FootageError(
                    f"{path}:{reader.line_num}:1: not a timestamp row ({error})",
                    next_step="columns are index,time_s or file,time_s",
                ) from error
        wanted = keys if column == "file" else [str(k) for k in range(count)]
        missing = [k for k in wanted if k not in table]
        if missing:
            raise FootageError(
                f"{path.name}: no time for {len(missing)} of {count} frames, the first is {missing[0]}",
                kept="nothing was imported",
            )
        times = [table[k] for k in wanted]
        if any(b <= a for a, b in pairwise(times)):
            raise FootageError(
                f"{path.name}: times do not grow from frame to frame", kept="nothing was imported"
            )
        return times

    def check(self, progress: Callable[[float], None]) -> None:
        """Decode every frame once."""
        with self._open() as frames:
            for frame in frames.frames():
                height, width = frame.grey().shape
                if self.size not in {(0, 0), (width, height)}:
                    raise FootageError(f"round {self.round.name}: frame {frame.index} has another size")
                self.size = (width, height)
                self.frame_count += 1
                progress(1)
        if self.round.telemetry is not None and not read_telemetry(self._beneath(self.round.telemetry)):
            raise SessionFolderError(f"{self.round.telemetry}: no telemetry rows")

    def _open(self) -> FrameReader:
        return open_movie(self.paths) if self.is_movie else open_stills(self.paths)

    def copy_into(self, take: TakeRecorder) -> None:
        """Copy the files and write the take's tables."""
        names = [self._copy(take, path, k) for k, path in enumerate(self.paths)]
        telemetry = None
        if self.round.telemetry is not None:
            telemetry = take.save_telemetry(
                TELEMETRY_FILE, read_telemetry(self._beneath(self.round.telemetry))
            )
        camera = CameraTake(
            kind="movie" if self.is_movie else "stills",
            files=tuple(names),
            frames_csv=take.save_frames(CAMERA, self._frame_table()),
            width=self.size[0],
            height=self.size[1],
            frame_count=self.frame_count,
            measured_rate_hz=self._rate_hz(),
            colour=self._info.colour if self._info else ColourTags(),
            settings_read=self.round.settings,
        )
        take.finish(
            TakeRecord(
                round=take.round,
                take=take.number,
                cameras={CAMERA: camera},
                telemetry=telemetry,
                files=take.files,
            )
        )

    def _copy(self, take: TakeRecorder, source: Path, index: int) -> str:
        name = (
            f"{CAMERA}-01{source.suffix.lower()}"
            if self.is_movie
            else f"{CAMERA}/{index:06d}{source.suffix.lower()}"
        )
        target = take.folder / name
        target.parent.mkdir(exist_ok=True)
        take.adopt(target, _copy_durably(source, target))
        return name

    def _frame_table(self) -> list[FrameTime]:
        base = str(self._info.time_base) if self._info else "1"
        ticks: Sequence[int] = self._info.pts if self._info else range(len(self.paths))
        return [
            FrameTime(k, pts, base, time_s)
            for k, (pts, time_s) in enumerate(zip(ticks, self._times_s, strict=True))
        ]

    def _rate_hz(self) -> float:
        span_s = self._times_s[-1] - self._times_s[0]
        return (len(self._times_s) - 1) / span_s if span_s > 0 else 1 / UNTIMED_INTERVAL_S


def _copy_durably(source: Path, target: Path) -> str:
    """Copy a file beside its final name, sync, rename; returns the sha256 of the bytes."""
    digest = hashlib.sha256()
    part = target.with_name(target.name + ".part")
    with source.open("rb") as original, part.open("wb") as copy:
        while chunk := original.read(_COPY_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    part.replace(target)
    return digest.hexdigest()


def _require_one_size(recordings: Sequence[_Recording]) -> None:
    first = recordings[0]
    for other in recordings[1:]:
        if other.size != first.size:
            raise FootageError(
                f"round {other.round.name} is {other.size[0]}x{other.size[1]}, round {first.round.name} "
                f"{first.size[0]}x{first.size[1]}: rounds of one session have one size",
                kept="nothing was imported",
            )
