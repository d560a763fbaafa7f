"""External conditions: rain, haze, blocked light, set by an operator, by a switch or by the simulated world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from catalog.yaml_document import Document
from rig.clock import SessionClock

OFF = "off"


class Condition(Protocol):
    """One thing between lamp, scene and camera that can be set to a level."""

    name: str

    def set_level(self, level: str) -> None:
        """Bring the condition to ``level`` (``off`` for none).

        Blocks until the scene is ready, which for an operator means: until confirmed.
        """


class OperatorConditionSettings(Document):
    """A person sets it and confirms."""

    kind: Literal["operator"]
    instruction: str = ""
    """What to do, shown to the operator; by default made from name and level."""
    checklist: tuple[str, ...] = ()
    """What to look at before confirming, one line each."""
    settle_s: float = 0.0
    """Waiting time after the confirmation, s."""


class SimulatedConditionSettings(Document):
    """The simulated world sets it at once."""

    kind: Literal["simulated"]


class OperatorCondition:
    """Asks a person to set the condition, and waits for the confirmation.

    Args:
        name: The condition's name.
        settings: Instruction and settling time.
        ask: Shows a text and returns when the person has confirmed.
        clock: The session clock.
    """

    def __init__(
        self,
        name: str,
        settings: OperatorConditionSettings,
        *,
        ask: Callable[[str], None],
        clock: SessionClock,
    ) -> None:
        self.name = name
        self._clock = clock
        self._settings = settings
        self._ask = ask
        self._level: str | None = None

    def set_level(self, level: str) -> None:
        """Ask once per change, then wait until it has settled."""
        if level == self._level:
            return
        self._ask(self._request(level))
        self._level = level
        self._clock.sleep(self._settings.settle_s)

    def _request(self, level: str) -> str:
        what = self._settings.instruction or f"Set {self.name} to '{level}', wait until it is steady."
        return "\n".join([what, *(f"[ ] {line}" for line in self._settings.checklist)])


class SimulatedCondition:
    """Sets a condition of the simulated world.

    Args:
        name: The condition's name.
        send: Sets ``(name, level)`` in the simulator's process and returns when it took effect.
    """

    def __init__(self, name: str, *, send: Callable[[str, str], None]) -> None:
        self.name = name
        self._send = send

    def set_level(self, level: str) -> None:
        """Set it at once."""
        self._send(self.name, level)
