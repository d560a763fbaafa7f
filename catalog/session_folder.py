"""Names, schemas and readers of a session folder: what the rig writes and everybody else reads.

```
<session>/session.json                     written first: resolved plan and profile, versions
          journal.jsonl                    append-only, CRC and hash chain per line
          rounds/NN-name.takeK/            round.json, <camera>-NN.mov or <camera>/000000.jpg,
                                           <camera>.frames.csv, telemetry.csv
          pairs/{gt,lq,mask}/<pair>.png    pairs.jsonl, alignment.json, report.html
```

The folder is valid at every instant. A take is *valid*, *void* (with a reason) or *missing*; a void take is
kept and numbered, a retake is a new take.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from catalog.errors import SessionFolderError, SessionNotFoundError
from catalog.evidence import AlignmentRecord, PairRecord
from catalog.journal import Journal, read_journal
from catalog.records import Degradation
from catalog.yaml_document import Document, Name

SESSIONS_FOLDER = "sessions"
"""Of the data folder."""
SESSION_FILE = "session.json"
JOURNAL_FILE = "journal.jsonl"
ROUNDS_FOLDER = "rounds"
ROUND_FILE = "round.json"
TELEMETRY_FILE = "telemetry.csv"
PAIRS_FOLDER = "pairs"
PAIRS_FILE = "pairs.jsonl"
ALIGNMENT_FILE = "alignment.json"
REPORT_FILE = "report.html"
_SESSIONS_NAMED = 5

Role = Literal["gt", "internal", "external"]
TakeState = Literal["valid", "void", "missing"]


class BoardSpec(Document):
    """A printed ChArUco board."""

    columns: int = Field(ge=3, le=40)
    """Squares across."""
    rows: int = Field(ge=3, le=40)
    """Squares down; odd, since OpenCV changed the pattern of even row counts."""
    square_mm: float = Field(gt=0)
    """Side of a square, mm."""
    marker_mm: float = Field(gt=0)
    """Side of a marker inside its square, mm."""
    dictionary: str = "DICT_4X4_50"
    """OpenCV's name of the marker dictionary."""
    first_id: int = Field(default=0, ge=0)
    """First marker id of this board's slice of the dictionary."""


class LensSpec(Document):
    """What is known of the lens before a calibration exists; for forecasts and starting values."""

    focal_mm: float = Field(gt=0)
    """Focal length, mm."""
    sensor_width_mm: float = Field(gt=0)
    """Width of the used part of the sensor, mm."""
    scene_depth_mm: tuple[float, float]
    """Nearest and farthest thing in the scene, mm from the camera."""


class ExposureSettings(Document):
    """Camera settings of a round. None means: not known (imported) or not touched."""

    iso: int | None = Field(default=None, gt=0)
    f_number: float | None = Field(default=None, gt=0)
    exposure_s: float | None = Field(default=None, gt=0)
    """Exposure time, s."""
    focus_m: float | None = Field(default=None, gt=0)
    """Focus distance, m."""
    white_balance: str | None = None


class SweepRecord(Document):
    """The commanded uniform motion of a round, rail coordinates."""

    start_mm: float
    """Where the uniform part begins."""
    end_mm: float
    """Where it ends."""
    velocity_mm_s: float = Field(gt=0)
    acceleration_mm_s2: float = Field(gt=0)


class RoundRecord(Document):
    """A round as planned (or as `session.yaml` describes it)."""

    number: int = Field(ge=1)
    name: Name
    role: Role
    degradations: tuple[Degradation, ...] = ()
    settings: ExposureSettings = ExposureSettings()
    conditions: dict[str, str] = {}
    """External conditions: name to level, e.g. ``{"rain": "light"}``."""
    sweep: SweepRecord | None = None
    """None where no motion was commanded by us (imported footage)."""
    stops_mm: tuple[float, ...] = ()
    """Stop-and-shoot: where the carriage stands for each still, in order; empty for a movie of the whole sweep."""
    settle_s: float = Field(default=0.0, ge=0)
    """Stop-and-shoot: standstill before each still, s."""


class SessionRecord(Document):
    """`session.json`: what was planned, with what, and by which version. Never rewritten."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    session: Name
    scene: Name
    created_utc_us: int
    source: Literal["captured", "imported"]
    rig: str
    """Name of the profile; ``imported`` for footage made elsewhere."""
    simulated: bool
    cameras: tuple[str, ...]
    boards: tuple[BoardSpec, ...]
    lens: LensSpec | None = None
    rounds: tuple[RoundRecord, ...]
    calibration: str | None = None
    """Hash of the calibration in force, None where there is none."""
    photos: str | None = None
    """Folder of the photographs that a simulated world shows, None for the bundled ones."""
    plan: dict[str, Any] = {}
    """The resolved plan, as rig read it."""
    profile: dict[str, Any] = {}
    """The resolved profile, as rig read it."""
    versions: dict[str, str] = {}


class ColourTags(Document):
    """Colour description of a stream, FFmpeg's names; ``unknown`` where the stream does not say."""

    matrix: str = "unknown"
    range: str = "unknown"
    transfer: str = "unknown"
    primaries: str = "unknown"
    chroma_location: str = "unknown"
    rotation_deg: int = 0
    """Clockwise rotation to apply for display."""


