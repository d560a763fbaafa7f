"""`Engine`: owns a rig, runs sessions on it and listens to clients; stopping has a thread of its own.

`rig record` is this engine with a progress display; ``python -m rig.engine`` is it alone, as `rig tui` starts it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from catalog.session_folder import SESSION_FILE
from rig.control import Operator
from rig.devices.rail import RailState
from rig.engine.cameras import CameraWatch
from rig.engine.cards import Bystander
from rig.engine.clients import ClientDesk, ClientLink
from rig.engine.commands import CommandDesk
from rig.engine.devices import Stage
from rig.engine.session import SessionOrder
from rig.engine.state import StateReporter
from rig.engine.stop import StopPost
from rig.engine.work import RigWork
from rig.errors import MotionStoppedError, SessionInterruptedError
from rig.events import AnyEvent, Attached, RigState
from rig.profile import RigProfile
from rig.runtime import EngineAddress, hold_rig_lock
from rig.session import resume_command

MOVING_INTERVAL_S = 0.1
RESTING_INTERVAL_S = 0.2
LEAST_INTERVAL_S = 0.02
LINGER_S = 60.0


class Engine:
    """Owns one rig while the context lasts.

    Args:
        profile: The rig.
        data: Data folder.
        stage: Scene of a simulated rig; sessions change it.
        watch: Receives every event but snapshots and live view, one at a time, from several threads.
        operator: Answers cards before clients are asked.
        attended: Whether an operator is here even without a client; a lost client changes nothing then.

    Raises:
        RigBusyError: Another engine runs this rig.
    """

    def __init__(
        self,
        profile: RigProfile,
        *,
        data: Path,
        stage: Stage,
        watch: Callable[[AnyEvent], None] | None = None,
        operator: Operator | Bystander | None = None,
        attended: bool = False,
    ) -> None:
        self.address = EngineAddress.of(profile)
        self.over = threading.Event()
        """Set when the engine should end."""
        self._watch = watch
        self._telling = threading.Lock()
        self._changed = threading.Event()
        self._last_used_s = time.monotonic()
        self._order: SessionOrder | None = None
        self._stack = ExitStack()
        self.work = RigWork(
            profile,
            data=data,
            stage=stage,
            emit=self._tell,
            operator=operator,
            attended=lambda: self._desk.controller is not None,
        )
        self._reporter = StateReporter(self.work)
        self._cameras = CameraWatch(
            cameras=lambda: self.work.devices.cameras,
            at_rest=lambda: self.work.act is None,
            boards=profile.boards,
            clock=self.work.clock,
        )
        self._clients = ClientDesk(obey=self._obey, gone=self._gone, now_s=self.work.clock.now)
        self._desk = CommandDesk(self.work, self, find=self._clients.find, attended=attended)

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(hold_rig_lock(self.work.profile))
            opening.callback(self._forget_address)
            self.address.remove_sockets()
            opening.callback(StopPost(self.address, self).close)
            self._clients.open(self.address)
            opening.callback(self._clients.close)
            opening.callback(self.over.set)
            self._cameras.start()
            opening.callback(self._cameras.close)
            self.work.devices.start()
            opening.callback(self.work.devices.close)
            threading.Thread(target=self._report, name="engine-report", daemon=True).start()
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if self.work.act is not None:
            self.stop(by="the engine: it is ending")
        self._stack.close()

    def record(self, order: SessionOrder) -> Path:
        """Run a session and return its folder when it has ended; a stop since the engine was made cancels it.

        Raises:
            SessionInterruptedError: It was stopped, or ended early.
            RigError: The devices cannot be opened.
        """
        self.expect(order)
        try:
            return self.work.run(order, stops_seen=0).result()
        except MotionStoppedError as error:
            raise self.interruption("stopped before it began") from error

    def expect(self, order: SessionOrder) -> None:
        """Learn which session will be recorded, so that a stop before that can name it."""
        self._order = order

    def interruption(self, what: str) -> SessionInterruptedError:
        """Tell how a session ended of which nothing more will be heard, with the command that resumes it.

        Args:
            what: How, as the end of a sentence about the session, e.g. ``ended at once by a second SIGINT``.
        """
        session = self._session()
        if session is None:
            return SessionInterruptedError(
                f"the session was {what}; it has no folder yet",
                kept="nothing was recorded",
                next_step="give the same command again",
            )
        return SessionInterruptedError(
            f"session {session.name}: {what}",
            kept="every take recorded so far",
            next_step=resume_command(session),
        )

    def _session(self) -> Path | None:
        """Return the folder of the session to resume; it counts from the moment it has its `session.json`."""
        if self._order is not None and self._order.resumed is not None:
            return self._order.resumed.path
        folder = self.work.session
        return folder if folder is not None and (folder / SESSION_FILE).is_file() else None

    def serve(self, *, linger_s: float = LINGER_S) -> None:
        """Block until a client ends the engine, or none has been there for so long and no session runs."""
        while not self.over.wait(RESTING_INTERVAL_S):
            if self._clients.attached or self.work.act is not None:
                self._last_used_s = time.monotonic()
            elif time.monotonic() - self._last_used_s > linger_s:
                return

    def stop(self, *, emergency: bool = False, by: str) -> None:
        """Stop, as the stop post does."""
        self.stop_now(emergency=emergency)
        self.note_stop(emergency=emergency, by=by)

    def stop_now(self, *, emergency: bool) -> str:
        """Put the bytes on the wire; returns plain words about trouble, empty when there was none."""
        return self.work.stop_now(emergency=emergency)

    def note_stop(self, *, emergency: bool, by: str) -> None:
        """Draw the consequences of a stop; never waits for anything."""
        self.work.note_stop(emergency=emergency, by=by)
        self._desk.disarm()
        self._changed.set()

    def welcome(self, link: ClientLink, command_id: int) -> None:
        """Tell a client who is at this end and what there is to see."""
        clock, profile = self.work.clock, self.work.profile
        link.tell(
            Attached(
                t_host_s=clock.now(),
                rig=profile.name,
                simulated=profile.simulated,
                engine_pid=os.getpid(),
                client_id=link.number,
                clock_origin_s=clock.origin_s,
                clock_rate=clock.rate,
                command_id=command_id,
            )
        )
        link.tell(self._state())

    def watch_preview(self, link: ClientLink, *, rate_hz: float | None) -> None:
        """Send live view to a client, or no longer."""
        self._cameras.watch(link, rate_hz)

    def shut_down(self) -> None:
        """End the engine soon; returns at once."""
        if self.work.act is not None:
            self.stop(by="the engine: it is ending")
        self.over.set()

    def _obey(self, link: ClientLink, command: object) -> None:
        self._desk.obey(link, command)  # type: ignore[arg-type]
        self._changed.set()

    def _gone(self, link: ClientLink) -> None:
        self._desk.gone(link)
        self._changed.set()

    def _tell(self, event: AnyEvent) -> None:
        with self._telling:
            self._show(event)
            self._clients.tell_all(event)
        self._changed.set()

    def _show(self, event: AnyEvent) -> None:
        """Show an event where the engine was started; with that terminal or pipe closed, what runs is stopped."""
        if self._watch is None:
            return
        try:
            self._watch(event)
        except OSError:
            self._watch = None
            self.stop(by="the engine: nobody reads what it prints")

    def _state(self) -> RigState:
        return self._reporter.describe(
            mode=self._desk.mode,
            controller=self._desk.controller,
            clients=len(self._clients.attached),
            preview_skipped=self._cameras.skipped,
        )

    def _report(self) -> None:
        """Tell about stops and send snapshots: ten a second in motion, five at rest, at once when something changed."""
        while not self.over.is_set():
            self._changed.wait(MOVING_INTERVAL_S if self._is_moving() else RESTING_INTERVAL_S)
            self._changed.clear()
            self.work.follow_up()
            if self._clients.attached:
                self._clients.tell_all(self._state())
            self.over.wait(LEAST_INTERVAL_S)

    def _is_moving(self) -> bool:
        reading = self.work.devices.last_poll
        return reading is not None and reading.state in {RailState.MOVING, RailState.HOMING}

    def _forget_address(self) -> None:
        self.address.remove_sockets()
        if self.work.profile.simulated:
            self.address.lock_path.unlink(missing_ok=True)
