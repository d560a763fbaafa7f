"""Record sessions on a small simulated rig and kill the recorder, again and again, at drawn moments.

A moment is a place in the run, told by what the recorder prints, and a delay after it: that spreads the kills over
all phases however fast the machine is. Everything comes from outside: no crash points, no test build.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml
from recorder_nursery import Nursery, Nursling
from session_checker import Witness, is_complete, read_rows
from small_rig import rig_command, write_plan, write_profile

ROUNDS: list[dict[str, Any]] = [
    {"name": "gt", "role": "gt", "velocity_mm_s": 40},
    {"name": "fast", "role": "internal", "velocity_mm_s": 60, "degradations": ["motion_blur"]},
    {"name": "dark", "role": "external", "conditions": {"light": "blocked"}, "degradations": ["low_light"]},
]
"""The second round is so fast that its live check often spoils it: retakes are killed, too."""
SWEEP = {"start_mm": 30, "end_mm": 60, "velocity_mm_s": 40}
MOST_RUNS = 60
"""A session that is not complete after so many runs never will be."""
PATIENCE_S = 300.0
"""A run that takes longer hangs; counted as a violation."""
SURVIVAL_S = 60.0
"""Children may outlive a killed recorder so long on a loaded machine; idle they need less than a second."""


Child = subprocess.Popen[bytes] | Nursling


@dataclass(frozen=True)
class Moment:
    """When a signal is sent: ``delay_s`` after the ``nth`` line of a kind, or after the start."""

    after: str
    delay_s: float
    nth: int = 1


MOMENTS: tuple[tuple[str, float, int], ...] = (
    ("", 1.0, 1),
    ("", 3.0, 1),
    ("session_opened", 0.4, 1),
    ("step: setting conditions and camera", 0.1, 1),
    ("step: moving to the start", 0.3, 1),
    ("step: recording", 0.12, 1),
    ("motion", 0.3, 5),
    ("step: waiting for the camera to close its movie", 0.8, 1),
    ("step: copying the movie off the card", 0.25, 1),
    ("saved", 0.01, 8),
    ("take_finished", 1.5, 2),
    ("take_checked", 0.02, 1),
    ("asked", 0.02, 1),
)
"""Kind of line, longest delay after it, and among how many such lines the moment is drawn."""


def draw_moment(draw: random.Random) -> Moment:
    """Draw a place in the run and a delay."""
    after, longest_s, occurrences = draw.choice(MOMENTS)
    return Moment(after, draw.uniform(0.0, longest_s), draw.randint(1, occurrences))


def kind_of(event: dict[str, Any]) -> str:
    """Name the kind of an event, steps with their text."""
    return f"step: {event['text']}" if event["event"] == "step" else str(event["event"])


@dataclass
class Run:
    """What one run of the recorder printed and how it ended."""

    marker: str
    resumed: bool
    events: list[dict[str, Any]] = field(default_factory=list)
    stderr: str = ""
    code: int | None = None
    signalled_s: float | None = None
    """The machine's clock when the signal was sent; None where the run was over before."""
    took_s: float = 0.0
    """From the signal to the end of the recorder."""

    @property
    def saved(self) -> list[dict[str, Any]]:
        """Every acknowledgement."""
        return [e for e in self.events if e["event"] == "saved"]


