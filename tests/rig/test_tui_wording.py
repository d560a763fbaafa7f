"""What the screens say: ages, silence, loss, in words and signs; strings of devices are data."""

from __future__ import annotations

import pytest
from tui_peer import NOW_S, camera, picture, rail, state

from rig.clock import SessionClock
from rig.events import EngineMode, RigState, TakeFinished
from rig.tui.event_lines import event_line
from rig.tui.exposure_check import compare, doubts
from rig.tui.situation import Command, Situation
from rig.tui.themes import THEMES
from rig.tui.widgets.banner import banner_lines
from rig.tui.widgets.position_bar import figures
from rig.tui.wording import bars, camera_cell, clock_cell, data_text, disk_cell, rail_cell, strip_cells


def situation(shown: RigState | None = None, **changes: object) -> Situation:
    values: dict[str, object] = {
        "now_s": NOW_S, "rig": "bench-a", "link": "connected", "state": shown or state(), "state_received_s": NOW_S,
        "clock": SessionClock(), "in_control": True,
    }  # fmt: skip
    return Situation(**{**values, **changes})  # type: ignore[arg-type]


def test_a_fresh_rail_shows_its_position_and_age() -> None:
    cell = rail_cell(situation())

    assert cell.text(details=True, ages=True) == "RAIL ● homed 212.4mm 0.1s"


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (0.4, "RAIL ● homed"),
        (0.7, "RAIL ◐ no answer 0.7s"),
        (2.9, "RAIL ◐ no answer 2.9s"),
        (3.5, "RAIL ✕ gone 3.5s"),
    ],
)
def test_silence_of_the_rail_is_said_whatever_the_width(age_s: float, text: str) -> None:
    cell = rail_cell(situation(state(rail=rail(t_host_s=NOW_S - age_s))))

    assert cell.text(details=False, ages=False) == text


def test_a_rail_that_rests_while_the_camera_copies_is_no_alarm() -> None:
    shown = state(rail=rail(t_host_s=NOW_S - 5, state="idle", velocity_mm_s=0.0))

    assert rail_cell(situation(shown)).word == "rests"


def test_a_rail_that_fell_silent_in_motion_has_no_position() -> None:
    parts = figures(situation(state(rail=rail(t_host_s=NOW_S - 4))), 80)

    assert parts == [("✕ no answer from the rail for 4.0s: position unknown", "$bad bold")]


def test_ages_are_this_machine_s_seconds_on_a_rig_that_runs_faster() -> None:
    """At eight times real time, a reading of 4 session seconds ago is half a second old."""
    fast = situation(clock=SessionClock(origin_s=0.0, rate=8.0))

    assert fast.age_s(8 * NOW_S - 4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (camera(), "CAM ● ok"),
        (camera(connected=False, text="not found"), "CAM ✕ gone"),
        (camera(battery_percent=15), "CAM ▲ battery 15%"),
        (camera(hot=True), "CAM ▲ hot"),
        (camera(text="held by gvfsd-gphoto2 (pid 812)"), "CAM ▲ held by gvfsd-gphoto2 (pid 812)"),
    ],
)
def test_the_camera_s_trouble_is_in_the_strip(reading: object, text: str) -> None:
    cell = camera_cell(situation(state(cameras={"main": reading})))

    assert cell.text(details=False, ages=False) == text


def test_a_camera_that_is_gone_is_explained() -> None:
    gone = state(cameras={"main": camera(connected=False, text="not found under serial 6001234")})

    assert banner_lines(situation(gone)) == ["▲ CAMERA main gone: not found under serial 6001234"]


@pytest.mark.parametrize(
    ("free_gb", "round_gb", "text"),
    [(412.0, None, "DISK ● 412G"), (7.0, 2.0, "DISK ▲ 2 rounds left"), (1.5, 2.0, "DISK ✕ 1.5G full")],
)
def test_the_disk_counts_in_rounds_once_their_size_is_known(
    free_gb: float, round_gb: float | None, text: str
) -> None:
    """7 GB less the reserve of 2 GB hold 2 rounds of 2 GB."""
    cell = disk_cell(situation(state(disk_free_gb=free_gb), round_gb=round_gb))

    assert cell.text(details=False, ages=False) == text


def test_a_jump_of_the_wall_clock_is_shown_and_nothing_else_happens() -> None:
    assert clock_cell(situation(clock_jump_s=3600.2)).text(details=False, ages=False) == "CLK ▲ +3600 s"


def test_an_observer_is_told_who_is_in_control_and_that_stop_works() -> None:
    lines = banner_lines(situation(state(controller="tui (7)"), in_control=False))

    assert lines == ["▲ OBSERVING: tui (7) controls the rig; t asks for control; STOP works"]


