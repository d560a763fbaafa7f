"""What a running session tells the world; frozen models, since they cross process borders as JSON lines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from catalog.session_folder import Role, TakeState


class Event(BaseModel):
    """Base of all events; ``t_host_s`` is the session clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    event: str
    t_host_s: float


class SessionOpened(Event):
    """A session folder exists and the rig is open."""

    event: Literal["session_opened"] = "session_opened"
    session: str
    folder: str
    rounds_total: int
    rounds_missing: int


class RoundStarted(Event):
    """A round is about to be recorded."""

    event: Literal["round_started"] = "round_started"
    round: str
    number: int
    role: Role
    duration_s: float
    """Expected duration of motion and rest, s."""


class Step(Event):
    """What the rig is doing now, in plain words."""

    event: Literal["step"] = "step"
    round: str
    text: str


class Motion(Event):
    """One reading of the rail while it sweeps."""

    event: Literal["motion"] = "motion"
    round: str
    position_mm: float
    velocity_mm_s: float


class Saved(Event):
    """A file is on disk, synced and journaled: this is the acknowledgement."""

    event: Literal["saved"] = "saved"
    round: str
    take: int
    path: str
    """Relative to the session folder."""
    size_bytes: int
    sha256: str


class Warned(Event):
    """A guard noticed something that did not end the take."""

    event: Literal["warned"] = "warned"
    round: str
    text: str


class TakeFinished(Event):
    """A take ended, valid or void."""

    event: Literal["take_finished"] = "take_finished"
    round: str
    take: int
    state: TakeState
    reason: str
    frames: int


class SessionClosed(Event):
    """The session ended; complete when every round has a valid take."""

    event: Literal["session_closed"] = "session_closed"
    session: str
    folder: str
    complete: bool


AnyEvent = SessionOpened | RoundStarted | Step | Motion | Saved | Warned | TakeFinished | SessionClosed
