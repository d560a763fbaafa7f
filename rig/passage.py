"""Move the carriage for a round and watch it: approach, sweep, stand still; every reading is telemetry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Self

from catalog.session_folder import RoundRecord, SweepRecord, TelemetrySample
from rig.assembly import Rig
from rig.camera_thread import CameraThread
from rig.control import SessionControl
from rig.devices.camera import CameraStatus
from rig.devices.envelope import Motion, sweep_motion
from rig.devices.output import SyncLed
from rig.devices.rail import RailPoll, RailState
from rig.errors import MotionStoppedError, PlanError, RailLockedError, TakeStoppedError, TakeVoidError
from rig.events import AnyEvent, Warned
from rig.events import Motion as MotionSeen
from rig.session import SessionRecorder

POLL_INTERVAL_S = 0.05
HOMING_TIMEOUT_S = 120.0
END_TOLERANCE_MM = 0.5
PATIENCE_S = 5.0
"""Added to every deadline that follows from a motion's plan."""
_STOPPER_S = 0.5
"""A held carriage was held by whoever also says so within this time."""
_UNWATCHED_S = 1.0
"""A sweep that was not looked at for so long, seconds of the machine, is told of."""
_PROBE_EVERY_S = 2.0
"""Seconds of the machine between two looks whether the camera is still there."""


@dataclass(frozen=True)
class Sweeping:
    """What the rail did during one take."""

    started_s: float
    ended_s: float
    telemetry: tuple[TelemetrySample, ...]


class StopWatch:
    """Slows the carriage down as soon as somebody wants it, whatever the runner is waiting for.

    Args:
        control: The wishes.
        stop: Holds the rail; callable from any thread.
    """

    def __init__(self, control: SessionControl, stop: Callable[[], None]) -> None:
        self._control, self._stop = control, stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stop-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        held = False
        while not self._over.is_set():
            wanted = self._control.stop.wait(POLL_INTERVAL_S / 2) or self._control.hold_wanted
            if wanted and not held:
                self._stop()
            held = wanted
            if self._control.stop.is_set():
                self._over.wait()


