"""SessionRecorder: the only writer of a session folder while capturing.

Journal before act: a row for what will be done, the act, a row for what came of it. A file counts as saved
after write, fsync, rename, fsync of the folder and a synced journal row, in this order.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from catalog.session_folder import (
    JOURNAL_FILE,
    ROUND_FILE,
    ROUNDS_FOLDER,
    SESSION_FILE,
    FileRecord,
    FrameTime,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    TakeRecord,
    TakeState,
    TelemetrySample,
    make_folder,
    replace_file,
    sync_folder,
    take_folder_name,
)
from rig.clock import SessionClock, WallClock
from rig.errors import RigError
from rig.runtime import hold_lock
from rig.storage import Ballast, JournalWriter, storing

LOCK_FILE = ".lock"
_SESSIONS = "sessions"
"""Name of the data folder's folder of sessions."""
SavedCallback = Callable[[str, FileRecord], None]


class SessionRecorder:
    """Write access to one session folder, exclusive among processes.

    Args:
        folder: The session folder; must hold a `session.json` (see `create`).
        clock: The session clock; its readings stand in every row.
    """

    def __init__(self, folder: Path, clock: SessionClock) -> None:
        self.folder = folder
        self._clock, self._wall = clock, WallClock()
        with ExitStack() as opening:
            with storing(folder):
                lock = hold_lock(folder / LOCK_FILE, what=f"session {folder.name}")
            opening.callback(lock.close)
            ballast = Ballast(folder)
            opening.callback(ballast.drop)
            self._journal = JournalWriter(folder / JOURNAL_FILE, ballast)
            opening.callback(self._journal.close)
            if self._journal.torn_bytes:
                self.note("torn_tail_dropped", bytes=self._journal.torn_bytes)
            self._stack = opening.pop_all()

    @classmethod
    def create(cls, sessions: Path, record: SessionRecord, clock: SessionClock) -> SessionRecorder:
        """Make a new session folder with its `session.json` and open it.

        Raises:
            StorageError: The disk does not take it.
        """
        folder = sessions / record.session
        text = json.dumps(record.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=1)
        with storing(sessions):
            make_folder(sessions)
            folder.mkdir()
            (folder / ROUNDS_FOLDER).mkdir()
            sync_folder(folder)
            sync_folder(sessions)
            replace_file(folder / SESSION_FILE, text.encode())  # last: with it the folder is a session
        with ExitStack() as opening:
            recorder = opening.enter_context(cls(folder, clock))
            recorder.note("session_created", session=record.session)
            opening.pop_all()
        return recorder

    @classmethod
    def begin(
        cls, sessions: Path, scene: str, clock: SessionClock, *, record: Callable[[str], SessionRecord]
    ) -> SessionRecorder:
        """Make a new session under a name that nobody has, also when others name theirs at this moment.

        Args:
            sessions: Folder of the data folder's sessions.
            scene: What the name begins with.
            clock: The session clock.
            record: Makes the `session.json` of a session of this name.

        Raises:
            StorageError: The disk does not take it.
        """
        while True:
            with contextlib.suppress(FileExistsError):  # somebody was faster; there are more names
                return cls.create(sessions, record(new_session_name(scene, sessions)), clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def note(self, kind: str, **members: Any) -> None:
        """Append one row and sync it.

        Raises:
            StorageError: The disk does not take it. Later rows only are where it was full and the ballast made room.
        """
        t_utc_us, jumped_s = self._wall.read()
        times = {"t_utc_us": t_utc_us, "t_host_s": round(self._clock.now(), 6)}
        if jumped_s:
            self._journal.append({**times, "kind": "wall_clock_jumped", "jumped_s": round(jumped_s, 3)})
        self._journal.append({**times, "kind": kind, **members})

    @contextmanager
    def act(self, what: str, **members: Any) -> Iterator[None]:
        """Journal what is about to be done, let the block do it, journal what came of it.

        Args:
            what: Name of the act, e.g. ``sweep``.
            members: What it is done with; numbers carry their unit in the name.
        """
        self.note("intent", act=what, **members)
        try:
            yield
        except BaseException as error:
            self.note("outcome", act=what, ok=False, reason=str(error) or type(error).__name__)
            raise
        self.note("outcome", act=what, ok=True)

    def begin_take(self, round_: RoundRecord) -> TakeRecorder:
        """Journal the intent and make the folder of the round's next take."""
        used = [t.number for t in SessionFolder(self.folder).takes() if t.round.name == round_.name]
        take = TakeRecorder(self, round_, max(used, default=0) + 1)
        self.note("take_intent", round=round_.name, take=take.number)
        with storing(take.folder.parent):
            take.folder.mkdir()
            sync_folder(take.folder.parent)
        return take

    def supersede(self, round_name: str, take: int, reason: str = "superseded") -> None:
        """Declare a valid take void, since a better one is wanted; its files stay."""
        self.note("take_outcome", round=round_name, take=take, state="void", reason=reason)


class TakeRecorder:
    """Writes the files of one take; made by `SessionRecorder.begin_take`."""

    def __init__(self, recorder: SessionRecorder, round_: RoundRecord, number: int) -> None:
        self.round = round_
        self.number = number
        name = take_folder_name(round_.number, round_.name, number)
        self.folder = recorder.folder / ROUNDS_FOLDER / name
        self._recorder = recorder
        self._files: list[FileRecord] = []
        self._on_saved: list[SavedCallback] = []

    def on_saved(self, callback: SavedCallback) -> None:
        """Call ``callback(path relative to the session, file)`` after each acknowledged file."""
        self._on_saved.append(callback)

    def begin_folder(self, name: str) -> Path:
        """Make a folder inside the take's, e.g. for the stills of one camera."""
        folder = self.folder / name
        with storing(self.folder):
            folder.mkdir(exist_ok=True)
            sync_folder(self.folder)
        return folder

    def adopt(self, path: Path, sha256: str) -> FileRecord:
        """Acknowledge a file that stands synced at its final place in the take's folder."""
        relative = path.relative_to(self.folder).as_posix()
        with storing(path.parent):
            sync_folder(path.parent)
            file = FileRecord(path=relative, size_bytes=path.stat().st_size, sha256=sha256)
        in_session = f"{ROUNDS_FOLDER}/{self.folder.name}/{relative}"
        self._recorder.note("saved", path=in_session, size_bytes=file.size_bytes, sha256=sha256)
        self._files.append(file)
        for callback in self._on_saved:
            callback(in_session, file)
        return file

    def save(self, name: str, data: bytes) -> FileRecord:
        """Write a small file durably and acknowledge it."""
        path = self.folder / name
        with storing(self.folder):
            replace_file(path, data)
        return self.adopt(path, hashlib.sha256(data).hexdigest())

    def save_frames(self, camera: str, frames: Iterable[FrameTime]) -> str:
        """Write the frame table of a camera; returns its path relative to the take."""
        rows = ((f.index, f.pts, f.time_base, f"{f.t_host_s:.6f}") for f in frames)
        name = f"{camera}.frames.csv"
        self.save(name, _csv(("index", "pts", "time_base", "t_host_s"), rows))
        return name

    def save_telemetry(self, name: str, samples: Iterable[TelemetrySample]) -> str:
        """Write the rail's telemetry; returns its path relative to the take."""
        rows = (
            (f"{s.t_host_s:.6f}", f"{s.position_mm:.4f}", f"{s.velocity_mm_s:.4f}", s.state) for s in samples
        )
        self.save(name, _csv(("t_host_s", "position_mm", "velocity_mm_s", "state"), rows))
        return name

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every acknowledged file of this take."""
        return tuple(self._files)

    def finish(self, record: TakeRecord) -> None:
        """Write `round.json` and declare the take valid."""
        text = json.dumps(record.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=1)
        self.save(ROUND_FILE, text.encode())
        self._outcome("valid", "")

    def void(self, reason: str) -> None:
        """Declare the take void; its files stay where they are."""
        self._outcome("void", reason)

    def _outcome(self, state: TakeState, reason: str) -> None:
        self._recorder.note(
            "take_outcome", round=self.round.name, take=self.number, state=state, reason=reason
        )


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue().encode()


def resume_command(session: Path) -> str:
    """Return the command that goes on with a session, from this folder and without further arguments.

    Args:
        session: The session's folder. One that lies in no data folder is named by its path.
    """
    from catalog.console import data_option  # it loads what only a command line needs

    sessions = session.absolute().parent
    if sessions.name != _SESSIONS:
        return f"rig record --session {shlex.quote(str(session.absolute()))}"
    return f"rig record --session {session.name}{data_option(sessions.parent)}"


def new_session_name(scene: str, sessions: Path) -> str:
    """Name a session by scene and UTC time, e.g. ``bookshelf-03-20260102-030405``; unique in the folder."""
    stem = f"{scene[:40]}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    candidates = [stem, *(f"{stem}-{n}" for n in range(2, 100))]
    for name in candidates:
        if not (sessions / name).exists():
            return name
    raise RigError(f"{sessions}: a hundred sessions named {stem} already", next_step="wait a second")
