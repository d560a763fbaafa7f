"""What the engine does with its rig: home, jog, run a session, leave a fault; and the stop that ends any of it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, TypeVar

from catalog.errors import CleanplateError
from rig.assembly import Rig, clock_of
from rig.control import Operator, SessionControl
from rig.devices.rail import RailPoll, RailState
from rig.engine.cards import Bystander, CardDesk
from rig.engine.devices import POLL_INTERVAL_S, DeviceOwner, JogPermit, Stage, jog
from rig.engine.progress import ProgressTracker
from rig.engine.session import SessionOrder
from rig.engine.stop import tidy_up
from rig.errors import DeviceError, MotionStoppedError
from rig.events import (
    ActEnded,
    AnyEvent,
    Choice,
    EngineMode,
    OperatorCard,
    Stopped,
    TakeFinished,
    Warned,
)
from rig.profile import RigProfile
from rig.runner import SessionRunner
from rig.session import SessionRecorder

HOMING_TIMEOUT_S = 120.0
CAMERA_PATIENCE_S = 30.0
INSIST_S = 2.0
"""For so long a stop is repeated while an act that moves has not ended."""
_BOX = "[ ] "
ActName = Literal["home", "session", "jog", "clear_fault"]
T = TypeVar("T")


class RigWork:
    """Carries out one act at a time on a rig that it owns.

    Args:
        profile: The rig; the caller holds its lock.
        data: Data folder.
        stage: Scene of a simulated rig.
        emit: Receives every event, from several threads.
        operator: Answers cards before anybody else is asked.
        attended: Tells whether a client is there who could answer a card.
    """

    def __init__(
        self,
        profile: RigProfile,
        *,
        data: Path,
        stage: Stage,
        emit: Callable[[AnyEvent], None],
        operator: Operator | Bystander | None,
        attended: Callable[[], bool],
    ) -> None:
        self.profile, self.data = profile, data
        self.clock = clock_of(profile)
        self.devices = DeviceOwner(profile, data=data, stage=stage, clock=self.clock, ask=self._ask_condition)
        self.cards = CardDesk(
            emit=self._observe,
            now_s=self.clock.now,
            idle=self.devices.poll_quietly,
            attended=attended,
            operator=operator,
        )
        self.act: ActName | None = None
        """What is being done; None at rest."""
        self.control = SessionControl()
        """Of the session that runs, or ran last."""
        self.session: Path | None = None
        """Folder of the session that runs, or ran last, from just before it is made."""
        self.tracker: ProgressTracker | None = None
        self.failure = ""
        """What went wrong last, in plain words; empty once something succeeded."""
        self.homed_at_s: float | None = None
        """Machine's monotonic reading at the last homing."""
        self._emit = emit
        self._permit = JogPermit()
        self._press = 0
        self._uncleared = EngineMode.OFFLINE
        self._untold_stops: deque[Stopped] = deque()
        self._insist_until_s, self._emergency = 0.0, False

    @property
    def mode(self) -> EngineMode:
        """State of the rig as a whole; a fault that is being cleared is there until it is."""
        if self.act == "clear_fault":
            return self._uncleared
        reading = self.devices.last_poll
        if self.devices.trouble or reading is None:
            return EngineMode.OFFLINE
        if reading.fault:
            return EngineMode.LOCKED
        if self.act == "session":
            return self._session_mode()
        return EngineMode.HOMING if self.act == "home" else self._resting_mode(reading)

    def _resting_mode(self, reading: RailPoll) -> EngineMode:
        if reading.state is RailState.HOLD:
            return EngineMode.HOLD
        return EngineMode.READY if self.devices.homed else EngineMode.CONNECTED

    def _session_mode(self) -> EngineMode:
        if self.control.paused:
            return EngineMode.PAUSED
        return EngineMode.PAUSING if self.control.pause_wanted else EngineMode.RUNNING

    def home(self, *, stops_seen: int | None = None) -> Future[None]:
        """Find the home switch; ``stops_seen`` as `DeviceOwner.do` has it."""

        def work(rig: Rig) -> None:
            rig.rail.home(timeout_s=HOMING_TIMEOUT_S)
            self.homed_at_s = time.monotonic()

        return self._begin("home", work, moves=True, stops_seen=stops_seen)

    def run(self, order: SessionOrder, *, stops_seen: int | None = None) -> Future[Path]:
        """Record a session, or go on with one; returns its folder. ``stops_seen`` as `DeviceOwner.do` has it."""
        self.control = self.cards.control = SessionControl(idle=self.devices.poll_quietly)
        self.session = None
        return self._begin("session", lambda _: self._run(order), moves=True, stops_seen=stops_seen)

    def jog(self, distance_mm: float, *, velocity_mm_s: float, press: int) -> None:
        """Begin a jog, or renew the permit of the one that runs."""
        self._permit.renew()
        if self.act == "jog" or (press and press == self._press):
            return
        self._press, permit = press, JogPermit()
        self._permit = permit
        self._begin(
            "jog",
            lambda rig: jog(rig, distance_mm, velocity_mm_s=velocity_mm_s, permit=permit),
            moves=True,
        )

    def end_jog(self) -> None:
        """Let a jog end now: whoever held the key is gone."""
        self._permit.expire()

    def clear_fault(self) -> Future[None]:
        """Leave a hold, unlock after an alarm, or connect again to devices that were gone."""
        self._uncleared = self.mode
        return self._begin("clear_fault", self._clear_fault, moves=False)

    def stop_now(self, *, emergency: bool) -> str:
        """Put the bytes on the wire; returns plain words about trouble, empty when there was none."""
        return self.devices.stop_now(emergency=emergency)

    def note_stop(self, *, emergency: bool, by: str) -> None:
        """Draw the consequences of a stop; never waits for anything."""
        self.control.stop.set()
        self._permit.revoke()
        self._insist_until_s, self._emergency = time.monotonic() + INSIST_S, emergency
        self.failure = f"{'emergency stop' if emergency else 'stopped'} by {by or 'somebody'}"
        self._untold_stops.append(Stopped(t_host_s=self.clock.now(), emergency=emergency, by=by))

    def follow_up(self) -> bool:
        """Tell about stops and repeat the last one while something still moves; tells whether there was one."""
        had = bool(self._untold_stops)
        while self._untold_stops:
            self._emit(self._untold_stops.popleft())
        if time.monotonic() < self._insist_until_s and not self.devices.insist(emergency=self._emergency):
            self._insist_until_s = 0.0
        return had

    def _run(self, order: SessionOrder) -> Path:
        rig = self.devices.set_up(order.stage)
        self._await_cameras()
        with order.open(rig, announce=self._announce) as recorder:
            self._pass_on(order, recorder)
            self.tracker = ProgressTracker(order, recorder.folder)
            SessionRunner(rig, recorder, emit=self._observe, control=self.control, operator=self.cards).run()
            return recorder.folder

    def _pass_on(self, order: SessionOrder, recorder: SessionRecorder) -> None:
        """Tell, and keep, what was passed over to make the order."""
        for text in order.warnings:
            recorder.note("warning", text=text)
            self._emit(Warned(t_host_s=self.clock.now(), round=order.plan.rounds[0].name, text=text))

    def _await_cameras(self) -> None:
        """Give cameras the time to close what an earlier session broke off; the runner says if one does not."""
        deadline_s = time.monotonic() + CAMERA_PATIENCE_S
        for camera in self.devices.cameras.values():
            with contextlib.suppress(DeviceError):  # one that is gone is the runner's to find again
                while camera.status().movie_prohibited and time.monotonic() < deadline_s:
                    if self.control.stop.wait(POLL_INTERVAL_S):
                        return
                    self.devices.poll_quietly()

    def _clear_fault(self, rig: Rig) -> None:
        if self.devices.trouble:
            self.devices.open()
            return
        rig.rail.clear_fault()
        self.devices.poll_quietly()

    def _observe(self, event: AnyEvent) -> None:
        if self.tracker is not None:
            self.tracker.observe(event)
        self._emit(event)
        if isinstance(event, TakeFinished):
            self._tidy_up_at_rest()  # a session is one act, which may take the evening

    def _tidy_up_at_rest(self) -> None:
        """Tidy up, unless the carriage moves, as after an error on the way: that would hold a stop up."""
        reading = self.devices.last_poll
        if reading is None or reading.state is not RailState.MOVING:
            tidy_up()

    def _announce(self, folder: Path) -> None:
        self.session = folder

    def _begin(
        self, act: ActName, work: Callable[[Rig], T], *, moves: bool, stops_seen: int | None = None
    ) -> Future[T]:
        self.act = act
        done = self.devices.do(work, moves=moves, stops_seen=stops_seen)
        done.add_done_callback(lambda future: self._end(act, future))
        return done

    def _end(self, act: ActName, done: Future[T]) -> None:
        self.act = None
        self._tidy_up_at_rest()
        error = None if done.cancelled() else done.exception()
        now_s = self.clock.now()
        if error is None:
            self.failure = ""
            self._emit(ActEnded(t_host_s=now_s, act=act, ok=True))
            return
        code, mend = "RIG-000", ""
        message = str(error) or type(error).__name__
        if isinstance(error, CleanplateError):
            code, message, mend = error.code, error.message, error.next_step
        if not isinstance(error, MotionStoppedError):
            self.failure = message
        self._emit(ActEnded(t_host_s=now_s, act=act, ok=False, code=code, message=message, next_step=mend))

    def _ask_condition(self, text: str) -> None:
        """Let an operator set an external condition; lines of the text that begin with a box are its check list."""
        lines = text.splitlines()
        card = OperatorCard(
            kind="condition",
            round="",
            title="External condition",
            text="\n".join(line for line in lines if not line.startswith(_BOX)),
            checklist=tuple(line.removeprefix(_BOX) for line in lines if line.startswith(_BOX)),
            choices=(Choice(name="done", label="It is so"),),
        )
        self.cards.ask(card)