def test_a_lock_says_why_where_and_how_to_get_out() -> None:
    locked = state(
        mode=EngineMode.LOCKED,
        why="controller restarted; position unknown since 14:02:18 UTC",
        rail=rail(homed=False, position_mm=None, state="locked", fault="reset in motion"),
    )

    assert banner_lines(situation(locked)) == [
        "✕ LOCKED: controller restarted; position unknown since 14:02:18 UTC",
        "position unknown (last heard of 0.1s ago); inspect the rail → u unlock → h home → r redo the round",
    ]


def test_a_hold_keeps_its_position() -> None:
    lines = banner_lines(situation(state(mode=EngineMode.HOLD, why="stopped by tui (1)")))

    assert lines[0] == "■ HOLD: stopped by tui (1)"
    assert lines[1].startswith("position 212.40 mm (0.1s ago); inspect the rail → u leave the hold")


def test_a_lost_engine_makes_everything_unknown() -> None:
    lost = situation(link="lost", link_text="it ended", now_s=NOW_S + 4)

    assert lost.mode is EngineMode.OFFLINE
    assert lost.can_move
    assert "✕ gone" in rail_cell(lost).text(details=True, ages=True)
    assert banner_lines(lost)[0] == "✕ ENGINE GONE: it ended"


@pytest.mark.parametrize(
    ("shown", "moves"),
    [
        (state(), True),
        (state(mode=EngineMode.ARMED, rail=rail(velocity_mm_s=0.0)), True),
        (state(mode=EngineMode.READY, rail=rail(velocity_mm_s=0.0)), False),
        (state(mode=EngineMode.READY, rail=rail(velocity_mm_s=5.0)), True),
        (state(mode=EngineMode.LOCKED, rail=rail(velocity_mm_s=0.0)), False),
    ],
)
def test_space_is_a_letter_only_when_nothing_can_move(shown: RigState, moves: bool) -> None:
    assert situation(shown).can_move is moves


def test_without_news_from_the_engine_everything_can_move() -> None:
    still = state(mode=EngineMode.READY, rail=rail(velocity_mm_s=0.0))

    assert situation(still, now_s=NOW_S + 3.5).can_move


def test_the_commanded_speed_is_a_trapezoid() -> None:
    """40 mm/s at 200 mm/s² needs 4 mm; half the way up, 2 mm before, it is 40/√2 mm/s."""
    command = Command(start_mm=60, end_mm=340, velocity_mm_s=40, acceleration_mm_s2=200)

    assert command.ramp_mm == pytest.approx(4.0)
    assert command.target_mm == pytest.approx(344.0)
    assert [command.velocity_at(x) for x in (50, 58, 200, 344)] == pytest.approx([0, 28.284, 40, 0], abs=1e-3)


def test_device_strings_steer_neither_terminal_nor_markup() -> None:
    hostile = "\x1b[2J[bold red]x[/]\r\nEvil\x07"

    assert data_text(hostile) == "[2J[bold red]x[/] Evil"
    line = event_line(TakeFinished(t_host_s=0, round="gt", take=1, state="void", reason=hostile, frames=0))
    assert line is not None
    assert line.text == "gt take 1 ✕ void: [2J[bold red]x[/] Evil"


def test_every_state_of_the_strip_has_a_sign_or_a_word() -> None:
    for cell in strip_cells(situation()):
        assert cell.word


def test_bars_scale_to_the_largest_and_show_what_is_small() -> None:
    assert bars((0, 1, 8), 3) == " ▁█"
    assert bars((1, 1, 4, 4), 2) == "▂█"


def test_the_picture_before_a_round_is_held_against_the_ground_truth() -> None:
    before = picture()
    blurred = before.model_copy(update={"sharpness": 10.0, "clipped_percent": 30.0, "markers_seen": 0})

    assert doubts(before, before) == []
    assert len(doubts(before, blurred)) == 3
    assert compare(None, before)[1] == "no GT picture to compare with"


def _luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    codes = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in codes]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", THEMES, ids=lambda t: t.name)
def test_text_is_legible_in_every_theme(theme: object) -> None:
    """At least 4.5 : 1, on the ground and on raised parts (WCAG 2.2, level AA)."""
    variables, grounds = theme.variables, (theme.background, theme.surface)  # type: ignore[attr-defined]
    pairs = [(variables[n], g) for n in ("ok", "warn", "bad", "faint", "lead") for g in grounds]
    pairs += [(theme.foreground, g) for g in grounds]  # type: ignore[attr-defined]
    pairs.append((variables["stop-text"], variables["stop-back"]))

    for text, ground in pairs:
        light, dark = sorted((_luminance(text), _luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_in_a_hold_the_session_has_ended() -> None:
    assert situation(state()).session_runs
    assert not situation(state(mode=EngineMode.HOLD)).session_runs
