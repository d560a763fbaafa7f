"""What a profile says of a GRBL rail, and how its coordinates lie to the controller's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from rig.devices.travel import TravelSettings

JERK = 800
"""grblHAL built with S-curves lists ``$800``, mm/s³ of the X axis; the other firmwares have straight ramps only."""
_STRAIGHT_WITHIN_S = 0.005
"""An acceleration that is reached within half a planner segment makes a ramp as good as straight."""


class GrblSettings(TravelSettings):
    """A GRBL rail in a profile; speed and ramp acceleration are written to the controller as ``$110`` and ``$120``."""

    kind: Literal["grbl"]
    port: str = Field(min_length=1)
    """Device path, best ``/dev/serial/by-id/…``: it survives replugging."""
    steps_per_mm: float | None = Field(default=None, gt=0, le=10_000)
    """Motor steps per mm; written to the controller as ``$100`` where it differs. None leaves what is there."""
    trusts_controller_acceleration: bool = False
    """Sweep although the controller does not tell its acceleration (FluidNC): its configuration file was checked
    by hand to hold ``acceleration_mm_s2``."""
    machine_home_mm: float | None = Field(default=None, ge=-10_000, le=10_000)
    """The controller's X at the lower end of the travel; needed only where it tells neither ``$23`` nor ``$130``."""
    machine_direction: Literal[1, -1] = 1
    """Sign of the controller's X away from the home switch; counts together with ``machine_home_mm``."""
    baud: int = Field(default=115200, ge=9600, le=2_000_000)
    """Bits per second, 8N1."""

    @property
    def controller_settings(self) -> dict[int, float]:
        """What the controller's ``$`` settings must be, in the order they are written (homing before limits)."""
        scale = {} if self.steps_per_mm is None else {100: self.steps_per_mm}
        return {
            **scale,
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

    @property
    def settings_where_listed(self) -> dict[int, float]:
        """What else must be so where the controller has it.

        A softer S-curve would reach its speed later than v²/2a says: behind the run-up, in the uniform part.
        """
        return {JERK: self.acceleration_mm_s2 / _STRAIGHT_WITHIN_S}


@dataclass(frozen=True)
class MachineFrame:
    """How rail coordinates and the controller's machine coordinates lie to each other."""

    lower_mm: float
    """Lower end of the travel, rail coordinates."""
    machine_mm: float
    """The same place in machine coordinates."""
    direction: int
    """Sign of machine motion for motion away from the home switch."""

    @classmethod
    def homing(cls, lower_mm: float, travel_mm: float, *, negative: bool) -> MachineFrame:
        """Return GRBL's: machine space lies between minus the travel and zero.

        Args:
            lower_mm: Lower end of the travel, rail coordinates.
            travel_mm: ``$130``.
            negative: Bit 0 of ``$23``: the home switch sits at the negative end of the axis.
        """
        return cls(lower_mm, -travel_mm if negative else 0.0, 1 if negative else -1)

    def to_machine_mm(self, position_mm: float) -> float:
        """Convert a rail position."""
        return self.machine_mm + self.direction * (position_mm - self.lower_mm)

    def to_rail_mm(self, machine_mm: float) -> float:
        """Convert a machine position."""
        return self.lower_mm + self.direction * (machine_mm - self.machine_mm)
