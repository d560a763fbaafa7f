"""Devices that do not answer while they are opened: neither a stop nor the end of the engine waits for them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_probe import PATIENCE_S
from small_rig import PLAN, rig_command, write_plan, write_profile

from rig.assembly import Rig, clock_of
from rig.devices.rail import RailState
from rig.engine.devices import OPENING, DeviceOwner, Stage
from rig.engine.opening import Opening
from rig.errors import DeviceError, MotionStoppedError, UnforeseenError
from rig.profile import RigProfile

LONGEST_S = 40.0
"""Less than the 60 s that opening a camera may take, and much for a busy machine."""
FROZEN = {"camera_faults": {"freezes_at": "open"}}


def owner_of(folder: Path, **simulation: object) -> DeviceOwner:
    profile = RigProfile.load(str(write_profile(folder, **simulation)))
    return DeviceOwner(
        profile, data=folder, stage=Stage("test-shelf"), clock=clock_of(profile), ask=lambda text: None
    )


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[DeviceOwner]:
    """An owner that opens a rig whose camera has hung itself up."""
    owner = owner_of(tmp_path, **FROZEN)
    owner.start()
    yield owner
    owner.close()


def opened_rail(opening: Opening) -> None:
    """Wait until the camera's turn has come."""
    over = threading.Event()
    while not opening._rig.__dict__.get("rail") and not over.wait(0.01):
        assert not opening.wait(0.0)


@pytest.mark.timeout(120)
def test_a_stop_while_devices_are_opened_ends_what_waits_and_nothing_else(frozen: DeviceOwner):
    waiting = frozen.do(lambda rig: None, moves=True)

    frozen.stop_now(emergency=False)

    with pytest.raises(MotionStoppedError, match="stopped"):
        waiting.result(LONGEST_S)
    assert frozen.trouble == OPENING


@pytest.mark.timeout(120)
def test_the_end_of_the_engine_interrupts_a_camera_that_does_not_answer(frozen: DeviceOwner):
    """It would go on for a minute; what waited for it is told that the engine ends."""
    waiting = frozen.do(lambda rig: None, moves=False)
    while (opening := frozen._opening) is None:
        threading.Event().wait(0.01)
    opened_rail(opening)

    frozen.close()

    with pytest.raises(DeviceError, match="the engine is ending"):
        waiting.result(0)
    assert opening.wait(LONGEST_S)
    with pytest.raises(DeviceError, match=r"ended during 'open'|given up"):
        opening.result()


@pytest.mark.timeout(120)
def test_a_rig_that_is_given_up_once_it_is_open_is_closed_again(tmp_path: Path):
    profile = RigProfile.load(str(write_profile(tmp_path)))
    opening = Opening(Rig(profile, scene="test-shelf", data=tmp_path))
    assert opening.wait(LONGEST_S)
    rig = opening.result()

    opening.give_up()

    with pytest.raises(DeviceError, match="not open"):
        rig.rail.poll()


@pytest.mark.timeout(120)
def test_what_nobody_foresaw_is_told_and_the_next_act_opens_anew(tmp_path: Path, monkeypatch):
    """The simulator's program is not there for a moment, as when an update replaces it."""
    owner = owner_of(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing-here"))
    owner.start()
    try:
        with pytest.raises(UnforeseenError, match="opening the devices failed: FileNotFoundError"):
            owner.do(lambda rig: None, moves=False).result(LONGEST_S)
        monkeypatch.undo()

        identity = owner.do(lambda rig: rig.rail.identity, moves=False).result(LONGEST_S)
    finally:
        owner.close()

    assert identity.startswith("Grbl")


@pytest.mark.timeout(120)
def test_what_nobody_foresaw_in_an_act_stops_the_carriage_and_ends_with_a_code(tmp_path: Path):
    def wreck(rig: Rig) -> None:
        rig.rail.home(timeout_s=60.0)
        raise ZeroDivisionError("a fault of this program")

    def look_and_fail() -> None:
        raise ZeroDivisionError("another one, when the act is done")

    owner = owner_of(tmp_path)
    owner.start()
    try:
        with pytest.raises(UnforeseenError, match="ZeroDivisionError: a fault") as caught:
            owner.do(wreck, moves=True).result(LONGEST_S)
        reading = owner.last_poll
        owner.do(lambda rig: setattr(rig.rail, "poll", look_and_fail), moves=False).result(LONGEST_S)
        trouble = owner.trouble
    finally:
        owner.close()

    assert caught.value.code == "RIG-ENG-003"
    assert "looking at the rail failed: ZeroDivisionError" in trouble
    assert "next: clear the fault and try again" in trouble
    assert reading is not None
    assert reading.state is RailState.HOLD


@pytest.mark.timeout(120)
def test_a_signal_ends_a_recording_whose_camera_does_not_open(tmp_path: Path):
    plan, profile = write_plan(tmp_path, rounds=PLAN["rounds"][:1]), write_profile(tmp_path, **FROZEN)
    command = rig_command("record", plan, "--profile", profile, "--data", tmp_path / "data")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        _await_owner_of_camera(child.pid)

        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=LONGEST_S)

    assert child.returncode == 6
    assert "kept: nothing was recorded; next: give the same command again" in said
    assert "Traceback" not in said


def _await_owner_of_camera(pid: int) -> None:
    """Wait until a process has started the one that owns its camera."""
    over, waited_s = threading.Event(), 0.0
    while not any(b"gphoto2_worker" in command for command in _children(pid)):
        assert waited_s < PATIENCE_S
        over.wait(0.02)
        waited_s += 0.02


def _children(pid: int) -> Iterator[bytes]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            try:
                yield Path(f"/proc/{child}/cmdline").read_bytes()
            except OSError:  # ended meanwhile
                continue
