"""A slide rail driven by GRBL 1.1, grblHAL or FluidNC over a serial port.

Rail coordinates grow away from the home switch, the controller's machine space lies as its settings say; the two
meet in `MachineFrame` and nowhere else. One sweep is one line, so that a host that dies in mid-sweep leaves
the carriage with this one move to finish, inside its soft limits.
"""

from __future__ import annotations

import threading
from dataclasses import asdict

from catalog.session_folder import SweepRecord
from rig.clock import SessionClock
from rig.devices import grbl_protocol as protocol
from rig.devices.arrival import (
    SLACK_S,
    await_arrival,
    has_arrived,
    not_at_rest,
    require_prepared,
    wait_until,
)
from rig.devices.envelope import Motion
from rig.devices.grbl_carriage import GrblCarriage
from rig.devices.grbl_dialect import ACCELERATION, Dialect, Firmware, Readback, assert_settings, probe
from rig.devices.grbl_homing import find_home, require_no_upper_switch, verify_home
from rig.devices.grbl_jog import GrblJogger
from rig.devices.grbl_link import GrblLink, GrblRefusedError, LinkStatistics
from rig.devices.grbl_outputs import TOGGLES, GrblOutputs
from rig.devices.grbl_protocol import StatusReport
from rig.devices.grbl_settings import GrblSettings, MachineFrame
from rig.devices.rail import RailAccount, RailCapabilities, RailPoll, RailState
from rig.devices.wire import SerialWire, Wire
from rig.errors import (
    DeviceError,
    DeviceTimeoutError,
    RailLockedError,
    RigError,
    SettingRefusedError,
)

__all__ = ["GrblRail", "GrblSettings"]

