"""The words of a G-code line as GRBL 1.1 reads them: commands by modal group, values by letter.

The firmware refuses a line at the first word it cannot take, so the order of the checks here is part of the
behaviour: ``G0 G1`` is an axis command conflict (24), ``G90 G91`` a modal group violation (21).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_GROUPS: Mapping[int, str] = {
    **dict.fromkeys((4, 10, 28, 30, 53, 92), "once"),
    **dict.fromkeys((0, 1, 2, 3, 38, 80), "motion"),
    **dict.fromkeys((17, 18, 19), "plane"),
    **dict.fromkeys((20, 21), "units"),
    **dict.fromkeys((90, 91), "distance"),
    **dict.fromkeys((93, 94), "feed mode"),
    40: "cutter",
    **dict.fromkeys((43, 49), "tool length"),
    **dict.fromkeys(range(54, 60), "coordinates"),
    61: "control",
}
_M_GROUPS: Mapping[int, str] = {
    **dict.fromkeys((0, 1, 2, 30), "stop"),
    **dict.fromkeys((3, 4, 5), "spindle"),
    **dict.fromkeys((7, 8, 9), "coolant"),
}
_AXIS_COMMANDS: Mapping[int, str] = {
    **dict.fromkeys((10, 28, 30, 92), "once"),
    **dict.fromkeys((0, 1, 2, 3, 38), "motion"),
    **dict.fromkeys((43, 49), "tool length"),
}
_HUNDREDTHS: Mapping[int, tuple[int, ...]] = {
    28: (0, 10),
    30: (0, 10),
    38: (20, 30, 40, 50),
    43: (10,),
    61: (0,),
    90: (0,),
    91: (0, 10),
    92: (0, 10),
}
"""Decimals that a code may or must have; another one is an unsupported command (20), not a bad number (23)."""
_VALUE_LETTERS = frozenset("FIJKLNPRSTXYZ")
_NEVER_NEGATIVE = frozenset("FNPTS")
_LAST_TOOL = 255


class GcodeError(Exception):
    """A line is refused; `number` is GRBL's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"error:{number}")
        self.number = number


def read_number(text: str, place: int) -> tuple[float, int]:
    """Read a number; returns it and the place behind it. Raises `GcodeError` 2 where none stands."""
    match = _NUMBER.match(text, place)
    if match is None:
        raise GcodeError(2)
    return float(match[0]), match.end()


class Words:
    """One line's words.

    Args:
        text: Upper case, without spaces and comments.
        mist: Whether M7 is compiled in.

    Attributes:
        codes: Modal group to code, e.g. ``{"motion": "G1"}``.
        values: Letter to value as written.
        axis_command: Which explicit command claims the axis words: ``motion``, ``once``, ``tool length`` or none.

    Raises:
        GcodeError: The line is refused.
    """

    def __init__(self, text: str, *, mist: bool = False) -> None:
        self._mist = mist
        self.codes: dict[str, str] = {}
        self.values: dict[str, float] = {}
        self.axis_command = ""
        place = 0
        while place < len(text):
            letter = text[place]
            if not "A" <= letter <= "Z":
                raise GcodeError(1)
            value, place = read_number(text, place + 1)
            self._take(letter, value)

    @property
    def axes(self) -> frozenset[str]:
        """The axis letters on the line."""
        return frozenset(self.values) & frozenset("XYZ")

    @property
    def once(self) -> str:
        """The command that holds for this line only, e.g. ``G53``."""
        return self.codes.get("once", "")

    def _take(self, letter: str, value: float) -> None:
        if letter == "G":
            self._take_g(value)
        elif letter == "M":
            self._take_m(value)
        else:
            self._take_value(letter, value)

    def _take_g(self, value: float) -> None:
        number = int(value) & 0xFF
        hundredths = round(100 * (value - number))
        if number not in _GROUPS:
            raise GcodeError(20)
        self._claim_axes(number, hundredths)
        if number in _HUNDREDTHS and hundredths not in _HUNDREDTHS[number]:
            raise GcodeError(20)
        if hundredths and number not in _HUNDREDTHS and number != 49:
            raise GcodeError(23)
        group = "arc distance" if number == 91 and hundredths else _GROUPS[number]
        decimal = hundredths // 10 if number != 49 else 0
        self._enter(group, f"G{number}.{decimal}" if decimal else f"G{number}")

    def _claim_axes(self, number: int, hundredths: int) -> None:
        claims = _AXIS_COMMANDS.get(number, "")
        if not claims or (claims == "once" and hundredths):
            return
        if self.axis_command:
            raise GcodeError(24)
        self.axis_command = claims

    def _take_m(self, value: float) -> None:
        if value != int(value):
            raise GcodeError(23)
        number = int(value) & 0xFF
        if number not in _M_GROUPS or (number == 7 and not self._mist):
            raise GcodeError(20)
        self._enter(_M_GROUPS[number], f"M{number}")

    def _enter(self, group: str, code: str) -> None:
        if group in self.codes:
            raise GcodeError(21)
        self.codes[group] = code

    def _take_value(self, letter: str, value: float) -> None:
        if letter not in _VALUE_LETTERS:
            raise GcodeError(20)
        if letter == "T" and value > _LAST_TOOL:
            raise GcodeError(38)
        if letter in self.values:
            raise GcodeError(25)
        if letter in _NEVER_NEGATIVE and value < 0:
            raise GcodeError(4)
        self.values[letter] = value
