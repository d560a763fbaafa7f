"""The simulated EOS body's properties: Canon's codes, what they mean in photographers' units, and their records.

Canon counts exposure in eighths of a stop; thirds are 3 and 5 eighths after the full stop. A body tells its values
and the choices it has at the moment as records in its event stream, never by PTP's own property descriptions.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from catalog.session_folder import ExposureSettings
from rig.sim.ptp_settings import FARTHEST_M, NEAR_STOP_STEPS, STEPS_PER_DIOPTRE

APERTURE, SHUTTER, ISO, EXPOSURE_COMPENSATION, EXPOSURE_MODE = 0xD101, 0xD102, 0xD103, 0xD104, 0xD105
DRIVE_MODE, FOCUS_MODE, WHITE_BALANCE, COLOUR_TEMPERATURE = 0xD106, 0xD108, 0xD109, 0xD10A
BATTERY, CAMERA_TIME, OWNER, MODEL_ID, AVAILABLE_SHOTS = 0xD111, 0xD113, 0xD115, 0xD116, 0xD11B
CAPTURE_DESTINATION, IMAGE_FORMAT, TEMPERATURE_STATUS = 0xD11C, 0xD120, 0xD1AB
UTC_TIME, CONTINUOUS_AF, SERIAL = 0xD17C, 0xD1C9, 0xD1AF
LIVE_VIEW_OUTPUT, LIVE_VIEW_MODE, MOVIE_TARGET = 0xD1B0, 0xD1B1, 0xD1B8
ARTIST, COPYRIGHT, FOCUS_INFO = 0xD1D0, 0xD1D1, 0xD1D3

CODES_BY_SETTING: Mapping[str, tuple[int, ...]] = {
    "iso": (ISO,),
    "f_number": (APERTURE,),
    "exposure_s": (SHUTTER,),
    "white_balance": (WHITE_BALANCE,),
    "colour_temperature": (COLOUR_TEMPERATURE,),
    "focus_mode": (FOCUS_MODE,),
    "still_format": (IMAGE_FORMAT,),
}
"""Property codes behind our names of settings."""

TO_CARD, TO_HOST = 2, 4
TO_HOST_SCREEN = 2
"""Bit of `LIVE_VIEW_OUTPUT`: frames go to the host."""
RECORD_TO_CARD, RECORD_NOTHING = 4, 0
BULB, AUTOFOCUS, MANUAL_FOCUS = 0x0C, 0, 3
SINGLE, CONTINUOUS = 0, 1
RAW_FILE, JPEG_FILE = 6, 1

_EIGHTHS = (0, 3, 5)
_ISO_THIRDS = (
    100, 125, 160, 200, 250, 320, 400, 500, 640, 800, 1000, 1250, 1600, 2000, 2500, 3200, 4000, 5000, 6400,
    8000, 10000, 12800, 16000, 20000, 25600,
)  # fmt: skip
_F_THIRDS = (
    2.0, 2.2, 2.5, 2.8, 3.2, 3.5, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0, 10.0, 11.0, 13.0, 14.0, 16.0, 18.0,
    20.0, 22.0,
)  # fmt: skip
_EXPOSURE_TIMES_S = (
    30, 25, 20, 15, 13, 10, 8, 6, 5, 4, 3.2, 2.5, 2, 1.6, 1.3, 1, 0.8, 0.6, 0.5, 0.4, 0.3, 1 / 4, 1 / 5, 1 / 6,
    1 / 8, 1 / 10, 1 / 13, 1 / 15, 1 / 20, 1 / 25, 1 / 30, 1 / 40, 1 / 50, 1 / 60, 1 / 80, 1 / 100, 1 / 125,
    1 / 160, 1 / 200, 1 / 250, 1 / 320, 1 / 400, 1 / 500, 1 / 640, 1 / 800, 1 / 1000, 1 / 1250, 1 / 1600,
    1 / 2000, 1 / 2500, 1 / 3200, 1 / 4000, 1 / 5000, 1 / 6400, 1 / 8000,
)  # fmt: skip


def _in_thirds(values: Sequence[float], first_code: int) -> dict[int, float]:
    return {first_code + 8 * (k // 3) + _EIGHTHS[k % 3]: float(value) for k, value in enumerate(values)}


ISO_BY_CODE = _in_thirds(_ISO_THIRDS, 0x48)
F_NUMBER_BY_CODE = _in_thirds(_F_THIRDS, 0x18)
# The electronic shutter adds one full stop and nothing in between.
SECONDS_BY_CODE = _in_thirds(_EXPOSURE_TIMES_S, 0x10) | {0xA8: 1 / 16000}
WHITE_BALANCE_BY_CODE: Mapping[int, str] = {
    0: "automatic", 1: "daylight", 2: "cloudy", 3: "tungsten", 4: "fluorescent", 5: "flash", 8: "shade",
    9: "colour temperature",
}  # fmt: skip

BY_TEMPERATURE = 9
_KELVIN = {"tungsten": 3200, "fluorescent": 4000, "daylight": 5200, "cloudy": 6000, "shade": 7000}
_BATTERY_BY_CODE = {0: 5, 5: 25, 1: 50, 4: 75, 2: 100}

ImageFormat = tuple[tuple[int, int, int], ...]
"""The files of one picture: kind (`JPEG_FILE` or `RAW_FILE`), size and compression of each."""
_JPEG_FINE, _JPEG_NORMAL, _RAW = (JPEG_FILE, 0, 3), (JPEG_FILE, 0, 2), (RAW_FILE, 0, 4)
JPEG_FORMATS: tuple[ImageFormat, ...] = ((_JPEG_FINE,), (_JPEG_NORMAL,))
IMAGE_FORMATS: tuple[ImageFormat, ...] = (*JPEG_FORMATS, (_RAW, _JPEG_FINE), (_RAW,))

Value = int | str | ImageFormat


@dataclass
class EosProperty:
    """One property: its value, and the choices the body lists."""

    code: int
    value: Value
    choices: tuple[Value, ...] = ()
    """Values it can have; empty where any value is possible."""
    is_listed: bool = True
    """Whether the body tells its choices; the exposure mode's it keeps to itself."""
    writable: bool = True

    def value_record(self) -> bytes:
        """Code the event payload that tells the value."""
        return struct.pack("<I", self.code) + _coded(self.value)

    def choices_record(self) -> bytes | None:
        """Code the event payload that lists the choices; None where there is no list."""
        if not self.choices or not self.is_listed:
            return None
        return struct.pack("<III", self.code, 3, len(self.choices)) + b"".join(map(_coded, self.choices))

    def accepts(self, value: Value) -> bool:
        """Tell whether the body takes this value."""
        return self.writable and (not self.choices or value in self.choices)

    def neighbour(self, value: Value) -> Value:
        """Return the choice next to ``value``, the way a body in automatic mode rounds."""
        place = self.choices.index(value)
        return self.choices[place + 1 if place + 1 < len(self.choices) else place - 1]

    def read(self, raw: bytes) -> Value:
        """Return the value that the initiator sent."""
        if isinstance(self.value, str):
            return raw.split(b"\0")[0].decode(errors="replace")
        if isinstance(self.value, tuple):
            return image_format(raw)
        return int.from_bytes(raw[:4], "little")


