"""Situation: everything the UI knows at one instant, as one immutable object; screens are drawn from it alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from rig.clock import SessionClock
from rig.events import EngineMode, Preview, RigState, SessionProgress

STALE_S = 0.5
GONE_S = 3.0
LAG_S = 0.25
"""A screen that is drawn so much later than due is said to lag."""
_MOVING_MODES = frozenset(
    {EngineMode.HOMING, EngineMode.ARMED, EngineMode.RUNNING, EngineMode.PAUSING, EngineMode.PAUSED}
)


class Freshness(StrEnum):
    """How old a value is, in the three steps in which it is shown."""

    FRESH = "fresh"
    STALE = "stale"
    """Dimmed and labelled with its age."""
    GONE = "gone"
    """Replaced by words."""


def freshness(age_s: float) -> Freshness:
    """Sort an age into the three steps."""
    if age_s <= STALE_S:
        return Freshness.FRESH
    return Freshness.STALE if age_s <= GONE_S else Freshness.GONE


@dataclass(frozen=True)
class MotionSample:
    """One reading of the rail for the plots, session clock."""

    t_host_s: float
    position_mm: float
    velocity_mm_s: float


@dataclass(frozen=True)
class Command:
    """What the running round commands the rail to do: the uniform part and what it takes to get there."""

    start_mm: float
    end_mm: float
    velocity_mm_s: float
    acceleration_mm_s2: float

    @property
    def ramp_mm(self) -> float:
        """Length of the run-up, and of the run-down, mm."""
        return self.velocity_mm_s**2 / (2 * self.acceleration_mm_s2)

    @property
    def target_mm(self) -> float:
        """Where the move ends, mm."""
        return self.end_mm + self.ramp_mm * (1 if self.end_mm > self.start_mm else -1)

    def velocity_at(self, position_mm: float) -> float:
        """Return the commanded speed at a position, mm/s; the ramps are constant acceleration."""
        low, high = sorted((self.start_mm, self.end_mm))
        outside_mm = max(low - position_mm, position_mm - high, 0.0)
        left_mm = max(self.ramp_mm - outside_mm, 0.0)
        return min(self.velocity_mm_s, math.sqrt(2 * self.acceleration_mm_s2 * left_mm))

    def uniform_at(self, position_mm: float) -> bool:
        """Whether the carriage should run at constant speed there."""
        low, high = sorted((self.start_mm, self.end_mm))
        return low <= position_mm <= high


@dataclass(frozen=True)
class Situation:
    """One instant as the UI knows it; ages are in seconds of this machine."""

    now_s: float
    """This machine's monotonic clock."""
    rig: str
    link: Literal["starting", "connected", "lost"] = "starting"
    link_text: str = ""
    """Why there is no engine, in words."""
    state: RigState | None = None
    state_received_s: float = 0.0
    preview: Preview | None = None
    clock: SessionClock | None = None
    in_control: bool = False
    motion: tuple[MotionSample, ...] = ()
    """The last readings of the running round, oldest first."""
    command: Command | None = None
    reserve_gb: float = 2.0
    """Free space that must remain."""
    round_gb: float | None = None
    """Mean size of a recorded round."""
    lag_s: float = 0.0
    clock_jump_s: float = 0.0
    """How far the wall clock has jumped against the monotonic one since the start."""
    stop_sent_s: float | None = None
    onion_percent: int = 0
    gt_preview: Preview | None = None
    """What the camera saw in the ground-truth round, nearest to the present position."""
    first_gt_preview: Preview | None = None
    """What the camera saw at the start of the ground-truth round."""

    def age_s(self, t_host_s: float) -> float:
        """Return how long ago something was, this machine's seconds; infinite without an engine's clock."""
        if self.clock is None:
            return float("inf")
        session_now_s = (self.now_s - self.clock.origin_s) * self.clock.rate
        return max((session_now_s - t_host_s) / self.clock.rate, 0.0)

    @property
    def state_age_s(self) -> float:
        """Age of the engine's last snapshot, s."""
        return float("inf") if self.state is None else max(self.now_s - self.state_received_s, 0.0)

    @property
    def mode(self) -> EngineMode:
        """The rig's state; offline while the engine is silent."""
        if self.state is None or self.link != "connected":
            return EngineMode.OFFLINE
        return self.state.mode

    @property
    def session(self) -> SessionProgress | None:
        """The session that runs or ran last."""
        return None if self.state is None else self.state.session

    @property
    def can_move(self) -> bool:
        """Whether anything can move, as far as can be known from here: without news the answer is yes."""
        if self.state is None or self.link != "connected" or self.state_age_s > GONE_S:
            return True
        rail = self.state.rail
        moving = rail is not None and bool(rail.velocity_mm_s)
        return moving or self.state.mode in _MOVING_MODES

    @property
    def rail_rests(self) -> bool:
        """Whether the rail last said that it stands and the session is busy with something else.

        While a camera is set or its movie copied nobody asks the rail, and its silence is no alarm.
        """
        rail = None if self.state is None else self.state.rail
        resting = rail is not None and rail.state == "idle" and not rail.velocity_mm_s and not rail.fault
        return resting and self.session_runs and self.state_age_s <= GONE_S

    @property
    def session_runs(self) -> bool:
        """Whether a session is in progress."""
        return self.mode in {EngineMode.RUNNING, EngineMode.PAUSING, EngineMode.PAUSED}