class FileRecord(Document):
    """One file of a take, path relative to the take's folder."""

    path: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CameraTake(Document):
    """What one camera delivered in one take."""

    kind: Literal["movie", "stills"]
    files: tuple[str, ...]
    """Paths of the camera's own files in order, relative to the take's folder."""
    frames_csv: str
    """Path of the frame table (see `FrameTime`)."""
    width: int
    height: int
    frame_count: int
    measured_rate_hz: float
    """Frames per second by the frame table; 0 for stills taken at standstill."""
    dropped_frames: tuple[int, ...] = ()
    """Frames after which at least one is missing, by the frame times."""
    missing_stills: tuple[int, ...] = ()
    """Stop-and-shoot: the stops, counted from 0, at which the camera delivered nothing."""
    duplicated_frames: tuple[int, ...] = ()
    """Frames with the same content as the one before."""
    colour: ColourTags
    model: str = ""
    serial: str = ""
    settings_read: ExposureSettings
    """The settings as read back from the body before the take."""


class TakeRecord(Document):
    """`round.json` of one take."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    round: RoundRecord
    take: int = Field(ge=1)
    cameras: dict[str, CameraTake]
    motion_started_t_host_s: float | None = None
    """When the sweep's motion command was sent."""
    motion_ended_t_host_s: float | None = None
    telemetry: str | None = None
    """Path of the telemetry table, None where there was none."""
    files: tuple[FileRecord, ...]
    """Every file of the take's folder except this one."""


@dataclass(frozen=True)
class FrameTime:
    """A row of ``<camera>.frames.csv``."""

    index: int
    pts: int
    time_base: str
    """Seconds per tick as a fraction, e.g. ``1/30000``."""
    t_host_s: float
    """Start of exposure on the session clock; the offset to the rail's clock is uncertain by up to 2 s."""


@dataclass(frozen=True)
class TelemetrySample:
    """A row of ``telemetry.csv``; position belongs to ``t_host_s``."""

    t_host_s: float
    position_mm: float
    velocity_mm_s: float
    state: str


@dataclass(frozen=True)
class Take:
    """A take's place and state, as the journal tells it."""

    round: RoundRecord
    number: int
    state: TakeState
    reason: str
    folder: Path

    def record(self) -> TakeRecord:
        """Read the take's `round.json`."""
        return _read_json(self.folder / ROUND_FILE, TakeRecord)

    def frames(self, camera: str) -> list[FrameTime]:
        """Read the frame table of one camera.

        Raises:
            SessionFolderError: It is missing, a column is, or a value is no number.
        """
        path = self.folder / self.record().cameras[camera].frames_csv
        try:
            with path.open(newline="", encoding="utf-8") as rows:
                return [
                    FrameTime(int(r["index"]), int(r["pts"]), r["time_base"], float(r["t_host_s"]))
                    for r in csv.DictReader(rows)
                ]
        except FileNotFoundError:
            raise _damaged(str(path), "the file is missing") from None
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(str(path), f"not a frame table ({error})") from error

    def telemetry(self) -> list[TelemetrySample]:
        """Read the rail's telemetry; an empty list where there was none."""
        name = self.record().telemetry
        return [] if name is None else read_telemetry(self.folder / name)


