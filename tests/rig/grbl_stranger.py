"""A script that knows nothing of the simulator: bytes into a serial port, lines out of it, in real time."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import serial

from rig.clock import SessionClock
from rig.sim.grbl import GrblController
from rig.sim.grbl_mechanics import RailMechanics
from rig.sim.grbl_pty import GrblPty

BANNER = "Grbl 1.1h ['$' for help]"
UNLOCK = "[MSG:'$H'|'$X' to unlock]"
ANSWER = r"ok|error:\d+"
REPORT = re.compile(r"<[A-Z][a-z]+(:\d)?\|[MW]Pos:(-?\d+\.\d{3,4},){2}-?\d+\.\d{3,4}(\|\w+:[^|<>]+)*>")
TIMEOUT_S = 8.0


class Stranger:
    """Talks to one port."""

    def __init__(self, path: str) -> None:
        self.port = serial.Serial(path, 115200, timeout=0.02, write_timeout=2.0, exclusive=True)
        self._unfinished = b""
        self.lines: list[str] = []
        """Everything that came and was not taken yet."""
        self.fresh = False
        """Whether nothing has happened since the last `calm`."""

    def close(self) -> None:
        self.port.close()

    def send(self, text: str) -> None:
        """Send characters as they are, real-time bytes included."""
        self.port.write(text.encode("latin-1"))

    def until(self, enough: Callable[[list[str]], bool], *, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Read until the lines so far are enough; takes and returns them. Fails when time is up."""
        deadline_s = time.monotonic() + timeout_s
        while not enough(self.lines):
            assert time.monotonic() < deadline_s, f"in {timeout_s} s only {self.lines}"
            self._read()
        taken, self.lines = self.lines, []
        return taken

    def until_line(self, pattern: str, *, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Read until a line matches wholly; takes and returns the lines up to it, and leaves what is behind."""
        wanted = re.compile(pattern)
        lines = self.until(lambda lines: any(map(wanted.fullmatch, lines)), timeout_s=timeout_s)
        count = next(i for i, line in enumerate(lines, 1) if wanted.fullmatch(line))
        self.lines = lines[count:]
        return lines[:count]

    def for_a_while(self, duration_s: float) -> list[str]:
        """Read for a time; takes and returns what came."""
        deadline_s = time.monotonic() + duration_s
        while time.monotonic() < deadline_s:
            self._read()
        taken, self.lines = self.lines, []
        return taken

    def ask(self, line: str, *, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Send a line; returns what came up to its answer, which is the last one."""
        self.send(line + "\n")
        return self.until_line(ANSWER, timeout_s=timeout_s)

    def tell(self, *lines: str) -> None:
        """Send lines one by one; each must be answered with ok."""
        for line in lines:
            assert self.ask(line)[-1] == "ok", line

    def report(self) -> dict[str, str]:
        """Ask for a status report; the state stands under ``state``, with its sub-state."""
        self.send("?")
        line = self.until_line(r"<.*>")[-1]
        assert REPORT.fullmatch(line), line
        state, *fields = line.strip("<>").split("|")
        return {"state": state, **dict(f.split(":", 1) for f in fields)}

    def x_mm(self) -> float:
        return float(self.report()["MPos"].split(",")[0])

    def feed(self) -> float:
        return float(self.report()["FS"].split(",")[0])

    def until_state(self, state: str, *, timeout_s: float = TIMEOUT_S) -> dict[str, str]:
        """Poll until a state is reported; returns that report."""
        deadline_s = time.monotonic() + timeout_s
        while (report := self.report())["state"] != state:
            assert time.monotonic() < deadline_s, f"still {report}"
        return report

    def report_with(self, name: str, *, reports: int = 32) -> dict[str, str]:
        """Poll until a report carries a field that comes now and then."""
        for _ in range(reports):
            if name in (report := self.report()):
                return report
        raise AssertionError(f"no {name} in {reports} reports")

    def field(self, name: str) -> str:
        """Return such a field."""
        return self.report_with(name)[name]

    def reset(self) -> list[str]:
        """Send the reset byte until the banner comes; returns what came, through the last line."""
        for _ in range(4):
            self.send("\x18")
            try:
                lines = self.until(lambda x: BANNER in x, timeout_s=0.9)
            except AssertionError:
                continue
            return lines + self.for_a_while(0.06)
        raise AssertionError("no banner after four resets")

    def calm(self) -> None:
        """End whatever was: no motion, no alarm, modes as after a reset."""
        self.reset()
        self.tell("$X")
        assert self.report()["state"] == "Idle"
        self.fresh = False

    def home(self) -> None:
        self.reset()
        assert self.ask("$H", timeout_s=30.0)[-1] == "ok"

    def _read(self) -> None:
        data = self.port.read(max(self.port.in_waiting, 1))
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        self.lines += [text for line in lines if (text := line.decode("latin-1").strip("\r"))]


@contextmanager
def served(controller: GrblController | None = None) -> Iterator[str]:
    """A port of the rail that `rig simulate` serves: 10 mm above its switch, 395 mm free; or a given controller's.

    With CLEANPLATE_GRBL_PORT in the environment the same checks talk to a real controller instead.
    """
    if controller is None and (real := os.environ.get("CLEANPLATE_GRBL_PORT")):
        yield real
        return
    clock = SessionClock(origin_s=time.monotonic())
    mechanics = RailMechanics(travel_mm=400.0, below_mm=15.0)
    with GrblPty(controller or GrblController(mechanics, t_s=clock.now()), clock) as pty:
        yield pty.path
