"""Who may ask the engine for what: one client in control, motion in two steps, a policy for a lost client."""

from __future__ import annotations

import functools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from catalog.session_folder import SessionFolder
from catalog.yaml_document import parse_yaml
from rig.engine.clients import ClientLink
from rig.engine.session import SessionOrder
from rig.engine.work import RigWork
from rig.errors import CommandRefusedError, NotArmedError
from rig.events import Answer, Armed, ControlAsked, EngineMode
from rig.plan import CapturePlan
from rig.requests import (
    AnswerCard,
    AnyCommand,
    ArmHome,
    ArmSession,
    Attach,
    ClearFault,
    EndSession,
    Go,
    HandOver,
    Jog,
    Pause,
    Proceed,
    Redo,
    Shutdown,
    TakeControl,
    WatchPreview,
)

ARMED_FOR_S = 10.0
_AT_REST = frozenset({EngineMode.CONNECTED, EngineMode.READY})
_FREE_FOR_ALL = (Attach, TakeControl, WatchPreview)


class Host(Protocol):
    """What the engine itself does for its clients."""

    def welcome(self, link: ClientLink, command_id: int) -> None:
        """Tell a client who is at this end and what there is to see."""

    def watch_preview(self, link: ClientLink, *, rate_hz: float | None) -> None:
        """Send live view to a client, or no longer."""

    def shut_down(self) -> None:
        """End the engine soon; returns at once."""


@dataclass(frozen=True)
class _Arming:
    token: str
    begin: Callable[..., object]
    """Gets the stops seen when it was armed: a later one, however close to the second step, cancels the act."""
    stops_seen: int
    until_s: float
    link: ClientLink


