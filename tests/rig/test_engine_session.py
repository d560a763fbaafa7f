"""Sessions under an engine: stop and resume, pause, cards, and what becomes of them when their client is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from engine_probe import Probe
from small_rig import PLAN, write_profile

from catalog.session_folder import SessionFolder
from rig.client import stop_engine
from rig.engine.devices import Stage
from rig.engine.process import Engine
from rig.errors import CommandRefusedError
from rig.events import ActEnded, Answered, Asked, EngineMode, Motion, RigState, TakeFinished
from rig.profile import RigProfile
from rig.requests import AnswerCard, ArmSession, EndSession, Pause, Proceed, Redo, TakeControl


def plan_yaml(*names: str) -> str:
    rounds = [r for r in PLAN["rounds"] if r["name"] in names]
    document = {**PLAN, "rounds": rounds, "retake_spoiled": False, "guards": {"on_fail": "warn"}}
    return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    path = write_profile(folder)
    path.write_text(path.read_text().replace("light:\n    kind: simulated", "light:\n    kind: operator"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        profile = RigProfile.load(str(path))
        with Engine(profile, data=folder / "data", stage=Stage("test-shelf")) as engine:
            yield engine


@pytest.fixture
def probe(engine):
    with Probe(engine.address, confirms="'off'") as probe:
        probe.make_ready()
        yield probe


def takes_of(state: RigState) -> list[tuple[str, int, str]]:
    takes = SessionFolder(Path(state.session.folder)).takes()
    return [(t.round.name, t.number, t.state) for t in takes]


def begin_and_move(probe: Probe, *rounds: str) -> int:
    since = probe.begin(ArmSession(plan_yaml=plan_yaml(*rounds)))
    probe.await_event(Motion, lambda m: m.velocity_mm_s > 10, since=since)
    return since


def test_a_stopped_session_holds_and_goes_on_in_two_steps(probe, engine):
    since = begin_and_move(probe, "gt")

    stop_engine(engine.address, by="test")

    ended = probe.await_event(ActEnded, since=since)
    assert (ended.ok, ended.code) == (False, "RIG-SES-001")
    held = probe.await_mode(EngineMode.HOLD)
    assert takes_of(held) == [("gt", 1, "void")]
    probe.make_ready()
    again = probe.begin(ArmSession(session=held.session.session))
    assert probe.await_event(ActEnded, lambda e: e.act == "session", since=again).ok
    done = probe.await_mode(EngineMode.READY).session
    assert done.complete
    assert [(r.name, r.state, r.takes) for r in done.rounds] == [("gt", "valid", 2)]


def test_a_pause_waits_for_the_take_and_goes_on_when_asked(probe):
    since = begin_and_move(probe, "gt", "iso6400")

    probe.ask(Pause())

    assert probe.await_event(RigState, lambda s: s.mode is EngineMode.PAUSING, since=since)
    paused = probe.await_event(RigState, lambda s: s.mode is EngineMode.PAUSED, since=since)
    assert [r.state for r in paused.session.rounds] == ["valid", "waiting"]
    assert probe.await_event(RigState, lambda s: s.rail.t_host_s > paused.rail.t_host_s, since=since)
    with pytest.raises(CommandRefusedError, match="no round 'rain'; it has: gt, iso6400"):
        probe.ask(Redo(round="rain"))
    probe.ask(Redo(round="gt"))
    probe.ask(Proceed())
    assert probe.await_event(ActEnded, lambda e: e.act == "session", since=since).ok
    states = takes_of(probe.await_mode(EngineMode.READY))
    assert states == [("gt", 1, "void"), ("gt", 2, "valid"), ("iso6400", 1, "valid")]


def test_a_card_waits_for_the_client_in_control(probe, engine):
    since = probe.begin(ArmSession(plan_yaml=plan_yaml("gt", "dark")))
    asked = probe.await_event(Asked, lambda a: "blocked" in a.card.text, since=since)

    with Probe(engine.address, "observer") as observer:
        seen = observer.await_event(RigState)
        with pytest.raises(CommandRefusedError, match="probe is in control"):
            observer.ask(AnswerCard(card_id=asked.card_id, choice="done"))
    with pytest.raises(CommandRefusedError, match="is not up any more"):
        probe.ask(AnswerCard(card_id=asked.card_id + 1, choice="done"))
    with pytest.raises(CommandRefusedError, match="'maybe' is no choice of this card; there are: done"):
        probe.ask(AnswerCard(card_id=asked.card_id, choice="maybe"))
    probe.ask(AnswerCard(card_id=asked.card_id, choice="done"))

    assert (seen.card_id, seen.card) == (asked.card_id, asked.card)
    answered = probe.await_event(Answered, lambda a: a.card_id == asked.card_id, since=since)
    assert answered.answer.by == "probe"
    assert probe.await_event(ActEnded, lambda e: e.act == "session", since=since).ok


def test_a_stop_ends_a_card(probe, engine):
    since = probe.begin(ArmSession(plan_yaml=plan_yaml("gt", "dark")))
    probe.await_event(Asked, lambda a: "blocked" in a.card.text, since=since)

    stop_engine(engine.address, by="test")

    assert not probe.await_event(ActEnded, lambda e: e.act == "session", since=since).ok
    assert probe.await_event(RigState, lambda s: s.card is None, since=len(probe.events) - 1)


def test_a_session_ends_after_its_take_when_asked(probe):
    since = begin_and_move(probe, "gt", "iso6400")

    probe.ask(EndSession())

    ended = probe.await_event(ActEnded, lambda e: e.act == "session", since=since)
    assert ended.next_step.startswith("rig record --session ")
    assert takes_of(probe.await_mode(EngineMode.READY)) == [("gt", 1, "valid")]


def test_with_its_client_lost_a_session_finishes_its_round(probe, engine):
    with Probe(engine.address, "observer") as observer:
        begin_and_move(probe, "gt", "iso6400")

        probe.client.close()

        assert not observer.await_event(ActEnded, lambda e: e.act == "session").ok
        rested = observer.await_mode(EngineMode.READY)
    assert takes_of(rested) == [("gt", 1, "valid")]
    assert "rig record --session" in next(e for e in observer.events if isinstance(e, ActEnded)).next_step


def test_with_its_client_lost_a_session_may_hold(probe, engine, monkeypatch):
    monkeypatch.setattr(
        engine.work, "profile", engine.work.profile.model_copy(update={"on_client_lost": "hold"})
    )
    with Probe(engine.address, "heir") as heir:
        begin_and_move(probe, "gt")

        probe.client.close()

        heir.await_event(RigState, lambda s: s.mode is EngineMode.PAUSED)
        assert heir.await_event(TakeFinished).state == "void"
        heir.ask(TakeControl())
        heir.ask(Proceed())
        assert heir.await_event(ActEnded, lambda e: e.act == "session").ok


def test_with_its_client_lost_a_session_may_stop(probe, engine, monkeypatch):
    monkeypatch.setattr(
        engine.work, "profile", engine.work.profile.model_copy(update={"on_client_lost": "stop"})
    )
    with Probe(engine.address, "observer") as observer:
        begin_and_move(probe, "gt")

        probe.client.close()

        assert not observer.await_event(ActEnded, lambda e: e.act == "session").ok
        held = observer.await_mode(EngineMode.HOLD)
    assert takes_of(held) == [("gt", 1, "void")]
