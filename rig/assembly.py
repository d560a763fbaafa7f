"""Rig: one rail, its cameras and conditions as a context manager that stops motion first on the way out."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rig.clock import SessionClock
from rig.devices import rail_for
from rig.devices.camera import Abortable, Camera
from rig.devices.condition import (
    Condition,
    OperatorCondition,
    OperatorConditionSettings,
    SimulatedCondition,
    SimulatedConditionSettings,
)
from rig.devices.gphoto2_camera import Gphoto2Camera
from rig.devices.grbl_rail import GrblSettings
from rig.devices.modbus_relay import RelayBoards, RelayConditionSettings
from rig.devices.opencv_camera import OpencvCamera, UvcSettings
from rig.devices.output import OutputConditionSettings, RailOutput, SwitchedCondition, on_off_levels
from rig.devices.rail import Rail
from rig.errors import DeviceError
from rig.profile import RigProfile
from rig.runtime import hold_rig_lock
from rig.simulation import SimulatedRigProcess

SPOOL_FOLDER = "spool"
"""In the data folder: what a camera without a card has recorded and nobody has fetched yet."""


class Rig:
    """Everything a profile names, opened together.

    Entering takes the rig's lock, starts the simulator where the profile is a simulated one, and opens rail and
    cameras. Leaving stops the carriage first, then switches off what was switched on, then closes cameras, then the
    wire, each even if another failed.

    Args:
        profile: The rig.
        scene: Name of the scene; arranges the simulated world.
        photos: Photographs for the simulated world, None for the bundled ones.
        data: Data folder.
        ask: Shows an operator what to do and returns when it is confirmed.
        clock: The session clock; by default one that begins now on a simulated rig, the machine's on a real one.
        holds_lock: The caller holds the rig's lock already, as an engine does.
    """

    def __init__(
        self,
        profile: RigProfile,
        *,
        scene: str,
        data: Path,
        photos: Path | None = None,
        ask: Callable[[str], None] | None = None,
        clock: SessionClock | None = None,
        holds_lock: bool = False,
    ) -> None:
        self.profile = profile
        self.clock = clock or clock_of(profile)
        self._holds_lock = holds_lock
        self._scene, self._data, self._photos = scene, data, photos
        self._ask = ask or _nobody_to_ask
        self._stack = ExitStack()
        self._relays = RelayBoards(self.clock)
        self._wanted = True
        self._interrupt: Callable[[], None] = _nothing
        self.rail: Rail
        self.cameras: dict[str, Camera] = {}
        self.conditions: dict[str, Condition] = {}

    def __enter__(self) -> Self:
        if self.profile.simulated:
            _require_no_real_port(self.profile)
        with ExitStack() as opening:
            if not self._holds_lock:
                opening.enter_context(hold_rig_lock(self.profile))
            simulator = self._start_simulator(opening)
            self.rail = self._open_rail(opening, simulator)
            for name in self.profile.cameras:
                self.cameras[name] = self._open_camera(opening, name, simulator)
            opening.callback(self._relays.close)
            for name in self.profile.conditions:
                self.conditions[name] = self._condition(opening, name, simulator)
            opening.callback(self._stop_motion)  # last in, first out: motion stops before anything closes
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def give_up(self) -> None:
        """Let an opening under way fail soon: no further device is opened, the present one interrupted. Thread-safe."""
        self._wanted = False
        self._interrupt()

    def _interruptible_by(self, interrupt: Callable[[], None]) -> None:
        """Tell how to interrupt the device that is opened next.

        Raises:
            DeviceError: None is to be opened any more.
        """
        self._interrupt = interrupt
        if not self._wanted:
            raise DeviceError(
                f"rig '{self.profile.name}': the opening of its devices was given up", kept="nothing moved"
            )

    def _start_simulator(self, stack: ExitStack) -> SimulatedRigProcess | None:
        if not self.profile.simulated:
            return None
        simulator = SimulatedRigProcess(
            self.profile, scene=self._scene, photos=self._photos, data=self._data, clock=self.clock
        )
        stack.callback(simulator.close)
        self._interruptible_by(simulator.interrupt)
        simulator.start()
        return simulator

    def _open_rail(self, stack: ExitStack, simulator: SimulatedRigProcess | None) -> Rail:
        settings = self.profile.rail
        if simulator is not None:
            settings = settings.model_copy(update={"port": simulator.rail_port})
        rail = rail_for(settings, self.clock)
        stack.callback(rail.close)
        self._interruptible_by(rail.close)
        rail.open()
        return rail

    def _open_camera(self, stack: ExitStack, name: str, simulator: SimulatedRigProcess | None) -> Camera:
        camera = self._camera(name, simulator)
        stack.callback(lambda: self.cameras.get(name, camera).close())  # as it is shared by then
        self._interruptible_by(camera.abort if isinstance(camera, Abortable) else _nothing)
        camera.open()
        return camera

    def _camera(self, name: str, simulator: SimulatedRigProcess | None) -> Camera:
        settings = self.profile.cameras[name]
        at = "path" if isinstance(settings, UvcSettings) else "address"
        if simulator is not None:
            settings = settings.model_copy(update={at: simulator.camera_address})
        if isinstance(settings, UvcSettings):
            return OpencvCamera(settings, self.clock, spool=self._data / SPOOL_FOLDER)
        return Gphoto2Camera(settings, self.clock)

    def _condition(self, stack: ExitStack, name: str, simulator: SimulatedRigProcess | None) -> Condition:
        settings = self.profile.conditions[name]
        if isinstance(settings, OperatorConditionSettings):
            return OperatorCondition(name, settings, ask=self._ask, clock=self.clock)
        if isinstance(settings, SimulatedConditionSettings):
            if simulator is None:
                raise DeviceError(f"condition '{name}' is simulated but rig '{self.profile.name}' is real")
            return SimulatedCondition(name, send=simulator.set_condition)
        switched = self._switched(name, settings)
        stack.callback(switched.release)
        return switched

    def _switched(
        self, name: str, settings: OutputConditionSettings | RelayConditionSettings
    ) -> SwitchedCondition:
        if isinstance(settings, OutputConditionSettings):
            switches = {0: RailOutput(self.rail, settings.pin)}
            levels = on_off_levels(inverted=settings.inverted)
            return SwitchedCondition(name, switches, levels, settle_s=settings.settle_s, clock=self.clock)
        return self._relays.condition(name, settings)

    def _stop_motion(self) -> None:
        self.rail.stop()


def _require_no_real_port(profile: RigProfile) -> None:
    """Refuse a simulated profile with devices that the simulator does not play: they would be real ones."""
    relays = [n for n, settings in profile.conditions.items() if isinstance(settings, RelayConditionSettings)]
    if relays or not isinstance(profile.rail, GrblSettings):
        what = f"condition '{relays[0]}' (kind: relay)" if relays else f"a rail of kind {profile.rail.kind}"
        raise DeviceError(
            f"rig '{profile.name}' is simulated, and the simulator does not play {what}",
            next_step="use a rail of kind grbl and conditions of kind output or simulated, or a real profile",
        )


def clock_of(profile: RigProfile) -> SessionClock:
    """Return a session clock: the machine's monotonic one, or on a simulated rig one at its rate from now on."""
    rate = profile.simulation.rate if profile.simulation else 1.0
    return SessionClock(origin_s=time.monotonic() if profile.simulated else 0.0, rate=rate)


def _nothing() -> None:
    """Interrupt nothing: no device is being opened, or one whose library takes its time, as a webcam's does."""


def _nobody_to_ask(text: str) -> None:
    raise DeviceError(
        f"an operator is needed and nobody can be asked: {text}",
        next_step="run on a terminal, or give --yes-conditions when somebody has set them",
    )
