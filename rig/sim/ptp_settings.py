"""The simulated body's properties: values, choices and what they mean in photographers' units."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from catalog.session_folder import ExposureSettings
from rig.sim.ptp_packets import ValueType, text

BATTERY, WHITE_BALANCE, F_NUMBER, FOCUS_MODE = 0x5001, 0x5005, 0x5007, 0x500A
COMPRESSION, CLOCK = 0x5004, 0x5011
EXPOSURE_TIME, PROGRAM, ISO, DRIVE_MODE, BURST_NUMBER = 0x500D, 0x500E, 0x500F, 0x5013, 0x5018
FINE_EXPOSURE_TIME, LIVE_VIEW_STATUS, RECORDING_MEDIA = 0xD100, 0xD1A2, 0xD10B
LIVE_VIEW_PROHIBIT, MOVIE_PROHIBIT, APPLICATION_MODE = 0xD1A4, 0xD0A4, 0xD1F0

CODES_BY_SETTING = {
    "iso": (ISO,),
    "f_number": (F_NUMBER,),
    "exposure_s": (EXPOSURE_TIME, FINE_EXPOSURE_TIME),
    "white_balance": (WHITE_BALANCE,),
    "colour_temperature": (),
    "focus_mode": (FOCUS_MODE,),
    "still_format": (COMPRESSION,),
}
"""Property codes behind our names of settings."""

BULB = 0xFFFFFFFF
"""An exposure time that ends when the shutter is told to close."""
SINGLE, CONTINUOUS = 1, 2
"""Drive modes."""
_FILES_OF_COMPRESSION = {
    0: (".jpg",), 1: (".jpg",), 2: (".jpg",), 4: (".nef",), 7: (".nef", ".jpg"),
}  # fmt: skip
"""JPEG basic, normal and fine; raw; raw and JPEG fine."""

STEPS_PER_DIOPTRE = 600
"""Focus motor steps per dioptre, counted from the infinity stop."""
NEAR_STOP_STEPS = 1800
"""Where the near stop is: a third of a metre."""
FARTHEST_M = 1000.0
"""What stands for infinity."""

_CLOCK_SLOW_S = 37
"""A clock that nobody has set since the summer."""

_WHITE_BALANCE_NAMES = {
    2: "automatic", 4: "daylight", 5: "fluorescent", 6: "tungsten", 7: "flash", 0x8010: "cloudy", 0x8011: "shade",
}  # fmt: skip
_ISO_THIRDS = (
    100, 125, 160, 200, 250, 320, 400, 500, 640, 800, 1000, 1250, 1600, 2000, 2500, 3200, 4000, 5000, 6400,
    8000, 10000, 12800, 16000, 20000, 25600,
)  # fmt: skip
_F_THIRDS_X100 = (
    180, 200, 220, 250, 280, 320, 350, 400, 450, 500, 560, 630, 710, 800, 900, 1000, 1100, 1300, 1400, 1600,
    1800, 2000, 2200,
)  # fmt: skip
_EXPOSURE_TIMES = (
    (30, 1), (25, 1), (20, 1), (15, 1), (13, 1), (10, 1), (8, 1), (6, 1), (5, 1), (4, 1), (3, 1), (25, 10),
    (2, 1), (16, 10), (13, 10), (1, 1), (10, 13), (10, 16), (1, 2), (10, 25), (1, 3), (1, 4), (1, 5), (1, 6),
    (1, 8), (1, 10), (1, 13), (1, 15), (1, 20), (1, 25), (1, 30), (1, 40), (1, 50), (1, 60), (1, 80), (1, 100),
    (1, 125), (1, 160), (1, 200), (1, 250), (1, 320), (1, 400), (1, 500), (1, 640), (1, 800), (1, 1000),
    (1, 1250), (1, 1600), (1, 2000), (1, 2500), (1, 3200), (1, 4000), (1, 5000), (1, 6400), (1, 8000),
    (1, 10000), (1, 12500), (1, 16000),
)  # fmt: skip
"""The marked values as numerator and denominator, the way Nikon's fine property has them."""


@dataclass
class Property:
    """One property: its type, value and choices."""

    code: int
    value_type: ValueType
    value: int
    choices: tuple[int, ...] = ()
    """The values it can have; empty where any value is possible."""
    span: tuple[int, int] | None = None
    """Lowest and highest value, for a property without a list of choices."""
    writable: bool = True

    def description(self) -> bytes:
        """Code the DevicePropDesc dataset."""
        pack = self.value_type.pack
        head = struct.pack("<HHB", self.code, self.value_type, int(self.writable)) + pack(self.value) * 2
        if self.choices:
            return head + struct.pack("<BH", 2, len(self.choices)) + b"".join(map(pack, self.choices))
        if self.span:
            return head + b"\1" + pack(self.span[0]) + pack(self.span[1]) + pack(1)
        return head + b"\0"

    def coded(self) -> bytes:
        """Code the value."""
        return self.value_type.pack(self.value)

    def decoded(self, raw: bytes) -> int:
        """Read a value that is to be set."""
        return self.value_type.unpack(raw)

    def accepts(self, value: int) -> bool:
        """Tell whether the body takes this value."""
        in_span = self.span is None or self.span[0] <= value <= self.span[1]
        return self.writable and in_span and (not self.choices or value in self.choices)

    def neighbour(self, value: int) -> int:
        """Return the choice next to ``value``, the way a body in automatic mode rounds."""
        place = self.choices.index(value)
        return self.choices[place + 1 if place + 1 < len(self.choices) else place - 1]


