"""The screens by their keys, in front of an engine's end that replays: stop everywhere, two steps, cards, sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_rig import write_plan
from textual.widgets import Input
from tui_peer import (
    NOW_S,
    app_showing,
    camera,
    condition_card,
    happenings,
    picture,
    rail,
    session,
    showing,
    state,
)

from rig.events import Armed, Asked, EngineMode, Event
from rig.plan import CapturePlan
from rig.requests import (
    AnswerCard,
    ArmHome,
    ArmSession,
    ClearFault,
    Command,
    EndSession,
    Go,
    Jog,
    Pause,
    Proceed,
    Redo,
    Shutdown,
)
from rig.tui.actions import ACTIONS
from rig.tui.app import OperatorApp
from rig.tui.plain import PlainSession
from rig.tui.screens.ask_card import AskCard
from rig.tui.screens.dashboard import DashboardScreen
from rig.tui.screens.start_card import StartCard
from rig.tui.widgets.status_strip import STOP_TEXT, StatusStrip

ARMED = Armed(
    t_host_s=NOW_S, token="t", act="session", lines=("from 19 to 71 mm",), word="MOVE", valid_s=600.0
)
READY = state(mode=EngineMode.READY, rail=rail(state="idle", velocity_mm_s=0.0), session=None)
CARD_UP = state(mode=EngineMode.PAUSED, card_id=7, card=condition_card())


PLACES: dict[str, tuple[list[Event], tuple[str, ...], str]] = {
    "dashboard": ([state()], ("1",), "DashboardScreen"),
    "plan": ([state()], ("2",), "PlanScreen"),
    "text field of the plan screen": ([state()], ("2", "shift+tab"), "PlanScreen"),
    "capture": ([state()], ("3",), "CaptureScreen"),
    "start card": ([state(), ARMED], (), "StartCard"),
    "operator card": ([CARD_UP], (), "AskCard"),
    "reason of an operator card": ([CARD_UP], ("tab", "down", "enter"), "AskCard"),
    "help": ([state()], ("question_mark",), "HelpCard"),
    "palette": ([state()], ("ctrl+p",), "ActionPalette"),
    "quit": ([state()], ("q",), "ChoiceCard"),
    "end": ([state()], ("e",), "ChoiceCard"),
}


def test_every_screen_and_every_modal_is_among_the_places() -> None:
    """What has a file in `screens` and is a screen must be in the table above."""
    from rig.tui import screens

    sources = [p.read_text() for p in Path(str(next(iter(screens.__path__)))).glob("*.py")]
    defined = {
        name
        for text in sources
        for name, bases in re.findall(r"^class (\w+)\(([^)]*)\)", text, re.MULTILINE)
        if re.search(r"OperatorModal|ModeScreen|CommandPalette", bases)
    }

    assert defined == {screen for _, _, screen in PLACES.values()}


async def test_stop_works_and_is_named_everywhere() -> None:
    async with showing(state()) as it:
        for place, (shown, typed, screen) in PLACES.items():
            for event in shown:
                await it.hear(event)
            await it.press(*typed)
            await it.settle()
            assert type(it.app.screen).__name__ == screen, place
            assert STOP_TEXT in str(it.app.screen.query_one(StatusStrip).render()), place
            it.link.stops.clear()

            await it.press("space", "exclamation_mark")

            assert len(it.link.stops) == 2, place
            assert it.link.stops[1] == b"estop", place
            if it.app.screen.is_modal:
                it.app.pop_screen()
            it.app.switch_mode("dashboard")
            await it.hear(state())


async def test_space_twice_is_an_e_stop_and_a_click_on_the_strip_stops() -> None:
    async with showing(state()) as it:
        await it.press("space")
        assert it.link.stops == [b"stop"]
        await it.press("space")
        await it.pilot.click("#strip", offset=(3, 0))

    assert it.link.stops == [b"stop", b"estop", b"estop"]


async def test_space_is_a_letter_in_a_field_while_nothing_can_move() -> None:
    async with showing(READY) as it:
        await it.press("2", "shift+tab", "a", "space", "b")
        await it.settle()

        assert it.app.screen.query_one(Input).value == "a b"
        assert it.app.text_window.open
    assert it.link.stops == []


async def test_the_relay_s_window_closes_when_something_can_move() -> None:
    async with showing(READY) as it:
        await it.press("2", "shift+tab")
        await it.settle()
        assert it.app.text_window.open

        await it.hear(state())

        assert not it.app.text_window.open


async def test_a_real_rig_starts_only_by_the_word() -> None:
    async with showing(READY, ARMED) as it:
        await it.press("enter", "m", "enter")
        assert it.link.sent == []

        await it.press("M", "O", "V", "E", "enter")

    assert it.link.sent == [Go(token="t", word="MOVE")]


async def test_a_simulated_rig_starts_by_enter_and_escape_goes_back() -> None:
    armed = ARMED.model_copy(update={"word": ""})
    async with showing(READY, armed) as it:
        await it.press("escape")
        assert not isinstance(it.app.screen, StartCard)
        await it.hear(armed)
        await it.press("enter")

    assert it.link.sent == [Go(token="t", word="")]


async def test_what_is_begun_from_the_plan_is_followed_on_the_dashboard() -> None:
    async with showing(READY) as it:
        await it.press("2")
        await it.hear(ARMED.model_copy(update={"word": ""}))
        await it.press("enter")

        await it.show(DashboardScreen)

    assert it.link.sent == [Go(token="t", word="")]


async def test_an_armed_card_that_waits_too_long_goes_away() -> None:
    async with showing(READY, ARMED.model_copy(update={"valid_s": 0.0})) as it:
        assert not isinstance(it.app.screen, StartCard)
    assert it.link.sent == []


async def test_a_plan_is_chosen_seen_and_armed_in_few_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = write_plan(tmp_path)
    monkeypatch.chdir(tmp_path)
    async with showing(READY, data=tmp_path) as it:
        await it.press("s", "enter")
        shown = str(it.app.screen.query_one("#forecast").render())
        await it.press("s")

    assert "✓ valid   scene test-shelf" in shown
    assert "3 rounds, about" in shown
    assert it.link.sent == [ArmSession(plan_yaml=plan.read_text())]
    assert CapturePlan.load(plan).scene == "test-shelf"


async def test_a_broken_plan_shows_line_and_column_and_cannot_be_started(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    plan.write_text(plan.read_text().replace("velocity_mm_s: 60", "velocity_mm_s: fast"))
    async with showing(READY, data=tmp_path) as it:
        await it.press("2", "shift+tab")
        it.app.screen.query_one(Input).value = str(plan)
        await it.press("enter", "1", "s")
        shown = str(it.app.screen.query_one("#forecast").render())

    assert re.search(r"plan\.yaml:\d+:\d+", shown)
    assert it.link.sent == []


async def test_a_card_wants_its_list_ticked_first() -> None:
    async with showing(CARD_UP) as it:
        await it.press("n")
        assert it.link.sent == []

        await it.press("enter", "down", "enter", "down", "enter", "n")

    assert it.link.sent == [AnswerCard(card_id=7, choice="done")]


async def test_a_choice_that_needs_a_reason_asks_for_it() -> None:
    async with showing(CARD_UP) as it:
        await it.press("tab", "down", "enter", *"fog", "enter")

    assert it.link.sent == [AnswerCard(card_id=7, choice="skip", reason="fog")]


async def test_a_picture_that_clips_is_refused_without_a_reason() -> None:
    gt = state(session=session(), mode=EngineMode.RUNNING)
    assert gt.session is not None
    running_gt = session(
        rounds=tuple(r.model_copy(update={"state": "running"}) for r in gt.session.rounds[:1])
    )
    clipped = picture().model_copy(update={"clipped_percent": 40.0})
    async with showing(state(session=running_gt), picture(), CARD_UP, clipped) as it:
        await it.press("enter", "down", "enter", "down", "enter", "n")
        await it.settle()
        shown = str(it.app.screen.query_one("#comparison").render())
        assert it.link.sent == []

        await it.press(*"seen", "enter")

    assert "▲ 40 % of the picture is clipped, in GT 0 %" in shown
    assert it.link.sent == [AnswerCard(card_id=7, choice="done", reason="seen")]


async def test_a_card_that_somebody_else_answered_goes_away() -> None:
    async with showing(CARD_UP) as it:
        assert isinstance(it.app.screen, AskCard)

        await it.hear(state())

        assert not isinstance(it.app.screen, AskCard)


WISHES: list[tuple[Event, str, list[Command]]] = [
    (READY, "h", [ArmHome()]),
    (state(), "p", [Pause()]),
    (state(mode=EngineMode.PAUSED), "n", [Proceed()]),
    (state(), "r r", [Redo(round="iso6400")]),
    (state(), "e f", [EndSession()]),
    (state(), "e n", [EndSession(now=True)]),
    (state(), "q escape", []),
    (state(mode=EngineMode.HOLD), "u u", [ClearFault()]),
    (state(), "h", []),  # not while a session runs
    (state(mode=EngineMode.LOCKED), "s", []),
    (READY.model_copy(update={"controller": "another"}), "h", []),  # an observer moves nothing
]


async def test_keys_ask_the_engine_for_what_they_say() -> None:
    async with showing(state()) as it:
        for shown, typed, sent in WISHES:
            await it.hear(shown)
            it.link.sent.clear()

            await it.press(*typed.split())

            assert list(dict.fromkeys(c.model_dump_json() for c in it.link.sent)) == [
                c.model_dump_json() for c in sent
            ], typed


@pytest.mark.parametrize(
    ("shown", "typed", "sent"), [(READY, "q d", [Shutdown()]), (state(), "q f", [EndSession()])]
)
async def test_leaving_tells_the_engine_what_was_chosen(
    shown: Event, typed: str, sent: list[Command]
) -> None:
    async with showing(shown) as it:
        await it.press(*typed.split())

    assert it.link.sent == sent


async def test_a_crawl_is_all_there_is_before_homing() -> None:
    unknown = rail(state="idle", homed=False, position_mm=None, velocity_mm_s=0.0)
    async with showing(state(mode=EngineMode.CONNECTED, rail=unknown, session=None)) as it:
        await it.press("shift+left")

    assert it.link.sent[0] == Jog(distance_mm=-10, velocity_mm_s=5, press=1)
    assert set(it.link.sent) == {it.link.sent[0]}, "renewals repeat the press, they begin nothing"


async def test_leaving_never_stops_silently() -> None:
    async with showing(state()) as it:
        await it.press("q", "n")

    assert it.link.stops == [b"stop"]
    assert it.link.sent == [EndSession(now=True)]


async def test_the_last_picture_of_a_lost_camera_is_not_shown() -> None:
    async with showing(state(), picture()) as it:
        assert "▀▀▀▀" in it.text("#preview")

        await it.hear(state(cameras={"main": camera(connected=False, text="not found")}))

        assert "▀" not in it.text("#preview")
        assert "✕ camera gone: not found" in it.text("#preview")


@pytest.mark.parametrize("size", [(79, 24), (80, 23), (40, 10)])
async def test_a_terminal_that_is_too_small_says_so_and_stops(size: tuple[int, int]) -> None:
    async with showing(state(), size=size) as it:
        await it.press("space")

        assert it.app.screen.query_one("#too-small").display
        assert not it.app.screen.query_one("#body").display
    assert it.link.stops == [b"stop"]


async def test_pages_of_a_narrow_terminal_show_every_panel() -> None:
    seen: set[str] = set()

    async with showing(state(), *happenings(), size=(80, 24)) as it:
        for _ in range(3):
            await it.settle()
            seen |= {w.id for w in it.app.screen.query("#body *") if w.id and w.display and w.region.area}
            await it.press("v")

    assert seen >= {"rail", "velocity", "rounds", "preview", "figures", "events"}


def test_bindings_are_the_registry_s() -> None:
    bound = {(b.key, b.action) for b in OperatorApp.BINDINGS}  # type: ignore[union-attr]

    assert bound == {(key, a.name) for a in ACTIONS for key in a.keys}
    assert len({key for key, _ in bound}) == len(bound), "no key twice"
    assert {b.action for b in OperatorApp.BINDINGS if b.priority} == {"stop", "e_stop"}  # type: ignore[union-attr]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: a.name)
def test_every_action_is_a_method_of_the_application(action: object) -> None:
    assert callable(getattr(OperatorApp, "action_" + action.name.split("(")[0]))  # type: ignore[attr-defined]


async def test_help_and_palette_list_the_registry() -> None:
    async with showing(READY) as it:
        await it.press("question_mark")
        shown = str(it.app.screen.query_one("#text").render())
        for a in ACTIONS:
            assert a.help in shown
        await it.press("escape", "ctrl+p")
        await it.settle()
        offered = {str(o.prompt).split("\n")[0] for o in it.app.screen.query_one("CommandList").options}  # type: ignore[attr-defined]

        assert offered == {a.label for a in ACTIONS if a.possible(it.app.situation())}


def test_every_action_with_a_word_can_be_typed() -> None:
    app, link = app_showing(READY)
    plain = PlainSession(app.profile, link, app.knowledge, typed=None, printed=None, photos=None)  # type: ignore[arg-type]
    words = {a.word.split(" ")[0] for a in ACTIONS if a.word} - {"stop", "estop", "quit"}

    assert words <= set(plain.words)


async def test_an_engine_that_goes_away_is_said_to_be_gone() -> None:
    async with showing(state(), picture(), Asked(t_host_s=0, card_id=1, card=condition_card())) as it:
        it.link.lost("it ended")
        await it.settle()

        assert "ENGINE GONE: it ended" in str(it.app.screen.query_one("#banner").render())
        assert "▀" not in it.text("#preview")
