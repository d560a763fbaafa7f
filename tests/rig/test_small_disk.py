"""The disk fills in the middle of a round: the session ends with what to free, loses nothing, and goes on afterwards.

The sessions' folder is a small tmpfs in a namespace of its own, filled at a moment of the run; where namespaces are
not allowed, the recorder's limit of file sizes is set to nothing instead. With CLEANPLATE_NIGHTLY=1 30 such moments.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from kill_campaign import kind_of
from session_checker import Witness, is_complete, read_rows
from small_rig import rig_command, write_plan, write_profile

NIGHTLY = os.environ.get("CLEANPLATE_NIGHTLY") == "1"
ROUNDS = [{"name": "gt", "role": "gt", "velocity_mm_s": 60}]
DISK_BYTES = 128 << 20
"""Room for the session's ballast and for the session."""
MOMENTS = (
    ("step: recording", 1, 0),
    ("saved", 2, 6000),
    ("step: setting conditions and camera", 1, 0),
    ("motion", 3, 10_000),
    ("step: copying the movie off the card", 1, 2000),
    ("saved", 1, 0),
    ("saved", 3, 4096),
    ("session_opened", 1, 300),
)
"""After which line of the recorder, and how many bytes are left then."""


class Disk(Protocol):
    """A disk that can be filled."""

    sessions: Path
    """Where its sessions are, as this process sees them."""
    words: str
    """What the recorder advises when it is full."""

    def command(self, command: list[str]) -> list[str]:
        """Return the command line that runs a command where the disk is."""

    def fill(self, child: subprocess.Popen[str], left_bytes: int) -> None:
        """Fill it."""

    def free(self) -> None:
        """Make room again."""


@dataclass
class TmpfsDisk:
    """A small tmpfs that only those who enter its namespace see."""

    holder: int
    sessions: Path
    words: str = "free space"

    def command(self, command: list[str]) -> list[str]:
        return [
            "nsenter",
            "--preserve-credentials",
            "-U",
            "-m",
            "-t",
            str(self.holder),
            f"--wd={Path.cwd()}",
            *command,
        ]

    def fill(self, child: subprocess.Popen[str], left_bytes: int) -> None:
        free = os.statvfs(self.sessions)
        with (self.sessions / "filler").open("wb", buffering=0) as filler:
            os.posix_fallocate(filler.fileno(), 0, max(1, free.f_bavail * free.f_bsize - left_bytes))

    def free(self) -> None:
        (self.sessions / "filler").unlink(missing_ok=True)


@dataclass
class LimitedDisk:
    """The ordinary disk, of which the recorder and its camera's process may suddenly use nothing more."""

    sessions: Path
    words: str = "limit of file sizes"

    def command(self, command: list[str]) -> list[str]:
        return command

    def fill(self, child: subprocess.Popen[str], left_bytes: int) -> None:
        for pid in (child.pid, *_camera_processes(child.pid)):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (left_bytes, left_bytes))

    def free(self) -> None:
        """A limit ends with its process."""


def _camera_processes(parent: int) -> Iterator[int]:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            if b"gphoto2_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid


@contextmanager
def tmpfs_disk(data: Path) -> Iterator[TmpfsDisk]:
    """Mount a small disk on the sessions' folder; skips where that is not allowed."""
    sessions = data / "sessions"
    sessions.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs '{sessions}' && echo mounted && exec cat"
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("a mount namespace of one's own is not allowed here")
        yield TmpfsDisk(holder.pid, Path(f"/proc/{holder.pid}/root{sessions}"))
        holder.stdin.close()


@contextmanager
def limited_disk(data: Path) -> Iterator[LimitedDisk]:
    """Use the ordinary disk."""
    yield LimitedDisk(data / "sessions")


@dataclass
class Story:
    """A session, its acknowledgements and everybody who looked at it."""

    disk: Disk
    data: Path
    start: list[str]
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    witness: Witness | None = None

    @property
    def session(self) -> Path | None:
        made = sorted(self.disk.sessions.glob("*/session.json"))
        assert len(made) < 2, made
        return made[0].parent if made else None

    def run(self, moment: tuple[str, int, int] | None = None) -> tuple[int, str]:
        """Run or resume; fill the disk at the moment; returns exit code and messages."""
        session = self.session
        resume = rig_command(
            "record", "--session", session.name if session else "", "--data", self.data, "--json"
        )
        command = self.disk.command(resume if session else self.start)
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            self._follow(child, moment)
            assert child.stderr is not None
            said = child.stderr.read()
        self.disk.free()
        return child.returncode, said

    def _follow(self, child: subprocess.Popen[str], moment: tuple[str, int, int] | None) -> None:
        assert child.stdout is not None
        seen = 0
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "saved":
                self.acknowledged.append(event)
            if moment is not None and kind_of(event) == moment[0]:
                seen += 1
                if seen == moment[1]:
                    self.disk.fill(child, moment[2])

    def untold(self) -> list[str]:
        """List what a run should have journaled of its end and did not."""
        if self.session is None:
            return []
        rows, _ = read_rows(self.session)
        takes = {(r["round"], r["take"]): r["kind"] for r in rows if r["kind"].startswith("take_")}
        open_takes = [f"take {key} has no outcome" for key, kind in takes.items() if kind == "take_intent"]
        return open_takes + [f"ends with {r['kind']}" for r in rows[-1:] if r["kind"] != "run_interrupted"]

    def violations(self) -> list[str]:
        """Judge what is on the disk now."""
        if self.session is None:
            return [f"{e['path']}: acknowledged without a session" for e in self.acknowledged]
        self.witness = self.witness or Witness(self.session)
        return self.witness.look(self.acknowledged)


def moments(seed: int) -> list[tuple[str, int, int]]:
    """Return the moments of one story: the first ones always, others drawn."""
    if not NIGHTLY:
        return [MOMENTS[seed]]
    draw = random.Random(seed)
    return [(kind, nth, draw.choice((0, left, 50_000))) for kind, nth, left in draw.sample(MOMENTS, 3)]


@pytest.mark.timeout(3600 if NIGHTLY else 600)
@pytest.mark.parametrize("seed", range(5) if NIGHTLY else [0])
@pytest.mark.parametrize("disk_at", [tmpfs_disk, limited_disk])
def test_a_disk_that_fills_in_mid_round_costs_that_take_alone(
    tmp_path, disk_at: Callable[[Path], Any], seed: int
):
    data = tmp_path / "data"
    plan = write_plan(
        tmp_path, rounds=ROUNDS, retake_spoiled=False, guards={"min_free_gb": 0, "on_fail": "warn"}
    )
    start = rig_command("record", plan, "--profile", write_profile(tmp_path), "--data", data, "--json")
    with disk_at(data) as disk:
        story = Story(disk, data, start)
        for moment in moments(seed + (disk_at is limited_disk and not NIGHTLY)):
            code, said = story.run(moment)

            assert code == 6, f"{moment}: exit {code}: {said}"
            assert "Traceback" not in said, said
            assert disk.words in said, f"{moment}: {said}"
            assert story.violations() == [], moment
            if disk_at is tmpfs_disk:  # dropping the ballast helps against a full disk, not against a limit
                assert story.untold() == [], moment
        code, said = story.run()

        assert code == 0, said
        assert story.violations() == []
        assert story.session is not None
        assert is_complete(story.session)
