"""Temporary folders and runtime names of killed processes are removed by whoever comes next, of living ones never."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from rig.runtime import EngineAddress, hold_lock, remove_abandoned
from rig.scratch import ScratchFolder

HOLDER = """
import sys
from rig.scratch import ScratchFolder
print(ScratchFolder("card").path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def start_holder() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_killed_owners_folder_goes_when_the_next_one_is_made(tmp_path):
    with start_holder() as holder:
        theirs = holder.stdout.readline().strip()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        left = [str(p) for p in tmp_path.iterdir()]

        ours = ScratchFolder("card")

    assert left == [theirs]
    assert names(tmp_path) == [ours.path.name]
    ours.cleanup()


def test_a_living_owners_folder_stays(tmp_path):
    with start_holder() as holder:
        theirs = holder.stdout.readline().strip()

        ours = ScratchFolder("card")

        assert {str(ours.path), theirs} == {str(p) for p in tmp_path.iterdir()}
        holder.stdin.close()
    ours.cleanup()
    ours.cleanup()


def test_other_purposes_and_links_are_left_alone(tmp_path):
    kept = tmp_path / "precious"
    kept.mkdir()
    (tmp_path / "cleanplate-card-link").symlink_to(kept)
    (tmp_path / "cleanplate-stills-1").mkdir()

    ScratchFolder("card").cleanup()

    assert names(tmp_path) == ["cleanplate-card-link", "cleanplate-stills-1", "precious"]


def test_names_of_a_killed_simulated_engine_are_removed(tmp_path):
    """A dead process's record under its own number is a simulated rig's; that of a real rig has no such name."""
    for name, pid in (("sim-4999999", 4999999), ("bench-2", 4999999)):
        address = EngineAddress(tmp_path, name)
        address.lock_path.write_text(json.dumps({"pid": pid, "host": "here", "boot": ""}))
        address.socket_path.touch()
        address.stop_path.touch()

    remove_abandoned(tmp_path)

    assert names(tmp_path) == ["bench-2.lock", "bench-2.sock", "bench-2.stop"]


def test_names_of_a_living_simulated_engine_stay(tmp_path):
    path = tmp_path / f"sim-{os.getpid()}.lock"
    with hold_lock(path, what="rig 'sim'"):
        remove_abandoned(tmp_path)

        assert path.is_file()
