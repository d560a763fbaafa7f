"""Knowledge: gathers what the engine tells into situations; no screen, no device, no thread of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from catalog.errors import CleanplateError
from catalog.session_folder import SessionFolder
from rig.clock import SessionClock
from rig.events import (
    Attached,
    Event,
    Motion,
    Preview,
    RailReading,
    RigState,
    RoundStarted,
    Saved,
    SessionProgress,
)
from rig.tui.event_lines import Line, event_line
from rig.tui.situation import Command, MotionSample, Situation

MOTION_SAMPLES = 400
LINES = 1000
ONION_REACH_MM = 5.0
"""A ground-truth preview is laid under one that was taken no further away than this."""
_REPORTED_SEPARATELY_S = 0.001


class Knowledge:
    """What the UI knows, event by event.

    Args:
        rig: Name of the rig, until the engine says it.
        name: Name by which the engine knows this client.
        now: This machine's monotonic clock.
        wall: Wall clock, for annotation alone.
    """

    def __init__(
        self,
        rig: str,
        name: str,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rig, self._name, self._now, self._wall = rig, name, now, wall
        self._link: Literal["starting", "connected", "lost"] = "starting"
        self._link_text = ""
        self._attached: Attached | None = None
        self._state: RigState | None = None
        self._state_received_s = 0.0
        self._preview: Preview | None = None
        self._motion: deque[MotionSample] = deque(maxlen=MOTION_SAMPLES)
        self._gt_previews: dict[int, Preview] = {}
        self._first_gt_preview: Preview | None = None
        self._plan = _SessionPlan()
        self._saved_bytes: dict[str, int] = {}
        self._wall_offset_s = wall() - now()
        self._stop_sent_s: float | None = None
        self.lines: deque[tuple[float, Line]] = deque(maxlen=LINES)
        """Wall time of arrival (annotation) and the line."""
        self.onion_percent = 0
        self.lag_s = 0.0
        self.heard = 0
        """Events so far; tells whether there is anything new."""

    def engine_lost(self, why: str) -> None:
        """Take note that there is no engine at the other end; nothing old is shown as if it were current."""
        if self._link != "lost":
            self.note(Line("error", f"engine: {why}"))
        self._link, self._link_text = "lost", why
        self._preview = None

    def stop_sent(self) -> None:
        """Take note that a stop was sent from here."""
        self._stop_sent_s = self._now()
        self.note(Line("mark", "STOP sent"))

    def note(self, line: Line) -> None:
        """Add a line to the list of events."""
        self.lines.append((self._wall(), line))

    def hear(self, event: Event) -> None:
        """Take in one event of the engine."""
        self.heard += 1
        if isinstance(event, Attached):
            self._attached, self._link, self._link_text = event, "connected", ""
        elif isinstance(event, RigState):
            self._hear_state(event)
        elif isinstance(event, Preview):
            self._hear_preview(event)
        elif isinstance(event, Motion):
            self._add_motion(MotionSample(event.t_host_s, event.position_mm, event.velocity_mm_s))
        elif isinstance(event, RoundStarted):
            self._motion.clear()
        elif isinstance(event, Saved):
            self._saved_bytes[event.round] = self._saved_bytes.get(event.round, 0) + event.size_bytes
        line = event_line(event)
        if line is not None:
            self.note(line)

    def situation(self) -> Situation:
        """Return everything as of now."""
        attached = self._attached
        return Situation(
            now_s=self._now(),
            rig=attached.rig if attached else self._rig,
            link=self._link,
            link_text=self._link_text,
            state=self._state,
            state_received_s=self._state_received_s,
            preview=self._preview,
            clock=None if attached is None else _clock_of(attached),
            in_control=self._state is not None and self._state.controller == self._name,
            motion=tuple(self._motion),
            command=self._plan.command(self._running_round()),
            reserve_gb=self._plan.reserve_gb,
            round_gb=self._round_gb(),
            lag_s=self.lag_s,
            clock_jump_s=self._wall() - self._now() - self._wall_offset_s,
            stop_sent_s=self._stop_sent_s,
            onion_percent=self.onion_percent,
            gt_preview=self._gt_preview_here(),
            first_gt_preview=self._first_gt_preview,
        )

    def _hear_state(self, state: RigState) -> None:
        self._state, self._state_received_s = state, self._now()
        if state.session is not None and self._plan.folder != state.session.folder:
            self._plan = _SessionPlan.read(state.session)
            self._gt_previews.clear()
            self._first_gt_preview = None
            self._saved_bytes.clear()
        if not any(c.connected for c in state.cameras.values()):
            self._preview = None  # never the last picture of a camera that is gone
        if state.rail is not None:
            self._hear_rail(state.rail)

    def _hear_rail(self, rail: RailReading) -> None:
        if rail.position_mm is not None and rail.velocity_mm_s is not None:
            self._add_motion(MotionSample(rail.t_host_s, rail.position_mm, rail.velocity_mm_s))

    def _add_motion(self, sample: MotionSample) -> None:
        if not self._motion or sample.t_host_s > self._motion[-1].t_host_s + _REPORTED_SEPARATELY_S:
            self._motion.append(sample)

    def _hear_preview(self, preview: Preview) -> None:
        self._preview = preview
        running = self._running_round()
        rounds = [] if self._state is None or self._state.session is None else self._state.session.rounds
        if any(r.name == running and r.role == "gt" for r in rounds):
            self._first_gt_preview = self._first_gt_preview or preview
            position_mm = self._position_mm()
            if position_mm is not None:
                self._gt_previews.setdefault(round(position_mm), preview)

    def _running_round(self) -> str | None:
        rounds = () if self._state is None or self._state.session is None else self._state.session.rounds
        return next((r.name for r in rounds if r.state == "running"), None)

    def _position_mm(self) -> float | None:
        return None if self._state is None or self._state.rail is None else self._state.rail.position_mm

    def _gt_preview_here(self) -> Preview | None:
        position_mm = self._position_mm()
        if position_mm is None or not self._gt_previews:
            return None
        nearest_mm = min(self._gt_previews, key=lambda mm: abs(mm - position_mm))
        return self._gt_previews[nearest_mm] if abs(nearest_mm - position_mm) <= ONION_REACH_MM else None

    def _round_gb(self) -> float | None:
        sizes = list(self._saved_bytes.values())
        return sum(sizes) / len(sizes) / 1e9 if sizes else None


def _clock_of(attached: Attached) -> SessionClock:
    return SessionClock(origin_s=attached.clock_origin_s, rate=attached.clock_rate)


class _SessionPlan:
    """What the session's own record says of its rounds; read once, the record never changes."""

    def __init__(self, folder: str = "") -> None:
        self.folder = folder
        self.reserve_gb = 2.0
        self._commands: dict[str, Command] = {}

    @classmethod
    def read(cls, session: SessionProgress) -> _SessionPlan:
        """Read a session's record; without one there is no command to draw."""
        plan = cls(session.folder)
        try:
            record = SessionFolder(Path(session.folder)).record()
        except (CleanplateError, OSError):
            return plan
        plan._commands = {
            r.name: Command(
                r.sweep.start_mm, r.sweep.end_mm, r.sweep.velocity_mm_s, r.sweep.acceleration_mm_s2
            )
            for r in record.rounds
            if r.sweep is not None
        }
        guards: dict[str, Any] = (record.plan or {}).get("guards", {})
        plan.reserve_gb = float(guards.get("min_free_gb", plan.reserve_gb))
        return plan

    def command(self, round_name: str | None) -> Command | None:
        """Return what a round commands; None without one."""
        return None if round_name is None else self._commands.get(round_name)
