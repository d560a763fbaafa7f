"""What a slide rail must be able to do, whatever it speaks.

Units are mm, mm/s and s; drivers convert at the wire and nowhere else. Positions are rail coordinates:
0 at the profile's lower end of travel, growing away from the home switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from catalog.session_folder import SweepRecord


class RailState(StrEnum):
    """What the carriage is doing, as the controller reports it."""

    IDLE = "idle"
    MOVING = "moving"
    HOMING = "homing"
    HOLD = "hold"
    LOCKED = "locked"
    """Alarm, door or unknown position: nothing moves before `Rail.clear_fault` and `Rail.home`."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RailPoll:
    """One status reading; position and velocity belong to the middle of request and reply."""

    t_request_s: float
    """Session clock when the request left."""
    t_reply_s: float
    """Session clock when the reply was complete."""
    state: RailState
    position_mm: float
    velocity_mm_s: float | None
    """Unsigned speed; None where the controller does not report it."""
    fault: str = ""
    """Plain words, empty when there is none."""
    limits: frozenset[str] = frozenset()
    """Limit switches that are pressed."""

    @property
    def t_s(self) -> float:
        """Session time the reading belongs to."""
        return (self.t_request_s + self.t_reply_s) / 2


@dataclass(frozen=True)
class RailCapabilities:
    """What a rail can do beyond moving."""

    reports_velocity: bool
    position_is_measured: bool
    """True for an encoder, False for a step counter."""
    has_hold: bool
    outputs: frozenset[str] = frozenset()
    """Switched outputs (lamp, sync LED) that `Rail.set_output` can switch while the carriage moves."""
    stop_bound_s: float = 0.0
    """Longest wait between `Rail.stop` and its bytes on the wire; 0 where they never wait for anything."""


@dataclass(frozen=True)
class RailAccount:
    """What a controller is set to and how well it is heard, for the record of a session."""

    settings: Mapping[str, float]
    """As read back at `Rail.open`, by the controller's own names (``$23``); empty where it lists none."""
    warnings: tuple[str, ...]
    """What it cannot be held to, in plain words."""
    line: Mapping[str, int]
    """How often something went wrong on the line since `Rail.open` and was repaired, by kind."""


class Rail(Protocol):
    """A motorised slide rail. Calls block until done or their deadline has passed.

    One thread owns a rail; only `stop` and `emergency_stop` may be called from another one.
    Every motion is checked against the profile's envelope before a byte leaves.
    """

    capabilities: RailCapabilities
    identity: str
    """Controller and firmware, as it names itself."""

    @property
    def last_poll(self) -> RailPoll | None:
        """What `poll` returned last, for other threads to read; None before the first."""

    def open(self) -> None:
        """Connect, identify, assert and read back the limits. Does not move."""

    def account(self) -> RailAccount:
        """Return what is worth keeping of an open rail."""

    def close(self) -> None:
        """Release the wire; the carriage must be at rest. Safe to call twice."""

    def home(self, *, timeout_s: float) -> None:
        """Find the home switch; afterwards positions are known."""

    @property
    def homed(self) -> bool:
        """Whether the position is known."""

    def move_to(self, position_mm: float, *, velocity_mm_s: float | None = None) -> None:
        """Move at the profile's speed (or slower) and return at standstill."""

    def jog(self, distance_mm: float, *, velocity_mm_s: float) -> None:
        """Start a small relative move that `stop` or the next call cancels.

        A driver may cancel it by itself when neither this nor `renew_jog` is called for 250 ms.
        """

    def renew_jog(self) -> None:
        """Let a jog under way go on, without asking for more of it. Thread-safe."""

    def prepare(self, sweep: SweepRecord) -> None:
        """Go to the start of the run-up and return at standstill; overrides are reset to 100 %."""

    def kickoff(self, sweep: SweepRecord) -> float:
        """Start the sweep as one motion command; returns the session time at which it was accepted."""

    def complete(self, *, timeout_s: float) -> None:
        """Return at standstill after `kickoff`; keep calling `poll` from the same thread meanwhile."""

    def poll(self) -> RailPoll:
        """Read state, position and velocity once."""

    def stop(self) -> None:
        """Decelerate and hold; position is kept. Thread-safe, bypasses every queue."""

    def emergency_stop(self) -> None:
        """Hold, then reset the controller; position is unknown afterwards. Thread-safe."""

    def set_output(self, pin: str, *, on: bool) -> float:
        """Switch an output at once, at rest or in motion, without disturbing the motion. Thread-safe.

        Returns:
            Session time at which the command left.

        Raises:
            DeviceError: The rail has no such output.
        """

    def clear_hold(self) -> None:
        """Leave a hold; position is kept, and nothing is unlocked.

        Raises:
            RailLockedError: Something locks the rail, an emergency stop meanwhile included; it stays locked.
        """

    def clear_fault(self) -> None:
        """Unlock after an alarm or hold; homing may be required before the next move."""
