"""SessionRunner: plan × rig → session folder; void takes are redone, an interruption leaves a resumable session."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog.session_folder import (
    CameraTake,
    ExposureSettings,
    FrameTime,
    RoundRecord,
    SessionFolder,
    SweepRecord,
    TakeRecord,
    TelemetrySample,
)
from rig.assembly import Rig
from rig.devices.camera import Camera, CardFile
from rig.devices.condition import OFF
from rig.devices.envelope import Motion as RailMotion
from rig.devices.envelope import sweep_motion
from rig.devices.rail import RailState
from rig.errors import DiskSpaceError, PlanError, RigError, SessionInterruptedError, TakeVoidError
from rig.events import (
    AnyEvent,
    Motion,
    RoundStarted,
    Saved,
    SessionClosed,
    SessionOpened,
    Step,
    TakeFinished,
    Warned,
)
from rig.plan import CapturePlan
from rig.session import SessionRecorder, TakeRecorder

if TYPE_CHECKING:
    from alignment.decode import StreamInfo

POLL_INTERVAL_S = 0.05
ATTEMPTS = 2
END_TOLERANCE_MM = 0.5
HOMING_TIMEOUT_S = 120.0
PATIENCE_S = 5.0


@dataclass(frozen=True)
class _Sweeping:
    """What the rail did during one take."""

    started_s: float
    ended_s: float
    telemetry: tuple[TelemetrySample, ...]


class SessionRunner:
    """Records every round of a session that has no valid take yet.

    Args:
        rig: An open rig.
        recorder: The open session.
        emit: Receives every event in order, from this thread.
        stop: Set it from anywhere to stop the carriage and leave the session resumable.
    """

    def __init__(
        self,
        rig: Rig,
        recorder: SessionRecorder,
        *,
        emit: Callable[[AnyEvent], None],
        stop: threading.Event | None = None,
    ) -> None:
        self._rig, self._recorder, self._emit = rig, recorder, emit
        self._stop = stop or threading.Event()
        self._folder = SessionFolder(recorder.folder)
        self._record = self._folder.record()
        self._plan = CapturePlan.model_validate(self._record.plan)
        self._clock = rig.clock

    def run(self) -> None:
        """Record until every round has a valid take.

        Raises:
            SessionInterruptedError: Stopped, or a round failed twice; everything saved is kept, the message is the
                command that resumes.
        """
        done = self._folder.valid_takes()
        missing = [r for r in self._record.rounds if r.name not in done]
        self._tell_opened(len(missing))
        self._recorder.note("run_started", rounds=[r.name for r in missing])
        try:
            if missing:
                self._require_disk_space()
                self._make_rail_ready()
            for round_ in missing:
                self._record_round(round_)
        except SessionInterruptedError:
            raise
        except RigError as error:
            raise self._interrupted(str(error)) from error
        self._recorder.note("run_finished")
        self._emit(
            SessionClosed(
                t_host_s=self._clock.now(),
                session=self._record.session,
                folder=str(self._recorder.folder),
                complete=True,
            )
        )

    def _make_rail_ready(self) -> None:
        if not self._rig.rail.homed:
            self._rig.rail.home(timeout_s=HOMING_TIMEOUT_S)

    def _tell_opened(self, missing: int) -> None:
        self._emit(
            SessionOpened(
                t_host_s=self._clock.now(),
                session=self._record.session,
                folder=str(self._recorder.folder),
                rounds_total=len(self._record.rounds),
                rounds_missing=missing,
            )
        )

    def _record_round(self, round_: RoundRecord) -> None:
        sweep = _sweep_of(round_)
        moving_s = self._motion(sweep).duration_s
        self._emit(
            RoundStarted(
                t_host_s=self._clock.now(),
                round=round_.name,
                number=round_.number,
                role=round_.role,
                duration_s=moving_s + 2 * self._plan.rest_s,
            )
        )
        self._require_disk_space()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._record_take(round_, sweep)
            except TakeVoidError as error:
                if attempt == ATTEMPTS:
                    raise self._interrupted(
                        f"round {round_.name} failed {ATTEMPTS} times: {error}"
                    ) from error
            else:
                return

    def _record_take(self, round_: RoundRecord, sweep: SweepRecord) -> None:
        self._require_not_stopped()
        take = self._recorder.begin_take(round_)
        take.on_saved(lambda path, file: self._tell_saved(take, path, file.size_bytes, file.sha256))
        try:
            record = self._capture(take, sweep)
            self._guard_light(take, record)
            take.finish(record)
        except BaseException as error:
            self._rig.rail.stop()
            take.void(str(error) or type(error).__name__)
            self._tell_finished(take, "void", str(error), 0)
            raise
        frames = sum(c.frame_count for c in record.cameras.values())
        self._tell_finished(take, "valid", "", frames)

    def _capture(self, take: TakeRecorder, sweep: SweepRecord) -> TakeRecord:
        round_ = take.round
        self._step(round_, "setting conditions and camera")
        for name, condition in self._rig.conditions.items():
            condition.set_level(round_.conditions.get(name, OFF))
        settings_read = {n: c.configure(round_.settings) for n, c in self._rig.cameras.items()}
        self._step(round_, "moving to the start")
        self._rig.rail.prepare(sweep)
        name, camera = next(iter(self._rig.cameras.items()))
        requested_s = camera.start_movie()
        sweeping = self._sweep(round_, sweep)
        self._step(round_, "waiting for the camera to close its movie")
        card_files = camera.stop_movie()
        files = self._fetch(take, name, camera, card_files)
        camera_take = self._describe(take, name, files, settings_read[name], requested_s=requested_s)
        self._require_whole(camera_take, sweeping)
        return TakeRecord(
            round=round_,
            take=take.number,
            cameras={name: camera_take},
            motion_started_t_host_s=sweeping.started_s,
            motion_ended_t_host_s=sweeping.ended_s,
            telemetry=take.save_telemetry("telemetry.csv", sweeping.telemetry),
            files=take.files,
        )

    def _sweep(self, round_: RoundRecord, sweep: SweepRecord) -> _Sweeping:
        self._step(round_, "recording")
        self._rest()
        started_s = self._rig.rail.kickoff(sweep)
        samples = self._follow(round_, self._motion(sweep), started_s)
        self._rig.rail.complete(timeout_s=10.0)
        ended_s = self._clock.now()
        self._rest()
        return _Sweeping(started_s, ended_s, tuple(samples))

    def _rest(self) -> None:
        if self._clock.sleep(self._plan.rest_s, self._stop):
            self._require_not_stopped()

    def _motion(self, sweep: SweepRecord) -> RailMotion:
        return sweep_motion(sweep, self._rig.profile.rail.envelope)

    def _follow(self, round_: RoundRecord, motion: RailMotion, started_s: float) -> list[TelemetrySample]:
        samples: list[TelemetrySample] = []
        deadline_s = started_s + 1.5 * motion.duration_s + PATIENCE_S
        arrived = False
        while not arrived:
            self._require_not_stopped()
            poll = self._rig.rail.poll()
            velocity = poll.velocity_mm_s if poll.velocity_mm_s is not None else float("nan")
            samples.append(TelemetrySample(poll.t_s, poll.position_mm, velocity, poll.state.value))
            self._emit(
                Motion(
                    t_host_s=poll.t_s, round=round_.name, position_mm=poll.position_mm, velocity_mm_s=velocity
                )
            )
            if poll.fault or poll.state in {RailState.LOCKED, RailState.HOLD}:
                raise TakeVoidError(
                    f"rail {poll.state.value} at {poll.position_mm:.2f} mm: {poll.fault or 'held'}"
                )
            if self._clock.now() > deadline_s:
                raise TakeVoidError(
                    f"the carriage did not arrive in time; it is at {poll.position_mm:.2f} mm"
                )
            arrived = (
                poll.state is RailState.IDLE and abs(poll.position_mm - motion.end_mm) < END_TOLERANCE_MM
            )
            self._clock.sleep(POLL_INTERVAL_S, self._stop)
        return samples

    def _fetch(
        self, take: TakeRecorder, name: str, camera: Camera, card_files: tuple[CardFile, ...]
    ) -> list[Path]:
        self._step(take.round, "copying the movie off the card")
        if not card_files:
            raise TakeVoidError("the camera delivered no movie")
        return [self._fetch_one(take, name, camera, f, k) for k, f in enumerate(card_files, start=1)]

    def _describe(
        self,
        take: TakeRecorder,
        name: str,
        paths: Sequence[Path],
        settings_read: ExposureSettings,
        *,
        requested_s: float,
    ) -> CameraTake:
        from alignment.decode import probe

        identity = self._rig.cameras[name].identity
        infos = [probe(path) for path in paths]
        frames = _frame_table(infos, requested_s)
        if len(frames) < 2:
            raise TakeVoidError(f"{paths[0].name}: {len(frames)} frames in the movie")
        span_s = frames[-1].t_host_s - frames[0].t_host_s
        return CameraTake(
            kind="movie",
            files=tuple(p.name for p in paths),
            frames_csv=take.save_frames(name, frames),
            width=infos[0].width,
            height=infos[0].height,
            frame_count=len(frames),
            measured_rate_hz=(len(frames) - 1) / span_s,
            colour=infos[0].colour,
            model=identity.model,
            serial=identity.serial,
            settings_read=settings_read,
        )

    def _fetch_one(self, take: TakeRecorder, name: str, camera: Camera, file: CardFile, number: int) -> Path:
        suffix = Path(file.name).suffix.lower() or ".mov"
        fetched = camera.fetch(file, take.folder / f"{name}-{number:02d}{suffix}")
        take.adopt(fetched.path, fetched.sha256)
        camera.delete(file)
        return fetched.path

    def _require_whole(self, camera_take: CameraTake, sweeping: _Sweeping) -> None:
        movie_s = camera_take.frame_count / camera_take.measured_rate_hz
        motion_s = sweeping.ended_s - sweeping.started_s
        if movie_s < motion_s:
            raise TakeVoidError(
                f"the movie lasts {movie_s:.1f} s, the motion {motion_s:.1f} s: it ended early"
            )

    def _guard_light(self, take: TakeRecorder, record: TakeRecord) -> None:
        reference = next(iter(self._folder.valid_takes().values()), None)
        if take.round.role != "gt" or reference is None or reference.round.role != "gt":
            return
        before, now = _first_light(reference.folder, reference.record()), _first_light(take.folder, record)
        drift_percent = 100 * abs(now / before - 1)
        if drift_percent > self._plan.guards.max_light_drift_percent:
            self._guard_failed(
                take.round,
                f"the light changed by {drift_percent:.1f} % since round {reference.round.name} "
                f"(limit {self._plan.guards.max_light_drift_percent:g} %)",
            )

    def _guard_failed(self, round_: RoundRecord, text: str) -> None:
        action = self._plan.guards.on_fail
        if action == "warn":
            self._recorder.note("warning", round=round_.name, text=text)
            self._emit(Warned(t_host_s=self._clock.now(), round=round_.name, text=text))
        elif action == "void":
            raise TakeVoidError(text)
        else:
            raise self._interrupted(text)

    def _require_disk_space(self) -> None:
        free_gb = shutil.disk_usage(self._recorder.folder).free / 1e9
        if free_gb < self._plan.guards.min_free_gb:
            raise DiskSpaceError(
                f"{self._recorder.folder}: {free_gb:.1f} GB free, the plan's guard asks for "
                f"{self._plan.guards.min_free_gb:g} GB",
                next_step="free space or lower guards.min_free_gb",
            )

    def _require_not_stopped(self) -> None:
        if self._stop.is_set():
            self._rig.rail.stop()
            raise self._interrupted("stopped by the operator")

    def _interrupted(self, reason: str) -> SessionInterruptedError:
        return SessionInterruptedError(
            f"session {self._record.session}: {reason}",
            kept="every take recorded so far",
            next_step=f"rig record --session {self._record.session}",
        )

    def _step(self, round_: RoundRecord, text: str) -> None:
        self._emit(Step(t_host_s=self._clock.now(), round=round_.name, text=text))

    def _tell_saved(self, take: TakeRecorder, path: str, size_bytes: int, sha256: str) -> None:
        self._emit(
            Saved(
                t_host_s=self._clock.now(),
                round=take.round.name,
                take=take.number,
                path=path,
                size_bytes=size_bytes,
                sha256=sha256,
            )
        )

    def _tell_finished(self, take: TakeRecorder, state: str, reason: str, frames: int) -> None:
        self._emit(
            TakeFinished.model_validate(
                {
                    "t_host_s": self._clock.now(),
                    "round": take.round.name,
                    "take": take.number,
                    "state": state,
                    "reason": reason,
                    "frames": frames,
                }
            )
        )


def _sweep_of(round_: RoundRecord) -> SweepRecord:
    if round_.sweep is None:
        raise PlanError(f"round {round_.name}: no sweep; imported footage cannot be recorded again")
    return round_.sweep


def _frame_table(parts: Sequence[StreamInfo], requested_s: float) -> list[FrameTime]:
    """Number the frames of a movie's parts through; times count from the request to record."""
    frames: list[FrameTime] = []
    for part in parts:
        origin_s = requested_s if not frames else frames[-1].t_host_s + 1 / part.average_rate_hz
        frames += [
            FrameTime(len(frames) + k, pts, str(part.time_base), origin_s + float(pts * part.time_base))
            for k, pts in enumerate(part.pts)
        ]
    return frames


def _first_light(folder: Path, record: TakeRecord) -> float:
    """Return the mean linear light of a take's first frame, before the carriage moves."""
    from alignment.decode import open_frames
    from alignment.photometry import standard_tone_curve

    camera = next(iter(record.cameras.values()))
    with open_frames(folder, camera) as frames:
        return float(standard_tone_curve("bt709").light_of(frames.read(0).rgb()).mean())