class Passage:
    """The rail as a session uses it; all calls from one thread.

    Args:
        rig: An open rig.
        recorder: The open session.
        control: Wishes about the session.
        camera: Is looked at while the carriage moves.
        emit: Receives `rig.events.Motion`.
        rest_s: Standstill recorded before and after each sweep.
    """

    def __init__(
        self,
        rig: Rig,
        recorder: SessionRecorder,
        *,
        control: SessionControl,
        camera: CameraThread,
        emit: Callable[[AnyEvent], None],
        rest_s: float,
    ) -> None:
        self._rig, self._recorder, self._control, self._camera = rig, recorder, control, camera
        self._emit, self._rest_s = emit, rest_s
        self._standing_for: tuple[SweepRecord | None, tuple[float, ...]] | None = None
        pin = rig.profile.sync_led
        self._led = None if pin is None else SyncLed(pin, rig.clock)

    def forget(self) -> None:
        """Forget where the carriage stands."""
        self._standing_for = None

    def require_free(self) -> None:
        """Raise `TakeStoppedError` when the take in progress is to end now."""
        if self._control.stop.is_set() or self._control.hold_wanted:
            raise TakeStoppedError("stopped by the operator")

    def make_ready(self) -> None:
        """Leave a hold, and home where the position is unknown; an alarm is never unlocked from here.

        Raises:
            RailLockedError: The rail is locked, or was while the hold was left.
            TakeStoppedError: The operator wanted the session to end: the hold is theirs.
        """
        self.forget()
        reading = self._rig.rail.poll()
        if reading.fault:
            raise _locked(reading)
        if reading.state is RailState.HOLD:
            if self._control.stop.is_set():
                raise TakeStoppedError("stopped by the operator")
            with self._recorder.act("clear_hold", position_mm=reading.position_mm):
                self._rig.rail.clear_hold()
        if not self._rig.rail.homed:
            self.home()

    def home(self) -> None:
        """Find the home switch."""
        self.forget()
        self.require_free()
        with self._recorder.act("home"):
            self._rig.rail.home(timeout_s=HOMING_TIMEOUT_S)

    def approach(self, round_: RoundRecord) -> None:
        """Go to where a round begins; does nothing where the carriage stands there already."""
        place = (round_.sweep, round_.stops_mm)
        if self._standing_for == place:
            return
        self.forget()
        self.require_free()
        with self._recorder.act("approach", round=round_.name), _telling_who_held(self._stopped_soon):
            if round_.stops_mm:
                self._rig.rail.move_to(round_.stops_mm[0])
            else:
                self._rig.rail.prepare(sweep_of(round_))
        self._standing_for = place

    def go(self, position_mm: float) -> None:
        """Go to one stop of a stop-and-shoot round."""
        self.forget()
        self.require_free()
        with _telling_who_held(self._stopped_soon):
            self._rig.rail.move_to(position_mm)

    def stand(self, duration_s: float) -> None:
        """Stand still so long."""
        self._rig.clock.sleep(duration_s, self._control.stop)
        self.require_free()

    def look(self, round_: RoundRecord) -> TelemetrySample:
        """Read the rail once."""
        poll = self._rig.rail.poll()
        velocity = poll.velocity_mm_s if poll.velocity_mm_s is not None else float("nan")
        self._emit(
            MotionSeen(
                t_host_s=poll.t_s, round=round_.name, position_mm=poll.position_mm, velocity_mm_s=velocity
            )
        )
        self._require_moving_freely(poll)
        return TelemetrySample(poll.t_s, poll.position_mm, velocity, poll.state.value)

    def sweep(self, round_: RoundRecord, take: int) -> Sweeping:
        """Rest, sweep, rest.

        Raises:
            TakeStoppedError: The operator wanted it to end.
            TakeVoidError: Held by something else, or not there in time.
            RailLockedError: Alarm, restart or lost position; nothing is unlocked.
            CameraLostError: The camera went away meanwhile.
        """
        sweep = sweep_of(round_)
        motion = sweep_motion(sweep, self._rig.profile.rail.envelope)
        self.stand(self._rest_s)
        self.forget()
        act = self._recorder.act(
            "sweep", round=round_.name, take=take, from_mm=motion.start_mm, to_mm=motion.end_mm,
            velocity_mm_s=motion.velocity_mm_s,
        )  # fmt: skip
        with act, _telling_who_held(self._stopped_soon):
            at_rest = self.look(round_)
            started_s = self._rig.rail.kickoff(sweep)
            telemetry = [at_rest, *self._follow(round_, motion, started_s)]
            self._rig.rail.complete(timeout_s=motion.duration_s + PATIENCE_S)
            ended_s = self._rig.clock.now()
        self._tell_unwatched(round_, telemetry)
        self.stand(self._rest_s)
        return Sweeping(started_s, ended_s, tuple(telemetry))

    def _tell_unwatched(self, round_: RoundRecord, telemetry: Sequence[TelemetrySample]) -> None:
        """Tell of a computer that stood still: for so long nobody could have stopped the carriage from here."""
        longest_s = max(after.t_host_s - before.t_host_s for before, after in pairwise(telemetry))
        unwatched_s = longest_s / self._rig.clock.rate
        if unwatched_s <= _UNWATCHED_S:
            return
        text = f"nobody looked at the rail for {unwatched_s:.1f} s of the sweep: this computer was too busy"
        self._recorder.note("warning", round=round_.name, text=text)
        self._emit(Warned(t_host_s=self._rig.clock.now(), round=round_.name, text=text))

    def _follow(self, round_: RoundRecord, motion: Motion, started_s: float) -> list[TelemetrySample]:
        samples: list[TelemetrySample] = []
        deadline_s = started_s + 1.5 * motion.duration_s + PATIENCE_S
        probe = _CameraProbe(self._camera)
        flashes = list(_uniform_ends_s(sweep_of(round_), motion, started_s)) if self._led else []
        while not (samples and _has_arrived(samples[-1], motion)):
            self.require_free()
            samples.append(self.look(round_))
            if self._rig.clock.now() > deadline_s:
                raise TakeVoidError(
                    f"the carriage did not arrive in time; it is at {samples[-1].position_mm:.2f} mm"
                )
            probe.look()
            if flashes and self._rig.clock.now() >= flashes[0]:
                del flashes[0]
                self._flash(round_)
            self._rig.clock.sleep(POLL_INTERVAL_S, self._control.stop)
        return samples

    def _flash(self, round_: RoundRecord) -> None:
        if self._led is not None:
            lit_s, dark_s = self._led.flash(self._rig.rail)
            self._recorder.note("sync_led", round=round_.name, lit_t_host_s=lit_s, dark_t_host_s=dark_s)

    def _require_moving_freely(self, poll: RailPoll) -> None:
        if poll.fault or poll.state is RailState.LOCKED:
            raise _locked(poll)
        if poll.state is RailState.HOLD:
            if self._stopped_soon():
                raise TakeStoppedError(f"stopped by the operator at {poll.position_mm:.2f} mm")
            raise TakeVoidError(f"the carriage was held at {poll.position_mm:.2f} mm")

    def _stopped_soon(self) -> bool:
        """Tell whether a hold was the operator's: the byte on the wire is faster than the wish."""
        return self._control.stop.wait(_STOPPER_S) or self._control.hold_wanted


