"""Signals and closed terminals: what `rig record` says and how it ends, while it opens devices, records and closes.

`test_kills.py` sends signals at hundreds of drawn moments; here are the moments that those hardly meet.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_checker import violations
from small_rig import PLAN, rig_command, write_plan, write_profile

from catalog.session_folder import SessionFolder

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
LONGEST_S = 40.0
"""For the end of a process on a machine that does much else; the promise is 5 s on an idle one."""
GT_ONLY = {"rounds": PLAN["rounds"][:1], "retake_spoiled": False}


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path, Path]:
    return write_plan(tmp_path, **GT_ONLY), write_profile(tmp_path), tmp_path / "data"


@pytest.fixture
def recorder(files) -> Iterator[subprocess.Popen[str]]:
    plan, profile, data = files
    command = rig_command("record", plan, "--profile", profile, "--data", data, "--json")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        yield child
        child.kill()


def await_event(child: subprocess.Popen[str], name: str) -> list[dict]:
    assert child.stdout is not None
    seen = []
    for line in child.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == name:
            return seen
    raise AssertionError(f"no {name}: {seen[-3:]}")


def only_session(data: Path) -> Path:
    (session,) = (data / "sessions").iterdir()
    return session


def states(session: Path) -> list[tuple[str, int, str]]:
    return [(t.round.name, t.number, t.state) for t in SessionFolder(session).takes()]


@pytest.mark.timeout(120)
def test_a_second_signal_at_once_tells_the_command_that_resumes(recorder, files):
    seen = await_event(recorder, "motion")

    recorder.send_signal(signal.SIGTERM)
    recorder.send_signal(signal.SIGINT)
    _, said = recorder.communicate(timeout=LONGEST_S)

    session = only_session(files[2])
    assert recorder.returncode == 6
    assert f"rig record --session {session.name}" in said
    assert violations(session, [e for e in seen if e["event"] == "saved"]) == []
    assert states(session) == [("gt", 1, "void")]


@pytest.mark.timeout(120)
def test_a_signal_while_devices_are_opened_begins_no_session(recorder, files, tmp_path):
    _await_engine(Path(os.environ["XDG_RUNTIME_DIR"]) / "cleanplate", recorder.pid)

    recorder.send_signal(signal.SIGTERM)
    _, said = recorder.communicate(timeout=LONGEST_S)

    assert recorder.returncode == 6
    assert "kept: nothing was recorded; next: give the same command again" in said
    assert not list(files[2].rglob("session.json"))


@pytest.mark.timeout(120)
def test_a_signal_while_a_complete_session_closes_changes_nothing(recorder, files):
    await_event(recorder, "session_closed")

    recorder.send_signal(signal.SIGHUP)
    _, said = recorder.communicate(timeout=LONGEST_S)

    assert recorder.returncode == 0, said
    assert states(only_session(files[2])) == [("gt", 1, "valid")]


@pytest.mark.timeout(120)
def test_a_reader_that_leaves_stops_the_session_in_order(recorder, files):
    await_event(recorder, "motion")
    assert recorder.stdout is not None
    assert recorder.stderr is not None

    recorder.stdout.close()
    recorder.wait(LONGEST_S)

    session = only_session(files[2])
    assert recorder.returncode == 6
    assert f"rig record --session {session.name}" in recorder.stderr.read()
    assert states(session) == [("gt", 1, "void")]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ignored", [False, True] if NIGHTLY else [False])
def test_a_closed_terminal_stops_the_session_in_order_unless_it_was_ignored(files, ignored: bool):
    """The recorder leads the session of a terminal of its own, which goes away; with `nohup` it records to the end."""
    plan, profile, data = files
    ours, theirs = pty.openpty()
    command = rig_command("record", plan, "--profile", profile, "--data", data)
    setting = "signal.SIG_IGN" if ignored else "signal.SIG_DFL"
    leader = (
        f"import fcntl, os, signal, sys, termios; signal.signal(signal.SIGHUP, {setting});"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    out = subprocess.DEVNULL if ignored else theirs
    with subprocess.Popen(
        [sys.executable, "-c", leader, *command], stdin=theirs, stdout=out, stderr=out, start_new_session=True
    ) as child:
        os.close(theirs)
        _await_take(data)

        os.close(ours)
        child.wait(2 * LONGEST_S)

    expected = (0, "valid") if ignored else (6, "void")
    assert (child.returncode, states(only_session(data))[-1][2]) == expected


@pytest.mark.timeout(120)
def test_a_jog_that_a_signal_stops_ends_as_interrupted(files):
    command = rig_command("jog", "10", "--speed", "1", "--profile", files[1], "--data", files[2])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        _await_engine(Path(os.environ["XDG_RUNTIME_DIR"]) / "cleanplate", child.pid)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=LONGEST_S)

    assert child.returncode == 6
    assert "RIG-HAND-001" in said
    assert "by SIGINT" in said


def _await_engine(folder: Path, pid: int) -> None:
    """Wait until a process listens as an engine: its devices are being opened then."""
    _until(lambda: any(p.stem.endswith(f"-{pid}") for p in folder.glob("*.sock")))


def _await_take(data: Path) -> None:
    _until(lambda: any(p.is_dir() for p in data.glob("sessions/*/rounds/*")))


def _until(so) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while not so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
