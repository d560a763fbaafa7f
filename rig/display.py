"""Show a running session: a progress display on a terminal, one line per round elsewhere, JSON lines on request."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from catalog.console import Console, plain_text
from rig.events import (
    AnyEvent,
    Asked,
    Motion,
    RoundStarted,
    Saved,
    SessionOpened,
    Step,
    Stopped,
    TakeChecked,
    TakeFinished,
    Warned,
)


class SessionDisplay:
    """Receives the events of a session and shows them.

    Args:
        console: The command's output side; ``--json`` prints one line per event on stdout.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        stderr = RichConsole(stderr=True)
        self._live = stderr.is_terminal and not console.quiet
        columns = (TextColumn("{task.description:<16}"), BarColumn(30), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), console=stderr, disable=not self._live)
        self._session: TaskID | None = None
        self._round: TaskID | None = None
        self._round_text = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the terminal may be closed by now
            self._bar.stop()

    def __call__(self, event: AnyEvent) -> None:
        """Show one event."""
        if self._console.json:
            self._console.put_json(event)
        if isinstance(event, SessionOpened):
            self._session = self._bar.add_task("session", total=event.rounds_missing, text=event.session)
            if event.rounds_missing == 0:
                self._say("every round has a valid take already")
        elif isinstance(event, RoundStarted):
            self._bar.start()
            self._begin_round(event)
        elif isinstance(event, Asked):
            self._bar.stop()  # a question stands still on the screen
        elif isinstance(event, (Step, Motion)):
            self._update_round(event)
        elif isinstance(event, TakeFinished):
            self._end_take(event)
        elif isinstance(event, Warned):
            self._say(f"warning: round {event.round}: {event.text}")
        elif isinstance(event, TakeChecked):
            self._show_findings(event)
        elif isinstance(event, Stopped):
            self._say(f"{'emergency stop' if event.emergency else 'stopped'} by {event.by}")
        elif isinstance(event, Saved) and self._live and self._round is not None:
            self._bar.update(self._round, text=plain_text(f"saved {event.path.rsplit('/', 1)[-1]}"))

    def _begin_round(self, event: RoundStarted) -> None:
        self._round = self._bar.add_task(plain_text(event.round), total=None, text=event.role)

    def _update_round(self, event: Step | Motion) -> None:
        if self._round is None:
            return
        text = (
            event.text
            if isinstance(event, Step)
            else f"{event.position_mm:7.2f} mm  {event.velocity_mm_s:6.2f} mm/s"
        )
        self._bar.update(self._round, text=plain_text(text))

    def _end_take(self, event: TakeFinished) -> None:
        valid = event.state == "valid"
        state = f"✓ valid, {event.frames} frames" if valid else f"✕ {event.state}: {event.reason}"
        self._say(f"round {event.round} take {event.take}: {state}")
        if self._round is not None:
            self._bar.remove_task(self._round)
            self._round = None
        if self._session is not None and event.state == "valid":
            self._bar.advance(self._session)

    def _show_findings(self, event: TakeChecked) -> None:
        for finding in event.findings:
            if finding.verdict != "ok":
                self._say(
                    f"round {event.round} take {event.take}: {finding.verdict}, {finding.what}: {finding.text}"
                )

    def _say(self, text: str) -> None:
        if self._live:
            self._bar.console.print(plain_text(text), markup=False, highlight=False)
        else:
            self._console.say(text)
