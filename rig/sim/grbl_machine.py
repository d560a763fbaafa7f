"""State of the simulated GRBL controller and what its real-time bytes and switches do to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rig.sim.grbl_eeprom import MAX_STEP_RATE_HZ, Eeprom
from rig.sim.grbl_gcode import Frame, Modes
from rig.sim.grbl_mechanics import Carriage, Leg, RailMechanics
from rig.sim.grbl_planner import Axes, Block, MotionEngine, Overrides, Steps
from rig.sim.grbl_report import StatusReporter
from rig.sim.grbl_state import (
    COOLANT_TOGGLES,
    FEED_RESET,
    FEED_STEPS,
    JOG_CANCEL,
    RAPIDS,
    SAFETY_DOOR,
    SOFT_RESET,
    SPINDLE_RESET,
    SPINDLE_STEPS,
    SPINDLE_STOP,
    Outputs,
    State,
)
from rig.sim.grbl_uart import Uart
from rig.sim.led import OutputLog

REPORT_DELAY_S = 0.005
ZERO: Axes = (0.0, 0.0, 0.0)
_LEAST_STEPS_PER_MM = 1e-3
_LEAST_ACCELERATION_MM_S2 = 1e-2
_SOFT_LIMIT_ROUNDING_MM = 1e-6
_OUTPUT_CODES = {"flood": "M8", "mist": "M7"}
_TOGGLES = frozenset({State.IDLE, State.RUN, State.HOLD, State.JOG})


class GrblMachine:
    """Everything the firmware's main program and its interrupts share.

    Args:
        mechanics: The rail it drives.
        eeprom: Its settings.
        seed: Decides the noise on the wire.
        mist: Whether the firmware was compiled with a mist output.
    """

    def __init__(self, mechanics: RailMechanics, eeprom: Eeprom, *, seed: int, mist: bool = False) -> None:
        self.mist = mist
        self.eeprom = eeprom
        self.uart = Uart(seed)
        self.carriage = Carriage(mechanics)
        self.engine = MotionEngine(self._move_carriage)
        self.reporter = StatusReporter(self)
        self.now_s = 0.0
        self.state = State.IDLE
        self.alarm = 0
        """An alarm that the main program has not announced yet."""
        self.reset_pending = False
        self.deaf = False
        """After a critical alarm: nothing but a reset is noticed."""
        self.homing = False
        self.approaching = False
        """Homing towards the switch."""
        self.switch_fault = "good"
        self.report_due_s = math.inf
        self.output_logs = {pin: OutputLog() for pin in _OUTPUT_CODES}
        """When each output was on, for whoever looks at what it feeds."""
        self.begin_session()

    @property
    def outputs(self) -> Outputs:
        """Levels of the pins for spindle and coolant."""
        return self._outputs

    @outputs.setter
    def outputs(self, outputs: Outputs) -> None:
        self._outputs = outputs
        for pin, code in _OUTPUT_CODES.items():
            self.output_logs[pin].note(self.now_s, on=code in outputs.coolant)

    def begin_session(self) -> None:
        """Initialise what a soft reset initialises; state and step counters survive it."""
        self.modes, self.outputs = Modes(), Outputs()
        self.g92, self.tool_mm = ZERO, 0.0
        self.uart.received.clear()
        self.alarm, self.reset_pending, self.deaf = 0, False, False
        self.homing = self.approaching = self.sleep_requested = False
        self.retracted = self.restoring = self.spindle_stopped = False
        self._cancelling_jog = self._door_after_jog = False
        self._bytes_while_homing: dict[int, None] = {}
        self.probe: tuple[Axes, int] = ZERO, 0
        self.report_due_s = math.inf
        self.reporter.restart()
        self.engine.halt(self._steps_now())
        self.engine.overrides = Overrides()
        self.position_mm = self.machine_mm()

    @property
    def steps_per_mm(self) -> Axes:
        """``$100`` to ``$102``."""
        x, y, z = (max(k, _LEAST_STEPS_PER_MM) for k in self.eeprom.axes(100))
        return x, y, z

    @property
    def suspended(self) -> bool:
        """Whether the main program stands still: no line is read."""
        return self.state in {State.HOLD, State.DOOR, State.SLEEP} or self._cancelling_jog

    @property
    def ignores_questions(self) -> bool:
        """Whether only a reset is noticed: during homing and after a critical alarm."""
        return self.deaf or self.homing

    def machine_mm(self) -> Axes:
        """Return the step counters in mm."""
        x, y, z = (s / k for s, k in zip(self._steps_now(), self.steps_per_mm, strict=True))
        return x, y, z

    def frame(self) -> Frame:
        """Return what the next line's numbers are relative to."""
        return Frame(self.modes, self.position_mm, self.eeprom.coordinates, self.g92, self.tool_mm, self.mist)

    def work_offset_mm(self) -> Axes:
        """Return machine position minus work position."""
        return self.frame().work_offset_mm(self.modes.coordinates)

    def send(self, line: str) -> None:
        """Send a line to the host."""
        self.uart.send(line, self.now_s)

    def outside_travel(self, target_mm: Axes) -> bool:
        """Tell whether a machine position lies beyond the soft limits."""
        slack = _SOFT_LIMIT_ROUNDING_MM
        travel = self.eeprom.axes(130)
        return any(not -t - slack <= x <= slack for x, t in zip(target_mm, travel, strict=True))

    def queue(
        self,
        target_mm: Axes,
        rate_mm_s: float,
        *,
        rapid: bool = False,
        overridable: bool = True,
        moves_per_s: float | None = None,
    ) -> bool:
        """Put a straight move into the planner; returns False when it is shorter than a step.

        Args:
            target_mm: Machine position.
            rate_mm_s: Programmed speed.
            rapid: As fast as the axes allow, under the override of rapids.
            overridable: Whether the override of the feed applies.
            moves_per_s: Inverse time: replaces the speed.
        """
        block = self._block(target_mm, rate_mm_s, rapid, overridable)
        if block is None:
            return False
        if moves_per_s is not None:
            block.rate_mm_s = min(moves_per_s * block.length_mm, block.rate_limit_mm_s)
        self.engine.append(block, junction_deviation_mm=self.eeprom[11], t_s=self.now_s)
        return True

    def start(self, state: State = State.RUN) -> None:
        """Begin executing what is queued."""
        if self.engine.blocks and (self.state is State.IDLE or self.homing):
            self.state = state
            self.engine.start(self.now_s)

    def settle(self) -> None:
        """Draw the consequences of motion that ended by itself."""
        if self.engine.running:
            return
        if self.state is State.RUN and not self.engine.blocks:
            self.state = State.IDLE
        elif self.state is State.JOG:
            self._end_jog()
        if self.state is State.DOOR and not self.retracted:
            self.retracted = True
            self.set_outputs(Outputs())

    def halt(self) -> None:
        """Stop dead, as the interrupts do."""
        self.engine.halt(self._steps_now())
        self.carriage.halt(self.now_s)

    def set_steps(self, steps: Steps) -> None:
        """Declare where the carriage stands."""
        self.engine.halt(steps)
        self.position_mm = self.machine_mm()

    def switch_pressed(self) -> bool:
        """Return the level of the home switch's input."""
        if self.switch_fault in {"stuck_open", "stuck_closed"}:
            return self.switch_fault == "stuck_closed"
        return self.carriage.presses_switch(self.now_s)

    def on_switch(self) -> None:
        """React to the home switch closing."""
        if self.homing:
            if self.approaching:
                self.halt()
        elif self.eeprom.is_on(21):
            self.trip_limit()

    def trip_limit(self) -> None:
        """Hard limit: stop dead, lose the position."""
        if self.eeprom.is_on(21) and not self.homing and self.state is not State.ALARM and not self.alarm:
            self.reset()
            self.alarm = 1

    def reset(self) -> None:
        """Soft reset, as the byte 0x18 or the firmware itself asks for it."""
        if self.reset_pending:
            return
        self.reset_pending = True
        self.outputs = Outputs()
        if self.state in {State.RUN, State.JOG, State.HOME} or self.engine.decelerating:
            self.alarm = self.alarm or (6 if self.state is State.HOME else 3)
            self.halt()

    def finish_homing(self) -> None:
        """Act on what was sent meanwhile: one report, still of the old state, and the last overrides."""
        self.homing = self.approaching = False
        if ord("?") in self._bytes_while_homing:
            self.send(self.reporter.report())
        for byte in self._bytes_while_homing:
            self._override(byte)
        self._bytes_while_homing.clear()

    def realtime(self, byte: int) -> bool:
        """Act on a real-time byte; returns False for bytes that belong to a line."""
        if byte == SOFT_RESET:
            self.reset()
        elif byte in b"?!~" or byte >= 0x80:
            if self.homing:
                self._note_while_homing(byte)
            elif not self.deaf:
                self._act(byte)
        else:
            return False
        return True

    def _note_while_homing(self, byte: int) -> None:
        if byte == SAFETY_DOOR:
            self.alarm = self.alarm or 7
            self.reset()
        elif byte == ord("?") or FEED_RESET <= byte < SPINDLE_STOP:
            self._bytes_while_homing[byte] = None

    def _act(self, byte: int) -> None:
        if byte == ord("?"):
            self.report_due_s = min(self.report_due_s, self.now_s + REPORT_DELAY_S)
        elif byte == ord("!"):
            self.hold()
        elif byte == ord("~"):
            self._resume()
        elif byte == SAFETY_DOOR:
            self._open_door()
        elif byte == JOG_CANCEL and self.state is State.JOG:
            self._cancel_jog()
        elif byte in COOLANT_TOGGLES:
            self._toggle_coolant(COOLANT_TOGGLES[byte])
        elif byte == SPINDLE_STOP:
            self._toggle_spindle()
        else:
            self._override(byte)

    def hold(self) -> None:
        """Feed hold; a jog is cancelled by it, alarms and check mode ignore it."""
        if self.state is State.JOG:
            self._cancel_jog()
        elif self.state in {State.RUN, State.IDLE}:
            self.engine.hold(self.now_s)
            self.state = State.HOLD

    def _resume(self) -> None:
        if self.engine.decelerating:
            return
        if self.state is State.DOOR:
            self.restoring = self.retracted
        elif self.state is State.HOLD:
            if self.spindle_stopped:
                self._toggle_spindle()
            self.go_on()
        elif self.state is State.IDLE:
            self.start()

    def go_on(self) -> None:
        """Leave a hold or the door: with what is queued, or idle."""
        self.state = State.IDLE
        self.retracted = self.restoring = False
        self.start()

    def _open_door(self) -> None:
        """Stop and switch everything off; a jog is cancelled first, and its rest forgotten."""
        if self.state in {State.ALARM, State.CHECK}:
            return
        self.send("[MSG:Check Door]")
        if self.state is State.JOG:
            self._door_after_jog = True
            self._cancel_jog()
        elif self.state is not State.SLEEP:
            self.engine.hold(self.now_s)
            self.spindle_stopped = self.restoring = self.retracted = False
            self.state = State.DOOR

    def _cancel_jog(self) -> None:
        self.engine.hold(self.now_s)
        self._cancelling_jog = True

    def _end_jog(self) -> None:
        self.engine.halt(self._steps_now())
        self.position_mm = self.machine_mm()
        self.state = State.DOOR if self._door_after_jog else State.IDLE
        self._cancelling_jog = self._door_after_jog = False

    def set_outputs(self, outputs: Outputs) -> None:
        """Switch spindle and coolant; the next report tells."""
        self.outputs = outputs
        self.reporter.overrides_changed()

    def _toggle_coolant(self, code: str) -> None:
        if self.state in _TOGGLES and (code != "M7" or self.mist):
            coolant = self.modes.coolant ^ {code}
            self.modes = replace(self.modes, coolant=coolant)
            self.set_outputs(replace(self.outputs, coolant=coolant))

    def _toggle_spindle(self) -> None:
        """Spindle stop: in a hold only, and only what is on."""
        if self.state is not State.HOLD or self.engine.decelerating or self.modes.spindle == "M5":
            return
        self.spindle_stopped = not self.spindle_stopped
        if self.spindle_stopped:
            self.set_outputs(replace(self.outputs, spindle="M5", rpm=0.0))
        else:
            self.send("[MSG:Restoring spindle]")
            self.set_outputs(replace(self.outputs, spindle=self.modes.spindle, rpm=self.modes.spindle_rpm))

    def spindle_rpm(self) -> float:
        """Return the speed the spindle is given: under its override, within ``$31`` to ``$30``."""
        on, slowest, fastest = self.outputs.spindle, self.eeprom[31], self.eeprom[30]
        follows_speed = self.eeprom.is_on(32) and on == "M4"  # a laser in M4 is dark at rest
        if on == "M5" or (follows_speed and not self.engine.running):
            return 0.0
        rpm = self.outputs.rpm * self.engine.overrides.spindle / 100
        if slowest >= fastest or rpm >= fastest:
            return fastest
        return max(rpm, slowest) if rpm else 0.0

    def _override(self, byte: int) -> None:
        before = self.engine.overrides
        after = before
        if byte == FEED_RESET:
            after = replace(before, feed=100)
        elif byte in FEED_STEPS:
            after = replace(before, feed=_within(before.feed + FEED_STEPS[byte]))
        elif byte in RAPIDS:
            after = replace(before, rapid=RAPIDS[byte])
        elif byte == SPINDLE_RESET:
            after = replace(before, spindle=100)
        elif byte in SPINDLE_STEPS:
            after = replace(before, spindle=_within(before.spindle + SPINDLE_STEPS[byte]))
        if after != before:
            self.reporter.overrides_changed()
            self.engine.set_overrides(after, self.now_s)

    def pins(self) -> str:
        """Return the letters of the inputs that are active; nothing is wired to the probe, Y and Z."""
        inverted = self.eeprom.is_on(5)
        switches = ("X" if self.switch_pressed() != inverted else "") + ("YZ" if inverted else "")
        return ("P" if self.eeprom.is_on(6) else "") + switches

    def _steps_now(self) -> Steps:
        return self.engine.position_steps(self.now_s, self.steps_per_mm)

    def _move_carriage(self, t_s: float, legs: Sequence[Leg], direction_x: float) -> None:
        gain = self.steps_per_mm[0] / self.carriage.mechanics.steps_per_mm * direction_x
        self.carriage.follow(t_s, legs, gain=-gain if int(self.eeprom[3]) & 1 else gain)

    def _block(self, target_mm: Axes, rate_mm_s: float, rapid: bool, overridable: bool) -> Block | None:
        per_mm = self.steps_per_mm
        begin = self.engine.blocks[-1].target_steps if self.engine.blocks else self.engine.steps
        target = tuple(round(t * k) for t, k in zip(target_mm, per_mm, strict=True))
        way = [(b - a) / k for a, b, k in zip(begin, target, per_mm, strict=True)]
        length = math.hypot(*way)
        if length == 0:
            return None
        unit = [w / length for w in way]
        limit = _axis_limit(
            unit,
            [min(v / 60, MAX_STEP_RATE_HZ / k) for v, k in zip(self.eeprom.axes(110), per_mm, strict=True)],
        )
        return Block(
            target_steps=(target[0], target[1], target[2]),
            direction=(unit[0], unit[1], unit[2]),
            length_mm=length,
            rate_mm_s=limit if rapid else min(rate_mm_s, limit),
            rate_limit_mm_s=limit,
            acceleration_mm_s2=max(_axis_limit(unit, self.eeprom.axes(120)), _LEAST_ACCELERATION_MM_S2),
            rapid=rapid,
            overridable=overridable,
        )


def _axis_limit(unit: Sequence[float], limits: Sequence[float]) -> float:
    """Return the largest rate along a direction that keeps every axis within its own limit."""
    return min(limit / abs(u) for u, limit in zip(unit, limits, strict=True) if u)


def _within(percent: int) -> int:
    return min(max(percent, 10), 200)
