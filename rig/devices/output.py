"""Lamp, pump, fan and sync LED: things that are switched, by the rail's controller or by a relay board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import Field

from catalog.yaml_document import Document
from rig.clock import SessionClock
from rig.devices.rail import Rail
from rig.errors import DeviceError

ON = "on"


class Switch(Protocol):
    """Something that is either energised or not."""

    def set(self, *, on: bool) -> None:
        """Energise it or not; returns when that is done."""


class OutputConditionSettings(Document):
    """An output of the rail's controller switches it."""

    kind: Literal["output"]
    pin: str = Field(min_length=1)
    """Output as the rail names it: GRBL has ``flood`` and ``mist``."""
    settle_s: float = Field(default=0.0, ge=0, le=600)
    """Waiting time after a change until the scene is steady, s."""
    inverted: bool = False
    """True where energising takes the condition away, e.g. a lamp whose absence is wanted."""


class RailOutput:
    """An output of the rail's controller as a switch.

    Args:
        rail: The open rail.
        pin: The output.

    Raises:
        DeviceError: The rail has no such output.
    """

    def __init__(self, rail: Rail, pin: str) -> None:
        if pin not in rail.capabilities.outputs:
            there = ", ".join(sorted(rail.capabilities.outputs)) or "none"
            raise DeviceError(
                f"the rail {rail.identity} has no output '{pin}' (there: {there})",
                next_step="name one of these in the profile, or use a relay board (kind: relay)",
            )
        self._rail, self._pin = rail, pin

    def set(self, *, on: bool) -> None:
        """Switch it at once."""
        self._rail.set_output(self._pin, on=on)


class SwitchedCondition:
    """A condition that is set by switching; `off` means that it is absent from the scene.

    Args:
        name: The condition's name.
        switches: What can be energised, by any key.
        levels: For every level the keys that are energised; all others are not.
        settle_s: Waiting time after a change, s.
        clock: The session clock.
    """

    def __init__(
        self,
        name: str,
        switches: Mapping[int, Switch],
        levels: Mapping[str, frozenset[int]],
        *,
        settle_s: float,
        clock: SessionClock,
    ) -> None:
        self.name = name
        self._switches, self._levels = switches, levels
        self._settle_s, self._clock = settle_s, clock
        self._level: str | None = None
        self._energised: set[int] = set()

    def set_level(self, level: str) -> None:
        """Switch to a level and wait until the scene is steady; nothing happens where it is set already.

        Raises:
            DeviceError: There is no such level, or a switch failed.
        """
        wanted = self._levels.get(level)
        if wanted is None:
            raise DeviceError(
                f"condition '{self.name}' has no level '{level}'",
                kept=f"the condition is {self._level or 'as it was found'}",
                next_step=f"use one of: {', '.join(sorted(self._levels))}",
            )
        if level == self._level:
            return
        self._level = None
        for key, switch in self._switches.items():
            self._switch(key, switch, on=key in wanted)
        self._level = level
        self._clock.sleep(self._settle_s)

    def release(self) -> None:
        """De-energise everything that was energised; each even if another one fails.

        Raises:
            DeviceError: What failed first.
        """
        failed: DeviceError | None = None
        self._level = None
        for key in sorted(self._energised):
            try:
                self._switch(key, self._switches[key], on=False)
            except DeviceError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _switch(self, key: int, switch: Switch, *, on: bool) -> None:
        if on:
            self._energised.add(key)  # before the act: a failure may come after the relay has closed
        switch.set(on=on)
        if not on:
            self._energised.discard(key)


def on_off_levels(*, inverted: bool) -> dict[str, frozenset[int]]:
    """Return the levels of a condition with the one switch 0."""
    energised, at_rest = frozenset({0}), frozenset[int]()
    return {"off": energised, ON: at_rest} if inverted else {"off": at_rest, ON: energised}


class SyncLed:
    """A LED in view of the camera that ties the camera's clock to the rail's.

    The rail's controller switches it without disturbing the motion; the frames in which it lights up and goes dark
    were exposed at the session times that `flash` returns.

    Args:
        pin: The rail's output.
        clock: The session clock.
        pulse_s: How long it is lit, s: at least two frames, so that every camera sees it.
    """

    def __init__(self, pin: str, clock: SessionClock, *, pulse_s: float = 0.1) -> None:
        self.pin = pin
        self.pulse_s = pulse_s
        self._clock = clock

    def flash(self, rail: Rail) -> tuple[float, float]:
        """Light it for `pulse_s`, at rest or in motion; returns the session times at which it was switched on and off.

        Raises:
            DeviceError: The rail has no such output, or did not take the command.
        """
        lit_s = rail.set_output(self.pin, on=True)
        try:
            self._clock.sleep(self.pulse_s)
        finally:
            dark_s = rail.set_output(self.pin, on=False)
        return lit_s, dark_s
