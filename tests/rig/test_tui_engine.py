"""The screens in front of a real engine with the small simulated rig: home, jog, stop, leave."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_rig import write_profile
from textual.pilot import Pilot

from rig.events import EngineMode
from rig.profile import RigProfile
from rig.runtime import running_engines
from rig.tui.app import OperatorApp
from rig.tui.knowledge import Knowledge
from rig.tui.link import LiveLink
from rig.tui.screens.choice_card import ChoiceCard
from rig.tui.screens.start_card import StartCard
from rig.tui.stop_keys import StopTarget


@pytest.fixture(autouse=True)
def no_engine_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield
    for engine in running_engines():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(engine.name.rpartition("-")[2]), signal.SIGTERM)


async def until(pilot: Pilot[int], so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if so():
            return
        await pilot.pause(0.05)
    raise AssertionError(f"never so, on {pilot.app.screen}")


@pytest.mark.timeout(180)
async def test_a_rig_is_homed_jogged_stopped_and_left_by_keys(tmp_path: Path) -> None:
    path = write_profile(tmp_path)
    profile, target = RigProfile.load(str(path)), StopTarget()
    link = LiveLink(profile, str(path), name="tui (1)", data=tmp_path / "data", photos=None, target=target)
    app = OperatorApp(
        profile, link=link, knowledge=Knowledge(profile.name, "tui (1)"), data=tmp_path / "data"
    )

    def position_mm() -> float:
        state = app.situation().state
        return float("nan") if state is None or state.rail is None else state.rail.position_mm or 0.0

    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.situation().mode is EngineMode.CONNECTED)
        assert app.situation().in_control
        assert target.path is not None
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, StartCard))
        await pilot.press("enter")
        await until(pilot, lambda: app.situation().mode is EngineMode.READY)
        homed_mm = position_mm()

        await pilot.press("right")
        await until(pilot, lambda: position_mm() > homed_mm + 0.5)
        assert position_mm() <= homed_mm + 1.01

        await until(pilot, lambda: app.situation().mode is EngineMode.READY and not app.situation().can_move)
        await pilot.press("h")
        await until(pilot, lambda: isinstance(app.screen, StartCard))
        await pilot.press("space")
        await until(pilot, lambda: any("STOP by" in line.text for _, line in app.knowledge.lines))
        await pilot.press("enter")
        await until(pilot, lambda: any("refused" in line.text for _, line in app.knowledge.lines))

        await pilot.press("escape", "q")
        await until(pilot, lambda: isinstance(app.screen, ChoiceCard))
        await pilot.press("d")

    assert app.return_code == 0
