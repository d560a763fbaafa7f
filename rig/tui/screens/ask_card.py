"""The operator card: what to do between rounds, in big type, with a list to tick and choices to take."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from rig.events import Choice, OperatorCard
from rig.tui.exposure_check import compare, doubts
from rig.tui.screens.surface import OperatorModal, operator_app
from rig.tui.situation import Situation
from rig.tui.widgets.field import Field
from rig.tui.widgets.status_strip import StatusStrip
from rig.tui.wording import data_text


class AskCard(OperatorModal):
    """Up until the card is answered, by whomever; Escape only hides it, n brings it back."""

    BINDINGS = [Binding("escape", "hide", "Hide"), Binding("n", "first_choice", "Next")]

    def __init__(self, card_id: int, card: OperatorCard) -> None:
        super().__init__()
        self.card_id, self.card = card_id, card
        self._ticked = [False] * len(card.checklist)
        self._choice: Choice | None = None

    def compose(self) -> ComposeResult:
        """Show title, text, the list, the comparison with GT, the choices and the field for a reason."""
        yield StatusStrip(id="strip")
        with Vertical(id="card"):
            yield Static(spaced(data_text(self.card.title)), id="title", markup=False)
            yield Static(data_text(self.card.text), id="text", markup=False)
            if self.card.checklist:
                yield OptionList(*self._ticks(), id="checklist", markup=False)
            yield Static("", id="comparison", markup=False)
            yield OptionList(
                *(self._option(k, c) for k, c in enumerate(self.card.choices)), id="choices", markup=False
            )
            reason = Field(placeholder="why? (no blanks: Space stops) then Enter", id="reason")
            reason.display = False
            yield reason
            yield Static(
                "Enter ticks and chooses · Tab changes the list · n goes on · Esc hides · Space stops",
                id="countdown",
                markup=False,
            )

    def refresh_from(self, situation: Situation) -> None:
        """Compare the picture with GT; leave when somebody else has answered."""
        super().refresh_from(situation)
        if situation.state is not None and situation.state.card_id != self.card_id:
            self.dismiss(None)
            return
        self.query_one("#comparison", Static).update(Content.assemble(*self._comparison(situation)))

    def _comparison(self, situation: Situation) -> list[tuple[str, str]]:
        if self.card.kind != "condition":
            return []
        lines = [(f"{line}\n", "") for line in compare(situation.first_gt_preview, situation.preview)]
        return lines + [(f"▲ {doubt}\n", "$warn") for doubt in self._doubts(situation)]

    def _doubts(self, situation: Situation) -> list[str]:
        if self.card.kind != "condition":
            return []
        return doubts(situation.first_gt_preview, situation.preview)

    def _ticks(self) -> list[Option]:
        return [
            Option(f"{'☑' if done else '☐'} {data_text(text)}")
            for done, text in zip(self._ticked, self.card.checklist, strict=True)
        ]

    def _option(self, number: int, choice: Choice) -> Option:
        key = "n  " if number == 0 else "   "
        reason = " (asks why)" if choice.needs_reason else ""
        return Option(f"{key}{data_text(choice.label)}{reason}")

    @on(OptionList.OptionSelected, "#checklist")
    def tick_off(self, event: OptionList.OptionSelected) -> None:
        """Tick or untick an item."""
        self._ticked[event.option_index] = not self._ticked[event.option_index]
        option = self._ticks()[event.option_index]
        event.option_list.replace_option_prompt_at_index(event.option_index, option.prompt)
        if all(self._ticked):
            self.query_one("#choices").focus()

    @on(OptionList.OptionSelected, "#choices")
    def choose(self, event: OptionList.OptionSelected) -> None:
        """Take a choice."""
        self._take(event.option_index)

    def action_first_choice(self) -> None:
        """Go on."""
        self._take(0)

    def action_hide(self) -> None:
        """Put the card away for a look at the screen behind it."""
        operator_app(self).hide_card(self.card_id)
        self.dismiss(None)

    def _take(self, number: int) -> None:
        choice = self.card.choices[number]
        if number == 0 and not all(self._ticked):
            self.notify("tick the whole list first", severity="warning")
            return
        found = self._doubts(operator_app(self).situation()) if number == 0 else []
        if choice.needs_reason or found:
            self._ask_why(choice, found)
        else:
            self._answer(choice, "")

    def _ask_why(self, choice: Choice, found: list[str]) -> None:
        self._choice = choice
        reason = self.query_one("#reason", Input)
        reason.display = True
        reason.focus()
        if found:
            self.notify(f"{found[0]}; a reason is needed to go on", severity="warning")

    @on(Input.Submitted)
    def give_reason(self, event: Input.Submitted) -> None:
        """Answer with the reason."""
        if event.value.strip() and self._choice is not None:
            self._answer(self._choice, event.value.strip())

    def _answer(self, choice: Choice, reason: str) -> None:
        operator_app(self).answer(self.card_id, choice.name, reason)
        self.dismiss(None)


def spaced(text: str) -> str:
    """Write a title in big type, as far as a terminal has any: wide letters."""
    return " ".join(text.upper()) if len(text) <= 30 else text.upper()