class CommandDesk:
    """Carries out commands, each from its client's own thread.

    Args:
        work: The rig.
        host: The engine.
        find: Returns an attached client by its number.
        attended: An operator is here without any client, so that a lost one changes nothing.
    """

    def __init__(
        self, work: RigWork, host: Host, *, find: Callable[[int], ClientLink | None], attended: bool
    ) -> None:
        self._work, self._host, self._find, self._attended = work, host, find, attended
        self._lock = threading.RLock()
        self._controller: ClientLink | None = None
        self._arming: _Arming | None = None
        self._handlers: dict[type, Callable[..., None]] = {
            Attach: self._attach,
            TakeControl: self._take_control,
            HandOver: self._hand_over,
            ArmHome: self._arm_home,
            ArmSession: self._arm_session,
            Go: self._go,
            Jog: self._jog,
            Pause: self._pause,
            Proceed: self._proceed,
            Redo: self._redo,
            AnswerCard: self._answer_card,
            ClearFault: self._clear_fault,
            WatchPreview: self._watch_preview,
            EndSession: self._end_session,
            Shutdown: self._shutdown,
        }

    @property
    def controller(self) -> str | None:
        """Name of the client in control, None where nobody is."""
        link = self._controller
        return None if link is None else link.name

    @property
    def mode(self) -> EngineMode:
        """State of the rig, armed or not."""
        mode, arming = self._work.mode, self._arming
        if arming is not None and (time.monotonic() > arming.until_s or mode not in _AT_REST):
            self._arming = arming = None
        return EngineMode.ARMED if arming is not None else mode

    def disarm(self) -> None:
        """Forget what was armed."""
        self._arming = None

    def gone(self, link: ClientLink) -> None:
        """Draw the consequences of a client that left."""
        self._host.watch_preview(link, rate_hz=None)
        with self._lock:
            if link is not self._controller:
                return
            self._controller = self._arming = None
        self._work.end_jog()
        if self._work.act == "session" and not self._attended:
            self._leave_session_alone()

    def _leave_session_alone(self) -> None:
        policy = self._work.profile.on_client_lost
        if policy == "finish-round":
            self._work.control.finish()
        elif policy == "hold":
            self._work.control.pause()
            self._work.control.pause()
        else:
            self._work.stop_now(emergency=False)
            self._work.note_stop(emergency=False, by="the engine: its client was lost")

    def obey(self, link: ClientLink, command: AnyCommand) -> None:
        """Carry out a command.

        Raises:
            CommandRefusedError: The sender is not in control, or the rig's mode does not allow it.
            CleanplateError: What the command itself raises, e.g. for a plan that does not fit.
        """
        with self._lock:
            if not isinstance(command, _FREE_FOR_ALL) and link is not self._controller:
                raise CommandRefusedError(
                    f"{self.controller or 'nobody'} is in control", next_step="ask for control first"
                )
            self._handlers[type(command)](link, command)

    def _attach(self, link: ClientLink, command: Attach) -> None:
        link.name = command.name
        link.attached = True
        if command.control and self._controller is None:
            self._controller = link
        self._host.welcome(link, command.command_id)

    def _take_control(self, link: ClientLink, command: TakeControl) -> None:  # noqa: ARG002
        holder = self._controller
        if holder is None:
            self._controller = link
        elif holder is not link:
            holder.tell(ControlAsked(t_host_s=self._work.clock.now(), client_id=link.number, name=link.name))

    def _hand_over(self, link: ClientLink, command: HandOver) -> None:  # noqa: ARG002
        heir = self._find(command.client_id)
        if heir is None:
            raise CommandRefusedError(f"client {command.client_id} is not attached any more")
        self._controller, self._arming = heir, None
        self._work.end_jog()

    def _arm_home(self, link: ClientLink, command: ArmHome) -> None:
        self._require_rest()
        work = self._work
        since = "not homed since the engine was started"
        if work.homed_at_s is not None:
            since = f"last homed {(time.monotonic() - work.homed_at_s) / 60:.0f} min ago"
        low_mm = work.profile.rail.travel_mm[0]
        lines = (
            f"the carriage moves towards {low_mm:g} mm until it meets the home switch",
            "keep hands and cables clear of the whole rail",
            since,
        )
        self._arm(link, command.command_id, "home", lines, work.home)

    def _arm_session(self, link: ClientLink, command: ArmSession) -> None:
        self._require_rest()
        order = self._order(command)
        lines = order.card_lines(homed=self._work.devices.homed)
        begin = functools.partial(self._work.run, order)
        self._arm(link, command.command_id, "session", lines, begin)

    def _order(self, command: ArmSession) -> SessionOrder:
        work = self._work
        if (command.plan_yaml is None) == (command.session is None):
            raise CommandRefusedError("a session is armed by its plan or by its name, one of both")
        if command.session is not None:
            return SessionOrder.resume(SessionFolder.find(command.session, work.data), work.profile)
        plan = parse_yaml((command.plan_yaml or "").encode(), CapturePlan, name="plan")
        photos = Path(command.photos) if command.photos else work.devices.stage.photos
        return SessionOrder.new(plan, work.profile, data=work.data, photos=photos)

    def _arm(
        self,
        link: ClientLink,
        command_id: int,
        act: Literal["home", "session"],
        lines: tuple[str, ...],
        begin: Callable[..., object],
    ) -> None:
        token = secrets.token_hex(8)
        self._arming = _Arming(token, begin, self._work.devices.stops, time.monotonic() + ARMED_FOR_S, link)
        link.tell(
            Armed(
                t_host_s=self._work.clock.now(),
                token=token,
                act=act,
                lines=lines,
                word="" if self._work.profile.simulated else "MOVE",
                valid_s=ARMED_FOR_S,
                command_id=command_id,
            )
        )

    def _go(self, link: ClientLink, command: Go) -> None:
        arming = self._arming if self.mode is EngineMode.ARMED else None
        if (
            arming is None
            or arming.link is not link
            or not secrets.compare_digest(arming.token, command.token)
        ):
            raise NotArmedError(
                "nothing is armed, or it was longer than 10 s ago",
                kept="nothing has moved",
                next_step="begin with the first step again",
            )
        if not self._work.profile.simulated and command.word != "MOVE":
            raise NotArmedError("the word MOVE was not given", kept="nothing has moved")
        self._arming = None
        arming.begin(stops_seen=arming.stops_seen)

    def _jog(self, link: ClientLink, command: Jog) -> None:  # noqa: ARG002
        if self._work.act != "jog":
            self._require_rest()
        self._arming = None
        self._work.jog(command.distance_mm, velocity_mm_s=command.velocity_mm_s, press=command.press)

    def _pause(self, link: ClientLink, command: Pause) -> None:  # noqa: ARG002
        self._require_session()
        self._work.control.pause()

    def _proceed(self, link: ClientLink, command: Proceed) -> None:  # noqa: ARG002
        self._require_session()
        self._work.control.proceed()

    def _redo(self, link: ClientLink, command: Redo) -> None:  # noqa: ARG002
        self._require_session()
        rounds = () if self._work.tracker is None else self._work.tracker.progress.rounds
        if command.round not in {r.name for r in rounds}:
            names = ", ".join(r.name for r in rounds)
            raise CommandRefusedError(f"the session has no round '{command.round}'; it has: {names}")
        self._work.control.redo(command.round)

    def _answer_card(self, link: ClientLink, command: AnswerCard) -> None:
        answer = Answer(choice=command.choice, reason=command.reason, by=link.name)
        self._work.cards.answer(command.card_id, answer)

    def _clear_fault(self, link: ClientLink, command: ClearFault) -> None:  # noqa: ARG002
        mode = self.mode
        if self._work.act is not None or mode not in {
            EngineMode.HOLD,
            EngineMode.LOCKED,
            EngineMode.OFFLINE,
        }:
            raise CommandRefusedError(f"the rig is {mode.value}: there is nothing to clear now")
        self._work.clear_fault()

    def _watch_preview(self, link: ClientLink, command: WatchPreview) -> None:
        self._host.watch_preview(link, rate_hz=command.rate_hz if command.on else None)

    def _end_session(self, link: ClientLink, command: EndSession) -> None:
        self._require_session()
        if command.now:
            self._work.stop_now(emergency=False)
            self._work.note_stop(emergency=False, by=link.name)
        else:
            self._work.control.finish()

    def _shutdown(self, link: ClientLink, command: Shutdown) -> None:  # noqa: ARG002
        self._host.shut_down()

    def _require_rest(self) -> None:
        mode = self._work.mode
        if self._work.act is not None or mode not in _AT_REST:
            busy = f", busy with {self._work.act}" if mode in _AT_REST else ""
            raise CommandRefusedError(
                f"the rig is {mode.value}{busy}: nothing begins to move now", kept="nothing has moved"
            )

    def _require_session(self) -> None:
        if self._work.act != "session":
            raise CommandRefusedError("no session runs")
