"""State of the simulated GRBL controller and what its real-time bytes, switches and reports do to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from rig.sim.grbl_eeprom import MAX_STEP_RATE_HZ, Eeprom
from rig.sim.grbl_gcode import MM_PER_INCH, Modes
from rig.sim.grbl_mechanics import Carriage, Leg, RailMechanics
from rig.sim.grbl_planner import PLANNER_BLOCKS, Axes, Block, MotionEngine, Overrides, Steps
from rig.sim.grbl_uart import RX_REPORTED, Uart

REPORT_DELAY_S = 0.005
_WCO_EVERY = {True: 30, False: 10}
_OVERRIDES_EVERY = {True: 20, False: 10}
_FEED_STEPS = {0x91: 10, 0x92: -10, 0x93: 1, 0x94: -1}
_RAPIDS = {0x95: 100, 0x96: 50, 0x97: 25}
_SPINDLE_STEPS = {0x9A: 10, 0x9B: -10, 0x9C: 1, 0x9D: -1}
_COOLANTS = {0xA0: "M8", 0xA1: "M7"}
SOFT_RESET = 0x18
ZERO: Axes = (0.0, 0.0, 0.0)


class State(StrEnum):
    """The words of the status report."""

    IDLE = "Idle"
    RUN = "Run"
    HOLD = "Hold"
    JOG = "Jog"
    ALARM = "Alarm"
    DOOR = "Door"
    CHECK = "Check"
    HOME = "Home"
    SLEEP = "Sleep"


_BUSY = frozenset({State.HOME, State.RUN, State.HOLD, State.JOG, State.DOOR})


class GrblMachine:
    """Everything the firmware's main program and its interrupts share.

    Args:
        mechanics: The rail it drives.
        eeprom: Its settings.
        seed: Decides the noise on the wire.
    """

    def __init__(self, mechanics: RailMechanics, eeprom: Eeprom, *, seed: int) -> None:
        self.eeprom = eeprom
        self.uart = Uart(seed)
        self.carriage = Carriage(mechanics)
        self.engine = MotionEngine(self._move_carriage)
        self.now_s = 0.0
        self.state = State.IDLE
        self.alarm = 0
        """An alarm that the main program has not announced yet."""
        self.reset_pending = False
        self.deaf = False
        """After a critical alarm: nothing but a reset is noticed."""
        self.approaching = False
        """Homing towards the switch."""
        self.switch_fault = "good"
        self.report_due_s = math.inf
        self._cancelling_jog = False
        self.begin_session()

    def begin_session(self) -> None:
        """Initialise what a soft reset initialises; state and step counters survive it."""
        self.modes = Modes()
        self.g92: Axes = ZERO
        self.uart.received.clear()
        self.alarm, self.reset_pending, self.deaf = 0, False, False
        self.approaching = self._cancelling_jog = False
        self.report_due_s = math.inf
        self._wco_countdown = self._overrides_countdown = 0
        self.engine.halt(self.engine.position_steps(self.now_s, self.steps_per_mm))
        self.engine.overrides = Overrides()
        self.position_mm = self.machine_mm()

    @property
    def steps_per_mm(self) -> Axes:
        """``$100`` to ``$102``."""
        return self.eeprom.axes(100)

    @property
    def suspended(self) -> bool:
        """Whether the main program stands still: no line is read."""
        return self.state in {State.HOLD, State.DOOR, State.SLEEP} or self._cancelling_jog

    @property
    def ignores_questions(self) -> bool:
        """Whether only a reset is noticed: during homing and after a critical alarm."""
        return self.deaf or self.state is State.HOME

    def machine_mm(self) -> Axes:
        """Return the step counters in mm."""
        steps = self.engine.position_steps(self.now_s, self.steps_per_mm)
        x, y, z = (s / k for s, k in zip(steps, self.steps_per_mm, strict=True))
        return x, y, z

    def work_offset_mm(self) -> Axes:
        """Return machine position minus work position."""
        x, y, z = (
            a + b for a, b in zip(self.eeprom.coordinates[self.modes.coordinates], self.g92, strict=True)
        )
        return x, y, z

    def send(self, line: str) -> None:
        """Send a line to the host."""
        self.uart.send(line, self.now_s)

    def outside_travel(self, target_mm: Axes) -> bool:
        """Tell whether a machine position lies beyond the soft limits."""
        travel = self.eeprom.axes(130)
        return any(not -t - 1e-6 <= x <= 1e-6 for x, t in zip(target_mm, travel, strict=True))

    def queue(self, target_mm: Axes, rate_mm_s: float, *, rapid: bool = False, system: bool = False) -> bool:
        """Put a straight move into the planner; returns False when it is shorter than a step."""
        block = self._block(target_mm, rate_mm_s, rapid, system)
        if block is not None:
            self.engine.append(block, junction_deviation_mm=self.eeprom[11], t_s=self.now_s)
        return block is not None

    def start(self, state: State = State.RUN) -> None:
        """Begin executing what is queued."""
        if self.engine.blocks and self.state in {State.IDLE, State.HOME}:
            self.state = state
            self.engine.start(self.now_s)

    def settle(self) -> None:
        """Draw the consequences of motion that ended by itself."""
        if self.engine.running:
            return
        if self.state is State.RUN and not self.engine.blocks:
            self.state = State.IDLE
        elif self.state is State.JOG:
            self._cancelling_jog = False
            self.engine.halt(self.engine.position_steps(self.now_s, self.steps_per_mm))
            self.position_mm = self.machine_mm()
            self.state = State.IDLE

    def halt(self) -> None:
        """Stop dead, as the interrupts do."""
        self.engine.halt(self.engine.position_steps(self.now_s, self.steps_per_mm))
        self.carriage.halt(self.now_s)

    def set_steps(self, steps: Steps) -> None:
        """Declare where the carriage stands."""
        self.engine.halt(steps)
        self.position_mm = self.machine_mm()

    def switch_pressed(self) -> bool:
        """Return the level of the home switch's input."""
        if self.switch_fault != "good":
            return self.switch_fault == "stuck_closed"
        return self.carriage.presses_switch(self.now_s)

    def on_switch(self) -> None:
        """React to the home switch closing."""
        if self.state is State.HOME:
            if self.approaching:
                self.halt()
        elif self.eeprom.is_on(21):
            self.trip_limit()

    def trip_limit(self) -> None:
        """Hard limit: stop dead, lose the position."""
        if self.state is not State.ALARM and not self.alarm:
            self.reset()
            self.alarm = 1

    def reset(self) -> None:
        """Soft reset, as the byte 0x18 or the firmware itself asks for it."""
        if self.reset_pending:
            return
        self.reset_pending = True
        if self.state in {State.RUN, State.JOG, State.HOME} or self.engine.decelerating:
            self.alarm = self.alarm or (6 if self.state is State.HOME else 3)
            self.halt()

    def realtime(self, byte: int) -> bool:
        """Act on a real-time byte; returns False for bytes that belong to a line."""
        if byte == SOFT_RESET:
            self.reset()
        elif byte in b"?!~" or byte >= 0x80:
            if not self.ignores_questions:
                self._act(byte)
        else:
            return False
        return True

    def _act(self, byte: int) -> None:
        if byte == ord("?"):
            self.report_due_s = min(self.report_due_s, self.now_s + REPORT_DELAY_S)
        elif byte == ord("!"):
            self.hold()
        elif byte == ord("~"):
            self._resume()
        elif byte == 0x84:
            self._open_door()
        elif byte == 0x85 and self.state is State.JOG:
            self._cancel_jog()
        elif byte in _COOLANTS:
            self._toggle(_COOLANTS[byte])
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
        if self.state not in {State.HOLD, State.DOOR, State.IDLE} or self.engine.decelerating:
            return
        self.state = State.IDLE
        self.start()

    def _open_door(self) -> None:
        if self.state in {State.ALARM, State.CHECK, State.SLEEP}:
            return
        self.engine.hold(self.now_s)
        self.state = State.DOOR
        self.send("[MSG:Check Door]")

    def _cancel_jog(self) -> None:
        self.engine.hold(self.now_s)
        self._cancelling_jog = True

    def _toggle(self, code: str) -> None:
        if self.state in {State.IDLE, State.RUN, State.HOLD, State.JOG}:
            self.modes = replace(self.modes, coolant=self.modes.coolant ^ {code})
            self._overrides_countdown = 0

    def _override(self, byte: int) -> None:
        before = self.engine.overrides
        after = before
        if byte == 0x90:
            after = replace(before, feed=100)
        elif byte in _FEED_STEPS:
            after = replace(before, feed=_within(before.feed + _FEED_STEPS[byte]))
        elif byte in _RAPIDS:
            after = replace(before, rapid=_RAPIDS[byte])
        elif byte == 0x99:
            after = replace(before, spindle=100)
        elif byte in _SPINDLE_STEPS:
            after = replace(before, spindle=_within(before.spindle + _SPINDLE_STEPS[byte]))
        if after != before:
            self._overrides_countdown = 0
            self.engine.set_overrides(after, self.now_s)

    def refresh_offsets(self) -> None:
        """Make the next report carry the work offset, as every change of it does."""
        self._wco_countdown = 0

    def report(self) -> str:
        """Return a status report; offset and overrides come now and then only."""
        inches = self.eeprom.is_on(13)
        mask = int(self.eeprom[10])
        machine, offset = self.machine_mm(), self.work_offset_mm()
        work = tuple(m - o for m, o in zip(machine, offset, strict=True))
        fields = [self._state_word()]
        fields.append(
            f"MPos:{coordinates(machine, inches)}" if mask & 1 else f"WPos:{coordinates(work, inches)}"
        )
        if mask & 2:
            free = PLANNER_BLOCKS - len(self.engine.blocks)
            fields.append(f"Bf:{free},{RX_REPORTED - len(self.uart.received)}")
        feed = self.engine.reported_speed_mm_s(self.now_s) * 60 / (MM_PER_INCH if inches else 1)
        fields.append(f"FS:{feed:.0f},{self._spindle_rpm():.0f}")
        if pins := self._pins():
            fields.append(f"Pn:{pins}")
        fields += self._occasional(offset, inches)
        return f"<{'|'.join(fields)}>"

    def _occasional(self, offset: Axes, inches: bool) -> list[str]:
        busy = self.state in _BUSY
        if self._wco_countdown == 0:
            self._wco_countdown = _WCO_EVERY[busy] - 1
            self._overrides_countdown = max(self._overrides_countdown, 1)
            self._overrides_countdown -= 1
            return [f"WCO:{coordinates(offset, inches)}"]
        self._wco_countdown -= 1
        if self._overrides_countdown > 0:
            self._overrides_countdown -= 1
            return []
        self._overrides_countdown = _OVERRIDES_EVERY[busy] - 1
        now = self.engine.overrides
        accessories = self._accessories()
        return [f"Ov:{now.feed},{now.rapid},{now.spindle}", *([f"A:{accessories}"] if accessories else [])]

    def _accessories(self) -> str:
        spindle = {"M3": "S", "M4": "C"}.get(self.modes.spindle, "")
        return spindle + "".join(
            letter for code, letter in (("M8", "F"), ("M7", "M")) if code in self.modes.coolant
        )

    def _spindle_rpm(self) -> float:
        return 0.0 if self.modes.spindle == "M5" else self.modes.spindle_rpm

    def _pins(self) -> str:
        inverted = self.eeprom.is_on(5)
        return ("X" if self.switch_pressed() != inverted else "") + ("YZ" if inverted else "")

    def _state_word(self) -> str:
        if self.state is State.HOLD:
            return f"Hold:{int(self.engine.decelerating)}"
        if self.state is State.DOOR:
            return f"Door:{2 if self.engine.decelerating else 0}"
        return str(self.state)

    def _move_carriage(self, t_s: float, legs: Sequence[Leg], direction_x: float) -> None:
        gain = self.eeprom[100] / self.carriage.mechanics.steps_per_mm * direction_x
        self.carriage.follow(t_s, legs, gain=-gain if int(self.eeprom[3]) & 1 else gain)

    def _block(self, target_mm: Axes, rate_mm_s: float, rapid: bool, system: bool) -> Block | None:
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
            acceleration_mm_s2=_axis_limit(unit, self.eeprom.axes(120)),
            rapid=rapid,
            system=system,
        )


def coordinates(values_mm: Sequence[float], inches: bool) -> str:
    """Print coordinates as the firmware does: three decimals, four in inches."""
    if inches:
        return ",".join(f"{v / MM_PER_INCH:.4f}" for v in values_mm)
    return ",".join(f"{v + 0.0:.3f}" for v in values_mm)


def _axis_limit(unit: Sequence[float], limits: Sequence[float]) -> float:
    """Return the largest rate along a direction that keeps every axis within its own limit."""
    return min(limit / abs(u) for u, limit in zip(unit, limits, strict=True) if u)


def _within(percent: int) -> int:
    return min(max(percent, 10), 200)
