"""G-code as GRBL 1.1 checks it: what a line means, or the number of the error, in the firmware's own order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rig.sim.grbl_arc import PLANES, Arc, arc_by_centre, arc_by_radius
from rig.sim.grbl_planner import Axes
from rig.sim.grbl_words import GcodeError, Words

__all__ = ["Frame", "GcodeError", "GcodeLine", "Modes", "parse", "parse_jog"]

MM_PER_INCH = 25.4
ORIGIN: Axes = (0.0, 0.0, 0.0)
_LAST_LINE_NUMBER = 10_000_000
_COORDINATE_SYSTEMS = 6
_JOG_GROUPS = frozenset({"units", "distance", "once"})
_ALWAYS_USED = frozenset("FNST")
_USED_BY_A_JOG = frozenset("FN")


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
    """``M8`` and, where it is compiled in, ``M7``; both may be on."""
    tool: int = 0
    feed: float = 0.0
    """mm/min; in inverse time (G93) moves per minute."""
    spindle_rpm: float = 0.0

    def listing(self, *, inches: bool = False) -> str:
        """Return the line of ``$G``; the unit of F is that of the reports."""
        coolant = " ".join(sorted(self.coolant)) or "M9"
        feed = f"{self.feed / MM_PER_INCH:.1f}" if inches else f"{self.feed:.0f}"
        return (
            f"[GC:{self.motion} {self.coordinates} {self.plane} {self.units} {self.distance} {self.feed_mode} "
            f"{self.spindle} {coolant} T{self.tool} F{feed} S{self.spindle_rpm:.0f}]"
        )


@dataclass(frozen=True)
class Frame:
    """What a line's numbers are relative to."""

    modes: Modes
    position_mm: Axes
    """Where the line before ends, machine coordinates."""
    coordinates: Mapping[str, Axes]
    """Stored work coordinate systems and the G28 and G30 positions."""
    g92: Axes = ORIGIN
    tool_mm: float = 0.0
    """Tool length offset, along Z."""
    mist: bool = False
    """Whether M7 is compiled in."""

    def work_offset_mm(self, system: str) -> Axes:
        """Return machine position minus work position in a coordinate system."""
        base = self.coordinates[system]
        return base[0] + self.g92[0], base[1] + self.g92[1], base[2] + self.g92[2] + self.tool_mm


@dataclass(frozen=True)
class GcodeLine:
    """One line that passed every check."""

    modes: Modes
    """Modal state after this line."""
    codes: Mapping[str, str] = field(default_factory=dict)
    """Modal group to code."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Letter to value as written."""
    moves: bool = False
    """Whether it asks for motion in the modal motion mode."""
    through: bool = False
    """For G28 and G30: whether the way leads through `target_mm`."""
    target_mm: Axes = ORIGIN
    """Machine coordinates; without axis words the origin, as the firmware leaves it."""
    stored: Mapping[str, Axes] = field(default_factory=dict)
    """New values: a coordinate system for G10, ``G92`` for G92."""
    tool_mm: float | None = None
    """New tool length offset."""
    arc: Arc | None = None

    @property
    def once(self) -> str:
        """The command that holds for this line only."""
        return self.codes.get("once", "")


def parse(text: str, frame: Frame) -> GcodeLine:
    """Take a line apart (upper case, without spaces and comments); raises `GcodeError`."""
    return _Check(Words(text, mist=frame.mist), frame, jog=False).line()


def parse_jog(text: str, frame: Frame) -> GcodeLine:
    """Take the part of a jog line after ``$J=`` apart; `GcodeLine.modes` holds its feed and nothing to keep."""
    check = _Check(Words(text, mist=frame.mist), frame, jog=True)
    line = check.line()
    if check.words.codes.keys() - _JOG_GROUPS or line.once not in {"", "G53"}:
        raise GcodeError(16)
    return line


