"""A slide rail driven by GRBL 1.1 (also grblHAL and FluidNC) over a serial port.

Rail coordinates grow away from the home switch, the controller's machine space is zero or negative; the two
meet in `MachineFrame` and nowhere else. One sweep is one line, so that a host that dies in mid-sweep leaves
the carriage with this one move to finish, inside its soft limits.
"""

from __future__ import annotations

import math
import threading

from catalog.session_folder import SweepRecord
from rig.clock import SessionClock
from rig.devices import grbl_protocol as protocol
from rig.devices.envelope import Motion, check_motion, check_sweep
from rig.devices.grbl_link import GrblLink, GrblRefusedError, LinkStatistics
from rig.devices.grbl_outputs import TOGGLES, GrblOutputs
from rig.devices.grbl_protocol import StatusReport
from rig.devices.grbl_settings import GrblSettings, MachineFrame
from rig.devices.rail import RailCapabilities, RailPoll, RailState
from rig.devices.wire import SerialWire, Wire
from rig.errors import (
    DeviceError,
    DeviceTimeoutError,
    EnvelopeError,
    MotionStoppedError,
    RailLockedError,
    SettingRefusedError,
)

__all__ = ["GrblRail", "GrblSettings"]

_POLL_EVERY_S = 0.05
_SILENCE_S = 0.5
"""A moving rail that is silent this long is held, and reset after as long again."""
_SLACK_S = 2.0
_SETTLED_S = 0.5
_OVERRIDE_REPORTS = 40
_ARRIVED_MM = 0.05
_ANSWER_S = 2.0
_JUMP_MM = 1.0
_SPINDLE_FULL = 1000
"""As ``$30`` is delivered: a switch is full speed."""

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


