"""Operators who press whatever comes to mind: a model of what they may expect, and the engine they do it to.

The model knows little, so that it is right: who is in control, which token was given to whom for what. What it can not
know at any instant, since the rig goes on meanwhile, is judged on the wire and on the disk.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import yaml
from engine_probe import PATIENCE_S, Probe
from motion_judge import Rail
from session_checker import Witness
from small_rig import PLAN, write_profile
from wire_witness import WireWitness, tapped

import rig.devices.wire
from rig.client import stop_engine
from rig.engine.devices import Stage
from rig.engine.process import Engine
from rig.errors import CommandRefusedError, RigError
from rig.events import ActEnded, AnyEvent, Armed, EngineMode, Saved, SessionOpened
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
    Jog,
    Pause,
    Proceed,
    Redo,
    Shutdown,
)

MACHINE = Rail(lower_mm=-400, upper_mm=0, max_feed_mm_min=7200, max_acceleration_mm_s2=300, end_margin_mm=5)
WORDS = {"home": (b"$H",), "jog": (b"$J",), "session": (b"$H", b"G")}
GRACE_S = 2.5
"""A stop is repeated for 2 s while something still moves."""
TROUBLE = frozenset({EngineMode.HOLD, EngineMode.LOCKED, EngineMode.OFFLINE})


def plan_yaml(*names: str) -> str:
    """A plan of very short sweeps; a round named ``dark`` asks the operator to switch the light off."""
    sweep = {"start_mm": 30, "end_mm": 42, "velocity_mm_s": 60}
    rounds = [{**r, "velocity_mm_s": 60} for r in PLAN["rounds"] if r["name"] in names]
    changes = {
        "sweep": sweep,
        "rounds": rounds,
        "rest_s": 0.3,
        "retake_spoiled": False,
        "guards": {"on_fail": "warn"},
    }
    return yaml.safe_dump({**PLAN, **changes})


@dataclass
class Given:
    """A token the engine gave."""

    token: str
    act: str
    to: Probe
    good: bool = True
    """Whether it may still be taken: nothing has disarmed it and no other was given since."""


@dataclass
class Ledger:
    """What the engine has acknowledged, by session folder; written from its threads."""

    witness: WireWitness
    acknowledged: dict[Path, list[dict[str, Any]]] = field(default_factory=dict)
    looks: dict[Path, Witness] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    """Acts that ended with an error that has no code of its own."""
    _session: Path = Path()

    def note(self, event: AnyEvent) -> None:
        """Hear what the engine tells."""
        if isinstance(event, SessionOpened):
            self._session = Path(event.folder)
            self.acknowledged.setdefault(self._session, [])
        elif isinstance(event, Saved):
            self.acknowledged[self._session].append(event.model_dump())
        elif isinstance(event, ActEnded):
            self.witness.end(event.act)
            self.ended[f"{event.act} {'ok' if event.ok else event.code}"] += 1
            if event.code == RigError.code:
                self.unexplained.append(f"{event.act} ended with {event.code}: {event.message}")

    def violations(self) -> list[str]:
        """Look at every session at rest."""
        for folder in self.acknowledged:
            self.looks.setdefault(folder, Witness(folder))
        found = [w for folder, look in self.looks.items() for w in look.look(self.acknowledged[folder])]
        return [*self.unexplained, *found]


class Chaos:
    """One engine on the simulated rig and the clients that torment it; a context manager.

    Args:
        folder: For profile and data.
    """

    def __init__(self, folder: Path) -> None:
        path = write_profile(folder, rate=12, frame_rate_hz=12)
        path.write_text(path.read_text().replace("light:\n    kind: simulated", "light:\n    kind: operator"))
        self.profile = RigProfile.load(str(path))
        self.witness = WireWitness(MACHINE, WORDS, grace_s=GRACE_S)
        self.ledger = Ledger(self.witness)
        self.asked: Counter[str] = Counter()
        """Commands by kind and whether they were carried out."""
        self.story: list[str] = []
        """Of the present sequence."""
        self._data = folder / "data"
        self._stack = ExitStack()
        self.probes: list[Probe] = []
        self.names: dict[Probe, str] = {}
        self.tokens: list[Given] = []
        self.engine: Engine

    def __enter__(self) -> Self:
        open_port = tapped(rig.devices.wire._open_port, self.witness)
        self._tap = patch.object(rig.devices.wire, "_open_port", open_port)
        self._tap.start()
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._tap.stop()

    def _begin(self) -> None:
        self.engine = Engine(
            self.profile, data=self._data, stage=Stage(PLAN["scene"]), watch=self.ledger.note
        )
        self._stack.enter_context(self.engine)

    def client(self, number: int) -> Probe:
        """Return a client that is attached; it asks for control."""
        while len(self.probes) <= number:
            self.attach()
        return self.probes[number]

    def attach(self) -> None:
        """Let one more client come."""
        name = f"client {len(self.names)}"
        self.probes.append(Probe(self.engine.address, name))
        self.names[self.probes[-1]] = name

    def detach(self, number: int) -> None:
        """Let a client go without a word."""
        if number < len(self.probes):
            gone = self.probes.pop(number)
            for given in self.tokens:
                given.good = given.good and given.to is not gone
            gone.client.close()
            self.story.append(f"client {number} has gone")

    def ask(
        self, number: int, command: Command, *, act: str | None = None, free: bool = False
    ) -> AnyEvent | None:
        """Ask for something; None when it was refused.

        Args:
            number: Which client.
            command: What it asks.
            act: What begins to move if it is carried out.
            free: Whether somebody may ask for it who is not in control.
        """
        probe = self.client(number)
        in_control = self.engine._desk.controller
        act = "jog" if isinstance(command, Jog) else act
        permit = None if act is None else self.witness.begin(act)
        try:
            answer = probe.ask(command)
        except CommandRefusedError as refused:
            answer = None
            said = f"refused: {refused.message}"
            if permit is not None:
                self.witness.withdraw(permit)
        else:
            said = "done"
            if isinstance(command, Jog | HandOver) or isinstance(answer, Armed):
                self.disarm()
            if isinstance(answer, Armed):
                self.tokens.append(Given(answer.token, answer.act, probe))
        self.asked[f"{command.command} {said.split(':')[0]}"] += 1
        self.story.append(f"client {number}: {command.command} {said}")
        if answer is not None and not free:
            assert in_control == self.names[probe], self.told(f"obeyed an observer, not {in_control}")
        return answer

    def disarm(self) -> None:
        """Note that no token so far may be taken any more."""
        for given in self.tokens:
            given.good = False

    def go(self, number: int, which: int) -> None:
        """Take the second step with some token of those that were given."""
        if not self.tokens:
            assert self.ask(number, Go(token="0" * 16)) is None, self.told("went without a token")
            return
        given = self.tokens[which % len(self.tokens)]
        if self.ask(number, Go(token=given.token), act=given.act) is not None:
            assert given.good, self.told("went with a token of the past")
            assert given.to is self.client(number), self.told("went with somebody else's token")
            self.disarm()

    def jog(self, number: int, distance_mm: float, velocity_mm_s: float) -> None:
        """Press an arrow key once."""
        self.ask(number, Jog(distance_mm=distance_mm, velocity_mm_s=velocity_mm_s))

    def hand_over(self, number: int, to: int) -> None:
        """Give control away."""
        heir = self.client(to)
        self.ask(number, HandOver(client_id=heir.client.attached.client_id))

    @property
    def act(self) -> str | None:
        """What the engine does."""
        return self.engine.work.act

    @property
    def mode(self) -> EngineMode:
        """State of the rig."""
        return self.engine.work.mode

    @property
    def card_is_up(self) -> bool:
        """Whether an answer is waited for."""
        return self.engine.work.cards.up[1] is not None

    @property
    def driver(self) -> int:
        """The client in control, by its number; the first where it is none of them."""
        name = self.engine._desk.controller
        return next((k for k, probe in enumerate(self.probes) if self.names[probe] == name), 0)

    def press(self, which: int, detail: int) -> None:
        """Do something that makes sense now, or nearly: which and how is drawn by the caller."""
        sensible = self._sensible()
        sensible[which % len(sensible)](detail)

    def _sensible(self) -> list[Callable[[int], None]]:
        found: list[Callable[[int], None]] = []
        if self.card_is_up:
            found += [self._answer] * 3
        if self.act == "session":
            found += [self._steer] * 2 + [lambda detail: self.linger(detail % 40 / 10)] * 2
        elif self.act == "jog":
            found += [self._jog, lambda detail: self.linger(detail % 10 / 10)]
        elif self.mode in TROUBLE:
            found += [lambda _: self._ask_and_rest(self.driver, ClearFault())]
        elif self.mode is EngineMode.CONNECTED:
            found += [self._home, self._home, self._jog]
        else:
            found += [self._record, self._record, self._resume, self._jog, self._jog, self._arm, self._go]
        return found

    def _answer(self, detail: int) -> None:
        card_id, card = self.engine.work.cards.up
        if card is not None and card_id is not None:
            name = card.choices[detail % len(card.choices)].name
            self.ask(self.driver, AnswerCard(card_id=card_id, choice=name, reason="chaos"))

    def _steer(self, detail: int) -> None:
        commands = (Pause(), Pause(), Proceed(), Proceed(), Redo(round="gt"), EndSession(now=detail % 7 == 0))
        self.ask(self.driver, commands[detail % len(commands)])

    def _jog(self, detail: int) -> None:
        distance_mm = (3.0, -3.0, 9.9, 20.0, 150.0, 0.5, -20.0)[detail % 7]
        self.ask(self.driver, Jog(distance_mm=distance_mm, velocity_mm_s=(4.9, 20.0, 100.0)[detail % 3]))

    def _home(self, detail: int) -> None:
        self.ask(self.driver, ArmHome())
        self.go(self.driver, -1)

    def _record(self, detail: int) -> None:
        rounds = (("gt",), ("gt", "iso6400"), ("gt", "dark"))[detail % 3]
        self.ask(self.driver, ArmSession(plan_yaml=plan_yaml(*rounds)))
        self.go(self.driver, -1)

    def _resume(self, detail: int) -> None:
        sessions = [folder.name for folder in self.ledger.acknowledged] or ["none-yet"]
        self.ask(self.driver, ArmSession(session=sessions[-1 - detail % min(2, len(sessions))]))
        self.go(self.driver, -1)

    def _arm(self, detail: int) -> None:
        self.ask(detail % 3, ArmHome())

    def _go(self, detail: int) -> None:
        self.go(detail % 2, detail)

    def _ask_and_rest(self, number: int, command: Command) -> None:
        self.ask(number, command)
        self.linger(2.0)

    def stop(self, *, emergency: bool) -> None:
        """Press stop; it is legal always and from anybody."""
        stop_engine(self.engine.address, emergency=emergency, by="chaos")
        self.witness.note_stop(emergency=emergency)
        self.disarm()
        self.story.append("emergency stop" if emergency else "stop")

    def shut_down(self, number: int) -> None:
        """End the engine and start another one on the same rig."""
        if self.ask(number, Shutdown()) is None:
            return
        self._stack.close()
        self.witness.end()
        for probe in self.probes:
            probe.client.close()
        self.probes, self.tokens = [], []
        self._begin()

    def linger(self, duration_s: float) -> None:
        """Let the rig go on by itself for a while, or until it rests."""
        over = threading.Event()
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s and not over.wait(0.02):
            if self.engine.work.act is None:
                break
        self.story.append(f"{duration_s:.2f} s later: {self.engine.work.mode.value}")

    def await_mode(self, mode: EngineMode) -> None:
        """Wait until the rig is in a mode."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self.mode is not mode:
            assert time.monotonic() < deadline_s, self.told(f"does not get {mode.value}")
            threading.Event().wait(0.01)

    def settle(self) -> None:
        """Bring the rig to READY from wherever it is, as an operator would; judge wire and disk.

        Raises:
            AssertionError: It does not get there, or something was wrong on the way.
        """
        self.stop(emergency=False)
        self._await_rest()
        for probe in self.probes:
            probe.client.close()
        self.probes, self.tokens = [], []
        self._await_no_control()
        with Probe(self.engine.address, "the one who tidies up") as probe:
            try:
                self._make_ready(probe)
            except Exception as error:
                raise AssertionError(self.told(f"does not get READY: {error}")) from error
        self.witness.end()
        found = [*self.witness.violations(), *self.ledger.violations()]
        assert not found, self.told("; ".join(found[:5]))
        self.story = []

    def _make_ready(self, probe: Probe) -> None:
        """Do what the state asks for, as often as it asks for something: an operator sees it with a delay, too."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self._await_fresh_mode() is not EngineMode.READY:
            assert time.monotonic() < deadline_s, f"the rig stays {self.mode.value}"
            with suppress(CommandRefusedError):
                if self.mode in TROUBLE:
                    probe.ask(ClearFault())
                elif self.mode is EngineMode.CONNECTED:
                    self.witness.begin("home")
                    probe.begin(ArmHome())

    def _await_fresh_mode(self) -> EngineMode:
        """Return the state after the rail was read once more at rest."""
        self._await_rest()
        devices, now_s = self.engine.work.devices, self.engine.work.clock.now()
        deadline_s = time.monotonic() + PATIENCE_S
        while (reading := devices.last_poll) is None or reading.t_s < now_s:
            if devices.trouble and self.engine.work.act is None:
                break
            assert time.monotonic() < deadline_s, "the rail is not read any more"
            threading.Event().wait(0.02)
        return self.mode

    def _await_no_control(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self.engine._desk.controller is not None:
            assert time.monotonic() < deadline_s, self.told("a client that has gone keeps control")
            threading.Event().wait(0.01)

    def _await_rest(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self.engine.work.act is not None:
            assert time.monotonic() < deadline_s, self.told("does not come to rest")
            threading.Event().wait(0.02)

    def summary(self) -> str:
        """Tell in one line what has happened in all."""
        files = sum(len(a) for a in self.ledger.acknowledged.values())
        commands = sum(self.asked.values())
        return (
            f"{commands} commands, {len(self.witness.stops_s)} stops, {self.witness.moves} motions, "
            f"{len(self.ledger.acknowledged)} sessions with {files} files; "
            f"{dict(self.asked)}; {dict(self.ledger.ended)}"
        )

    def told(self, wrong: str) -> str:
        """Return what is wrong with all that led to it."""
        return "\n".join([wrong, "after:", *self.story])
