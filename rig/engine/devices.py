"""The thread that owns the rig: opens it, polls the rail while nothing else happens, carries out one act at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from catalog.errors import CleanplateError
from rig.assembly import Rig
from rig.clock import SessionClock
from rig.devices.rail import Rail, RailPoll, RailState
from rig.devices.shared_camera import SharedCamera
from rig.engine.opening import Opening, unforeseen
from rig.errors import DeviceError, MotionStoppedError, RigError
from rig.profile import RigProfile

POLL_INTERVAL_S = 0.1
JOG_INTERVAL_S = 0.04
JOG_PERMIT_S = 0.25
OPENING = "the devices are being opened"
GLANCE_S = 0.05
"""How often whoever waits for devices that are being opened looks whether to go on waiting."""
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What a simulated rig is set up with."""

    scene: str
    photos: Path | None = None


@dataclass(frozen=True)
class _Act:
    """Something to do with the open rig."""

    work: Callable[[Rig], Any]
    done: Future[Any]
    moves: bool
    serial: int
    """Stops counted when it was asked for; a later stop cancels it."""


class DeviceOwner:
    """Opens a rig and does everything with it in one thread of its own.

    The devices are opened in another one, which nobody has to wait for: a stop cancels what was to move afterwards,
    and the opening goes on; the end of the engine ends it.

    Args:
        profile: The rig; the caller holds its lock.
        data: Data folder.
        stage: Scene of a simulated rig.
        clock: The session clock.
        ask: Shows an operator what to do and returns when it is confirmed.
    """

    def __init__(
        self,
        profile: RigProfile,
        *,
        data: Path,
        stage: Stage,
        clock: SessionClock,
        ask: Callable[[str], None],
    ) -> None:
        self.stage = stage
        self.trouble = OPENING
        """Why there is no open rig, with what to do about it, in plain words; empty when there is one."""
        self.cameras: dict[str, SharedCamera] = {}
        self._profile, self._data, self._clock, self._ask = profile, data, clock, ask
        self._rig: Rig | None = None
        self._rail: Rail | None = None
        self._opening: Opening | None = None
        self._acts: queue.SimpleQueue[_Act | None] = queue.SimpleQueue()
        self._stops = self._stops_seen = 0
        self._moving_act = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="engine-devices")

    def start(self) -> None:
        """Begin to open the devices; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Finish the act in progress, stop the carriage and release the devices."""
        self._over.set()
        self._acts.put(None)
        self._thread.join()

    @property
    def last_poll(self) -> RailPoll | None:
        """What the rail said last; any thread may look."""
        rail = self._rail
        return None if rail is None else rail.last_poll

    @property
    def homed(self) -> bool:
        """Whether the position is known."""
        rail = self._rail
        return rail is not None and rail.homed

    @property
    def identity(self) -> str:
        """The rail's controller and firmware; empty while there is none."""
        rail = self._rail
        return "" if rail is None else rail.identity

    def stop_now(self, *, emergency: bool) -> str:
        """Put the bytes of a stop on the wire. Thread-safe.

        Returns:
            Plain words about trouble, empty when there was none.
        """
        rail = self._rail
        try:
            if rail is None:
                return "no rail is open; nothing is moving under this engine"
            if emergency:
                rail.emergency_stop()
            else:
                rail.stop()
        except RigError as error:
            return error.message
        finally:
            self._stops += 1
        return ""

    def insist(self, *, emergency: bool) -> bool:
        """Stop again while an act that moves goes on: it may just have passed its last look; tells whether it did."""
        if not self._moving_act:
            return False
        rail = self._rail
        if rail is not None:
            try:
                rail.emergency_stop() if emergency else rail.stop()
            except RigError:
                return False
        return True

    @property
    def stops(self) -> int:
        """How many stops there were so far."""
        return self._stops

    def do(self, work: Callable[[Rig], T], *, moves: bool, stops_seen: int | None = None) -> Future[T]:
        """Let the thread do something with the open rig, after what it does now.

        Args:
            work: Gets the rig.
            moves: Whether a stop that comes before it begins cancels it.
            stops_seen: `stops` when it was decided upon, None for now.
        """
        done: Future[T] = Future()
        self._acts.put(_Act(work, done, moves, self._stops if stops_seen is None else stops_seen))
        return done

    def poll_quietly(self) -> None:
        """Read the rail's state, from the owning thread; trouble shows in the reading."""
        rail = self._rail
        if rail is None:
            return
        try:
            rail.poll()
            self.trouble = ""
        except DeviceError as error:
            self.trouble = str(error)

    def set_up(self, stage: Stage) -> Rig:
        """Return the rig set up with a stage, from the owning thread; a simulated one opens anew for another stage."""
        if self._rig is None or (self._profile.simulated and stage != self.stage):
            self._shut()
            self.stage = stage
            self.open()
        return cast("Rig", self._rig)

    def open(self) -> None:
        """Open rail and cameras anew, from the owning thread.

        Raises:
            CleanplateError: A device cannot be opened; everything else is closed again.
            MotionStoppedError: Stopped meanwhile, and what waits for the devices moves; they go on being opened.
        """
        self._begin_opening()
        self._await_opening()

    def _begin_opening(self) -> None:
        self._shut()
        self.trouble = OPENING
        rig = Rig(
            self._profile,
            scene=self.stage.scene,
            data=self._data,
            photos=self.stage.photos,
            ask=self._ask,
            clock=self._clock,
            holds_lock=True,
        )
        self._opening = Opening(rig)

    def _await_opening(self) -> None:
        while self._opening is not None and not self._opening.wait(GLANCE_S):
            if self._over.is_set():
                raise DeviceError("the engine is ending", kept="nothing moved")
            if self._moving_act:
                self._require_no_stop("stopped while the devices were being opened")
        self._take_over()

    def _take_over(self) -> None:
        """Begin to use what was opened."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            rig = opening.result()
        except CleanplateError as error:
            self.trouble = str(error)
            raise
        self._rig, self._rail = rig, rig.rail
        self.cameras = {name: SharedCamera(camera) for name, camera in rig.cameras.items()}
        rig.cameras = dict(self.cameras)
        self.trouble = ""
        self.poll_quietly()

    def _shut(self) -> None:
        rig, self._rig = self._rig, None
        opening, self._opening = self._opening, None
        self.cameras = {}
        if opening is not None:
            opening.give_up()
        if rig is not None:
            try:
                rig.__exit__(None, None, None)
            except RigError as error:
                self.trouble = str(error)
        self._rail = None

    def _live(self) -> None:
        try:
            self._begin_opening()
            while not self._over.is_set():
                self._turn()
        finally:
            self._shut()
            self._refuse_rest()

    def _turn(self) -> None:
        try:
            act = self._acts.get(timeout=POLL_INTERVAL_S)
        except queue.Empty:
            self._rest()
            return
        if act is not None:
            self._carry_out(act)

    def _rest(self) -> None:
        """Do what there is to do between two acts."""
        if self._opening is None:
            self._look()
        elif self._opening.wait(0.0):
            with contextlib.suppress(CleanplateError):  # it shows as trouble
                self._take_over()

    def _carry_out(self, act: _Act) -> None:
        if not act.done.set_running_or_notify_cancel():
            return
        self._moving_act, self._stops_seen = act.moves, act.serial
        try:
            result = act.work(self._ready_rig(act))
        except CleanplateError as error:
            self._finish_act()
            act.done.set_exception(error)
        except BaseException as error:  # noqa: BLE001  - belongs to whoever waits for the result
            if act.moves:
                self.stop_now(emergency=False)
            self._finish_act()
            act.done.set_exception(unforeseen("what the engine was doing", error))
        else:
            self._finish_act()
            act.done.set_result(result)

    def _finish_act(self) -> None:
        """Look once more, so that nobody takes the reading before the end for the one after it."""
        self._moving_act = False
        self._look()

    def _look(self) -> None:
        """Poll outside of acts, where nobody waits for an error: the thread outlives whatever it is."""
        try:
            self.poll_quietly()
        except Exception as error:  # noqa: BLE001  - it shows as trouble, and the act before it still ends
            self.trouble = str(unforeseen("looking at the rail", error))

    def _ready_rig(self, act: _Act) -> Rig:
        if act.moves:
            self._require_no_stop("stopped before it began")
        if self._opening is not None:
            self._await_opening()
        elif self._rig is None:
            self.open()
        return cast("Rig", self._rig)

    def _require_no_stop(self, what: str) -> None:
        if self._stops_seen != self._stops:
            raise MotionStoppedError(what, kept="nothing moved")

    def _refuse_rest(self) -> None:
        while True:
            try:
                act = self._acts.get_nowait()
            except queue.Empty:
                return
            if act is not None and act.done.set_running_or_notify_cancel():
                act.done.set_exception(DeviceError("the engine is ending", kept="nothing moved"))


class JogPermit:
    """Lets a jog go on for 250 ms after each press; any thread renews it, the owning one looks at it."""

    def __init__(self) -> None:
        self._until_s = time.monotonic() + JOG_PERMIT_S
        self.revoked = False
        """Whether somebody ended it before its time."""

    def renew(self) -> None:
        """Let it go on for another permit."""
        self._until_s = time.monotonic() + JOG_PERMIT_S

    def expire(self) -> None:
        """End it now, as if nobody had renewed it."""
        self._until_s = 0.0

    def revoke(self) -> None:
        """End it now by a stop, after which a hold is left as it is."""
        self.revoked = True

    @property
    def valid(self) -> bool:
        """Whether the carriage may go on."""
        return not self.revoked and time.monotonic() < self._until_s


def jog(rig: Rig, distance_mm: float, *, velocity_mm_s: float, permit: JogPermit) -> None:
    """Move a little while the permit is renewed, and return at standstill.

    Raises:
        EnvelopeError, RailLockedError: As the rail raises them.
    """
    rig.rail.jog(distance_mm, velocity_mm_s=velocity_mm_s)
    while permit.valid and rig.rail.poll().state is RailState.MOVING:
        rig.rail.renew_jog()
        rig.clock.sleep(JOG_INTERVAL_S)
    if permit.valid:
        return
    rig.rail.stop()
    while (reading := rig.rail.poll()).state is RailState.MOVING:
        rig.clock.sleep(JOG_INTERVAL_S)
    if reading.state is RailState.HOLD and not permit.revoked:
        rig.rail.clear_hold()