_HELD = frozenset({"Hold", "Door"})
_OVERRIDE_REPORTS = 40
_OVERRIDES_100 = protocol.FEED_OVERRIDE_100 + protocol.RAPID_OVERRIDE_100
_SPINDLE_FULL = 1000
"""As ``$30`` is delivered: a switch is full speed."""


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
        self.dialect = Dialect(Firmware.GRBL, "")
        self._readback = Readback({}, frozenset())
        self._clock = clock
        self._wire = wire
        self._outputs: GrblOutputs | None = None
        self._carriage: GrblCarriage | None = None
        self._prepared: SweepRecord | None = None
        self._jogger: GrblJogger | None = None
        self._homing = threading.Event()

    @property
    def last_poll(self) -> RailPoll | None:
        """What `poll` returned last, for other threads to read; None before the first."""
        carriage = self._carriage
        return None if carriage is None else carriage.last_poll

    @property
    def homed(self) -> bool:
        """Whether the position is known."""
        return self._carriage is not None and self._carriage.homed

    @property
    def statistics(self) -> LinkStatistics:
        """What went wrong on the wire since `open` and was repaired."""
        return self._opened().link.statistics

    @property
    def warnings(self) -> tuple[str, ...]:
        """What this controller cannot be held to, in plain words; empty for a healthy GRBL 1.1."""
        failing = self._outputs.failing() if self._outputs else ()
        return (*self._readback.warnings, *(f"output '{pin}' does not obey" for pin in failing))

    @property
    def degraded(self) -> bool:
        """Whether the rail moves and has been silent for more than 250 ms. Thread-safe."""
        return self._carriage is not None and self._carriage.degraded

    def open(self) -> None:
        """Connect, identify, assert and read back the limits. Does not move.

        Raises:
            DeviceError: Port or controller cannot be used.
            SettingRefusedError: The controller does not take a limit, or reads back another one.
        """
        if self._wire is None:
            self._wire = SerialWire(self.settings.port, self._clock, baud=self.settings.baud)
        self._outputs = GrblOutputs(self._wire, self._clock)
        link = GrblLink(self._wire, self._clock, on_restart=self._outputs.forget)
        self.dialect = probe(link.connect(), link)
        self.identity = self.dialect.identity
        self._readback = assert_settings(
            link,
            self.settings.controller_settings,
            dialect=self.dialect,
            where_listed=self.settings.settings_where_listed,
        )
        self._carriage = GrblCarriage(
            link, self._clock, frame=self._frame(), outputs=self._outputs, give_up=self.emergency_stop
        )
        self._carriage.set_steps(self._readback.found.get(100))
        self._jogger = GrblJogger(self._carriage, self.settings, self.dialect)
        self._prepared = None

    def account(self) -> RailAccount:
        """Return the controller's settings, what it cannot be held to, and what went wrong on the wire."""
        settings = {f"${number}": value for number, value in self._readback.found.items()}
        return RailAccount(settings, self.warnings, asdict(self.statistics))

    def close(self) -> None:
        """Release the wire. Safe to call twice."""
        if self._wire is not None:
            self._wire.close()
        self._wire = self._outputs = self._carriage = self._jogger = None

    def home(self, *, timeout_s: float) -> None:
        """Find the home switch; the controller is silent meanwhile.

        Raises:
            RailLockedError: A fault is pending, or the switch was not found.
            DeviceTimeoutError: Not done in time; the controller was reset.
        """
        carriage = self._opened()
        self._opened().require_no_fault()
        self._jogging().end()
        reading = self.poll()
        self._opened().require_state(reading, RailState.IDLE, RailState.LOCKED)
        require_no_upper_switch(carriage, reading)
        self._jogging().restore_soft_limits()
        carriage.lose_position()
        carriage.escape.forget()
        self._prepared = None
        self._homing.set()
        try:
            find_home(
                carriage.link, self._readback.found, firmware=self.dialect.firmware, timeout_s=timeout_s
            )
        except BaseException as error:
            if isinstance(error, DeviceTimeoutError) or not isinstance(error, RigError):
                self.emergency_stop()  # it may still be homing, and that ignores a hold
            raise
        finally:
            self._homing.clear()
        carriage.require_state(verify_home(carriage, self._pull_off_mm), RailState.IDLE)

    def move_to(self, position_mm: float, *, velocity_mm_s: float | None = None) -> None:
        """Move at the profile's speed (or slower) and return at standstill."""
        velocity = self.settings.max_velocity_mm_s if velocity_mm_s is None else velocity_mm_s
        motion = self._passed(self._ready(), position_mm, velocity)
        self._start(motion)
        self._arrive(self._time_for(motion))

    def jog(self, distance_mm: float, *, velocity_mm_s: float) -> None:
        """Start a small relative move, or let the one under way go on: it is cancelled 250 ms after the last call.

        `poll` does the cancelling, so that the owner has to poll at least at 10 Hz. A call with another direction
        or speed ends the former jog first. While not homed it is a crawl of 10 mm a press; while a limit switch is
        pressed a crawl of 20 mm away from it.

        Raises:
            EnvelopeError: It would leave the envelope.
            RailLockedError: More than a crawl was asked while that alone is allowed.
        """
        self._prepared = None
        jogger = self._jogging()
        self._opened().permit()
        if not jogger.goes_on(distance_mm, velocity_mm_s):
            jogger.start(self._ready(), distance_mm, velocity_mm_s)

    def renew_jog(self) -> None:
        """Let a jog under way go on for another 250 ms without asking for more of it. Thread-safe."""
        if self._carriage is not None:
            self._carriage.permit()

    def prepare(self, sweep: SweepRecord) -> None:
        """Go to the start of the run-up and return at standstill, with the overrides at 100 %."""
        motion = self._sweep_motion(sweep)
        self.move_to(motion.start_mm)
        self._reset_overrides()
        self._prepared = sweep

    def kickoff(self, sweep: SweepRecord) -> float:
        """Start run-up, uniform part and run-down as one line; returns the session time it was accepted.

        Raises:
            DeviceError: `prepare` was not called for this very sweep.
        """
        require_prepared(self._prepared, sweep, name=self.settings.port)
        motion = self._sweep_motion(sweep)
        self._start(self._passed(self._ready(), motion.end_mm, motion.velocity_mm_s))
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

        A moving rail that stays silent is held after 0.5 s and reset after 1 s. A position that the motion cannot
        explain is asked for again; three in agreement are believed, and lock the rail where no motion leads there.

        Raises:
            DeviceTimeoutError: No valid report.
        """
        return self._jogging().unlock_after_escape(self._opened().poll())

    def stop(self) -> None:
        """Decelerate and hold; position is kept. Thread-safe, bypasses every queue.

        A homing ignores a hold and knows no position yet, so it is reset.
        """
        carriage, wire, now_s = self._carriage, self._wire, self._clock.now()
        if wire is not None:
            wire.write_realtime(protocol.HOLD + (protocol.RESET if self._homing.is_set() else b""))
        if carriage is not None:
            carriage.held(now_s)

    def emergency_stop(self) -> None:
        """Hold and reset in one breath; position is unknown afterwards. Thread-safe."""
        carriage, wire = self._carriage, self._wire
        if carriage is not None:
            carriage.emergency.set()
        if wire is not None:
            wire.write_realtime(protocol.HOLD + protocol.RESET)

    def set_output(self, pin: str, *, on: bool) -> float:
        """Switch ``flood`` or ``mist`` at once, or ``spindle`` at rest; returns when the command left.

        The first two are thread-safe and do not disturb a motion; the spindle's command would, so that it is
        the owner's and refused in motion. Every reset of the controller switches all of them off.

        Raises:
            DeviceError: The controller has no such output, it does not obey, or the rail moves.
        """
        carriage, outputs = self._opened(), self._outputs
        if outputs is not None and pin in self.capabilities.outputs:
            if pin in outputs.failing():
                raise DeviceError(
                    f"{self.settings.port}: output '{pin}' does not obey",
                    next_step="is the firmware built with it (mist: ENABLE_M7)? use the other pin",
                )
            return outputs.switch(pin, on=on)
        if pin != "spindle":
            raise DeviceError(
                f"{self.settings.port}: the controller has no output '{pin}'",
                next_step=f"use one of {', '.join(sorted(self.capabilities.outputs))}, spindle",
            )
        self._opened().require_state(self.poll(), RailState.IDLE)
        carriage.link.command(f"M3S{_SPINDLE_FULL}" if on else "M5")
        return self._clock.now()

    def clear_hold(self) -> None:
        """Leave a hold, the position kept; unlocks nothing.

        Raises:
            RailLockedError: Something locks the rail, an emergency stop meanwhile included; it stays locked.
            DeviceTimeoutError: The controller does not come back from reset.
        """
        carriage = self._opened()
        carriage.require_no_fault()
        carriage.link.listen()
        carriage.require_no_fault()
        self._prepared = None
        self._leave_hold(carriage)
        carriage.require_no_fault()

    def clear_fault(self) -> None:
        """Leave a hold (position kept) or unlock after an alarm (homing required).

        Raises:
            DeviceTimeoutError: The controller does not come back from reset.
        """
        carriage = self._opened()
        carriage.link.listen()
        self._prepared = None
        carriage.escape.forgive()
        if carriage.trouble:
            self._unlock(carriage)
        else:
            self._leave_hold(carriage)
        if not carriage.emergency.is_set() and carriage.link.status()[0].state == "Alarm":
            carriage.lose_position()
            carriage.link.command("$X")

    def _unlock(self, carriage: GrblCarriage) -> None:
        """Reset a locked controller; an emergency stop pressed meanwhile is not forgotten."""
        pressed = carriage.emergency.is_set()
        carriage.emergency.clear()
        carriage.lose_position()
        try:
            carriage.link.restart()
        except BaseException:
            if pressed:
                carriage.emergency.set()
            raise
        carriage.link.fault = ""

    def _leave_hold(self, carriage: GrblCarriage) -> None:
        """Reset a held controller at standstill: a motion that was held is never resumed."""
        if (held_mm := self._end_of_hold(carriage.link)) is not None:
            carriage.link.restart()
            carriage.keep_position(held_mm)

    # Connecting and homing

    def _opened(self) -> GrblCarriage:
        if self._carriage is None:
            raise DeviceError(f"{self.settings.port}: the rail is not open", next_step="open it first")
        return self._carriage

    def _jogging(self) -> GrblJogger:
        if self._jogger is None:
            raise DeviceError(f"{self.settings.port}: the rail is not open", next_step="open it first")
        return self._jogger

    def _frame(self) -> MachineFrame:
        """Learn from the controller's settings, or from the profile, how its coordinates lie."""
        lower_mm, found = self.settings.travel_mm[0], self._readback.found
        if self.settings.machine_home_mm is not None:
            return MachineFrame(lower_mm, self.settings.machine_home_mm, self.settings.machine_direction)
        if {23, 130} <= found.keys():
            return MachineFrame.homing(lower_mm, found[130], negative=bool(int(found[23]) & 1))
        raise SettingRefusedError(
            f"{self.settings.port}: the controller does not tell how its coordinates lie ($23, $130)",
            kept="nothing moved",
            next_step="give machine_home_mm and machine_direction in the profile",
        )

    @property
    def _pull_off_mm(self) -> float | None:
        """How far above the lower end of the travel homing ends; None where the controller does not tell."""
        told = self.settings.machine_home_mm is None and self.dialect.lists_all_settings
        return self._readback.found.get(27) if told else None

    # Before a motion

    def _ready(self) -> RailPoll:
        """Return a reading of the carriage at rest, ready for a motion."""
        self._opened().require_no_fault()
        self._jogging().end()
        reading = self.poll()
        self._opened().require_state(reading, RailState.IDLE)
        self._jogging().restore_soft_limits()
        return reading

    def _passed(self, reading: RailPoll, end_mm: float, velocity_mm_s: float) -> Motion:
        return self._opened().passed(reading, end_mm, velocity_mm_s, settings=self.settings)

    def _sweep_motion(self, sweep: SweepRecord) -> Motion:
        self._require_known_acceleration()
        return self.settings.sweep_motion(sweep)

    def _require_known_acceleration(self) -> None:
        if ACCELERATION in self._readback.unknown and not self.settings.trusts_controller_acceleration:
            raise SettingRefusedError(
                f"{self.settings.port}: the controller does not tell its acceleration: "
                "where a sweep is uniform cannot be known",
                kept="nothing moved",
                next_step="check it in the controller's configuration, then set trusts_controller_acceleration",
            )

    # Motions

    def _start(self, motion: Motion) -> None:
        """Send a checked motion as one line; a lost ``ok`` is settled by looking where the carriage is."""
        carriage = self._opened()
        self._require_homed_target(motion)
        self._prepared = None
        carriage.begin(motion, timed=ACCELERATION not in self._readback.unknown)
        x_mm = carriage.frame.to_machine_mm(motion.end_mm)
        try:
            carriage.link.command(f"G90G21G94G53G1X{x_mm:.3f}F{motion.velocity_mm_s * 60:.3f}")
        except GrblRefusedError:
            carriage.refused()
            raise
        except DeviceTimeoutError:
            if not self._is_under_way(motion):
                raise
        else:
            carriage.accepted()

    def _require_homed_target(self, motion: Motion) -> None:
        """An absolute target means nothing while the position is unknown; an unhomed rail only jogs."""
        if not self.homed:
            raise RailLockedError(
                f"{self.settings.port}: the rail is not homed and takes no target ({motion.end_mm:g} mm)",
                kept="nothing moved",
                next_step="home the rail",
            )

    def _is_under_way(self, motion: Motion) -> bool:
        reading = self.poll()
        self._opened().require_state(reading, RailState.IDLE, RailState.MOVING)
        arrived = abs(reading.position_mm - motion.end_mm) <= self._opened().arrived_mm
        return reading.state is RailState.MOVING or arrived

    def _arrive(self, timeout_s: float) -> None:
        await_arrival(
            self._has_arrived,
            self._clock,
            within_s=self._opened().link.patience_s(timeout_s),
            stop=self.stop,
            name=self.settings.port,
        )

    def _has_arrived(self) -> bool:
        carriage, reading = self._opened(), self.poll()
        carriage.require_state(reading, RailState.IDLE, RailState.MOVING)
        target_mm = None if carriage.motion is None else carriage.motion.end_mm
        if reading.state is RailState.IDLE:
            carriage.rest()
        return has_arrived(reading, target_mm, tolerance_mm=carriage.arrived_mm, name=self.settings.port)

    def _time_for(self, motion: Motion) -> float:
        """Return a deadline; a controller that does not tell its acceleration may have a tenth of the profile's."""
        ramps = 10.0 if ACCELERATION in self._readback.unknown else 1.0
        slowest = Motion(
            motion.start_mm, motion.end_mm, motion.velocity_mm_s, motion.acceleration_mm_s2 / ramps
        )
        return slowest.duration_s * 1.1 + SLACK_S

    def _end_of_hold(self, link: GrblLink) -> float | None:
        """Wait until a held carriage stands still; returns its machine position, None when nothing is held."""
        reports: list[StatusReport] = []

        def stands() -> bool:
            reports.append(link.status()[0])
            return reports[-1].state not in _HELD or reports[-1].sub_state == 0

        if not wait_until(stands, self._clock, within_s=link.patience_s(self.settings.stopping_s)):
            raise not_at_rest(self.settings.port)
        return reports[-1].x_mm if reports[-1].state in _HELD else None

    def _reset_overrides(self) -> None:
        """Put the overrides to 100 % and see it reported: they would change the speed of the uniform part."""
        link = self._opened().link
        link.wire.write_realtime(_OVERRIDES_100)
        percent: tuple[int | None, int | None] = (None, None)
        for _ in range(_OVERRIDE_REPORTS):
            report = link.status()[0]
            percent = (report.override_percent, report.rapid_percent)
            if percent == (100, 100):
                return
        raise SettingRefusedError(
            f"{self.settings.port}: feed and rapid override read {percent} % instead of 100 %",
            next_step="reset the controller and try again",
        )
