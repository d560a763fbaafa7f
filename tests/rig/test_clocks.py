"""The wall clock may jump as it likes: it annotates, and nothing else hangs on it.

Fifty schedules of jumps while sessions are begun and journaled; and a list of all places that read the wall clock.
"""

from __future__ import annotations

import ast
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_checker import is_complete, violations

from catalog.session_folder import RoundRecord, SessionFolder, SessionRecord, TakeRecord, TelemetrySample
from rig.clock import SessionClock
from rig.session import SessionRecorder

REPOSITORY = Path(__file__).parents[2]
SCHEDULES = 50
HOUR_S, SUSPEND_S = 3600.0, 600.0
JUMPS_S = (HOUR_S, -HOUR_S, -1.0, 1.0, SUSPEND_S, -30 * 24 * HOUR_S, 0.3, 0.0)
"""Daylight saving and back, a leap second repeated or left out, a suspend, a clock that was a month ahead, slewing."""
ROUNDS = tuple(RoundRecord(number=k, name=f"r{k}", role="gt") for k in (1, 2))
ANNOTATIONS = {
    "catalog/events.py": "when a decision was taken, and a batch's name, unique without it",
    "catalog/export_freeze.py": "when an export was made",
    "catalog/import_pairs.py": "when a dataset was imported",
    "catalog/listing.py": "prints a stored time",
    "catalog/near_cache.py": "beside the times of files, so that copies in use are spared",
    "catalog/store.py": "names a backup",
    "catalog/verify.py": "when a file was verified",
    "alignment/calibration/document.py": "when a calibration was made",
    "alignment/report_words.py": "prints a stored time",
    "rig/check.py": "compares the two clocks",
    "rig/clock.py": "UTC beside the session clock",
    "rig/devices/gphoto2_state.py": "sets and compares the camera's own clock, for its files' dates",
    "rig/engine/session.py": "when a session was begun",
    "rig/engine/state.py": "since when the position is unknown, in a sentence",
    "rig/footage.py": "when footage was imported",
    "rig/safety.py": "when the safety list was confirmed",
    "rig/session.py": "in a session's name, made unique by its folder",
    "rig/sim/ptp_canon_settings.py": "the simulated body's own clock",
    "rig/sim/ptp_settings.py": "the simulated body's own clock",
    "rig/tui/knowledge.py": "the time of day beside a line of the log",
    "rig/tui/widgets/event_log.py": "prints a stored time",
}
WALL = {
    "time": {"time", "time_ns", "gmtime", "localtime", "ctime", "strftime", "asctime"},
    "datetime": {"now", "utcnow", "today", "fromtimestamp", "utcfromtimestamp"},
    "date": {"today"},
}


