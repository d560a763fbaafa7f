"""A client for tests of the engine: remembers every event and waits for what it is told to wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from rig.client import EngineClient
from rig.events import AnyEvent, Armed, Asked, EngineMode, RigState
from rig.requests import AnswerCard, ArmHome, ClearFault, Command, Go, TakeControl
from rig.runtime import EngineAddress

E = TypeVar("E")
PATIENCE_S = 40.0


class Probe:
    """An attached client; a context manager.

    Args:
        address: The engine.
        name: What others see.
        control: Asks for control at once.
        confirms: Cards with this in their text are answered at once.
    """

    def __init__(
        self,
        address: EngineAddress,
        name: str = "probe",
        *,
        control: bool = True,
        confirms: str | None = None,
    ) -> None:
        self.name = name
        self._confirms = confirms
        self._changed = threading.Condition()
        self.events: list[AnyEvent] = []
        self.client = EngineClient(address, name=name, control=control, on_event=self._take)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def _take(self, event: AnyEvent) -> None:
        if self._confirms is not None and isinstance(event, Asked) and self._confirms in event.card.text:
            self.client.send(AnswerCard(card_id=event.card_id, choice=event.card.choices[0].name))
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def ask(self, command: Command) -> AnyEvent:
        """Send a command and return its answer."""
        return self.client.request(command, timeout_s=PATIENCE_S)

    @property
    def state(self) -> RigState:
        """The newest snapshot."""
        return next(e for e in reversed(self.events) if isinstance(e, RigState))

    def await_event(self, kind: type[E], fits: Callable[[E], bool] = lambda e: True, *, since: int = 0) -> E:
        """Return the first event of a kind that fits, from position ``since`` on."""
        deadline_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                for event in self.events[since:]:
                    if isinstance(event, kind) and fits(event):
                        return event
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"no {kind.__name__} came; last: {self.events[-3:]}"
                self._changed.wait(left_s)

    def await_mode(self, *modes: EngineMode) -> RigState:
        """Return the first snapshot from now on in one of these modes."""
        return self.await_event(RigState, lambda s: s.mode in modes, since=len(self.events) - 1)

    def arm(self, command: Command) -> Armed:
        """Take the first step."""
        armed = self.ask(command)
        assert isinstance(armed, Armed)
        return armed

    def begin(self, command: Command) -> int:
        """Take both steps; returns the position in `events` from which on the consequences stand."""
        since = len(self.events)
        self.ask(Go(token=self.arm(command).token))
        return since

    def make_ready(self) -> None:
        """Take control, as soon as whoever had it before is gone, and bring the rig to READY, whatever it is in."""
        self.await_event(RigState, lambda s: s.controller in {None, self.name})
        self.ask(TakeControl())
        state = self.await_mode(*set(EngineMode) - {EngineMode.OFFLINE, EngineMode.HOMING})
        if state.mode in {EngineMode.LOCKED, EngineMode.HOLD}:
            self.ask(ClearFault())
            state = self.await_mode(EngineMode.CONNECTED, EngineMode.READY)
        if state.mode is EngineMode.CONNECTED:
            self.begin(ArmHome())
        self.await_mode(EngineMode.READY)
