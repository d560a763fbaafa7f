"""What clients ask of an engine: frozen models, since they cross a socket as JSON lines.

The engine answers each with `Done`, `Armed` or `Refused` (`rig.events`). Stopping is no request: it has a socket and a
thread of its own (`rig.engine.stop`), so that nothing can stand in its way.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Command(BaseModel):
    """Base of all commands; the engine answers each with `Done` or `Refused`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    command: str
    command_id: int = 0


class Attach(Command):
    """First line of every client."""

    command: Literal["attach"] = "attach"
    name: str = Field(max_length=64)
    control: bool = False
    """Asks for control at once; without it, or while somebody else has it, the client observes."""


class TakeControl(Command):
    """Ask for control; given when nobody has it, otherwise the holder is asked."""

    command: Literal["take_control"] = "take_control"


class HandOver(Command):
    """Give control to a client that asked for it."""

    command: Literal["hand_over"] = "hand_over"
    client_id: int


class ArmHome(Command):
    """First step of homing."""

    command: Literal["arm_home"] = "arm_home"


class ArmSession(Command):
    """First step of a session: a new one by its plan, or one to resume by its name or path."""

    command: Literal["arm_session"] = "arm_session"
    plan_yaml: str | None = Field(default=None, max_length=1_000_000)
    session: str | None = None
    photos: str | None = None


class Go(Command):
    """Second step: do what was armed."""

    command: Literal["go"] = "go"
    token: str
    word: str = ""


class Jog(Command):
    """Move a little; the permit lasts 250 ms and is renewed by the next one.

    One that comes while a jog runs renews its permit and moves no further. A motion longer than the permit therefore
    needs renewal until it has ended; ``press`` keeps a late renewal from beginning another one.
    """

    command: Literal["jog"] = "jog"
    distance_mm: float = Field(ge=-1000, le=1000)
    velocity_mm_s: float = Field(gt=0, le=1000)
    press: int = Field(default=0, ge=0)
    """Number of the key press; of one number, except 0, at most one jog begins."""


class Pause(Command):
    """Pause after this take; given again while pausing, stop this take now (it is void) and pause."""

    command: Literal["pause"] = "pause"


class Proceed(Command):
    """Go on after a pause."""

    command: Literal["proceed"] = "proceed"


class Redo(Command):
    """Record a round again; its valid take becomes void: superseded."""

    command: Literal["redo"] = "redo"
    round: str


class AnswerCard(Command):
    """Answer the card that is up."""

    command: Literal["answer_card"] = "answer_card"
    card_id: int
    choice: str
    reason: str = Field(default="", max_length=1000)


class ClearFault(Command):
    """Leave a hold, or unlock after an alarm; homing may be needed afterwards."""

    command: Literal["clear_fault"] = "clear_fault"


class WatchPreview(Command):
    """Start or end live view for this client."""

    command: Literal["watch_preview"] = "watch_preview"
    on: bool
    rate_hz: float = Field(default=4.0, gt=0, le=30)


class EndSession(Command):
    """End the session after this take, or at once; it stays resumable."""

    command: Literal["end_session"] = "end_session"
    now: bool = False


class Shutdown(Command):
    """End the engine: the session as `EndSession` with ``now``, then the process."""

    command: Literal["shutdown"] = "shutdown"


AnyCommand = Annotated[
    Attach
    | TakeControl
    | HandOver
    | ArmHome
    | ArmSession
    | Go
    | Jog
    | Pause
    | Proceed
    | Redo
    | AnswerCard
    | ClearFault
    | WatchPreview
    | EndSession
    | Shutdown,
    Field(discriminator="command"),
]
COMMANDS: TypeAdapter[AnyCommand] = TypeAdapter(AnyCommand)
