"""`rig home`, `rig jog` and `rig stop`: through the engine that runs, or one of this process's own."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rig.client import EngineClient, StopReceipt, as_coded, find_engine, own_name, stop_engine
from rig.clock import SessionClock
from rig.devices import rail_for
from rig.devices.grbl_protocol import HOLD, RESET
from rig.devices.grbl_settings import GrblSettings
from rig.devices.wire import SerialWire
from rig.engine.devices import OPENING, Stage
from rig.engine.process import Engine
from rig.engine.signals import EndingSignals
from rig.errors import DeviceError, EngineError, MoveInterruptedError, RigError
from rig.events import ActEnded, AnyEvent, Armed, EngineMode, RigState
from rig.profile import RigProfile
from rig.requests import ArmHome, Go, Jog
from rig.runtime import EngineAddress, running_engines

OPEN_TIMEOUT_S = 90.0
ACT_TIMEOUT_S = 180.0
RENEW_S = 0.1


@dataclass(frozen=True)
class HandMotion:
    """Where the carriage is after it was moved by hand."""

    rig: str
    state: str
    homed: bool
    position_mm: float | None


def home(profile: RigProfile, *, data: Path) -> HandMotion:
    """Find the home switch.

    Raises:
        CommandRefusedError: Another client is in control, or the rig's mode does not allow it.
        RigError: It failed; the message is the engine's.
    """
    with _Hand.on(profile, data) as hand:
        armed = hand.client.request(ArmHome())
        if not isinstance(armed, Armed):
            raise EngineError("the engine did not arm")
        hand.client.request(Go(token=armed.token, word=armed.word))
        hand.await_end("home", renew=lambda: None)
        return hand.motion(profile)


def jog(profile: RigProfile, distance_mm: float, *, velocity_mm_s: float, data: Path) -> HandMotion:
    """Move a little; it ends at once when this process does. Raises as `home`."""
    with _Hand.on(profile, data) as hand:
        command = Jog(distance_mm=distance_mm, velocity_mm_s=velocity_mm_s, press=time.monotonic_ns() // 1000)
        hand.client.request(command)
        hand.await_end("jog", renew=lambda: hand.client.request(command))
        return hand.motion(profile)


def stop(profile: RigProfile | None, *, emergency: bool) -> list[StopReceipt]:
    """Stop every engine of this user, or one rig; without an engine, a real rig's port is told directly.

    Raises:
        EngineError: No engine runs and no real rig was named; nothing can be stopped from here.
        DeviceError: The port cannot be reached.
    """
    engines = running_engines(None if profile is None else profile.name)
    if engines:
        return [stop_engine(address, emergency=emergency, by=own_name()) for address in engines]
    if profile is None or profile.simulated:
        raise EngineError(
            "no engine runs, so nothing is moving under one",
            next_step="give --profile to reach a real rig's port directly; use the hardware emergency stop",
        )
    return [_stop_port(profile, emergency=emergency)]


def _stop_port(profile: RigProfile, *, emergency: bool) -> StopReceipt:
    """Send the stop as the first bytes to a port that no engine holds; opening it resets most boards as well."""
    clock, settings = SessionClock(), profile.rail
    if isinstance(settings, GrblSettings):
        wire = SerialWire(settings.port, clock, baud=settings.baud)
        try:
            wire.write_realtime(HOLD + RESET if emergency else HOLD)
        finally:
            wire.close()
    else:
        rail = rail_for(settings, clock)
        rail.open()
        try:
            rail.emergency_stop() if emergency else rail.stop()
        finally:
            rail.close()
    return StopReceipt(profile.name, emergency, time.monotonic(), "no engine ran; the port was told directly")


class _Hand:
    """A client in control of an engine, with the engine's events in a queue."""

    def __init__(self, address: EngineAddress) -> None:
        self._events: queue.SimpleQueue[AnyEvent] = queue.SimpleQueue()
        self._stopped_by = ""
        self.client = EngineClient(address, name=own_name(), control=True, on_event=self._events.put)

    @classmethod
    @contextmanager
    def on(cls, profile: RigProfile, data: Path) -> Iterator[_Hand]:
        """Take the running engine's hand, or that of an engine which lives as long as the block."""
        with contextlib.ExitStack() as stack:
            signals = stack.enter_context(EndingSignals(_interrupted))
            address = find_engine(profile.name)
            if address is None:
                engine = stack.enter_context(Engine(profile, data=data, stage=Stage(profile.name)))
                address = engine.address
            hand = cls(address)
            stack.callback(hand.client.close)
            hand._await_devices()
            stack.enter_context(signals.stopping(hand, farewell=_interrupted))
            yield hand

    def stop(self, *, emergency: bool = False, by: str) -> None:
        """Stop what the engine moves; a signal came."""
        self._stopped_by = by
        with contextlib.suppress(EngineError):
            stop_engine(self.client.address, emergency=emergency, by=f"{own_name()} {by}")

    def await_end(self, act: Literal["home", "jog"], *, renew: Callable[[], object]) -> None:
        """Wait for the end of an act, renewing its permit; raises what went wrong."""
        deadline_s = time.monotonic() + ACT_TIMEOUT_S
        while time.monotonic() < deadline_s:
            event = self._next(RENEW_S)
            if isinstance(event, ActEnded) and event.act == act:
                if self._stopped_by and not event.ok:
                    raise _interrupted(self._stopped_by)
                return _raise_failure(event)
            if event is None:
                renew()
        raise EngineError(f"the {act} did not end within {ACT_TIMEOUT_S:g} s", next_step="rig stop")

    def motion(self, profile: RigProfile) -> HandMotion:
        """Return where the carriage is, by the first snapshot from after the end."""
        deadline_s = time.monotonic() + OPEN_TIMEOUT_S
        while time.monotonic() < deadline_s:
            event = self._next(RENEW_S)
            if isinstance(event, RigState) and event.rail is not None:
                rail = event.rail
                return HandMotion(profile.name, rail.state, rail.homed, rail.position_mm)
        raise EngineError("the engine tells nothing any more")

    def _await_devices(self) -> None:
        deadline_s = time.monotonic() + OPEN_TIMEOUT_S
        while time.monotonic() < deadline_s:
            event = self._next(RENEW_S)
            if not isinstance(event, RigState):
                continue
            if event.mode is not EngineMode.OFFLINE:
                return
            if OPENING not in event.why:
                raise DeviceError(event.why)
        raise EngineError(f"the devices were not open within {OPEN_TIMEOUT_S:g} s", next_step="rig check")

    def _next(self, timeout_s: float) -> AnyEvent | None:
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None


def _interrupted(by: str) -> MoveInterruptedError:
    return MoveInterruptedError(
        f"stopped by {by}",
        kept="the position, unless it was being looked for",
        next_step="give the same command again",
    )


def _raise_failure(event: ActEnded) -> None:
    if not event.ok:
        raise as_coded(RigError(event.message, next_step=event.next_step), event.code)
