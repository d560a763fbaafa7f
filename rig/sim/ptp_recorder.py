"""What the simulated body does with its shutter: movies and stills, made in threads while the body goes on answering.

A movie is rendered after it was stopped, which takes longer than the library waits for an answer. So the stop is
acknowledged at once and the file announced when it is closed; until then the body says that its buffer is not
yet written, as a real one does.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from catalog.errors import CleanplateError
from catalog.session_folder import ExposureSettings
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.profile import SimulationSpec
from rig.scratch import ScratchFolder

SettingName = Literal[
    "iso", "f_number", "exposure_s", "white_balance", "colour_temperature", "focus_mode", "still_format"
]
Moment = Literal["open", "set", "preview", "start_movie", "stop_movie", "capture", "fetch", "events", "ready"]
_JOIN_S = 5.0
_GLANCE_S = 0.02
"""How often a recording looks whether the faults end it."""
_SHORTEST_BULB_S = 0.01
_BURST_PAUSE_S = 0.1
"""Session seconds between the pictures of a burst."""
_log = logging.getLogger(__name__)


class CameraBackend(Protocol):
    """Makes the pictures of the simulated camera."""

    def preview(self, settings: ExposureSettings) -> bytes:
        """Return a live-view frame as JPEG."""

    def still(self, settings: ExposureSettings) -> bytes:
        """Return a picture as a JPEG file."""

    def movie(self, settings: ExposureSettings, t_start_s: float, t_stop_s: float) -> Path:
        """Return a finished movie file of what happened between two past session times."""


@runtime_checkable
class RawBackend(Protocol):
    """Makes raw files, too."""

    def raw(self, settings: ExposureSettings) -> bytes:
        """Return the picture that `CameraBackend.still` gave last as a raw file."""


class CameraFaults(Document):
    """What goes wrong with the body."""

    refused: tuple[SettingName, ...] = ()
    """Settings that refuse every value."""
    ignored: tuple[SettingName, ...] = ()
    """Settings that accept a value and keep their own."""
    rounded: tuple[SettingName, ...] = ()
    """Settings that accept a value and take the choice beside it."""
    freezes_at: Moment | None = None
    """From this operation on the body answers nothing, as firmware that hangs."""
    freeze_s: float | None = Field(default=None, gt=0)
    """How long such a freeze lasts, s of the machine; None until somebody thaws the body."""
    vanishes_at: Moment | None = None
    """At this operation the body drops every connection, as an unplugged cable does. It does so once."""
    returns_after_s: float | None = Field(default=None, ge=0)
    """A body that vanished is back so many seconds (of the machine) later, as at power-up."""
    returns_at_port: int | None = Field(default=None, gt=0, le=65535)
    """It is back at this port; None at its old one."""
    returns_as: str | None = None
    """Another body, with this serial number, is there instead of it."""
    is_claimed: bool = False
    """Whoever asks for a connection is turned away, as when another program has it."""
    drifting: tuple[SettingName, ...] = ()
    """Settings that move to the choice beside theirs while a movie runs, and tell so, as a turned dial does."""
    clock_off_s: float = 0.0
    """The body's clock is off by this much, and does not let itself be set."""
    battery_percent: int | None = Field(default=None, ge=0, le=100)
    """What the battery is down to; None for a good one."""
    is_hot: bool = False
    """The body has overheated and refuses live view and movies."""
    movie_never_starts: bool = False
    movie_ends_after_s: float | None = Field(default=None, gt=0)
    """Every movie ends by itself after so many session seconds, as after heat or with a slow card."""
    movie_split_after_s: float | None = Field(default=None, gt=0)
    """Every movie is cut into files of so many session seconds, as a 4 GB limit does."""
    movie_is_lost: bool = False
    """The movie is recorded, but its file is never closed."""
    movie_prohibit_bits: int = 0
    """Bits set in the body's list of reasons against a movie."""
    announced_twice: bool = False
    """Every new file is announced twice."""
    announced_late_s: float = Field(default=0.0, ge=0)
    """A closed file is announced so many seconds (of the machine) later."""
    announced_in_disorder: bool = False
    """Files of one movie or picture are told of last first."""
    pictures_to_memory: bool = False
    """Stills go to the body's memory, whatever the capture target says; the next one takes the place of the last."""
    pictures_lost: tuple[int, ...] = ()
    """These pictures, counted from 1, are exposed, but their files are never closed."""
    pictures_cut: bool = False
    """Every JPEG, live view included, ends in its middle."""
    busy_answers: int = Field(default=0, ge=0)
    """So many times in a row the body is busy after an action."""
    bytes_missing: int = Field(default=0, ge=0)
    """Every file ends so many bytes before the size that the body tells."""
    size_error_bytes: int = 0
    """Every file's size is told wrong by this much."""
    card_bytes: int = Field(default=64_000_000_000, ge=0)
    """Size of the card."""
    card_fills_bytes_s: float = Field(default=0.0, ge=0)
    """While a movie runs the card's free space shrinks by this much a second (of the machine); full, it ends it."""


