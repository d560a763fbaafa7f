"""Which firmware answers, what it can do, and its settings asserted and read back.

GRBL 1.1 lists and takes every setting. grblHAL does too, with bit fields where GRBL has switches. FluidNC keeps its
configuration in a file: what it does not list is unknown, and then the profile's limits alone hold.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from rig.devices import grbl_protocol as protocol
from rig.devices.grbl_link import GrblLink, GrblRefusedError
from rig.devices.grbl_settings import JERK
from rig.errors import SettingRefusedError

ACCELERATION = 120
_LISTINGS = 3
_CONVENIENCES = frozenset({1, 10, 13, 32})
"""Settings without a say in where the carriage can go."""
_MEANINGS = {
    20: "soft limits",
    21: "hard limits",
    22: "homing",
    100: "steps per mm",
    110: "maximum speed",
    ACCELERATION: "acceleration",
    130: "travel",
    JERK: "jerk",
}
_OPTIONS = re.compile(r"\[OPT:(?P<letters>[^,\]]*)[^\]]*\]")
_NEW_OPTIONS = re.compile(r"\[NEWOPT:(?P<names>[^\]]*)\]")


class Firmware(StrEnum):
    """The families that this driver tells apart."""

    GRBL = "GRBL"
    GRBLHAL = "grblHAL"
    FLUIDNC = "FluidNC"


@dataclass(frozen=True)
class Dialect:
    """What a controller says of itself."""

    firmware: Firmware
    identity: str
    """Banner and version, for people."""
    options: str = ""
    """Letters of ``[OPT:…]``."""
    new_options: frozenset[str] = frozenset()
    """Names in ``[NEWOPT:…]`` (grblHAL)."""

    @property
    def loses_bytes_while_writing(self) -> bool:
        """Whether writing a setting deafens the serial port for a moment: the 8-bit firmware's memory does."""
        return self.firmware is Firmware.GRBL

    @property
    def lists_all_settings(self) -> bool:
        """Whether a setting that is missing from ``$$`` means a torn line rather than an unknown value."""
        return self.firmware is not Firmware.FLUIDNC


@dataclass(frozen=True)
class Readback:
    """The settings a controller runs with."""

    found: Mapping[int, float]
    unknown: frozenset[int]
    """Asked for, yet not told or not to be set."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the controller cannot be held to, in plain words."""
        names = [
            _MEANINGS.get(n, f"${n}") for n in sorted(self.unknown) if n in _MEANINGS or n in _CONVENIENCES
        ]
        return tuple(f"the controller does not tell its {name}; only the profile limits it" for name in names)


def probe(banner: str, link: GrblLink) -> Dialect:
    """Ask the controller what it is.

    Args:
        banner: Its start-up line, or a placeholder where none was seen.
        link: The connected line.

    Raises:
        DeviceError: It does not answer ``$I``.
    """
    information = link.command("$I")
    version = next((line for line in information if line.startswith("[VER:")), "")
    text = f"{banner} {version}".lower()
    firmware = Firmware.GRBL
    if "fluidnc" in text:
        firmware = Firmware.FLUIDNC
    elif "grblhal" in text or any("grblHAL" in line for line in information):
        firmware = Firmware.GRBLHAL
        with contextlib.suppress(GrblRefusedError):  # early ones lack the extended form
            information = link.command("$I+")
    options = next((m["letters"] for line in information if (m := _OPTIONS.fullmatch(line))), "")
    names = next((m["names"] for line in information if (m := _NEW_OPTIONS.fullmatch(line))), "")
    identity = " ".join(filter(None, (banner.split(" [", maxsplit=1)[0], version)))
    return Dialect(firmware, identity, options, frozenset(filter(None, names.split(","))))


def assert_settings(
    link: GrblLink,
    wanted: Mapping[int, float],
    *,
    dialect: Dialect,
    where_listed: Mapping[int, float] | None = None,
) -> Readback:
    """Write the ``$`` settings that differ, read all of them back and return them.

    Args:
        link: The connected line.
        wanted: Settings that every controller should have.
        dialect: Its firmware.
        where_listed: Settings that some have; those not listed are none.

    Raises:
        SettingRefusedError: A setting was not taken, cannot be read, or reads back another value.
    """
    found = _listing(link, wanted, dialect)
    wanted = {**wanted, **{n: v for n, v in (where_listed or {}).items() if n in found}}
    refused = {n for n in _differing(found, wanted, dialect) if not _write(link, n, wanted[n], dialect)}
    found = _listing(link, wanted, dialect)
    for number in _differing(found, wanted, dialect):
        if number not in refused:
            raise SettingRefusedError(
                f"{link.wire.name}: ${number} reads back {found[number]:g} instead of {wanted[number]:g}",
                kept="nothing moved",
                next_step="set it by hand, or correct the profile",
            )
    return Readback(found, frozenset(refused | (wanted.keys() - found.keys())))


def _listing(link: GrblLink, wanted: Mapping[int, float], dialect: Dialect) -> dict[int, float]:
    """Read the settings, again where noise has eaten one."""
    found: dict[int, float] = {}
    for _ in range(_LISTINGS):
        found = protocol.parse_settings(link.command("$$"))
        missing = sorted(wanted.keys() - found.keys())
        if not (missing and dialect.lists_all_settings):
            return found
    raise SettingRefusedError(
        f"{link.wire.name}: ${missing[0]} cannot be read",
        kept="nothing moved",
        next_step="check the cable; is this firmware one of GRBL 1.1, grblHAL or FluidNC?",
    )


def _write(link: GrblLink, number: int, value: float, dialect: Dialect) -> bool:
    """Write one setting; returns False where the firmware keeps it for itself and nothing depends on it."""
    try:
        link.write_setting(number, value, pause=dialect.loses_bytes_while_writing)
    except GrblRefusedError as error:
        if dialect.firmware is Firmware.FLUIDNC and number in _CONVENIENCES:
            return False
        next_step = "correct the profile"
        if dialect.firmware is Firmware.FLUIDNC:
            next_step = f"set the {_MEANINGS.get(number, 'value')} in the controller's configuration file"
        raise SettingRefusedError(error.message, kept="nothing moved", next_step=next_step) from error
    return True


def _differing(found: Mapping[int, float], wanted: Mapping[int, float], dialect: Dialect) -> list[int]:
    return [n for n, value in wanted.items() if n in found and not _fits(n, found[n], value, dialect)]


def _fits(number: int, found: float, wanted: float, dialect: Dialect) -> bool:
    """Compare with what the controller prints: three decimals of a 32-bit number, or one bit among others."""
    if dialect.firmware is not Firmware.GRBL and number in {10, 21, 22} and found.is_integer():
        return bool(int(found) & 1)
    return math.isclose(found, wanted, rel_tol=1e-5, abs_tol=1e-3)
