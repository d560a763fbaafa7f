"""The table of rounds that every screen shows: what the runner's events make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from paper_session import ROUNDS, PaperSession
from small_rig import PLAN, write_profile

from rig.engine.progress import ProgressTracker
from rig.engine.session import SessionOrder
from rig.events import RoundStarted, SessionClosed, TakeChecked, TakeFinding, TakeFinished
from rig.plan import CapturePlan
from rig.profile import RigProfile

AT = {"t_host_s": 1.0, "round": "gt"}
STARTED = RoundStarted(**AT, number=1, role="gt", duration_s=5.0)
INTERRUPTED = SessionClosed(t_host_s=2.0, session="s1", folder="s1", complete=False)


@pytest.fixture
def tracker(tmp_path: Path) -> ProgressTracker:
    """Of a session that was given up in its first take."""
    paper = PaperSession(tmp_path)
    paper.give_up()
    plan = CapturePlan.model_validate(
        {**PLAN, "rounds": [r for r in PLAN["rounds"] if r["name"] in RECORDED]}
    )
    order = SessionOrder(plan, RigProfile.load(str(write_profile(tmp_path))), paper.sessions)
    return ProgressTracker(order, paper.folder)


RECORDED = {r.name for r in ROUNDS}


def states(tracker: ProgressTracker) -> list[tuple[str, str]]:
    return [(r.name, r.state) for r in tracker.progress.rounds]


def test_no_round_runs_once_the_session_is_closed(tracker: ProgressTracker):
    tracker.observe(STARTED)
    running = states(tracker)

    tracker.observe(INTERRUPTED)

    assert running == [("gt", "running"), ("dark", "waiting")]
    assert states(tracker) == [("gt", "void"), ("dark", "waiting")]


def test_the_ripple_of_a_take_is_that_of_its_speed_not_the_speed(tracker: ProgressTracker):
    speed = TakeFinding(what="velocity", verdict="ok", text="39.228 mm/s: uniform", value=39.228)
    tracker.observe(STARTED)
    tracker.observe(TakeFinished(**AT, take=2, state="valid", reason="", frames=40))

    tracker.observe(TakeChecked(**AT, take=2, findings=(speed,), ripple_percent=0.21))

    gt = tracker.progress.rounds[0]
    assert (gt.state, gt.frames, gt.ripple_percent) == ("valid", 40, 0.21)
