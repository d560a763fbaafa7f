"""What an engine tells its clients: frozen models, since they cross a socket as JSON lines.

`RigState` is the one snapshot from which every screen is drawn. What clients ask for is in `rig.requests`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from catalog.session_folder import ExposureSettings, Role, TakeState


class Event(BaseModel):
    """Base of all events; ``t_host_s`` is the session clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    event: str
    t_host_s: float


class RoundEvent(Event):
    """Base of what concerns one round."""

    round: str
    """Its name in the plan."""


class TakeEvent(RoundEvent):
    """Base of what concerns one take of a round."""

    take: int


class SessionOpened(Event):
    """A session folder exists and the rig is open."""

    event: Literal["session_opened"] = "session_opened"
    session: str
    folder: str
    rounds_total: int
    rounds_missing: int


class RoundStarted(RoundEvent):
    """A round is about to be recorded."""

    event: Literal["round_started"] = "round_started"
    number: int
    role: Role
    duration_s: float
    """Expected duration of motion and rest, s."""


class Step(RoundEvent):
    """What the rig is doing now, in plain words."""

    event: Literal["step"] = "step"
    text: str


class Motion(RoundEvent):
    """One reading of the rail while it sweeps."""

    event: Literal["motion"] = "motion"
    position_mm: float
    velocity_mm_s: float


class Saved(TakeEvent):
    """A file is on disk, synced and journaled: this is the acknowledgement."""

    event: Literal["saved"] = "saved"
    path: str
    """Relative to the session folder."""
    size_bytes: int
    sha256: str


class Warned(RoundEvent):
    """A guard noticed something that did not end the take."""

    event: Literal["warned"] = "warned"
    text: str


class FramesLost(TakeEvent):
    """Frames were dropped or came twice; every one is listed in the journal."""

    event: Literal["frames_lost"] = "frames_lost"
    dropped: int
    duplicated: int


class TakeFinding(BaseModel):
    """One thing that the live check looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    what: str
    """Name of the check, e.g. ``velocity``, ``markers``, ``exposure``, ``pairs``, ``registration``."""
    verdict: Literal["ok", "doubtful", "spoiled"]
    text: str
    """What was measured against what, with units."""
    value: float | None = None
    """The measured number behind the verdict, None where there is none."""


class TakeChecked(TakeEvent):
    """The live check of a take that has just ended."""

    event: Literal["take_checked"] = "take_checked"
    findings: tuple[TakeFinding, ...]
    ripple_percent: float | None = None
    """Standard deviation of the speed over the uniform part, percent; None where it could not be measured."""

    @property
    def spoiled(self) -> bool:
        """Whether the take should be recorded again."""
        return any(f.verdict == "spoiled" for f in self.findings)


class TakeFinished(TakeEvent):
    """A take ended, valid or void."""

    event: Literal["take_finished"] = "take_finished"
    state: TakeState
    reason: str
    frames: int


class SessionClosed(Event):
    """The session ended; complete when every round has a valid take."""

    event: Literal["session_closed"] = "session_closed"
    session: str
    folder: str
    complete: bool


class Choice(BaseModel):
    """One answer that a card offers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    label: str
    needs_reason: bool = False
    """Whether the operator must type why; the reason is journaled."""


class OperatorCard(BaseModel):
    """A question to the operator; nothing goes on before it is answered or the session is stopped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["condition", "retake", "guard", "device"]
    round: str
    title: str
    text: str
    checklist: tuple[str, ...] = ()
    """Things to tick off before the first choice is allowed."""
    choices: tuple[Choice, ...] = (Choice(name="done", label="Done"),)
    """The first one is what going on means."""


class Answer(BaseModel):
    """An operator's answer to a card."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    choice: str
    reason: str = ""
    by: str = ""
    """Who answered; empty for a policy that answers by itself."""


class Asked(Event):
    """A card is up."""

    event: Literal["asked"] = "asked"
    card_id: int
    card: OperatorCard


class Answered(Event):
    """A card was answered, by whichever client or policy."""

    event: Literal["answered"] = "answered"
    card_id: int
    answer: Answer


class Preview(Event):
    """What the camera sees, a small JPEG."""

    event: Literal["preview"] = "preview"
    camera: str
    jpeg_base64: str
    width: int
    height: int
    clipped_percent: float
    """Share of pixels at full scale in any channel."""
    sharpness: float
    """Variance of the Laplacian of the grey picture, 8-bit codes squared; comparable within one scene only."""
    histogram: tuple[int, ...]
    """32 bins of the grey picture."""
    markers_seen: int


