"""The words of the simulated controller's states and the bytes that act at once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The words of the status report."""

    IDLE = "Idle"
    RUN = "Run"
    HOLD = "Hold"
    JOG = "Jog"
    ALARM = "Alarm"
    DOOR = "Door"
    CHECK = "Check"
    HOME = "Home"
    SLEEP = "Sleep"


@dataclass(frozen=True)
class Outputs:
    """Levels of the pins for spindle and coolant; what is commanded stands in the parser's modes."""

    coolant: frozenset[str] = frozenset()
    spindle: str = "M5"
    rpm: float = 0.0


SOFT_RESET = 0x18
SAFETY_DOOR = 0x84
JOG_CANCEL = 0x85
FEED_RESET = 0x90
FEED_STEPS = {0x91: 10, 0x92: -10, 0x93: 1, 0x94: -1}
RAPIDS = {0x95: 100, 0x96: 50, 0x97: 25}
SPINDLE_RESET = 0x99
SPINDLE_STEPS = {0x9A: 10, 0x9B: -10, 0x9C: 1, 0x9D: -1}
SPINDLE_STOP = 0x9E
COOLANT_TOGGLES = {0xA0: "M8", 0xA1: "M7"}
"""The firmware as delivered leaves the mist output out, M7 and its byte with it: the byte is thrown away."""
