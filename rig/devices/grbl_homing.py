"""Finding home: when it may begin, how it is asked for, and whether it ended where it must."""

from __future__ import annotations

from collections.abc import Mapping

from rig.devices.grbl_carriage import GrblCarriage
from rig.devices.grbl_dialect import Firmware
from rig.devices.grbl_link import GrblLink, GrblRefusedError
from rig.devices.rail import RailPoll
from rig.errors import DeviceError, DeviceTimeoutError, RailLockedError

_HOMING_FEED = 24
_PULL_OFF = 27


def require_no_upper_switch(carriage: GrblCarriage, reading: RailPoll) -> None:
    """Refuse to home on a switch that was reached upwards: it is not the home switch.

    Raises:
        RailLockedError: Homing would take it for that, and every position would be wrong.
    """
    if reading.limits and carriage.escape.away < 0:
        raise RailLockedError(
            f"{carriage.link.wire.name}: a limit switch is pressed that was reached upwards: homing would take it for "
            "the home switch",
            kept="nothing moved",
            next_step="crawl downwards until it opens, then home the rail",
        )


def find_home(link: GrblLink, found: Mapping[int, float], *, firmware: Firmware, timeout_s: float) -> None:
    """Home; the slow approach alone takes a while, an earlier ``ok`` is an older line's.

    Args:
        link: The conversation.
        found: Settings as they were read back.
        firmware: Some home all axes and fail where two of three have no switch.
        timeout_s: Session seconds.

    Raises:
        RailLockedError: An alarm came instead.
        DeviceTimeoutError: No answer in time.
    """
    at_least_s = 0.0
    if firmware is Firmware.GRBL and found.get(_HOMING_FEED) and _PULL_OFF in found:
        at_least_s = found[_PULL_OFF] / (found[_HOMING_FEED] / 60) / 2
    try:
        link.command("$H", timeout_s=timeout_s, at_least_s=at_least_s)
    except GrblRefusedError:
        if firmware is Firmware.GRBL:
            raise
        link.command("$HX", timeout_s=timeout_s)  # other axes have no home switch


def verify_home(carriage: GrblCarriage, pull_off_mm: float | None) -> RailPoll:
    """Believe the position only where homing must have ended; returns the reading that says so.

    Args:
        carriage: Just homed.
        pull_off_mm: How far above the lower end it must stand; None where only two equal reports count.

    Raises:
        DeviceError: It ended elsewhere.
    """
    expected_mm = None if pull_off_mm is None else carriage.frame.lower_mm + pull_off_mm
    try:
        return carriage.verify_home(expected_mm)
    except DeviceTimeoutError as error:
        raise DeviceError(
            f"{carriage.link.wire.name}: homing did not end where it must "
            f"({'two equal reports' if expected_mm is None else f'{expected_mm:.3f} mm'})",
            kept="the rail counts as not homed",
            next_step="check $23, $27 and $130, then connect again",
        ) from error