@dataclass
class Tally:
    """What a campaign has seen."""

    kills: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    double_kills: int = 0
    """Kills of a resumption that had not begun a take yet."""
    sessions: int = 0
    runs: int = 0
    acknowledged: int = 0
    takes: int = 0
    longest_survival_s: float = 0.0
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another campaign has seen."""
        self.kills += other.kills
        self.phases.update(other.phases)
        self.double_kills += other.double_kills
        self.sessions += other.sessions
        self.runs += other.runs
        self.acknowledged += other.acknowledged
        self.takes += other.takes
        self.longest_survival_s = max(self.longest_survival_s, other.longest_survival_s)
        self.violations += other.violations


class Hardware:
    """A rail and a camera that outlive every recorder, as real ones do: simulated by a process of their own.

    A recorder reaches them by a profile that is not a simulated rig's. After a kill the carriage ends its move and the
    body goes on recording until the next recorder finds both. A context manager.
    """

    ROUNDS = (
        {"name": "gt", "role": "gt", "velocity_mm_s": 60},
        {"name": "fast", "role": "internal", "velocity_mm_s": 80, "degradations": ["motion_blur"]},
    )
    SWEEP = {"start_mm": 30, "end_mm": 42, "velocity_mm_s": 60}
    ARM = "bench"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._profile = write_profile(folder)
        serving = rig_command("simulate", "--profile", self._profile, "--data", folder / "data", "--json")
        self._child = subprocess.Popen(serving, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._child.stdout is not None
        self._at = json.loads(self._child.stdout.readline())

    def __enter__(self) -> Hardware:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.terminate()
        self._child.communicate()

    def write_profile(self, folder: Path) -> Path:
        """Write the profile of the real rig that this looks like."""
        document = yaml.safe_load(self._profile.read_text())
        document |= {"simulated": False, "name": self.ARM}
        document["rail"] |= {"port": self._at["rail"], "travel_mm": [0, 80]}
        document["cameras"]["main"]["address"] = self._at["camera"]
        del document["simulation"], document["conditions"]
        path = folder / "real.yaml"
        path.write_text(yaml.safe_dump(document))
        return path


class Bench:
    """A place where recorders run: their data, their temporary files and their sockets are nobody else's.

    Args:
        folder: A folder of its own.
        hardware: What they record with; by default each run begins a simulated rig of its own.
        nursery: Where recorders are forked; by default each is an interpreter's own.
    """

    def __init__(
        self, folder: Path, hardware: Hardware | None = None, nursery: Nursery | None = None
    ) -> None:
        self._nursery = nursery
        self.data, self.temporary, self.runtime = (folder / n for n in ("data", "temporary", "runtime"))
        for made in (folder, self.temporary, self.runtime):
            made.mkdir(parents=True, exist_ok=True)
        if hardware is None:
            plan = write_plan(folder, sweep=SWEEP, rounds=ROUNDS, rest_s=0.5)
            profile, self._armed = write_profile(folder, rate=12), []
        else:
            plan = write_plan(folder, sweep=hardware.SWEEP, rounds=list(hardware.ROUNDS), rest_s=0.3)
            profile, self._armed = hardware.write_profile(folder), ["--arm", hardware.ARM]
        self._start = self._record(plan, "--profile", profile)

    def _record(self, *what: str | Path) -> list[str]:
        return list(map(str, ("record", *what, "--data", self.data, "--json", *self._armed)))

    def forget_session(self) -> None:
        """Begin afresh; what lies in the folders for temporary files stays."""
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def session(self) -> Path | None:
        """The session, None while there is none."""
        made = sorted((self.data / "sessions").glob("*/session.json")) if self.data.is_dir() else []
        assert len(made) < 2, f"a second session appeared: {made}"
        return made[0].parent if made else None

    def _arguments(self) -> list[str]:
        """Return the arguments of ``rig`` that begin the session, or resume it."""
        session = self.session
        if session is None:
            return self._start
        return self._record("--session", session.name)

    def run(self, *signals: tuple[signal.Signals, Moment]) -> Run:
        """Run the recorder, send it signals at their moments (a later one counts from the one before), wait for it."""
        run = Run(uuid.uuid4().hex, resumed=self.session is not None)
        environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "KILL_CAMPAIGN_RUN": run.marker,
        }
        with (self.temporary.parent / "stderr.txt").open("w+b") as stderr:
            child = self._begin(environment, stderr)
            hang = threading.Timer(PATIENCE_S, child.kill)
            hang.start()
            _follow(child, run, list(signals))
            run.code = child.wait()
            hung = not hang.is_alive()
            hang.cancel()
            stderr.seek(0)
            run.stderr = stderr.read().decode(errors="replace")
        assert not hung, f"a run did not end within {PATIENCE_S:.0f} s; its last event: {run.events[-1:]}"
        if run.signalled_s is not None:
            run.took_s = time.monotonic() - run.signalled_s
        return run

    def _begin(self, environment: dict[str, str], stderr: IO[bytes]) -> Child:
        arguments = self._arguments()
        if self._nursery is not None:
            return self._nursery.start(arguments, environment, stderr)
        return subprocess.Popen(
            rig_command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
        )

    def await_death_of_children(self, run: Run) -> tuple[float, list[str]]:
        """Wait until nothing of a run lives any more; returns how long that took and what did not die."""
        began_s = time.monotonic()
        while (left := list(_processes(run.marker))) and time.monotonic() - began_s < SURVIVAL_S:
            threading.Event().wait(0.02)  # there is nothing to wait on: they are not our children
        return time.monotonic() - began_s, [f"outlived the recorder: {command}" for command in left]

    def litter(self) -> list[str]:
        """List what runs that are over have left in the folders for temporary files and sockets."""
        found = [p for folder in (self.temporary, self.runtime / "cleanplate") for p in folder.glob("*")]
        found = [p for p in found if p.name != f"{Hardware.ARM}.lock"]  # a real rig's is always the same file
        return sorted(f"left behind: {p.name}" for p in found)


def _follow(child: Child, run: Run, signals: list[tuple[signal.Signals, Moment]]) -> None:
    """Read what the recorder prints until it ends; a last line without an end was not said."""
    seen: Counter[str] = Counter()
    timer = _Sender(child, run, signals)
    timer.notice("", 1)
    assert child.stdout is not None
    for line in child.stdout:
        if line.endswith(b"\n"):
            event = json.loads(line)
            run.events.append(event)
            seen[kind_of(event)] += 1
            timer.notice(kind_of(event), seen[kind_of(event)])
    child.stdout.close()
    timer.cancel()


class _Sender:
    """Sends the signals of a run, each at its moment."""

    def __init__(self, child: Child, run: Run, signals: list[tuple[signal.Signals, Moment]]) -> None:
        self._child, self._run, self._signals = child, run, signals
        self._timer: threading.Timer | None = None

    def notice(self, kind: str, nth: int) -> None:
        """Start the delay when the line of the first moment has come."""
        if (
            self._timer is None
            and self._signals
            and (kind, nth) == (self._signals[0][1].after, self._signals[0][1].nth)
        ):
            self._begin()

    def cancel(self) -> None:
        """Send nothing more."""
        self._signals = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def _begin(self) -> None:
        self._timer = threading.Timer(self._signals[0][1].delay_s, self._send)
        self._timer.start()

    def _send(self) -> None:
        (number, _), *self._signals = self._signals or [(signal.Signals.SIGKILL, Moment("", 0.0))]
        if self._run.signalled_s is None:
            self._run.signalled_s = time.monotonic()
        self._child.send_signal(number)
        if self._signals:
            self._begin()


def _processes(marker: str) -> Iterator[str]:
    """Yield the command lines of living processes that were started with a run's marker."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            if marker.encode() in (folder / "environ").read_bytes():
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def phase_of(session: Path | None, run: Run) -> str:
    """Tell from what a killed run left behind what it was doing."""
    if session is None:
        return "opening devices" if not run.events else "creating the session"
    opened = any(e["event"] == "session_opened" for e in run.events)
    if run.resumed and not opened:
        return "opening devices"
    if not (session / "journal.jsonl").is_file():
        return "creating the session"
    rows, _ = read_rows(session)
    journal = (session / "journal.jsonl").read_bytes()
    if journal and not journal.endswith(b"\n"):
        return "writing a journal row"
    return _phase_of_rows(session, rows, run)


