"""The simulated body's properties: values, choices and what they mean in photographers' units."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from catalog.session_folder import ExposureSettings
from rig.sim.ptp_packets import ValueType

BATTERY, WHITE_BALANCE, F_NUMBER, FOCUS_MODE = 0x5001, 0x5005, 0x5007, 0x500A
EXPOSURE_TIME, PROGRAM, ISO, DRIVE_MODE, BURST_NUMBER = 0x500D, 0x500E, 0x500F, 0x5013, 0x5018
FINE_EXPOSURE_TIME, LIVE_VIEW_STATUS, RECORDING_MEDIA = 0xD100, 0xD1A2, 0xD10B
LIVE_VIEW_PROHIBIT, MOVIE_PROHIBIT, APPLICATION_MODE = 0xD1A4, 0xD0A4, 0xD1F0

STEPS_PER_DIOPTRE = 600
"""Focus motor steps per dioptre, counted from the infinity stop."""
NEAR_STOP_STEPS = 1800
"""Where the near stop is: a third of a metre."""

_WHITE_BALANCE_NAMES = {2: "automatic", 4: "daylight", 5: "fluorescent", 6: "tungsten", 7: "flash"}
_ISO_THIRDS = (
    100, 125, 160, 200, 250, 320, 400, 500, 640, 800, 1000, 1250, 1600, 2000, 2500, 3200, 4000, 5000, 6400,
    8000, 10000, 12800, 16000, 20000, 25600,
)  # fmt: skip
_F_THIRDS_X100 = (
    180, 200, 220, 250, 280, 320, 350, 400, 450, 500, 560, 630, 710, 800, 900, 1000, 1100, 1300, 1400, 1600,
    1800, 2000, 2200,
)  # fmt: skip
_SLOW = (30, 25, 20, 15, 13, 10, 8, 6, 5, 4, 3, 2, 1)
_FAST = (
    2, 3, 4, 5, 6, 8, 10, 13, 15, 20, 25, 30, 40, 50, 60, 80, 100, 125, 160, 200, 250, 320, 400, 500, 640, 800,
    1000, 1250, 1600, 2000, 2500, 3200, 4000, 5000, 6400, 8000, 10000, 12500, 16000,
)  # fmt: skip


@dataclass
class Property:
    """One property: its type, value and choices."""

    code: int
    value_type: ValueType
    value: int
    choices: tuple[int, ...] = ()
    """Empty for a property that takes any value or is read-only."""
    writable: bool = True

    def description(self) -> bytes:
        """Code the DevicePropDesc dataset."""
        pack = self.value_type.pack
        head = struct.pack("<HHB", self.code, self.value_type, int(self.writable)) + pack(self.value) * 2
        if not self.choices:
            return head + b"\0"
        return head + struct.pack("<BH", 2, len(self.choices)) + b"".join(map(pack, self.choices))

    def accepts(self, value: int) -> bool:
        """Tell whether the body takes this value."""
        return self.writable and (not self.choices or value in self.choices)


@dataclass
class BodySettings:
    """All properties of the body, and the focus motor."""

    focus_steps: int = STEPS_PER_DIOPTRE // 2
    """Position from the infinity stop; where a lens stands at power-up is nobody's decision."""
    properties: dict[int, Property] = field(default_factory=lambda: {p.code: p for p in _delivery()})

    def value(self, code: int) -> int:
        """Return a property's value."""
        return self.properties[code].value

    def write(self, code: int, value: int) -> bool:
        """Set a property as the initiator asks; False where the body refuses."""
        item = self.properties.get(code)
        if item is None or not item.accepts(value):
            return False
        item.value = value
        if code == FINE_EXPOSURE_TIME:
            self.properties[EXPOSURE_TIME].value = _nearest_coarse(_fine_seconds(value))
        elif code == EXPOSURE_TIME:
            self.properties[FINE_EXPOSURE_TIME].value = _nearest_fine(value / 1e4)
        return True

    def drive_focus(self, steps: int) -> bool:
        """Move the focus motor, towards infinity by negative steps; False when a stop was reached first."""
        wanted = self.focus_steps + steps
        self.focus_steps = min(max(wanted, 0), NEAR_STOP_STEPS)
        return wanted == self.focus_steps

    def exposure(self) -> ExposureSettings:
        """Return the settings in photographers' units."""
        dioptres = max(self.focus_steps / STEPS_PER_DIOPTRE, 1e-3)
        return ExposureSettings(
            iso=self.value(ISO),
            f_number=self.value(F_NUMBER) / 100,
            exposure_s=_fine_seconds(self.value(FINE_EXPOSURE_TIME)),
            focus_m=1 / dioptres,
            white_balance=_WHITE_BALANCE_NAMES[self.value(WHITE_BALANCE)],
        )


def _delivery() -> Sequence[Property]:
    fine = tuple(n << 16 | 1 for n in _SLOW) + tuple(1 << 16 | d for d in _FAST)
    coarse = tuple(dict.fromkeys(max(round(_fine_seconds(f) * 1e4), 1) for f in fine))
    u8, u16, u32 = ValueType.UINT8, ValueType.UINT16, ValueType.UINT32
    return (
        Property(BATTERY, u8, 87, writable=False),
        Property(WHITE_BALANCE, u16, 4, tuple(_WHITE_BALANCE_NAMES)),
        Property(F_NUMBER, u16, 800, _F_THIRDS_X100),
        Property(FOCUS_MODE, u16, 1, (1, 0x8010)),
        Property(EXPOSURE_TIME, u32, 50, coarse),
        Property(PROGRAM, u16, 1, (1, 2, 3, 4)),
        Property(ISO, u16, 100, _ISO_THIRDS),
        Property(DRIVE_MODE, u16, 1, (1, 2)),
        Property(BURST_NUMBER, u16, 1),
        Property(FINE_EXPOSURE_TIME, u32, 1 << 16 | 200, fine),
        Property(LIVE_VIEW_STATUS, u8, 0, writable=False),
        Property(RECORDING_MEDIA, u8, 0, (0, 1)),
        Property(LIVE_VIEW_PROHIBIT, u32, 0, writable=False),
        Property(MOVIE_PROHIBIT, u32, 0, writable=False),
        Property(APPLICATION_MODE, u8, 0, (0, 1)),
    )


def _fine_seconds(value: int) -> float:
    return (value >> 16) / (value & 0xFFFF)


def _nearest_coarse(seconds: float) -> int:
    return max(round(seconds * 1e4), 1)


def _nearest_fine(seconds: float) -> int:
    if seconds >= 1:
        return min(_SLOW, key=lambda n: abs(n - seconds)) << 16 | 1
    return 1 << 16 | min(_FAST, key=lambda d: abs(1 / d - seconds))
