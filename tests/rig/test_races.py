"""Programs that want one rig or one session at the same moment: exactly one gets it, the others learn who has it.

Twenty races of eight processes; with CLEANPLATE_NIGHTLY=1 five hundred. A race is run by forked processes that wait
for one starting signal, so that nothing but the lock decides.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from catalog.session_folder import SessionFolder, SessionRecord
from rig.clock import SessionClock
from rig.errors import RigBusyError
from rig.profile import RigProfile, find_profile
from rig.runtime import hold_lock, hold_rig_lock, runtime_folder
from rig.session import LOCK_FILE, SessionRecorder

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
RACES = 500 if NIGHTLY else 20
RACERS = 8
HELD = "held"
Contend = Callable[[], contextlib.AbstractContextManager[object]]


class Racers:
    """Forked processes that contend for something, each told apart by its pid.

    Args:
        contend: Takes what is fought for, or raises `RigBusyError`; its context is left open until `release`.
    """

    def __init__(self, contend: list[Contend]) -> None:
        gate, self._go = os.pipe()
        over, self._release = os.pipe()
        self.says: dict[int, str] = {}
        self._lines: dict[int, int] = {}
        for one in contend:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(self._go)
                os.close(self._release)
                _race(one, gate=gate, over=over, said=writer)
            os.close(writer)
            self._lines[pid] = reader
        os.close(gate)
        os.close(over)

    def run(self) -> None:
        """Give the starting signal and hear what each of them has to say."""
        os.close(self._go)
        for pid, reader in self._lines.items():
            with os.fdopen(reader) as line:
                self.says[pid] = line.readline().rstrip("\n")

    @property
    def holders(self) -> list[int]:
        """The processes that got it."""
        return [pid for pid, said in self.says.items() if said == HELD]

    def kill(self, pid: int) -> None:
        """Kill one and see it dead."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.says[pid]

    def release(self) -> None:
        """Let all that are left go and see them ended."""
        os.close(self._release)
        for pid in self.says:
            os.waitpid(pid, 0)


def _race(contend: Contend, *, gate: int, over: int, said: int) -> None:
    """Contend for it once the gate is closed, tell, and hold it until it is over; never returns."""
    try:
        os.read(gate, 1)
        with contend():
            os.write(said, f"{HELD}\n".encode())
            os.read(over, 1)
    except RigBusyError as error:
        os.write(said, f"{error.message}\n".encode())
        os.close(said)
        os.read(over, 1)
    finally:
        os._exit(0)


def require_one_holder(racers: Racers, what: str) -> int:
    """Return the one process that holds it; all others must have named it."""
    (holder,) = racers.holders
    others = {said for pid, said in racers.says.items() if pid != holder}
    assert others <= {f"{what} is in use by process {holder} on {os.uname().nodename}"}
    return holder


def real_profile() -> RigProfile:
    """Describe a real rig whose port does not exist."""
    document = yaml.safe_load(find_profile("sim").read_text())
    document |= {"simulated": False, "name": "bench-1", "conditions": {}}
    document["rail"]["port"] = "/dev/ttyNOPE"
    del document["simulation"]
    return RigProfile.model_validate(document)