def _phase_of_rows(session: Path, rows: list[dict[str, Any]], run: Run) -> str:
    acts, take, unchecked = [], None, 0
    for row in rows[max((i for i, r in enumerate(rows) if r["kind"] == "run_started"), default=0) :]:
        if row["kind"] == "intent":
            acts.append(row["act"])
        elif row["kind"] == "outcome":
            acts.remove(row["act"])
        elif row["kind"] == "take_intent":
            take = row
        elif row["kind"] == "take_outcome":
            take, unchecked = None, unchecked + (row["state"] == "valid")
        elif row["kind"] == "take_checked":
            unchecked -= 1
    parts = [p.name for p in (session / "rounds").rglob("*.part")] if take else []
    if any(p.startswith("main-") for p in parts):
        return "fetching the movie"
    if parts:
        return "writing a small file"
    return _phase_of_acts(acts, take, unchecked, rows[-1]["kind"], run)


def _phase_of_acts(acts: list[str], take: dict[str, Any] | None, unchecked: int, last: str, run: Run) -> str:
    if acts:
        return {"home": "homing", "sweep": "sweeping", "approach": "going to the start"}.get(
            acts[-1], "configuring" if acts[-1].startswith("set_") else acts[-1].replace("_", " ")
        )
    if take is not None:
        steps = [e["text"] for e in run.events if e["event"] == "step"]
        if last == "saved":
            return "journaling saved files"
        return {"recording": "starting or resting"}.get(steps[-1] if steps else "", "rendering and closing")
    return "live check" if unchecked > 0 else "between rounds"


