"""From a client's stop to the byte on the rail's wire, while the engine records and previews.

Three processes, as in use: this one presses, an engine runs sessions one after the other, a simulator plays rail and
camera. Its pictures are rendered beforehand, so that rendering takes no time from the engine; its controller notes on
the machine's monotonic clock when a hold byte was read from the pseudo-terminal's master, and keeps it from the
carriage; the engine's stop has no consequences but the byte. So all presses meet a recording rig.

Usage, on an otherwise idle machine: python -P benchmarks/rig_stop.py [--presses 1000]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.stopwatch import press_summary
from catalog.session_folder import ExposureSettings
from rig.client import EngineClient, StopLine
from rig.clock import SessionClock
from rig.engine.devices import Stage
from rig.engine.process import Engine
from rig.engine.signals import EndingSignals
from rig.events import ActEnded, AnyEvent, Armed, EngineMode, Motion, Preview, RigState, Saved
from rig.profile import RigProfile, find_profile
from rig.requests import ArmHome, ArmSession, Go, WatchPreview
from rig.runtime import EngineAddress
from rig.sim.encoder import MovieEncoder, to_yuv420
from rig.sim.grbl import GrblController
from rig.sim.grbl_mechanics import RailMechanics
from rig.sim.grbl_pty import GrblPty
from rig.sim.movie import jpeg
from rig.sim.ptpip import PtpIpCamera
from rig.sim.server import simulation_of

RESULT = Path(__file__).parent / "results" / "rig_stop.json"
WIDTH, HEIGHT, RATE_HZ = 640, 384, 30
PREVIEW_HZ = 10.0
LOST_AFTER_S = 5.0
PLAN = {
    "schema": 1,
    "scene": "stop",
    "sweep": {"start_mm": 60, "end_mm": 340, "velocity_mm_s": 40},
    "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
    "rounds": [
        {"name": "gt", "role": "gt"},
        *(
            {"name": f"r{k}", "role": "internal", "set": {"iso": 200 * k}, "degradations": ["noise"]}
            for k in range(1, 21)
        ),
    ],
    "retake_spoiled": False,
    "guards": {"on_fail": "warn", "min_free_gb": 0.5},
}


class ListeningController(GrblController):
    """Tells when a hold byte was read, and does not obey it."""

    def receive(self, data: bytes, t_s: float) -> None:
        """Take bytes from the wire."""
        now_s = time.monotonic()
        for _ in range(data.count(b"!")):
            sys.stdout.write(f"{now_s:.6f}\n")
        sys.stdout.flush()
        super().receive(data.replace(b"!", b""), t_s)


class PreparedBackend:
    """Serves pictures that were made beforehand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        noise = np.random.default_rng(1).integers(0, 255, (8, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
        self._pictures = [np.kron(n, np.ones((8, 8, 1), np.uint8)) for n in noise]
        self._frames = [to_yuv420(p) for p in self._pictures]
        self._jpegs = [jpeg(p) for p in self._pictures]
        self._count = 0

    def preview(self, settings: ExposureSettings) -> bytes:  # noqa: ARG002
        """Return a live-view frame."""
        self._count += 1
        return self._jpegs[self._count % len(self._jpegs)]

    def still(self, settings: ExposureSettings) -> bytes:  # noqa: ARG002
        """Return a picture."""
        return self._jpegs[0]

    def movie(self, settings: ExposureSettings, t_start_s: float, t_stop_s: float) -> Path:  # noqa: ARG002
        """Return a movie of that length."""
        self._count += 1
        path = self._folder / f"movie-{self._count:06d}.mov"
        with MovieEncoder(path, width=WIDTH, height=HEIGHT, rate_hz=RATE_HZ, crf=30) as movie:
            for number in range(max(int((t_stop_s - t_start_s) * RATE_HZ), 1)):
                movie.write(self._frames[number % len(self._frames)])
        return path


def without_pauses() -> None:
    """Let no garbage collection of the instrument's own count as the engine's delay."""
    gc.collect()
    gc.disable()


def simulate() -> None:
    """Serve rail and camera until stdin closes; prints their addresses, then the time of every hold byte."""
    profile = RigProfile.load("sim")
    spec = simulation_of(profile).model_copy(update={"rate": 1.0, "frame_rate_hz": RATE_HZ})
    clock = SessionClock()
    with ExitStack() as stack:
        card = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        controller = ListeningController(RailMechanics(lower_mm=0, travel_mm=400), t_s=clock.now())
        port = stack.enter_context(GrblPty(controller, clock))
        camera = PtpIpCamera(PreparedBackend(card), clock, spec)
        stack.callback(camera.close)
        print(json.dumps({"rail": port.path, "camera": camera.address}), flush=True)
        without_pauses()
        sys.stdin.read()


class UnimpressedEngine(Engine):
    """Puts a stop's bytes on the wire and draws no consequence."""

    def note_stop(self, *, emergency: bool, by: str) -> None:
        """Do nothing."""


def run_engine(profile_path: str, data: str) -> None:
    """Run an engine until it is terminated."""
    profile = RigProfile.load(profile_path)
    engine = UnimpressedEngine(profile, data=Path(data), stage=Stage("stop"))
    with (
        EndingSignals(engine.interruption) as signals,
        signals.stopping(engine, farewell=engine.interruption, then=engine.over.set),
        engine,
    ):
        print(json.dumps({"folder": str(engine.address.folder), "name": engine.address.name}), flush=True)
        engine.serve()


@contextmanager
def role(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run this file in another role."""
    command = [sys.executable, "-P", __file__, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.terminate()
            if child.stdin is not None:
                child.stdin.close()
            child.wait(timeout=30)


@contextmanager
def saturated(cores: int) -> Iterator[None]:
    """Keep so many cores busy while the block runs."""
    with ExitStack() as stack:
        for _ in range(cores):
            hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(hog.wait)
            stack.callback(hog.kill)
        yield


class Recording:
    """A client that keeps an engine recording and counts what it hears."""

    def __init__(self, address: EngineAddress) -> None:
        self._changed = threading.Condition()
        self._mode = EngineMode.OFFLINE
        self._over = False
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []
        self.client = EngineClient(address, name="bench", control=True, on_event=self._take)

    def _take(self, event: AnyEvent) -> None:
        with self._changed:
            self.counts[event.event] = self.counts.get(event.event, 0) + 1
            if isinstance(event, RigState):
                self._mode = event.mode
            elif isinstance(event, ActEnded) and not event.ok:
                self.failures.append(event.message)
            self._changed.notify_all()

    def await_mode(self, *modes: EngineMode) -> None:
        """Wait until the rig is in one of these modes."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._mode in modes, timeout=120):
                raise SystemExit(f"the rig stays {self._mode}: {self.failures}")

    def begin(self, command: ArmHome | ArmSession) -> None:
        """Take both steps."""
        armed = self.client.request(command)
        assert isinstance(armed, Armed)
        self.client.request(Go(token=armed.token, word=armed.word))

    def keep_running(self) -> None:
        """See that a session runs: begin another one where the last has ended."""
        if self._mode is EngineMode.READY:
            self.begin(ArmSession(plan_yaml=yaml.safe_dump(PLAN)))
        self.await_mode(EngineMode.RUNNING)

    def keep_recording(self) -> None:
        """Home, watch and begin a session."""
        self.await_mode(EngineMode.CONNECTED)
        self.begin(ArmHome())
        self.await_mode(EngineMode.READY)
        self.client.request(WatchPreview(on=True, rate_hz=PREVIEW_HZ))
        self.begin(ArmSession(plan_yaml=yaml.safe_dump(PLAN)))
        self.await_mode(EngineMode.RUNNING)


class WireLog:
    """Times at which hold bytes were read at the far end of the wire."""

    def __init__(self, simulator: subprocess.Popen[str]) -> None:
        self._changed = threading.Condition()
        self._times_s: list[float] = []
        self._simulator = simulator
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._simulator.stdout or ():
            with self._changed:
                self._times_s.append(float(line))
                self._changed.notify_all()

    def first_after(self, pressed_s: float) -> float | None:
        """Return the first time after a press, None when none comes."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._times_s and self._times_s[-1] >= pressed_s, timeout=LOST_AFTER_S
            )
            return next((t for t in self._times_s if t >= pressed_s), None)


def press(address: EngineAddress, wire: WireLog, recording: Recording, presses: int) -> dict[str, Any]:
    """Press at random intervals; returns latencies in ms and what the engine did meanwhile."""
    line = StopLine(address, by="bench")
    draw = random.Random(1)
    delays_ms: list[float] = []
    lost = 0
    before = dict(recording.counts)
    began_s = time.monotonic()
    for _ in range(presses):
        time.sleep(draw.uniform(0.02, 0.1))
        recording.keep_running()
        pressed_s = time.monotonic()
        line.press()
        arrived_s = wire.first_after(pressed_s)
        if arrived_s is None:
            lost += 1
        else:
            delays_ms.append(1000 * (arrived_s - pressed_s))
    line.close()
    return {
        **press_summary(delays_ms, presses=presses, lost=lost),
        "largest_ms": [round(d, 1) for d in sorted(delays_ms)[-5:]],
        "duration_s": round(time.monotonic() - began_s, 1),
        "events_meanwhile": {
            kind: recording.counts.get(kind, 0) - before.get(kind, 0)
            for kind in (Motion, Preview, RigState, Saved)
            for kind in [kind.model_fields["event"].default]
        },
    }


def write_profile(folder: Path, addresses: dict[str, str]) -> Path:
    """Write the simulated rig's profile as that of a real one at these addresses."""
    document = yaml.safe_load(find_profile("sim").read_text())
    del document["simulation"]
    document |= {"simulated": False, "name": f"stop-{os.getpid()}", "conditions": {}, "boards": []}
    document["rail"]["port"] = addresses["rail"]
    document["cameras"]["main"]["address"] = addresses["camera"]
    path = folder / "stop.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def measure(presses: int) -> dict[str, Any]:
    """Measure on the machine as it is, then with every core taken."""
    with tempfile.TemporaryDirectory() as temporary, role("simulate") as simulator:
        folder = Path(temporary)
        profile = write_profile(folder, json.loads(simulator.stdout.readline()))  # type: ignore[union-attr]
        with role("engine", str(profile), str(folder / "data")) as engine:
            told = json.loads(engine.stdout.readline())  # type: ignore[union-attr]
            address = EngineAddress(Path(told["folder"]), told["name"])
            recording, wire = Recording(address), WireLog(simulator)
            recording.keep_recording()
            load = os.getloadavg()[0]
            without_pauses()
            quiet = press(address, wire, recording, presses)
            with saturated(os.cpu_count() or 2):
                busy = press(address, wire, recording, presses)
            recording.client.close()
    return {
        "load_average_before": round(load, 2),
        "cores": os.cpu_count(),
        "as_it_is": quiet,
        "all_cores_taken": busy,
    }


def main() -> None:
    """Measure, or play a role for another process of this file."""
    if sys.argv[1:2] == ["simulate"]:
        simulate()
    elif sys.argv[1:2] == ["engine"]:
        run_engine(sys.argv[2], sys.argv[3])
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--presses", type=int, default=1000)
        result = measure(parser.parse_args().presses)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