@pytest.fixture
def own_runtime(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return runtime_folder()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_one_of_eight_gets_the_rig_and_when_it_is_killed_another_one_does(own_runtime, seed: int):
    draw, profile = random.Random(seed), real_profile()
    for _ in range(RACES // 4):
        first = Racers([lambda: hold_rig_lock(profile)] * RACERS)
        first.run()
        holder = require_one_holder(first, "rig 'bench-1'")
        killed = draw.random() < 0.7
        if killed:
            first.kill(holder)
        else:
            first.release()

        second = Racers([lambda: hold_rig_lock(profile)] * RACERS)
        second.run()

        require_one_holder(second, "rig 'bench-1'")
        second.release()
        if killed:
            first.release()


@pytest.mark.timeout(600)
def test_one_session_folder_under_three_paths_has_one_holder(tmp_path):
    session, link = tmp_path / "data" / "s1", tmp_path / "elsewhere"
    session.mkdir(parents=True)
    link.symlink_to(session.parent)
    paths = [session, link / "s1", session / ".." / "s1"]
    for _ in range(RACES // 4):
        racers = Racers(
            [lambda p=paths[k % 3]: SessionRecorder(p, SessionClock()) for k in range(RACERS)]  # type: ignore[misc]
        )
        racers.run()

        holder = require_one_holder(racers, "session s1")
        racers.kill(holder)
        racers.release()


@pytest.mark.timeout(600)
def test_simulated_rigs_begin_at_once_beside_what_killed_ones_left(own_runtime):
    """Each has its own; cleaning up after the dead must neither take a lock from the living nor refuse it to them."""
    profile = RigProfile.load("sim")
    for race in range(RACES // 4):
        racers = Racers([lambda: hold_rig_lock(profile)] * RACERS)
        racers.run()

        assert len(racers.holders) == RACERS, racers.says
        for pid in racers.holders[: 1 + race % RACERS]:
            racers.kill(pid)
        left = {p.stem for p in own_runtime.glob("*.lock")}
        assert {f"sim-{pid}" for pid in racers.holders} <= left
        racers.release()


def test_a_lock_of_a_dead_process_whose_number_is_used_again_is_free(tmp_path):
    """A record naming this very process, but one that was started at another time, and a file never locked."""
    path = tmp_path / LOCK_FILE
    path.write_text(json.dumps({"pid": os.getpid(), "started": 1, "host": "here", "boot": "b"}))

    with hold_lock(path, what="session s1"), pytest.raises(RigBusyError, match=f"process {os.getpid()} on"):
        hold_lock(path, what="session s1")


def test_nobody_is_named_by_a_record_that_the_holder_did_not_write(tmp_path):
    path = tmp_path / LOCK_FILE
    with hold_lock(path, what="session s1"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "started": record["started"] - 1}))

        with pytest.raises(RigBusyError, match="session s1 is in use by another process"):
            hold_lock(path, what="session s1")


def test_a_released_lock_names_nobody(tmp_path):
    path = tmp_path / LOCK_FILE

    hold_lock(path, what="session s1").close()

    assert path.read_bytes() == b""


@pytest.mark.timeout(600)
def test_sessions_begun_at_the_same_moment_get_names_of_their_own(tmp_path):
    def begin() -> SessionRecorder:
        return SessionRecorder.begin(tmp_path, "shelf", SessionClock(), record=record_named)

    for race in range(1, 1 + RACES // 10):
        racers = Racers([begin] * RACERS)
        racers.run()
        racers.release()

        made = sorted(tmp_path.iterdir())
        assert len(made) == race * RACERS, racers.says
        assert {SessionFolder(p).record().session for p in made} == {p.name for p in made}


def record_named(name: str) -> SessionRecord:
    return SessionRecord(
        session=name,
        scene="shelf",
        created_utc_us=0,
        source="captured",
        rig="sim",
        simulated=True,
        cameras=(),
        boards=(),
        rounds=(),
    )


@contextlib.contextmanager
def engines(profile: Path, data: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start engines of one rig at once and end them."""
    command = [sys.executable, "-P", "-m", "rig.engine", "--profile", str(profile), "--data", str(data)]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


@pytest.mark.timeout(120)
def test_one_of_several_engines_started_at_once_runs_and_is_replaced_when_killed(own_runtime, tmp_path):
    profile = tmp_path / "real.yaml"
    profile.write_text(yaml.safe_dump(real_profile().model_dump(mode="json", by_alias=True)))
    with engines(profile, tmp_path, RACERS if NIGHTLY else 3) as children:
        ready = [c for c in children if c.stdout is not None and c.stdout.readline()]
        refused = [c for c in children if c not in ready]
        messages = [c.stderr.read() for c in refused if c.stderr is not None]
        codes = [c.wait() for c in refused]
        (winner,) = ready
        winner.kill()
        winner.wait()

        with engines(profile, tmp_path, 1) as (heir,):
            assert heir.stdout is not None
            assert json.loads(heir.stdout.readline())["pid"] == heir.pid

    assert set(codes) == {3}
    named = [re.search(r"in use by process (\d+) on", m) for m in messages]
    assert {int(m[1]) for m in named if m} == {winner.pid}
    assert all(named), messages
