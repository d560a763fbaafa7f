"""A slide rail driven by a Modbus-RTU stepper drive, whatever its make: registers come from `modbus_drives`.

A motion is one block write that the drive then does alone, so that a host that dies in mid-sweep leaves the carriage
with this one move to finish, inside its soft limits. A motion is never written twice: when its reply is lost, the
drive's own status says whether it took place. The line is half duplex, so a stop waits for the exchange in
progress; `RailCapabilities.stop_bound_s` says for how long at most.
"""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from catalog.session_folder import SweepRecord
from rig.clock import SessionClock
from rig.devices.arrival import (
    SETTLED_S,
    SLACK_S,
    await_arrival,
    has_arrived,
    require_no_fault,
    require_prepared,
    require_state,
    wait_until,
)
from rig.devices.envelope import CRAWL_VELOCITY_MM_S, Motion, check_motion
from rig.devices.modbus_settings import ModbusRailSettings
from rig.devices.rail import RailAccount, RailCapabilities, RailPoll, RailState
from rig.errors import (
    DeviceError,
    DeviceTimeoutError,
    MotionStoppedError,
    RailLockedError,
)

if TYPE_CHECKING:
    from rig.devices.modbus_link import ModbusLink
    from rig.devices.modbus_stepper import Look, Stepper

__all__ = ["ModbusRail", "ModbusRailSettings"]

_NOT_ENABLED = (
    "the drive is not enabled",
    "release the emergency stop, or wire or set the drive's enable input",
)
_ARRIVED_MM = 0.05
_JUMP_MM = 1.0


