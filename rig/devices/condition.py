"""External conditions: rain, haze, blocked light, set by an operator or by the simulated world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from catalog.yaml_document import Document

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
    """

    def __init__(self, name: str, settings: OperatorConditionSettings, *, ask: Callable[[str], None]) -> None:
        self.name = name
        self._settings = settings
        self._ask = ask
        self._level: str | None = None

    def set_level(self, level: str) -> None:
        """Ask once per change."""
        if level != self._level:
            self._ask(self._settings.instruction or f"Set {self.name} to '{level}', wait until it is steady.")
            self._level = level


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