class _Check:
    """The firmware's third step: every check, none of the consequences."""

    def __init__(self, words: Words, frame: Frame, *, jog: bool) -> None:
        self.words, self._frame, self._jog = words, frame, jog
        self._values = dict(words.values)
        self._command = words.axis_command or ("motion" if words.axes else "")
        if words.values.get("N", 0) > _LAST_LINE_NUMBER:
            raise GcodeError(27)
        self._modes = self._modes_after()
        self._scale = MM_PER_INCH if self._modes.units == "G20" else 1.0

    def line(self) -> GcodeLine:
        """Run the checks that need positions; returns the line."""
        once = self.words.once
        self._use_values(once)
        tool_mm = self._tool_length_mm()
        stored, target = self._stored_values(once), ORIGIN
        if not stored and self.words.axes and self._command != "tool length":
            target = self._target(once)
        through = bool(once in {"G28", "G30"} and self.words.axes)
        arc = self._motion(once, target)
        if self._unused():
            raise GcodeError(36)
        moves = self._command == "motion" and bool(self.words.axes) and self._modes.motion != "G80"
        return GcodeLine(
            self._modes,
            self.words.codes,
            self.words.values,
            moves=moves,
            through=through,
            target_mm=target,
            stored=stored,
            tool_mm=tool_mm,
            arc=arc,
        )

    def _modes_after(self) -> Modes:
        before, codes = self._frame.modes, self.words.codes
        after = replace(
            before,
            motion="G1" if self._jog and "motion" not in codes else codes.get("motion", before.motion),
            coordinates=codes.get("coordinates", before.coordinates),
            plane=codes.get("plane", before.plane),
            units=codes.get("units", before.units),
            distance=codes.get("distance", before.distance),
            feed_mode="G94" if self._jog else codes.get("feed mode", before.feed_mode),
            spindle=codes.get("spindle", before.spindle),
            coolant=_coolant(before.coolant, codes.get("coolant")),
            spindle_rpm=self._values.get("S", before.spindle_rpm),
            tool=int(self._values.get("T", 0)),  # the firmware forgets the tool with every line
        )
        return replace(after, feed=self._feed(before, after))

    def _feed(self, before: Modes, after: Modes) -> float:
        """Inverse time wants an F with every motion; after it the feed is undefined until given again."""
        given = self._values.get("F")
        per_minute = MM_PER_INCH if after.units == "G20" else 1.0
        if self._jog:
            if given is None:
                raise GcodeError(22)
            return given * per_minute
        if after.feed_mode == "G93":
            if given is None and self._command == "motion" and after.motion not in {"G0", "G80"}:
                raise GcodeError(22)
            return given or 0.0
        if before.feed_mode == "G93":
            return given or 0.0
        return before.feed if given is None else given * per_minute

    def _use_values(self, once: str) -> None:
        if once == "G4":
            if "P" not in self._values:
                raise GcodeError(28)
            del self._values["P"]

    def _tool_length_mm(self) -> float | None:
        code = self.words.codes.get("tool length")
        if code == "G43.1" and self.words.axes != {"Z"}:
            raise GcodeError(37)
        if code is None:
            return None
        return 0.0 if code == "G49" else self._values["Z"] * self._scale

    def _axes(self) -> dict[int, float]:
        return {i: self._values[x] * self._scale for i, x in enumerate("XYZ") if x in self._values}

    def _stored_values(self, once: str) -> dict[str, Axes]:
        if once in {"G10", "G92"} and not self.words.axes:
            raise GcodeError(26)
        if once == "G10":
            return self._coordinate_system()
        if once == "G92":
            base = self._frame.coordinates[self._modes.coordinates]
            return {"G92": self._moved(self._frame.g92, base)}
        return {}

    def _coordinate_system(self) -> dict[str, Axes]:
        if not self._values.keys() & {"P", "L"}:
            raise GcodeError(28)
        number = int(self._values.pop("P", 0))
        if number > _COORDINATE_SYSTEMS:
            raise GcodeError(29)
        kind = int(self._values.pop("L", 0))
        if kind not in {2, 20} or (kind == 2 and "R" in self._values):
            raise GcodeError(20)
        name = f"G{53 + number}" if number else self._modes.coordinates
        before = self._frame.coordinates[name]
        if kind == 20:
            return {name: self._moved(before, self._frame.g92)}
        x, y, z = (self._axes().get(i, before[i]) for i in range(3))
        return {name: (x, y, z)}

    def _moved(self, before: Axes, other: Axes) -> Axes:
        """Return the offset with which the current position reads as the line says."""
        axes, position = self._axes(), self._frame.position_mm
        tool = (0.0, 0.0, self._frame.tool_mm)
        x, y, z = (position[i] - other[i] - tool[i] - axes[i] if i in axes else before[i] for i in range(3))
        return x, y, z

    def _target(self, once: str) -> Axes:
        position, axes = self._frame.position_mm, self._axes()
        offset = self._frame.work_offset_mm(self._modes.coordinates)
        if once == "G53":
            offset = ORIGIN
        elif self._modes.distance == "G91":
            offset = position
        x, y, z = (axes[i] + offset[i] if i in axes else position[i] for i in range(3))
        return x, y, z

    def _motion(self, once: str, target: Axes) -> Arc | None:
        motion, axes = self._modes.motion, self.words.axes
        if once == "G53" and motion not in {"G0", "G1"}:
            raise GcodeError(30)
        if motion == "G80" and axes:
            raise GcodeError(31)
        if self._command != "motion" or motion in {"G80", "G0"}:
            return None
        if self._modes.feed == 0:
            raise GcodeError(22)
        if motion == "G1":
            return None
        if not axes:
            raise GcodeError(26)
        if motion in {"G2", "G3"}:
            return self._arc(motion, target)
        if target == self._frame.position_mm:
            raise GcodeError(33)
        return None

    def _arc(self, code: str, target: Axes) -> Arc:
        plane, begin = PLANES[self._modes.plane], self._frame.position_mm
        if not self._axes().keys() & set(plane[:2]):
            raise GcodeError(32)
        if "R" in self._values:
            radius_mm = self._values.pop("R") * self._scale
            return arc_by_radius(plane, begin, target, radius_mm=radius_mm, code=code)
        offsets = {i: self._values.pop(x) * self._scale for i, x in enumerate("IJK") if x in self._values}
        return arc_by_centre(plane, begin, target, offsets=offsets, code=code)

    def _unused(self) -> set[str]:
        used = _USED_BY_A_JOG if self._jog else _ALWAYS_USED
        if self._command:
            used |= {"X", "Y", "Z"}
        return set(self._values) - used


def _coolant(before: frozenset[str], code: str | None) -> frozenset[str]:
    if code is None:
        return before
    return frozenset() if code == "M9" else before | {code}
