"""The engine's sockets: malformed lines, slow clients, stale names, races for a rig, other users."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_rig import run_rig, write_profile

import rig.engine.clients
from rig.client import EngineClient, StopLine, start_engine, stop_engine
from rig.engine.clients import MAX_LINE_BYTES, ClientDesk
from rig.engine.devices import Stage
from rig.engine.outbox import MAX_WAITING, Outbox
from rig.engine.stop import StopPost
from rig.engine.work import RigWork
from rig.errors import EngineError
from rig.events import EVENTS, Done, Motion, Refused, Saved, TakeFinished
from rig.profile import RigProfile
from rig.requests import Attach, Shutdown
from rig.runtime import EngineAddress, connect_to, running_engines

EXAMPLES = 2000 * (10 if os.environ.get("CLEANPLATE_NIGHTLY") else 1)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A runtime folder with a name far longer than a socket's may be."""
    long = tmp_path / ("a-long-name-" * 9)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    (long / "cleanplate").mkdir(mode=0o700)
    return long / "cleanplate"


class Commands:
    """Carries out nothing, and counts."""

    def __init__(self) -> None:
        self.obeyed: list[str] = []

    def obey(self, link, command) -> None:
        self.obeyed.append(command.command)
        if isinstance(command, Attach):
            link.attached = True


@pytest.fixture
def desk(folder):
    commands = Commands()
    desk = ClientDesk(obey=commands.obey, gone=lambda link: None, now_s=lambda: 1.5)
    desk.open(EngineAddress(folder, "x"))
    desk.commands = commands
    yield desk
    desk.close()


class Talk:
    """A raw conversation with the desk."""

    def __init__(self, folder: Path) -> None:
        self._stream = connect_to(socket.SOCK_STREAM, EngineAddress(folder, "x").socket_path)
        self._stream.settimeout(20)
        self._answers = self._stream.makefile("rb")

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: object) -> None:
        self._answers.close()
        self._stream.close()

    def send(self, data: bytes) -> None:
        self._stream.sendall(data)

    def hear(self) -> dict:
        return json.loads(self._answers.readline())


ATTACH = b'{"command":"attach","name":"t","command_id":1}\n'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    ["attach", "go", "jog", "arm_home", "shutdown", "answer_card", "watch_preview", "stop", ""]
)
LINES = st.one_of(
    st.binary(max_size=60).filter(lambda b: b"\n" not in b),
    JSON.map(lambda v: json.dumps(v).encode()),
    st.fixed_dictionaries(
        {"command": KNOWN},
        optional={
            "command_id": JSON,
            "name": JSON,
            "token": JSON,
            "distance_mm": JSON,
            "on": JSON,
            "card_id": JSON,
        },
    ).map(lambda v: json.dumps(v).encode()),
)


def test_whatever_is_sent_each_line_gets_one_answer(desk, folder):
    """Thousands of lines on one conversation: none is answered twice or not at all, and none ends it."""
    with Talk(folder) as talk:
        talk.send(ATTACH)
        assert talk.hear()["event"] == "done"
        throw_at(talk)
        talk.send(b'{"command":"arm_home","command_id":77}\n')
        assert talk.hear() == {"event": "done", "t_host_s": 1.5, "command_id": 77}


