"""Listens on the wire to a GRBL controller, both ways, and judges what it hears; imports nothing of the product.

What is true of the controller (where it stands, whether it knows that) is taken from what the controller itself says.
Motion needs a permit: somebody asked for it and it has not ended. At rest, and after a stop, nothing may move.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from motion_judge import MotionJudge, Rail, Situation

_REPORT = re.compile(rb"<(\w+)(?::\d)?\|MPos:(-?[\d.]+)")
_STEP_MM = 0.021
"""One step of the carriage and the rounding of a report."""


@dataclass
class Permit:
    """Somebody asked for a motion at this time; it ended at that, or has not yet."""

    act: str
    begun_s: float
    ended_s: float = float("inf")


@dataclass
class _Place:
    """Where the controller said to be."""

    t_s: float
    position_mm: float


@dataclass
class WireWitness:
    """Hears every byte of a session's wires; thread-safe.

    Args:
        rail: What the rail may be asked to do.
        words: Which lines that move belong to which act, by their beginning.
        grace_s: How long after a stop, or after an act has ended, the carriage may be seen to move, s of the machine.
    """

    rail: Rail
    words: dict[str, tuple[bytes, ...]]
    grace_s: float
    permits: list[Permit] = field(default_factory=list)
    stops_s: list[float] = field(default_factory=list)
    """When each stop was known to be on the wire."""
    moves: int = 0
    """Lines heard that move the carriage."""

    def __post_init__(self) -> None:
        self._judge = MotionJudge(self.rail)
        self._lock = threading.Lock()
        self._situation = Situation(0.0, homed=False)
        self._said, self._heard = bytearray(), bytearray()
        self._homing = False
        self._places: list[_Place] = []
        self._unasked: list[str] = []

    def begin(self, act: str) -> Permit:
        """Permit an act from now on."""
        permit = Permit(act, time.monotonic())
        with self._lock:
            self.permits.append(permit)
        return permit

    def withdraw(self, permit: Permit) -> None:
        """Take back a permit whose act was refused."""
        with self._lock:
            self.permits.remove(permit)

    def end(self, act: str | None = None) -> None:
        """End the permits of an act, or all."""
        with self._lock:
            for permit in self.permits:
                if act in {None, permit.act}:
                    permit.ended_s = min(permit.ended_s, time.monotonic())

    def note_stop(self, *, emergency: bool) -> None:
        """Note that a stop is on the wire; after an emergency stop nobody may rely on the position."""
        with self._lock:
            self.stops_s.append(time.monotonic())
            if emergency:
                self._lose_position()

    def hear_host(self, data: bytes) -> None:
        """Take bytes on their way to the controller."""
        with self._lock:
            self._judge.hear(data, self._situation)
            self._heard += bytes(b for b in data if b not in b"?!~\x18" and b < 0x80)
            *lines, self._heard = self._heard.split(b"\n")
            for line in lines:
                self._note_line(bytes(line))

    def hear_controller(self, data: bytes) -> None:
        """Take bytes on their way back."""
        with self._lock:
            self._said += data
            *lines, self._said = self._said.split(b"\n")
            for line in lines:
                self._note_answer(bytes(line))

    def violations(self) -> list[str]:
        """List what should not have been, so far."""
        with self._lock:
            return [*self._judge.violations, *self._unasked, *self._strays()]

    def _note_line(self, line: bytes) -> None:
        if not line.startswith((b"$H", b"$J", b"G")):
            return
        self._homing = line.startswith(b"$H")
        self.moves += 1
        allowed = [
            p for p in self.permits if p.ended_s == float("inf") and line.startswith(self.words[p.act])
        ]
        if not allowed:
            self._unasked.append(f"nobody asked for {line!r}")

    def _note_answer(self, line: bytes) -> None:
        report = _REPORT.search(line)
        if report:
            self._situation = replace(self._situation, position_mm=float(report[2]))
            self._places.append(_Place(time.monotonic(), float(report[2])))
            if report[1] == b"Alarm":
                self._lose_position()
        elif line.startswith((b"ALARM", b"Grbl")):
            self._places.append(_Place(time.monotonic(), float("nan")))  # its coordinates may begin anew
            if line.startswith(b"ALARM"):  # a controller that is reset at standstill knows where it is
                self._lose_position()
        elif line.startswith(b"ok") and self._homing:
            self._homing = False
            self._situation = replace(self._situation, homed=True)

    def _lose_position(self) -> None:
        self._homing = False
        self._situation = replace(self._situation, homed=False)

    def _strays(self) -> list[str]:
        """Compare neighbouring reports within each time in which the carriage had to stand."""
        return [
            f"moved from {a.position_mm} to {b.position_mm} at rest, {b.t_s - since_s:.2f} s after the end or a stop"
            for a, b in zip(self._places, self._places[1:], strict=False)
            if (since_s := self._at_rest_since(a.t_s, b.t_s)) is not None
            and abs(a.position_mm - b.position_mm) > _STEP_MM
        ]

    def _at_rest_since(self, begin_s: float, end_s: float) -> float | None:
        """Return since when nothing may have moved, None where something may have between both times."""
        begun = [p for p in self.permits if p.begun_s <= end_s]
        last_begun_s = max((p.begun_s for p in begun), default=0.0)
        ends = [s for s in self.stops_s if s > last_begun_s]
        if all(p.ended_s <= begin_s for p in begun):
            ends.append(max((p.ended_s for p in begun), default=0.0))
        ends = [s for s in ends if s + self.grace_s < begin_s]
        return min(ends, default=None)


class TappedPort:
    """A serial port with a witness on both its lines."""

    def __init__(self, port: Any, witness: WireWitness) -> None:
        self._port, self._witness = port, witness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def read(self, size: int) -> bytes:
        data = bytes(self._port.read(size))
        self._witness.hear_controller(data)
        return data

    def write(self, data: bytes) -> Any:
        self._witness.hear_host(data)
        return self._port.write(data)


def tapped(open_port: Callable[..., Any], witness: WireWitness) -> Callable[..., Any]:
    """Return a way to open ports that puts the witness on each."""
    return lambda *arguments: TappedPort(open_port(*arguments), witness)
