"""One take: set conditions and camera, move, record, fetch, describe. Every act is journaled before it is done.

The carriage is moved and watched from the caller's thread, the camera has a thread of its own, so that the
carriage goes back and the camera is set while a movie is still being copied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.decode import StreamInfo, probe  # a library loaded in motion would hold a stop up
from catalog.session_folder import (
    TELEMETRY_FILE,
    CameraTake,
    ExposureSettings,
    FrameTime,
    RoundRecord,
    TakeRecord,
)
from rig.assembly import Rig
from rig.camera_thread import CameraThread
from rig.devices.camera import Camera, CameraStatus, CardFile, FetchedFile
from rig.devices.condition import OFF
from rig.devices.frame_audit import find_gaps
from rig.errors import TakeVoidError
from rig.events import AnyEvent, FramesLost, Step
from rig.passage import Passage, Sweeping
from rig.session import SessionRecorder, TakeRecorder
from rig.stops import StopSeries, fetch_all


@dataclass(frozen=True)
class Movie:
    """A movie copied off the card."""

    fetched: tuple[FetchedFile, ...]
    on_card: tuple[CardFile, ...]
    parts: tuple[StreamInfo, ...]
    status: CameraStatus
    """Of the camera, right after the movie."""


class TakeRunner:
    """Records takes, one at a time.

    Args:
        rig: An open rig.
        recorder: The open session.
        camera: The rig's camera in its own thread.
        passage: Moves the carriage and watches it.
        emit: Receives every event, from the caller's thread.
    """

    def __init__(
        self,
        rig: Rig,
        recorder: SessionRecorder,
        *,
        camera: CameraThread,
        passage: Passage,
        emit: Callable[[AnyEvent], None],
    ) -> None:
        self._rig, self._recorder, self._camera = rig, recorder, camera
        self._passage, self._emit = passage, emit
        self._levels: dict[str, str] = {}
        self._settings_read: ExposureSettings | None = None
        self.lost_frames = 0
        """Frames missing or doubled in the last take."""
        self.status: dict[str, CameraStatus] = {}
        """What each camera last said of itself."""

    def forget(self) -> None:
        """Forget what was set on the devices: one of them has been away."""
        self._levels.clear()
        self._passage.forget()

    def changes(self, round_: RoundRecord) -> Mapping[str, str]:
        """Return the conditions that this round needs at another level than now."""
        wanted = {name: round_.conditions.get(name, OFF) for name in self._rig.conditions}
        return {name: level for name, level in wanted.items() if self._levels.get(name) != level}

    def stage(self, round_: RoundRecord) -> None:
        """Set conditions and camera and move the carriage to where the round begins.

        Raises:
            SettingRefusedError: The body does not take a setting, or reads back another one.
            TakeStoppedError, CameraLostError, RailLockedError: As the acts raise them.
        """
        self._step(round_, "setting conditions and camera")
        for name, level in self.changes(round_).items():
            with self._recorder.act("set_condition", round=round_.name, condition=name, level=level):
                self._rig.conditions[name].set_level(level)
            self._levels[name] = level
        asked = round_.settings.model_dump(exclude_none=True)
        with self._recorder.act("set_camera", round=round_.name, camera=self._camera.name, settings=asked):
            setting = self._camera.start(lambda camera: camera.configure(round_.settings))
            self._step(round_, "moving to the start")
            self._passage.approach(round_)
            self._settings_read = self._camera.wait(setting)
        self._note_status(self._camera.call(lambda camera: camera.status()))

    def capture(self, take: TakeRecorder, *, then: RoundRecord | None) -> TakeRecord:
        """Record a staged round.

        Args:
            take: Receives the files.
            then: Where the carriage goes while the movie is copied, None to leave it where it is.

        Raises:
            TakeVoidError: The take is spoiled.
        """
        return self._stills(take) if take.round.stops_mm else self._movie(take, then=then)

    def _movie(self, take: TakeRecorder, *, then: RoundRecord | None) -> TakeRecord:
        requested_s = self._camera.call(lambda camera: camera.start_movie())
        self._step(take.round, "recording")
        sweeping = self._passage.sweep(take.round, take.number)
        self._step(take.round, "waiting for the camera to close its movie")
        on_card = self._camera.call(lambda camera: camera.stop_movie())
        if not on_card:
            raise TakeVoidError("the camera delivered no movie")
        self._step(take.round, "copying the movie off the card")
        copying = self._camera.start(
            lambda camera: _copy_movie(camera, on_card, self._targets(take, on_card))
        )
        if then is not None:
            self._passage.approach(then)
        movie = self._camera.wait(copying)
        self._note_status(movie.status)
        self._keep(take, movie.fetched, movie.on_card)
        camera_take = self._describe(take, movie, requested_s=requested_s)
        _require_whole(camera_take, sweeping)
        return self._record(take, camera_take, sweeping)

    def _targets(self, take: TakeRecorder, files: Sequence[CardFile]) -> list[Path]:
        suffixes = [Path(f.name).suffix.lower() or ".mov" for f in files]
        return [take.folder / f"{self._camera.name}-{k:02d}{s}" for k, s in enumerate(suffixes, start=1)]

    def _keep(self, take: TakeRecorder, fetched: Sequence[FetchedFile], on_card: Sequence[CardFile]) -> None:
        """Acknowledge fetched files; only then are they deleted from the card."""
        for file in fetched:
            take.adopt(file.path, file.sha256)
        names = [f"{f.folder}/{f.name}" for f in on_card]
        with self._recorder.act("delete_from_card", camera=self._camera.name, files=names):
            self._camera.call(lambda camera: _delete(camera, on_card))

    def _describe(self, take: TakeRecorder, movie: Movie, *, requested_s: float) -> CameraTake:
        first = movie.parts[0]
        frames = frame_table(movie.parts, movie.on_card, requested_s=requested_s)
        if len(frames) < 2:
            raise TakeVoidError(f"{movie.fetched[0].path.name}: {len(frames)} frames in the movie")
        gaps = find_gaps([f.t_host_s for f in frames])
        dropped, duplicated = tuple(g.after for g in gaps), duplicated_frames(movie.on_card)
        self._tell_lost(take, dropped, missing=sum(g.missing for g in gaps), duplicated=duplicated)
        return CameraTake(
            kind="movie",
            files=tuple(f.path.name for f in movie.fetched),
            frames_csv=take.save_frames(self._camera.name, frames),
            width=first.width,
            height=first.height,
            frame_count=len(frames),
            measured_rate_hz=(len(frames) - 1) / (frames[-1].t_host_s - frames[0].t_host_s),
            dropped_frames=dropped,
            duplicated_frames=duplicated,
            colour=first.colour,
            model=self._camera.camera.identity.model,
            serial=self._camera.camera.identity.serial,
            settings_read=self._settings_read or ExposureSettings(),
        )

    def _stills(self, take: TakeRecorder) -> TakeRecord:
        self._step(take.round, "taking stills")
        series = StopSeries(take, self._camera, self._passage, keep=lambda f, c: self._keep(take, f, c))
        stills = series.shoot()
        self._tell_lost(take, stills.dropped_after, missing=len(stills.missing), duplicated=())
        camera_take = CameraTake(
            kind="stills",
            files=tuple(s.file for s in stills.shots),
            frames_csv=take.save_frames(self._camera.name, stills.frames),
            width=stills.size[0],
            height=stills.size[1],
            frame_count=len(stills.shots),
            measured_rate_hz=0.0,
            dropped_frames=stills.dropped_after,
            missing_stills=stills.missing,
            colour=stills.colour,
            model=self._camera.camera.identity.model,
            serial=self._camera.camera.identity.serial,
            settings_read=self._settings_read or ExposureSettings(),
        )
        return self._record(take, camera_take, stills.sweeping)

    def _record(self, take: TakeRecorder, camera_take: CameraTake, sweeping: Sweeping) -> TakeRecord:
        telemetry = take.save_telemetry(TELEMETRY_FILE, sweeping.telemetry)
        return TakeRecord(
            round=take.round,
            take=take.number,
            cameras={self._camera.name: camera_take},
            motion_started_t_host_s=sweeping.started_s,
            motion_ended_t_host_s=sweeping.ended_s,
            telemetry=telemetry,
            files=take.files,
        )

    def _tell_lost(
        self, take: TakeRecorder, dropped: tuple[int, ...], *, missing: int, duplicated: tuple[int, ...]
    ) -> None:
        self.lost_frames = missing + len(duplicated)
        if not self.lost_frames:
            return
        self._recorder.note(
            "frames_lost",
            round=take.round.name,
            take=take.number,
            dropped_after=dropped,
            missing=missing,
            duplicated=duplicated,
        )
        self._emit(
            FramesLost(
                t_host_s=self._rig.clock.now(),
                round=take.round.name,
                take=take.number,
                dropped=missing,
                duplicated=len(duplicated),
            )
        )

    def _note_status(self, status: CameraStatus) -> None:
        self.status[self._camera.name] = status

    def _step(self, round_: RoundRecord, text: str) -> None:
        self._emit(Step(t_host_s=self._rig.clock.now(), round=round_.name, text=text))


def frame_table(
    parts: Sequence[StreamInfo], on_card: Sequence[CardFile], *, requested_s: float
) -> list[FrameTime]:
    """Number the frames of a movie's parts through.

    Times are those of arrival where the camera kept them; otherwise the container's, from the request to record on.
    """
    frames: list[FrameTime] = []
    for part, file in zip(parts, on_card, strict=True):
        origin_s = requested_s if not frames else frames[-1].t_host_s + 1 / part.average_rate_hz
        own_s = [origin_s + float(pts * part.time_base) for pts in part.pts]
        times_s = own_s if file.arrivals is None else file.arrivals.arrived_s
        frames += [
            FrameTime(len(frames) + k, pts, str(part.time_base), time_s)
            for k, (pts, time_s) in enumerate(zip(part.pts, times_s, strict=True))
        ]
    return frames


def duplicated_frames(on_card: Sequence[CardFile]) -> tuple[int, ...]:
    """Number through the frames that the camera found to be the same as the one before."""
    found: list[int] = []
    first = 0
    for arrivals in (f.arrivals for f in on_card if f.arrivals is not None):
        found += [first + k for k in arrivals.duplicated]
        first += len(arrivals.arrived_s)
    return tuple(found)


def _copy_movie(camera: Camera, files: Sequence[CardFile], targets: Sequence[Path]) -> Movie:
    status = camera.status()
    fetched = fetch_all(camera, files, targets)
    return Movie(fetched, tuple(files), tuple(probe(f.path) for f in fetched), status)


def _delete(camera: Camera, files: Sequence[CardFile]) -> None:
    for file in files:
        camera.delete(file)


def _require_whole(camera_take: CameraTake, sweeping: Sweeping) -> None:
    movie_s = camera_take.frame_count / camera_take.measured_rate_hz
    motion_s = sweeping.ended_s - sweeping.started_s
    if movie_s < motion_s:
        raise TakeVoidError(f"the movie lasts {movie_s:.1f} s, the motion {motion_s:.1f} s: it ended early")
