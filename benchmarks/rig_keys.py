"""From a key press to the stop byte on the rail's wire, while the engine records and the dashboard draws.

The arrangement of `rig_stop.py` with `rig tui` in pseudo-terminals as observers: terminal, relay, engine, serial line.
The simulator keeps hold bytes from the carriage and the engine draws no consequence, so that every press meets a
recording rig. Space again within a second would be an e-stop, so each terminal is pressed once in 1.25 s; several
terminals are pressed in turn, which is more drawing than in use.

Usage, on an otherwise idle machine: python -P -m benchmarks.rig_keys [--presses 1000] [--terminals 1]
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path
from typing import Any

from benchmarks.rig_stop import Recording, WireLog, role, saturated, write_profile
from benchmarks.stopwatch import press_summary
from rig.runtime import EngineAddress

RESULT = Path(__file__).parent / "results" / "rig_keys.json"
PRESS_INTERVAL_S = 1.25
FIRST_PAINT_S = 60.0


class OperatorTerminal:
    """`rig tui` in a terminal of 120 × 40 that is read as fast as it is drawn."""

    def __init__(self, profile: Path, data: Path) -> None:
        self._screen, inner = pty.openpty()
        ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        command = [sys.executable, "-P", "-m", "rig", "tui", "--profile", str(profile), "--data", str(data)]
        self._program = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
        )
        os.close(inner)
        self._painted = threading.Event()
        self.drawn_bytes = 0
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for_dashboard(self) -> None:
        """Return once the dashboard shows the running session."""
        if not self._painted.wait(FIRST_PAINT_S):
            raise SystemExit("the dashboard never showed a running session")

    def press_space(self) -> float:
        """Press the stop key; returns when."""
        now_s = time.monotonic()
        os.write(self._screen, b" ")
        return now_s

    def _read(self) -> None:
        try:
            while data := os.read(self._screen, 65536):
                self.drawn_bytes += len(data)
                if b"RUNNING" in data:
                    self._painted.set()
        except OSError:
            return

    def close(self) -> None:
        """End it."""
        self._program.terminate()
        self._program.wait(timeout=20)
        os.close(self._screen)


def press(
    terminals: list[OperatorTerminal], wire: WireLog, recording: Recording, presses: int
) -> dict[str, Any]:
    """Press the terminals in turn; returns latencies in ms and how much was drawn meanwhile."""
    draw = random.Random(1)
    delays_ms: list[float] = []
    lost = 0
    drawn_bytes, began_s = sum(t.drawn_bytes for t in terminals), time.monotonic()
    heard = dict(recording.counts)
    for number in range(presses):
        time.sleep(draw.uniform(1.0, 1.2) * PRESS_INTERVAL_S / len(terminals))
        recording.keep_running()
        pressed_s = terminals[number % len(terminals)].press_space()
        arrived_s = wire.first_after(pressed_s)
        if arrived_s is None:
            lost += 1
        else:
            delays_ms.append(1000 * (arrived_s - pressed_s))
    took_s = time.monotonic() - began_s
    return {
        **press_summary(delays_ms, presses=presses, lost=lost),
        "duration_s": round(took_s, 1),
        "drawn_kb_s": round((sum(t.drawn_bytes for t in terminals) - drawn_bytes) / took_s / 1000, 1),
        "events_meanwhile": {
            kind: recording.counts.get(kind, 0) - heard.get(kind, 0)
            for kind in ("motion", "preview", "rig_state", "saved")
        },
    }


def measure(presses: int, terminals: int) -> dict[str, Any]:
    """Measure on the machine as it is, then with every core taken."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        simulator = stack.enter_context(role("simulate"))
        profile = write_profile(folder, json.loads(simulator.stdout.readline()))  # type: ignore[union-attr]
        engine = stack.enter_context(role("engine", str(profile), str(folder / "data")))
        told = json.loads(engine.stdout.readline())  # type: ignore[union-attr]
        recording = Recording(EngineAddress(Path(told["folder"]), told["name"]))
        stack.callback(recording.client.close)
        wire = WireLog(simulator)
        recording.keep_recording()
        load = os.getloadavg()[0]
        opened = [OperatorTerminal(profile, folder / "data") for _ in range(terminals)]
        for terminal in opened:
            stack.callback(terminal.close)
            terminal.wait_for_dashboard()
        quiet = press(opened, wire, recording, presses)
        with saturated(os.cpu_count() or 2):
            busy = press(opened, wire, recording, max(presses // 10, 1))
    return {
        "load_average_before": round(load, 2),
        "cores": os.cpu_count(),
        "terminals": terminals,
        "as_it_is": quiet,
        "all_cores_taken": busy,
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=1000)
    parser.add_argument("--terminals", type=int, default=1)
    options = parser.parse_args()
    result = measure(options.presses, options.terminals)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
