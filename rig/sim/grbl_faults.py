"""What can be made to go wrong on the simulated rail, as data.

The same document serves a test (`GrblController.set_faults`), a simulated rig's process (``{"rail_faults": …}``
on its stdin) and a profile, so that a fault seen in one place can be replayed in another.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from catalog.yaml_document import Document

FaultKind = Literal[
    "lost_steps",
    "stall",
    "limit_glitch",
    "reset",
    "freeze",
    "motor_power_loss",
    "power_loss",
    "vanish",
]


class PositionFault(Document):
    """Something that happens once, when the carriage passes a place."""

    kind: FaultKind
    """``stall``: blocked in this direction, unnoticed by the controller; ``limit_glitch``: motor noise trips the
    hard limit; ``reset``: brown-out; ``freeze``: no answers, motion goes on; ``motor_power_loss``: the carriage
    stops and reports go on; ``power_loss``: it stops and nothing answers any more; ``vanish``: the port is gone."""
    at_mm: float
    """Rail coordinate."""
    steps: int = 0
    """For ``lost_steps``: how many, towards the lower end."""
    for_s: float = Field(default=0.0, ge=0)
    """For ``freeze``, ``power_loss`` and ``vanish``: it comes back after so long; 0 is never."""


class TimedFault(Document):
    """The same, a while after the faults were set."""

    kind: FaultKind
    after_s: float = Field(ge=0)
    steps: int = 0
    for_s: float = Field(default=0.0, ge=0)


class ReplyFault(Document):
    """Something that happens to one outgoing line, or to every n-th."""

    kind: Literal[
        "drop_ok",
        "duplicate_ok",
        "delay_ok",
        "merge_ok",
        "garbage",
        "nul",
        "overlong",
        "drop_report",
        "tear_report",
        "merge_report",
    ]
    """``merge_…`` loses the line end behind the line; ``garbage`` puts noise, ``nul`` zero bytes and ``overlong``
    a line of 64 KiB in front of an ``ok``; ``tear_report`` loses four characters in the middle."""
    nth: int = Field(ge=1)
    """Counts ``ok`` lines, or reports where the fault concerns a report, from the fault's being set."""
    every: int = Field(default=0, ge=0)
    """Repeats after so many more lines; 0 is once."""
    delay_s: float = Field(default=0.0, ge=0)
    """For ``delay_ok``."""

    def strikes(self, count: int) -> bool:
        """Tell whether this fault befalls line number ``count``."""
        if self.every and count > self.nth:
            return (count - self.nth) % self.every == 0
        return count == self.nth


class RailFaults(Document):
    """Everything wrong with one simulated rail."""

    at: tuple[PositionFault, ...] = ()
    timed: tuple[TimedFault, ...] = ()
    replies: tuple[ReplyFault, ...] = ()
    home_switch: Literal["good", "stuck_open", "stuck_closed", "bouncing", "chattering"] = "good"
    """``stuck_open``: homing never finds it; ``bouncing``: opening it trips the hard limit once more, as a real
    board's interrupt on every change of the pin does; ``chattering``: three times, within 0.4 mm. An upper switch
    is as good or bad."""
    limit_noise_mm: float = Field(default=0.0, ge=0)
    """Motor noise glitches the limit input every so many mm of the rail; 0 is never."""
    slip_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of every motion that the belt slips."""
    speed_drift_per_s: float = Field(default=0.0, gt=-0.1, lt=0.1)
    """Share of the speed lost per second (gained, if negative) while the controller counts on."""
    answer_delay_s: float = Field(default=0.0, ge=0, le=30)
    """Every outgoing line comes so much later."""
    echo: bool = False
    """Every byte received comes back, as on a half-duplex adapter."""
    lose_every: int = Field(default=0, ge=0)
    """Every n-th byte from the host is lost on the way; 0 is none."""
    rx_bytes: int = Field(default=128, ge=8, le=128)
    """Room in the receive buffer; what comes on top is lost."""
    eeprom_blackout_s: float = Field(default=0.02, ge=0, le=5)
    """How long writing a setting keeps the interrupts off: what the host sends meanwhile is lost."""
