"""The simulated rig put together: one world, a rail and a camera in it, both reachable as on a real rig.

The rail is a serial port (a pseudo-terminal), the camera a PTP/IP peer on loopback. The camera asks the world
for pictures only when a movie stops, so that motion never waits for rendering.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from catalog.errors import CleanplateError, InvalidDocumentError
from catalog.session_folder import ExposureSettings
from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.devices.condition import OFF
from rig.errors import RigError
from rig.profile import RigProfile, SimulationSpec
from rig.scratch import ScratchFolder
from rig.sim.carriage import Carriage
from rig.sim.grbl import GrblController
from rig.sim.grbl_faults import RailFaults
from rig.sim.grbl_mechanics import RailMechanics
from rig.sim.grbl_pty import GrblPty
from rig.sim.mjpeg import MjpegServer, paced
from rig.sim.movie import RenderPool, Stage, jpeg, lit_share, record_movie, record_still
from rig.sim.ptp_recorder import CameraFaults
from rig.sim.ptpip import PtpIpCamera
from rig.sim.twin import twin_of
from rig.sim.weather import check_condition
from rig.sim.world import Shot

F = TypeVar("F", bound=Document)
PREVIEW_WIDTH_PX = 640


@dataclass(frozen=True)
class SimulatedRigSetup:
    """What a simulated rig is made from."""

    profile: RigProfile
    scene: str
    photos: Path | None
    data: Path
    clock: SessionClock


@dataclass(frozen=True)
class _Still:
    """One picture before it is rendered."""

    seed: int
    shot: Shot
    start_s: float


class WorldBackend:
    """Gives the simulated camera its pictures: what the world looked like from where the carriage was.

    Args:
        setup: Scene, optics and clock.
        controller: Knows where the carriage was at any past time.
        pool: Renders frames.
        card: Folder for finished files.
    """

    def __init__(
        self, setup: SimulatedRigSetup, *, controller: GrblController, pool: RenderPool, card: Path
    ) -> None:
        self._setup, self._controller, self._pool, self._card = setup, controller, pool, card
        self._spec = simulation_of(setup.profile)
        pin = setup.profile.sync_led
        self._led = None if pin is None else controller.output_log(pin)
        self._stage = Stage(self._spec, setup.profile.lens, setup.profile.boards, setup.scene, setup.photos)
        self._pool.prepare(self._stage, Shot(ExposureSettings()))  # the world is built while the rail homes
        self._conditions: dict[str, str] = {}
        self._shots = 0
        self._last: _Still | None = None
        self._lock = threading.Lock()

    def set_condition(self, name: str, level: str) -> None:
        """Set an external condition for the pictures to come."""
        check_condition(name, level)
        with self._lock:
            self._conditions = {**self._conditions, name: level}

    def preview(self, settings: ExposureSettings) -> bytes:
        """Return what the camera sees now as a small JPEG."""
        import cv2

        now_s = np.array([self._setup.clock.now()])
        shot = self._shot(settings, 0)
        lit = lit_share(self._led, self._spec, shot, float(now_s[0]))
        codes = self._pool.picture(self._stage, shot, self._carriage(0).poses(now_s), seed=0, lit=lit)
        height = codes.shape[0] * PREVIEW_WIDTH_PX // codes.shape[1]
        return jpeg(np.asarray(cv2.resize(codes, (PREVIEW_WIDTH_PX, height), interpolation=cv2.INTER_AREA)))

    def live(self) -> Iterator[bytes]:
        """Yield what a UVC camera sees now as full-size JPEG, at the simulated frame rate or as fast as it renders."""
        metered = ExposureSettings.model_validate(self._spec.metered.model_dump())

        def frame(number: int) -> bytes:
            now_s = np.array([self._setup.clock.now()])
            shot = self._shot(metered, number)
            lit = lit_share(self._led, self._spec, shot, float(now_s[0]))
            poses = self._carriage(0).poses(now_s)
            return jpeg(self._pool.picture(self._stage, shot, poses, seed=number, lit=lit))

        return paced(frame, rate_hz=self._spec.frame_rate_hz * self._setup.clock.rate)

    def still(self, settings: ExposureSettings) -> bytes:
        """Take one picture now; returns a JPEG file."""
        self._last = self._exposed(settings)
        return self._file_of(self._last, ".jpg")

    def raw(self, settings: ExposureSettings) -> bytes:
        """Return the picture that `still` gave last as a raw file."""
        return self._file_of(self._last or self._exposed(settings), ".dng")

    def movie(self, settings: ExposureSettings, t_start_s: float, t_stop_s: float) -> Path:
        """Render what passed in front of the camera between two past session times."""
        seed = self._next_seed()
        return record_movie(
            self._card / f"movie-{seed:06d}.mov",
            pool=self._pool,
            stage=self._stage,
            shot=self._shot(settings, seed),
            carriage=self._carriage(seed),
            start_s=t_start_s,
            frame_count=max(int((t_stop_s - t_start_s) * self._spec.frame_rate_hz), 1),
            data=self._setup.data,
            seed=seed,
            led=self._led,
        )

    def _exposed(self, settings: ExposureSettings) -> _Still:
        seed = self._next_seed()
        return _Still(seed, self._shot(settings, seed), self._setup.clock.now())

    def _file_of(self, still: _Still, suffix: str) -> bytes:
        path = record_still(
            self._card / f"still-{still.seed:06d}{suffix}",
            pool=self._pool,
            stage=self._stage,
            shot=still.shot,
            carriage=self._carriage(still.seed),
            start_s=still.start_s,
            data=self._setup.data,
            seed=still.seed,
            led=self._led,
        )
        content = path.read_bytes()
        path.unlink()  # the body's card keeps its own copy
        return content

    def _shot(self, settings: ExposureSettings, seed: int) -> Shot:
        with self._lock:
            conditions = {k: v for k, v in self._conditions.items() if v != OFF}
        return Shot(settings, conditions, seed)

    def _carriage(self, seed: int) -> Carriage:
        return Carriage(self._spec, self._controller.position_mm, seed=seed)

    def _next_seed(self) -> int:
        with self._lock:
            self._shots += 1
            return self._shots


@dataclass(frozen=True)
class SimulatedRig:
    """A running simulated rig."""

    rail_port: str
    camera_address: str
    backend: WorldBackend
    controller: GrblController


def simulation_of(profile: RigProfile) -> SimulationSpec:
    """Return the simulation block of a profile; raises `RigError` on a real rig's."""
    if profile.simulation is None:
        raise RigError(f"rig '{profile.name}' is real", next_step="give a profile with simulated: true")
    return profile.simulation