class GrblRail:
    """Satisfies `rig.devices.rail.Rail` over one serial line.

    Args:
        settings: The profile's rail.
        clock: The session clock; all deadlines are its seconds.
        wire: An open transport to use instead of the profile's port.
    """

    capabilities = RailCapabilities(
        reports_velocity=True, position_is_measured=False, has_hold=True, outputs=frozenset(TOGGLES)
    )

    def __init__(self, settings: GrblSettings, clock: SessionClock, wire: Wire | None = None) -> None:
        self.settings = settings
        self.identity = "GRBL (not connected)"
        self._clock = clock
        self._wire = wire
        self._link: GrblLink | None = None
        self._outputs: GrblOutputs | None = None
        self._envelope = settings.envelope
        self._frame = MachineFrame(
            settings.travel_mm[0], settings.travel_mm[1] - settings.travel_mm[0], False
        )
        self._pull_off_mm: float | None = None
        self._homed = False
        self._position_mm = math.nan
        self._seen_s = 0.0
        self._target_mm: float | None = None
        self._started_s = 0.0
        self._prepared: SweepRecord | None = None
        self._jogging = False
        self._homing = threading.Event()
        self._emergency = threading.Event()

    @property
    def homed(self) -> bool:
        """Whether the position is known."""
        return self._homed and not self._trouble()

    @property
    def statistics(self) -> LinkStatistics:
        """What went wrong on the wire since `open` and was repaired."""
        return self._linked().statistics

    def open(self) -> None:
        """Connect, identify, assert and read back the limits. Does not move.

        Raises:
            DeviceError: Port or controller cannot be used.
            SettingRefusedError: The controller does not take a limit, or reads back another one.
        """
        if self._wire is None:
            self._wire = SerialWire(self.settings.port, self._clock, baud=self.settings.baud)
        self._outputs = GrblOutputs(self._wire, self._clock)
        self._link = GrblLink(self._wire, self._clock, on_restart=self._outputs.forget)
        banner = self._link.connect()
        self._homed = False
        self._emergency.clear()
        version = [line for line in self._link.command("$I") if line.startswith("[VER:")]
        self.identity = " ".join([banner.split(" [")[0], *version])
        self._take_over_settings(self._link.assert_settings(self.settings.controller_settings))

    def close(self) -> None:
        """Release the wire. Safe to call twice."""
        if self._wire is not None:
            self._wire.close()
        self._wire = self._link = self._outputs = None
        self._homed = False

    def home(self, *, timeout_s: float) -> None:
        """Find the home switch; the controller is silent meanwhile.

        Raises:
            RailLockedError: A fault is pending, or the switch was not found.
            DeviceTimeoutError: Not done in time; the controller was reset.
        """
        self._require_no_fault()
        self._end_jog()
        self._require_state(self.poll(), RailState.IDLE, RailState.LOCKED)
        link = self._linked()
        self._homed, self._position_mm = False, math.nan
        self._target_mm = self._prepared = None
        self._homing.set()
        try:
            link.command("$H", timeout_s=timeout_s)
        except DeviceTimeoutError:
            self.emergency_stop()
            raise
        finally:
            self._homing.clear()
        self._homed = True
        self._verify_home(self.poll())

    def move_to(self, position_mm: float, *, velocity_mm_s: float | None = None) -> None:
        """Move at the profile's speed (or slower) and return at standstill."""
        velocity = self.settings.max_velocity_mm_s if velocity_mm_s is None else velocity_mm_s
        motion = self._passed(self._ready_mm(), position_mm, velocity)
        self._start(motion)
        self._arrive(motion.duration_s * 1.1 + _SLACK_S)

    def jog(self, distance_mm: float, *, velocity_mm_s: float) -> None:
        """Start a small relative move that `stop` or the next motion cancels; a crawl while not homed."""
        known_mm = self._ready_mm()
        start_mm = 0.0 if math.isnan(known_mm) else known_mm
        self._passed(start_mm, start_mm + distance_mm, velocity_mm_s)
        self._prepared = None
        self._jogging = True
        step_mm = self._frame.direction * distance_mm
        try:
            self._linked().command(f"$J=G91G21X{step_mm:.3f}F{velocity_mm_s * 60:.3f}")
        except GrblRefusedError as error:
            self._jogging = False
            raise EnvelopeError(error.message, kept="nothing moved", next_step="home the rail") from error

    def prepare(self, sweep: SweepRecord) -> None:
        """Go to the start of the run-up and return at standstill, with the feed override at 100 %."""
        motion = self._sweep_motion(sweep)
        self.move_to(motion.start_mm)
        self._reset_override()
        self._prepared = sweep

    def kickoff(self, sweep: SweepRecord) -> float:
        """Start run-up, uniform part and run-down as one line; returns the session time it was accepted.

        Raises:
            DeviceError: `prepare` was not called for this very sweep.
        """
        if self._prepared != sweep:
            raise DeviceError(
                "the rail does not stand at the start of this sweep", next_step="prepare it first"
            )
        motion = self._sweep_motion(sweep)
        self._start(self._passed(self._ready_mm(), motion.end_mm, motion.velocity_mm_s))
        return self._clock.now()

    def complete(self, *, timeout_s: float) -> None:
        """Return at standstill at the sweep's end.

        Raises:
            MotionStoppedError: The carriage was held on its way.
            RailLockedError: Alarm or restart on the way.
            DeviceTimeoutError: It did not arrive in time.
            DeviceError: It came to rest elsewhere.
        """
        self._arrive(timeout_s)

    def poll(self) -> RailPoll:
        """Read state, position and velocity once.

        A moving rail that stays silent is held after 0.5 s and reset after 1 s.

        Raises:
            DeviceTimeoutError: No valid report.
        """
        link = self._linked()
        try:
            report, asked_s, replied_s = self._ask_plausibly(link)
        except RailLockedError:
            now_s = self._clock.now()
            return RailPoll(now_s, now_s, RailState.LOCKED, self._position_mm, None, fault=link.fault)
        if self._trouble():
            self._homed = False
        if self._outputs is not None:
            self._outputs.note(report, asked_s)
        self._position_mm, self._seen_s = self._frame.to_rail_mm(report.x_mm), asked_s
        feed = report.feed_mm_min
        return RailPoll(
            t_request_s=asked_s,
            t_reply_s=replied_s,
            state=self._state(report),
            position_mm=self._position_mm,
            velocity_mm_s=None if feed is None else feed / 60,
            fault=self._trouble(),
            limits=frozenset(report.pins) & frozenset("XYZ"),
        )

    def stop(self) -> None:
        """Decelerate and hold; position is kept. Thread-safe, bypasses every queue.

        A homing ignores a hold and knows no position yet, so it is reset.
        """
        wire = self._wire
        if wire is not None:
            wire.write_realtime(protocol.HOLD + (protocol.RESET if self._homing.is_set() else b""))

    def emergency_stop(self) -> None:
        """Hold and reset in one breath; position is unknown afterwards. Thread-safe."""
        self._emergency.set()
        wire = self._wire
        if wire is not None:
            wire.write_realtime(protocol.HOLD + protocol.RESET)

    def set_output(self, pin: str, *, on: bool) -> float:
        """Switch ``flood`` or ``mist`` at once, or ``spindle`` at rest; returns when the command left.

        The first two are thread-safe and do not disturb a motion; the spindle's command would, so that it is
        the owner's and refused in motion. Every reset of the controller switches all of them off.

        Raises:
            DeviceError: The controller has no such output, or the rail moves.
        """
        if self._outputs is None:
            raise DeviceError(f"{self.settings.port}: the rail is not open", next_step="open it first")
        if pin in self.capabilities.outputs:
            return self._outputs.switch(pin, on=on)
        if pin != "spindle":
            raise DeviceError(
                f"{self.settings.port}: the controller has no output '{pin}'",
                next_step=f"use one of {', '.join(sorted(self.capabilities.outputs))}, spindle",
            )
        self._require_state(self.poll(), RailState.IDLE)
        self._linked().command(f"M3S{_SPINDLE_FULL}" if on else "M5")
        return self._clock.now()

    def clear_fault(self) -> None:
        """Leave a hold (position kept) or unlock after an alarm (homing required).

        Raises:
            DeviceTimeoutError: The controller does not come back from reset.
        """
        link = self._linked()
        if self._trouble():
            self._restart(link, kept_mm=None)
        elif (held_mm := self._end_of_hold(link)) is not None:
            self._restart(link, kept_mm=held_mm)
        if link.status()[0].state == "Alarm":
            self._homed = False
            link.command("$X")

    def _end_of_hold(self, link: GrblLink) -> float | None:
        """Wait until a held carriage stands still; returns its machine position, None when nothing is held."""
        deadline_s = self._clock.now() + link.patience_s(self._stopping_s())
        while True:
            report = link.status()[0]
            if report.state not in {"Hold", "Door"}:
                return None
            if report.sub_state == 0:
                return report.x_mm
            if self._clock.now() > deadline_s:
                raise DeviceTimeoutError(f"{self.settings.port}: the carriage does not come to rest")
            self._clock.sleep(_POLL_EVERY_S)

    def _restart(self, link: GrblLink, *, kept_mm: float | None) -> None:
        """Reset the controller; the position stays known only if it was known, at rest and did not change."""
        link.restart()
        self._emergency.clear()
        self._target_mm, self._prepared, self._jogging = None, None, False
        report = link.status()[0]
        unchanged = kept_mm is not None and abs(report.x_mm - kept_mm) < _ARRIVED_MM
        self._homed = self._homed and unchanged and not link.fault
        link.fault = ""

    def _stopping_s(self) -> float:
        return self.settings.max_velocity_mm_s / self.settings.acceleration_mm_s2 + _SLACK_S

    def _linked(self) -> GrblLink:
        if self._link is None:
            raise DeviceError(f"{self.settings.port}: the rail is not open", next_step="open it first")
        return self._link

    def _trouble(self) -> str:
        if self._emergency.is_set():
            return "emergency stop; the position is lost"
        return self._link.fault if self._link else ""

    def _require_no_fault(self) -> None:
        if self._trouble():
            raise RailLockedError(
                f"{self.settings.port}: {self._trouble()}", next_step="clear the fault, then home the rail"
            )

    def _require_state(self, reading: RailPoll, *allowed: RailState) -> None:
        self._require_no_fault()
        if reading.state in allowed:
            return
        if reading.state is RailState.HOLD:
            raise MotionStoppedError(
                f"{self.settings.port}: the carriage is held at {reading.position_mm:.3f} mm",
                kept="the position",
                next_step="clear the hold; the motion is not resumed but done again",
            )
        if reading.state is RailState.LOCKED:
            raise RailLockedError(f"{self.settings.port}: the rail is locked", next_step="home the rail")
        raise DeviceError(f"{self.settings.port}: the rail is {reading.state} and takes no motion now")

    def _ready_mm(self) -> float:
        """Return where the carriage stands, ready for a motion; NaN while that is unknown."""
        self._require_no_fault()
        self._end_jog()
        reading = self.poll()
        self._require_state(reading, RailState.IDLE)
        return reading.position_mm if self.homed else math.nan

    def _passed(self, start_mm: float, end_mm: float, velocity_mm_s: float) -> Motion:
        """Return a motion that the envelope lets pass."""
        motion = Motion(start_mm, end_mm, velocity_mm_s, self.settings.acceleration_mm_s2)
        check_motion(motion, self._envelope, homed=self.homed, fault=self._trouble())
        return motion

    def _sweep_motion(self, sweep: SweepRecord) -> Motion:
        if not math.isclose(sweep.acceleration_mm_s2, self.settings.acceleration_mm_s2, rel_tol=1e-6):
            raise EnvelopeError(
                f"the sweep's acceleration {sweep.acceleration_mm_s2:g} mm/s² is not the "
                f"{self.settings.acceleration_mm_s2:g} mm/s² that the profile set",
                kept="nothing moved",
                next_step="plan with the profile's acceleration_mm_s2",
            )
        return check_sweep(sweep, self._envelope)

    def _start(self, motion: Motion) -> None:
        """Send a checked motion as one line; a lost ``ok`` is settled by looking where the carriage is."""
        self._prepared = None
        self._target_mm = motion.end_mm
        self._started_s = self._clock.now()
        x_mm = self._frame.to_machine_mm(motion.end_mm)
        try:
            self._linked().command(f"G90G21G94G53G1X{x_mm:.3f}F{motion.velocity_mm_s * 60:.3f}")
        except DeviceTimeoutError:
            if not self._is_under_way(motion):
                raise

    def _is_under_way(self, motion: Motion) -> bool:
        reading = self.poll()
        self._require_state(reading, RailState.IDLE, RailState.MOVING)
        return reading.state is RailState.MOVING or abs(reading.position_mm - motion.end_mm) <= _ARRIVED_MM

    def _arrive(self, timeout_s: float) -> None:
        deadline_s = self._clock.now() + self._linked().patience_s(timeout_s)
        while not self._has_arrived(self.poll()):
            if self._clock.now() >= deadline_s:
                self.stop()
                raise DeviceTimeoutError(
                    f"{self.settings.port}: the motion did not end within {timeout_s:.1f} s; it was held",
                    next_step="look for what blocks the carriage, then clear the hold and home the rail",
                )
            self._clock.sleep(_POLL_EVERY_S)

    def _has_arrived(self, reading: RailPoll) -> bool:
        self._require_state(reading, RailState.IDLE, RailState.MOVING)
        if reading.state is RailState.MOVING or self._target_mm is None:
            return reading.state is RailState.IDLE
        if abs(reading.position_mm - self._target_mm) > _ARRIVED_MM:
            raise DeviceError(
                f"{self.settings.port}: the carriage rests at {reading.position_mm:.3f} mm instead of "
                f"{self._target_mm:.3f} mm",
                next_step="home the rail and do the motion again",
            )
        self._target_mm = None
        return True

    def _state(self, report: StatusReport) -> RailState:
        if self._trouble():
            return RailState.LOCKED
        state = _STATES.get(report.state, RailState.UNKNOWN)
        return RailState.MOVING if state is RailState.IDLE and self._is_about_to_start() else state

    def _is_about_to_start(self) -> bool:
        """Tell whether a line was accepted a moment ago: ``Idle`` is reported until the planner wakes."""
        if self._target_mm is None or abs(self._position_mm - self._target_mm) <= _ARRIVED_MM:
            return False
        return self._clock.now() - self._started_s < self._linked().patience_s(_SETTLED_S)

    def _ask_plausibly(self, link: GrblLink) -> tuple[StatusReport, float, float]:
        """Ask again when the carriage cannot have come that far: bytes get lost within a number, too."""
        answer = self._ask(link)
        if not self._is_a_jump(answer[0]):
            return answer
        link.statistics.discarded_lines += 1
        answer = self._ask(link)
        if self._is_a_jump(answer[0]):
            jump_mm = self._frame.to_rail_mm(answer[0].x_mm) - self._position_mm
            link.fault = (
                link.fault or f"the reported position jumped by {jump_mm:.1f} mm; the position is lost"
            )
        return answer

    def _is_a_jump(self, report: StatusReport) -> bool:
        if not self.homed or math.isnan(self._position_mm):
            return False
        possible_mm = 1.2 * self.settings.max_velocity_mm_s * (self._clock.now() - self._seen_s) + _JUMP_MM
        return abs(self._frame.to_rail_mm(report.x_mm) - self._position_mm) > possible_mm

    def _ask(self, link: GrblLink) -> tuple[StatusReport, float, float]:
        moving = self._target_mm is not None or self._jogging
        if not moving:
            return link.status(timeout_s=_ANSWER_S)
        try:
            return link.status(timeout_s=_SILENCE_S)
        except DeviceTimeoutError:
            link.wire.write_realtime(protocol.HOLD)
        try:
            return link.status(timeout_s=_SILENCE_S)
        except DeviceTimeoutError:
            self.emergency_stop()
            raise

    def _end_jog(self) -> None:
        if not self._jogging:
            return
        link = self._linked()
        link.wire.write_realtime(protocol.JOG_CANCEL)
        deadline_s = self._clock.now() + link.patience_s(self._stopping_s())
        while link.status()[0].state == "Jog":
            if self._clock.now() > deadline_s:
                raise DeviceTimeoutError(f"{self.settings.port}: the jog does not end")
            self._clock.sleep(_POLL_EVERY_S)
        self._jogging = False

    def _reset_override(self) -> None:
        """Put the feed override to 100 % and see it reported: it would change the speed of the uniform part."""
        link = self._linked()
        link.wire.write_realtime(protocol.FEED_OVERRIDE_100)
        percent = None
        for _ in range(_OVERRIDE_REPORTS):
            percent = link.status()[0].override_percent
            if percent == 100:
                return
        raise SettingRefusedError(
            f"{self.settings.port}: feed override reads {percent} % instead of 100 %",
            next_step="reset the controller and try again",
        )

    def _take_over_settings(self, found: dict[int, float]) -> None:
        """Learn from the controller's settings how its coordinates lie; dialects may lack some."""
        self._frame = MachineFrame(
            lower_mm=self.settings.travel_mm[0],
            travel_mm=found.get(130, self.settings.controller_settings[130]),
            homes_negative=bool(int(found.get(23, 0)) & 1),
        )
        self._pull_off_mm = found.get(27)

    def _verify_home(self, reading: RailPoll) -> None:
        self._require_state(reading, RailState.IDLE)
        if self._pull_off_mm is None:
            return
        expected_mm = self._frame.lower_mm + self._pull_off_mm
        if abs(reading.position_mm - expected_mm) > _ARRIVED_MM:
            self._homed = False
            raise DeviceError(
                f"{self.settings.port}: homing ended at {reading.position_mm:.3f} mm instead of {expected_mm:.3f} mm",
                next_step="check $23, $27 and $130, then connect again",
            )
