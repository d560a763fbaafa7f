"""GRBL's status reports: fields that always come, and those that come now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rig.sim.grbl_gcode import MM_PER_INCH
from rig.sim.grbl_planner import PLANNER_BLOCKS, Axes
from rig.sim.grbl_state import State
from rig.sim.grbl_uart import RX_REPORTED

if TYPE_CHECKING:
    from rig.sim.grbl_machine import GrblMachine

_WCO_EVERY = {True: 30, False: 10}
_OVERRIDES_EVERY = {True: 20, False: 10}
_BUSY = frozenset({State.HOME, State.RUN, State.HOLD, State.JOG, State.DOOR})
_COOLANTS = (("F", "M8"), ("M", "M7"))
_SPINDLE_LETTERS = {"M3": "S", "M4": "C"}


class StatusReporter:
    """Answers ``?``: work offset and overrides come rarely, and at once after they changed.

    Args:
        machine: What it tells of.
    """

    def __init__(self, machine: GrblMachine) -> None:
        self._m = machine
        self._offset_countdown = self._overrides_countdown = 0

    def restart(self) -> None:
        """Begin both countdowns anew, as a reset does."""
        self._offset_countdown = self._overrides_countdown = 0

    def offset_changed(self) -> None:
        """Make the next report carry the work offset."""
        self._offset_countdown = 0

    def overrides_changed(self) -> None:
        """Make the next report carry overrides and accessories; behind the offset, if that is due as well."""
        self._overrides_countdown = 0

    def report(self) -> str:
        """Return one status report."""
        m = self._m
        inches, mask = m.eeprom.is_on(13), int(m.eeprom[10])
        fields = [state_word(m), self._position(inches, machine=bool(mask & 1))]
        if mask & 2:
            free = PLANNER_BLOCKS - len(m.engine.blocks)
            fields.append(f"Bf:{free},{max(RX_REPORTED - len(m.uart.received), 0)}")
        feed = m.engine.reported_speed_mm_s(m.now_s) * 60
        fields.append(
            f"FS:{feed / MM_PER_INCH if inches else feed:.{1 if inches else 0}f},{m.spindle_rpm():.0f}"
        )
        if pins := m.pins():
            fields.append(f"Pn:{pins}")
        return f"<{'|'.join(fields + self._occasional(inches))}>"

    def _position(self, inches: bool, *, machine: bool) -> str:
        mpos = self._m.machine_mm()
        if machine:
            return f"MPos:{coordinates(mpos, inches)}"
        work = [m - o for m, o in zip(mpos, self._m.work_offset_mm(), strict=True)]
        return f"WPos:{coordinates(work, inches)}"

    def _occasional(self, inches: bool) -> list[str]:
        """Offset and overrides never share a report: the second waits for the next one."""
        busy = self._m.state in _BUSY
        if self._offset_countdown == 0:
            self._offset_countdown = _WCO_EVERY[busy] - 1
            self._overrides_countdown = max(self._overrides_countdown - 1, 0)
            return [f"WCO:{coordinates(self._m.work_offset_mm(), inches)}"]
        self._offset_countdown -= 1
        if self._overrides_countdown > 0:
            self._overrides_countdown -= 1
            return []
        self._overrides_countdown = _OVERRIDES_EVERY[busy] - 1
        return self._overrides()

    def _overrides(self) -> list[str]:
        m = self._m
        now = m.engine.overrides
        spindle = _SPINDLE_LETTERS.get(m.outputs.spindle, "") if m.spindle_rpm() else ""
        accessories = spindle + "".join(x for x, code in _COOLANTS if code in m.outputs.coolant)
        return [f"Ov:{now.feed},{now.rapid},{now.spindle}", *([f"A:{accessories}"] if accessories else [])]


def state_word(machine: GrblMachine) -> str:
    """Return the first field: the state, with its sub-state where it has one."""
    if machine.state is State.HOLD:
        return f"Hold:{int(machine.engine.decelerating)}"
    if machine.state is not State.DOOR:
        return str(machine.state)
    if machine.restoring:
        return "Door:3"
    return "Door:0" if machine.retracted else "Door:2"


def coordinates(values_mm: Sequence[float] | Axes, inches: bool) -> str:
    """Print coordinates as the firmware does: three decimals, four in inches."""
    if inches:
        return ",".join(f"{v / MM_PER_INCH + 0.0:.4f}" for v in values_mm)
    return ",".join(f"{v + 0.0:.3f}" for v in values_mm)
