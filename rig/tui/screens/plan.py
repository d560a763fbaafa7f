"""Screen 2: choose a plan or a session to resume, and see what it will do before anything moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from textual import on
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from rig.tui.plan_preview import find_plans, preview_plan, resumable_sessions
from rig.tui.screens.frame import ModeScreen
from rig.tui.screens.surface import operator_app
from rig.tui.widgets.field import Field
from rig.tui.wording import STYLES, data_text

_RESUME = "resume:"


class PlanScreen(ModeScreen):
    """Files on the left, the forecast on the right."""

    AUTO_FOCUS = "#plans"

    def body(self) -> Iterator[Widget]:
        """Yield the two columns."""
        yield Horizontal(
            Vertical(
                Field(placeholder="path of a plan file, then Enter", id="path"),
                OptionList(id="plans", markup=False),
                id="plan-choices",
            ),
            VerticalScroll(
                Static("choose a plan on the left", markup=False, id="forecast"), id="forecast-frame"
            ),
            id="body",
        )

    def on_mount(self) -> None:
        """Name the parts and list what there is."""
        self.query_one("#plan-choices").border_title = "Plans"
        self.query_one("#forecast-frame").border_title = "Preview"

    def on_screen_resume(self) -> None:
        """List plans and sessions anew each time the screen comes up."""
        app = operator_app(self)
        plans = find_plans(app.plan_folders())
        sessions = resumable_sessions(app.data)
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(Option(Content(data_text(_short(p))), id=str(p)) for p in plans)
        options.highlighted = 0 if plans else None
        options.add_options(Option(Content(f"resume {data_text(s)}"), id=_RESUME + s) for s in sessions)

    @on(OptionList.OptionSelected)
    def choose_option(self, event: OptionList.OptionSelected) -> None:
        """Take the chosen file or session."""
        chosen = event.option.id or ""
        if chosen.startswith(_RESUME):
            operator_app(self).choose_session(chosen.removeprefix(_RESUME))
            self._say([(f"resume session {chosen.removeprefix(_RESUME)}: s starts it", "ok")])
        else:
            self.choose(Path(chosen))

    @on(Input.Submitted)
    def choose_path(self, event: Input.Submitted) -> None:
        """Take the path that was typed."""
        self.choose(Path(event.value).expanduser())
        self.query_one(OptionList).focus()

    def choose(self, path: Path) -> None:
        """Show what a plan will do and keep it for the start."""
        app = operator_app(self)
        state = app.situation().state
        preview = preview_plan(path, app.profile, free_gb=None if state is None else state.disk_free_gb)
        app.choose_plan(preview)
        self._say([(data_text(_short(path)), "dim"), *preview.lines])

    def _say(self, lines: list[tuple[str, str]]) -> None:
        parts = [(f"{text}\n", "" if level == "ok" else STYLES[level]) for text, level in lines]  # type: ignore[index]
        self.query_one("#forecast", Static).update(Content.assemble(*parts))


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
