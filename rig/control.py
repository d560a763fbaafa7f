"""How a running session is steered from other threads, and how it asks an operator.

The runner looks at `SessionControl` at its safe points; whoever steers (a signal handler, an engine's client)
only sets wishes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from rig.errors import OperatorNeededError
from rig.events import Answer, OperatorCard

_GLANCE_S = 0.1


class SessionControl:
    """Wishes about a running session; every method may be called from any thread.

    Args:
        idle: Called ten times a second by the thread that waits in a pause, e.g. to go on watching the rail.
    """

    def __init__(self, *, idle: Callable[[], None] | None = None) -> None:
        self.stop = threading.Event()
        """Set: the take in progress is void, the carriage decelerates, the session ends resumably."""
        self.paused = False
        """Whether the session stands still in a pause."""
        self._idle = idle or (lambda: None)
        self._lock = threading.Condition()
        self._pause = self._hold = self._finish = False
        self._redo: list[str] = []

    def pause(self) -> None:
        """Pause after this take; asked again before that, end this take now."""
        with self._lock:
            self._hold, self._pause = self._pause, True
            self._lock.notify_all()

    def proceed(self) -> None:
        """Go on after a pause."""
        with self._lock:
            self._pause = self._hold = False
            self._lock.notify_all()

    def finish(self) -> None:
        """End the session after this take."""
        with self._lock:
            self._finish = True
            self._pause = False
            self._lock.notify_all()

    def redo(self, round_name: str) -> None:
        """Record a round once more, after the present take."""
        with self._lock:
            self._redo.append(round_name)
            self._lock.notify_all()

    @property
    def pause_wanted(self) -> bool:
        """Whether to pause at the next safe point."""
        return self._pause

    @property
    def hold_wanted(self) -> bool:
        """Whether the take in progress is to be ended and voided so that the pause begins now."""
        return self._hold

    @property
    def finish_wanted(self) -> bool:
        """Whether the session is to end after this take."""
        return self._finish

    def take_redo(self) -> str | None:
        """Return the next round to record again, None where there is none."""
        with self._lock:
            return self._redo.pop(0) if self._redo else None

    def wait_while_paused(self) -> None:
        """Block until the pause ends, or the session is to stop or finish."""
        with self._lock:
            self._hold = False
        self.paused = True
        while self._pause and not self.stop.is_set():
            with self._lock:
                self._lock.wait_for(lambda: not self._pause, timeout=_GLANCE_S)
            self._idle()
        with self._lock:
            self._hold = False  # asked for while nothing was in progress
        self.paused = False


@runtime_checkable
class Operator(Protocol):
    """Whoever answers cards: a person at a terminal, an engine's client, or a policy."""

    def ask(self, card: OperatorCard) -> Answer:
        """Show a card and return its answer.

        Raises:
            RigError: Nobody can be asked, or the session is to stop.
        """


class Unattended:
    """Answers for an operator who is away.

    Args:
        conditions_are_set: The operator vouched beforehand that every external condition is set (`--yes-conditions`).
    """

    def __init__(self, *, conditions_are_set: bool = False) -> None:
        self._conditions_are_set = conditions_are_set

    def ask(self, card: OperatorCard) -> Answer:
        """Take the first choice, except where a person would have to do something."""
        if card.kind == "device" or (card.kind == "condition" and not self._conditions_are_set):
            raise OperatorNeededError(
                f"an operator is needed and nobody can be asked: {card.title}: {card.text}",
                kept="every take recorded so far",
                next_step="run on a terminal or in `rig tui`, or give --yes-conditions when somebody has set them",
            )
        return Answer(choice=card.choices[0].name)
