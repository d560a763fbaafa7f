"""The emergency stop, pressed in every state of the engine while a client, as a UI, hangs.

Judged by the bytes on the wire: hold and reset go out at once; after them no line that could move anything does, until
somebody unlocks, homes and takes both steps. Eleven presses; with CLEANPLATE_NIGHTLY=1 a thousand, half of them plain
stops.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from engine_probe import PATIENCE_S, Probe
from small_rig import PLAN, write_profile

from rig.client import StopReceipt, stop_engine
from rig.devices.wire import SerialWire
from rig.engine.devices import Stage
from rig.engine.process import Engine
from rig.errors import CommandRefusedError, EngineError
from rig.events import ActEnded, AnyEvent, Asked, EngineMode, Motion, RigState, Step
from rig.profile import RigProfile
from rig.requests import ArmHome, ArmSession, ClearFault, Go, Jog, Pause

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
ROUNDS = range(91 if NIGHTLY else 1)
HOLD, RESET = b"!", b"\x18"
MOVES = re.compile(rb"\$H|\$J|G[01]")
"""How lines begin that move the carriage: homing, jogging, motions."""

HANGING_UI = """
import sys, time
from pathlib import Path
from rig.client import EngineClient
from rig.requests import ArmSession, Go, WatchPreview
from rig.runtime import EngineAddress
client = EngineClient(EngineAddress(Path(sys.argv[1]), sys.argv[2]), name="ui", control=bool(sys.argv[3:]))
client.request(WatchPreview(on=True, rate_hz=10))
if sys.argv[3:]:
    client.request(Go(token=client.request(ArmSession(plan_yaml=sys.argv[3])).token))
print("attached", flush=True)
time.sleep(600)
"""


class Tap:
    """Remembers what a process writes to serial lines, with the machine's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: list[tuple[float, bytes]] = []
        realtime, line = SerialWire.write_realtime, SerialWire.write_line

        def write_realtime(wire: SerialWire, data: bytes) -> None:
            realtime(wire, data)
            self.written.append((time.monotonic(), data))

        def write_line(wire: SerialWire, text: str) -> None:
            self.written.append((time.monotonic(), text.encode()))
            line(wire, text)

        monkeypatch.setattr(SerialWire, "write_realtime", write_realtime)
        monkeypatch.setattr(SerialWire, "write_line", write_line)

    def moves_since(self, mark: int) -> list[bytes]:
        """Return the lines that move something, from a position in `written` on."""
        return [data for _, data in self.written[mark:] if MOVES.match(data)]


