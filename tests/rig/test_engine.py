"""One engine on the simulated rig: control, two steps, stopping in every mode, jogging, previews."""

from __future__ import annotations

import json

import pytest
from engine_probe import Probe
from small_rig import PLAN, run_rig, write_profile

import rig.engine.commands
from rig.client import stop_engine
from rig.engine.devices import Stage
from rig.engine.process import Engine
from rig.errors import CommandRefusedError
from rig.events import ActEnded, ControlAsked, EngineMode, Preview, RigState, Stopped
from rig.profile import RigProfile
from rig.requests import ArmHome, ArmSession, ClearFault, Go, HandOver, Jog, Pause, TakeControl, WatchPreview

PLAN_YAML = str(PLAN)
"""A dictionary's text is YAML, too."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        profile = RigProfile.load(str(write_profile(folder, width=640, height=384)))
        with Engine(profile, data=folder / "data", stage=Stage("test-shelf")) as engine:
            yield engine


@pytest.fixture
def probe(engine):
    with Probe(engine.address) as probe:
        probe.make_ready()
        yield probe


def position_mm(probe: Probe) -> float:
    position = probe.state.rail.position_mm
    assert position is not None
    return position


def test_homing_takes_two_steps_and_makes_the_position_known(probe, engine):
    stop_engine(engine.address, emergency=True, by="test")
    probe.await_mode(EngineMode.LOCKED)
    probe.ask(ClearFault())
    unhomed = probe.await_mode(EngineMode.CONNECTED)

    since = probe.begin(ArmHome())

    assert unhomed.rail.position_mm is None
    assert probe.await_event(RigState, lambda s: s.mode is EngineMode.HOMING, since=since)
    assert probe.await_event(ActEnded, lambda e: e.act == "home", since=since).ok
    assert probe.await_mode(EngineMode.READY).rail.homed


def test_nothing_moves_without_the_first_step(probe):
    with pytest.raises(CommandRefusedError, match="nothing is armed") as refused:
        probe.ask(Go(token="0" * 16))

    assert refused.value.code == "RIG-SAFE-002"


def test_what_was_armed_is_armed_once(probe):
    token = probe.arm(ArmHome()).token
    probe.ask(Go(token=token))
    probe.await_mode(EngineMode.READY)

    with pytest.raises(CommandRefusedError, match="nothing is armed"):
        probe.ask(Go(token=token))


def test_arming_expires(probe, monkeypatch):
    monkeypatch.setattr(rig.engine.commands, "ARMED_FOR_S", 0.05)
    since = len(probe.events)
    token = probe.arm(ArmHome()).token
    probe.await_event(RigState, lambda s: s.mode is EngineMode.READY, since=since)
    probe.await_mode(EngineMode.READY)

    with pytest.raises(CommandRefusedError, match="longer than 10 s ago"):
        probe.ask(Go(token=token))


def test_a_stop_disarms(probe, engine):
    token = probe.arm(ArmHome()).token

    stop_engine(engine.address, by="test")

    probe.await_mode(EngineMode.HOLD)
    with pytest.raises(CommandRefusedError):
        probe.ask(Go(token=token))


def test_an_observer_may_stop_but_move_nothing(probe, engine):
    with Probe(engine.address, "observer", control=True) as observer:
        for command in (
            ArmHome(),
            ArmSession(plan_yaml=PLAN_YAML),
            Jog(distance_mm=1, velocity_mm_s=5),
            Pause(),
        ):
            with pytest.raises(CommandRefusedError, match="probe is in control"):
                observer.ask(command)
        receipt = stop_engine(engine.address, by="observer")
        stopped = observer.await_event(Stopped)

    assert (stopped.by, stopped.emergency) == ("observer", False)
    assert receipt.trouble == ""
    assert probe.await_mode(EngineMode.HOLD).controller == "probe"


def test_control_is_asked_for_and_handed_over(probe, engine):
    with Probe(engine.address, "heir") as heir:
        heir.ask(TakeControl())
        asked = probe.await_event(ControlAsked)

        probe.ask(HandOver(client_id=asked.client_id))

        assert asked.name == "heir"
        assert heir.await_event(RigState, lambda s: s.controller == "heir").clients == 2
        with pytest.raises(CommandRefusedError, match="heir is in control"):
            probe.ask(ArmHome())
        heir.ask(HandOver(client_id=probe.client.attached.client_id))


def test_control_is_free_when_its_holder_has_gone(probe, engine):
    with Probe(engine.address, "heir") as heir:
        probe.client.close()
        heir.await_event(RigState, lambda s: s.controller is None)

        heir.ask(TakeControl())

        assert heir.arm(ArmHome()).act == "home"


def test_stop_at_rest_holds_and_keeps_the_position(probe, engine):
    before_mm = position_mm(probe)

    stop_engine(engine.address, by="test")

    held = probe.await_mode(EngineMode.HOLD)
    assert "clear the hold" in held.why
    with pytest.raises(CommandRefusedError, match="the rig is hold"):
        probe.ask(ArmHome())
    probe.ask(ClearFault())
    assert probe.await_mode(EngineMode.READY).rail.position_mm == before_mm


def test_stop_ends_a_homing(probe, engine):
    engine.work.devices.do(lambda rig: rig.rail.move_to(350.0), moves=True).result()
    since = probe.begin(ArmHome())
    probe.await_event(RigState, lambda s: s.mode is EngineMode.HOMING, since=since)

    stop_engine(engine.address, by="test")

    assert not probe.await_event(ActEnded, lambda e: e.act == "home", since=since).ok
    assert probe.await_mode(EngineMode.LOCKED, EngineMode.CONNECTED).rail.position_mm is None


def test_an_emergency_stop_locks_until_cleared_and_homed(probe, engine):
    stop_engine(engine.address, emergency=True, by="test")

    locked = probe.await_mode(EngineMode.LOCKED)
    assert "emergency stop" in locked.why
    assert "position unknown since" in locked.why
    assert "home the rail" in locked.why
    for command in (ArmHome(), ArmSession(plan_yaml=PLAN_YAML), Jog(distance_mm=1, velocity_mm_s=5)):
        with pytest.raises(CommandRefusedError, match="nothing begins to move now"):
            probe.ask(command)
    probe.ask(ClearFault())
    assert probe.await_mode(EngineMode.CONNECTED).rail.position_mm is None


def test_stopping_twice_is_stopping_once(probe, engine):
    for emergency in (False, False, True, True, False):
        assert stop_engine(engine.address, emergency=emergency, by="test").emergency is emergency

    assert probe.await_mode(EngineMode.LOCKED).rail is not None


def test_a_jog_goes_as_far_as_it_was_asked_to(probe):
    start_mm = position_mm(probe)
    since = len(probe.events)

    probe.ask(Jog(distance_mm=4, velocity_mm_s=40))

    assert probe.await_event(ActEnded, since=since).ok
    there = probe.await_event(RigState, lambda s: s.rail.position_mm != start_mm, since=since)
    assert probe.await_mode(EngineMode.READY).rail.position_mm == pytest.approx(start_mm + 4, abs=0.02)
    assert there.session is None


def test_a_jog_whose_permit_is_not_renewed_ends_early(probe):
    """300 mm at 20 mm/s last 15 s of session time; a permit of 250 ms lasts 2 s of it, at eight times the speed."""
    since = len(probe.events)
    start_mm = position_mm(probe)

    probe.ask(Jog(distance_mm=300, velocity_mm_s=20))

    probe.await_event(ActEnded, lambda e: e.act == "jog", since=since)
    rested = probe.await_mode(EngineMode.READY)
    assert start_mm < rested.rail.position_mm < start_mm + 250


def test_a_jog_ends_with_its_client(probe, engine):
    with Probe(engine.address, "observer", control=False) as observer:
        probe.ask(Jog(distance_mm=300, velocity_mm_s=20))

        probe.client.close()

        observer.await_event(ActEnded, lambda e: e.act == "jog")
        assert observer.await_mode(EngineMode.READY).rail.position_mm < 250


def test_a_late_renewal_begins_no_second_jog(probe):
    start_mm = position_mm(probe)
    since = len(probe.events)
    jog = Jog(distance_mm=2, velocity_mm_s=40, press=7)
    probe.ask(jog)
    probe.await_event(ActEnded, since=since)

    probe.ask(jog)

    assert probe.await_mode(EngineMode.READY).rail.position_mm == pytest.approx(start_mm + 2, abs=0.02)


def test_a_jog_out_of_the_travel_is_refused_by_the_envelope(probe):
    since = len(probe.events)

    probe.ask(Jog(distance_mm=1000, velocity_mm_s=20))

    ended = probe.await_event(ActEnded, lambda e: e.act == "jog", since=since)
    assert (ended.ok, ended.code) == (False, "RIG-SAFE-001")


def test_a_plan_with_a_mistake_is_refused_with_its_place(probe):
    with pytest.raises(
        CommandRefusedError, match=r"^plan:2:1: unknown key 'sceen'; did you mean 'scene'"
    ) as refused:
        probe.ask(ArmSession(plan_yaml="schema: 1\nsceen: x\n"))

    assert (refused.value.code, refused.value.exit_code) == ("CP-DOC-001", 2)


def test_a_plan_out_of_the_envelope_is_refused(probe):
    plan = {**PLAN, "sweep": {"start_mm": 30, "end_mm": 60, "velocity_mm_s": 500}}

    with pytest.raises(CommandRefusedError) as refused:
        probe.ask(ArmSession(plan_yaml=str(plan)))

    assert refused.value.code == "RIG-SAFE-001"


def test_a_session_is_armed_by_a_plan_or_a_name_but_not_both(probe):
    for command in (ArmSession(), ArmSession(plan_yaml=PLAN_YAML, session="x")):
        with pytest.raises(CommandRefusedError, match="one of both"):
            probe.ask(command)


def test_a_session_needs_its_commands_while_it_runs_only(probe):
    with pytest.raises(CommandRefusedError, match="no session runs"):
        probe.ask(Pause())


def test_live_view_comes_with_its_figures_and_ends_on_request(probe):
    since = probe.begin(ArmHome())  # where the boards are in view
    probe.await_event(ActEnded, lambda e: e.act == "home", since=since)
    probe.ask(WatchPreview(on=True, rate_hz=4))

    seen = probe.await_event(Preview, lambda p: p.markers_seen > 0)

    probe.ask(WatchPreview(on=False))
    assert (seen.camera, seen.width) == ("main", 480)
    assert sum(seen.histogram) == seen.width * seen.height
    assert 0 <= seen.clipped_percent <= 100
    assert seen.sharpness > 0


def test_a_late_client_learns_everything_from_one_snapshot(probe, engine):
    with Probe(engine.address, "late", control=False) as late:
        state = late.await_event(RigState)

    assert (state.rig, state.simulated, state.mode) == ("sim", True, EngineMode.READY)
    assert state.travel_mm == (0, 400)
    assert state.cameras["main"].connected
    assert state.disk_free_gb > 0


def test_home_and_jog_go_through_the_engine_that_runs(engine, tmp_path):
    with Probe(engine.address) as probe:
        probe.make_ready()
    profile = write_profile(tmp_path)

    homed = run_rig("home", "--profile", profile, "--json")
    jogged = run_rig("jog", "9", "--speed", "20", "--profile", profile, "--json")
    back = run_rig("jog", "-3", "--speed", "20", "--profile", profile, "--json")
    refused = run_rig("jog", "500", "--speed", "20", "--profile", profile)

    assert json.loads(homed.stdout)["position_mm"] == 2.0
    assert json.loads(jogged.stdout)["position_mm"] == 11.0
    assert json.loads(back.stdout)["position_mm"] == 8.0
    assert engine.work.devices.last_poll.position_mm == 8.0
    assert refused.returncode == 4
    assert refused.stderr.startswith("error RIG-SAFE-001: a motion to 508 mm leaves the travel")


def test_stop_reaches_the_engine_that_runs(probe):
    done = run_rig("stop", "--emergency", "--json")

    (stopped,) = json.loads(done.stdout)["stopped"]
    assert (stopped["emergency"], stopped["trouble"]) == (True, "")
    assert probe.await_mode(EngineMode.LOCKED).why
