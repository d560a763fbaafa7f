"""A session recorded without devices through the real recorder: all that the runner writes, in its order.

The camera is a few bytes that are copied as the drivers copy: beside the name, synced, renamed, the folder synced.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from catalog.session_folder import (
    CameraTake,
    ColourTags,
    ExposureSettings,
    FrameTime,
    RoundRecord,
    SessionFolder,
    SessionRecord,
    TakeRecord,
    TelemetrySample,
    sync_folder,
)
from rig.clock import SessionClock
from rig.errors import StorageError
from rig.session import SessionRecorder, TakeRecorder
from rig.storage import storing

ROUNDS = (
    RoundRecord(number=1, name="gt", role="gt"),
    RoundRecord(number=2, name="dark", role="external"),
)
FRAMES = 3
Tell = Callable[[Any], None]


class PaperSession:
    """Records, is interrupted and goes on.

    Args:
        data: The data folder; the session is ``sessions/s1`` in it.
        tell: Receives every acknowledgement, ``("saved", event)`` ``("valid", round, take)``, and
            ``("doubted", round, take)`` before a valid take is declared void.
    """

    def __init__(self, data: Path, tell: Tell = lambda fact: None) -> None:
        self.sessions = data / "sessions"
        self.folder = self.sessions / "s1"
        self._tell = tell
        self._clock = SessionClock()

    def give_up(self) -> None:
        """One run that is given up within its first take."""
        with SessionRecorder.create(self.sessions, _record(), self._clock) as recorder:
            self._tell(("created", "s1"))
            recorder.note("run_started", rounds=[r.name for r in ROUNDS])
            given_up = self._begin(recorder, ROUNDS[0])
            self._copy_movie(given_up)
            given_up.void("stopped by the operator")

    def record(self) -> None:
        """One run that is given up, and one that records everything, a spoiled take included."""
        self.give_up()
        with SessionRecorder(self.folder, self._clock) as recorder:
            recorder.note("run_started", rounds=[r.name for r in ROUNDS])
            for round_ in ROUNDS:
                self._take(recorder, round_)
            self._tell(("doubted", "dark", 1))
            recorder.supersede("dark", 1, "spoiled: too dark")
            self._take(recorder, ROUNDS[1])
            recorder.note("run_finished")

    def go_on(self) -> None:
        """Record what is missing, as a run that resumes does."""
        done = SessionFolder(self.folder).valid_takes()
        missing = [r for r in ROUNDS if r.name not in done]
        with SessionRecorder(self.folder, self._clock) as recorder:
            recorder.note("run_started", rounds=[r.name for r in missing])
            for round_ in missing:
                self._take(recorder, round_)
            recorder.note("run_finished")

    def _begin(self, recorder: SessionRecorder, round_: RoundRecord) -> TakeRecorder:
        with recorder.act("set_camera", round=round_.name):
            pass
        take = recorder.begin_take(round_)
        take.on_saved(
            lambda path, file: self._tell(
                ("saved", {"path": path, "size_bytes": file.size_bytes, "sha256": file.sha256})
            )
        )
        return take

    def _take(self, recorder: SessionRecorder, round_: RoundRecord) -> None:
        take = self._begin(recorder, round_)
        try:
            self._capture(recorder, take)
        except BaseException as error:
            with suppress(StorageError):
                take.void(str(error))
            with suppress(StorageError):
                recorder.note("run_interrupted", reason=str(error))
            raise
        self._tell(("valid", round_.name, take.number))

    def _capture(self, recorder: SessionRecorder, take: TakeRecorder) -> None:
        round_ = take.round
        with recorder.act("sweep", round=round_.name, take=take.number):
            pass
        movie = self._copy_movie(take)
        with recorder.act("delete_from_card", camera="main"):
            pass
        frames = take.save_frames("main", [FrameTime(k, k, "1/30", 10 + k / 30) for k in range(FRAMES)])
        telemetry = take.save_telemetry(
            "telemetry.csv", [TelemetrySample(10 + k, 5.0 * k, 5.0, "moving") for k in range(FRAMES)]
        )
        camera = CameraTake(
            kind="movie", files=(movie.name,), frames_csv=frames, width=8, height=8, frame_count=FRAMES,
            measured_rate_hz=30, colour=ColourTags(), settings_read=ExposureSettings(),
        )  # fmt: skip
        take.finish(
            TakeRecord(
                round=round_, take=take.number, cameras={"main": camera}, motion_started_t_host_s=10,
                motion_ended_t_host_s=12, telemetry=telemetry, files=take.files,
            )
        )  # fmt: skip

    def _copy_movie(self, take: TakeRecorder) -> Path:
        movie = take.folder / "main-01.mov"
        content = f"movie of {take.round.name}, take {take.number}".encode() * 40
        with storing(take.folder):
            sha256 = _copy(movie, content)
        take.adopt(movie, sha256)
        return movie


def _copy(target: Path, data: bytes) -> str:
    part = target.with_name(target.name + ".part")
    try:
        with part.open("xb") as out:
            for start in range(0, len(data), 300):
                out.write(data[start : start + 300])
                out.flush()
            os.fsync(out.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)
    return hashlib.sha256(data).hexdigest()


def _record() -> SessionRecord:
    return SessionRecord(
        session="s1", scene="shelf", created_utc_us=1, source="captured", rig="sim", simulated=True,
        cameras=("main",), boards=(), rounds=ROUNDS,
    )  # fmt: skip
