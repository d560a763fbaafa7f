"""Judges what a GRBL controller is sent, byte by byte; knows nothing of the driver and imports nothing of it.

It reads the stream as the firmware does: real-time bytes are picked out of it, the rest are lines. What it does not
understand is a violation, too: on a wire to a motor there is no harmless nonsense.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

HARMLESS_REALTIME = frozenset(b"?!\x18\x85\x90\x95\xa0\xa1")
"""Question, holds, cancels, resets, overrides back to 100 %, outputs. Resume is not among them."""
HARMLESS_LINES = frozenset({"", "$$", "$G", "$I", "$I+", "$H", "$HX", "$X", "M3S1000", "M5"})
_WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))")
_SETTING = re.compile(r"\$(\d+)=([-+]?\d+(?:\.\d+)?)")
_ROUNDING_MM = 0.0011


@dataclass(frozen=True)
class Rail:
    """What the rail may be asked to do; machine coordinates."""

    lower_mm: float
    upper_mm: float
    max_feed_mm_min: float
    max_acceleration_mm_s2: float
    end_margin_mm: float = 0.0
    crawl_feed_mm_min: float = 300.0
    crawl_mm: float = 10.0
    recovery_mm: float = 20.0


@dataclass(frozen=True)
class Situation:
    """What is true of the controller when bytes reach it."""

    position_mm: float
    homed: bool
    away: int = 0
    """While a limit switch is pressed: the sign of machine motion that leaves it."""

    @property
    def pressed(self) -> bool:
        """Whether a switch is pressed."""
        return self.away != 0


@dataclass
class MotionJudge:
    """Collects every violation and every target."""

    rail: Rail
    violations: list[str] = field(default_factory=list)
    targets_mm: list[float] = field(default_factory=list)
    """Of all lines that move, in order; machine coordinates."""
    judged_bytes: int = 0
    _line: bytearray = field(default_factory=bytearray)

    def hear(self, data: bytes, situation: Situation) -> None:
        """Judge bytes that reach the controller."""
        self.judged_bytes += len(data)
        for byte in data:
            if byte in b"?!~\x18" or byte >= 0x80:
                self._hear_realtime(byte)
            elif byte in b"\r\n":
                line, self._line = bytes(self._line), bytearray()
                self._hear_line(line.decode("ascii", "replace"), situation)
            else:
                self._line.append(byte)

    def _hear_realtime(self, byte: int) -> None:
        if byte not in HARMLESS_REALTIME:
            self.violations.append(f"real-time byte {byte:#x}")
        if byte == 0x18:
            self._line.clear()

    def _hear_line(self, line: str, situation: Situation) -> None:
        if line in HARMLESS_LINES:
            return
        setting = _SETTING.fullmatch(line)
        if setting:
            self._judge_setting(int(setting[1]), float(setting[2]), situation)
        elif line.startswith("$J="):
            self._judge_motion(line, self._words(line[3:]), situation, jog=True)
        else:
            self._judge_motion(line, self._words(line), situation, jog=False)

    def _words(self, text: str) -> dict[str, list[float]]:
        words: dict[str, list[float]] = {}
        if "".join(m[0] for m in _WORD.finditer(text)) != text:
            return words
        for letter, value in _WORD.findall(text):
            words.setdefault(letter, []).append(float(value))
        return words

    def _judge_setting(self, number: int, value: float, situation: Situation) -> None:
        allowed = {
            1: value == 255,
            10: value == 3,
            13: value == 0,
            20: value == 1 or (situation.pressed and not situation.homed),
            21: value == 1,
            22: value == 1,
            32: value == 0,
            100: True,
            110: value <= self.rail.max_feed_mm_min,
            120: value <= self.rail.max_acceleration_mm_s2,
            130: value <= self.rail.upper_mm - self.rail.lower_mm,
        }
        if not allowed.get(number, False):
            self.violations.append(f"setting ${number}={value:g}")

    def _judge_motion(
        self, line: str, words: dict[str, list[float]], situation: Situation, *, jog: bool
    ) -> None:
        codes = set(words.pop("G", []))
        wanted = {90.0, 21.0, 53.0} if jog else {90.0, 21.0, 94.0, 53.0, 1.0}
        shape = codes == wanted and {k: len(v) for k, v in words.items()} == {"X": 1, "F": 1}
        if not shape:
            self.violations.append(f"not a motion of one axis in machine mm: {line!r}")
            return
        (target_mm,), (feed,) = words["X"], words["F"]
        self.targets_mm.append(target_mm)
        for wrong in self._wrongs(target_mm, feed, situation, jog=jog):
            self.violations.append(f"{wrong}: {line!r} at {situation}")

    def _wrongs(self, target_mm: float, feed: float, situation: Situation, *, jog: bool) -> list[str]:
        rail = self.rail
        wrongs = []
        if not (math.isfinite(feed) and 0 < feed <= rail.max_feed_mm_min):
            wrongs.append("feed")
        if situation.pressed:
            wrongs += self._wrongs_pressed(target_mm, feed, situation)
        soft = rail.lower_mm - _ROUNDING_MM <= target_mm <= rail.upper_mm + _ROUNDING_MM
        crawls = jog and soft and not self._wrongs_unhomed(target_mm, feed, situation, jog=jog)
        if crawls and not situation.pressed:
            return wrongs  # lawful also for a host that has lost the position
        if not situation.homed:
            return wrongs + self._wrongs_unhomed(target_mm, feed, situation, jog=jog)
        lower = min(rail.lower_mm + rail.end_margin_mm, situation.position_mm)
        upper = max(rail.upper_mm - rail.end_margin_mm, situation.position_mm)
        if (
            not max(lower, rail.lower_mm) - _ROUNDING_MM
            <= target_mm
            <= min(upper, rail.upper_mm) + _ROUNDING_MM
        ):
            wrongs.append("leaves the travel")
        return wrongs

    def _wrongs_pressed(self, target_mm: float, feed: float, situation: Situation) -> list[str]:
        way_mm = situation.away * (target_mm - situation.position_mm)
        wrongs = []
        if feed > self.rail.crawl_feed_mm_min:
            wrongs.append("fast while a switch is pressed")
        if not -_ROUNDING_MM <= way_mm <= self.rail.recovery_mm + _ROUNDING_MM:
            wrongs.append("not away from the pressed switch")
        return wrongs

    def _wrongs_unhomed(self, target_mm: float, feed: float, situation: Situation, *, jog: bool) -> list[str]:
        longest_mm = self.rail.recovery_mm if situation.pressed else self.rail.crawl_mm
        wrongs = [] if jog else ["a target without homing"]
        if feed > self.rail.crawl_feed_mm_min:
            wrongs.append("fast without homing")
        if not abs(target_mm - situation.position_mm) <= longest_mm + _ROUNDING_MM:
            wrongs.append("far without homing")
        return wrongs
