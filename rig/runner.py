"""SessionRunner: plan × rig → session folder; void takes are redone, an interruption leaves a resumable session.

Between takes there are safe points: there a pause begins, a round is put in again, the session ends. What goes
wrong within a take makes that take void and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Literal

from catalog.session_folder import RoundRecord, SessionFolder
from rig.assembly import Rig
from rig.camera_thread import CameraThread
from rig.control import Operator, SessionControl, Unattended
from rig.devices.envelope import sweep_motion
from rig.errors import (
    CameraLostError,
    DeviceError,
    RigError,
    SessionInterruptedError,
    StorageError,
    TakeStoppedError,
    TakeVoidError,
)
from rig.events import (
    AnyEvent,
    Choice,
    OperatorCard,
    RoundStarted,
    Saved,
    SessionClosed,
    SessionOpened,
    TakeFinished,
    Warned,
)
from rig.live_check_process import LiveCheckProcess
from rig.passage import Passage, StopWatch, sweep_of
from rig.plan import CapturePlan
from rig.session import SessionRecorder, TakeRecorder, resume_command
from rig.take import TakeRunner
from rig.verdicts import END, SessionJudge

ATTEMPTS = 2
"""So often a round is tried before the session ends."""
MOST_LOSSES = 4
"""So often the camera may go away in one round."""
RECONNECT_S = 60.0
"""So long, in seconds of the machine, a lost camera is looked for before somebody is asked."""


class SessionRunner:
    """Records every round of a session that has no valid take yet.

    Args:
        rig: An open rig.
        recorder: The open session.
        emit: Receives every event in order, from the thread that calls `run`.
        control: Wishes about the session: pause, finish, redo, stop.
        operator: Answers cards; nobody is there by default.
    """

    def __init__(
        self,
        rig: Rig,
        recorder: SessionRecorder,
        *,
        emit: Callable[[AnyEvent], None],
        control: SessionControl | None = None,
        operator: Operator | None = None,
    ) -> None:
        self._rig, self._recorder, self._emit = rig, recorder, emit
        self._control = control or SessionControl()
        self._operator = operator or Unattended()
        self._folder = SessionFolder(recorder.folder)
        self._record = self._folder.record()
        self._plan = CapturePlan.model_validate(self._record.plan)
        self._clock = rig.clock
        self._line_before: Mapping[str, int] = {}
        self._queue: deque[RoundRecord] = deque()
        self._failures: Counter[str] = Counter()
        self._until_s = math.inf
        self._camera: CameraThread
        self._passage: Passage
        self._takes: TakeRunner
        self._judge: SessionJudge

    def run(self) -> None:
        """Record until every round has a valid take.

        Raises:
            SessionInterruptedError: Stopped, finished early, or a round failed twice; everything saved is kept,
                the message is the command that resumes.
        """
        done = self._folder.valid_takes()
        self._queue.extend(r for r in self._record.rounds if r.name not in done)
        self._until_s = self._clock.now() + 3600 * self._plan.longest_h
        self._tell_opened()
        try:
            self._recorder.note("run_started", rounds=[r.name for r in self._queue])
            self._note_rail()
            with ExitStack() as stack:
                self._assemble(stack)
                self._record_all()
        except RigError as error:
            with contextlib.suppress(StorageError):  # the next run needs no such row
                self._recorder.note(
                    "run_interrupted", reason=error.message, line_troubles=self._line_troubles()
                )
            self._tell_closed(complete=False)
            raise self._interrupted(error) from error
        self._recorder.note("run_finished", line_troubles=self._line_troubles())
        self._tell_closed(complete=True)

    def _note_rail(self) -> None:
        """Keep what the controller is set to, and tell what it cannot be held to."""
        account = self._rig.rail.account()
        self._line_before = account.line
        self._recorder.note("devices", rail=self._rig.rail.identity, settings=account.settings)
        for text in account.warnings:
            self._recorder.note("warning", text=text)
            self._emit(Warned(t_host_s=self._clock.now(), round=self._record.rounds[0].name, text=text))

    def _line_troubles(self) -> dict[str, int]:
        """Count by kind what went wrong on the rail's line in this run and was repaired."""
        line = self._rig.rail.account().line
        return {kind: count - self._line_before.get(kind, 0) for kind, count in line.items()}

    def _assemble(self, stack: ExitStack) -> None:
        name, camera = next(iter(self._rig.cameras.items()))
        stack.enter_context(StopWatch(self._control, self._rig.rail.stop))
        self._camera = stack.enter_context(CameraThread(name, camera, stopped=self._is_stopped))
        self._passage = Passage(
            self._rig,
            self._recorder,
            control=self._control,
            camera=self._camera,
            emit=self._emit,
            rest_s=self._plan.rest_s,
        )
        self._takes = TakeRunner(
            self._rig, self._recorder, camera=self._camera, passage=self._passage, emit=self._emit
        )
        self._judge = SessionJudge(
            self._recorder,
            self._plan,
            check=stack.enter_context(LiveCheckProcess(self._recorder.folder)),
            operator=self._operator,
            emit=self._emit,
            clock=self._clock,
        )
        self._begin_missing_checks()
        if self._queue:
            self._passage.make_ready()

    def _begin_missing_checks(self) -> None:
        """Check what an earlier run recorded and had no time to look at or to decide about."""
        rows = self._folder.journal().rows
        kept = {(r.get("round"), r.get("take")) for r in rows if r.kind == "take_kept"}
        for name, take in self._folder.valid_takes().items():
            if (name, take.number) not in kept:
                self._judge.begin(take.round, take.number)

    def _is_stopped(self) -> bool:
        return self._control.stop.is_set() or self._control.hold_wanted

    def _record_all(self) -> None:
        while True:
            self._safe_point()
            if self._queue:
                self._record_next(self._queue[0])
            elif self._judge.pending:
                self._settle()
            else:
                return

    def _safe_point(self) -> None:
        """Pause, take in rounds to redo, or end, as it is wished."""
        self._take_in_wishes()
        while self._control.pause_wanted:
            self._pause()
            self._passage.require_free()
            self._take_in_wishes()
        self._passage.require_free()
        if self._queue and self._clock.now() > self._until_s:
            self._settle()
            raise TakeStoppedError(f"its longest time of {self._plan.longest_h:g} h is over")

    def _take_in_wishes(self) -> None:
        if self._control.pause_wanted or self._control.finish_wanted:
            self._settle()
        while (name := self._control.take_redo()) is not None:
            self._put_in_again(name, "superseded")
        if self._control.finish_wanted and self._queue:
            raise TakeStoppedError("ended by the operator after a take")

    def _pause(self) -> None:
        self._recorder.note("paused")
        self._control.wait_while_paused()
        self._recorder.note("resumed")

    def _settle(self) -> bool:
        """Wait for the verdict on the takes behind; tells whether one of them is to be recorded again."""
        again = False
        while self._judge.pending:
            verdict = self._judge.next_verdict(require_free=self._passage.require_free)
            if verdict.keep:
                self._recorder.note("take_kept", round=verdict.round.name, take=verdict.take)
            else:
                again = True
                self._put_in_again(verdict.round.name, f"spoiled: {verdict.reason}")
                if verdict.home_first:
                    self._passage.home()
        return again

    def _put_in_again(self, name: str, reason: str) -> None:
        valid = self._folder.valid_takes().get(name)
        round_ = next((r for r in self._record.rounds if r.name == name), None)
        if valid is not None:
            self._recorder.supersede(name, valid.number, reason)
            self._tell_finished(name, valid.number, "void", reason=reason)
        if round_ is not None and round_ not in self._queue:
            self._queue.appendleft(round_)

    def _record_next(self, round_: RoundRecord) -> None:
        try:
            if self._is_set_by_hand(round_) and self._settle():
                return
            self._tell_started(round_)
            self._takes.stage(round_)
            if self._settle():
                return
            free_gb = shutil.disk_usage(self._recorder.folder).free / 1e9
            self._judge.allow_round(round_, free_gb=free_gb, cameras=self._takes.status)
            self._record_take(round_)
        except TakeStoppedError:
            if not self._control.hold_wanted or self._control.stop.is_set():
                raise
            self._pause()
            self._passage.require_free()
            self._passage.make_ready()
        except CameraLostError as error:
            self._count_failure(round_, error, MOST_LOSSES)
            self._passage.make_ready()
            self._bring_back_camera(round_, error)
        except TakeVoidError as error:
            self._count_failure(round_, error, ATTEMPTS)
            self._passage.make_ready()
        else:
            self._queue.popleft()

    def _is_set_by_hand(self, round_: RoundRecord) -> bool:
        """Tell whether somebody would have to undo what he sets for this round if the last take is redone."""
        settings = self._rig.profile.conditions
        return any(settings[name].kind == "operator" for name in self._takes.changes(round_))

    def _count_failure(self, round_: RoundRecord, error: RigError, most: int) -> None:
        self._failures[round_.name] += 1
        if self._failures[round_.name] >= most:
            raise TakeVoidError(f"round {round_.name} failed {most} times: {error.message}") from error

    def _bring_back_camera(self, round_: RoundRecord, lost: CameraLostError) -> None:
        """Look for the camera by its serial number, and ask the operator when it does not come back."""
        self._takes.forget()
        while not self._reconnects():
            card = OperatorCard(
                kind="device",
                round=round_.name,
                title="The camera is gone",
                text=f"{lost.message}. Switch it on, check cable and battery.",
                choices=(Choice(name="wait", label="Wait for it"), END),
            )
            if self._operator.ask(card).choice == END.name:
                raise lost

    def _reconnects(self) -> bool:
        with self._recorder.act("reconnect_camera", camera=self._camera.name):
            back = self._camera.comes_back(RECONNECT_S)
        self._recorder.note("camera", name=self._camera.name, back=back)
        return back

    def _record_take(self, round_: RoundRecord) -> None:
        take = self._recorder.begin_take(round_)
        take.on_saved(lambda path, file: self._tell_saved(take, path, file.size_bytes, file.sha256))
        try:
            record = self._takes.capture(take, then=self._next_after(round_))
            take.finish(record)
        except BaseException as error:
            with contextlib.suppress(
                DeviceError
            ):  # a rail that is gone cannot be stopped, but the take is void
                self._rig.rail.stop()
            with contextlib.suppress(StorageError):  # so is one without an outcome
                take.void(str(error) or type(error).__name__)
            self._tell_finished(round_.name, take.number, "void", reason=str(error))
            raise
        frames = sum(c.frame_count for c in record.cameras.values())
        self._tell_finished(round_.name, take.number, "valid", frames=frames)
        self._judge.begin(round_, take.number, lost_frames=self._takes.lost_frames)

    def _next_after(self, round_: RoundRecord) -> RoundRecord | None:
        """Return where the carriage may go already while this round's movie is copied."""
        waiting = [r for r in self._queue if r != round_]
        if not waiting or self._control.pause_wanted or self._control.finish_wanted:
            return None
        return waiting[0]

    def _interrupted(self, error: RigError) -> SessionInterruptedError:
        stopped = isinstance(error, TakeStoppedError) and not error.next_step
        mend = f"{error.next_step}; then " if error.next_step and not stopped else ""
        return SessionInterruptedError(
            f"session {self._record.session}: {error.message}",
            kept="every take recorded so far",
            next_step=f"{mend}{resume_command(self._recorder.folder)}",
        )

    def _tell_opened(self) -> None:
        self._emit(
            SessionOpened(
                t_host_s=self._clock.now(),
                session=self._record.session,
                folder=str(self._recorder.folder),
                rounds_total=len(self._record.rounds),
                rounds_missing=len(self._queue),
            )
        )

    def _tell_closed(self, *, complete: bool) -> None:
        self._emit(
            SessionClosed(
                t_host_s=self._clock.now(),
                session=self._record.session,
                folder=str(self._recorder.folder),
                complete=complete,
            )
        )

    def _tell_started(self, round_: RoundRecord) -> None:
        self._emit(
            RoundStarted(
                t_host_s=self._clock.now(),
                round=round_.name,
                number=round_.number,
                role=round_.role,
                duration_s=self._duration_s(round_),
            )
        )

    def _duration_s(self, round_: RoundRecord) -> float:
        moving_s = sweep_motion(sweep_of(round_), self._rig.profile.rail.envelope).duration_s
        return moving_s + 2 * self._plan.rest_s

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

    def _tell_finished(
        self,
        round_name: str,
        take: int,
        state: Literal["valid", "void"],
        *,
        reason: str = "",
        frames: int = 0,
    ) -> None:
        self._emit(
            TakeFinished(
                t_host_s=self._clock.now(),
                round=round_name,
                take=take,
                state=state,
                reason=reason,
                frames=frames,
            )
        )
