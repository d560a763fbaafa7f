"""What the simulated firmware does with a G-code line that passed its checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from rig.sim.grbl_foreground import Answer, Foreground, Program
from rig.sim.grbl_gcode import GcodeError, GcodeLine, Modes, parse
from rig.sim.grbl_machine import ZERO, GrblMachine
from rig.sim.grbl_planner import PLANNER_BLOCKS, Axes, Overrides
from rig.sim.grbl_report import coordinates
from rig.sim.grbl_state import Outputs, State

_PARSE_S = 0.0005
_DWELL_STEP_S = 0.05
_CUTTING = frozenset({"G1", "G2", "G3"})
_PROBES_AWAY = frozenset({"G38.4", "G38.5"})
_PROBES_WITHOUT_ERROR = frozenset({"G38.3", "G38.5"})


class Interpreter:
    """Executes G-code.

    Args:
        machine: What it drives.
        foreground: How it waits.
    """

    def __init__(self, machine: GrblMachine, foreground: Foreground) -> None:
        self._m, self._fg = machine, foreground

    def execute(self, text: str) -> Answer:
        """Execute one line; returns 0 or the number of the error."""
        m = self._m
        yield from self._fg.pause(_PARSE_S)
        if self._fg.aborted():
            return 0
        try:
            line = parse(text, m.frame())
        except GcodeError as error:
            return error.number
        yield from self._accessories(line)
        yield from self._dwell(line)
        self._take_modes(line)
        yield from self._once(line)
        if line.moves:
            yield from self._motion(line)
        yield from self._stop(line.codes.get("stop", ""))
        return 0

    def _accessories(self, line: GcodeLine) -> Program:
        """Spindle and coolant wait for the motion before them; a laser's power follows the motion itself."""
        m = self._m
        before, after = m.modes, line.modes
        m.modes = replace(before, feed=after.feed, feed_mode=after.feed_mode, tool=after.tool)
        speed_changed = after.spindle_rpm != before.spindle_rpm and before.spindle != "M5"
        in_motion = m.eeprom.is_on(32) and line.moves
        if after.spindle != before.spindle or (speed_changed and not in_motion):
            yield from self._switch(replace(m.outputs, spindle=after.spindle, rpm=self._power(after)))
        elif speed_changed and m.state is not State.CHECK:
            m.outputs = replace(m.outputs, rpm=self._power(after))
        m.modes = replace(m.modes, spindle=after.spindle, spindle_rpm=after.spindle_rpm)
        if after.coolant != before.coolant:
            yield from self._switch(replace(m.outputs, coolant=after.coolant))
        m.modes = replace(m.modes, coolant=after.coolant)

    def _power(self, after: Modes) -> float:
        dark = self._m.eeprom.is_on(32) and after.motion not in _CUTTING
        return 0.0 if dark or after.spindle == "M5" else after.spindle_rpm

    def _switch(self, outputs: Outputs) -> Program:
        if self._m.state is State.CHECK:
            return
        yield from self._fg.synchronise()
        if not self._fg.aborted():
            self._m.set_outputs(outputs)

    def _dwell(self, line: GcodeLine) -> Program:
        """G4 is the barrier: it begins when the planner has emptied, and lasts whole steps of 50 ms."""
        m = self._m
        if line.once != "G4" or m.state is State.CHECK:
            return
        yield from self._fg.synchronise()
        if not self._fg.aborted():
            steps = min(math.ceil(line.values["P"] / _DWELL_STEP_S - 1e-6), 0xFFFF)
            yield from self._fg.pause(steps * _DWELL_STEP_S)

    def _take_modes(self, line: GcodeLine) -> None:
        """The output modes stay as they are: a byte may have toggled the flood meanwhile."""
        m = self._m
        if line.tool_mm is not None and line.tool_mm != m.tool_mm:
            m.tool_mm = line.tool_mm
            m.reporter.offset_changed()
        if line.modes.coordinates != m.modes.coordinates:
            m.reporter.offset_changed()
        m.modes = replace(line.modes, coolant=m.modes.coolant)

    def _once(self, line: GcodeLine) -> Program:
        m, once = self._m, line.once
        if once == "G10":
            yield from self._fg.synchronise()
            m.eeprom.coordinates.update(line.stored)
            m.reporter.offset_changed()
            yield from self._fg.write_eeprom()
        elif once in {"G28.1", "G30.1"}:
            yield from self._fg.synchronise()
            m.eeprom.coordinates[once.removesuffix(".1")] = m.position_mm
            yield from self._fg.write_eeprom()
        elif once in {"G92", "G92.1"}:
            yield from self._fg.synchronise()
            m.g92 = line.stored.get("G92", ZERO)
            m.reporter.offset_changed()
        elif once in {"G28", "G30"}:
            yield from self._go_to_stored(line)

    def _go_to_stored(self, line: GcodeLine) -> Program:
        if line.through:
            yield from self.move(line.target_mm, line, rapid=True)
        stored, named = self._m.eeprom.coordinates[line.once], line.values.keys() & set("XYZ")
        x, y, z = (
            stored[i] if not named or letter in named else self._m.position_mm[i]
            for i, letter in enumerate("XYZ")
        )
        yield from self.move((x, y, z), line, rapid=True)

    def _motion(self, line: GcodeLine) -> Program:
        motion = line.modes.motion
        if line.arc is not None:
            yield from self._arc(line)
        elif motion.startswith("G38"):
            yield from self._probe(line)
        else:
            yield from self.move(line.target_mm, line, rapid=motion == "G0")

    def _arc(self, line: GcodeLine) -> Program:
        m = self._m
        if line.arc is None:
            return
        tolerance = m.eeprom[12]
        begin = m.position_mm
        count = max(line.arc.segments(begin, line.target_mm, tolerance), 1)
        points: Iterator[Axes] = line.arc.points(begin, line.target_mm, tolerance)
        for point in points:
            yield from self.move(point, line, segments=count)
            if self._fg.aborted():
                return

    def _probe(self, line: GcodeLine) -> Program:
        """Nothing is wired to the probe's input, so that no probing ends in a contact."""
        m, motion = self._m, line.modes.motion
        if m.state is State.CHECK:
            m.position_mm = line.target_mm
            return
        yield from self._fg.synchronise()
        if self._fg.aborted():
            return
        if m.eeprom.is_on(6) != (motion in _PROBES_AWAY):
            m.alarm = 4
            yield from self._fg.runtime()
            return
        yield from self.move(line.target_mm, line, overridable=False)
        yield from self._fg.synchronise()
        if self._fg.aborted():
            return
        if motion in _PROBES_WITHOUT_ERROR:
            m.probe = m.machine_mm(), 0
        else:
            m.alarm = 5
            yield from self._fg.runtime()
        m.send(f"[PRB:{coordinates(m.probe[0], m.eeprom.is_on(13))}:0]")

    def move(
        self,
        target_mm: Axes,
        line: GcodeLine,
        *,
        rapid: bool = False,
        overridable: bool = True,
        segments: int = 1,
    ) -> Program:
        """Queue one straight move, waiting for room; trips the soft limit instead where it would leave."""
        m = self._m
        if m.eeprom.is_on(20) and m.outside_travel(target_mm):
            yield from self._trip_soft_limit()
            return
        if m.state is not State.CHECK:
            yield from self.make_room()
            if self._fg.aborted():
                return
            inverse = line.modes.feed_mode == "G93" and not rapid
            m.queue(
                target_mm,
                line.modes.feed / 60,
                rapid=rapid,
                overridable=overridable,
                moves_per_s=line.modes.feed / 60 * segments if inverse else None,
            )
        m.position_mm = target_mm

    def make_room(self) -> Program:
        """Wait for a free block; a full planner begins to execute."""
        m = self._m
        if len(m.engine.blocks) >= PLANNER_BLOCKS:
            m.start()
        yield from self._fg.wait(lambda: len(m.engine.blocks) < PLANNER_BLOCKS)

    def _trip_soft_limit(self) -> Program:
        m = self._m
        if m.state is State.RUN:
            m.hold()
            while not m.reset_pending and m.engine.running:
                yield math.inf
            m.state = State.IDLE
        if not m.reset_pending:
            m.reset()
            m.alarm = 2
        yield from self._fg.runtime()

    def _stop(self, code: str) -> Program:
        m = self._m
        if code in {"", "M1"} or self._fg.aborted():
            return
        yield from self._fg.synchronise()
        if self._fg.aborted():
            return
        if code == "M0":
            m.hold()
            yield from self._fg.runtime()
        else:
            self._end_program()

    def _end_program(self) -> None:
        m = self._m
        kept = m.modes
        m.modes = replace(
            Modes(),
            motion="G1",
            units=kept.units,
            feed=kept.feed,
            spindle_rpm=kept.spindle_rpm,
            tool=kept.tool,
        )
        m.engine.set_overrides(Overrides(), m.now_s)
        if m.state is not State.CHECK:
            m.reporter.offset_changed()
            m.set_outputs(Outputs())
        m.send("[MSG:Pgm End]")
