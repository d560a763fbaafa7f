"""A simulated camera with tiny pictures, and the real driver connected to it over TCP."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import av
import numpy as np
from PIL import Image

from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
from rig.profile import SimulationSpec
from rig.sim.ptp_recorder import CameraFaults
from rig.sim.ptpip import PtpIpCamera

FRAME_RATE_HZ = 30
START_DELAY_S = (0.05, 0.1)


@dataclass
class SmallBackend:
    """Grey pictures; remembers what was asked of it."""

    folder: Path
    render_s: float = 0.0
    """How long a movie takes to render."""
    movies: list[tuple[ExposureSettings, float, float]] = field(default_factory=list)
    stills: list[ExposureSettings] = field(default_factory=list)
    rendered: threading.Event = field(default_factory=threading.Event)

    def preview(self, settings: ExposureSettings) -> bytes:
        return grey_jpeg(64, 48)

    def still(self, settings: ExposureSettings) -> bytes:
        self.stills.append(settings)
        return grey_jpeg(320, 240)

    def movie(self, settings: ExposureSettings, t_start_s: float, t_stop_s: float) -> Path:
        time.sleep(self.render_s)  # stands for the work of a renderer
        self.movies.append((settings, t_start_s, t_stop_s))
        path = self.folder / f"rendered-{len(self.movies)}.mov"
        write_movie(path, frames=max(round((t_stop_s - t_start_s) * FRAME_RATE_HZ), 1))
        self.rendered.set()
        return path


@dataclass
class SmallRawBackend(SmallBackend):
    """Makes raw files, too; none looks into them."""

    RAW: ClassVar[bytes] = b"not a picture that anybody develops"

    def raw(self, settings: ExposureSettings) -> bytes:
        return self.RAW


def grey_jpeg(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (119, 119, 119)).save(out, "JPEG")
    return out.getvalue()


def write_movie(path: Path, *, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE_HZ)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(frames):
            codes = np.full((48, 64, 3), k % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(codes, format="rgb24")))
        container.mux(stream.encode())


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@contextmanager
def small_body(
    folder: Path,
    *,
    maker: Literal["nikon", "canon"] = "nikon",
    render_s: float = 0.0,
    rate: float = 1.0,
    serial: str = "SIM0001",
    backend: SmallBackend | None = None,
    **faults: Any,
) -> Iterator[tuple[PtpIpCamera, SmallBackend, SessionClock]]:
    """Run a simulated body; ``faults`` are members of `CameraFaults`."""
    clock = SessionClock(origin_s=time.monotonic(), rate=rate)
    backend = backend or SmallBackend(folder, render_s)
    spec = SimulationSpec(start_delay_s=START_DELAY_S, frame_rate_hz=FRAME_RATE_HZ, camera_body=maker)
    body = PtpIpCamera(backend, clock, spec, serial=serial, faults=CameraFaults(**faults))
    try:
        yield body, backend, clock
    finally:
        body.close()


@contextmanager
def driver(body: PtpIpCamera, clock: SessionClock, **settings: Any) -> Iterator[Gphoto2Camera]:
    """Open the real driver on a body; ``settings`` are members of `Gphoto2Settings`."""
    camera = Gphoto2Camera(Gphoto2Settings(kind="gphoto2", address=body.address, **settings), clock)
    try:
        camera.open()
        yield camera
    finally:
        camera.close()


@dataclass
class Bench:
    """A driver, the body it drives and what makes the body's pictures."""

    camera: Gphoto2Camera
    body: PtpIpCamera
    backend: SmallBackend
    clock: SessionClock

    def film(self, duration_s: float) -> tuple[Any, ...]:
        """Record for so many session seconds and return the card files."""
        self.camera.start_movie()
        self.clock.sleep(duration_s)
        return self.camera.stop_movie()


@contextmanager
def bench(
    folder: Path,
    *,
    maker: Literal["nikon", "canon"] = "nikon",
    render_s: float = 0.0,
    rate: float = 1.0,
    settings: dict[str, Any] | None = None,
    **faults: Any,
) -> Iterator[Bench]:
    """Put driver and body together."""
    with (
        small_body(folder, maker=maker, render_s=render_s, rate=rate, **faults) as (body, backend, clock),
        driver(body, clock, **(settings or {})) as camera,
    ):
        yield Bench(camera, body, backend, clock)
