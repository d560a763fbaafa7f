"""G-code as GRBL 1.1 reads it: words, modal groups and the errors by number.

Straight moves and everything modal; arcs (G2, G3) and probing (G38) have no use on a rail and are refused as
unsupported (error 20).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MM_PER_INCH = 25.4
_WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))?")
_GROUPS: Mapping[str, str] = {
    **dict.fromkeys(("G4", "G10", "G28", "G28.1", "G30", "G30.1", "G53", "G92", "G92.1"), "once"),
    **dict.fromkeys(("G0", "G1", "G80"), "motion"),
    **dict.fromkeys(("G17", "G18", "G19"), "plane"),
    **dict.fromkeys(("G20", "G21"), "units"),
    **dict.fromkeys(("G90", "G91"), "distance"),
    "G91.1": "arc distance",
    **dict.fromkeys(("G93", "G94"), "feed mode"),
    "G40": "cutter",
    **dict.fromkeys(("G43.1", "G49"), "tool length"),
    **dict.fromkeys((f"G{n}" for n in range(54, 60)), "coordinates"),
    "G61": "control",
    **dict.fromkeys(("M0", "M1", "M2", "M30"), "stop"),
    **dict.fromkeys(("M3", "M4", "M5"), "spindle"),
    **dict.fromkeys(("M7", "M8", "M9"), "coolant"),
}
_AXIS_CODES = frozenset({"G10", "G28", "G30", "G92", "G43.1"})
_VALUE_LETTERS = frozenset("FIJKLNPRSTXYZ")
_NEVER_NEGATIVE = frozenset("FNPTS")
_JOG_GROUPS = frozenset({"units", "distance"})
_MAX_LINE_NUMBER = 10_000_000


class GcodeError(Exception):
    """A line is refused; `number` is GRBL's."""

    def __init__(self, number: int) -> None:
        super().__init__(f"error:{number}")
        self.number = number


@dataclass(frozen=True)
class Modes:
    """The parser's modal state; lengths in mm."""

    motion: str = "G0"
    coordinates: str = "G54"
    plane: str = "G17"
    units: str = "G21"
    distance: str = "G90"
    feed_mode: str = "G94"
    spindle: str = "M5"
    coolant: frozenset[str] = frozenset()
    tool: int = 0
    feed_mm_min: float = 0.0
    spindle_rpm: float = 0.0

    def listing(self) -> str:
        """Return the line of ``$G``."""
        coolant = " ".join(sorted(self.coolant)) or "M9"
        feed = self.feed_mm_min / (MM_PER_INCH if self.units == "G20" else 1)
        return (
            f"[GC:{self.motion} {self.coordinates} {self.plane} {self.units} {self.distance} {self.feed_mode} "
            f"{self.spindle} {coolant} T{self.tool} F{feed:g} S{self.spindle_rpm:g}]"
        )


@dataclass(frozen=True)
class GcodeLine:
    """One line taken apart; `words` are the values as written."""

    codes: Mapping[str, str]
    """Modal group to code."""
    words: Mapping[str, float]
    modes: Modes
    """Modal state after this line."""
    scale: float = 1.0
    """mm per unit of length on this line."""
    once: str = ""
    """Code that holds for this line only, e.g. ``G53``."""
    axes: Mapping[int, float] = field(default_factory=dict)
    """Axis number to value, mm."""

    @property
    def moves(self) -> bool:
        """Whether the axis words ask for a straight motion."""
        return bool(self.axes) and self.once not in {"G10", "G92"} and "tool length" not in self.codes


def parse(line: str, modes: Modes) -> GcodeLine:
    """Take a line apart (upper case, without spaces and comments); raises `GcodeError`."""
    parsed = _resolve(*_read_words(line), modes)
    _check_motion(parsed)
    return parsed


def parse_jog(line: str, modes: Modes) -> GcodeLine:
    """Take the part of a jog line after ``$J=`` apart; the modal state stays as it was."""
    codes, words = _read_words(line)
    if any(g not in _JOG_GROUPS and c != "G53" for g, c in codes.items()):
        raise GcodeError(16)
    if not words.keys() & set("XYZ"):
        raise GcodeError(26)
    if "F" not in words:
        raise GcodeError(22)
    if words.keys() - set("FNXYZ"):
        raise GcodeError(36)
    return _resolve(codes, words, modes)


