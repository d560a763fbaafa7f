"""What a profile says of a Modbus rail and its serial line, and the arithmetic between mm and the drive's numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from catalog.session_folder import SweepRecord
from catalog.yaml_document import Document
from rig.devices.envelope import Motion, ramp_mm
from rig.devices.modbus_drives import DRIVES, DriveFamily, HomeDirection
from rig.devices.travel import TravelSettings
from rig.errors import EnvelopeError

LONGEST_EXCHANGE_BYTES = 40
"""Request and reply of the longest exchange: the motion's block write (25 + 8) or four registers read (8 + 13)."""
HOST_DELAY_S = 0.02
"""Allowance for waking two threads on a busy host; 7 ms were seen with all cores saturated."""
_LARGEST_SPEED_ERROR = 0.05
"""Share by which whole rpm may miss the speed that a plan asks for; the session's record has the real one."""
_BITS_PER_BYTE = 11
_MAX_RAMP_MS = 32767
_MAX_RPM = 3000


class ModbusLineSettings(Document):
    """One device on an RS-485 line."""

    port: str = Field(min_length=1)
    """Device path of the RS-485 adapter, best ``/dev/serial/by-id/…``; a rail needs an adapter of its own."""
    unit: int = Field(ge=1, le=247)
    """The device's address on the line (its DIP switches)."""
    baud: int = Field(default=115200, ge=9600, le=1_000_000)
    """Bits per second."""
    parity: Literal["N", "E", "O"] = "N"
    reply_timeout_s: float = Field(default=0.1, ge=0.02, le=2)
    """Longest wait for a reply beyond the time the bytes take, s."""

    @property
    def silence_s(self) -> float:
        """Silence that separates two frames: 3.5 characters, at least 1.75 ms."""
        return max(3.5 * _BITS_PER_BYTE / self.baud, 0.00175)

    @property
    def turn_bound_s(self) -> float:
        """Longest wait of an urgent request for its turn, s: one exchange, the silence around it, the host's delay."""
        return 2 * self.silence_s + self.answer_bound_s + HOST_DELAY_S

    @property
    def answer_bound_s(self) -> float:
        """Longest time from the first byte of a request to the moment its reply is given up, s."""
        return self.reply_timeout_s + LONGEST_EXCHANGE_BYTES * _BITS_PER_BYTE / self.baud


class ModbusRailSettings(ModbusLineSettings, TravelSettings):
    """A Modbus-RTU stepper drive in a profile."""

    kind: Literal["modbus"]
    drive: str
    """Drive family, a name in `rig.devices.modbus_drives.DRIVES`."""
    unit: int = Field(default=1, ge=1, le=31)
    """The drive's address on the line (its DIP switches)."""
    lead_mm: float = Field(gt=0, le=500)
    """Travel per motor revolution, mm: the spindle's lead, or the pulley's circumference."""
    pulses_per_rev: int = Field(default=10_000, ge=200, le=60_000)
    """Counts per motor revolution; written to the drive and read back."""
    home_direction: HomeDirection = "negative"
    """Way of the drive's count towards the home switch."""
    homing_velocity_mm_s: float = Field(default=10.0, gt=0, le=100)
    """Speed of the search for the home switch, mm/s; it is approached again at a fifth of it."""

    @field_validator("drive")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in DRIVES:
            raise ValueError(f"no drive family '{name}'; there are: {', '.join(sorted(DRIVES))}")
        return name

    @model_validator(mode="after")
    def _drive_can_do_it(self) -> Self:
        if self.homing_velocity_mm_s > self.max_velocity_mm_s:
            raise ValueError("homing_velocity_mm_s is above max_velocity_mm_s")
        if self.scale.rpm(self.max_velocity_mm_s) > _MAX_RPM:
            raise ValueError(f"max_velocity_mm_s needs more than {_MAX_RPM} rpm at this lead_mm")
        if self.scale.ramp_ms(self.acceleration_mm_s2) > _MAX_RAMP_MS:
            raise ValueError("acceleration_mm_s2 is too small for the drive at this lead_mm")
        return self

    def realised_velocity_mm_s(self, velocity_mm_s: float) -> float:
        """Return the nearest speed of whole rpm; one too far off stays as it is, for `sweep_motion` to refuse."""
        rpm = self.scale.rpm(velocity_mm_s, cap_mm_s=self.max_velocity_mm_s)
        real_mm_s = rpm * self.scale.velocity_step_mm_s
        return real_mm_s if abs(real_mm_s / velocity_mm_s - 1) <= _LARGEST_SPEED_ERROR else velocity_mm_s

    def sweep_motion(self, sweep: SweepRecord) -> Motion:
        """Return the one motion that a sweep is, run-up and run-down included.

        Raises:
            EnvelopeError: It leaves the envelope, or the drive's whole rpm and ms make another sweep of it.
        """
        motion = super().sweep_motion(sweep)
        real = self.scale.realised(motion, cap_mm_s=self.max_velocity_mm_s)
        if abs(real.velocity_mm_s / motion.velocity_mm_s - 1) > _LARGEST_SPEED_ERROR:
            raise EnvelopeError(
                f"the drive would do the sweep at {real.velocity_mm_s:.4g} mm/s instead of "
                f"{motion.velocity_mm_s:.4g} mm/s: its speeds are whole rpm",
                kept="nothing moved",
                next_step=f"ask for a multiple of {self.scale.velocity_step_mm_s:.4g} mm/s",
            )
        room_mm = abs(sweep.start_mm - motion.start_mm)
        needed_mm = ramp_mm(real.velocity_mm_s, real.acceleration_mm_s2)
        if needed_mm > room_mm:
            raise EnvelopeError(
                f"the drive's whole rpm and ms make the ramp {needed_mm:.2f} mm long, the run-up has {room_mm:.2f} mm",
                kept="nothing moved",
                next_step="raise run_up_margin_mm in the profile, or choose a slower sweep",
            )
        return motion

    @property
    def family(self) -> DriveFamily:
        """The drive's register table."""
        return DRIVES[self.drive]

    @property
    def scale(self) -> DriveScale:
        """How millimetres and the drive's numbers convert."""
        return DriveScale(
            lead_mm=self.lead_mm,
            pulses_per_rev=self.pulses_per_rev,
            lower_mm=self.travel_mm[0],
            upper_mm=self.travel_mm[1],
            direction=1 if self.home_direction == "negative" else -1,
        )


