"""An operator at a plain terminal: cards as text on stderr, answers from stdin."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable

from catalog.console import plain_text
from rig.control import Unattended
from rig.errors import TakeStoppedError
from rig.events import Answer, Choice, OperatorCard

_GLANCE_S = 0.1


class TerminalOperator:
    """Satisfies `rig.engine.cards.Bystander`.

    Args:
        conditions_are_set: External conditions were vouched for on the command line and are not asked about.
    """

    def __init__(self, *, conditions_are_set: bool = False) -> None:
        self._conditions_are_set = conditions_are_set

    def ask_while(self, card: OperatorCard, *, wanted: Callable[[], bool]) -> Answer | None:
        """Show a card and read its answer; None as soon as it is not wanted any more.

        Raises:
            TakeStoppedError: The operator typed ``q``, or the terminal is closed.
        """
        if self._conditions_are_set and card.kind == "condition":
            return Unattended(conditions_are_set=True).ask(card)
        _show(card)
        while (line := _read_line(wanted)) is not None:
            if line.strip().lower() in {"q", "quit"}:
                raise TakeStoppedError("ended by the operator at a card")
            choice = _chosen(card, line)
            if choice is None:
                _say(f"  answer 1 to {len(card.choices)}, or q to end the session")
                continue
            return self._with_reason(choice, wanted)
        return None

    def _with_reason(self, choice: Choice, wanted: Callable[[], bool]) -> Answer | None:
        reason = ""
        while choice.needs_reason and not reason:
            _say("  why? (journaled)")
            line = _read_line(wanted)
            if line is None:
                return None
            reason = line.strip()
        return Answer(choice=choice.name, reason=reason, by="terminal")


def _show(card: OperatorCard) -> None:
    where = f"round {card.round}: " if card.round else ""
    _say(f"\n  {where}{card.title}\n  {card.text}")
    for item in card.checklist:
        _say(f"  [ ] {item}")
    for number, choice in enumerate(card.choices, start=1):
        _say(f"  {number}  {choice.label}")
    enter = "Enter for 1, " if card.kind == "condition" else ""
    _say(f"  {enter}a number, or q to end the session")


def _chosen(card: OperatorCard, line: str) -> Choice | None:
    text = line.strip() or ("1" if card.kind == "condition" else "")
    if text.isdecimal() and 1 <= int(text) <= len(card.choices):
        return card.choices[int(text) - 1]
    return None


def _read_line(wanted: Callable[[], bool]) -> str | None:
    """Return the next line typed, None as soon as none is wanted any more."""
    while wanted():
        if select.select([sys.stdin], [], [], _GLANCE_S)[0]:
            line = sys.stdin.readline()
            if not line:
                raise TakeStoppedError("the terminal was closed at a card")
            return line
    return None


def _say(text: str) -> None:
    print(plain_text(text), file=sys.stderr, flush=True)  # noqa: T201
