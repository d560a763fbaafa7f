"""The simulated firmware's main program, written as the firmware is: one loop that blocks.

It is a generator: it yields the latest time at which it wants to go on, and is resumed after every event.
An aborted line still gets its ``ok``, just before the banner, as on the real firmware.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator
from dataclasses import replace

from rig.sim.grbl_eeprom import WRITE_S
from rig.sim.grbl_gcode import GcodeError, GcodeLine, Modes, parse, parse_jog
from rig.sim.grbl_machine import ZERO, GrblMachine, State, coordinates
from rig.sim.grbl_planner import PLANNER_BLOCKS, Axes

BANNER = "Grbl 1.1h ['$' for help]"
VERSION = "1.1h.20190830"
_HELP = "[HLP:$$ $# $G $I $N $x=val $Nx=line $J=line $SLP $C $X $H ~ ! ? ctrl-x]"
_LINE_CHARACTERS = 80
_PARSE_S = 0.0005
_CRITICAL_PAUSE_S = 0.010
_SEARCH_TRAVELS = 1.5
_LOCATE_PULL_OFFS = 5.0
_SETTING = re.compile(r"\$(\d{1,3})=(.*)")
_START_UP = re.compile(r"\$N([01])=(.*)")
_EEPROM_CODES = frozenset({"G10", "G28.1", "G30.1"})
Program = Generator[float, None, None]
Answer = Generator[float, None, int]


class GrblProgram:
    """Main loop, lines, system commands, G-code and homing.

    Args:
        machine: What it drives.
        blackout: Called with a duration in s while interrupts are off and incoming bytes are lost.
    """

    def __init__(self, machine: GrblMachine, blackout: Callable[[float], None]) -> None:
        self._m = machine
        self._blackout = blackout
        self._abort = False

    def run(self) -> Program:
        """Run from power-up for ever."""
        m = self._m
        m.state = State.ALARM if m.eeprom.is_on(22) else State.IDLE
        while True:
            self._abort = False
            m.begin_session()
            m.send("")
            m.send(BANNER)
            yield from self._greet()
            yield from self._serve()

    def _greet(self) -> Program:
        m = self._m
        if m.eeprom.is_on(21) and m.switch_pressed():
            m.state = State.ALARM
            m.send("[MSG:Check Limits]")
        if m.state in {State.ALARM, State.SLEEP}:
            m.state = State.ALARM
            m.send("[MSG:'$H'|'$X' to unlock]")
            return
        m.state = State.IDLE
        for line in filter(None, m.eeprom.start_up):
            error = yield from self._gcode(line)
            m.send(f">{line}:{'ok' if error == 0 else f'error:{error}'}")

    def _serve(self) -> Program:
        """Collect characters into lines and answer each, until a reset."""
        m = self._m
        assembler = _LineAssembler()
        while not self._abort:
            while m.uart.received and not self._abort:
                line = assembler.add(m.uart.received.popleft())
                if line is not None:
                    yield from self._runtime()
                    if not self._abort:
                        yield from self._answer(line)
            m.start()
            yield from self._runtime()
            if not self._abort and not m.uart.received:
                yield math.inf

    def _answer(self, line: str) -> Program:
        m = self._m
        if len(line) >= _LINE_CHARACTERS:
            error = 11
        elif not line:
            error = 0
        elif line[0] == "$":
            error = yield from self._system(line)
        elif m.state in {State.ALARM, State.JOG}:
            error = 9
        else:
            error = yield from self._gcode(line)
        m.send(f"error:{error}" if error else "ok")

    def _runtime(self) -> Program:
        """Do what the interrupts asked for; stands still while a hold lasts."""
        m = self._m
        while True:
            if m.alarm:
                yield from self._announce_alarm()
            if m.reset_pending:
                m.reset_pending, self._abort = False, True
            if self._abort or not m.suspended:
                return
            yield math.inf

    def _announce_alarm(self) -> Program:
        m = self._m
        number, m.alarm = m.alarm, 0
        m.state = State.ALARM
        m.send(f"ALARM:{number}")
        if number > 2:
            return
        m.deaf = True
        until_s = m.now_s + _CRITICAL_PAUSE_S
        while m.now_s < until_s:
            yield until_s
        m.send("[MSG:Reset to continue]")
        m.reset_pending = False  # whatever came until here is lost
        while not m.reset_pending:
            yield math.inf
        m.deaf = False

    def _wait(self, ready: Callable[[], bool], *, until_s: float = math.inf) -> Program:
        while True:
            yield from self._runtime()
            if self._abort or ready():
                return
            yield until_s

    def _pause(self, duration_s: float) -> Program:
        until_s = self._m.now_s + duration_s
        yield from self._wait(lambda: self._m.now_s >= until_s, until_s=until_s)

    def _write_eeprom(self) -> Program:
        self._blackout(WRITE_S)
        yield from self._pause(WRITE_S)

    def _synchronise(self) -> Program:
        """Wait until everything queued has been executed."""
        self._m.start()
        yield from self._wait(lambda: not self._m.engine.blocks)

    # System commands

    def _system(self, line: str) -> Answer:
        m = self._m
        if line in {"$", "$G", "$C", "$X"}:
            return self._simple(line)
        if line.startswith("$J"):
            return (yield from self._jog(line))
        if line == "$$" and m.state in {State.RUN, State.HOLD}:
            return 8
        if line == "$$":
            self._send_all(m.eeprom.listing())
            return 0
        if m.state not in {State.IDLE, State.ALARM}:
            return 8
        return (yield from self._at_rest(line))

    def _at_rest(self, line: str) -> Answer:
        m = self._m
        listings: dict[str, Callable[[], list[str]]] = {
            "$#": self._offsets,
            "$I": lambda: [f"[VER:{VERSION}:{m.eeprom.build_info}]", "[OPT:V,15,128]"],
            "$N": lambda: [f"$N{i}={text}" for i, text in enumerate(m.eeprom.start_up)],
        }
        if line in listings:
            self._send_all(listings[line]())
            return 0
        if line == "$H":
            return (yield from self._home())
        if line == "$SLP":
            m.state = State.SLEEP
            m.send("[MSG:Sleeping]")
            return 0
        return (yield from self._store(line))

    def _store(self, line: str) -> Answer:
        m = self._m
        if match := _SETTING.fullmatch(line):
            error = m.eeprom.store(int(match[1]), match[2])
        elif match := _START_UP.fullmatch(line):
            error = 8 if m.state is not State.IDLE else self._store_start_up(int(match[1]), match[2])
        elif line.startswith("$I="):
            m.eeprom.build_info, error = line[3:], 0
        elif line in {"$RST=$", "$RST=#", "$RST=*"}:
            m.eeprom.restore(line[-1])
            m.send("[MSG:Restoring defaults]")
            m.reset()
            error = 0
        else:
            error = 3
        if not error:
            yield from self._write_eeprom()
        return error

    def _store_start_up(self, number: int, text: str) -> int:
        try:
            parse(text, self._m.modes)
        except GcodeError as error:
            return error.number
        self._m.eeprom.start_up[number] = text
        return 0

    def _simple(self, line: str) -> int:
        m = self._m
        if line == "$":
            m.send(_HELP)
        elif line == "$G":
            m.send(m.modes.listing())
        elif line == "$X" and m.state is State.ALARM:
            m.send("[MSG:Caution: Unlocked]")
            m.state = State.IDLE
        elif line == "$C":
            return self._check_mode()
        return 0

    def _check_mode(self) -> int:
        m = self._m
        if m.state is State.CHECK:
            m.reset()
            m.send("[MSG:Disabled]")
        elif m.state is State.IDLE:
            m.state = State.CHECK
            m.send("[MSG:Enabled]")
        else:
            return 8
        return 0

    def _offsets(self) -> list[str]:
        m = self._m
        inches = m.eeprom.is_on(13)
        named = {**m.eeprom.coordinates, "G92": m.g92}
        lines = [f"[{name}:{coordinates(values, inches)}]" for name, values in named.items()]
        return [*lines, f"[TLO:{coordinates((0.0,), inches)}]", f"[PRB:{coordinates(ZERO, inches)}:0]"]

    def _send_all(self, lines: list[str]) -> None:
        for line in lines:
            self._m.send(line)

    # Jogging and homing

    def _jog(self, line: str) -> Answer:
        m = self._m
        if m.state not in {State.IDLE, State.JOG}:
            return 8
        if not line.startswith("$J="):
            return 3
        try:
            parsed = parse_jog(line[3:], m.modes)
        except GcodeError as error:
            return error.number
        target = self._target(parsed)
        if m.eeprom.is_on(20) and m.outside_travel(target):
            return 15
        yield from self._make_room()
        if not self._abort and m.queue(target, parsed.modes.feed_mm_min / 60):
            m.position_mm = target
            m.start(State.JOG)
        return 0

    def _home(self) -> Answer:
        """Approach fast, back off, approach slowly, back off; the switch stops an approach dead."""
        m, e = self._m, self._m.eeprom
        if not e.is_on(22):
            return 5
        m.state = State.HOME
        direction = -1 if int(e[23]) & 1 else 1
        pull_off = e[27]
        stages = (
            (True, direction * _SEARCH_TRAVELS * e[130], e[25]),
            (False, -direction * pull_off, e[25]),
            (True, direction * _LOCATE_PULL_OFFS * pull_off, e[24]),
            (False, -direction * pull_off, e[25]),
        )
        for approach, distance_mm, rate_mm_min in stages:
            error = yield from self._homing_stage(approach, distance_mm, rate_mm_min / 60)
            if self._abort or error:
                return 0
        x_mm = -e[130] + pull_off if direction < 0 else -pull_off
        m.set_steps((round(x_mm * e[100]), *m.engine.steps[1:]))
        m.state = State.IDLE
        return 0

    def _homing_stage(self, approach: bool, distance_mm: float, rate_mm_s: float) -> Answer:
        m = self._m
        m.approaching = approach
        if not (approach and m.switch_pressed()):
            x, y, z = m.machine_mm()
            m.queue((x + distance_mm, y, z), rate_mm_s, system=True)
            m.start(State.HOME)
        yield from self._wait(lambda: not m.engine.running)
        if self._abort:
            return 0
        if m.switch_pressed() != approach:
            m.alarm = 9 if approach else 8
            m.reset()
            yield from self._runtime()
            return m.alarm or 9
        yield from self._pause(m.eeprom[26] / 1000)
        return 0

    # G-code

    def _gcode(self, line: str) -> Answer:
        m = self._m
        yield from self._pause(_PARSE_S)
        if self._abort:
            return 0
        try:
            parsed = parse(line, m.modes)
        except GcodeError as error:
            return error.number
        if m.state is State.CHECK:
            m.modes = parsed.modes
            return 0
        if {"spindle", "coolant"} & parsed.codes.keys() or parsed.once in {"G4", *_EEPROM_CODES}:
            yield from self._synchronise()
        if parsed.modes.coordinates != m.modes.coordinates:
            m.refresh_offsets()
        m.modes = parsed.modes
        yield from self._execute(parsed)
        yield from self._stop_code(parsed.codes.get("stop", ""))
        return 0

    def _execute(self, line: GcodeLine) -> Program:
        m = self._m
        if line.once == "G4":
            yield from self._pause(line.words["P"])
        elif line.once in _EEPROM_CODES:
            self._store_coordinates(line)
            yield from self._write_eeprom()
        elif line.once in {"G92", "G92.1"}:
            m.g92 = ZERO if line.once == "G92.1" else self._g92(line)
            m.refresh_offsets()
        elif line.once in {"G28", "G30"}:
            yield from self._go_to_stored(line)
        elif line.moves:
            yield from self._move(
                self._target(line), line.modes.feed_mm_min / 60, rapid=line.modes.motion == "G0"
            )

    def _go_to_stored(self, line: GcodeLine) -> Program:
        if line.axes:
            yield from self._move(self._target(line), 0.0, rapid=True)
        stored = self._m.eeprom.coordinates[line.once]
        named = line.axes or dict.fromkeys(range(3), 0.0)
        x, y, z = (stored[i] if i in named else p for i, p in enumerate(self._m.position_mm))
        yield from self._move((x, y, z), 0.0, rapid=True)

    def _store_coordinates(self, line: GcodeLine) -> None:
        m = self._m
        if line.once != "G10":
            m.eeprom.coordinates[line.once.removesuffix(".1")] = m.position_mm
            return
        number = int(line.words["P"])
        name = m.modes.coordinates if number == 0 else f"G{53 + number}"
        values = list(m.eeprom.coordinates[name])
        for axis, value in line.axes.items():
            relative = line.words["L"] == 20
            values[axis] = m.position_mm[axis] - m.g92[axis] - value if relative else value
        m.eeprom.coordinates[name] = (values[0], values[1], values[2])
        m.refresh_offsets()

    def _g92(self, line: GcodeLine) -> Axes:
        m = self._m
        base = m.eeprom.coordinates[m.modes.coordinates]
        x, y, z = (
            m.position_mm[i] - base[i] - line.axes[i] if i in line.axes else m.g92[i] for i in range(3)
        )
        return x, y, z

    def _target(self, line: GcodeLine) -> Axes:
        """Return where a line's axis words lead, machine coordinates."""
        m = self._m
        offset = ZERO if line.once == "G53" else m.work_offset_mm()
        relative = line.modes.distance == "G91" and line.once != "G53"
        x, y, z = (
            p if i not in line.axes else line.axes[i] + (p if relative else offset[i])
            for i, p in enumerate(m.position_mm)
        )
        return x, y, z

    def _move(self, target_mm: Axes, rate_mm_s: float, *, rapid: bool) -> Program:
        m = self._m
        if m.eeprom.is_on(20) and m.outside_travel(target_mm):
            yield from self._trip_soft_limit()
            return
        yield from self._make_room()
        if not self._abort:
            m.queue(target_mm, rate_mm_s, rapid=rapid)
            m.position_mm = target_mm

    def _make_room(self) -> Program:
        m = self._m
        if len(m.engine.blocks) >= PLANNER_BLOCKS:
            m.start()
        yield from self._wait(lambda: len(m.engine.blocks) < PLANNER_BLOCKS)

    def _trip_soft_limit(self) -> Program:
        m = self._m
        if m.state is State.RUN:
            m.engine.hold(m.now_s)
            yield from self._wait(lambda: not m.engine.running)
        m.state = State.IDLE
        m.reset()
        m.alarm = 2
        yield from self._runtime()

    def _stop_code(self, code: str) -> Program:
        m = self._m
        if not code or self._abort:
            return
        yield from self._synchronise()
        if code in {"M0", "M1"}:
            m.state = State.HOLD
            yield from self._runtime()
            return
        m.modes = replace(
            Modes(), motion="G1", units=m.modes.units, feed_mm_min=m.modes.feed_mm_min, tool=m.modes.tool
        )
        m.send("[MSG:Pgm End]")


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
        elif character in "(;":
            self._comment = character
        elif character > " " and character != "/" and len(self._text) < _LINE_CHARACTERS:
            self._text += character.upper()
        return None
