"""The whole way on a real terminal and a real engine: `rig tui` in tmux, and line by line on a pipe."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_rig import rig_command, write_plan, write_profile

from catalog.session_folder import SessionFolder
from rig.runtime import running_engines

PATIENCE_S = 90.0
TMUX = shutil.which("tmux")


@pytest.fixture(autouse=True)
def no_engine_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a runtime folder of its own; what still runs there afterwards is ended."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    yield
    for engine in running_engines():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(engine.name.rpartition("-")[2]), signal.SIGTERM)


class Typist:
    """A program that is read line by line and answered."""

    def __init__(self, *arguments: str | Path) -> None:
        self._program = subprocess.Popen(
            rig_command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def read_until(self, start: str) -> str:
        """Read up to a line that begins so; a program that says nothing meets the test's own time limit."""
        assert self._program.stdout is not None
        for line in self._program.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return line
        raise AssertionError("\n".join(self.lines))

    def type(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()

    def wait(self) -> int:
        return self._program.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        self._program.kill()
        self._program.wait()
        for pipe in (self._program.stdin, self._program.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.mark.timeout(180)
def test_a_session_is_recorded_line_by_line(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    operator = Typist("tui", "--plain", "--profile", write_profile(tmp_path), "--data", tmp_path / "data")
    try:
        operator.read_until("state connected")
        operator.type(f"plan {plan}")
        operator.read_until("plan ✓ valid")
        operator.type("start")
        operator.read_until("armed type go")
        operator.type("go")
        while "complete" not in operator.read_until(""):
            if operator.lines[-1].startswith("ask type answer keep"):  # at so few frames a take looks spoiled
                operator.type("answer keep few frames are enough here")
        operator.type("quit engine")

        assert operator.wait() == 0
    finally:
        operator.close()

    (session,) = (tmp_path / "data" / "sessions").iterdir()
    assert set(SessionFolder(session).valid_takes()) == {"gt", "iso6400", "dark"}
    assert not any("\x1b" in line for line in operator.lines)


class Tmux:
    """A terminal with `rig tui` in it."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self._server = ["tmux", "-L", f"cleanplate-{os.getpid()}", "-f", "/dev/null"]
        command = " ".join(f"'{part}'" for part in rig_command("tui", *arguments))
        self._run(
            "new-session",
            "-d",
            "-x",
            "120",
            "-y",
            "40",
            "-c",
            str(folder),
            f"{command}; echo left $?; sleep 99",
        )

    def _run(self, *arguments: str) -> str:
        found = subprocess.run(
            [*self._server, *arguments], capture_output=True, text=True, check=True, timeout=20
        )
        return found.stdout

    def type(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p")

    def wait_for(self, *texts: str) -> str:
        return self.wait_until(lambda screen: all(t in screen for t in texts), str(texts))

    def wait_until(self, so: Callable[[str], bool], what: str) -> str:
        deadline_s = time.monotonic() + PATIENCE_S
        while not so(screen := self.screen):
            assert time.monotonic() < deadline_s, f"{what} never came:\n{screen}"
            time.sleep(0.1)
        return screen

    def close(self) -> None:
        subprocess.run([*self._server, "kill-server"], check=False, timeout=20)


@pytest.mark.skipif(TMUX is None, reason="needs system package tmux")
@pytest.mark.timeout(300)
def test_a_session_is_begun_and_stopped_by_keys_in_a_real_terminal(tmp_path: Path) -> None:
    write_plan(tmp_path, rounds=[{"name": "gt", "role": "gt", "velocity_mm_s": 1}])
    terminal = Tmux(tmp_path, "--profile", write_profile(tmp_path), "--data", tmp_path / "data")
    try:
        terminal.wait_for("■ SPACE=STOP", "CONNECTED", "not homed")
        terminal.type("2")
        terminal.wait_for("plan.yaml")
        terminal.type("Enter")
        terminal.wait_for("✓ valid", "1 rounds")
        terminal.type("s")
        terminal.wait_for("START the session", "Enter within")
        terminal.type("Enter")
        terminal.type("1")
        terminal.wait_for("RUNNING", "▶ running", "gt: recording")

        terminal.type("Space")

        terminal.wait_for("STOP by key")
        terminal.wait_until(lambda screen: "RUNNING" not in screen, "the end of the session")
        terminal.type("q")
        terminal.wait_for("Leave?")
        terminal.type("d")
        terminal.wait_for("left 0")
    finally:
        terminal.close()

    (session,) = (tmp_path / "data" / "sessions").iterdir()
    assert SessionFolder(session).valid_takes() == {}
    assert [t.state for t in SessionFolder(session).takes()] == ["void"]
