"""From key press to stop byte on the rail's wire: `rig tui` in a pseudo-terminal, a tap on the serial line.

The rig is a "real" one to the product: its rail's port is a tap of ours before the port that `rig simulate` serves,
its camera the simulated body. So the whole way is measured: terminal, relay, engine, serial line. A session records
and the dashboard draws motion and live view meanwhile; what is pressed after a session has been stopped meets the
dashboard with live view alone, and is counted apart.

Usage, on an otherwise idle machine: python -P benchmarks/rig_keys.py --presses 1000 --sessions 50 [--saturate]
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable
from contextlib import ExitStack
from fcntl import ioctl
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parent.parent
sys.path.append(str(REPOSITORY / "tests" / "rig"))

from small_rig import rig_command, write_plan, write_profile  # noqa: E402

from rig.client import EngineClient, find_engine  # noqa: E402
from rig.events import AnyEvent, EngineMode, Motion, RigState  # noqa: E402
from rig.runtime import EngineAddress  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "rig_keys.json"
HOLD = b"!"
PRESS_INTERVAL_S = 1.1
"""Further apart than the second within which Space again is an e-stop."""
PATIENCE_S = 60.0


class WireTap:
    """A serial port that passes everything on to another one and notes when hold bytes come by."""

    def __init__(self, port: str) -> None:
        self._far = os.open(port, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._far)
        self._near, slave = os.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        self.holds_s: list[float] = []
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        while True:
            readable, _, _ = select.select([self._far, self._near], [], [])
            if self._near in readable:
                data = os.read(self._near, 4096)
                if HOLD in data:
                    self.holds_s.append(time.monotonic())
                os.write(self._far, data)
            if self._far in readable:
                os.write(self._near, os.read(self._far, 4096))

    def first_hold_after(self, pressed_s: float, timeout_s: float = 5.0) -> float | None:
        """Return how long after a press the first hold byte came by, s."""
        deadline_s = pressed_s + timeout_s
        while time.monotonic() < deadline_s:
            later = [t for t in self.holds_s if t >= pressed_s]
            if later:
                return later[0] - pressed_s
            time.sleep(0.002)
        return None


class OperatorTerminal:
    """`rig tui` in a terminal of 120 × 40 that is read as fast as it is drawn."""

    def __init__(self, *arguments: str | Path) -> None:
        self._screen, inner = pty.openpty()
        ioctl(self._screen, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        command = rig_command("tui", *arguments)
        self.program = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
        )
        os.close(inner)
        self.drawn_bytes = 0
        threading.Thread(target=self._read, daemon=True).start()

    def type(self, keys: bytes) -> float:
        """Type keys; returns when."""
        now_s = time.monotonic()
        os.write(self._screen, keys)
        return now_s

    def _read(self) -> None:
        try:
            while data := os.read(self._screen, 65536):
                self.drawn_bytes += len(data)
        except OSError:
            return

    def close(self) -> None:
        """End it."""
        self.program.terminate()
        self.program.wait(timeout=20)
        os.close(self._screen)


class Watch:
    """An observer of the engine: what mode the rig is in, and whether the carriage moves."""

    def __init__(self, rig: str) -> None:
        self.state: RigState | None = None
        self.speed_mm_s = 0.0
        found: list[EngineAddress] = []

        def listens() -> bool:
            found[:] = [a for a in [find_engine(rig)] if a is not None and a.socket_path.exists()]
            return bool(found)

        wait_for(listens, "an engine")
        self.client = EngineClient(found[0], name="benchmark", on_event=self._hear)

    def _hear(self, event: AnyEvent) -> None:
        if isinstance(event, RigState):
            self.state = event
        elif isinstance(event, Motion):
            self.speed_mm_s = abs(event.velocity_mm_s)

    def mode(self) -> EngineMode | None:
        """Return the rig's mode."""
        return None if self.state is None else self.state.mode


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Wait until something is so.

    Raises:
        TimeoutError: It never was.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.02)


