"""GRBL 1.1h on a simulated rail: bytes in, bytes out, and the true trajectory for whoever looks at the carriage.

Time is given from outside and everything between two moments is computed from events, so the same controller runs
in real time, accelerated, or step by step in a test.

References:
    https://github.com/gnea/grbl, version 1.1h (20190830): protocol, planner and homing as documented there.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from rig.sim.grbl_eeprom import Eeprom
from rig.sim.grbl_faults import PositionFault, RailFaults
from rig.sim.grbl_machine import GrblMachine
from rig.sim.grbl_mechanics import RailMechanics
from rig.sim.grbl_program import GrblProgram, Program

BOOT_S = 1.5
"""The boot loader's silence after a reboot."""


class GrblController:
    """The simulated controller and its rail. Thread-safe.

    Args:
        mechanics: How the rail is built.
        settings: ``$`` settings that differ from delivery.
        faults: What goes wrong.
        t_s: Session time of power-up.
        seed: Decides noise on the wire.
    """

    def __init__(
        self,
        mechanics: RailMechanics | None = None,
        *,
        settings: Mapping[int, float] | None = None,
        faults: RailFaults | None = None,
        t_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self._lock = threading.RLock()
        self._mechanics = mechanics or RailMechanics()
        self._machine = GrblMachine(self._mechanics, Eeprom(settings), seed=seed)
        self._machine.now_s = t_s
        self._position_faults: list[PositionFault] = []
        self._mute_until_s = self._blackout_until_s = -math.inf
        self._frozen = False
        self.vanished = False
        """True once the port has gone for good."""
        self._program = self._power_up()
        self._wake_s = t_s
        self.set_faults(faults or RailFaults())

    def set_faults(self, faults: RailFaults) -> None:
        """Let other things go wrong from now on; what was wrong before is mended."""
        with self._lock:
            m = self._machine
            self._position_faults = list(faults.at)
            self._frozen = self.vanished = False
            m.carriage.powered, m.carriage.slip_fraction = True, faults.slip_fraction
            m.uart.set_faults(faults.replies)
            before = m.switch_pressed()
            m.switch_fault = faults.home_switch
            if m.switch_pressed() and not before:
                m.on_switch()

    def reboot(self, t_s: float) -> None:
        """Do what DTR or a brown-out does: motion stops, position and modes are lost, silence, banner."""
        with self._lock:
            self.advance(t_s)
            self._restart()

    def receive(self, data: bytes, t_s: float) -> None:
        """Take bytes from the host."""
        with self._lock:
            self.advance(t_s)
            self._machine.uart.accept(data, t_s)

    def transmit(self, t_s: float) -> bytes:
        """Return what has reached the host by ``t_s``."""
        with self._lock:
            self.advance(t_s)
            return self._machine.uart.take(t_s)

    @property
    def next_event_s(self) -> float:
        """When there is something to do or to send again."""
        with self._lock:
            return min(self._next_inner_event_s(), self._machine.uart.next_departure_s)

    def advance(self, t_s: float) -> None:
        """Let time pass."""
        with self._lock:
            while (event_s := self._next_inner_event_s()) <= t_s:
                self._step_to(event_s)
            self._machine.now_s = max(self._machine.now_s, t_s)

    def position_mm(self, t_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the carriage's true rail positions at past session times; any shape, exact, unquantised.

        Times that the controller has not reached yet get the position planned for them.
        """
        return self._machine.carriage.log.evaluate(np.asarray(t_s, np.float64))[0] + self._mechanics.lower_mm

    def velocity_mm_s(self, t_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the carriage's true signed velocities at past session times."""
        return self._machine.carriage.log.evaluate(np.asarray(t_s, np.float64))[1]

    def _power_up(self) -> Program:
        return GrblProgram(self._machine, self._blackout).run()

    def _blackout(self, duration_s: float) -> None:
        self._blackout_until_s = self._machine.now_s + duration_s

    def _restart(self) -> None:
        m = self._machine
        m.halt()
        m.set_steps((0, 0, 0))
        m.uart.forget()
        self._mute_until_s = self._wake_s = m.now_s + BOOT_S
        self._program = self._power_up()

    def _next_inner_event_s(self) -> float:
        m = self._machine
        times = [m.uart.next_arrival_s, m.engine.next_event_s, self._wake_s, m.report_due_s]
        times += [crossing_s for crossing_s, _, _ in self._crossings()] if m.engine.running else []
        return max(min(times), m.now_s)

    def _crossings(self) -> Iterator[tuple[float, str, PositionFault | None]]:
        """List when the carriage next passes a place where something happens, and what."""
        m = self._machine
        carriage, now_s = m.carriage, m.now_s
        if m.switch_fault == "good":
            yield carriage.next_crossing_s(0.0, now_s, direction=-1), "switch", None
        yield carriage.next_crossing_s(carriage.lower_stop_mm, now_s, direction=-1), "stop", None
        yield carriage.next_crossing_s(carriage.upper_stop_mm, now_s, direction=1), "stop", None
        for fault in self._position_faults:
            yield carriage.next_crossing_s(fault.at_mm - self._mechanics.lower_mm, now_s), fault.kind, fault

    def _step_to(self, t_s: float) -> None:
        m = self._machine
        due = [(what, fault) for crossing_s, what, fault in self._crossings() if crossing_s <= t_s]
        m.now_s = t_s
        for what, fault in due:
            self._pass(what, fault)
        m.engine.advance(t_s)
        m.settle()
        while m.uart.next_arrival_s <= t_s:
            self._take_byte(m.uart.next_byte())
        if m.report_due_s <= t_s:
            m.report_due_s = math.inf
            if self._answers() and not m.ignores_questions:
                m.send(m.report())
        self._run_program()

    def _answers(self) -> bool:
        return not self._frozen and self._machine.now_s >= self._mute_until_s

    def _run_program(self) -> None:
        self._wake_s = math.inf
        if self._frozen:
            return
        self._wake_s = next(self._program) if self._answers() else self._mute_until_s

    def _take_byte(self, byte: int) -> None:
        m = self._machine
        if not self._answers() or m.now_s < self._blackout_until_s:
            return
        if not m.realtime(byte):
            m.uart.buffer(byte)

    def _pass(self, what: str, fault: PositionFault | None) -> None:
        """Let happen what the carriage triggers at a place."""
        m = self._machine
        if fault is not None:
            self._position_faults.remove(fault)
        if what == "switch":
            m.on_switch()
        elif what in {"stop", "stall"}:
            m.carriage.block(m.now_s)
        elif what == "lost_steps" and fault is not None:
            m.carriage.shift(m.now_s, -fault.steps / self._mechanics.steps_per_mm)
        elif what == "limit_glitch":
            m.trip_limit()
        elif what == "reset":
            self._restart()
        else:
            self._fail(what)

    def _fail(self, what: str) -> None:
        m = self._machine
        if what in {"motor_power_loss", "power_loss"}:
            m.carriage.powered = False
            m.carriage.halt(m.now_s)
        self._frozen = what in {"freeze", "power_loss"}
        self.vanished = what == "vanish"
