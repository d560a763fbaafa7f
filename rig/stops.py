"""Stop-and-shoot: go to a place, stand until nothing shakes, take a still, go on while it is copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from alignment.raw import RAW_SUFFIXES
from catalog.session_folder import ColourTags, FrameTime, TelemetrySample
from rig.camera_thread import CameraThread
from rig.devices.camera import Camera, CardFile, FetchedFile
from rig.errors import DeviceTimeoutError, TakeVoidError
from rig.passage import Passage, Sweeping
from rig.session import TakeRecorder
from rig.storage import storing

MOST_MISSING_IN_A_ROW = 2
"""A body that misses more stills than these does not take any."""
Keep = Callable[[Sequence[FetchedFile], Sequence[CardFile]], None]


@dataclass(frozen=True)
class Shot:
    """One still."""

    stop: int
    """Number of its stop, from 0."""
    file: str
    """Path relative to the take's folder."""
    requested_s: float


@dataclass(frozen=True)
class StillSeries:
    """The stills of a round."""

    shots: tuple[Shot, ...]
    missing: tuple[int, ...]
    """Numbers of the stops at which the camera delivered none."""
    size: tuple[int, int]
    colour: ColourTags
    sweeping: Sweeping

    @property
    def frames(self) -> list[FrameTime]:
        """The frame table: one row per still; `pts` is the number of its stop."""
        return [FrameTime(k, shot.stop, "1/1", shot.requested_s) for k, shot in enumerate(self.shots)]

    @property
    def dropped_after(self) -> tuple[int, ...]:
        """Rows of the frame table after which at least one still is missing."""
        stops = [shot.stop for shot in self.shots]
        return tuple(k for k, (a, b) in enumerate(pairwise(stops)) if b > a + 1)


class StopSeries:
    """Takes the stills of one stop-and-shoot round.

    Args:
        take: Receives the files.
        camera: The camera.
        passage: Moves the carriage.
        keep: Acknowledges fetched files and clears the card of them.
    """

    def __init__(self, take: TakeRecorder, camera: CameraThread, passage: Passage, *, keep: Keep) -> None:
        self._take, self._camera, self._passage, self._keep = take, camera, passage, keep
        self._folder = take.begin_folder(camera.name)
        self._copying: Future[tuple[FetchedFile, ...]] | None = None
        self._on_card: tuple[CardFile, ...] = ()
        self._telemetry: list[TelemetrySample] = []
        self._missing: list[int] = []

    def shoot(self) -> StillSeries:
        """Go from stop to stop; a still that does not come is noted, the others are kept.

        Raises:
            TakeVoidError: The camera takes no stills any more.
            TakeStoppedError, CameraLostError, RailLockedError: As the acts raise them.
        """
        taken = [self._shot(number, stop_mm) for number, stop_mm in enumerate(self._take.round.stops_mm)]
        self._collect()
        shots = tuple(shot for shot in taken if shot is not None)
        if len(shots) < 2:
            raise TakeVoidError(f"the camera delivered {len(shots)} of {len(taken)} stills")
        first, last = self._telemetry[0], self._telemetry[-1]
        size, colour = self._camera.call(lambda _: _look_at(self._take.folder / shots[0].file))
        sweeping = Sweeping(first.t_host_s, last.t_host_s, tuple(self._telemetry))
        return StillSeries(shots, tuple(self._missing), size, colour, sweeping)

    def _shot(self, number: int, stop_mm: float) -> Shot | None:
        if number:
            self._passage.go(stop_mm)
        self._passage.stand(self._take.round.settle_s)
        self._collect()
        before = self._passage.look(self._take.round)
        on_card = self._capture()
        self._telemetry += [before, self._passage.look(self._take.round)]
        if not on_card:
            self._note_missing(number, stop_mm)
            return None
        targets = [self._folder / f"{number:06d}{Path(f.name).suffix.lower()}" for f in on_card]
        self._on_card = on_card
        self._copying = self._camera.start(lambda camera: fetch_all(camera, on_card, targets))
        # Of two files of one still the raw one is its frame; the other is kept beside it.
        chosen = next((t for t in targets if t.suffix in RAW_SUFFIXES), targets[0])
        return Shot(number, chosen.relative_to(self._take.folder).as_posix(), before.t_host_s)

    def _capture(self) -> tuple[CardFile, ...]:
        """Take a still; an empty tuple where none was announced in time by a camera that is still there."""
        try:
            return self._camera.call(lambda camera: camera.capture_still())
        except DeviceTimeoutError:
            return ()

    def _note_missing(self, number: int, stop_mm: float) -> None:
        self._missing.append(number)
        if all(n in self._missing for n in range(number - MOST_MISSING_IN_A_ROW, number + 1)):
            raise TakeVoidError(
                f"the camera delivered no still {MOST_MISSING_IN_A_ROW + 1} times in a row, last at {stop_mm:.2f} mm"
            )

    def _collect(self) -> None:
        if self._copying is not None:
            fetched = self._camera.wait(self._copying)
            self._keep(fetched, self._on_card)
            self._copying = None


def fetch_all(camera: Camera, files: Sequence[CardFile], targets: Sequence[Path]) -> tuple[FetchedFile, ...]:
    """Copy card files to their places in a take.

    Raises:
        StorageError: The disk does not take one.
        DeviceError: The camera does not give one.
    """
    with storing(targets[0].parent):
        return tuple(camera.fetch(f, target) for f, target in zip(files, targets, strict=True))


def _look_at(path: Path) -> tuple[tuple[int, int], ColourTags]:
    from alignment.decode import read_still

    height, width = read_still(path).shape[:2]
    return (width, height), ColourTags()
