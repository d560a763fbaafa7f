"""How the screens look: fixed clocks and data, nothing animated. Regenerate with ``--snapshot-update`` and look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot
from tui_peer import (
    NOW_S,
    ReplayLink,
    app_showing,
    camera,
    condition_card,
    happenings,
    motion,
    picture,
    rail,
    state,
)

from rig.events import Armed, EngineMode, Event
from rig.tui.app import OperatorApp

SnapCompare = Callable[..., bool]
RUNNING = [state(), picture(), *happenings(), *motion()]
READY = state(mode=EngineMode.READY, rail=rail(state="idle", velocity_mm_s=0.0), session=None)
LOCKED = state(
    mode=EngineMode.LOCKED,
    why="controller restarted in motion; position unknown since 14:02:18 UTC",
    rail=rail(homed=False, position_mm=None, state="locked", velocity_mm_s=0.0, fault="reset"),
    cameras={"main": camera(connected=False, text="not found under serial 6001234")},
)
LINES = (
    "the carriage moves between 19.0 and 71.0 mm, 4 times",
    "top speed 120 mm/s on the way back; keep hands and cables clear of the whole rail",
    "about 4.2 min, 5.80 GB of 412.0 GB free",
)
ARMED = Armed(t_host_s=NOW_S, token="t", act="session", lines=LINES, word="MOVE", valid_s=10.0)
CARD = state(
    mode=EngineMode.PAUSED, card_id=7, card=condition_card(), rail=rail(state="idle", velocity_mm_s=0.0)
)


def look(link: ReplayLink, events: Sequence[Event], *keys: str) -> Callable[[Pilot[int]], Awaitable[None]]:
    """Say events and press keys one after the other; each time wait until every panel has been drawn."""

    async def drawn(pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, OperatorApp)
        app.animation_level = "none"
        enough = app.times_drawn + 5
        while app.times_drawn < enough:
            await pilot.pause(0.03)

    async def run(pilot: Pilot[int]) -> None:
        await drawn(pilot)
        for event in events:
            link.hear(event)
        await drawn(pilot)
        for key in keys:
            await pilot.press(key)
            await drawn(pilot)

    return run


CASES: dict[str, tuple[list[Event], tuple[int, int], tuple[str, ...]]] = {
    "dashboard-120x40": (RUNNING, (120, 40), ()),
    "dashboard-100x30": (RUNNING, (100, 30), ()),
    "dashboard-80x24": (RUNNING, (80, 24), ()),
    "capture-120x40": (RUNNING, (120, 40), ("3",)),
    "locked-120x40": ([*happenings(), LOCKED], (120, 40), ()),
    "start-card-100x30": ([READY, ARMED], (100, 30), ()),
    "operator-card-120x40": ([CARD, picture()], (120, 40), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_screens_look_as_reviewed(case: str, snap_compare: SnapCompare) -> None:
    events, size, keys = CASES[case]
    app, link = app_showing()

    assert snap_compare(app, terminal_size=size, run_before=look(link, events, *keys))


def test_the_plan_preview_looks_as_reviewed(
    snap_compare: SnapCompare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(__file__).parent.parent.parent / "hardware" / "plans" / "bookshelf.yaml"
    (tmp_path / "bookshelf.yaml").write_bytes(shipped.read_bytes())
    monkeypatch.chdir(tmp_path)
    app, link = app_showing(data=tmp_path)

    assert snap_compare(app, terminal_size=(120, 40), run_before=look(link, [READY], "2", "enter"))