def read_telemetry(path: Path) -> list[TelemetrySample]:
    """Read a telemetry table.

    Raises:
        SessionFolderError: It is missing, a column is, or a value is no number; the message names file and line.
    """
    if not path.is_file():
        raise _damaged(str(path), "the file is missing")
    with path.open(newline="", encoding="utf-8-sig") as rows:
        reader = csv.DictReader(rows)
        try:
            return [
                TelemetrySample(
                    float(r["t_host_s"]), float(r["position_mm"]), float(r["velocity_mm_s"]), r["state"]
                )
                for r in reader
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise SessionFolderError(
                f"{path}:{reader.line_num}:1: not a telemetry row ({error})",
                next_step="columns are t_host_s,position_mm,velocity_mm_s,state",
            ) from error


def take_folder_name(round_number: int, round_name: str, take: int) -> str:
    """Name the folder of a take.

    >>> take_folder_name(1, "gt", 2)
    '01-gt.take2'
    """
    return f"{round_number:02d}-{round_name}.take{take}"


class SessionFolder:
    """Read access to one session folder."""

    def __init__(self, path: Path) -> None:
        if not _is_file(path / SESSION_FILE):
            raise SessionNotFoundError(
                f"{path}: no {SESSION_FILE}, so this is not a session folder",
                next_step="give a session's name in the data folder, or the path of its folder",
            )
        self.path = path

    @classmethod
    def find(cls, name_or_path: str, data: Path) -> SessionFolder:
        """Open a session by its name in the data folder or by its path."""
        if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name_or_path):
            named = data / SESSIONS_FOLDER / name_or_path
            if (named / SESSION_FILE).is_file():
                return cls(named)
            if not Path(name_or_path).exists():
                raise SessionNotFoundError(
                    f"{name_or_path}: not a session folder, and no session of that name in {data / SESSIONS_FOLDER}",
                    next_step=_known_sessions(data),
                )
        return cls(Path(name_or_path).absolute())

    def record(self) -> SessionRecord:
        """Read `session.json`."""
        return _read_json(self.path / SESSION_FILE, SessionRecord)

    def journal(self) -> Journal:
        """Read the journal; an empty one where none was written yet."""
        path = self.path / JOURNAL_FILE
        return read_journal(path) if path.is_file() else Journal((), 0, None)

    def takes(self) -> list[Take]:
        """List every take the journal knows, in round and take order; an intent without outcome is void."""
        rounds = {r.name: r for r in self.record().rounds}
        state: dict[tuple[str, int], tuple[TakeState, str]] = {}
        for row in self.journal().rows:
            if row.kind == "take_intent":
                state[row.get("round"), row.get("take")] = ("void", "interrupted")
            elif row.kind == "take_outcome":
                state[row.get("round"), row.get("take")] = (row.get("state"), row.get("reason") or "")
        takes = [
            Take(rounds[name], k, s, reason, self._take_folder(rounds[name], k))
            for (name, k), (s, reason) in state.items()
        ]
        return sorted(takes, key=lambda t: (t.round.number, t.number))

    def valid_takes(self) -> dict[str, Take]:
        """Map each round's name to its valid take; rounds without one are absent."""
        return {t.round.name: t for t in self.takes() if t.state == "valid"}

    def pairs(self) -> list[PairRecord]:
        """Read `pairs.jsonl`.

        Raises:
            SessionFolderError: The session was not aligned yet.
        """
        return list(_read_json_lines(self._aligned(PAIRS_FILE), PairRecord))

    def alignment(self) -> AlignmentRecord:
        """Read `alignment.json`; raises as `pairs`."""
        return _read_json(self._aligned(ALIGNMENT_FILE), AlignmentRecord)

    def _aligned(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise SessionFolderError(
                f"{self.path.name}: not aligned yet", next_step=f"alignment run {self.path.name}"
            )
        return path

    def _take_folder(self, round_: RoundRecord, take: int) -> Path:
        return self.path / ROUNDS_FOLDER / take_folder_name(round_.number, round_.name, take)


def list_sessions(data: Path) -> list[SessionFolder]:
    """List the sessions of a data folder by name; folders without a `session.json` are passed over."""
    return [SessionFolder(p.parent) for p in sorted((data / SESSIONS_FOLDER).glob(f"*/{SESSION_FILE}"))]


def _known_sessions(data: Path) -> str:
    names = [folder.path.name for folder in list_sessions(data)]
    if not names:
        return "name the data folder with --data, or record a session with `rig record`"
    newest = ", ".join(names[-_SESSIONS_NAMED:])
    return f"there are {newest}" + (
        f" and {len(names) - _SESSIONS_NAMED} more" if len(names) > _SESSIONS_NAMED else ""
    )


def write_pairs(folder: Path, pairs: Sequence[PairRecord]) -> None:
    """Write `pairs.jsonl` of a session folder, replacing an older one in one step."""
    text = "".join(p.model_dump_json(by_alias=True) + "\n" for p in pairs)
    replace_file(folder / PAIRS_FILE, text.encode())


def write_alignment(folder: Path, alignment: AlignmentRecord) -> None:
    """Write `alignment.json` of a session folder, replacing an older one in one step."""
    replace_file(folder / ALIGNMENT_FILE, alignment.model_dump_json(by_alias=True, indent=1).encode())


def replace_file(path: Path, data: bytes) -> None:
    """Put bytes at ``path``; a reader sees the old or the new file, never a part, even after power loss.

    Raises:
        OSError: The disk did not take it; the old file stands, and no space is kept by the attempt.
    """
    with replacing(path) as out:
        out.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write what ``path`` becomes when the block ends; where it fails, the old file stands as in `replace_file`."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and the ones above it that are missing, so that their names outlive a power loss."""
    missing = [p for p in (path, *path.absolute().parents) if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


B = TypeVar("B", bound=BaseModel)


def _read_json(path: Path, model: type[B]) -> B:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise _damaged(str(path), "the file is missing") from None
    except ValidationError as error:
        raise _unfit(str(path), error) from None


def _read_json_lines(path: Path, model: type[B]) -> Iterator[B]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield model.model_validate_json(line)
            except ValidationError as error:
                raise _unfit(f"{path}:{number}:1", error) from None


def _unfit(place: str, error: ValidationError) -> SessionFolderError:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if where == "schema":
        return SessionFolderError(
            f"{place}: of another version of cleanplate ({where}: {problem['msg']})",
            kept="the folder, as it is",
            next_step="use the version that wrote it",
        )
    return _damaged(place, f"{where}: {problem['msg']}" if where else problem["msg"])


def _damaged(place: str, what: str) -> SessionFolderError:
    return SessionFolderError(
        f"{place}: {what}", kept="the folder, as it is", next_step="restore the file from a copy"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file system would take
        return False
