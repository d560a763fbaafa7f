"""What an engine's processes take of the machine over hundreds of takes: memory, threads, open files.

One engine on the simulated rig in accelerated time records session after session of many short rounds. After every
take each of its processes is looked at through ``/proc``; what grows after the first session is a leak.
Usage: python -P -m benchmarks.rig_endurance [--sessions 3] [--rounds 40]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rig.client import EngineClient, start_engine
from rig.errors import EngineError
from rig.events import ActEnded, AnyEvent, Armed, EngineMode, RigState, TakeFinished
from rig.profile import find_profile
from rig.requests import ArmHome, ArmSession, Command, Go, Shutdown, WatchPreview

RESULT = Path(__file__).parent / "results" / "rig_endurance.json"
PREVIEW_HZ = 10.0
PATIENCE_S = 600.0
"""A mode, or a next take of a session, that does not come for so long will not come."""
ROLES = {
    "rig.engine": "engine",
    "rig.sim": "simulator",
    "rig.devices.gphoto2_worker": "camera",
    "rig.live_check_process": "live check",
}
"""Modules that the engine's processes run; the live check is another one in every session."""
GOAL_PERCENT = 5.0


@dataclass(frozen=True)
class Look:
    """The processes of one part at one moment, together."""

    take: int
    session: int
    rss_kb: int
    threads: int
    files: int


