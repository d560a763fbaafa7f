"""The engine's end of the simulated rig: starts its process, hears where its devices are, sets its weather.

The simulated rig is another program to the engine: a serial port and a network camera. Only conditions,
which on a real rig an operator sets with water and smoke, travel over the pipe to that process.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, cast

from rig.clock import SessionClock
from rig.errors import DeviceError, DeviceTimeoutError
from rig.profile import RigProfile

START_TIMEOUT_S = 60.0


class SimulatedRigProcess:
    """A simulated rig of this process, which ends with it at the latest (its stdin closes); `close` it.

    Args:
        profile: A profile with `simulated: true`.
        scene: Seeds the arrangement of the world.
        photos: Folder of photographs for the world's surfaces; None uses the bundled ones.
        data: Data folder; the truth goes to ``sim-truth`` in it.
        clock: The session clock, shared with the simulator.
    """

    def __init__(
        self, profile: RigProfile, *, scene: str, photos: Path | None, data: Path, clock: SessionClock
    ) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "rig.sim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._request = {
            "profile": profile.model_dump(mode="json", by_alias=True),
            "scene": scene,
            "photos": None if photos is None else str(photos.absolute()),
            "data": str(data),
            "origin_s": clock.origin_s,
            "rate": clock.rate,
        }
        self.rail_port = self.camera_address = ""
        """Where the devices are, once it has started."""

    def start(self) -> None:
        """Wait until it serves.

        Raises:
            DeviceTimeoutError: It ended, was ended, or does not answer.
            DeviceError: It cannot be set up like this.
        """
        ready = self._exchange(self._request)
        self.rail_port, self.camera_address = str(ready["rail"]), str(ready["camera"])

    def set_condition(self, name: str, level: str) -> None:
        """Set an external condition of the simulated world."""
        self._exchange({"condition": name, "level": level})

    def interrupt(self) -> None:
        """Let the simulator end now; whoever waits for its answer is told so. Thread-safe."""
        self._child.terminate()

    def close(self) -> None:
        """End the simulator; closing its stdin asks, killing makes sure."""
        with contextlib.suppress(OSError):  # what it died before reading
            cast("IO[str]", self._child.stdin).close()
        try:
            self._child.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        cast("IO[str]", self._child.stdout).close()

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            stdin, stdout = cast("IO[str]", self._child.stdin), cast("IO[str]", self._child.stdout)
            watchdog = threading.Timer(START_TIMEOUT_S, self._child.kill)
            watchdog.start()
            try:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
                line = stdout.readline()
            except BrokenPipeError:
                line = ""
            finally:
                watchdog.cancel()
        if not line.endswith("\n"):
            raise DeviceTimeoutError(
                "the simulated rig ended or did not answer",
                next_step="its own messages stand above this line",
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DeviceError(f"simulated rig: {answer['error']}")
        return answer
