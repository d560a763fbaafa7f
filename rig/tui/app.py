"""The operator's application: modes, cards and actions over what the engine says; it owns no capture logic."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from textual import events
from textual.actions import parse
from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input

from rig.events import Armed, ControlAsked, EngineMode, Event, Refused
from rig.profile import RigProfile
from rig.requests import (
    AnswerCard,
    ArmHome,
    ArmSession,
    ClearFault,
    Command,
    EndSession,
    Go,
    HandOver,
    Pause,
    Proceed,
    Redo,
    Shutdown,
    TakeControl,
)
from rig.tui.actions import ACTIONS
from rig.tui.jogging import REPEAT_S, Jogger
from rig.tui.knowledge import Knowledge
from rig.tui.plan_preview import PlanPreview
from rig.tui.screens.ask_card import AskCard
from rig.tui.screens.capture import CaptureScreen
from rig.tui.screens.choice_card import Answer, ChoiceCard
from rig.tui.screens.dashboard import DashboardScreen
from rig.tui.screens.help_card import HelpCard
from rig.tui.screens.palette import ActionPalette, ActionProvider
from rig.tui.screens.plan import PlanScreen
from rig.tui.screens.start_card import StartCard
from rig.tui.situation import Situation
from rig.tui.stop_keys import TWICE_S, TextWindow
from rig.tui.themes import THEMES
from rig.tui.wording import data_text

_POLICIES = {
    "finish-round": "leave; by this rig's policy the round is finished, then the session ends, resumable",
    "hold": "leave; by this rig's policy this take ends void and the session pauses",
    "stop": "leave; by this rig's policy the carriage stops now, the session is resumable",
}


class EngineLink(Protocol):
    """The engine, as the application uses it; nothing here waits."""

    def open(self, hear: Callable[[Event], None], lost: Callable[[str], None]) -> None:
        """Begin to listen; both are called from the link's own thread, ``hear`` with every event in order."""

    def send(self, command: Command) -> None:
        """Ask for something; the answer comes as an event."""

    def stop(self, stop: bytes) -> None:
        """Send ``stop`` or ``estop`` on the stop socket."""

    def close(self) -> None:
        """Part."""