class Wall:
    """A wall clock under the test's control; the monotonic one goes on as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        true_ns, gmtime = time.time_ns, time.gmtime
        monkeypatch.setattr(time, "time_ns", lambda: true_ns() + int(self._ahead_s * 1e9))
        monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
        monkeypatch.setattr(time, "gmtime", lambda s=None: gmtime(time.time() if s is None else s))

    def jump(self, by_s: float) -> None:
        """Set the clock."""
        self._ahead_s += by_s


@pytest.fixture
def wall(monkeypatch) -> Wall:
    return Wall(monkeypatch)


def record_named(name: str) -> SessionRecord:
    return SessionRecord(
        session=name,
        scene="shelf",
        created_utc_us=time.time_ns() // 1000,
        source="captured",
        rig="sim",
        simulated=True,
        cameras=(),
        boards=(),
        rounds=ROUNDS,
        plan={"rounds": [{"name": r.name} for r in ROUNDS]},
    )


def record_session(sessions: Path, wall: Wall, jumps_s: Iterator[float]) -> tuple[Path, list[dict]]:
    """Record a session of two rounds with a void take between them, the wall jumping before every act."""
    saved: list[dict] = []
    wall.jump(next(jumps_s))
    with SessionRecorder.begin(sessions, "shelf", SessionClock(), record=record_named) as recorder:
        recorder.note("run_started", rounds=[r.name for r in ROUNDS])
        for attempt, round_ in enumerate((ROUNDS[0], ROUNDS[1], ROUNDS[1])):
            wall.jump(next(jumps_s))
            take = recorder.begin_take(round_)
            take.on_saved(
                lambda path, file: saved.append(
                    {"path": path, "sha256": file.sha256, "size_bytes": file.size_bytes}
                )
            )
            with recorder.act("sweep"):
                wall.jump(next(jumps_s))
                take.save_telemetry("telemetry.csv", [TelemetrySample(float(attempt), 1.0, 2.0, "idle")])
            wall.jump(next(jumps_s))
            if attempt == 1:
                take.void("stopped")
            else:
                take.finish(TakeRecord(round=round_, take=take.number, cameras={}, files=take.files))
    return recorder.folder, saved


def essence(session: Path) -> list[tuple[object, ...]]:
    """Return what a journal says, without times, its chain and the jumps that it notes."""
    rows = [json.loads(line) for line in (session / "journal.jsonl").read_text().splitlines()]
    left_out = {"seq", "t_utc_us", "t_host_s", "prev", "crc32", "session", "sha256", "size_bytes"}
    return [
        tuple((k, str(v)) for k, v in row.items() if k not in left_out)
        for row in rows
        if row["kind"] != "wall_clock_jumped"
    ]


@pytest.mark.parametrize("seed", range(5))
def test_wall_clock_jumps_change_no_order_no_state_and_no_name(tmp_path, wall, seed: int):
    draw = random.Random(seed)
    steady, _ = record_session(tmp_path / "steady", wall, iter([0.0] * 20))
    sessions = tmp_path / "sessions"
    for schedule in range(SCHEDULES // 5):
        jumps_s = [draw.choice(JUMPS_S) for _ in range(20)]

        session, saved = record_session(sessions, wall, iter(jumps_s))

        assert len(list(sessions.iterdir())) == schedule + 1, "two sessions share a name"
        assert violations(session, saved) == [], jumps_s
        assert is_complete(session)
        assert essence(session) == essence(steady), jumps_s
        states = [(t.round.name, t.number, t.state) for t in SessionFolder(session).takes()]
        assert states == [("r1", 1, "valid"), ("r2", 1, "void"), ("r2", 2, "valid")]


def test_sessions_of_an_hour_that_comes_twice_have_names_of_their_own(tmp_path, wall):
    names = []
    for back_s in (0.0, -HOUR_S, HOUR_S, -HOUR_S):
        wall.jump(back_s)
        with SessionRecorder.begin(tmp_path, "shelf", SessionClock(), record=record_named) as recorder:
            names.append(recorder.folder.name)

    assert len(set(names)) == 4
    assert all(name.startswith("shelf-20") for name in names)


def test_a_jump_is_journaled_with_its_size_and_a_slew_is_not(tmp_path, wall):
    with SessionRecorder.begin(tmp_path, "shelf", SessionClock(), record=record_named) as recorder:
        for by_s in (-HOUR_S, 0.3, SUSPEND_S):
            wall.jump(by_s)
            recorder.note("look")

    rows = SessionFolder(recorder.folder).journal().rows
    jumps_s = [row.get("jumped_s") for row in rows if row.kind == "wall_clock_jumped"]
    assert jumps_s == [pytest.approx(-HOUR_S, abs=0.5), pytest.approx(SUSPEND_S, abs=0.5)]


def test_the_session_clock_does_not_know_the_wall_clock(wall):
    clock = SessionClock(origin_s=time.monotonic(), rate=8)
    before_s = clock.now()

    wall.jump(-HOUR_S)

    assert before_s <= clock.now() < before_s + 8 * 60


def test_everybody_who_reads_the_wall_clock_is_known_to_annotate():
    """A new reader belongs on the list with its purpose, or should use `time.monotonic` or the session clock."""
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("rig", "alignment", "catalog")
        for path in (REPOSITORY / package).rglob("*.py")
        if _reads_wall_clock(ast.parse(path.read_text()))
    }

    assert found - set(ANNOTATIONS) == set()


def _reads_wall_clock(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.attr in WALL.get(node.value.id, ())
        for node in ast.walk(tree)
    )
