"""Register tables of Modbus-RTU stepper drives: everything that differs from vendor to vendor, as data.

A further family is one more `DriveFamily` in `DRIVES`; the driver reads nothing but this table. Marks: [D] from the
maker's manual, [K] general knowledge of the series: check against the exact model's manual on the bench.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

HomeDirection = Literal["negative", "positive"]
"""Way of the motor's count towards the home switch."""


@dataclass(frozen=True)
class StatusBits:
    """Masks within the status word."""

    fault: int
    enabled: int
    running: int
    homed: int


@dataclass(frozen=True)
class DriveStatus:
    """One reading of the status word; some drives clear bits when read, so it is read once per cycle and kept."""

    fault: bool
    enabled: bool
    running: bool
    homed: bool


@dataclass(frozen=True)
class PathTable:
    """One motion as one block write: target, speed, ramps and the trigger that starts it."""

    address: int
    """First of the eight registers: mode, position high, position low, rpm, ramp up, ramp down, dwell, trigger."""
    absolute: int
    """Mode word of a motion to a position."""
    relative: int
    """Mode word of a motion by a distance."""
    start: int
    """Trigger word that starts it at once."""


@dataclass(frozen=True)
class HomingRegisters:
    """What homing is set to before it is triggered. 32-bit values stand high word first."""

    mode: int
    mode_words: Mapping[HomeDirection, int]
    """Mode word that seeks the home switch in either direction."""
    home_position: int
    """Two registers: the count given to the place of the switch."""
    seek_rpm: int
    creep_rpm: int
    ramp_up_ms: int
    ramp_down_ms: int


@dataclass(frozen=True)
class SoftLimits:
    """The drive's own limits of travel, in counts; they act once it is homed."""

    upper: int
    """Two registers."""
    lower: int
    """Two registers."""
    switch: int
    """Register that switches them on."""
    switch_mask: int


@dataclass(frozen=True)
class DriveOutput:
    """A digital output that a register switches."""

    address: int
    on: int
    off: int


@dataclass(frozen=True)
class DriveFamily:
    """One vendor's series. Addresses are protocol addresses (from 0), registers hold 16 bits.

    Ramps are written as ms per 1000 rpm, speeds as rpm. Optional parts are None where the series has none.
    """

    name: str
    status: int
    status_bits: StatusBits
    position: int
    """Feedback position, two registers, signed counts."""
    speed: int
    """Feedback speed, two registers, signed rpm."""
    path: PathTable
    trigger: int
    home: int
    """Trigger word that starts homing."""
    quick_stop: int
    """Trigger word that brakes by the quick-stop ramp."""
    control: int
    clear_alarm: int
    """Control word that clears an alarm."""
    position_is_measured: bool
    """True with an encoder, False where the count is what was commanded."""
    alarm: int | None = None
    """Register with the code of the present alarm."""
    alarms: Mapping[int, str] = field(default_factory=dict)
    pulses_per_rev: int | None = None
    """Register with the counts per revolution."""
    quick_stop_ramp_ms: int | None = None
    homing: HomingRegisters | None = None
    soft_limits: SoftLimits | None = None
    outputs: Mapping[str, DriveOutput] = field(default_factory=dict)

    def decode_status(self, word: int) -> DriveStatus:
        """Return what a status word says."""
        bits = self.status_bits
        return DriveStatus(
            fault=bool(word & bits.fault),
            enabled=bool(word & bits.enabled),
            running=bool(word & bits.running),
            homed=bool(word & bits.homed),
        )

    def describe_alarm(self, code: int) -> str:
        """Return an alarm in plain words, with the code for the maker's manual."""
        return f"alarm 0x{code:02X} ({self.alarms.get(code, 'see the drive manual')})"


def split_words(value: int) -> tuple[int, int]:
    """Return a signed 32-bit value as two registers, high word first.

    Raises:
        ValueError: It does not fit.
    """
    raw = value.to_bytes(4, "big", signed=True) if -(2**31) <= value < 2**31 else None
    if raw is None:
        raise ValueError(f"{value} does not fit into 32 bits")
    return int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")


def join_words(high: int, low: int) -> int:
    """Return two registers as the signed 32-bit value they hold."""
    return int.from_bytes(high.to_bytes(2, "big") + low.to_bytes(2, "big"), "big", signed=True)


LEADSHINE_RS = DriveFamily(
    name="leadshine-rs",
    status=0x1003,  # [D]; order of the bits [K]
    status_bits=StatusBits(fault=1 << 0, enabled=1 << 1, running=1 << 2, homed=1 << 6),
    position=0x1014,  # [D]
    speed=0x1046,  # [D]
    path=PathTable(address=0x6200, absolute=0x01, relative=0x41, start=0x10),  # [D]
    trigger=0x6002,  # [D]
    home=0x20,  # [D]
    quick_stop=0x40,  # [D]
    control=0x1801,  # [D]; 0x2211 there would write the EEPROM: never sent
    clear_alarm=0x1111,  # [D]
    position_is_measured=True,
    alarm=0x2203,  # [K]
    alarms={  # [K]
        0x01: "over-current",
        0x02: "over-voltage",
        0x20: "the motor does not follow: blocked or overloaded",
        0x40: "current sensing failed",
        0x80: "the shaft cannot be locked: motor not connected?",
        0x100: "self-tuning failed",
        0x200: "its memory failed",
    },
    pulses_per_rev=0x0001,  # [D]
    quick_stop_ramp_ms=0x6017,  # [K]
    homing=HomingRegisters(  # [K]
        mode=0x600A,
        mode_words={"negative": 0x04, "positive": 0x05},
        home_position=0x600B,
        seek_rpm=0x600F,
        creep_rpm=0x6010,
        ramp_up_ms=0x6011,
        ramp_down_ms=0x6012,
    ),
    soft_limits=SoftLimits(upper=0x6006, lower=0x6008, switch=0x6000, switch_mask=0x02),  # [K]
)
"""Leadshine CS2RS drives and iEM-RS motors: closed loop."""

LEADSHINE_DM_RS = replace(LEADSHINE_RS, name="leadshine-dm-rs", position_is_measured=False)
"""Leadshine DM-RS drives: the same registers without an encoder, so the position is what was commanded [K]."""

DRIVES: dict[str, DriveFamily] = {family.name: family for family in (LEADSHINE_RS, LEADSHINE_DM_RS)}
"""Every family a profile may name."""
