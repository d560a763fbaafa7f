"""`rig tui --plain`: one event per line, actions typed as words; for screen readers, braille, logs and scripts.

The same registry of actions and the same knowledge as the screens, without cursor addressing. `stop` and `estop` (an
empty line while anything can move is a stop, too) go out on the stop socket before anything is printed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from catalog.console import plain_text
from rig.errors import WordError
from rig.events import AnyEvent, Armed, Asked, ControlAsked, OperatorCard, Preview, RigState
from rig.profile import RigProfile
from rig.requests import (
    AnswerCard,
    ArmHome,
    ArmSession,
    ClearFault,
    Command,
    EndSession,
    Go,
    HandOver,
    Pause,
    Proceed,
    Redo,
    Shutdown,
    TakeControl,
)
from rig.tui.actions import ACTIONS
from rig.tui.jogging import REPEAT_S, Jogger
from rig.tui.knowledge import Knowledge
from rig.tui.link import LiveLink
from rig.tui.plan_preview import preview_plan
from rig.tui.stop_keys import StopTarget
from rig.tui.widgets.banner import banner_lines
from rig.tui.wording import preview_text, strip_cells


class PlainSession:
    """Reads words, prints lines.

    Args:
        profile: The rig.
        link: Its engine.
        knowledge: What is known.
        typed: What the operator types.
        printed: Where lines go.
        photos: Photographs for a simulated world.
    """

    def __init__(
        self,
        profile: RigProfile,
        link: LiveLink,
        knowledge: Knowledge,
        *,
        typed: TextIO,
        printed: TextIO,
        photos: Path | None,
    ) -> None:
        self._profile, self._link, self._knowledge = profile, link, knowledge
        self._typed, self._printed, self._photos = typed, printed, photos
        self._lock = threading.Lock()
        self._jogger = Jogger(link.send)
        self._armed: Armed | None = None
        self._card_id: int | None = None
        self._chosen: ArmSession | None = None
        self._asker: int | None = None
        self._said: tuple[str, ...] = ()
        self._over = threading.Event()
        self.words: dict[str, Callable[[str], None]] = {
            "home": self._sender(ArmHome()),
            "pause": self._sender(Pause()),
            "unlock": self._sender(ClearFault()),
            "control": self._sender(TakeControl()),
            "help": self._help,
            "state": self._state,
            "plan": self._choose_plan,
            "resume": self._choose_session,
            "start": self._start,
            "go": self._go,
            "next": self._next,
            "answer": self._answer,
            "redo": self._redo,
            "end": self._end,
            "jog": self._jog,
            "handover": self._hand_over,
        }
        """What can be typed, besides ``stop``, ``estop`` and ``quit``."""

    def run(self) -> int:
        """Go on until the operator leaves or the input ends; returns the exit code."""
        self._say(f"rig {self._knowledge.situation().rig}: type help for the words; stop stops at any time")
        self._link.open(self._hear, self._lost)
        threading.Thread(target=self._renew_jogs, name="plain-jog", daemon=True).start()
        for line in iter(self._typed.readline, ""):
            if not self._obey(line.strip()):
                break
        self._over.set()
        self._link.close()
        return 0

    def _say(self, text: str) -> None:
        with self._lock:
            print(plain_text(text), file=self._printed, flush=True)

    def _lost(self, why: str) -> None:
        with self._lock:
            news = self._knowledge.situation().link != "lost"
            self._knowledge.engine_lost(why)
        if news and not self._over.is_set():
            self._say(f"error engine gone: {why}")

    def _hear(self, event: AnyEvent) -> None:
        if isinstance(event, Preview):
            self._knowledge.hear(event)
            return
        with self._lock:
            before = len(self._knowledge.lines)
            self._knowledge.hear(event)
            fresh = list(self._knowledge.lines)[before:]
        for _, line in fresh:
            self._say(f"{line.kind} {line.text}")
        for text in self._prompts(event):
            self._say(text)

    def _prompts(self, event: AnyEvent) -> Iterator[str]:
        if isinstance(event, Armed):
            self._armed = event
            yield from (f"armed {line}" for line in event.lines)
            yield f"armed type {f'go {event.word}'.strip()} within {event.valid_s:.0f} s; nothing has moved"
        elif isinstance(event, Asked):
            self._card_id = event.card_id
            yield from card_lines(event.card)
        elif isinstance(event, ControlAsked):
            self._asker = event.client_id
            yield "ask type handover to give control away"
        elif isinstance(event, RigState):
            yield from self._state_lines()

    def _state_lines(self) -> Iterator[str]:
        situation = self._knowledge.situation()
        said = (situation.mode.value, *banner_lines(situation)[:1])
        if said != self._said:
            self._said = said
            yield " ".join(("state", *said))

    def _renew_jogs(self) -> None:
        while not self._over.wait(REPEAT_S):
            self._jogger.renew()

    def _obey(self, line: str) -> bool:
        word, _, rest = line.partition(" ")
        if word in {"stop", "estop"} or (not word and self._knowledge.situation().can_move):
            self._link.stop(b"estop" if word == "estop" else b"stop")
            self._jogger.end()
            self._say("stop sent")
        elif word == "quit":
            leaves = self._leave(rest.strip())
            if leaves:
                self._over.set()
            return not leaves
        elif word:
            self._carry_out(word, rest.strip())
        return True

    def _carry_out(self, word: str, rest: str) -> None:
        obey = self.words.get(word)
        if obey is None:
            self._say(f"error no such word: {word}; type help")
            return
        situation = self._knowledge.situation()
        action = next((a for a in ACTIONS if a.word.split(" ")[0] == word), None)
        if action is not None and not action.possible(situation):
            self._say(f"error {word}: not now, the rig is {situation.mode.value}")
            return
        try:
            obey(rest)
        except ValueError as error:  # a word of ours, or a command that refuses its values
            self._say(f"error {word}: {error}")

    def _sender(self, command: Command) -> Callable[[str], None]:
        return lambda _: self._link.send(command)

    def _help(self, _: str) -> None:
        for a in ACTIONS:
            if a.word:
                self._say(f"help {a.word}: {a.help}")
        for word, text in _MORE_HELP.items():
            self._say(f"help {word}: {text}")

    def _state(self, _: str) -> None:
        situation = self._knowledge.situation()
        self._say("state " + "; ".join(c.text(details=True, ages=True) for c in strip_cells(situation)))
        if situation.preview is not None:
            self._say(f"preview {preview_text(situation.preview)}")

    def _choose_plan(self, path: str) -> None:
        state = self._knowledge.situation().state
        free_gb = None if state is None else state.disk_free_gb
        preview = preview_plan(Path(path).expanduser(), self._profile, free_gb=free_gb)
        for text, _ in preview.lines:
            self._say(f"plan {text}")
        photos = None if self._photos is None else str(self._photos.absolute())
        runs = preview.plan_yaml is not None
        self._chosen = ArmSession(plan_yaml=preview.plan_yaml, photos=photos) if runs else None

    def _choose_session(self, name: str) -> None:
        self._chosen = ArmSession(session=name)

    def _start(self, _: str) -> None:
        if self._chosen is None:
            raise WordError("type plan FILE or resume SESSION first")
        self._link.send(self._chosen)

    def _go(self, word: str) -> None:
        if self._armed is None:
            raise WordError("nothing is armed: type home or start first")
        self._link.send(Go(token=self._armed.token, word=word))
        self._armed = None

    def _next(self, _: str) -> None:
        situation = self._knowledge.situation()
        if situation.state is None or situation.state.card is None:
            self._link.send(Proceed())
        else:
            for text in card_lines(situation.state.card):
                self._say(text)

    def _answer(self, rest: str) -> None:
        if self._card_id is None:
            raise WordError("no card is up")
        choice, _, reason = rest.partition(" ")
        self._link.send(AnswerCard(card_id=self._card_id, choice=choice, reason=reason))

    def _redo(self, name: str) -> None:
        if not name:
            raise WordError("which round? type redo ROUND")
        self._link.send(Redo(round=name))

    def _end(self, when: str) -> None:
        if when not in {"", "now"}:
            raise WordError("type end (after this take) or end now (the take is void)")
        self._link.send(EndSession(now=when == "now"))

    def _jog(self, distance: str) -> None:
        state = self._knowledge.situation().state
        if state is None or state.rail is None:
            raise WordError("the rail is off")
        try:
            distance_mm = float(distance)
        except ValueError:
            raise WordError("how far? type jog and the millimetres, jog -5 for instance") from None
        self._jogger.press(distance_mm, state.rail)

    def _hand_over(self, _: str) -> None:
        if self._asker is None:
            raise WordError("nobody has asked for control")
        self._link.send(HandOver(client_id=self._asker))
        self._asker = None

    def _leave(self, how: str) -> bool:
        """Leave as asked; tells whether to: while a session runs it must be said what becomes of it."""
        endings = {"now": EndSession(now=True), "finish": EndSession(), "engine": Shutdown(), "keep": None}
        if how not in endings and (how or self._knowledge.situation().session_runs):
            self._say("error quit: type quit keep, quit finish, quit now or quit engine")
            return False
        command = endings.get(how)
        if command is not None:
            self._link.send(command)
        return True


_MORE_HELP = {
    "plan FILE": "Choose a plan and see what it will do.",
    "resume SESSION": "Choose a session to go on with.",
    "go [WORD]": "Second step: do what was armed.",
    "answer CHOICE [REASON]": "Answer the operator card.",
    "state": "What every device says, with its age.",
    "quit keep|finish|now|engine": "Leave: by the rig's policy, after this take, at once, or with the engine.",
}


def card_lines(card: OperatorCard) -> list[str]:
    """Put an operator card in lines."""
    lines = [f"ask {card.title}", f"ask {card.text}", *(f"ask check: {item}" for item in card.checklist)]
    for choice in card.choices:
        reason = " REASON" if choice.needs_reason else ""
        lines.append(f"ask type answer {choice.name}{reason}: {choice.label}")
    return lines


def run_plain(
    profile: RigProfile, profile_name: str, *, data: Path, photos: Path | None, target: StopTarget
) -> int:
    """Run on standard input and output; returns the exit code."""
    name = f"plain ({os.getpid()})"
    link = LiveLink(profile, profile_name, name=name, data=data, photos=photos, target=target)
    knowledge = Knowledge(profile.name, name)
    return PlainSession(profile, link, knowledge, typed=sys.stdin, printed=sys.stdout, photos=photos).run()
