"""The simulated firmware's main program, written as the firmware is: one loop that blocks.

It is a generator: it yields the latest time at which it wants to go on, and is resumed after every event.
An aborted line still gets its ``ok``, just before the banner, as on the real firmware.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from rig.sim.grbl_foreground import Foreground, Program
from rig.sim.grbl_interpreter import Interpreter
from rig.sim.grbl_machine import GrblMachine
from rig.sim.grbl_state import State
from rig.sim.grbl_system import SystemLines

BANNER = "Grbl 1.1h ['$' for help]"
_LINE_CHARACTERS = 80


class GrblProgram:
    """Main loop: characters into lines, lines into answers.

    Args:
        machine: What it drives.
        blackout: Begins a time in which interrupts are off and incoming bytes are lost; returns how long it lasts.
    """

    def __init__(self, machine: GrblMachine, blackout: Callable[[], float]) -> None:
        self._m = machine
        self._fg = Foreground(machine, blackout)
        self._interpreter = Interpreter(machine, self._fg)
        self._system = SystemLines(machine, self._fg, self._interpreter)

    def run(self) -> Program:
        """Run from power-up for ever."""
        m = self._m
        m.state = State.ALARM if m.eeprom.is_on(22) else State.IDLE
        while True:
            self._fg.begin()
            m.begin_session()
            m.send("")
            m.send(BANNER)
            yield from self._greet()
            yield from self._serve()

    def _greet(self) -> Program:
        m = self._m
        if m.eeprom.is_on(21) and m.switch_pressed() != m.eeprom.is_on(5):
            m.state = State.ALARM
            m.send("[MSG:Check Limits]")
        if m.state in {State.ALARM, State.SLEEP}:
            m.state = State.ALARM
            m.send("[MSG:'$H'|'$X' to unlock]")
            return
        m.state = State.IDLE
        yield from self._system.start_up()

    def _serve(self) -> Program:
        """Collect characters into lines and answer each, until a reset."""
        m, fg = self._m, self._fg
        assembler = _LineAssembler()
        while not fg.aborted():
            while m.uart.received and not fg.aborted():
                line = assembler.add(m.uart.received.popleft())
                if line is not None:
                    yield from fg.runtime()
                    if not fg.aborted():
                        yield from self._answer(line)
            m.start()
            yield from fg.runtime()
            if not fg.aborted() and not m.uart.received:
                yield math.inf

    def _answer(self, line: str) -> Program:
        m = self._m
        if len(line) >= _LINE_CHARACTERS:
            error = 11
        elif not line:
            error = 0
        elif line[0] == "$":
            error = yield from self._system.execute(line)
        elif m.state in {State.ALARM, State.JOG}:
            error = 9
        else:
            error = yield from self._interpreter.execute(line)
        m.send(f"error:{error}" if error else "ok")
        yield from self._fg.drain_output()


class _LineAssembler:
    """Drops spaces and comments, turns to upper case; a line too long comes out longer than allowed."""

    def __init__(self) -> None:
        self._text = ""
        self._comment = ""

    def add(self, byte: int) -> str | None:
        """Add a character; returns the line when it ends one."""
        character = chr(byte)
        if character in "\r\n":
            line, self._text, self._comment = self._text, "", ""
            return line
        if self._comment:
            if self._comment == "(" and character == ")":
                self._comment = ""
        elif len(self._text) >= _LINE_CHARACTERS:
            return None
        elif character in "(;":
            self._comment = character
        elif character > " " and character != "/":
            self._text += character.upper()
        return None
