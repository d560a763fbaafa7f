"""Cards: questions of the session to whoever is there, a policy, a terminal or a client of the engine."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol, cast

from rig.control import Operator, SessionControl
from rig.errors import CommandRefusedError, OperatorNeededError, TakeStoppedError
from rig.events import Answer, Answered, AnyEvent, Asked, OperatorCard

_GLANCE_S = 0.1


class Bystander(Protocol):
    """Somebody who may answer a card while clients may, too: an operator at the terminal of `rig record`."""

    def ask_while(self, card: OperatorCard, *, wanted: Callable[[], bool]) -> Answer | None:
        """Show a card and return its answer; None as soon as it is not wanted any more.

        Raises:
            RigError: He wants the session to end.
        """


class CardDesk:
    """Satisfies `rig.control.Operator`: puts a card up and waits until somebody answers.

    Args:
        emit: Tells everybody that a card is up, or was answered.
        now_s: Session time, for events.
        idle: Called while waiting, from the thread that waits.
        attended: Tells whether a client is there who could answer.
        operator: Asked before the clients, or beside them.
    """

    def __init__(
        self,
        *,
        emit: Callable[[AnyEvent], None],
        now_s: Callable[[], float],
        idle: Callable[[], None],
        attended: Callable[[], bool],
        operator: Operator | Bystander | None,
    ) -> None:
        self.control = SessionControl()
        """Of the session that runs; its stop ends the waiting."""
        self._operator = operator
        self._emit, self._now_s, self._idle, self._attended = emit, now_s, idle, attended
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._card: OperatorCard | None = None
        self._card_id: int | None = None
        self._answer: Answer | None = None

    @property
    def up(self) -> tuple[int | None, OperatorCard | None]:
        """The card that is up and its number, or None twice."""
        return self._card_id, self._card

    def ask(self, card: OperatorCard) -> Answer:
        """Put a card up and return its answer.

        Raises:
            TakeStoppedError: The session is to stop.
            OperatorNeededError: Nobody is there who could answer.
        """
        card_id = self._put_up(card)
        try:
            answer = self._ask_first(card) or self._await_answer()
        finally:
            self._take_down()
        self._emit(Answered(t_host_s=self._now_s(), card_id=card_id, answer=answer))
        return answer

    def answer(self, card_id: int, answer: Answer) -> None:
        """Answer the card that is up. Thread-safe.

        Raises:
            CommandRefusedError: Another card is up, or none; it has no such choice; a reason is missing.
        """
        with self._changed:
            card = self._card
            if card is None or card_id != self._card_id:
                raise CommandRefusedError(
                    f"card {card_id} is not up any more", next_step="look at the screen"
                )
            _require_fitting(card, answer)
            self._answer = answer
            self._changed.notify_all()

    def _put_up(self, card: OperatorCard) -> int:
        with self._changed:
            self._card_id, self._card, self._answer = next(self._numbers), card, None
        self._emit(Asked(t_host_s=self._now_s(), card_id=self._card_id, card=card))
        return self._card_id

    def _take_down(self) -> None:
        with self._changed:
            self._card_id = self._card = None

    def _ask_first(self, card: OperatorCard) -> Answer | None:
        """Ask who is here; None when the clients are to answer, or have."""
        if self._operator is None:
            return None
        if not isinstance(self._operator, Operator):
            return self._operator.ask_while(card, wanted=self._is_wanted)
        try:
            return self._operator.ask(card)
        except OperatorNeededError:
            if not self._attended():
                raise
            return None

    def _await_answer(self) -> Answer:
        while self._is_wanted():
            with self._changed:
                self._changed.wait_for(lambda: self._answer is not None, timeout=_GLANCE_S)
        return cast("Answer", self._answer)

    def _is_wanted(self) -> bool:
        """Tell whether nobody has answered yet; raises when the session is to end instead."""
        if self.control.stop.is_set():
            raise TakeStoppedError("stopped by the operator")
        if self.control.finish_wanted:
            raise OperatorNeededError(
                "the session ends here: whoever could answer has gone or wanted it so",
                kept="every take recorded so far",
            )
        self._idle()
        return self._answer is None


def _require_fitting(card: OperatorCard, answer: Answer) -> None:
    choice = next((c for c in card.choices if c.name == answer.choice), None)
    if choice is None:
        raise CommandRefusedError(
            f"'{answer.choice}' is no choice of this card; there are: {', '.join(c.name for c in card.choices)}"
        )
    if choice.needs_reason and not answer.reason.strip():
        raise CommandRefusedError(f"'{answer.choice}' needs a reason, which is journaled")