def image_format(raw: bytes) -> ImageFormat:
    """Read an image format: count, then 16, kind, size and compression of each file."""
    (count,) = struct.unpack_from("<I", raw)
    entries = (struct.unpack_from("<4I", raw, 4 + 16 * k) for k in range(count))
    return tuple((kind, size, compression) for _, kind, size, compression in entries)


def _coded(value: Value) -> bytes:
    if isinstance(value, str):
        return value.encode() + b"\0"
    if isinstance(value, tuple):
        return struct.pack("<I", len(value)) + b"".join(struct.pack("<4I", 16, *entry) for entry in value)
    return struct.pack("<I", value)


@dataclass
class EosSettings:
    """All properties of the body, and the focus motor."""

    serial: str
    focus_steps: int = STEPS_PER_DIOPTRE // 2
    """Position from the infinity stop; where a lens stands at power-up is nobody's decision."""
    properties: dict[int, EosProperty] = field(init=False)

    def __post_init__(self) -> None:
        self.properties = {p.code: p for p in _delivery(self.serial)}

    def number(self, code: int) -> int:
        """Return the value of a property that is a number."""
        value = self.properties[code].value
        if not isinstance(value, int):
            raise TypeError(f"property {code:#x} is no number")
        return value

    @property
    def files(self) -> ImageFormat:
        """The files that one picture makes."""
        value = self.properties[IMAGE_FORMAT].value
        return value if isinstance(value, tuple) else ()

    def tell_time(self, off_s: float) -> None:
        """Set what the clock shows now; a body tells it when asked for all it has, and not every second."""
        for code in (CAMERA_TIME, UTC_TIME):
            self.properties[code].value = int(time.time() + off_s)

    def drive_focus(self, steps: int) -> bool:
        """Move the focus motor, towards infinity by negative steps; False when a stop was reached first."""
        wanted = self.focus_steps + steps
        self.focus_steps = min(max(wanted, 0), NEAR_STOP_STEPS)
        return wanted == self.focus_steps

    def exposure(self) -> ExposureSettings:
        """Return the settings in photographers' units; no exposure time while that stands on bulb."""
        return ExposureSettings(
            iso=round(ISO_BY_CODE[self.number(ISO)]),
            f_number=F_NUMBER_BY_CODE[self.number(APERTURE)],
            exposure_s=SECONDS_BY_CODE.get(self.number(SHUTTER)),
            focus_m=STEPS_PER_DIOPTRE / self.focus_steps if self.focus_steps else FARTHEST_M,
            white_balance=self._white_balance(),
        )

    def _white_balance(self) -> str:
        """Return the name; for a colour temperature that of the preset nearest to it."""
        code = self.number(WHITE_BALANCE)
        if code != BY_TEMPERATURE:
            return WHITE_BALANCE_BY_CODE[code]
        wanted = 1e6 / self.number(COLOUR_TEMPERATURE)
        return min(_KELVIN, key=lambda name: abs(1e6 / _KELVIN[name] - wanted))


