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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rig.errors import DeviceError
from rig.sim.grbl_eeprom import Eeprom
from rig.sim.grbl_faults import PositionFault, RailFaults, TimedFault
from rig.sim.grbl_foreground import Program
from rig.sim.grbl_machine import GrblMachine
from rig.sim.grbl_mechanics import RailMechanics
from rig.sim.grbl_program import GrblProgram
from rig.sim.led import OutputLog

BOOT_S = 1.5
"""The boot loader's silence after a reboot."""
_EDGES_MM = {"bouncing": (1e-3,), "chattering": (1e-3, 0.2, 0.4)}
"""How far off the switch its input changes once more: it opens a little beyond where it closes."""


@dataclass(frozen=True)
class _Passage:
    """Something that happens when the carriage is somewhere, or when it is time."""

    at_s: float
    what: str
    fault: PositionFault | TimedFault | None = None


class GrblController:
    """The simulated controller and its rail. Thread-safe.

    Args:
        mechanics: How the rail is built.
        settings: ``$`` settings that differ from delivery.
        faults: What goes wrong.
        t_s: Session time of power-up.
        seed: Decides noise on the wire.
        mist: Whether the firmware was compiled with a mist output; as delivered it was not.
    """

    def __init__(
        self,
        mechanics: RailMechanics | None = None,
        *,
        settings: Mapping[int, float] | None = None,
        faults: RailFaults | None = None,
        t_s: float = 0.0,
        seed: int = 1,
        mist: bool = False,
    ) -> None:
        self._lock = threading.RLock()
        self._mechanics = mechanics or RailMechanics()
        self._machine = GrblMachine(self._mechanics, Eeprom(settings), seed=seed, mist=mist)
        self._machine.now_s = t_s
        self._faults = RailFaults()
        self._faults_since_s = t_s
        self._pending: list[PositionFault | TimedFault] = []
        self._crossings_ahead: list[_Passage] = []
        self._crossings_of = -1
        """The version of the trajectory that they belong to."""
        self._mute_until_s = self._blackout_until_s = -math.inf
        self._mended_s = math.inf
        self._frozen = False
        self.vanished = False
        """True while the port is gone."""
        self._program = self._power_up()
        self._wake_s = t_s
        self.set_faults(faults or RailFaults())

    def set_faults(self, faults: RailFaults) -> None:
        """Let other things go wrong from now on; what was wrong before is mended."""
        with self._lock:
            m = self._machine
            self._crossings_of = -1
            self._faults, self._faults_since_s = faults, m.now_s
            self._pending = [*faults.at, *faults.timed]
            self._frozen = self.vanished = False
            self._mended_s = math.inf
            m.carriage.powered, m.carriage.slip_fraction = True, faults.slip_fraction
            m.carriage.speed_drift_per_s, m.carriage.drifts_since_s = faults.speed_drift_per_s, m.now_s
            m.uart.set_faults(faults)
            before = m.switch_pressed()
            m.switch_fault = faults.home_switch
            if m.switch_pressed() and not before:
                m.on_switch()
            self._wake_s = min(self._wake_s, m.now_s)

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
    def backlog(self) -> int:
        """Bytes on their way to the controller: what a serial driver's buffer holds."""
        with self._lock:
            return self._machine.uart.backlog

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

    def output_log(self, pin: str) -> OutputLog:
        """Return when the output ``flood`` or ``mist`` was on.

        Raises:
            DeviceError: The controller has no such output.
        """
        logs = self._machine.output_logs
        if pin not in logs:
            raise DeviceError(
                f"the simulated rail has no output '{pin}'",
                next_step=f"name one of {', '.join(sorted(logs))}",
            )
        return logs[pin]

    def _power_up(self) -> Program:
        return GrblProgram(self._machine, self._black_out).run()

    def _black_out(self) -> float:
        duration_s = self._faults.eeprom_blackout_s
        self._blackout_until_s = self._machine.now_s + duration_s
        return duration_s

    def _restart(self) -> None:
        m = self._machine
        m.halt()
        m.set_steps((0, 0, 0))
        m.uart.forget()
        self._mute_until_s = self._wake_s = m.now_s + BOOT_S
        self._program = self._power_up()

    def _next_inner_event_s(self) -> float:
        m = self._machine
        times = [m.uart.next_arrival_s, m.engine.next_event_s, self._wake_s, m.report_due_s, self._mended_s]
        times += [p.at_s for p in self._passages()]
        return max(min(times), m.now_s)

    def _passages(self) -> Iterator[_Passage]:
        """List what happens next by time, and by place while something moves."""
        for fault in self._pending:
            if isinstance(fault, TimedFault):
                yield _Passage(self._faults_since_s + fault.after_s, fault.kind, fault)
        if self._machine.engine.running:
            yield from self._next_crossings()

    def _next_crossings(self) -> list[_Passage]:
        """Return the places ahead on the way; what was found holds until the first of them is reached."""
        version, now_s = self._machine.carriage.log.version, self._machine.now_s
        if version != self._crossings_of or any(p.at_s <= now_s for p in self._crossings_ahead):
            self._crossings_ahead, self._crossings_of = list(self._crossings()), version
        return self._crossings_ahead

    def _crossings(self) -> Iterator[_Passage]:
        carriage, now_s = self._machine.carriage, self._machine.now_s
        if self._machine.switch_fault not in {"stuck_open", "stuck_closed"}:
            yield _Passage(carriage.next_closing_s(now_s), "switch")
        for edge_mm in _EDGES_MM.get(self._machine.switch_fault, ()):
            yield _Passage(carriage.next_opening_s(now_s, edge_mm), "limit_glitch")
        yield _Passage(carriage.next_crossing_s(carriage.lower_stop_mm, now_s, direction=-1), "stop")
        yield _Passage(carriage.next_crossing_s(carriage.upper_stop_mm, now_s, direction=1), "stop")
        if spacing_mm := self._faults.limit_noise_mm:
            index = round(carriage.place_mm(now_s) / spacing_mm)  # it may stand on that one
            for k in (index - 1, index, index + 1):
                yield _Passage(carriage.next_crossing_s(k * spacing_mm, now_s), "limit_glitch")
        for fault in self._pending:
            if isinstance(fault, PositionFault):
                place_mm = fault.at_mm - self._mechanics.lower_mm
                yield _Passage(carriage.next_crossing_s(place_mm, now_s), fault.kind, fault)

    def _step_to(self, t_s: float) -> None:
        m = self._machine
        due = [p for p in self._passages() if p.at_s <= t_s]
        m.now_s = t_s
        for passage in due:
            self._pass(passage)
        if self._mended_s <= t_s:
            self._mend()
        m.engine.advance(t_s)
        m.settle()
        while m.uart.next_arrival_s <= t_s:
            self._take_byte(m.uart.next_byte())
        if m.report_due_s <= t_s:
            self._report()
        self._run_program()

    def _report(self) -> None:
        """Answer a question; with the transmit buffer full the firmware gets to it later."""
        m = self._machine
        m.report_due_s = m.uart.writable_s if m.uart.writable_s > m.now_s else math.inf
        if m.report_due_s == math.inf and self._answers() and not m.ignores_questions:
            m.send(m.reporter.report())

    def _answers(self) -> bool:
        return not self._frozen and self._machine.now_s >= self._mute_until_s

    def _run_program(self) -> None:
        self._wake_s = math.inf
        if self._frozen:
            return
        self._wake_s = next(self._program) if self._answers() else self._mute_until_s

    def _take_byte(self, byte: int | None) -> None:
        m = self._machine
        if byte is None or not self._answers() or m.now_s < self._blackout_until_s:
            return
        m.uart.echo(byte, m.now_s)
        if not m.realtime(byte):
            m.uart.buffer(byte)

    def _pass(self, passage: _Passage) -> None:
        """Let happen what is due at a place or a time."""
        m, what, fault = self._machine, passage.what, passage.fault
        if fault is not None:
            self._pending.remove(fault)
            self._crossings_of = -1
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
        elif fault is not None:
            self._fail(what, fault.for_s)

    def _fail(self, what: str, for_s: float) -> None:
        m = self._machine
        if what in {"motor_power_loss", "power_loss"}:
            m.carriage.powered = False
            m.carriage.halt(m.now_s)
        self._frozen = what in {"freeze", "power_loss"}
        self.vanished = what == "vanish"
        self._mended_s = m.now_s + for_s if for_s else math.inf

    def _mend(self) -> None:
        """Come back: from a power loss with a reboot, from the rest as if nothing had been."""
        self._mended_s = math.inf
        if self._frozen and not self._machine.carriage.powered:
            self._restart()
        self._frozen = self.vanished = False
        self._machine.carriage.powered = True
