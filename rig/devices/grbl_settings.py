"""What a profile says of a GRBL rail, and how its coordinates lie to the controller's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from catalog.yaml_document import Document
from rig.devices.envelope import Envelope


class GrblSettings(Document):
    """A GRBL rail in a profile."""

    kind: Literal["grbl"]
    port: str = Field(min_length=1)
    """Device path, best ``/dev/serial/by-id/…``: it survives replugging."""
    travel_mm: tuple[float, float]
    """Lower and upper end, rail coordinates; the home switch acts at the lower one."""
    max_velocity_mm_s: float = Field(gt=0, le=1000)
    """Cap on every motion, mm/s; written to the controller as ``$110``."""
    max_acceleration_mm_s2: float = Field(gt=0, le=10_000)
    """Cap on the acceleration, mm/s²."""
    acceleration_mm_s2: float = Field(gt=0, le=10_000)
    """Acceleration of every ramp, mm/s²; written to the controller as ``$120``."""
    baud: int = Field(default=115200, ge=9600, le=2_000_000)
    """Bits per second, 8N1."""
    end_margin_mm: float = Field(default=5.0, ge=0, le=100)
    """No motion ends nearer than this to an end of the travel, mm."""
    run_up_margin_mm: float = Field(default=5.0, ge=0, le=100)
    """Uniform motion added before and after a sweep, beyond the ramps, mm."""

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.travel_mm[1] - self.travel_mm[0] <= 2 * self.end_margin_mm:
            raise ValueError("travel_mm must ascend and be longer than both end margins")
        if self.acceleration_mm_s2 > self.max_acceleration_mm_s2:
            raise ValueError("acceleration_mm_s2 is above max_acceleration_mm_s2")
        return self

    @property
    def envelope(self) -> Envelope:
        """The limits that every motion is checked against."""
        return Envelope(
            lower_mm=self.travel_mm[0],
            upper_mm=self.travel_mm[1],
            max_velocity_mm_s=self.max_velocity_mm_s,
            max_acceleration_mm_s2=self.max_acceleration_mm_s2,
            end_margin_mm=self.end_margin_mm,
            run_up_margin_mm=self.run_up_margin_mm,
        )

    @property
    def controller_settings(self) -> dict[int, float]:
        """What the controller's ``$`` settings must be, in the order they are written (homing before limits)."""
        return {
            1: 255,  # keep the motor energised: the carriage must not drift at rest
            10: 3,
            13: 0,
            22: 1,
            20: 1,
            21: 1,
            32: 0,
            110: self.max_velocity_mm_s * 60,
            120: self.acceleration_mm_s2,
            130: self.travel_mm[1] - self.travel_mm[0],
        }


@dataclass(frozen=True)
class MachineFrame:
    """How rail coordinates and the controller's machine coordinates lie to each other."""

    lower_mm: float
    travel_mm: float
    homes_negative: bool
    """Bit 0 of ``$23``: the home switch sits at the negative end of the axis."""

    @property
    def direction(self) -> int:
        """Sign of machine motion for motion away from the home switch."""
        return 1 if self.homes_negative else -1

    def to_machine_mm(self, position_mm: float) -> float:
        """Convert a rail position."""
        offset_mm = self.travel_mm if self.homes_negative else 0.0
        return self.direction * (position_mm - self.lower_mm) - offset_mm

    def to_rail_mm(self, machine_mm: float) -> float:
        """Convert a machine position."""
        offset_mm = self.travel_mm if self.homes_negative else 0.0
        return self.lower_mm + self.direction * (machine_mm + offset_mm)