@dataclass(frozen=True)
class DriveScale:
    """Converts between rail coordinates and what the drive counts: 0 at the home switch, rpm, ms per 1000 rpm."""

    lead_mm: float
    pulses_per_rev: int
    lower_mm: float
    upper_mm: float
    direction: int
    """Sign of the count for motion away from the home switch."""

    @property
    def pulses_per_mm(self) -> float:
        """Counts per mm, unsigned."""
        return self.pulses_per_rev / self.lead_mm

    @property
    def velocity_step_mm_s(self) -> float:
        """Speed of 1 rpm: speeds are whole multiples of it."""
        return self.lead_mm / 60

    @property
    def last_pulse(self) -> int:
        """Largest count, unsigned, that does not lie beyond the upper end."""
        return math.floor((self.upper_mm - self.lower_mm) * self.pulses_per_mm + 1e-6)

    def to_pulses(self, position_mm: float) -> int:
        """Convert a position to the nearest count; rounding never leaves the travel."""
        away = round((position_mm - self.lower_mm) * self.pulses_per_mm)
        return self.direction * min(max(away, 0), self.last_pulse)

    def distance_pulses(self, distance_mm: float) -> int:
        """Convert a signed distance, rounded towards zero."""
        return self.direction * math.trunc(distance_mm * self.pulses_per_mm)

    def to_mm(self, pulses: int) -> float:
        """Convert a count to a position."""
        return self.lower_mm + self.direction * pulses / self.pulses_per_mm

    def rpm(self, velocity_mm_s: float, *, cap_mm_s: float = math.inf) -> int:
        """Return the whole rpm nearest to a speed that do not exceed ``cap_mm_s``; 0 where there are none."""
        nearest = round(velocity_mm_s / self.velocity_step_mm_s)
        if math.isinf(cap_mm_s):
            return nearest
        return min(nearest, math.floor(cap_mm_s / self.velocity_step_mm_s + 1e-9))

    def ramp_ms(self, acceleration_mm_s2: float) -> int:
        """Return the ms per 1000 rpm of an acceleration, rounded so that it is not exceeded: a = 1000 rpm / t."""
        return math.ceil(1000 * self.velocity_step_mm_s / acceleration_mm_s2 * 1000 - 1e-9)

    def realised(self, motion: Motion, *, cap_mm_s: float) -> Motion:
        """Return the motion that the drive will do: speed and acceleration as its registers hold them.

        Raises:
            EnvelopeError: It is slower than 1 rpm.
        """
        rpm = self.rpm(motion.velocity_mm_s, cap_mm_s=cap_mm_s)
        if rpm < 1:
            raise EnvelopeError(
                f"{motion.velocity_mm_s:g} mm/s is less than this drive's slowest, {self.velocity_step_mm_s:.4g} mm/s",
                kept="nothing moved",
                next_step=f"ask for at least {self.velocity_step_mm_s:.4g} mm/s",
            )
        acceleration_mm_s2 = 1000 * self.velocity_step_mm_s / self.ramp_ms(motion.acceleration_mm_s2) * 1000
        return Motion(motion.start_mm, motion.end_mm, rpm * self.velocity_step_mm_s, acceleration_mm_s2)
