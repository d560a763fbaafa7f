"""One stepper drive on a line, in the words of its register table: status, position, a motion, a stop, its limits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rig.clock import SessionClock
from rig.devices.arrival import not_at_rest, wait_until
from rig.devices.envelope import Motion
from rig.devices.modbus_drives import DriveStatus, join_words, split_words
from rig.devices.modbus_link import Exchange, ModbusLink
from rig.devices.modbus_settings import ModbusRailSettings
from rig.errors import DeviceError, DeviceTimeoutError, RailLockedError, SettingRefusedError

_STOP_TRIES = 4
_ALARM_CLEARS_WITHIN_S = 2.0

Limit = tuple[str, int, tuple[int, ...]]
"""What it is called, its first register, the words that must stand there."""


@dataclass(frozen=True)
class Look:
    """Status and position, read one after the other; the times belong to the position."""

    status: DriveStatus
    position_mm: float
    t_request_s: float
    t_reply_s: float


class Stepper:
    """A drive behind an open line.

    Args:
        settings: The profile's rail.
        link: The line; the drive is the settings' unit on it.
        clock: The session clock.
    """

    def __init__(self, settings: ModbusRailSettings, link: ModbusLink, clock: SessionClock) -> None:
        self._settings = settings
        self._family = settings.family
        self._scale = settings.scale
        self._link = link
        self._clock = clock

    def look(self) -> Look:
        """Read status and position.

        Raises:
            DeviceTimeoutError: No valid answer.
        """
        status = self.status()
        position = self._read(self._family.position, 2)
        position_mm = self._scale.to_mm(join_words(*position.values))
        return Look(status, position_mm, position.t_request_s, position.t_reply_s)

    def status(self) -> DriveStatus:
        """Read the status word."""
        return self._family.decode_status(self._read(self._family.status, 1).values[0])

    def velocity_mm_s(self) -> float:
        """Read the speed, unsigned."""
        return abs(join_words(*self._read(self._family.speed, 2).values)) * self._scale.velocity_step_mm_s

    def alarm(self) -> str:
        """Read what the present alarm is, in plain words."""
        if self._family.alarm is None:
            return "alarm; see the drive's display"
        return self._family.describe_alarm(self._read(self._family.alarm, 1).values[0])

    def start(
        self, motion: Motion, *, cap_mm_s: float, relative: bool, permit: Callable[[], None]
    ) -> Exchange:
        """Write a checked motion as one block, once.

        Args:
            motion: Where to, how fast, how steeply.
            cap_mm_s: Speed that rounding must not exceed.
            relative: By the motion's distance instead of to its end: the only way while the position is unknown.
            permit: Raises to keep the motion from being written; called with the line in hand.
        """
        path, scale = self._family.path, self._scale
        distance_mm = motion.end_mm - motion.start_mm
        pulses = scale.distance_pulses(distance_mm) if relative else scale.to_pulses(motion.end_mm)
        mode = path.relative if relative else path.absolute
        rpm = scale.rpm(motion.velocity_mm_s, cap_mm_s=cap_mm_s)
        ramp_ms = scale.ramp_ms(motion.acceleration_mm_s2)
        words = [mode, *split_words(pulses), rpm, ramp_ms, ramp_ms, 0, path.start]
        return self._link.write_registers(self._settings.unit, path.address, words, permit=permit)

    def start_homing(self, *, permit: Callable[[], None]) -> None:
        """Set the drive's own homing going; ``permit`` as in `start`."""
        self._link.write_register(self._settings.unit, self._family.trigger, self._family.home, permit=permit)

    def brake(self) -> None:
        """Write the quick stop until it is acknowledged: unlike a motion it does no harm when repeated.

        Raises:
            DeviceTimeoutError: None of four was acknowledged.
        """
        for attempt in range(1, _STOP_TRIES + 1):
            try:
                self._link.write_register(
                    self._settings.unit, self._family.trigger, self._family.quick_stop, urgent=True
                )
            except DeviceTimeoutError:
                if attempt == _STOP_TRIES:
                    raise
            else:
                return

    def await_rest(self, *, timeout_s: float) -> None:
        """Wait until nothing moves."""
        if not wait_until(lambda: not self.status().running, self._clock, within_s=timeout_s):
            raise not_at_rest(self._settings.port)

    def set_output(self, pin: str, *, on: bool) -> float:
        """Switch an output; returns the session time at which the command left.

        Raises:
            DeviceError: This drive family has no such output.
        """
        output = self._family.outputs.get(pin)
        if output is None:
            raise DeviceError(
                f"{self._settings.port}: a {self._family.name} drive has no output '{pin}'",
                next_step="use a relay board (kind: relay) for lamps, pumps and fans",
            )
        return self._write(output.address, output.on if on else output.off).t_request_s

    def clear_alarm(self) -> None:
        """Clear the drive's alarm and see it gone.

        Raises:
            RailLockedError: It stays.
        """
        if not self.status().fault:
            return
        self._write(self._family.control, self._family.clear_alarm)
        if not wait_until(lambda: not self.status().fault, self._clock, within_s=_ALARM_CLEARS_WITHIN_S):
            raise RailLockedError(
                f"{self._settings.port}: {self.alarm()} cannot be cleared",
                next_step="mend its cause, or switch the drive off and on, then home the rail",
            )

    def assert_limits(self) -> None:
        """Write limits and homing settings where they differ, and believe only what is read back.

        Nothing is saved in the drive's memory: it has forgotten all of it after the next power-up.

        Raises:
            SettingRefusedError: A register reads back something else.
        """
        for limit in [*self._caps(), *self._soft_limits(), *self._homing()]:
            self._assert(*limit)

    def _caps(self) -> Iterator[Limit]:
        family, settings = self._family, self._settings
        if family.pulses_per_rev is not None:
            yield "counts per revolution", family.pulses_per_rev, (settings.pulses_per_rev,)
        if family.quick_stop_ramp_ms is not None:
            ramp_ms = self._scale.ramp_ms(settings.max_acceleration_mm_s2)
            yield "quick-stop ramp", family.quick_stop_ramp_ms, (ramp_ms,)

    def _soft_limits(self) -> Iterator[Limit]:
        limits = self._family.soft_limits
        if limits is None:
            return
        lower, upper = sorted((0, self._scale.direction * self._scale.last_pulse))
        yield "upper soft limit", limits.upper, split_words(upper)
        yield "lower soft limit", limits.lower, split_words(lower)
        present = self._read(limits.switch, 1).values[0]
        yield "soft limits", limits.switch, (present | limits.switch_mask,)

    def _homing(self) -> Iterator[Limit]:
        homing, settings, scale = self._family.homing, self._settings, self._scale
        if homing is None:
            return
        seek_rpm = max(scale.rpm(settings.homing_velocity_mm_s), 1)
        ramp_ms = scale.ramp_ms(settings.acceleration_mm_s2)
        yield "homing mode", homing.mode, (homing.mode_words[settings.home_direction],)
        yield "home position", homing.home_position, split_words(0)
        yield "homing speed", homing.seek_rpm, (seek_rpm,)
        yield "homing creep speed", homing.creep_rpm, (max(seek_rpm // 5, 1),)
        yield "homing ramp up", homing.ramp_up_ms, (ramp_ms,)
        yield "homing ramp down", homing.ramp_down_ms, (ramp_ms,)

    def _assert(self, what: str, address: int, words: tuple[int, ...]) -> None:
        if self._read(address, len(words)).values == words:
            return
        with contextlib.suppress(DeviceTimeoutError):  # a lost reply is settled by reading back
            self._link.write_registers(self._settings.unit, address, words)
        found = self._read(address, len(words)).values
        if found != words:
            raise SettingRefusedError(
                f"{self._settings.port}: {what} (register 0x{address:04X}) reads {list(found)} "
                f"instead of {list(words)}",
                kept="nothing moved",
                next_step=f"check that the drive is a {self._family.name} and its registers are not locked",
            )

    def _read(self, address: int, count: int) -> Exchange:
        return self._link.read_registers(self._settings.unit, address, count=count)

    def _write(self, address: int, value: int) -> Exchange:
        return self._link.write_register(self._settings.unit, address, value)