class Attached(Event):
    """Answer to `Attach`: who is at the other end."""

    event: Literal["attached"] = "attached"
    schema_: Literal[1] = Field(default=1, alias="schema")
    rig: str
    simulated: bool
    engine_pid: int
    client_id: int
    clock_origin_s: float
    """With `clock_rate` it makes the engine's session clock readable here (`rig.clock.SessionClock`)."""
    clock_rate: float
    command_id: int = 0


class ControlAsked(Event):
    """Another client asks for control; the holder may hand it over."""

    event: Literal["control_asked"] = "control_asked"
    client_id: int
    name: str


class Armed(Event):
    """First of the two steps of a motion: what would happen. `Go` with the token within ``valid_s`` makes it happen."""

    event: Literal["armed"] = "armed"
    token: str
    act: Literal["home", "session"]
    lines: tuple[str, ...]
    """From where to where, top speed, what is in the way, last homing, free disk."""
    word: str
    """What `Go` must repeat: ``MOVE`` on a real rig, empty on a simulated one."""
    valid_s: float
    command_id: int = 0


class ActEnded(Event):
    """What `Go` or `Jog` began has ended; everything but a complete session or a finished motion is not ok."""

    event: Literal["act_ended"] = "act_ended"
    act: Literal["home", "session", "jog", "clear_fault"]
    ok: bool
    code: str = ""
    """Error code, as `rig help` explains it."""
    message: str = ""
    next_step: str = ""


class Stopped(Event):
    """Somebody pressed stop; the bytes were on the wire before this was said."""

    event: Literal["stopped"] = "stopped"
    emergency: bool
    by: str


class Done(Event):
    """A command was carried out."""

    event: Literal["done"] = "done"
    command_id: int


class Refused(Event):
    """A command was not carried out; nothing moved because of it."""

    event: Literal["refused"] = "refused"
    command_id: int
    code: str
    message: str
    next_step: str = ""


class EngineMode(StrEnum):
    """State of the rig as a whole (operator_experience.md section 6)."""

    OFFLINE = "offline"
    CONNECTED = "connected"
    HOMING = "homing"
    READY = "ready"
    ARMED = "armed"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    HOLD = "hold"
    LOCKED = "locked"


class RailReading(BaseModel):
    """The rail as last heard of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    t_host_s: float
    """When; a client shows the age."""
    state: str
    homed: bool
    position_mm: float | None
    """None while unknown."""
    velocity_mm_s: float | None
    fault: str = ""
    limits: tuple[str, ...] = ()


class CameraReading(BaseModel):
    """A camera as last heard of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    t_host_s: float
    connected: bool
    model: str
    text: str = ""
    """Plain words about trouble, empty when there is none."""
    battery_percent: int | None = None
    free_bytes: int | None = None
    hot: bool = False
    settings: ExposureSettings = ExposureSettings()
    """As last read back."""


class RoundProgress(BaseModel):
    """One line of the table of rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    name: str
    role: Role
    setting: str
    """What differs from the base, in short, e.g. ``ISO 6400`` or ``rain light``."""
    state: Literal["waiting", "running", "valid", "void", "failed"]
    step: str = ""
    takes: int = 0
    frames: int = 0
    expected_pairs: int = 0
    ripple_percent: float | None = None
    """Standard deviation of the speed over the uniform part, percent."""
    findings: tuple[TakeFinding, ...] = ()


class SessionProgress(BaseModel):
    """The session that runs or ran last."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    session: str
    folder: str
    scene: str
    rounds: tuple[RoundProgress, ...]
    remaining_s: float
    uniform_mm: tuple[float, float]
    complete: bool = False


class RigState(Event):
    """Everything a screen shows, but the preview; a late client needs nothing else."""

    event: Literal["rig_state"] = "rig_state"
    rig: str
    simulated: bool
    mode: EngineMode
    why: str = ""
    """Why locked, held or offline, and how to get out of it."""
    travel_mm: tuple[float, float]
    rail: RailReading | None
    cameras: dict[str, CameraReading]
    disk_free_gb: float
    session: SessionProgress | None
    card_id: int | None
    card: OperatorCard | None
    controller: str | None
    """Name of the client in control, None where nobody is."""
    clients: int
    preview_skipped: int = 0
    """Preview frames left out so that recording is not disturbed."""


AnyEvent = Annotated[
    SessionOpened
    | RoundStarted
    | Step
    | Motion
    | Saved
    | Warned
    | FramesLost
    | TakeChecked
    | TakeFinished
    | SessionClosed
    | Asked
    | Answered
    | Preview
    | Attached
    | ControlAsked
    | Armed
    | ActEnded
    | Stopped
    | Done
    | Refused
    | RigState,
    Field(discriminator="event"),
]
EVENTS: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)
