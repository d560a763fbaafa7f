"""The exposure settings of a body: chosen before anything is written, written, read back and compared."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.session_folder import ExposureSettings
from rig.devices.gphoto2_focus import FocusMotor, FocusMove
from rig.devices.gphoto2_link import CameraLink
from rig.devices.gphoto2_settings import (
    COLOUR_TEMPERATURE,
    NAMES,
    is_same,
    kelvin,
    nearest_choice,
    nearest_word,
    our_word,
    parse_choice,
)
from rig.errors import SettingRefusedError

_NUMBERS = ("iso", "f_number", "exposure_s")
_WORDS = ("white_balance",)


@dataclass(frozen=True)
class Configured:
    """What `ExposureControl.configure` did."""

    settings: ExposureSettings
    """As read back."""
    focus: FocusMove | None
    """How the lens was driven; None where it stayed where it was."""


class ExposureControl:
    """Sets and reads the exposure of one body.

    Args:
        link: The connection.
        motor: The lens's focus motor.

    Attributes:
        bulb_s: Exposure time to be held open by hand, s; None where the body times it itself.
    """

    def __init__(self, link: CameraLink, motor: FocusMotor) -> None:
        self._link, self._motor = link, motor
        self.bulb_s: float | None = None

    def settable(self) -> frozenset[str]:
        """Return the fields of `ExposureSettings` that the body takes from here."""
        names = {n for n in (*_NUMBERS, *_WORDS) if (e := self._entry(n)) and self._link.can_write(e)}
        return frozenset(names | ({"focus_m"} if self._motor.is_there() else set()))

    def configure(self, settings: ExposureSettings) -> Configured:
        """Write the settings that are given and read all back; nothing is written when one has no choice.

        Raises:
            SettingRefusedError: There is no such choice, or the body reads back another value.
        """
        bulb_s = self._held_open_s(settings.exposure_s)
        chosen = self._chosen(settings.model_copy(update={"exposure_s": None}) if bulb_s else settings)
        for entry, value in chosen:
            self._link.write_when_ready(entry, value)
        focus = None if settings.focus_m is None else self._motor.drive(settings.focus_m)
        if settings.exposure_s is not None:
            self.bulb_s = bulb_s
        read = self.read()
        self._compare(settings, read)
        return Configured(read, focus)

    def read(self) -> ExposureSettings:
        """Read all settings from the body."""
        iso, f_number, exposure_s = (self._number(n) for n in _NUMBERS)
        return ExposureSettings(
            iso=None if iso is None else round(iso),
            f_number=f_number,
            exposure_s=self.bulb_s or exposure_s,
            focus_m=self._motor.focus_m,
            white_balance=self._white_balance(),
        )

    def _held_open_s(self, exposure_s: float | None) -> float | None:
        """Return the exposure time where it is longer than any the body lists and the body knows bulb."""
        if exposure_s is None or (entry := self._entry("exposure_s")) is None:
            return None
        listed = [v for c in self._link.choices(entry) if (v := parse_choice(c)) is not None]
        is_beyond = (
            bool(listed) and exposure_s > max(listed) and not is_same("exposure_s", exposure_s, max(listed))
        )
        return exposure_s if is_beyond and self._can_hold_open(entry) else None

    def _can_hold_open(self, entry: str) -> bool:
        """Tell whether the body has a switch for bulb, or lists bulb and has a button (recent Canon EOS)."""
        listed = "bulb" in (c.lower() for c in self._link.choices(entry))
        return bool(self._entry("bulb") or (listed and self._entry("release")))

    def _chosen(self, settings: ExposureSettings) -> list[tuple[str, str | float]]:
        chosen: list[tuple[str, str | float]] = []
        for name in _NUMBERS:
            if (wanted := getattr(settings, name)) is not None:
                entry = self._required_entry(name)
                chosen.append((entry, nearest_choice(name, wanted, self._link.choices(entry))))
        if settings.white_balance is not None:
            chosen += self._chosen_white_balance(settings.white_balance)
        if settings.focus_m is not None:
            self._motor.require(settings.focus_m)
        return chosen

    def _chosen_white_balance(self, wanted: str) -> list[tuple[str, str | float]]:
        entry = self._required_entry("white_balance")
        temperature_k = kelvin(wanted)
        word = wanted if temperature_k is None else COLOUR_TEMPERATURE
        mode = entry, nearest_word("white_balance", word, self._link.choices(entry))
        if temperature_k is None:
            return [mode]
        return [mode, (self._required_entry("colour_temperature"), self._nearest_kelvin(temperature_k))]

    def _nearest_kelvin(self, wanted_k: int) -> str | float:
        import gphoto2 as gp

        widget = self._link.widget(self._required_entry("colour_temperature"))
        if widget.get_type() == gp.GP_WIDGET_RANGE:
            lowest, highest, step = widget.get_range()
            return float(min(max(lowest + round((wanted_k - lowest) / step) * step, lowest), highest))
        choices = {str(c): v for c in widget.get_choices() if (v := parse_choice(str(c)))}
        return min(choices, key=lambda c: abs(choices[c] - wanted_k)) if choices else str(wanted_k)

    def _white_balance(self) -> str | None:
        entry = self._entry("white_balance")
        word = None if entry is None else our_word(self._link.read(entry))
        temperature_k = self._number("colour_temperature") if word == COLOUR_TEMPERATURE else None
        return word if temperature_k is None else f"{temperature_k:.0f} K"

    def _compare(self, asked: ExposureSettings, read: ExposureSettings) -> None:
        for name in _NUMBERS:
            wanted, got = getattr(asked, name), getattr(read, name)
            if wanted is not None and (got is None or not is_same(name, got, wanted)):
                raise self._read_back_error(name, f"{wanted:g}", "nothing" if got is None else f"{got:g}")
        if asked.white_balance is not None and not self._is_white(asked.white_balance, read.white_balance):
            raise self._read_back_error("white_balance", asked.white_balance, str(read.white_balance))

    def _is_white(self, asked: str, read: str | None) -> bool:
        """Compare words, or a colour temperature with the body's nearest: its steps are finer than what may be off."""
        wanted_k, read_k = kelvin(asked), kelvin(read or "")
        if wanted_k is None or read_k is None:
            return our_word(asked) == read
        is_chosen = parse_choice(str(self._nearest_kelvin(wanted_k))) == read_k
        return is_chosen and abs(1e6 / wanted_k - 1e6 / read_k) <= _MIRED_STEP

    def _read_back_error(self, name: str, wanted: str, got: str) -> SettingRefusedError:
        return SettingRefusedError(
            f"{self._link.name} was told {name} {wanted} and reads back {got}",
            kept="the other settings as they were written",
            next_step="set the mode dial to M and switch automatic ISO off",
        )

    def _number(self, name: str) -> float | None:
        entry = self._entry(name)
        return parse_choice(self._link.read(entry)) if entry else None

    def _entry(self, name: str) -> str | None:
        return self._link.first(NAMES[name])

    def _required_entry(self, name: str) -> str:
        entry = self._entry(name)
        if entry is None:
            raise SettingRefusedError(
                f"{self._link.name} offers no setting for {name}", next_step=f"leave {name} out of the plan"
            )
        return entry


_MIRED_STEP = 5.0
"""A body's nearest colour temperature may be off by this much, in millionths of an inverse kelvin."""
