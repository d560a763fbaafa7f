"""Jogging: one absolute line a press, cancelled unless it is asked for again."""

from __future__ import annotations

from rig.devices import grbl_protocol as protocol
from rig.devices.envelope import Motion
from rig.devices.grbl_carriage import PERMIT_S, GrblCarriage
from rig.devices.grbl_dialect import Dialect, assert_settings
from rig.devices.grbl_link import GrblRefusedError
from rig.devices.grbl_settings import GrblSettings
from rig.devices.rail import RailPoll, RailState
from rig.errors import EnvelopeError, RailLockedError

_OUTSIDE_TRAVEL = 15
_SOFT_LIMITS = 20
_HARD_LIMIT = 1


class GrblJogger:
    """Starts, prolongs and ends jogs.

    Args:
        carriage: Readings and what was commanded.
        settings: The profile's rail.
        dialect: How the controller wants its settings written.
    """

    def __init__(self, carriage: GrblCarriage, settings: GrblSettings, dialect: Dialect) -> None:
        self._carriage = carriage
        self._settings = settings
        self._dialect = dialect
        self._soft_limits_lifted = False

    def goes_on(self, distance_mm: float, velocity_mm_s: float) -> bool:
        """Tell whether a jog under way is what is asked for once more; a homed one gets a longer way to go."""
        motion = self._carriage.motion
        if not self._carriage.jogging or motion is None or velocity_mm_s != motion.velocity_mm_s:
            return False
        if not distance_mm * (motion.end_mm - motion.start_mm) > 0:
            return False
        reading = self._carriage.poll()
        if reading.state is not RailState.MOVING:
            return False
        left_mm = abs(motion.end_mm - reading.position_mm)
        if self._carriage.homed and left_mm < 2 * PERMIT_S * velocity_mm_s:
            self._prolong(reading, distance_mm, motion)
        return True

    def start(self, reading: RailPoll, distance_mm: float, velocity_mm_s: float) -> None:
        """Jog from rest.

        Raises:
            EnvelopeError: It would leave the envelope.
            RailLockedError: More than a crawl was asked while that alone is allowed.
        """
        start_mm = reading.position_mm if self._carriage.homed else 0.0
        motion = self._carriage.passed(
            reading, start_mm + distance_mm, velocity_mm_s, settings=self._settings
        )
        self._require_soft_limits(reading, reading.position_mm + distance_mm)
        self._send(motion, self._carriage.frame.to_machine_mm(reading.position_mm + distance_mm), reading)

    def unlock_after_escape(self, reading: RailPoll) -> RailPoll:
        """Unlock after an alarm that the opening of the switch itself has raised; nothing moves.

        Args:
            reading: What was just read.

        Returns:
            A new reading where the controller was unlocked, the same where it stays locked.
        """
        carriage, link = self._carriage, self._carriage.link
        if not (carriage.jogging and link.alarm == _HARD_LIMIT and reading.state is RailState.LOCKED):
            return reading
        if not carriage.escape.trip():
            self._explain_trips()
            return carriage.poll()
        carriage.rest()
        link.restart()
        if not carriage.trouble and link.status()[0].state == "Alarm":
            link.command("$X")
        return carriage.poll()

    def _explain_trips(self) -> None:
        carriage = self._carriage
        carriage.jogging = False  # the alarm was looked at
        if trips := carriage.escape.trips:
            carriage.link.fault = (
                f"the limit switch tripped {trips} times while the carriage crawled off it: "
                "do its contacts bounce, is its cable noisy?"
            )

    def end(self) -> None:
        """Cancel a jog under way and wait for standstill."""
        if self._carriage.jogging:
            self._carriage.link.wire.write_realtime(protocol.JOG_CANCEL)
            self._carriage.await_standstill(self._settings.stopping_s)

    def restore_soft_limits(self) -> None:
        """Switch the soft limits on again after a crawl off a pressed switch."""
        if self._soft_limits_lifted:
            assert_settings(self._carriage.link, {_SOFT_LIMITS: 1}, dialect=self._dialect)
            self._soft_limits_lifted = False

    def _require_soft_limits(self, reading: RailPoll, end_mm: float) -> None:
        """Send nothing that lies outside what the controller takes for its travel, right or wrong as it may be."""
        lower_mm, upper_mm = self._settings.travel_mm
        if reading.limits or lower_mm <= end_mm <= upper_mm:
            return
        raise EnvelopeError(
            f"this jog leaves the travel, as far as the controller knows where it is ({reading.position_mm:.1f} mm)",
            kept="nothing moved",
            next_step="home the rail",
        )

    def _prolong(self, reading: RailPoll, distance_mm: float, motion: Motion) -> None:
        longer = self._carriage.passed(
            reading, reading.position_mm + distance_mm, motion.velocity_mm_s, settings=self._settings
        )
        if longer.distance_mm > abs(motion.end_mm - reading.position_mm):
            self._send(longer, self._carriage.frame.to_machine_mm(longer.end_mm), reading)

    def _send(self, motion: Motion, machine_mm: float, reading: RailPoll) -> None:
        """Send a checked jog to an absolute target: doubled on the wire it would still end there."""
        if reading.limits or self._carriage.escape.trips:
            self._carriage.escape.begin(motion, reading.position_mm)
        self._carriage.begin(motion, jogging=True)
        line = f"$J=G90G21G53X{machine_mm:.3f}F{motion.velocity_mm_s * 60:.3f}"
        try:
            self._command(line, lift=bool(reading.limits) and not self._carriage.homed)
        except GrblRefusedError as error:
            self._carriage.refused()
            raise EnvelopeError(error.message, kept="nothing moved", next_step="home the rail") from error
        except RailLockedError:
            if not (self._carriage.escape.under_way and self._carriage.link.alarm == _HARD_LIMIT):
                raise  # else the switch has opened already, and the next poll sees to it

    def _command(self, line: str, *, lift: bool) -> None:
        """Send a jog; off a pressed switch the soft limits of an unknown position must not be in the way."""
        link = self._carriage.link
        try:
            link.command(line)
        except GrblRefusedError as error:
            if error.number != _OUTSIDE_TRAVEL or not lift:
                raise
            self._soft_limits_lifted = True
            link.write_setting(_SOFT_LIMITS, 0, pause=self._dialect.loses_bytes_while_writing)
            link.command(line)