def _read_words(line: str) -> tuple[dict[str, str], dict[str, float]]:
    codes: dict[str, str] = {}
    words: dict[str, float] = {}
    place = 0
    while place < len(line):
        match = _WORD.match(line, place)
        if match is None:
            raise GcodeError(1)
        if match[2] is None:
            raise GcodeError(2)
        place = match.end()
        if match[1] in "GM":
            _add_code(codes, match[1], float(match[2]))
        else:
            _add_value(words, match[1], float(match[2]))
    if "G43.1" not in codes.values() and sum(c in _AXIS_CODES for c in codes.values()) and "motion" in codes:
        raise GcodeError(24)
    return codes, words


def _add_code(codes: dict[str, str], letter: str, value: float) -> None:
    code = f"{letter}{value:g}"
    if letter == "M" and value != int(value):
        raise GcodeError(23)
    if code not in _GROUPS:
        raise GcodeError(20)
    if _GROUPS[code] in codes:
        raise GcodeError(21)
    codes[_GROUPS[code]] = code


def _add_value(words: dict[str, float], letter: str, value: float) -> None:
    if letter not in _VALUE_LETTERS:
        raise GcodeError(20)
    if letter in words:
        raise GcodeError(25)
    if letter in _NEVER_NEGATIVE and value < 0:
        raise GcodeError(4)
    if letter == "N" and value >= _MAX_LINE_NUMBER:
        raise GcodeError(27)
    words[letter] = value


def _resolve(codes: dict[str, str], words: dict[str, float], modes: Modes) -> GcodeLine:
    after = replace(
        modes,
        motion=codes.get("motion", modes.motion),
        coordinates=codes.get("coordinates", modes.coordinates),
        plane=codes.get("plane", modes.plane),
        units=codes.get("units", modes.units),
        distance=codes.get("distance", modes.distance),
        feed_mode=codes.get("feed mode", modes.feed_mode),
        spindle=codes.get("spindle", modes.spindle),
        coolant=_coolant(modes.coolant, codes.get("coolant")),
        spindle_rpm=words.get("S", modes.spindle_rpm),
        tool=int(words.get("T", modes.tool)),
    )
    scale = MM_PER_INCH if after.units == "G20" else 1.0
    after = replace(after, feed_mm_min=words["F"] * scale if "F" in words else modes.feed_mm_min)
    axes = {i: words[letter] * scale for i, letter in enumerate("XYZ") if letter in words}
    return GcodeLine(codes, words, after, scale, codes.get("once", ""), axes)


def _coolant(before: frozenset[str], code: str | None) -> frozenset[str]:
    if code is None:
        return before
    return frozenset() if code == "M9" else before | {code}


def _check_motion(line: GcodeLine) -> None:
    motion, words = line.modes.motion, line.words
    if line.once == "G53" and motion not in {"G0", "G1"}:
        raise GcodeError(30)
    if line.once in {"G4", "G10"} and "P" not in words:
        raise GcodeError(28)
    if line.once == "G10":
        _check_g10(line)
    if line.once in {"G10", "G92"} and not line.axes:
        raise GcodeError(26)
    if line.moves and motion == "G80" and line.once not in {"G28", "G30"}:
        raise GcodeError(31)
    if line.moves and motion == "G1" and not line.modes.feed_mm_min:
        raise GcodeError(22)
    _check_unused(line)


def _check_g10(line: GcodeLine) -> None:
    if "L" not in line.words:
        raise GcodeError(28)
    if line.words["L"] not in {2, 20}:
        raise GcodeError(20)
    if line.words["P"] > 6:
        raise GcodeError(29)


def _check_unused(line: GcodeLine) -> None:
    used = set("FNSTXYZ")
    if line.once in {"G4", "G10"}:
        used |= {"P"}
    if line.once == "G10":
        used |= {"L"}
    if line.words.keys() - used:
        raise GcodeError(36)
