"""One session with a simulated camera that goes wrong at a chosen phase, and what the driver made of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from small_camera import SmallBackend, small_body

from catalog.session_folder import ExposureSettings
from rig.clock import SessionClock
from rig.devices.camera import CameraStatus, CardFile
from rig.devices.gphoto2_camera import Gphoto2Camera, Gphoto2Settings
from rig.errors import DeviceError
from rig.sim.ptp_recorder import CameraFaults, Moment
from rig.sim.ptpip import PtpIpCamera

Phase = Literal["opening", "configuring", "recording", "fetching"]
Step = Literal[
    "open", "status", "configure", "start_movie", "preview", "watch", "stop_movie", "still", "fetch", "done"
]
State = Literal["open", "lost", "closed"]

SERIAL = "SIM0001"
MOVIE_S = 0.6
MOMENTS: dict[Phase, Moment] = {
    "opening": "open",
    "configuring": "set",
    "recording": "preview",
    "fetching": "fetch",
}
"""The operation at which a body goes away or hangs in each phase."""
_SETTINGS = ExposureSettings(iso=400, f_number=5.6, exposure_s=0.01, white_balance="cloudy")


@dataclass
class Story:
    """What happened."""

    ended_at: Step = "done"
    error: DeviceError | None = None
    before: CameraStatus | None = None
    """The state told before the movie."""
    during: CameraStatus | None = None
    """The state told while it ran."""
    movie: tuple[CardFile, ...] = ()
    still: tuple[CardFile, ...] = ()
    fetched: list[Path] = field(default_factory=list)


@dataclass
class Scene:
    """A driver and the body it drives."""

    body: PtpIpCamera
    backend: SmallBackend
    clock: SessionClock
    camera: Gphoto2Camera
    folder: Path
    other_port: int

    def spoil(self, **faults: Any) -> None:
        """Let the body go wrong."""
        self.body.body.faults = CameraFaults(**faults)

    def heal(self) -> None:
        """Let the body be as it should be: repaired, thawed and connected, at its own address."""
        self.spoil()
        self.body.body.return_from(CameraFaults(returns_as=SERIAL))
        self.body.body.thaw.set()
        self.body.appear()

    def play(self, phase: Phase, spoil: Callable[[Scene, Phase], None]) -> Story:
        """Go through a session, spoiling the body at the beginning of a phase, up to the first error."""
        story = Story()
        for step, act in self._steps(story):
            if (phase, step) in _FIRST_STEPS:
                spoil(self, phase)
            try:
                act()
            except DeviceError as error:
                story.ended_at, story.error = step, error
                break
        return story

    def state(self) -> State:
        """Tell how the driver stands once the body is well again: usable, or to be connected anew."""
        try:
            self.camera.status()
        except DeviceError:
            return "lost" if self.camera.identity.serial and self.camera.identity.model else "closed"
        return "open"

    def take(self, name: str) -> Path:
        """Record a movie and fetch it."""
        self.camera.start_movie()
        self.clock.sleep(MOVIE_S)
        *_, file = self.camera.stop_movie()
        return self.camera.fetch(file, self.folder / name).path

    def _steps(self, story: Story) -> Iterator[tuple[Step, Callable[[], object]]]:
        camera = self.camera

        def note(attribute: str, call: Callable[[], object]) -> Callable[[], object]:
            return lambda: setattr(story, attribute, call())

        yield "open", camera.open
        yield "status", note("before", camera.status)
        yield "configure", lambda: camera.configure(_SETTINGS)
        yield "start_movie", camera.start_movie
        yield "preview", camera.preview
        yield "watch", note("during", self._watch)
        yield "stop_movie", note("movie", camera.stop_movie)
        yield "still", note("still", camera.capture_still)
        yield "fetch", lambda: self._fetch(story)

    def _watch(self) -> CameraStatus:
        self.clock.sleep(MOVIE_S)
        return self.camera.status()

    def _fetch(self, story: Story) -> None:
        for number, file in enumerate((*story.movie, *story.still)):
            target = self.folder / f"{number}-{file.name}"
            story.fetched.append(self.camera.fetch(file, target).path)
            self.camera.delete(file)


_FIRST_STEPS = {
    ("opening", "open"),
    ("configuring", "status"),
    ("recording", "preview"),
    ("fetching", "fetch"),
}


@contextmanager
def scene(
    folder: Path, *, looks_elsewhere: bool, maker: Literal["nikon", "canon"] = "nikon"
) -> Iterator[Scene]:
    """Put a healthy body and a driver with short deadlines together, and let nothing be left behind.

    Args:
        folder: For movies and what is fetched.
        looks_elsewhere: Whether the driver knows the second port as a place to look for the body.
        maker: Whose body it is.
    """
    port = _free_port()
    with small_body(folder, maker=maker, serial=SERIAL) as (body, backend, clock):
        settings = Gphoto2Settings(
            kind="gphoto2",
            address=body.address,
            more_addresses=(f"ptpip:127.0.0.1:{port}:{port}",) if looks_elsewhere else (),
            serial=SERIAL,
            call_s=5.0,
            open_s=12.0,
            movie_close_s=3.0,
        )
        camera = Gphoto2Camera(settings, clock)
        try:
            yield Scene(body, backend, clock, camera, folder, port)
        finally:
            body.body.thaw.set()
            camera.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
