"""A serial terminal on the simulated controller, with time stepped by hand: no thread, no port."""

from __future__ import annotations

import numpy as np

from rig.sim.grbl import GrblController

HOMED = {20: 1, 21: 1, 22: 1}


class Terminal:
    """A serial terminal on the controller, with a stopwatch."""

    def __init__(self, controller: GrblController, *, t_s: float = 0.0) -> None:
        self.controller = controller
        self.t_s = t_s
        self._unfinished = ""

    def run(self, duration_s: float) -> list[str]:
        """Let time pass; returns the lines that came."""
        self.t_s += duration_s
        *lines, self._unfinished = (self._unfinished + self.controller.transmit(self.t_s).decode()).split(
            "\r\n"
        )
        return lines

    def type(self, text: str, *, wait_s: float = 0.1) -> list[str]:
        """Send text as it is and return what comes within ``wait_s``."""
        self.controller.receive(text.encode("latin-1"), self.t_s)
        return self.run(wait_s)

    def line(self, text: str, *, wait_s: float = 0.1) -> list[str]:
        return self.type(text + "\n", wait_s=wait_s)

    def status(self) -> dict[str, str]:
        """Ask for a report; returns its fields, the state under ``state``."""
        report = next(line for line in self.type("?", wait_s=0.02) if line.startswith("<"))
        state, *fields = report.strip("<>").split("|")
        return {"state": state, **dict(f.split(":", 1) for f in fields)}

    def x_mm(self) -> float:
        return float(self.status()["MPos"].split(",")[0])

    def true_mm(self) -> float:
        return float(self.controller.position_mm(np.array(self.t_s)))

    def home(self) -> None:
        assert self.line("$H", wait_s=30.0)[-1] == "ok"


def switched_on(settings: dict[int, float] | None = None, **options: object) -> Terminal:
    terminal = Terminal(GrblController(settings={10: 3, **(settings or {})}, **options))  # type: ignore[arg-type]
    terminal.run(0.1)
    return terminal


def homed(settings: dict[int, float] | None = None) -> Terminal:
    terminal = switched_on({**HOMED, **(settings or {})})
    terminal.home()
    return terminal