def write_profile(folder: Path) -> Path:
    """Write the simulated rig's profile, accelerated and with small pictures."""
    profile = yaml.safe_load(find_profile("sim").read_text())
    profile["simulation"] |= {"rate": 12, "width": 320, "height": 192, "frame_rate_hz": 15}
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def plan_yaml(rounds: int) -> str:
    """Return a plan of many short rounds; every tenth is another ground truth."""
    kinds: list[dict[str, Any]] = [
        {"role": "internal", "set": {"iso": 6400, "exposure_s": 0.00008}, "degradations": ["noise"]},
        {"role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
        {"role": "internal", "set": {"focus_m": 1.4}, "degradations": ["defocus_blur"]},
    ]
    # Copies, since YAML would write what is shared as an alias, which plans may not have.
    named = [
        {"name": f"r{k:02d}", **({"role": "gt"} if k % 10 == 0 else deepcopy(kinds[k % len(kinds)]))}
        for k in range(2, rounds + 1)
    ]
    document = {
        "schema": 1,
        "scene": "endurance",
        "sweep": {"start_mm": 30, "end_mm": 60, "velocity_mm_s": 60},
        "base": {"iso": 100, "f_number": 8, "exposure_s": 0.005, "focus_m": 2.0},
        "rounds": [{"name": "gt", "role": "gt"}, *named],
        "rest_s": 0.5,
        "retake_spoiled": False,
        "guards": {"on_fail": "warn", "min_free_gb": 0.2},
    }
    return yaml.safe_dump(document)


def processes(engine_pid: int) -> Iterator[tuple[Path, str]]:
    """Yield the folders of an engine and the processes below it, each with the part it plays."""
    folder = Path(f"/proc/{engine_pid}")
    command = (folder / "cmdline").read_bytes().decode().split("\0")
    role = next((ROLES[word] for word in command if word in ROLES), None)
    if role is not None:
        yield folder, role
    for children in folder.glob("task/*/children"):
        for child in children.read_text().split():
            yield from processes(int(child))


def look_at(process: Path, *, take: int, session: int) -> Look:
    """Look at one process."""
    lines = (process / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    files = sum(1 for _ in (process / "fd").iterdir())
    return Look(take, session, int(status["VmRSS"].split()[0]), int(status["Threads"]), files)


def together(one: Look, other: Look) -> Look:
    """Add up two processes of one part: a simulator renders in several."""
    return replace(
        one,
        rss_kb=one.rss_kb + other.rss_kb,
        threads=one.threads + other.threads,
        files=one.files + other.files,
    )


class Watch:
    """Runs sessions as a client and looks at the engine's processes after every take."""

    def __init__(self) -> None:
        self.looks: dict[str, list[Look]] = defaultdict(list)
        self.engine_pid = 0
        self.session = 0
        self._takes = 0
        self._mode = EngineMode.OFFLINE
        self._ended: list[ActEnded] = []
        self._changed = threading.Condition()

    def take_event(self, event: AnyEvent) -> None:
        """Receive an event."""
        if isinstance(event, TakeFinished):
            self._takes += 1
            self._look()
        with self._changed:
            if isinstance(event, RigState):
                self._mode = event.mode
            elif isinstance(event, ActEnded):
                self._ended.append(event)
            self._changed.notify_all()

    def _look(self) -> None:
        found: dict[str, Look] = {}
        for process, role in processes(self.engine_pid):
            look = look_at(process, take=self._takes, session=self.session)
            found[role] = together(found[role], look) if role in found else look
        for role, look in found.items():
            self.looks[role].append(look)

    def await_mode(self, mode: EngineMode) -> None:
        """Wait until the rig is in a mode."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._mode is mode, timeout=PATIENCE_S):
                raise SystemExit(f"the rig stays {self._mode}: {self._ended}")

    def carry_out(self, client: EngineClient, command: Command) -> None:
        """Take both steps and wait for the end of the act."""
        armed = client.request(command)
        assert isinstance(armed, Armed)
        self._ended.clear()
        client.request(Go(token=armed.token, word=armed.word))
        while not self._ended:
            self._await_progress(command)
        if not self._ended[0].ok:
            raise SystemExit(self._ended[0].message)

    def _await_progress(self, command: Command) -> None:
        """Wait for the end of an act, or of its next take."""
        takes = self._takes
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or self._takes > takes, timeout=PATIENCE_S):
                raise SystemExit(f"{type(command).__name__} does not end; {takes} takes were recorded")


@contextmanager
def watched_engine(folder: Path) -> Iterator[tuple[Watch, EngineClient]]:
    """Start an engine of one's own and attach to it."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    watch = Watch()
    address = start_engine(str(write_profile(folder)), data=folder / "data")
    with EngineClient(address, name="bench", control=True, on_event=watch.take_event) as client:
        watch.engine_pid = client.attached.engine_pid
        try:
            yield watch, client
        finally:
            with suppress(EngineError):  # one that has gone is told of by what waited for it
                client.request(Shutdown())


def summary(looks: list[Look], *, per_session: bool) -> dict[str, Any]:
    """Tell how much a process has grown.

    Args:
        looks: In order.
        per_session: Whether the process is another one in every session: then the last one's is told.
    """
    if per_session:
        looks = [x for x in looks if x.session == looks[-1].session]
        after = looks[len(looks) // 4 :]
    else:
        after = [x for x in looks if x.session > 0] or looks[len(looks) // 4 :]
    rss = np.array([x.rss_kb for x in after], float)
    edge = max(len(rss) // 5, 1)
    first, last = float(np.median(rss[:edge])), float(np.median(rss[-edge:]))
    return {
        "takes": len(after),
        "rss_mb": [round(first / 1024, 1), round(last / 1024, 1)],
        "peak_mb": round(max(x.rss_kb for x in looks) / 1024, 1),
        "growth_percent": round(100 * (last / first - 1), 2),
        "kb_per_take": round(float(np.polyfit(range(len(rss)), rss, 1)[0]), 2) if len(rss) > 2 else None,
        "threads": sorted({x.threads for x in after}),
        "files": [min(x.files for x in after), max(x.files for x in after), after[-1].files],
    }


def main() -> None:
    """Record, look, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, watched_engine(Path(folder)) as (watch, client):
        watch.await_mode(EngineMode.CONNECTED)
        watch.carry_out(client, ArmHome())
        client.request(WatchPreview(on=True, rate_hz=PREVIEW_HZ))
        for watch.session in range(options.sessions):
            watch.carry_out(client, ArmSession(plan_yaml=plan_yaml(options.rounds)))
    found = {
        role: summary(looks, per_session=role == "live check") for role, looks in sorted(watch.looks.items())
    }
    growth_percent = max(process["growth_percent"] for process in found.values())
    result = {
        "schema": 1,
        "sessions": options.sessions,
        "rounds": options.rounds,
        "took_s": round(time.monotonic() - began_s),
        "processes": found,
        "growth_percent": growth_percent,
        "goal_percent": GOAL_PERCENT,
        "met": growth_percent <= GOAL_PERCENT,
        "looks": {
            role: [asdict(x) for x in looks[:: max(len(looks) // 20, 1)]]
            for role, looks in watch.looks.items()
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({**result, "looks": None}, indent=1))


if __name__ == "__main__":
    main()