class _CameraProbe:
    """Looks from time to time whether the camera still answers, without ever waiting for it."""

    def __init__(self, camera: CameraThread) -> None:
        self._camera = camera
        self._due_s = time.monotonic() + _PROBE_EVERY_S
        self._asked: Future[CameraStatus] | None = None

    def look(self) -> None:
        """Ask when it is time; raise `CameraLostError` when an earlier question was not answered."""
        if self._asked is not None and self._asked.done():
            self._camera.wait(self._asked)
            self._asked, self._due_s = None, time.monotonic() + _PROBE_EVERY_S
        if self._asked is None and time.monotonic() >= self._due_s:
            self._asked = self._camera.start(lambda camera: camera.status())


def _uniform_ends_s(sweep: SweepRecord, motion: Motion, started_s: float) -> tuple[float, float]:
    """Return when the carriage passes both ends of the uniform part, by the plan."""
    ramp_s = motion.velocity_mm_s / motion.acceleration_mm_s2
    margin_s = abs(sweep.start_mm - motion.start_mm) / motion.velocity_mm_s - ramp_s / 2
    begin_s = started_s + ramp_s + margin_s
    return begin_s, begin_s + abs(sweep.end_mm - sweep.start_mm) / sweep.velocity_mm_s


def sweep_of(round_: RoundRecord) -> SweepRecord:
    """Return a round's sweep; raises `PlanError` where it has none."""
    if round_.sweep is None:
        raise PlanError(f"round {round_.name}: no sweep; imported footage cannot be recorded again")
    return round_.sweep


def _has_arrived(sample: TelemetrySample, motion: Motion) -> bool:
    near = abs(sample.position_mm - motion.end_mm) < END_TOLERANCE_MM
    return near and sample.state == RailState.IDLE.value


def _locked(poll: RailPoll) -> RailLockedError:
    return RailLockedError(
        f"the rail is locked: {poll.fault or poll.state.value}",
        kept="every take recorded so far; the take in progress is void",
        next_step="look at rail and switches, unlock, home (`rig home`), then go on",
    )


@contextmanager
def _telling_who_held(by_operator: Callable[[], bool]) -> Iterator[None]:
    try:
        yield
    except MotionStoppedError as error:
        if by_operator():
            raise TakeStoppedError("stopped by the operator") from error
        raise TakeVoidError(error.message) from error