def _never_judged(rows: list[dict[str, Any]]) -> list[str]:
    """List valid takes whose live check led to no decision: a kill between check and decision must not lose it."""
    states = {(r["round"], r["take"]): r["state"] for r in rows if r["kind"] == "take_outcome"}
    kept = {(r["round"], r["take"]) for r in rows if r["kind"] == "take_kept"}
    return [f"take {k} was never judged" for k, state in states.items() if state == "valid" and k not in kept]


class Campaign:
    """Kills recorders until it has killed so many, and sees every session through to its end.

    Args:
        folder: A folder of its own.
        seed: Everything drawn follows from it.
        hardware: As `Bench` has it.
        nursery: As `Bench` has it.
    """

    def __init__(
        self, folder: Path, seed: int, hardware: Hardware | None = None, nursery: Nursery | None = None
    ) -> None:
        self.bench = Bench(folder, hardware, nursery)
        self.tally = Tally()
        self._draw = random.Random(seed)
        self._acknowledged: list[dict[str, Any]] = []
        self._witness: Witness | None = None
        self._dying: list[Run] = []

    def kill(self, count: int) -> Tally:
        """Kill so often, over as many sessions as that takes."""
        while self.tally.kills < count and not self.tally.violations:
            self._record_one_session(count)
        return self.tally

    def _record_one_session(self, count: int) -> None:
        self.bench.forget_session()
        self._acknowledged, self._witness = [], None
        for _ in range(MOST_RUNS):
            lethal = self.tally.kills < count
            run = self._run(draw_moment(self._draw) if lethal else None)
            if run.code not in {-signal.SIGKILL, 6}:  # complete, or broken for good
                break
        self._end_session(run)

    def _run(self, moment: Moment | None) -> Run:
        run = self.bench.run(*([] if moment is None else [(signal.SIGKILL, moment)]))
        self.tally.runs += 1
        self._acknowledged += run.saved
        session = self.bench.session
        if run.code == -signal.SIGKILL:
            self._count_kill(session, run)
        elif run.code not in {0, 6}:
            self._accuse(f"exit {run.code} ({moment}): {run.stderr[-400:]}")
        if session is not None:
            self._witness = self._witness or Witness(session)
            self._accuse(*self._witness.look(self._acknowledged))
        elif self._acknowledged:
            self._accuse("files were acknowledged and there is no session")
        self._await_children(run)
        return run

    def _count_kill(self, session: Path | None, run: Run) -> None:
        self.tally.kills += 1
        self.tally.phases[phase_of(session, run)] += 1
        self.tally.double_kills += run.resumed and not any(e["event"] == "round_started" for e in run.events)

    def _await_children(self, run: Run) -> None:
        """Half of the time the next run begins while the children of the killed one may still be alive."""
        self._dying.append(run)
        if run.code == 0 or self._draw.random() < 0.5:
            for over in self._dying:
                lasted_s, left = self.bench.await_death_of_children(over)
                self.tally.longest_survival_s = max(self.tally.longest_survival_s, lasted_s)
                self._accuse(*left)
            self._dying = []

    def _end_session(self, last: Run) -> None:
        session = self.bench.session
        self.tally.sessions += 1
        self.tally.acknowledged += len(self._acknowledged)
        if last.code != 0 or session is None or not is_complete(session):
            self._accuse(f"the session was not completed, exit {last.code}: {last.stderr[-400:]}")
            return
        rows, _ = read_rows(session)
        self.tally.takes += sum(r["kind"] == "take_intent" for r in rows)
        self._accuse(*_never_judged(rows), *self.bench.litter())

    def _accuse(self, *found: str) -> None:
        self.tally.violations += [f"session {self.tally.sessions}, run {self.tally.runs}: {f}" for f in found]


def kill_lot(folder: Path, seed: int, kills: int, nursery: Nursery) -> Tally:
    """Kill so often: three seeds of four with hardware that outlives the recorders and forks them from a nursery.

    The fourth has a rig and an interpreter for each run.
    """
    with ExitStack() as stack:
        outliving = seed % 4 != 3
        shared = (stack.enter_context(Hardware(folder / "hardware")), nursery) if outliving else ()
        tally = Campaign(folder / "bench", seed, *shared).kill(kills)
    tally.violations = [f"seed {seed}: {v}" for v in tally.violations]
    return tally
