"""How the firmware's main program waits: it never sleeps, it looks at flags again and again.

Everything here is a generator that yields the latest time at which it wants to go on and is resumed after every
event, so that the simulated firmware blocks where the real one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import replace

from rig.sim.grbl_gcode import Modes
from rig.sim.grbl_machine import GrblMachine
from rig.sim.grbl_state import Outputs, State

ALARM_PAUSE_S = 0.5
"""The firmware stands still behind every ALARM line; a reset that comes meanwhile is lost after a critical one."""
_CRITICAL_ALARMS = frozenset({1, 2})
_SPINDLE_UP_S = 4.0
_COOLANT_UP_S = 1.0
Program = Generator[float, None, None]
Answer = Generator[float, None, int]


class Foreground:
    """Waiting, alarms and suspension, shared by everything the main program does.

    Args:
        machine: What it drives.
        blackout: Begins a time in which interrupts are off and incoming bytes are lost; returns how long it lasts.
    """

    def __init__(self, machine: GrblMachine, blackout: Callable[[], float]) -> None:
        self._m = machine
        self._blackout = blackout
        self._aborted = False

    def begin(self) -> None:
        """Begin anew after a reset."""
        self._aborted = False

    def aborted(self) -> bool:
        """Tell whether a reset has come; true until the main program has begun anew."""
        return self._aborted

    def runtime(self) -> Program:
        """Do what the interrupts asked for; stands still while a hold lasts."""
        m = self._m
        while True:
            if m.alarm:
                yield from self._announce_alarm()
            if m.reset_pending:
                m.reset_pending, self._aborted = False, True
            if self._aborted:
                return
            if m.sleep_requested:
                self._fall_asleep()
            if m.restoring:
                yield from self._leave_door()
                continue
            if not m.suspended:
                return
            yield math.inf

    def wait(self, ready: Callable[[], bool], *, until_s: float = math.inf) -> Program:
        """Go on when something is so, or after a reset; looks again at ``until_s`` at the latest."""
        while True:
            yield from self.runtime()
            if self._aborted or ready():
                return
            yield until_s

    def pause(self, duration_s: float) -> Program:
        """Let time pass."""
        until_s = self._m.now_s + duration_s
        yield from self.wait(lambda: self._m.now_s >= until_s, until_s=until_s)

    def write_eeprom(self) -> Program:
        """Write, with interrupts off."""
        yield from self.pause(self._blackout())

    def drain_output(self) -> Program:
        """Stand still until the transmit buffer has room again."""
        until_s = self._m.uart.writable_s
        yield from self.wait(lambda: self._m.now_s >= until_s, until_s=until_s)

    def synchronise(self) -> Program:
        """Wait until everything queued has been executed."""
        self._m.start()
        yield from self.wait(lambda: not self._m.engine.blocks)

    def _announce_alarm(self) -> Program:
        m = self._m
        number, m.alarm = m.alarm, 0
        m.state, m.homing = State.ALARM, False
        m.deaf = number in _CRITICAL_ALARMS or m.reset_pending
        m.send(f"ALARM:{number}")
        yield from self._stand_still(ALARM_PAUSE_S)
        if number not in _CRITICAL_ALARMS:
            return
        m.send("[MSG:Reset to continue]")
        m.reset_pending = False  # whatever came until here is lost
        while not m.reset_pending:
            yield math.inf
        m.deaf = False

    def _stand_still(self, duration_s: float) -> Program:
        until_s = self._m.now_s + duration_s
        while self._m.now_s < until_s:
            yield until_s

    def _fall_asleep(self) -> None:
        m = self._m
        m.sleep_requested, m.state = False, State.SLEEP
        m.set_outputs(Outputs())
        m.send("[MSG:Sleeping]")

    def _leave_door(self) -> Program:
        """Switch on again what was on, give it time to come up, and go on; an open door begins anew."""
        m = self._m
        on = m.modes
        if on.spindle != Modes().spindle:
            m.set_outputs(replace(m.outputs, spindle=on.spindle, rpm=on.spindle_rpm))
            if not m.eeprom.is_on(32):
                yield from self._restore_for(_SPINDLE_UP_S)
        if on.coolant and m.restoring:
            m.set_outputs(replace(m.outputs, coolant=on.coolant))
            yield from self._restore_for(_COOLANT_UP_S)
        if m.restoring and not m.reset_pending:
            m.go_on()

    def _restore_for(self, duration_s: float) -> Program:
        m = self._m
        until_s = m.now_s + duration_s
        while m.now_s < until_s and m.restoring and not m.reset_pending:
            yield until_s