def throw_at(talk: Talk) -> None:
    @settings(
        max_examples=EXAMPLES // 20, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.lists(LINES, min_size=20, max_size=20))
    def each_is_answered(lines: list[bytes]) -> None:
        talk.send(b"".join(line + b"\n" for line in lines))
        for _ in lines:
            assert isinstance(EVENTS.validate_python(talk.hear()), (Done, Refused))

    each_is_answered()


def test_a_line_without_an_end_is_refused_and_skipped(desk, folder):
    with Talk(folder) as talk:
        talk.send(b"x" * (MAX_LINE_BYTES + 10) + b"\n" + ATTACH)

        assert "is not read" in talk.hear()["message"]
        assert talk.hear()["event"] == "done"


def test_nothing_is_obeyed_before_attach(desk, folder):
    with Talk(folder) as talk:
        talk.send(b'{"command":"arm_home","command_id":3}\n')

        assert talk.hear()["message"] == "a client must attach before it asks for anything"
    assert desk.commands.obeyed == []


def saved(number: int) -> Saved:
    return Saved(t_host_s=0, round="gt", take=1, path=f"{number}", size_bytes=1, sha256="0" * 64)


def motion(number: int) -> Motion:
    return Motion(t_host_s=number, round="gt", position_mm=number, velocity_mm_s=0)


def test_of_readings_only_the_newest_waits_and_of_files_every_one():
    box = Outbox()
    for number in range(1000):
        box.put(saved(number), b"s%d\n" % number)
        box.put(motion(number), b"m%d\n" % number)

    lines = box.take().splitlines()

    assert lines == [*(b"s%d" % n for n in range(1000)), b"m999"]


def test_a_box_overflows_rather_than_grow():
    box = Outbox()
    for number in range(MAX_WAITING):
        box.put(saved(number), b"")
    assert not box.overflowing

    box.put(saved(0), b"")

    assert box.overflowing


def test_a_client_that_does_not_read_is_given_up_and_delays_nobody(desk, folder, monkeypatch):
    monkeypatch.setattr(rig.engine.clients, "SEND_TIMEOUT_S", 0.2)
    with Talk(folder) as asleep, Talk(folder) as awake:
        for talk in (asleep, awake):
            talk.send(ATTACH)
        assert awake.hear()["event"] == "done"
        numbers: list[int] = []
        reader = threading.Thread(target=lambda: numbers.extend(read_saved(awake)))
        reader.start()

        for number in range(6000):  # some 600 kB, more than a socket takes
            desk.tell_all(saved(number))
        reader.join(timeout=30)

        assert numbers == list(range(6000))
        while len(desk.attached) > 1:
            threading.Event().wait(0.02)


def read_saved(talk: Talk) -> list[int]:
    found: list[int] = []
    while len(found) < 6000:
        event = talk.hear()
        if event["event"] == "saved":
            found.append(int(event["path"]))
    return found


class Pressed:
    """Counts stops and has trouble with some."""

    def __init__(self) -> None:
        self.stops: list[bool] = []

    def stop_now(self, *, emergency: bool) -> str:
        self.stops.append(emergency)
        if len(self.stops) == 2:
            raise RuntimeError("something nobody thought of")
        return ""

    def note_stop(self, *, emergency: bool, by: str) -> None:
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_stop_post_outlives_any_trouble(folder):
    pressed, address = Pressed(), EngineAddress(folder, "x")
    post = StopPost(address, pressed)

    stop_engine(address, by="a")
    line = StopLine(address, by="b")
    line.press()  # the one with trouble
    for noise in (b"", b"stop-not", b"\xff" * 200, b"halt"):
        line._socket.send(noise)
    receipt = stop_engine(address, emergency=True, by="c")

    line.close()
    post.close()
    assert receipt.emergency
    assert pressed.stops == [False, False, True]


def test_no_full_garbage_collection_holds_a_stop_up_while_the_post_listens(folder):
    """Enough is allocated and kept for three full collections by the usual thresholds."""
    before = gc.get_threshold()
    passes: list[int] = []
    many = 3 * len(gc.get_objects())  # the post freezes them

    def note(phase: str, details: dict[str, int]) -> None:
        passes.append(details["generation"])

    gc.callbacks.append(note)
    post = StopPost(EngineAddress(folder, "x"), Pressed())
    kept = [[k] for k in range(many)]
    post.close()
    gc.callbacks.remove(note)

    assert kept
    assert set(passes) == {0, 1}
    assert gc.get_threshold() == before


class Ring:
    """Refers to itself, so that only the collector finds that nobody else does."""

    def __init__(self) -> None:
        self.itself = self


def test_what_a_take_leaves_behind_is_found_while_the_session_goes_on(folder, tmp_path):
    work = RigWork(
        RigProfile.load("sim"), data=tmp_path, stage=Stage("x"), emit=lambda event: None,
        operator=None, attended=lambda: False,
    )  # fmt: skip
    finished = TakeFinished(t_host_s=1, round="gt", take=1, state="valid", reason="", frames=1)
    gc.disable()
    try:
        left = weakref.ref(Ring())
        kept_by_nobody = left() is not None

        work._observe(finished)
    finally:
        gc.enable()

    assert kept_by_nobody
    assert left() is None


def test_a_folder_that_others_may_enter_still_lets_nobody_else_in(desk, folder):
    if os.getuid() != 0:
        pytest.skip("needs root to act as a second user")
    pressed, address = Pressed(), EngineAddress(folder, "x")
    post = StopPost(address, pressed)
    for path in (folder, *folder.parents):
        if str(path).startswith("/tmp/"):  # noqa: S108  - opens pytest's own folder on purpose
            path.chmod(0o755)
    address.socket_path.chmod(0o666)
    address.stop_path.chmod(0o666)

    heard = as_nobody(lambda: knock(folder))

    post.close()
    assert heard == b"let in by the folder, heard b''"
    assert pressed.stops == []
    assert desk.commands.obeyed == []


def knock(folder: Path) -> bytes:
    """Press stop and attach; returns what came of it."""
    address = EngineAddress(folder, "x")
    with connect_to(socket.SOCK_DGRAM, address.stop_path) as stop:
        stop.send(b"estop stranger")
    with connect_to(socket.SOCK_STREAM, address.socket_path) as stream:
        stream.settimeout(10)
        try:
            stream.sendall(ATTACH)
            return b"let in by the folder, heard " + repr(stream.recv(100)).encode()
        except (ConnectionResetError, BrokenPipeError):
            return b"let in by the folder, heard b''"


def as_nobody(act: Callable[[], bytes]) -> bytes:
    """Do something as a user without rights, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, act())
        except BaseException as error:  # noqa: BLE001  - all of it is told to the parent
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read()


def real_profile(folder: Path) -> Path:
    """A real rig whose port is not there: an engine of it comes up all the same, and says so."""
    text = write_profile(folder).read_text().replace("simulated: true", "simulated: false")
    head, _, _ = text.partition("simulation:")
    path = folder / "real.yaml"
    path.write_text(
        head.replace("kind: simulated", "kind: operator").replace("port: simulated", "port: /dev/ttyNOPE")
    )
    return path


def test_of_eight_engines_at_once_exactly_one_runs(folder, tmp_path):
    profile = real_profile(tmp_path)
    command = [sys.executable, "-P", "-m", "rig.engine", "--profile", str(profile), "--data", str(tmp_path)]
    for name in ("sim.sock", "sim.stop"):
        (folder / name).touch()  # left behind by one that was killed

    racers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    told = [racer.stdout.readline() for racer in racers]
    running = running_engines("sim")
    with EngineClient(running[0], name="t", control=True) as client:
        client.request(Shutdown())
    messages = [racer.communicate()[1] for racer in racers]

    winners = [number for number, line in enumerate(told) if line]
    assert len(winners) == len(running) == 1
    pid = json.loads(told[winners[0]])["pid"]
    for number, racer in enumerate(racers):
        if number not in winners:
            assert racer.returncode == 3
            assert f"rig 'sim' is in use by process {pid}" in messages[number]
            assert "`rig tui --profile sim` observes it" in messages[number]
    assert racers[winners[0]].returncode == 0
    assert running_engines() == []


def test_a_real_rig_that_is_not_there_is_offline_and_says_how_to_go_on(folder, tmp_path):
    address = start_engine(str(real_profile(tmp_path)), data=tmp_path)
    states = []
    seen = threading.Event()

    def look(event) -> None:
        if event.event == "rig_state" and "ttyNOPE" in event.why:
            states.append(event)
            seen.set()

    with EngineClient(address, name="t", control=True, on_event=look) as client:
        assert seen.wait(20)
        client.request(Shutdown())

    assert states[0].mode == "offline"
    assert "clear the fault: the devices are opened again" in states[0].why


def test_an_engine_outlives_whoever_started_it_and_ends_when_nobody_comes(folder, tmp_path):
    starter = (
        "import sys; from pathlib import Path; from rig.client import start_engine;"
        "print(start_engine(sys.argv[1], data=Path(sys.argv[2])).name)"
    )
    name = subprocess.run(
        [sys.executable, "-P", "-c", starter, str(real_profile(tmp_path)), str(tmp_path)],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip

    (address,) = running_engines()
    with EngineClient(address, name="t", control=True) as client:
        client.request(Shutdown())

    assert address.name == name == "sim"
    while running_engines():
        threading.Event().wait(0.05)
    with pytest.raises(EngineError, match="no engine listens there"):
        EngineClient(address, name="t")


def test_an_engine_without_clients_ends_by_itself(folder, tmp_path):
    command = [sys.executable, "-P", "-m", "rig.engine", "--profile", str(real_profile(tmp_path))]

    alone = subprocess.run(
        [*command, "--data", str(tmp_path), "--linger", "0.2"],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip

    assert alone.returncode == 0, alone.stderr
    assert [p.name for p in folder.iterdir() if p.suffix in {".sock", ".stop"}] == []


def test_stop_without_an_engine_says_that_nothing_runs(folder):
    done = run_rig("stop")

    assert done.returncode == 3
    assert done.stderr.startswith("error RIG-ENG-001: no engine runs")


def test_a_rig_without_an_engine_is_stopped_through_its_port(folder, tmp_path):
    master, slave = os.openpty()
    profile = real_profile(tmp_path)
    profile.write_text(profile.read_text().replace("/dev/ttyNOPE", os.ttyname(slave)))

    done = run_rig("stop", "--profile", profile, "--json")
    emergency = run_rig("stop", "--profile", profile, "--emergency")
    written = os.read(master, 100)

    os.close(slave)
    os.close(master)
    assert done.returncode == emergency.returncode == 0, done.stderr + emergency.stderr
    assert written == b"!" + b"!\x18"
    (stopped,) = json.loads(done.stdout)["stopped"]
    assert (stopped["name"], stopped["trouble"]) == ("sim", "no engine ran; the port was told directly")


def test_home_and_jog_move_no_real_rig_without_the_word(folder, tmp_path):
    profile = real_profile(tmp_path)

    for verb in (["home"], ["jog", "5"]):
        refused = run_rig(*verb, "--profile", profile)
        assert refused.returncode == 4
        assert "type MOVE, or give --arm sim" in refused.stderr
