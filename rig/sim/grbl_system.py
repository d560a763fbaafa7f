"""The ``$`` lines of the simulated firmware: settings, queries, jogging and homing."""

from __future__ import annotations

from collections.abc import Callable

from rig.sim.grbl_foreground import Answer, Foreground, Program
from rig.sim.grbl_gcode import GcodeError, parse_jog
from rig.sim.grbl_interpreter import Interpreter
from rig.sim.grbl_machine import GrblMachine
from rig.sim.grbl_report import coordinates
from rig.sim.grbl_state import State
from rig.sim.grbl_words import read_number

VERSION = "1.1h.20190830"
_HELP = "[HLP:$$ $# $G $I $N $x=val $Nx=line $J=line $SLP $C $X $H ~ ! ? ctrl-x]"
_SEARCH_TRAVELS = 1.5
_LOCATE_PULL_OFFS = 5.0
_ANY_TIME = frozenset("$GCX")
_RESTORED = frozenset("$#*")
_START_UP_LINES = 2


class SystemLines:
    """Executes ``$`` lines.

    Args:
        machine: What it drives.
        foreground: How it waits.
        interpreter: Executes the G-code in them.
    """

    def __init__(self, machine: GrblMachine, foreground: Foreground, interpreter: Interpreter) -> None:
        self._m, self._fg, self._interpreter = machine, foreground, interpreter

    def execute(self, line: str) -> Answer:
        """Execute one line; returns 0 or the number of the error."""
        m, letter, rest = self._m, line[1:2], line[2:]
        if not letter:
            m.send(_HELP)
            return 0
        if letter == "J":
            return (yield from self._jog(rest))
        if letter in _ANY_TIME:
            return 3 if rest else self._any_time(letter)
        if m.state not in {State.IDLE, State.ALARM}:
            return 8
        return (yield from self._at_rest(letter, rest, line))

    def start_up(self) -> Program:
        """Run the stored start-up lines, as after a reset without alarm and after homing."""
        for line in filter(None, list(self._m.eeprom.start_up)):
            error = yield from self._interpreter.execute(line)
            self._m.send(f">{line}:{'ok' if error == 0 else f'error:{error}'}")

    def _any_time(self, letter: str) -> int:
        m = self._m
        if letter == "$":
            if m.state in {State.RUN, State.HOLD}:
                return 8
            self._send_all(m.eeprom.listing())
        elif letter == "G":
            m.send(m.modes.listing(inches=m.eeprom.is_on(13)))
        elif letter == "C":
            return self._check_mode()
        elif m.state is State.ALARM:
            m.send("[MSG:Caution: Unlocked]")
            m.state = State.IDLE
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

    def _at_rest(self, letter: str, rest: str, line: str) -> Answer:
        longer: dict[str, Callable[[str], Answer]] = {
            "H": self._home,
            "I": self._build_info,
            "R": self._restore,
            "N": self._start_up_lines,
        }
        if letter in longer:
            return (yield from longer[letter](rest))
        if letter == "#":
            return 3 if rest else self._send_all(self._offsets())
        if letter == "S":
            self._m.sleep_requested = rest == "LP"
            return 0 if rest == "LP" else 3
        return (yield from self._setting(line))

    def _build_info(self, rest: str) -> Answer:
        m = self._m
        if not rest:
            return self._send_all(
                [f"[VER:{VERSION}:{m.eeprom.build_info}]", f"[OPT:{'VM' if m.mist else 'V'},15,128]"]
            )
        if rest[0] != "=":
            return 3
        m.eeprom.build_info = rest[1:]
        yield from self._fg.write_eeprom()
        return 0

    def _restore(self, rest: str) -> Answer:
        m = self._m
        if rest[:3] != "ST=" or rest[3:] not in _RESTORED:
            return 3
        m.eeprom.restore(rest[3:])
        yield from self._fg.write_eeprom()
        m.send("[MSG:Restoring defaults]")
        m.reset()
        return 0

    def _start_up_lines(self, rest: str) -> Answer:
        """Storing a line executes it first, on the real firmware, too."""
        m = self._m
        if not rest:
            return self._send_all([f"$N{i}={text}" for i, text in enumerate(m.eeprom.start_up)])
        if m.state is not State.IDLE:
            return 8
        try:
            number, place = read_number(rest, 0)
        except GcodeError as error:
            return error.number
        if rest[place : place + 1] != "=":
            return 3
        text = rest[place + 1 :]
        error_number = yield from self._interpreter.execute(text)
        if error_number or self._fg.aborted():
            return error_number
        yield from self._fg.synchronise()
        if 0 <= number < _START_UP_LINES:
            m.eeprom.start_up[int(number)] = text
        yield from self._fg.write_eeprom()
        return 0

    def _setting(self, line: str) -> Answer:
        try:
            number, place = read_number(line, 1)
            if line[place : place + 1] != "=":
                return 3
            value, place = read_number(line, place + 1)
        except GcodeError as error:
            return error.number
        if line[place:] or number > 255:
            return 3
        error_number = self._m.eeprom.store(int(number), value)
        if error_number:
            return error_number
        if int(number) == 13:
            self._m.reporter.offset_changed()
        yield from self._fg.write_eeprom()
        return 0

    def _offsets(self) -> list[str]:
        m = self._m
        inches = m.eeprom.is_on(13)
        named = {**m.eeprom.coordinates, "G92": m.g92}
        lines = [f"[{name}:{coordinates(values, inches)}]" for name, values in named.items()]
        place_mm, found = m.probe
        return [
            *lines,
            f"[TLO:{coordinates((m.tool_mm,), inches)}]",
            f"[PRB:{coordinates(place_mm, inches)}:{found}]",
        ]

    def _send_all(self, lines: list[str]) -> int:
        for line in lines:
            self._m.send(line)
        return 0

    def _jog(self, rest: str) -> Answer:
        m = self._m
        if m.state not in {State.IDLE, State.JOG}:
            return 8
        if rest[:1] != "=":
            return 3
        try:
            line = parse_jog(rest[1:], m.frame())
        except GcodeError as error:
            return error.number
        if m.eeprom.is_on(20) and m.outside_travel(line.target_mm):
            return 15
        yield from self._interpreter.make_room()
        if not self._fg.aborted():
            m.queue(line.target_mm, line.modes.feed / 60, overridable=False)
            m.position_mm = line.target_mm
            m.start(State.JOG)
        return 0

    def _home(self, rest: str) -> Answer:
        """Approach fast, back off, approach slowly, back off; the switch stops an approach dead."""
        m, e = self._m, self._m.eeprom
        if not e.is_on(22):
            return 5
        m.state = State.HOME
        if rest:
            return 3  # the firmware forgets to leave the state: only a reset ends it
        m.homing = True
        direction = -1 if int(e[23]) & 1 else 1
        pull_off = e[27]
        stages: tuple[tuple[bool, float, float], ...] = (
            (True, direction * _SEARCH_TRAVELS * e[130], e[25]),
            (False, -direction * pull_off, e[25]),
            (True, direction * _LOCATE_PULL_OFFS * pull_off, e[24]),
            (False, -direction * pull_off, e[25]),
        )
        for approach, distance_mm, rate_mm_min in stages:
            yield from self._homing_stage(approach, distance_mm, rate_mm_min / 60)
            if self._fg.aborted():
                return 0
        self._take_home(-e[130] + pull_off if direction < 0 else -pull_off)
        yield from self.start_up()
        return 0

    def _take_home(self, x_mm: float) -> None:
        m = self._m
        m.set_steps((round(x_mm * m.steps_per_mm[0]), *m.engine.steps[1:]))
        m.finish_homing()
        m.state = State.IDLE

    def _homing_stage(self, approach: bool, distance_mm: float, rate_mm_s: float) -> Program:
        m = self._m
        m.approaching = approach
        if not (approach and m.switch_pressed()):
            x, y, z = m.machine_mm()
            m.queue((x + distance_mm, y, z), rate_mm_s, overridable=False)
            m.start(State.HOME)
        yield from self._fg.wait(lambda: not m.engine.running)
        if self._fg.aborted():
            return
        if m.switch_pressed() != approach:
            m.alarm = 9 if approach else 8
            m.reset()
            yield from self._fg.runtime()
            return
        yield from self._fg.pause(m.eeprom[26] / 1000)
