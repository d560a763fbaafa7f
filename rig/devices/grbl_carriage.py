"""Where the carriage is and what it does: readings with a heartbeat, judged before they are believed."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from rig.clock import SessionClock
from rig.devices import grbl_protocol as protocol
from rig.devices.arrival import SETTLED_S, not_at_rest, require_no_fault, require_state, wait_until
from rig.devices.envelope import Motion, check_motion
from rig.devices.grbl_escape import SwitchEscape
from rig.devices.grbl_link import Answer, GrblLink
from rig.devices.grbl_outputs import GrblOutputs
from rig.devices.grbl_protocol import StatusReport
from rig.devices.grbl_schedule import MotionSchedule
from rig.devices.grbl_settings import GrblSettings, MachineFrame
from rig.devices.grbl_watch import PositionWatch, Reading
from rig.devices.rail import RailPoll, RailState
from rig.errors import DeviceTimeoutError, RailLockedError

PERMIT_S = 0.25
"""A jog goes on for this long after it was last asked for."""
_DEGRADED_S = 0.25
_SILENCE_S = 0.5
"""A moving rail that is silent this long is held, and reset after as long again."""
_ANSWER_S = 1.0
_UNKNOWN_STEP_MM = 0.05
_ROUNDING_MM = 0.0015

_STATES = {
    "Idle": RailState.IDLE,
    "Run": RailState.MOVING,
    "Jog": RailState.MOVING,
    "Hold": RailState.HOLD,
    "Home": RailState.HOMING,
    "Alarm": RailState.LOCKED,
    "Door": RailState.LOCKED,
    "Sleep": RailState.LOCKED,
}


class GrblCarriage:
    """Reads reports and draws the consequences: a hold, a reset, or a position that counts as lost.

    Args:
        link: The conversation with the controller.
        clock: The session clock.
        frame: Rail against machine coordinates.
        outputs: Told what the reports say of them.
        give_up: Holds and resets the controller.
    """

    def __init__(
        self,
        link: GrblLink,
        clock: SessionClock,
        *,
        frame: MachineFrame,
        outputs: GrblOutputs,
        give_up: Callable[[], None],
    ) -> None:
        self.link = link
        self.frame = frame
        self.watch = PositionWatch()
        self.watch.witness_s = link.patience_s(self.watch.witness_s)
        self.escape = SwitchEscape()
        self.emergency = threading.Event()
        self.arrived_mm = _UNKNOWN_STEP_MM
        """How far from its target a carriage at rest may be: half a step, and the rounding of the print."""
        self.motion: Motion | None = None
        """What was commanded and has not been seen to end."""
        self.jogging = False
        self.last_poll: RailPoll | None = None
        """What `poll` returned last; None before the first."""
        self.last_direction = self._direction_before = 0
        """Sign of the last motion, rail coordinates; 0 when there was none."""
        self._clock = clock
        self._outputs = outputs
        self._give_up = give_up
        self._homed = False
        self._started_s = 0.0
        self._asked_s = self._heard_s = clock.now()
        self._permit_until_s = math.inf
        self._position_mm = frame.lower_mm

    @property
    def homed(self) -> bool:
        """Whether the position is known."""
        return self._homed and not self.trouble

    @property
    def trouble(self) -> str:
        """What locks the rail, in plain words; empty when nothing does."""
        if self.emergency.is_set():
            return "emergency stop; the position is lost"
        return self.link.fault

    @property
    def silence_s(self) -> float:
        """How long a report has been waited for, machine seconds at least; 0 while none is owed."""
        if self._asked_s <= self._heard_s:
            return 0.0
        return (self._clock.now() - self._asked_s) / max(1.0, self._clock.rate)

    @property
    def degraded(self) -> bool:
        """Whether a moving rail has been silent for more than 250 ms."""
        return self.motion is not None and self.silence_s > _DEGRADED_S

    def require_no_fault(self) -> None:
        """Refuse to go on while something locks the rail.

        Raises:
            RailLockedError: Something does.
        """
        require_no_fault(self.trouble, name=self.link.wire.name)

    def require_state(self, reading: RailPoll, *allowed: RailState) -> None:
        """Refuse to go on in a state other than those allowed.

        Raises:
            MotionStoppedError: The carriage is held.
            RailLockedError: The rail is locked.
            DeviceError: It does something else.
        """
        self.require_no_fault()
        require_state(reading, *allowed, name=self.link.wire.name)

    def passed(
        self, reading: RailPoll, end_mm: float, velocity_mm_s: float, *, settings: GrblSettings
    ) -> Motion:
        """Return a motion that the envelope lets pass; unhomed, its numbers count from where the carriage is.

        Raises:
            EnvelopeError: It leaves the envelope.
            RailLockedError: Something locks the rail, or only a crawl is allowed.
        """
        start_mm = reading.position_mm if self.homed else 0.0
        motion = Motion(start_mm, end_mm, velocity_mm_s, settings.acceleration_mm_s2)
        away = self.escape.away if reading.limits else 0
        check_motion(motion, settings.envelope, homed=self.homed, fault=self.trouble, away=away)
        return motion

    def set_steps(self, steps_per_mm: float | None) -> None:
        """Learn how fine positions are."""
        if steps_per_mm:
            self.arrived_mm = 0.5 / steps_per_mm + _ROUNDING_MM
            self.watch.tolerance_mm = 1 / steps_per_mm + _ROUNDING_MM

    def lose_position(self) -> None:
        """Count as not homed from now on."""
        self._homed = False
        self.motion, self.jogging = None, False
        self.watch.forget()
        self.escape.end()

    def begin(self, motion: Motion, *, jogging: bool = False, timed: bool = False) -> None:
        """Expect a motion that is about to be commanded.

        Args:
            motion: From where the carriage is.
            jogging: It ends when it is not asked for any longer.
            timed: It begins at rest and its acceleration is the controller's: the clock tells where it can be.
        """
        self.motion, self.jogging = motion, jogging
        self._direction_before = self.last_direction
        self.last_direction = int(math.copysign(1, motion.end_mm - motion.start_mm))
        self._started_s = self._clock.now()
        self.watch.follow(motion, MotionSchedule(motion, self._started_s) if timed else None)

    def accepted(self) -> None:
        """Note that the controller has taken the motion."""
        if self.watch.schedule is not None:
            self.watch.schedule.accepted(self._clock.now())

    def held(self, since_s: float) -> None:
        """Note that the carriage was asked to stop at a session time. Thread-safe."""
        schedule = self.watch.schedule
        if schedule is not None:
            schedule.hold(since_s)

    def rest(self) -> None:
        """Expect no motion: it has ended, was held to standstill, or was never accepted."""
        self.motion, self.jogging = None, False
        self.watch.rest()
        self.escape.end()

    def refused(self) -> None:
        """Take a motion back that the controller did not accept."""
        self.rest()
        self.last_direction = self._direction_before

    def permit(self) -> None:
        """Let a jog go on for another 250 ms. Thread-safe."""
        self._permit_until_s = self._clock.now() + self.link.patience_s(PERMIT_S)

    def poll(self) -> RailPoll:
        """Read state, position and velocity once.

        Raises:
            DeviceTimeoutError: No valid report; in motion the controller was held, then reset.
        """
        self.last_poll = self._read_state()
        return self.last_poll

    def _read_state(self) -> RailPoll:
        self._check_permit()
        try:
            answer = self._ask()
        except RailLockedError:
            now_s = self._clock.now()
            return RailPoll(now_s, now_s, RailState.LOCKED, self._position_mm, None, fault=self.link.fault)
        return self._interpret(answer)

    def _interpret(self, answer: Answer) -> RailPoll:
        report, asked_s, replied_s = answer
        self._draw_consequences(report)
        self._outputs.note(report, asked_s)
        position_mm = self._position_mm = self.frame.to_rail_mm(report.x_mm)
        limits = frozenset(report.pins) & frozenset("XYZ")
        self.escape.see(position_mm, pressed=bool(limits), last_direction=self.last_direction)
        state = self._state(report, position_mm)
        if self.jogging and state is RailState.IDLE:
            self.rest()
        return RailPoll(
            t_request_s=asked_s,
            t_reply_s=replied_s,
            state=state,
            position_mm=position_mm,
            velocity_mm_s=None if report.feed_mm_min is None else report.feed_mm_min / 60,
            fault=self.trouble,
            limits=limits,
        )

    def await_standstill(self, timeout_s: float) -> None:
        """Poll until the carriage does not move any longer.

        Raises:
            DeviceTimeoutError: It still moves.
        """
        within_s = self.link.patience_s(timeout_s)
        if not wait_until(lambda: self.poll().state is not RailState.MOVING, self._clock, within_s=within_s):
            raise not_at_rest(self.link.wire.name)

    def verify_home(self, expected_mm: float | None) -> RailPoll:
        """Believe the position after homing: where it must be, or twice the same where that is unknown."""
        near = [expected_mm]

        def accepts(answer: Answer) -> bool:
            position_mm = self._reading(answer).position_mm
            if near[0] is not None and abs(position_mm - near[0]) <= self.arrived_mm:
                return True
            near[0] = position_mm if expected_mm is None else expected_mm
            return False

        answer = self.link.status(timeout_s=_ANSWER_S, accepts=accepts)
        self.watch.start_at(self._reading(answer))
        self._homed = answer[0].state == "Idle" and not self.trouble
        return self._interpret(answer)

    def keep_position(self, machine_mm: float) -> None:
        """After a reset at rest: the position stays known only if it was known and did not change."""
        answer = self.link.status()
        unchanged = abs(answer[0].x_mm - machine_mm) < _ROUNDING_MM
        self._homed = self._homed and unchanged and not self.link.fault
        self.rest()
        self.watch.start_at(self._reading(answer))
        self.link.fault = ""

    def _reading(self, answer: Answer) -> Reading:
        report, asked_s, replied_s = answer
        speed = None if report.feed_mm_min is None else report.feed_mm_min / 60
        return Reading(self.frame.to_rail_mm(report.x_mm), speed, asked_s, replied_s)

    def _accepts(self, answer: Answer) -> bool:
        if not self.homed:
            return True
        misfits = self.watch.misfits
        accepted = self.watch.accepts(self._reading(answer), doubtful=self.link.doubtful)
        if self.watch.misfits > misfits:
            self.link.statistics.implausible_reports += 1
            self.link.doubt()
        return accepted

    def _ask(self) -> Answer:
        self._asked_s = self._clock.now()
        self.watch.begin_poll()
        try:
            answer = self._ask_moving() if self.motion is not None else self._status(_ANSWER_S)
        finally:
            late = self._clock.now() - self._asked_s > self.link.patience_s(_DEGRADED_S)
            self.link.statistics.silences += late and self.motion is not None
        self._heard_s = self._clock.now()
        return answer

    def _ask_moving(self) -> Answer:
        """Ask with the heartbeat's deadlines: hold after 0.5 s of silence, reset after 1 s."""
        try:
            return self._status(_SILENCE_S)
        except DeviceTimeoutError:
            self.link.wire.write_realtime(protocol.HOLD)
            self.held(self._asked_s)
        try:
            return self._status(_SILENCE_S)
        except DeviceTimeoutError:
            self._give_up()
            raise

    def _status(self, timeout_s: float) -> Answer:
        return self.link.status(timeout_s=timeout_s, accepts=self._accepts)

    def _draw_consequences(self, report: StatusReport) -> None:
        """Give the position up where the controller itself does, or where it makes no sense."""
        if self.watch.jump_mm:
            jump = f"the reported position jumped by {self.watch.jump_mm:.1f} mm; the position is lost"
            self.link.fault = self.link.fault or jump
            if self.motion is not None:
                self.link.wire.write_realtime(protocol.HOLD)
        if report.state == "Alarm" and self.homed:
            self.link.fault = "the controller is in alarm; the position is lost"
        if self.trouble and self._homed:
            self.lose_position()

    def _state(self, report: StatusReport, position_mm: float) -> RailState:
        if self.trouble:
            return RailState.LOCKED
        state = _STATES.get(report.state, RailState.UNKNOWN)
        return RailState.MOVING if state is RailState.IDLE and self._is_about_to_start(position_mm) else state

    def _is_about_to_start(self, position_mm: float) -> bool:
        """Tell whether a line was accepted a moment ago: ``Idle`` is reported until the planner wakes."""
        if self.motion is None or self.jogging:
            return False
        at_target = abs(position_mm - self.motion.end_mm) <= self.arrived_mm
        return not at_target and self._clock.now() - self._started_s < self.link.patience_s(SETTLED_S)

    def _check_permit(self) -> None:
        if self.jogging and self._clock.now() > self._permit_until_s:
            self.link.wire.write_realtime(protocol.JOG_CANCEL)
