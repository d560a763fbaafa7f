"""A GRBL that answers at once and moves at once: for many commands in little time, with faults on demand."""

from __future__ import annotations

import re
from collections import deque

from motion_judge import MotionJudge, Situation

from rig.testing import FakeClock

_TARGET = re.compile(r"X(-?[\d.]+)")
_BANNER = "Grbl 1.1h ['$' for help]"
_SETTINGS = {
    1: 255, 10: 3, 13: 0, 20: 1, 21: 1, 22: 1, 23: 1, 24: 120, 27: 2, 32: 0, 100: 50, 110: 7200, 120: 200, 130: 400,
}  # fmt: skip


class InstantGrbl:
    """A `rig.devices.wire.Wire` with a firmware behind it.

    Args:
        clock: Moved on by whoever waits for an answer that does not come.
        judge: Hears every byte before it takes effect.
    """

    name = "instant"
    discarded_bytes = 0

    def __init__(self, clock: FakeClock, judge: MotionJudge) -> None:
        self.judge = judge
        self.settings: dict[int, float] = dict(_SETTINGS)
        self.position_mm = 0.0
        self.homed = False
        self.state = "Alarm"
        self.away = 0
        self.lost_answers = 0
        """How many of the next lines get no answer (and are not executed)."""
        self.refusals = 0
        """How many of the next lines get an error."""
        self._clock = clock
        self._said: deque[str] = deque()
        self._last_direction = 0
        self._coolant: set[str] = set()
        self.power_up()

    def power_up(self) -> None:
        """Restart as after a loss of power."""
        self.position_mm, self.homed, self.state, self._last_direction = 0.0, False, "Alarm", 0
        self._say(_BANNER, "[MSG:'$H'|'$X' to unlock]")

    def brown_out(self) -> None:
        """Restart without losing the memory of where the switch is."""
        direction = self._last_direction
        self.power_up()
        self._last_direction = direction

    def hit_limit(self) -> None:
        """A limit switch trips and stays pressed."""
        self.away = self.away or -self._last_direction or 1
        self._alarm(1)

    def glitch(self) -> None:
        """A limit trips for no reason."""
        self._alarm(1)

    def _alarm(self, number: int) -> None:
        self.homed, self.state = False, "Deaf"
        self._say(f"ALARM:{number}", "[MSG:Reset to continue]")

    def write_line(self, line: str) -> None:
        self.judge.hear(f"{line}\n".encode(), Situation(self.position_mm, self.homed, self.away))
        if self.state == "Deaf":
            return
        if self.lost_answers:
            self.lost_answers -= 1
            return
        if self.refusals:
            self.refusals -= 1
            self._say("error:20")
            return
        self._obey(line)

    def write_realtime(self, data: bytes) -> None:
        self.judge.hear(data, Situation(self.position_mm, self.homed, self.away))
        for byte in data:
            self._realtime(byte)

    def read_line(self, *, timeout_s: float) -> str | None:
        if self._said:
            return self._said.popleft()
        self._clock.advance(timeout_s)
        return None

    def flush(self) -> None:
        self._said.clear()

    def close(self) -> None:
        pass

    def _say(self, *lines: str) -> None:
        self._said.extend(lines)

    def _obey(self, line: str) -> None:
        setting = re.fullmatch(r"\$(\d+)=(.+)", line)
        if setting:
            self.settings[int(setting[1])] = float(setting[2])
        elif line == "$$":
            self._say(*(f"${n}={v:.3f}" if n >= 100 else f"${n}={v:g}" for n, v in self.settings.items()))
        elif line == "$H":
            self._home()
        elif line == "$X":
            self.state = "Idle" if self.state == "Alarm" else self.state
        elif line == "$G":
            self._say("[GC:G1 G54 G17 G21 G90 G94 M5 M9 T0 F0 S0]")
        elif line == "$I":
            self._say("[VER:1.1h.20190830:]", "[OPT:V,15,128]")
        elif match := _TARGET.search(line):
            self._move(float(match[1]), jog=line.startswith("$J"))
            return
        self._say("ok")

    def _home(self) -> None:
        self._clock.advance(3.0)
        self.homed, self.state, self.away = True, "Idle", 0
        self.position_mm = 2.0 - self.settings[130]

    def _move(self, target_mm: float, *, jog: bool) -> None:
        outside = self.settings[20] and not -self.settings[130] <= target_mm <= 0
        if jog and outside:
            self._say("error:15")
        elif self.state != "Idle":
            self._say("error:9")
        elif outside:
            self._alarm(2)
        else:
            self._last_direction = (target_mm > self.position_mm) - (target_mm < self.position_mm)
            self._last_direction = self._last_direction or 1
            self.position_mm = round(target_mm * 50) / 50
            self._clock.advance(10.0)
            self._say("ok")

    def _realtime(self, byte: int) -> None:
        if byte == 0x18:
            self._say(_BANNER)
            self._coolant.clear()
            self.state = "Alarm" if self.state == "Alarm" or not self.homed else "Idle"
        elif self.state == "Deaf":
            return
        elif byte == ord("?"):
            pins = "|Pn:X" if self.away else ""
            lit = f"|A:{''.join(sorted(self._coolant))}" if self._coolant else ""
            state = "Hold:0" if self.state == "Hold" else self.state
            self._say(
                f"<{state}|MPos:{self.position_mm:.3f},0.000,0.000|Bf:15,128|FS:0,0{pins}|Ov:100,100,100{lit}>"
            )
        elif byte == ord("!") and self.state == "Idle":
            self.state = "Hold"
        elif byte in {0xA0, 0xA1}:
            self._coolant ^= {"FM"[byte - 0xA0]}
