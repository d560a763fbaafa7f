"""The one registry of what an operator can do.

Key bindings, footer, help screen, palette and the prompts of ``--plain`` are all generated from it, so that they
cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from rig.events import EngineMode
from rig.tui.situation import Situation

_M = EngineMode
ALWAYS = frozenset(EngineMode)
_IDLE = frozenset({_M.READY, _M.CONNECTED})
_SESSION = frozenset({_M.RUNNING, _M.PAUSING, _M.PAUSED})
_STUCK = frozenset({_M.HOLD, _M.LOCKED, _M.OFFLINE})


@dataclass(frozen=True)
class Action:
    """Something an operator can do from every screen."""

    name: str
    """Textual's action: the application's method ``action_<name>``."""
    keys: tuple[str, ...]
    """Keys as Textual names them."""
    sign: str
    """The keys as the footer shows them."""
    label: str
    help: str
    word: str
    """What to type in ``--plain``."""
    modes: frozenset[EngineMode] = ALWAYS
    """States of the rig in which it makes sense."""
    controls: bool = False
    """Whether the client must be in control."""
    command_line: str = ""
    """The same without a screen."""
    urgent: bool = False
    """Works in every modal and text field."""

    def possible(self, situation: Situation) -> bool:
        """Whether it makes sense now."""
        if self.modes is ALWAYS:
            return True
        return situation.mode in self.modes and (situation.in_control or not self.controls)


ACTIONS: tuple[Action, ...] = (
    Action(
        "stop", ("space",), "SPACE", "STOP", "Stop motion and recording now; the position is kept.", "stop",
        command_line="rig stop", urgent=True,
    ),
    Action(
        "e_stop", ("exclamation_mark",), "!", "E-STOP",
        "Reset the controller (also Space twice within 1 s); homing is required afterwards.", "estop",
        command_line="rig stop --emergency", urgent=True,
    ),
    Action(
        "home", ("h",), "h", "Home", "Find the reference position; two steps.", "home",
        modes=_IDLE, controls=True, command_line="rig home --profile P",
    ),
    Action(
        "start", ("s",), "s", "Start", "Start the chosen plan, or resume; two steps.", "start",
        modes=_IDLE, controls=True, command_line="rig record PLAN --profile P",
    ),
    Action(
        "pause", ("p",), "p", "Pause", "Pause after this take; again: end this take now (it is void).", "pause",
        modes=frozenset({_M.RUNNING, _M.PAUSING}), controls=True,
    ),
    Action(
        "next", ("n",), "n", "Next", "Go on: answer the operator card, or end a pause.", "next",
        modes=_SESSION, controls=True,
    ),
    Action(
        "redo", ("r",), "r", "Redo round", "Record the last round again; the old take is kept, void.", "redo ROUND",
        modes=_SESSION, controls=True,
    ),
    Action(
        "recover", ("u",), "u", "Unlock", "Leave a hold, or unlock after an alarm; homing may be needed.", "unlock",
        modes=_STUCK, controls=True,
    ),
    Action(
        "end_session", ("e",), "e", "End session", "End the session after this take, or at once; it stays resumable.",
        "end [now]", modes=_SESSION, controls=True,
    ),
    Action(
        "jog(-1)", ("left",), "←→", "Jog 1 mm", "Jog towards the start of the rail, 1 mm.", "",
        modes=_IDLE, controls=True, command_line="rig jog --profile P -- -1",
    ),
    Action(
        "jog(1)", ("right",), "", "Jog +1 mm", "Jog towards the end of the rail, 1 mm.", "jog MM",
        modes=_IDLE, controls=True, command_line="rig jog --profile P -- 1",
    ),
    Action(
        "jog(-10)", ("shift+left",), "", "Jog -10 mm", "Jog towards the start of the rail, 10 mm.", "",
        modes=_IDLE, controls=True, command_line="rig jog --profile P -- -10",
    ),
    Action(
        "jog(10)", ("shift+right",), "", "Jog +10 mm", "Jog towards the end of the rail, 10 mm.", "",
        modes=_IDLE, controls=True, command_line="rig jog --profile P -- 10",
    ),
    Action(
        "onion(-10)", ("left_square_bracket",), "[ ]", "Onion skin", "Less of the ground-truth picture in the preview.",
        "",
    ),
    Action(
        "onion(10)", ("right_square_bracket",), "", "More onion skin",
        "More of the ground-truth picture in the preview.", "",
    ),
    Action("show('dashboard')", ("1",), "1-3", "Screens", "Screen 1: the dashboard.", ""),
    Action(
        "show('plan')", ("2",), "", "Plan", "Screen 2: choose a plan and see what it will do.", "",
        command_line="rig plan PLAN --profile P",
    ),
    Action("show('capture')", ("3",), "", "Capture", "Screen 3: one round, full attention.", ""),
    Action("page", ("v",), "v", "Next page", "Next page of the dashboard on a narrow terminal.", ""),
    Action("filter_events", ("f",), "f", "Filter events", "Show fewer kinds of events; again: fewer still.", ""),
    Action(
        "take_control", ("t",), "t", "Take control", "Ask whoever controls the rig for control.", "control",
    ),
    Action("hand_over", ("o",), "o", "Hand over", "Give control to the client that asked for it.", "handover"),
    Action("theme", ("f2",), "F2", "Theme", "Next theme: dark, light, high contrast, colour-blind safe.", ""),
    Action("help", ("question_mark",), "?", "Help", "What every key does.", "help"),
    Action("command_palette", ("ctrl+p",), "^P", "Palette", "Find an action by typing.", ""),
    Action(
        "quit", ("q", "ctrl+q"), "q", "Quit", "Leave; asks what becomes of a session that runs.", "quit",
    ),
)  # fmt: skip
FOOTER = (
    "stop", "home", "start", "pause", "next", "redo", "recover", "jog(-1)", "onion(-10)", "show('dashboard')",
    "help", "command_palette", "quit",
)  # fmt: skip
"""What the footer shows, as far as it is possible and fits."""
DROPPED_FIRST = (
    "onion(-10)",
    "command_palette",
    "show('dashboard')",
    "jog(-1)",
    "redo",
    "home",
    "next",
    "start",
    "pause",
)
"""What the footer of a narrow terminal leaves out, in this order."""


def action(name: str) -> Action:
    """Return an action by its name."""
    return next(a for a in ACTIONS if a.name == name)