@dataclass
class Clock(Property):
    """The body's clock; its value is how many seconds it is off."""

    def description(self) -> bytes:
        """Code the DevicePropDesc dataset."""
        return struct.pack("<HHB", self.code, self.value_type, 1) + self.coded() * 2 + b"\0"

    def coded(self) -> bytes:
        """Code the local time that the body shows."""
        return text(time.strftime("%Y%m%dT%H%M%S", time.localtime(time.time() + self.value)))

    def decoded(self, raw: bytes) -> int:
        """Return by how much a time that is to be set is off."""
        shown = raw[1:].decode("utf-16-le").rstrip("\0").partition(".")[0]
        return round(time.mktime(time.strptime(shown, "%Y%m%dT%H%M%S")) - time.time())


@dataclass
class BodySettings:
    """All properties of the body, and the focus motor."""

    focus_steps: int = STEPS_PER_DIOPTRE // 2
    """Position from the infinity stop; where a lens stands at power-up is nobody's decision."""
    properties: dict[int, Property] = field(default_factory=lambda: {p.code: p for p in _delivery()})

    @classmethod
    def of_body(cls, *, with_raw: bool) -> BodySettings:
        """Return what a body wakes up with; one that makes no raw files offers none."""
        settings = cls()
        if not with_raw:
            settings.properties[COMPRESSION].choices = (0, 1, 2)
        return settings

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
            self.properties[EXPOSURE_TIME].value = value if value == BULB else _coarse(value)
        elif code == EXPOSURE_TIME:
            self.properties[FINE_EXPOSURE_TIME].value = value if value == BULB else _finest_of(value)
        return True

    def drive_focus(self, steps: int) -> bool:
        """Move the focus motor, towards infinity by negative steps; False when a stop was reached first."""
        wanted = self.focus_steps + steps
        self.focus_steps = min(max(wanted, 0), NEAR_STOP_STEPS)
        return wanted == self.focus_steps

    @property
    def is_bulb(self) -> bool:
        """Whether the shutter is held open by hand."""
        return self.value(FINE_EXPOSURE_TIME) == BULB

    @property
    def still_suffixes(self) -> tuple[str, ...]:
        """Files of a picture."""
        return _FILES_OF_COMPRESSION[self.value(COMPRESSION)]

    def exposure(self) -> ExposureSettings:
        """Return the settings in photographers' units."""
        return ExposureSettings(
            iso=self.value(ISO),
            f_number=self.value(F_NUMBER) / 100,
            exposure_s=None if self.is_bulb else _seconds(self.value(FINE_EXPOSURE_TIME)),
            focus_m=STEPS_PER_DIOPTRE / self.focus_steps if self.focus_steps else FARTHEST_M,
            white_balance=_WHITE_BALANCE_NAMES[self.value(WHITE_BALANCE)],
        )


def _delivery() -> Sequence[Property]:
    fine = tuple(top << 16 | bottom for top, bottom in _EXPOSURE_TIMES)
    coarse = (*dict.fromkeys(_coarse(f) for f in fine), BULB)
    u8, u16, u32 = ValueType.UINT8, ValueType.UINT16, ValueType.UINT32
    return (
        Property(BATTERY, u8, 87, span=(0, 100), writable=False),
        Property(COMPRESSION, u8, 2, tuple(_FILES_OF_COMPRESSION)),
        Clock(CLOCK, ValueType.STRING, -_CLOCK_SLOW_S),
        Property(WHITE_BALANCE, u16, 4, tuple(_WHITE_BALANCE_NAMES)),
        Property(F_NUMBER, u16, 800, _F_THIRDS_X100),
        Property(FOCUS_MODE, u16, 0x8010, (1, 0x8010)),
        Property(EXPOSURE_TIME, u32, 50, coarse),
        Property(PROGRAM, u16, 2, (1, 2, 3, 4)),
        Property(ISO, u16, 100, _ISO_THIRDS),
        Property(DRIVE_MODE, u16, 1, (1, 2)),
        Property(BURST_NUMBER, u16, 1, span=(1, 100)),
        Property(FINE_EXPOSURE_TIME, u32, 1 << 16 | 200, (*fine, BULB)),
        Property(LIVE_VIEW_STATUS, u8, 0, writable=False),
        Property(RECORDING_MEDIA, u8, 0, (0, 1)),
        Property(LIVE_VIEW_PROHIBIT, u32, 0, writable=False),
        Property(MOVIE_PROHIBIT, u32, 0, writable=False),
        Property(APPLICATION_MODE, u8, 0, (0, 1)),
    )


def _seconds(fine: int) -> float:
    return (fine >> 16) / (fine & 0xFFFF)


def _coarse(fine: int) -> int:
    """Return a fine exposure time in the standard property's units of 0.1 ms, which end at 1/10000 s."""
    return max(round(_seconds(fine) * 1e4), 1)


def _finest_of(coarse: int) -> int:
    """Return the longest fine exposure time that the standard property shows as ``coarse``."""
    return next(f for t, b in _EXPOSURE_TIMES if _coarse(f := t << 16 | b) == coarse)