def battery_code(percent: int) -> int:
    """Return the code of the charge, which the body tells in quarters."""
    return min(_BATTERY_BY_CODE, key=lambda code: abs(_BATTERY_BY_CODE[code] - percent))


def _delivery(serial: str) -> Sequence[EosProperty]:
    return (
        EosProperty(APERTURE, 0x38, tuple(F_NUMBER_BY_CODE)),
        EosProperty(SHUTTER, 0x75, (BULB, *SECONDS_BY_CODE)),
        EosProperty(ISO, 0x48, tuple(ISO_BY_CODE)),
        EosProperty(EXPOSURE_COMPENSATION, 0, (0,)),
        EosProperty(EXPOSURE_MODE, 0, (0, 1, 2, 3, 4), is_listed=False),
        EosProperty(DRIVE_MODE, SINGLE, (SINGLE, CONTINUOUS, 4, 5)),
        EosProperty(FOCUS_MODE, MANUAL_FOCUS, (AUTOFOCUS, MANUAL_FOCUS), writable=False),
        EosProperty(WHITE_BALANCE, 1, tuple(WHITE_BALANCE_BY_CODE)),
        EosProperty(COLOUR_TEMPERATURE, 5200, tuple(range(2500, 10001, 100))),
        EosProperty(BATTERY, 2, writable=False),
        EosProperty(CAMERA_TIME, 0),
        EosProperty(OWNER, ""),
        EosProperty(MODEL_ID, 0x80000487, writable=False),
        EosProperty(AVAILABLE_SHOTS, 9999, writable=False),
        EosProperty(CAPTURE_DESTINATION, TO_CARD, (TO_CARD, TO_HOST)),
        EosProperty(IMAGE_FORMAT, IMAGE_FORMATS[0], IMAGE_FORMATS),
        EosProperty(TEMPERATURE_STATUS, 0, writable=False),
        EosProperty(UTC_TIME, 0),
        EosProperty(CONTINUOUS_AF, 1, (0, 1)),
        EosProperty(SERIAL, serial, writable=False),
        EosProperty(LIVE_VIEW_OUTPUT, 1, (0, 1, 2, 3)),
        EosProperty(LIVE_VIEW_MODE, 1, (0, 1)),
        EosProperty(MOVIE_TARGET, RECORD_NOTHING, (RECORD_NOTHING, 3, RECORD_TO_CARD)),
        EosProperty(ARTIST, ""),
        EosProperty(COPYRIGHT, ""),
    )