def serve_rig(folder: Path, stack: ExitStack) -> tuple[Path, WireTap]:
    """Start the simulated devices and write the profile of a rig that believes them to be real."""
    small = write_profile(folder, rate=1)
    command = rig_command("simulate", "--profile", small, "--data", folder / "data", "--json")
    simulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(simulator.wait)
    stack.callback(simulator.terminate)
    assert simulator.stdout is not None
    ready = json.loads(simulator.stdout.readline())
    tap = WireTap(ready["rail"])
    profile: dict[str, Any] = yaml.safe_load(small.read_text())
    del profile["simulation"]
    profile |= {"name": "keys", "simulated": False, "conditions": {}}
    profile["rail"]["port"] = tap.path
    profile["cameras"] = {"main": {"kind": "gphoto2", "address": ready["camera"]}}
    path = folder / "keys.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path, tap


def begin_session(terminal: OperatorTerminal, watch: Watch) -> None:
    """Get the rig ready, arm the plan with the word, and wait until the carriage sweeps."""
    if watch.mode() in {EngineMode.HOLD, EngineMode.LOCKED}:
        terminal.type(b"u")
        time.sleep(0.5)
        terminal.type(b"u")
        wait_for(lambda: watch.mode() in {EngineMode.READY, EngineMode.CONNECTED}, "leaving the hold")
    watch.speed_mm_s = 0.0
    terminal.type(b"s")
    wait_for(lambda: watch.mode() is EngineMode.ARMED, "the armed card")
    time.sleep(0.5)
    terminal.type(b"MOVE\r")
    wait_for(lambda: watch.speed_mm_s > 5, "the carriage to sweep")


def press(terminal: OperatorTerminal, tap: WireTap) -> float:
    """Press Space once; returns the time to the wire in ms.

    Raises:
        TimeoutError: No stop byte came.
    """
    latency_s = tap.first_hold_after(terminal.type(b" "))
    if latency_s is None:
        raise TimeoutError("a press of Space put no stop byte on the wire within 5 s")
    return 1000 * latency_s


def measure(presses: int, sessions: int, seed: int) -> dict[str, list[float]]:
    """Press the key in sessions and after them; returns latencies in ms."""
    drawn = random.Random(seed)
    recording: list[float] = []
    resting: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["XDG_RUNTIME_DIR"] = str(folder)
        profile, tap = serve_rig(folder, stack)
        rounds = [{"name": "gt", "role": "gt", "velocity_mm_s": 10}]
        plan = write_plan(folder, rounds=rounds)
        terminal = OperatorTerminal("--profile", profile, "--data", folder / "data")
        stack.callback(terminal.close)
        watch = Watch("keys")
        stack.callback(watch.client.close)
        wait_for(lambda: watch.mode() is EngineMode.CONNECTED, "the rig")
        terminal.type(b"2\x1b[Z")
        time.sleep(1.0)
        terminal.type(str(plan).encode() + b"\r")
        time.sleep(1.0)
        terminal.type(b"1")
        each = max((presses - sessions) // max(sessions, 1), 0)
        for _ in range(sessions):
            begin_session(terminal, watch)
            time.sleep(drawn.uniform(0, 1.5))
            recording.append(press(terminal, tap))
            for _ in range(each):
                time.sleep(PRESS_INTERVAL_S + drawn.uniform(0, 0.2))
                resting.append(press(terminal, tap))
            time.sleep(PRESS_INTERVAL_S)
    return {"recording": recording, "preview": resting}


def describe(latencies_ms: list[float]) -> dict[str, float]:
    """Return count, median, p99 and maximum, ms."""
    ordered = sorted(latencies_ms)
    return {
        "count": len(ordered),
        "median_ms": round(statistics.median(ordered), 3),
        "p99_ms": round(ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)], 3),
        "max_ms": round(ordered[-1], 3),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presses", type=int, default=60)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--saturate", action="store_true", help="keep every core busy meanwhile")
    options = parser.parse_args()
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1 if options.saturate else 0)
    ]
    try:
        found = measure(options.presses, options.sessions, options.seed)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    every = found["recording"] + found["preview"]
    result = {name: describe(values) for name, values in {**found, "all": every}.items() if values}
    load = "saturated" if options.saturate else "idle"
    before = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    document = {
        **before,
        load: {**result, "load_average": round(os.getloadavg()[0], 2), "cores": os.cpu_count()},
    }
    RESULT.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(json.dumps(document[load], indent=1))


if __name__ == "__main__":
    main()