class Shutter(Enum):
    """What the body is doing with its shutter."""

    IDLE = "idle"
    EXPOSING = "exposing"
    """A still; nothing else is possible meanwhile."""
    RECORDING = "recording"
    WRITING = "writing"
    """A movie has ended and its file is not closed yet."""


@dataclass
class Recording:
    """A movie between its start and the closing of its file."""

    settings: ExposureSettings
    start_s: float
    """Session time of the first frame."""
    stopped: threading.Event = field(default_factory=threading.Event)
    stop_s: float = float("inf")


class Recorder:
    """Exposes stills and movies, one at a time, and announces their files.

    Args:
        backend: Makes the pictures.
        clock: The session clock; movies start and end on it.
        spec: Start delay and frame rate of movies, and the seed the delays are drawn with.
        announce: Called with the path of every finished file.
        faults: What goes wrong; asked each time, so that it can change.

    Attributes:
        suffixes: Files of a still, in the order in which they are written; others than ``.jpg`` are raw.
    """

    def __init__(
        self,
        backend: CameraBackend,
        clock: SessionClock,
        *,
        spec: SimulationSpec,
        announce: Callable[[Path], None],
        faults: Callable[[], CameraFaults],
    ) -> None:
        self._backend, self._clock, self._spec = backend, clock, spec
        self._announce, self._faults = announce, faults
        self._delays = random.Random(spec.seed)  # noqa: S311  - physics, not secrets
        self._folder: ScratchFolder | None = None
        self._stills = 0
        self._recording: Recording | None = None
        self._closing = threading.Event()
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.state = Shutter.IDLE
        self.suffixes: tuple[str, ...] = (".jpg",)

    def start_movie(self, settings: ExposureSettings) -> None:
        """Begin to record; the first frame comes a random delay later."""
        if self._faults().movie_never_starts:
            return
        delay_s = self._delays.uniform(*self._spec.start_delay_s)
        self._recording = Recording(settings, self._clock.now() + delay_s)
        self._begin(Shutter.RECORDING, self._record, self._recording)

    def stop_movie(self) -> bool:
        """End the movie now and return at once; False when none is being recorded."""
        recording = self._recording
        with self._lock:
            if self.state is not Shutter.RECORDING or recording is None:
                return self._faults().movie_never_starts
            self.state = Shutter.WRITING
        recording.stop_s = min(recording.stop_s, self._clock.now())
        recording.stopped.set()
        return True

    def expose(self, settings: ExposureSettings) -> None:
        """Begin to take a picture."""
        self._begin(Shutter.EXPOSING, self._take_still, settings)

    def hold_open(self, settings: ExposureSettings) -> None:
        """Open the shutter until `release`: a picture whose exposure time is how long that took (bulb)."""
        self._released.clear()
        self._begin(Shutter.EXPOSING, self._take_bulb, settings)

    def expose_until_released(self, settings: ExposureSettings) -> None:
        """Take pictures one after the other, one at least, until `release` (a burst)."""
        self._released.clear()
        self._begin(Shutter.EXPOSING, self._take_burst, settings)

    def expose_several(self, settings: ExposureSettings, count: int) -> None:
        """Begin to take so many pictures, one after the other."""
        self._begin(Shutter.EXPOSING, self._take_several, [settings] * count)

    def release(self) -> None:
        """Let go of the button; the picture that is being exposed is finished."""
        self._released.set()

    def close(self) -> None:
        """End what is going on and let go of the body's own files; a movie being rendered is abandoned."""
        self._closing.set()
        self._released.set()
        self.stop_movie()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
        if self._folder is not None:
            self._folder.cleanup()

    def _begin(self, state: Shutter, work: Callable[..., None], argument: object) -> None:
        self.state = state
        self._thread = threading.Thread(target=self._carry_out, args=(work, argument), daemon=True)
        self._thread.start()

    def _carry_out(self, work: Callable[..., None], argument: object) -> None:
        try:
            work(argument)
        except (CleanplateError, OSError):
            _log.exception("the simulated camera lost a picture")
        finally:
            self.state = Shutter.IDLE

    def _take_still(self, settings: ExposureSettings) -> None:
        self._clock.sleep(settings.exposure_s or 0.0, self._closing)
        self._store_still(settings)

    def _store_still(self, settings: ExposureSettings) -> None:
        self._stills += 1
        if self._stills in self._faults().pictures_lost:
            return
        if self._folder is None:
            self._folder = ScratchFolder("stills")
        picture = self.cut(self._backend.still(settings))
        for suffix in self.suffixes:
            path = self._folder.path / f"still-{self._stills:06d}{suffix}"
            path.write_bytes(picture if suffix == ".jpg" else self._raw(settings))
            self._publish(path)

    def cut(self, picture: bytes) -> bytes:
        """Return a JPEG as this body delivers it."""
        return picture[: len(picture) // 2] if self._faults().pictures_cut else picture

    def _raw(self, settings: ExposureSettings) -> bytes:
        return self._backend.raw(settings) if isinstance(self._backend, RawBackend) else b""

    def _take_bulb(self, settings: ExposureSettings) -> None:
        opened_s = self._clock.now()
        self._released.wait()
        held_s = max(self._clock.now() - opened_s, _SHORTEST_BULB_S)
        self._store_still(settings.model_copy(update={"exposure_s": held_s}))

    def _take_several(self, pictures: Sequence[ExposureSettings]) -> None:
        for settings in pictures:
            self._take_still(settings)

    def _take_burst(self, settings: ExposureSettings) -> None:
        while True:
            self._take_still(settings)
            self._clock.sleep(_BURST_PAUSE_S, self._released)
            if self._released.is_set():
                return

    def _record(self, recording: Recording) -> None:
        self._await_end(recording)
        with self._lock:
            self.state = Shutter.WRITING
        # A movie stopped before its first frame has one frame all the same; it lies in the future still.
        stop_s = max(recording.stop_s, recording.start_s + 1 / self._spec.frame_rate_hz)
        self._clock.sleep(stop_s - self._clock.now(), self._closing)
        if self._faults().movie_is_lost or self._closing.is_set():
            return
        for start_s, end_s in self._parts(recording.start_s, stop_s):
            self._publish(self._backend.movie(recording.settings, start_s, end_s))

    def _await_end(self, recording: Recording) -> None:
        while not recording.stopped.wait(_GLANCE_S):
            limit_s = self._faults().movie_ends_after_s
            if limit_s is not None and self._clock.now() >= recording.start_s + limit_s:
                recording.stop_s = min(recording.stop_s, recording.start_s + limit_s)
                return

    def _parts(self, start_s: float, stop_s: float) -> Iterator[tuple[float, float]]:
        length_s = self._faults().movie_split_after_s or stop_s - start_s
        while start_s < stop_s:
            end_s = min(start_s + length_s, stop_s)
            yield start_s, end_s
            start_s = end_s

    def _publish(self, path: Path) -> None:
        late_s = self._faults().announced_late_s
        if late_s:
            self._closing.wait(late_s)
        self._announce(path)
