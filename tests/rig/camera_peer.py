"""A simulated camera body in a process of its own, as libgphoto2 holds the interpreter during some calls."""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.sim.ptpip import CameraFaults, PtpIpCamera

MOVIE_BYTES = b"not really a movie, but the card does not look inside " * 50_000


class PatternBackend:
    """Grey pictures whose level is the ISO number, and a movie that takes a while to close."""

    def __init__(self, movie_s: float) -> None:
        self._movie_s = movie_s
        self._folder = tempfile.TemporaryDirectory()
        self.movies: list[dict[str, Any]] = []

    def preview(self, settings: ExposureSettings) -> bytes:
        """A small JPEG."""
        out = io.BytesIO()
        Image.new("L", (64, 48), (settings.iso or 0) // 100).save(out, "JPEG")
        return out.getvalue()

    def still(self, settings: ExposureSettings) -> bytes:
        """The same JPEG."""
        return self.preview(settings)

    def movie(self, settings: ExposureSettings, t_start_s: float, t_stop_s: float) -> Path:
        """Bytes after a while."""
        time.sleep(self._movie_s)
        self.movies.append({"settings": settings.model_dump(), "length_s": t_stop_s - t_start_s})
        path = Path(self._folder.name) / f"{len(self.movies)}.mov"
        path.write_bytes(MOVIE_BYTES)
        return path


class Peer:
    """The test's handle on the body's process."""

    def __init__(self, pipe: Connection, process: multiprocessing.process.BaseProcess) -> None:
        self._pipe, self.process = pipe, process
        self.address: str = pipe.recv()

    def ask(self, what: str) -> Any:
        """Ask the body for its ``focus_steps``, ``settings`` or ``movies``, or tell it to ``freeze`` or ``vanish``."""
        self._pipe.send(what)
        return self._pipe.recv()


@contextmanager
def camera_peer(
    faults: CameraFaults | None = None, *, movie_s: float = 0.0, serial: str = "T1"
) -> Iterator[Peer]:
    """Run a body while the block runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_run, args=(theirs, faults or CameraFaults(), movie_s, serial), daemon=True
    )
    process.start()
    try:
        yield Peer(ours, process)
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()
        theirs.close()


def _run(pipe: Connection, faults: CameraFaults, movie_s: float, serial: str) -> None:
    backend = PatternBackend(movie_s)
    spec = SimulationSpec(start_delay_s=(0.1, 0.1))
    camera = PtpIpCamera(backend, SessionClock(), spec, serial=serial, faults=faults)
    pipe.send(camera.address)
    answers = {
        "focus_steps": lambda: camera.body.settings.focus_steps,
        "settings": lambda: camera.body.settings.exposure().model_dump(),
        "movies": lambda: backend.movies,
        "freeze": camera.body.thaw.clear,
        "vanish": camera.vanish,
    }
    while True:
        pipe.send(answers[pipe.recv()]())