class ModbusRail:
    """Satisfies `rig.devices.rail.Rail` over one RS-485 line.

    Args:
        settings: The profile's rail.
        clock: The session clock.
    """

    def __init__(self, settings: ModbusRailSettings, clock: SessionClock) -> None:
        self.settings = settings
        self.identity = f"{settings.drive} (not connected)"
        self.last_poll: RailPoll | None = None
        self.capabilities = RailCapabilities(
            reports_velocity=True,
            position_is_measured=settings.family.position_is_measured,
            has_hold=True,
            outputs=frozenset(settings.family.outputs),
            stop_bound_s=settings.turn_bound_s,
        )
        self._envelope = settings.envelope
        self._clock = clock
        self._link: ModbusLink | None = None
        self._stepper: Stepper | None = None
        self._fault = ""
        self._homed = False
        self._position_mm = math.nan
        self._seen_s = 0.0
        self._target_mm: float | None = None
        self._started_s = 0.0
        self._prepared: SweepRecord | None = None
        self._jogging = False
        self._homing = self._homing_begun = False
        self._stopped = threading.Event()
        self._emergency = threading.Event()

    @property
    def homed(self) -> bool:
        """Whether the position is known."""
        return self._homed and not self._trouble()

    def open(self) -> None:
        """Connect, identify, assert and read back the limits. Does not move.

        Raises:
            DeviceError: Port or drive cannot be used.
            RailLockedError: The carriage is moving.
            SettingRefusedError: The drive does not take a limit, or reads back another one.
        """
        from rig.devices.modbus_link import ModbusLink
        from rig.devices.modbus_stepper import Stepper

        self._homed, self._fault = False, ""
        self._stopped.clear()
        self._emergency.clear()
        link = ModbusLink(self.settings, self._clock)
        link.open()
        self._link, self._stepper = link, Stepper(self.settings, link, self._clock)
        try:
            self._take_over(self._stepper)
        except BaseException:
            self.close()
            raise
        self.identity = f"{self.settings.drive}, unit {self.settings.unit} at {self.settings.baud} baud"

    def account(self) -> RailAccount:
        """Return what went wrong on the line; its limits were written and read back, the rest is the drive's."""
        return RailAccount({}, (), {} if self._link is None else asdict(self._link.statistics))

    def close(self) -> None:
        """Release the line. Safe to call twice."""
        if self._link is not None:
            self._link.close()
        self._link = self._stepper = None
        self._homed = False

    def home(self, *, timeout_s: float) -> None:
        """Find the home switch by the drive's own homing.

        Raises:
            RailLockedError: A fault is pending or came up.
            DeviceTimeoutError: Not done in time; the carriage was stopped.
            DeviceError: Homing ended away from the home switch.
        """
        self._ready_mm()
        self._homed, self._position_mm = False, math.nan
        self._target_mm = self._prepared = None
        self._homing, self._homing_begun, self._started_s = True, False, self._clock.now()
        try:
            self._connected().start_homing(permit=self._permit)
            self._await_home(timeout_s)
        finally:
            self._homing = False

    def move_to(self, position_mm: float, *, velocity_mm_s: float | None = None) -> None:
        """Move at the profile's speed (or slower) and return at standstill."""
        if velocity_mm_s is None:
            velocity_mm_s = self.settings.max_velocity_mm_s
        motion = self._passed(self._ready_mm(), position_mm, velocity_mm_s)
        duration_s = self._realised(motion).duration_s
        self._start(motion)
        self._arrive(duration_s + SLACK_S)

    def jog(self, distance_mm: float, *, velocity_mm_s: float) -> None:
        """Start a small move that `stop` or the next motion cancels; a crawl while not homed.

        It is one bounded motion inside the envelope, so that it ends by itself when the host dies; the drive's own
        jog words, which must be repeated, would leave its end to the line.
        """
        known_mm = self._ready_mm()
        start_mm = 0.0 if math.isnan(known_mm) else known_mm
        motion = self._passed(start_mm, start_mm + distance_mm, velocity_mm_s)
        self._jogging = True
        self._start(motion, relative=not self.homed)

    def renew_jog(self) -> None:
        """Do nothing: a jog here is one bounded motion, which whoever asked for it stops."""

    def prepare(self, sweep: SweepRecord) -> None:
        """Go to the start of the run-up and return at standstill; a drive has no overrides to reset."""
        motion = self.settings.sweep_motion(sweep)
        self.move_to(motion.start_mm)
        self._prepared = sweep

    def kickoff(self, sweep: SweepRecord) -> float:
        """Start run-up, uniform part and run-down as one block write; returns the session time it was accepted.

        Raises:
            DeviceError: `prepare` was not called for this very sweep.
        """
        require_prepared(self._prepared, sweep, name=self.settings.port)
        motion = self.settings.sweep_motion(sweep)
        return self._start(self._passed(self._ready_mm(), motion.end_mm, motion.velocity_mm_s))

    def complete(self, *, timeout_s: float) -> None:
        """Return at standstill at the sweep's end.

        Raises:
            MotionStoppedError: The carriage was stopped on its way.
            RailLockedError: Alarm or restart on the way.
            DeviceTimeoutError: It did not arrive in time.
            DeviceError: It came to rest elsewhere.
        """
        self._arrive(timeout_s)

    def poll(self) -> RailPoll:
        """Read state, position and velocity once.

        A moving rail whose drive stays silent through all retries is stopped.

        Raises:
            DeviceTimeoutError: No valid answer.
        """
        reading = self._reading(self._look())
        self.last_poll = replace(reading, velocity_mm_s=self._connected().velocity_mm_s())
        return self.last_poll

    def stop(self) -> None:
        """Decelerate and hold; position is kept. Thread-safe, waits for no more than the exchange in progress.

        Nothing moves afterwards before `clear_fault`: a motion that another thread is about to write is refused.

        Raises:
            DeviceTimeoutError: The drive acknowledged none of four quick stops.
        """
        self._stopped.set()
        stepper = self._stepper
        if stepper is not None:
            stepper.brake()

    def emergency_stop(self) -> None:
        """Stop, and forget the position: the drive has no reset over the line. Thread-safe."""
        self._emergency.set()
        self.stop()

    def set_output(self, pin: str, *, on: bool) -> float:
        """Switch an output of the drive; returns the session time at which the command left. Thread-safe.

        Raises:
            DeviceError: This drive family has no such output.
        """
        return self._connected().set_output(pin, on=on)

    def clear_hold(self) -> None:
        """Leave a stop, the position kept; unlocks nothing.

        Raises:
            RailLockedError: Something locks the rail, an emergency stop meanwhile included; it stays locked.
            DeviceTimeoutError: The carriage does not come to rest.
        """
        stepper = self._connected()
        self._require_no_fault()
        self._stopped.clear()  # first, so that a stop pressed from now on is not forgotten
        try:
            stepper.await_rest(timeout_s=self.settings.stopping_s)
        except BaseException:
            self._stopped.set()
            raise
        self._target_mm, self._prepared, self._jogging = None, None, False
        self._require_no_fault()

    def clear_fault(self) -> None:
        """Leave a stop (position kept) or clear an alarm (homing required).

        Raises:
            RailLockedError: The alarm stays.
            DeviceTimeoutError: The carriage does not come to rest.
        """
        stepper = self._connected()
        lost = bool(self._trouble())
        self._emergency.clear()
        self._stopped.clear()  # first, so that a stop pressed from now on is not forgotten
        try:
            stepper.await_rest(timeout_s=self.settings.stopping_s)
            if lost or stepper.status().fault:
                self._homed = False
                stepper.clear_alarm()
        except BaseException:
            self._stopped.set()
            raise
        self._fault = ""
        self._target_mm, self._prepared, self._jogging = None, None, False

    def _take_over(self, stepper: Stepper) -> None:
        """Refuse a moving carriage, which somebody else set going; then set the limits."""
        if stepper.status().running:
            raise RailLockedError(
                f"{self.settings.port}: the carriage is moving", next_step="stop it, then connect again"
            )
        stepper.assert_limits()

    def _ready_mm(self) -> float:
        """Return where the carriage stands, ready for a motion; NaN while that is unknown."""
        self._require_no_fault()
        if self._jogging:
            self._connected().brake()
            self._connected().await_rest(timeout_s=self.settings.stopping_s)
            self._jogging = False
        look = self._look()
        self._require_state(self._reading(look), RailState.IDLE)
        return look.position_mm if self.homed else math.nan

    def _passed(self, start_mm: float, end_mm: float, velocity_mm_s: float) -> Motion:
        """Return a motion that the envelope lets pass."""
        motion = Motion(start_mm, end_mm, velocity_mm_s, self.settings.acceleration_mm_s2)
        check_motion(motion, self._envelope, homed=self.homed, fault=self._trouble())
        return motion

    @property
    def _cap_mm_s(self) -> float:
        return self.settings.max_velocity_mm_s if self.homed else CRAWL_VELOCITY_MM_S

    def _realised(self, motion: Motion) -> Motion:
        return self.settings.scale.realised(motion, cap_mm_s=self._cap_mm_s)

    def _start(self, motion: Motion, *, relative: bool = False) -> float:
        """Write a checked motion; a lost reply is settled by looking what the drive does."""
        self._realised(motion)
        self._prepared = None
        stepper, cap_mm_s = self._connected(), self._cap_mm_s
        try:
            done = stepper.start(motion, cap_mm_s=cap_mm_s, relative=relative, permit=self._permit)
        except DeviceTimeoutError:
            self._note_start(motion)
            self._settle_lost_reply(motion)
            return self._clock.now()
        self._note_start(motion)
        return done.t_reply_s

    def _note_start(self, motion: Motion) -> None:
        self._target_mm = None if self._jogging else motion.end_mm
        self._started_s = self._clock.now()

    def _permit(self) -> None:
        """Refuse to write a motion once a stop was pressed; called with the line in hand."""
        if self._stopped.is_set():
            raise MotionStoppedError(
                f"{self.settings.port}: stopped before the motion began",
                kept="nothing moved",
                next_step="clear the hold",
            )

    def _settle_lost_reply(self, motion: Motion) -> None:
        """Find out whether a motion whose reply was lost takes place; if not, make sure that it will not."""
        look = self._look()
        self._require_no_fault()
        arrived = not self._jogging and abs(look.position_mm - motion.end_mm) <= _ARRIVED_MM
        if look.status.running or arrived:
            return
        self._connected().brake()
        self._target_mm, self._jogging = None, False
        raise DeviceTimeoutError(
            f"{self.settings.port}: the drive did not acknowledge a motion and did not begin it",
            kept=f"the carriage rests at {look.position_mm:.3f} mm",
            next_step="do the motion again",
        )

    def _arrive(self, timeout_s: float) -> None:
        await_arrival(
            self._has_arrived, self._clock, within_s=timeout_s, stop=self.stop, name=self.settings.port
        )

    def _has_arrived(self) -> bool:
        reading = self._reading(self._look())
        self._require_state(reading, RailState.IDLE, RailState.MOVING)
        arrived = has_arrived(reading, self._target_mm, tolerance_mm=_ARRIVED_MM, name=self.settings.port)
        if arrived:
            self._target_mm = None
        return arrived

    def _await_home(self, timeout_s: float) -> None:
        if not wait_until(self._has_found_home, self._clock, within_s=timeout_s):
            self.stop()
            raise DeviceTimeoutError(
                f"{self.settings.port}: the home switch was not found in time; the carriage was stopped",
                next_step="look at the home switch and at home_direction, then clear the hold and home again",
            )

    def _has_found_home(self) -> bool:
        """Believe a drive that rests and calls itself homed, once the homing has had time to begin."""
        look = self._look()
        self._require_state(self._reading(look), RailState.HOMING)
        self._homing_begun |= look.status.running or self._clock.now() - self._started_s > SETTLED_S
        if not (self._homing_begun and look.status.homed and not look.status.running):
            return False
        self._take_home(look)
        return True

    def _take_home(self, look: Look) -> None:
        away_mm = look.position_mm - self._envelope.lower_mm
        if abs(away_mm) > max(self._envelope.end_margin_mm, _JUMP_MM):
            raise DeviceError(
                f"{self.settings.port}: homing ended {away_mm:.2f} mm away from the lower end of the travel",
                next_step="check home position and offset in the drive, then home again",
            )
        self._homed = True
        self._position_mm, self._seen_s = look.position_mm, look.t_request_s

    def _look(self) -> Look:
        """Read status and position; a moving drive that cannot be read is stopped."""
        stepper = self._connected()
        try:
            look = stepper.look()
            if look.status.fault and not self._fault:
                self._fault = stepper.alarm()
        except DeviceTimeoutError:
            if self._target_mm is not None or self._jogging or self._homing:
                self.stop()
            raise
        self._note_faults(look)
        if self._fault and look.status.running:
            stepper.brake()
        self._position_mm, self._seen_s = look.position_mm, look.t_request_s
        return look

    def _reading(self, look: Look) -> RailPoll:
        return RailPoll(
            t_request_s=look.t_request_s,
            t_reply_s=look.t_reply_s,
            state=self._state(look),
            position_mm=look.position_mm,
            velocity_mm_s=None,
            fault=self._trouble(),
        )

    def _note_faults(self, look: Look) -> None:
        """Remember the first thing that makes the position doubtful; only `clear_fault` forgets it."""
        if self._fault or not self._homed:
            return
        if not look.status.enabled:
            self._fault = "the drive is not enabled (emergency stop pressed?); the position is lost"
        elif not look.status.homed:
            self._fault = "the drive restarted; the position is lost"
        elif self._is_a_jump(look.position_mm, look.t_request_s):
            jump_mm = look.position_mm - self._position_mm
            self._fault = f"the reported position jumped by {jump_mm:.1f} mm; the position is lost"

    def _is_a_jump(self, position_mm: float, t_s: float) -> bool:
        possible_mm = 1.2 * self.settings.max_velocity_mm_s * (t_s - self._seen_s) + _JUMP_MM
        return abs(position_mm - self._position_mm) > possible_mm

    def _state(self, look: Look) -> RailState:
        if self._trouble() or not look.status.enabled:
            return RailState.LOCKED
        if self._stopped.is_set():
            return RailState.HOLD
        if self._homing:
            return RailState.HOMING
        moving = look.status.running or self._is_about_to_start(look.position_mm)
        return RailState.MOVING if moving else RailState.IDLE

    def _is_about_to_start(self, position_mm: float) -> bool:
        """Tell whether a motion was written a moment ago whose running bit may still be to come."""
        if self._target_mm is None or abs(position_mm - self._target_mm) <= _ARRIVED_MM:
            return False
        return self._clock.now() - self._started_s < SETTLED_S

    def _trouble(self) -> str:
        if self._emergency.is_set():
            return "emergency stop; the position is lost"
        return self._fault

    def _require_no_fault(self) -> None:
        require_no_fault(self._trouble(), name=self.settings.port)

    def _require_state(self, reading: RailPoll, *allowed: RailState) -> None:
        self._require_no_fault()
        require_state(reading, *allowed, name=self.settings.port, locked=_NOT_ENABLED)

    def _connected(self) -> Stepper:
        if self._stepper is None:
            raise DeviceError(f"{self.settings.port}: the rail is not open", next_step="open it first")
        return self._stepper