def plan_yaml(*names: str) -> str:
    rounds = [r for r in PLAN["rounds"] if r["name"] in names]
    document = {**PLAN, "rounds": rounds, "retake_spoiled": False, "guards": {"on_fail": "warn"}}
    return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def tap() -> Iterator[Tap]:
    with pytest.MonkeyPatch.context() as patch:
        yield Tap(patch)


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> Iterator[RigProfile]:
    folder = tmp_path_factory.mktemp("estop")
    path = write_profile(folder)
    path.write_text(path.read_text().replace("light:\n    kind: simulated", "light:\n    kind: operator"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        yield RigProfile.load(str(path))


@contextlib.contextmanager
def ui(engine: Engine, *plan: str) -> Iterator[subprocess.Popen[str]]:
    """A client in a process of its own that watches live view, and begins a session where it gets a plan."""
    where = (str(engine.address.folder), engine.address.name)
    command = [sys.executable, "-P", "-c", HANGING_UI, *where, *plan]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "attached\n"
            yield child
        finally:
            child.kill()


@pytest.fixture(scope="module")
def engine(profile, tap, tmp_path_factory) -> Iterator[Engine]:
    """An engine one client of which hangs: it is stopped by the system."""
    data = tmp_path_factory.mktemp("data")
    with Engine(profile, data=data, stage=Stage("test-shelf")) as engine, ui(engine) as hanging:
        hanging.send_signal(signal.SIGSTOP)
        yield engine


def ready(probe: Probe) -> None:
    """Nothing happens."""


def armed(probe: Probe) -> None:
    probe.arm(ArmHome())


def homing(probe: Probe) -> None:
    since = probe.begin(ArmHome())
    probe.await_event(RigState, lambda s: s.mode is EngineMode.HOMING, since=since)


def jogging(probe: Probe) -> None:
    since = len(probe.events)
    probe.ask(Jog(distance_mm=300, velocity_mm_s=20))
    probe.await_event(RigState, lambda s: bool(s.rail) and s.rail.state == "moving", since=since)


def approaching(probe: Probe) -> None:
    in_session(probe, Step, lambda e: e.text == "moving to the start")


def recording(probe: Probe) -> None:
    in_session(probe, Motion, lambda e: e.velocity_mm_s > 10)


def transferring(probe: Probe) -> None:
    in_session(probe, Step, lambda e: e.text.startswith("waiting for the camera"))


def paused(probe: Probe) -> None:
    since = in_session(probe, Step, lambda e: e.text == "moving to the start")
    probe.ask(Pause())
    probe.ask(Pause())
    probe.await_event(RigState, lambda s: s.mode is EngineMode.PAUSED, since=since)


def card_waiting(probe: Probe) -> None:
    in_session(probe, Asked, lambda e: "blocked" in e.card.text, "dark", "gt")


def in_session(probe: Probe, kind: type, fits: Callable[[AnyEvent], bool], *rounds: str) -> int:
    """Begin a session and wait for an event; again while the camera still closes the movie of the press before."""
    while True:
        since = probe.begin(ArmSession(plan_yaml=plan_yaml(*(rounds or ("gt",)))))
        event = probe.await_event(
            (kind, ActEnded), lambda e: is_session(e) if isinstance(e, ActEnded) else fits(e), since=since
        )
        if not isinstance(event, ActEnded):
            return since
        assert "a movie cannot be recorded" in event.message
        probe.make_ready()


def is_session(ended: ActEnded) -> bool:
    """Tell whether it was one that ended: the end of a homing is told after the state that it led to."""
    return ended.act == "session"


STATES = (ready, armed, homing, jogging, approaching, recording, transferring, paused, card_waiting)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("state", STATES, ids=lambda s: s.__name__)
@pytest.mark.parametrize("number", ROUNDS)
def test_a_press_in_any_state_is_on_the_wire_and_nothing_moves_after_it(engine, tap, state, number):
    emergency = number % 2 == 0
    with Probe(engine.address, confirms="'off'") as probe:
        probe.make_ready()
        state(probe)

        mark = len(tap.written)
        receipt = stop_engine(engine.address, emergency=emergency, by="relay")

        require_bytes(tap, mark, receipt, emergency=emergency)
        await_rest(engine, probe)
        after = len(tap.written)
        assert_locked(probe) if emergency else probe.await_mode(EngineMode.HOLD, EngineMode.LOCKED)
        assert tap.moves_since(after) == []
        probe.ask(ClearFault())
        state_after = probe.await_mode(EngineMode.CONNECTED, EngineMode.READY)
        assert state_after.mode is EngineMode.CONNECTED or not emergency
        assert tap.moves_since(after) == []


@pytest.mark.timeout(240)
def test_a_press_works_while_the_client_in_control_hangs(engine, tap):
    with Probe(engine.address, "second", control=False) as probe:
        probe.await_event(RigState, lambda s: s.controller is None and s.mode is not EngineMode.OFFLINE)
        with ui(engine, plan_yaml("gt")) as hanging:
            hanging.send_signal(signal.SIGSTOP)
            moving = probe.await_event(Motion, lambda m: m.velocity_mm_s > 10)
            mark = len(tap.written)

            receipt = stop_engine(engine.address, emergency=True, by="relay")

            require_bytes(tap, mark, receipt, emergency=True)
            await_rest(engine, probe)
            assert probe.await_mode(EngineMode.LOCKED).controller == "ui"
            assert moving.round == "gt"
            after = len(tap.written)
        probe.await_event(RigState, lambda s: s.controller is None)
        assert tap.moves_since(after) == []


@pytest.mark.timeout(240)
def test_presses_while_the_engine_starts_and_ends_let_nothing_move(profile, tap, tmp_path):
    mark = len(tap.written)
    other = profile.model_copy(update={"name": "other"})
    engine = Engine(other, data=tmp_path, stage=Stage("test-shelf"))
    with engine:
        presses = 0
        while engine.work.mode is EngineMode.OFFLINE:
            stop_engine(engine.address, emergency=presses % 2 == 0, by="relay")
            presses += 1
            time.sleep(0.05)  # so that they are spread over the start, not to wait for anything
        assert presses > 1
        assert not engine.work.devices.homed
        ending = threading.Thread(target=engine.__exit__, args=(None, None, None))
        ending.start()
        with contextlib.suppress(EngineError):  # until the post is closed
            while True:
                stop_engine(engine.address, emergency=True, by="relay")
        ending.join()

    assert tap.moves_since(mark) == []


def require_bytes(tap: Tap, mark: int, receipt: StopReceipt, *, emergency: bool) -> None:
    """The bytes of the press went out before its receipt, reset after hold."""
    pressed = [
        data for t_s, data in tap.written[mark:] if t_s <= receipt.t_monotonic_s and data.startswith(HOLD)
    ]
    assert receipt.trouble == ""
    assert pressed
    assert not emergency or HOLD + RESET in pressed


def await_rest(engine: Engine, probe: Probe) -> None:
    """Wait until what was being done has ended; what that still writes comes from before it noticed."""
    deadline_s = time.monotonic() + PATIENCE_S
    while engine.work.act is not None:
        assert time.monotonic() < deadline_s
        probe.await_event(RigState, since=len(probe.events))


def assert_locked(probe: Probe) -> None:
    assert "emergency stop" in probe.await_mode(EngineMode.LOCKED).why
    for command in (
        ArmHome(),
        ArmSession(plan_yaml=plan_yaml("gt")),
        Jog(distance_mm=1, velocity_mm_s=5),
        Go(token="0" * 16),
    ):
        with pytest.raises(CommandRefusedError):
            probe.ask(command)
