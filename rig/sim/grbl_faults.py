"""What can be made to go wrong on the simulated rail, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from catalog.yaml_document import Document


class PositionFault(Document):
    """Something that happens once, when the carriage passes a place."""

    kind: Literal[
        "lost_steps", "stall", "limit_glitch", "reset", "freeze", "motor_power_loss", "power_loss", "vanish"
    ]
    """``stall``: blocked in this direction, unnoticed by the controller; ``limit_glitch``: motor noise trips the
    hard limit; ``reset``: brown-out; ``freeze``: no answers, motion goes on; ``motor_power_loss``: the carriage
    stops and reports go on; ``power_loss``: it stops and nothing answers any more; ``vanish``: the port is gone."""
    at_mm: float
    """Rail coordinate."""
    steps: int = 0
    """For ``lost_steps``: how many, towards the lower end."""


class ReplyFault(Document):
    """Something that happens to one outgoing line."""

    kind: Literal["drop_ok", "duplicate_ok", "delay_ok", "tear_report", "merge_report", "garbage"]
    """``merge_report`` loses the line end behind a report; ``garbage`` puts noise in front of an ``ok``."""
    nth: int = Field(ge=1)
    """Counts ``ok`` lines, or reports where the fault concerns a report, from the fault's being set."""
    delay_s: float = Field(default=0.0, ge=0)
    """For ``delay_ok``."""


class RailFaults(Document):
    """Everything wrong with one simulated rail."""

    at: tuple[PositionFault, ...] = ()
    replies: tuple[ReplyFault, ...] = ()
    home_switch: Literal["good", "stuck_open", "stuck_closed"] = "good"
    slip_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of every motion that the belt slips."""
