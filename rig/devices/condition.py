"""External conditions: rain, haze, blocked light, set by an operator, an output or the simulated world."""

from __future__ import annotations

from typing import Protocol


class Condition(Protocol):
    """One thing in front of the camera that can be set to a level."""

    name: str

    def set_level(self, level: str) -> str:
        """Bring the condition to ``level`` (``off`` for none) and return what was set.

        Blocks until the scene is ready, which for an operator means: until confirmed.
        """