class OperatorApp(App[int]):
    """`rig tui`.

    Args:
        profile: The rig.
        link: Its engine.
        knowledge: What is known so far.
        data: Data folder.
        photos: Photographs for a simulated world.
        text_window: Shared with the relay of the stop key, where there is one.
    """

    CSS_PATH = "rig.tcss"
    TITLE = "rig"
    DEFAULT_MODE = "dashboard"
    COMMANDS = {ActionProvider}
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "dashboard": DashboardScreen,
        "plan": PlanScreen,
        "capture": CaptureScreen,
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, a.name, a.label, priority=a.urgent) for a in ACTIONS for key in a.keys
    ]

    def __init__(
        self,
        profile: RigProfile,
        *,
        link: EngineLink,
        knowledge: Knowledge,
        data: Path,
        photos: Path | None = None,
        text_window: TextWindow | None = None,
    ) -> None:
        super().__init__()
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name
        self.profile, self.data, self.knowledge = profile, data, knowledge
        self.text_window = text_window or TextWindow()
        self.event_filter = 0
        self.worst_lag_s = 0.0
        self.times_drawn = 0
        self._link, self._photos = link, photos
        self._chosen: ArmSession | None = None
        self._asks_for_control: int | None = None
        self._hidden_card: int | None = None
        self._last_stop_s = float("-inf")
        self._jogger = Jogger(link.send)
        self._stop_keys = {key: a.name for a in ACTIONS if a.urgent for key in a.keys}
        self._by_action = {_key(a.name): a for a in ACTIONS}

    # what the screens ask for ------------------------------------------------------------------------------

    def situation(self) -> Situation:
        """Return everything as of now."""
        return self.knowledge.situation()

    def follow(self, situation: Situation) -> None:
        """Put up the card that the engine shows, unless the operator has put it away."""
        state = situation.state
        if state is None or state.card is None or state.card_id in {None, self._hidden_card}:
            return
        if not isinstance(self.screen, AskCard) and not self.screen.is_modal and state.card_id is not None:
            self.push_screen(AskCard(state.card_id, state.card))

    def note_lag(self, lag_s: float) -> None:
        """Take note of how late the screen was drawn; the worst of the last seconds is shown."""
        self.knowledge.lag_s = max(lag_s, 0.9 * self.knowledge.lag_s)
        self.worst_lag_s = max(lag_s, self.worst_lag_s)

    def plan_folders(self) -> list[Path]:
        """Return where plans are looked for."""
        here = Path.cwd()
        return list(dict.fromkeys([here, here / "plans", here / "hardware" / "plans", self.data]))

    def choose_plan(self, preview: PlanPreview) -> None:
        """Keep a plan for the start; one that cannot run clears the choice."""
        photos = None if self._photos is None else str(self._photos.absolute())
        self._chosen = None
        if preview.plan_yaml is not None:
            self._chosen = ArmSession(plan_yaml=preview.plan_yaml, photos=photos)

    def choose_session(self, name: str) -> None:
        """Keep a session to resume for the start."""
        self._chosen = ArmSession(session=name)

    def go(self, armed: Armed) -> None:
        """Second step of a motion; what was begun from the plan is followed on the dashboard."""
        self._link.send(Go(token=armed.token, word=armed.word))
        if self.current_mode == "plan":
            self.call_later(self.switch_mode, "dashboard")

    def answer(self, card_id: int, choice: str, reason: str) -> None:
        """Answer an operator card."""
        self._link.send(AnswerCard(card_id=card_id, choice=choice, reason=reason))

    def hide_card(self, card_id: int) -> None:
        """Leave a card unanswered for now."""
        self._hidden_card = card_id

    # what the engine says ----------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Open the link after the first paint, which waits for nothing."""
        self.call_after_refresh(self._open_link)
        self.set_interval(REPEAT_S, self._jogger.renew)

    def on_unmount(self) -> None:
        """Part from the engine, which goes on."""
        self._link.close()

    def _open_link(self) -> None:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def call(function: Callable[..., None], argument: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the operator has left
                loop.call_soon_threadsafe(function, argument, context=context)

        self._link.open(lambda event: call(self._hear, event), lambda why: call(self._lost, why))

    def _lost(self, why: str) -> None:
        self.knowledge.engine_lost(why)

    def _hear(self, event: Event) -> None:
        self.knowledge.hear(event)
        if isinstance(event, Armed):
            self.push_screen(StartCard(event, armed_s=self.situation().now_s))
        elif isinstance(event, Refused):
            next_step = f"\nnext: {data_text(event.next_step)}" if event.next_step else ""
            self.notify(
                f"{event.code}: {data_text(event.message)}{next_step}", severity="error", markup=False
            )
        elif isinstance(event, ControlAsked):
            self._asks_for_control = event.client_id
            self.notify(
                f"{data_text(event.name)} asks for control: o hands it over", timeout=15, markup=False
            )

    # actions -----------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Let an action through exactly when the registry says that it is possible now."""
        found = self._by_action.get((action, parameters))
        return True if found is None else found.possible(self.situation())

    async def on_event(self, event: events.Event) -> None:
        """Let the stop keys pass every screen, modal and field by; they are text where nothing can move.

        A binding would not do, not even one with priority: Textual withholds from it what a text field consumes.
        """
        if isinstance(event, events.Key) and event.key in self._stop_keys and not self._typing_text():
            await self.run_action(self._stop_keys[event.key])
        else:
            await super().on_event(event)

    def _typing_text(self) -> bool:
        return isinstance(self.focused, Input) and not self.situation().can_move

    def action_stop(self) -> None:
        """Stop."""
        self.stop_now()

    def stop_now(self) -> None:
        """Stop; again within a second, e-stop."""
        now_s = time.monotonic()
        twice, self._last_stop_s = now_s - self._last_stop_s < TWICE_S, now_s
        self._send_stop(b"estop" if twice else b"stop")

    def action_e_stop(self) -> None:
        """Reset the controller."""
        self._send_stop(b"estop")

    def _send_stop(self, stop: bytes) -> None:
        self._jogger.end()
        self._link.stop(stop)
        self.knowledge.stop_sent()
        self.notify("■ E-STOP sent" if stop == b"estop" else "■ STOP sent", severity="warning", timeout=2)

    def action_home(self) -> None:
        """First step of homing."""
        self._link.send(ArmHome())

    def action_start(self) -> None:
        """First step of a session; without a plan, go and choose one."""
        if self._chosen is None:
            self.switch_mode("plan")
            self.notify("choose a plan first, then press s", severity="warning")
        else:
            self._link.send(self._chosen)

    def action_pause(self) -> None:
        """Pause after this take, or now."""
        self._link.send(Pause())

    def action_next(self) -> None:
        """Show the card again, or go on after a pause."""
        state = self.situation().state
        if state is not None and state.card is not None:
            self._hidden_card = None
        elif state is not None and state.mode in {EngineMode.PAUSED, EngineMode.PAUSING}:
            self._link.send(Proceed())
        else:
            self.notify("nothing waits: the session goes on by itself")

    def action_redo(self) -> None:
        """Ask before a round is recorded again: its valid take becomes void."""
        session = self.situation().session
        done = [] if session is None else [r for r in session.rounds if r.takes]
        if not done:
            self.notify("no round has been recorded yet", severity="warning")
            return
        last = done[-1].name
        text = "The old take is kept and numbered; it becomes void: superseded."
        self.push_screen(
            ChoiceCard(
                f"Record round {last} again?", text, [Answer("r", f"redo {last}", lambda: self._redo(last))]
            )
        )

    def _redo(self, round_name: str) -> None:
        self._link.send(Redo(round=round_name))

    def action_recover(self) -> None:
        """Ask before a hold or lock is left."""
        situation = self.situation()
        why = "" if situation.state is None else data_text(situation.state.why)
        text = f"{why}\nLook at the rail first. Nothing moves by this; homing may be needed afterwards."
        self.push_screen(
            ChoiceCard("Leave the hold?", text, [Answer("u", "the rail is clear: unlock", self._clear)])
        )

    def _clear(self) -> None:
        self._link.send(ClearFault())

    def action_end_session(self) -> None:
        """Ask how the session ends."""
        self.push_screen(ChoiceCard("End the session?", "It stays resumable either way.", self._endings()))

    def _endings(self) -> list[Answer]:
        return [
            Answer("f", "after this take", lambda: self._link.send(EndSession())),
            Answer("n", "now: this take is void", lambda: self._link.send(EndSession(now=True))),
        ]

    def action_jog(self, distance_mm: float) -> None:
        """Move a little; a key that repeats renews the permit."""
        state = self.situation().state
        if state is not None and state.rail is not None:
            self._jogger.press(distance_mm, state.rail)

    def action_onion(self, percent: int) -> None:
        """Change the share of the ground truth in the preview."""
        self.knowledge.onion_percent = min(max(self.knowledge.onion_percent + percent, 0), 100)

    def action_show(self, mode: str) -> None:
        """Change the screen."""
        self.switch_mode(mode)

    def action_page(self) -> None:
        """Turn the page of the dashboard on a narrow terminal."""
        if isinstance(self.screen, DashboardScreen):
            self.screen.next_page()

    def action_filter_events(self) -> None:
        """Show other kinds of events."""
        self.event_filter += 1

    def action_take_control(self) -> None:
        """Ask for control."""
        self._link.send(TakeControl())

    def action_hand_over(self) -> None:
        """Give control to the client that asked last."""
        if self._asks_for_control is None:
            self.notify("nobody has asked for control")
        else:
            self._link.send(HandOver(client_id=self._asks_for_control))
            self._asks_for_control = None

    def action_theme(self) -> None:
        """Change to the next theme."""
        names = [t.name for t in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)]

    def action_help(self) -> None:
        """Show every key."""
        self.push_screen(HelpCard())

    def action_command_palette(self) -> None:
        """Find an action by typing."""
        if not isinstance(self.screen, ActionPalette):
            self.push_screen(ActionPalette(id="--command-palette"))

    async def action_quit(self) -> None:
        """Ask what becomes of the engine; nothing is stopped silently."""
        situation = self.situation()
        if situation.link != "connected":
            self._leave()
        elif situation.session_runs:
            text = "What becomes of it? Another client that takes control first (t) can go on with it."
            self.push_screen(ChoiceCard("A session is running", text, self._partings()))
        else:
            keep = Answer("k", "leave; the engine stays for a while", self._leave)
            off = Answer("d", "leave and end the engine", self._shut_down)
            text = "The engine holds the rail and the camera. Nothing runs."
            self.push_screen(ChoiceCard("Leave?", text, [keep, off]))

    def _partings(self) -> list[Answer]:
        return [
            Answer("k", _POLICIES[self.profile.on_client_lost], self._leave),
            Answer(
                "f", "leave; this take is finished, then the session ends, resumable", self._finish_and_leave
            ),
            Answer(
                "n", "stop now and leave: this take is void, the session is resumable", self._stop_and_leave
            ),
        ]

    def _leave(self) -> None:
        self.exit(0)

    def _finish_and_leave(self) -> None:
        self._link.send(EndSession())
        self.exit(0)

    def _stop_and_leave(self) -> None:
        self._link.stop(b"stop")
        self._link.send(EndSession(now=True))
        self.exit(0)

    def _shut_down(self) -> None:
        self._link.send(Shutdown())
        self.exit(0)


def _key(name: str) -> tuple[str, tuple[object, ...]]:
    _, action, parameters = parse(name)
    return action, parameters
