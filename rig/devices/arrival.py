"""From a command to its end: what every rail waits for and insists on, whatever it speaks."""

from __future__ import annotations

from collections.abc import Callable

from catalog.session_folder import SweepRecord
from rig.clock import SessionClock
from rig.devices.rail import RailPoll, RailState
from rig.errors import DeviceError, DeviceTimeoutError, MotionStoppedError, RailLockedError

POLL_EVERY_S = 0.05
SLACK_S = 2.0
"""Added to every deadline that follows from a motion."""
SETTLED_S = 0.5
"""A controller may take this long from accepting a motion to reporting it."""


def wait_until(done: Callable[[], bool], clock: SessionClock, *, within_s: float) -> bool:
    """Ask again and again until it is so; returns False when the time is up and it is not."""
    deadline_s = clock.now() + within_s
    while not done():
        if clock.now() >= deadline_s:
            return False
        clock.sleep(POLL_EVERY_S)
    return True


def await_arrival(
    has_arrived: Callable[[], bool],
    clock: SessionClock,
    *,
    within_s: float,
    stop: Callable[[], None],
    name: str,
) -> None:
    """Return when a motion has ended; stop the carriage where it has not in time.

    Raises:
        DeviceTimeoutError: It did not arrive.
    """
    if wait_until(has_arrived, clock, within_s=within_s):
        return
    stop()
    raise DeviceTimeoutError(
        f"{name}: the motion did not end within {within_s:.1f} s; it was stopped",
        kept="the position, as the controller counts it",
        next_step="look for what blocks the carriage, then clear the hold and home the rail",
    )


def not_at_rest(name: str) -> DeviceTimeoutError:
    """Return the error for a carriage that goes on although it was stopped."""
    return DeviceTimeoutError(
        f"{name}: the carriage does not come to rest",
        next_step="press the emergency stop, then look at the rail",
    )


def has_arrived(reading: RailPoll, target_mm: float | None, *, tolerance_mm: float, name: str) -> bool:
    """Tell whether a motion is over.

    Args:
        reading: The newest one, moving or idle.
        target_mm: Where the motion should end; None where only standstill counts.
        tolerance_mm: How far off it may rest.
        name: The rail's port, for the message.

    Raises:
        DeviceError: The carriage rests elsewhere.
    """
    if reading.state is RailState.MOVING or target_mm is None:
        return reading.state is RailState.IDLE
    if abs(reading.position_mm - target_mm) > tolerance_mm:
        raise DeviceError(
            f"{name}: the carriage rests at {reading.position_mm:.3f} mm instead of {target_mm:.3f} mm",
            kept="nothing moves any more",
            next_step="home the rail and do the motion again",
        )
    return True


def require_no_fault(trouble: str, *, name: str) -> None:
    """Refuse to go on while something locks the rail.

    Args:
        trouble: What does, in plain words; empty when nothing.
        name: The rail's port, for the message.

    Raises:
        RailLockedError: Something does.
    """
    if trouble:
        raise RailLockedError(f"{name}: {trouble}", next_step="clear the fault, then home the rail")


def require_state(
    reading: RailPoll,
    *allowed: RailState,
    name: str,
    locked: tuple[str, str] = ("the rail is locked", "home the rail"),
) -> None:
    """Refuse to go on in a state other than those allowed.

    Args:
        reading: The newest one.
        allowed: States in which it may go on.
        name: The rail's port, for the message.
        locked: What a lock without a fault means on this rail, and what to do.

    Raises:
        MotionStoppedError: The carriage is held.
        RailLockedError: The rail is locked.
        DeviceError: It does something else.
    """
    if reading.state in allowed:
        return
    if reading.state is RailState.HOLD:
        raise MotionStoppedError(
            f"{name}: the carriage is held at {reading.position_mm:.3f} mm",
            kept="the position",
            next_step="clear the hold; the motion is not resumed but done again",
        )
    if reading.state is RailState.LOCKED:
        raise RailLockedError(f"{name}: {locked[0]}", next_step=locked[1])
    raise DeviceError(f"{name}: the rail is {reading.state} and takes no motion now", kept="nothing moved")


def require_prepared(prepared: SweepRecord | None, sweep: SweepRecord, *, name: str) -> None:
    """Refuse a sweep whose start the carriage was not brought to.

    Raises:
        DeviceError: `Rail.prepare` was not called for this very sweep.
    """
    if prepared != sweep:
        raise DeviceError(
            f"{name}: the rail does not stand at the start of this sweep",
            kept="nothing moved",
            next_step="prepare it first",
        )