@contextmanager
def serve(setup: SimulatedRigSetup, *, start: Literal["fork", "spawn"] = "spawn") -> Iterator[SimulatedRig]:
    """Run a simulated rig while the block runs; a profile that names a calibration becomes that rig's twin.

    Args:
        setup: What it is made from.
        start: How its rendering processes begin, as `RenderPool` has it.
    """
    setup = replace(setup, profile=twin_of(setup.profile, data=setup.data))
    spec = simulation_of(setup.profile)
    rail = setup.profile.rail
    with ExitStack() as stack:
        pool = stack.enter_context(RenderPool(start=start))  # first: no lock of ours lives on in a fork
        card = ScratchFolder("card")
        stack.callback(card.cleanup)
        controller = GrblController(
            _mechanics(rail.travel_mm),
            t_s=setup.clock.now(),
            seed=spec.seed,
            faults=_faults(RailFaults, spec.rail_faults),
        )
        port = stack.enter_context(GrblPty(controller, setup.clock))
        backend = WorldBackend(setup, controller=controller, pool=pool, card=card.path)
        camera = _camera(setup, backend)
        stack.callback(camera.close)
        yield SimulatedRig(port.path, camera.address, backend, controller)


def rail_faults(document: object) -> RailFaults:
    """Read what shall go wrong on the rail; raises `InvalidDocumentError` naming the members that do not fit."""
    return _faults(RailFaults, document)


def _faults(model: type[F], document: object) -> F:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidDocumentError(
            f"these faults do not fit the simulated rig: {wrong}",
            next_step=f"give the members of {model.__module__}.{model.__name__}",
        ) from error


def _mechanics(travel_mm: tuple[float, float]) -> RailMechanics:
    """A rail whose switch can be overrun and that starts 10 mm above it, so that a stranger may try every limit."""
    return RailMechanics(lower_mm=travel_mm[0], travel_mm=travel_mm[1] - travel_mm[0], below_mm=15.0)


def _camera(setup: SimulatedRigSetup, backend: WorldBackend) -> PtpIpCamera | MjpegServer:
    kinds = {settings.kind for settings in setup.profile.cameras.values()}
    if kinds == {"uvc"}:
        return MjpegServer(backend.live)
    spec = simulation_of(setup.profile)
    return PtpIpCamera(backend, setup.clock, spec, faults=_faults(CameraFaults, spec.camera_faults))


def main() -> None:
    """Serve one client over stdin and stdout until stdin closes; a SIGTERM ends it in order, too."""
    signal.signal(signal.SIGTERM, _leave)
    request = json.loads(sys.stdin.readline())
    try:
        with serve(_setup(request), start="fork") as rig:  # no thread runs here yet
            _answer({"schema": 1, "rail": rig.rail_port, "camera": rig.camera_address})
            for line in sys.stdin:
                _answer(_obey(rig, json.loads(line)))
    except CleanplateError as error:
        _answer({"error": str(error)})
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is leaving already


def _leave(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # whoever stops it says so until it is gone
    sys.exit()


def _setup(request: dict[str, Any]) -> SimulatedRigSetup:
    return SimulatedRigSetup(
        profile=RigProfile.model_validate(request["profile"]),
        scene=request["scene"],
        photos=None if request["photos"] is None else Path(request["photos"]),
        data=Path(request["data"]),
        clock=SessionClock(origin_s=request["origin_s"], rate=request["rate"]),
    )


def _obey(rig: SimulatedRig, request: dict[str, Any]) -> dict[str, Any]:
    try:
        if "rail_faults" in request:
            rig.controller.set_faults(rail_faults(request["rail_faults"]))
        else:
            rig.backend.set_condition(request["condition"], request["level"])
    except CleanplateError as error:
        return {"error": str(error)}
    return {"done_s": time.monotonic()}


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
