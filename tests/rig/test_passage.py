"""What a session does with a rail that is held: it leaves a hold of its own, and nothing that somebody pressed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_grbl_rail import SWEEP, Bench, stepped

from catalog.session_folder import RoundRecord, SessionFolder, SessionRecord
from rig.assembly import Rig
from rig.control import SessionControl
from rig.devices.rail import RailPoll, RailState
from rig.errors import RailLockedError, TakeStoppedError
from rig.events import AnyEvent, Warned
from rig.passage import Passage
from rig.profile import RigProfile
from rig.session import SessionRecorder


class Story:
    """A session's rail, held after a sweep that was broken off."""

    def __init__(self, recorder: SessionRecorder, bench: Bench, folder: Path) -> None:
        profile = RigProfile.load("sim").model_copy(update={"rail": bench.rail.settings})
        rig = Rig(profile, scene="shelf", data=folder, clock=bench.clock)
        rig.rail = bench.rail
        camera: Any = None  # no take is recorded here
        self.bench, self.control = bench, SessionControl()
        self.told: list[AnyEvent] = []
        self.passage = Passage(
            rig, recorder, control=self.control, camera=camera, emit=self.told.append, rest_s=0.5
        )
        self.folder = SessionFolder(recorder.folder)
        bench.rail.stop()

    @property
    def acts(self) -> list[str]:
        return [row.get("act") for row in self.folder.journal().rows if row.kind == "intent"]


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    with held_story(tmp_path) as begun:
        yield begun


@contextmanager
def held_story(folder: Path) -> Iterator[Story]:
    bench = stepped()
    record = SessionRecord(
        session="s1",
        scene="shelf",
        created_utc_us=1,
        source="captured",
        rig="sim",
        simulated=True,
        cameras=("main",),
        boards=(),
        lens=None,
        rounds=(),
    )
    with SessionRecorder.create(folder / "sessions", record, bench.clock) as recorder:
        yield Story(recorder, bench, folder)


def test_a_hold_is_left_and_the_position_kept(story: Story):
    story.passage.make_ready()

    assert story.acts == ["clear_hold"]
    assert story.bench.rail.homed
    assert story.bench.rail.poll().state is RailState.IDLE


def test_an_emergency_stop_while_a_hold_is_being_left_stays(story: Story, monkeypatch: pytest.MonkeyPatch):
    """It is pressed in the worst moment: the rail was just seen to be held and free of faults."""
    rail = story.bench.rail
    look = rail.poll

    def press_after_looking() -> RailPoll:
        reading = look()
        rail.emergency_stop()
        return reading

    with monkeypatch.context() as patch:
        patch.setattr(rail, "poll", press_after_looking)
        with pytest.raises(RailLockedError, match="emergency stop"):
            story.passage.make_ready()

    assert "emergency stop" in rail.poll().fault
    assert not rail.homed
    assert "home" not in story.acts


def test_an_emergency_stop_while_the_controller_restarts_from_a_hold_stays(
    story: Story, monkeypatch: pytest.MonkeyPatch
):
    rail = story.bench.rail
    wire = story.bench.wire
    assert wire is not None
    send = wire.write_realtime
    pressed = []

    def press_at_the_reset(data: bytes) -> None:
        send(data)
        if data == b"\x18" and not pressed:
            pressed.append(data)
            rail.emergency_stop()

    monkeypatch.setattr(wire, "write_realtime", press_at_the_reset)

    with pytest.raises(RailLockedError, match="emergency stop"):
        story.passage.make_ready()

    assert pressed
    assert "emergency stop" in rail.poll().fault
    assert story.acts == ["clear_hold"]


def test_an_operators_stop_is_left_as_it_is(story: Story):
    story.control.stop.set()

    with pytest.raises(TakeStoppedError, match="by the operator"):
        story.passage.make_ready()

    assert story.acts == []
    assert story.bench.rail.poll().state is RailState.HOLD


def sweep_with_a_pause(story: Story, monkeypatch: pytest.MonkeyPatch, pause_s: float) -> list[str]:
    """Sweep while this computer stands still once; returns the warnings."""
    round_ = RoundRecord(number=1, name="gt", role="gt", sweep=SWEEP)
    story.passage.make_ready()
    story.passage.approach(round_)
    look, looks = story.bench.rail.poll, []

    def stand_still_once() -> RailPoll:
        looks.append(look())
        if len(looks) == 20:
            story.bench.clock.sleep(pause_s)
        return looks[-1]

    monkeypatch.setattr(story.bench.rail, "poll", stand_still_once)
    story.passage.sweep(round_, 1)
    return [event.text for event in story.told if isinstance(event, Warned)]


def test_a_computer_that_stands_still_in_a_sweep_is_told_of(story: Story, monkeypatch: pytest.MonkeyPatch):
    """The sweep of 140 mm at 40 mm/s goes on for 1.7 s meanwhile, as one that is short of nothing."""
    warnings = sweep_with_a_pause(story, monkeypatch, 1.7)

    assert len(warnings) == 1
    assert warnings[0].startswith("nobody looked at the rail for 1.")
    rows = story.folder.journal().rows
    assert [row.get("text") for row in rows if row.kind == "warning"] == warnings


def test_a_computer_that_is_merely_busy_is_not_told_of(story: Story, monkeypatch: pytest.MonkeyPatch):
    assert sweep_with_a_pause(story, monkeypatch, 0.5) == []


def test_an_emergency_stop_pressed_while_another_is_cleared_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
):
    bench = stepped()
    bench.rail.emergency_stop()
    assert bench.wire is not None
    send = bench.wire.write_realtime
    pressed = []

    def press_at_the_reset(data: bytes) -> None:
        send(data)
        if data == b"\x18" and not pressed:
            pressed.append(data)
            bench.rail.emergency_stop()

    with monkeypatch.context() as patch:
        patch.setattr(bench.wire, "write_realtime", press_at_the_reset)
        bench.rail.clear_fault()

    assert pressed
    assert "emergency stop" in bench.rail.poll().fault
    bench.rail.clear_fault()
    assert bench.rail.poll().fault == ""
