"""Names and values of camera settings: one table over the makers, and the nearest exact choice.

Makers name the same setting differently and list their own choices. A choice counts as the wanted value when it is
within a sixth of a stop, which is half the step between neighbours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from rig.errors import SettingRefusedError

TOLERANCE_STOPS = 1 / 6

NAMES: Mapping[str, tuple[str, ...]] = {
    "iso": ("iso",),  # all
    "f_number": ("f-number", "aperture"),  # f-number: Nikon, Sony; aperture: Nikon 1, Canon EOS, Fuji
    "exposure_s": ("shutterspeed2", "shutterspeed"),  # shutterspeed2: Nikon; shutterspeed: the others
    "white_balance": ("whitebalance",),  # all
    "colour_temperature": ("colortemperature",),  # Canon EOS, Sony, Fuji
    "exposure_mode": ("expprogram", "autoexposuremode"),  # autoexposuremode: Canon EOS
    "focus_mode": ("focusmode", "focusmode2"),  # focusmode2: Nikon's own, beside the standard one
    "focus_drive": ("manualfocusdrive", "manualfocus"),  # manualfocus: Sony, -7 to 7
    "still_format": ("imageformat", "imagequality"),  # imageformat: Canon EOS, Fuji; the other: Nikon, Sony
    "drive_mode": ("capturemode", "drivemode"),  # drivemode: Canon EOS
    "burst_count": ("burstnumber",),  # Nikon
    "bulb": ("bulb",),  # Nikon, Canon EOS, Sony
    "release": ("eosremoterelease",),  # Canon EOS
    "live_view": ("viewfinder",),  # Nikon, Canon EOS; Sony and Fuji show it unasked
    "capture_target": ("capturetarget",),  # Nikon, Canon EOS, Sony
    "movie_prohibit": ("movieprohibit",),  # Nikon
    "live_view_prohibit": ("liveviewprohibit",),  # Nikon
    "battery": ("batterylevel",),  # all
    "shots_left": ("availableshots",),  # Canon EOS, some Nikon
    "engraved_serial": ("eosserialnumber",),  # Canon EOS, whose PTP number is another one of 32 digits
    "clock": ("datetimeutc", "datetime"),  # datetimeutc: Canon EOS of recent years
}
"""Config entries by our name, the preferred one first; the first that a body has counts, whoever made it.

Nikon's `shutterspeed` counts in 0.1 ms, too coarse below 1/2000 s; `shutterspeed2` is a fraction.
"""

StillFormat = Literal["raw", "jpeg", "raw+jpeg"]

COLOUR_TEMPERATURE = "colour temperature"
_WHITE_BALANCE_WORDS: Mapping[str, tuple[str, ...]] = {
    "automatic": ("automatic", "auto", "awb"),
    "daylight": ("daylight", "sunny", "fine weather"),
    "tungsten": ("tungsten", "incandescent"),
    "fluorescent": ("fluorescent", "fluorescent lamp 1", "fluorescent: daylight"),
    "flash": ("flash",),
    "cloudy": ("cloudy",),
    "shade": ("shade", "shadow"),
    COLOUR_TEMPERATURE: ("color temperature", "choose color temp.", "colour temperature", "color temp"),
}
"""Our word for a white balance, and what makers call it."""

_QUALITIES = ("extra fine", "x.fine", "super fine", "fine", "normal", "standard", "basic")
"""What makers call little and much compression, the least first."""

_STOPS_PER_OCTAVE = {"iso": 1.0, "f_number": 2.0, "exposure_s": 1.0}


@dataclass(frozen=True)
class Switch:
    """How a body is told to record a movie."""

    entry: str
    on: str | int
    off: str | int
    needs_live_view: bool = False
    """Whether live view must run for a moment before (Canon EOS)."""
    shows_recording: bool = False
    """Whether the entry shows what the body does, so that it falls back when a movie ends by itself."""


MOVIE_SWITCHES: tuple[Switch, ...] = (
    Switch("movierecordtarget", "Card", "None", needs_live_view=True, shows_recording=True),
    Switch("movie", 1, 0),
)
"""Canon EOS; Nikon and Sony. Fuji bodies have none."""


@dataclass(frozen=True)
class Preparation:
    """What must be so before anything is recorded."""

    what: str
    entries: tuple[str, ...]
    """Config entries, the first that the body has counts; none of them present: nothing to do."""
    values: tuple[str, ...]
    """Beginnings of the choices that will do, lower case, the preferred one first."""
    mend: str = ""
    """What to do at the body when it cannot be set from here; empty where it does not matter."""
    is_exact: bool = False
    """Whether the values are whole choices: ``RAW`` is the beginning of ``RAW + Large Fine JPEG``, and another one."""

    def is_met_by(self, choice: str) -> bool:
        """Tell whether a choice will do."""
        return any(self._fits(choice, value) for value in self.values)

    def best_of(self, choices: Sequence[str]) -> str | None:
        """Return the choice that will do best; None where there is none."""
        return next((c for value in self.values for c in choices if self._fits(c, value)), None)

    def _fits(self, choice: str, value: str) -> bool:
        return choice.lower() == value if self.is_exact else _begins(choice, value)


FILES_TO_CARD = Preparation(
    "files go to the card",
    NAMES["capture_target"],
    ("memory card", "card"),
    "choose the card in its menu",
)
SINGLE_PICTURES = Preparation("one picture at a time", NAMES["drive_mode"], ("single",))
BURST_WORDS = ("burst", "continuous high", "continuous", "super high", "high speed")
"""Beginnings of the drive modes that take pictures as long as the button is held, the fastest first."""
BUTTON_DOWN = Preparation("the release is held down", NAMES["release"], ("press full mf", "press full"))
BUTTON_UP = Preparation("the release is let go", NAMES["release"], ("release full", "release"))
"""Recent versions of the library press with or without autofocus; older ones have one word."""
PREPARATIONS: tuple[Preparation, ...] = (
    Preparation("settings are taken from here", ("prioritymode",), ("application", "usb")),  # Sony, Fuji
    FILES_TO_CARD,
    Preparation("no autofocus before a picture", ("autofocus",), ("off",)),
    Preparation("no autofocus in live view", ("continuousaf",), ("off",)),  # Canon EOS
    Preparation("exposure is manual", NAMES["exposure_mode"], ("m", "manual"), "turn the mode dial to M"),
    Preparation(
        "sensitivity is manual", ("isoauto", "autoiso"), ("off",), "switch automatic ISO off"
    ),  # Nikon
    Preparation(
        "focus is manual", NAMES["focus_mode"], ("manual", "mf"), "set the switch on lens and body to M or MF"
    ),
    SINGLE_PICTURES,
)


def parse_choice(choice: str) -> float | None:
    """Read a choice as the library prints it: ``1/200``, ``0.0050s``, ``f/8``, ``6400``; None for words.

    >>> parse_choice("1/200"), parse_choice("f/5.6"), parse_choice("Bulb")
    (0.005, 5.6, None)
    """
    text = choice.strip().lower().removeprefix("f/").removesuffix("s").strip()
    if not re.fullmatch(r"\d+(\.\d+)?(/\d+(\.\d+)?)?", text):
        return None
    top, _, bottom = text.partition("/")
    below = Fraction(bottom or "1")
    return float(Fraction(top) / below) or None if below else None


def nearest_choice(name: str, wanted: float, choices: Iterable[str]) -> str:
    """Choose the entry of a list that is the wanted value.

    Args:
        name: ``iso``, ``f_number`` or ``exposure_s``.
        wanted: Value in ISO, f-number or s.
        choices: As the library lists them.

    Raises:
        SettingRefusedError: None is within a sixth of a stop; the message names the neighbours.
    """
    values = {c: v for c in choices if (v := parse_choice(c)) is not None}
    if not values:
        raise SettingRefusedError(
            f"the camera lists no values for {name}", next_step="switch its automatic modes off"
        )
    ranked = sorted(values, key=lambda c: abs(_stops(name, values[c], wanted)))
    if not is_same(name, values[ranked[0]], wanted):
        raise SettingRefusedError(
            f"the camera has no {name} of {wanted:g}; nearest are {' and '.join(ranked[:2])}",
            next_step="take one of these in the plan",
        )
    return ranked[0]


def is_same(name: str, value: float, wanted: float) -> bool:
    """Tell whether two values of a setting are the same step of its scale."""
    return abs(_stops(name, value, wanted)) <= TOLERANCE_STOPS


def nearest_word(name: str, wanted: str, choices: Sequence[str]) -> str:
    """Choose the entry that is the wanted word, in our or the maker's language.

    Raises:
        SettingRefusedError: There is no such choice; the message lists those there are.
    """
    words = _WHITE_BALANCE_WORDS.get(our_word(wanted), (wanted.lower(),))
    for word in words:
        for choice in choices:
            if choice.lower() == word:
                return choice
    raise SettingRefusedError(
        f"the camera has no {name} '{wanted}'; it has: {', '.join(choices)}", next_step="take one of these"
    )


def kelvin(word: str) -> int | None:
    """Read a white balance given as a colour temperature; None for a word.

    >>> kelvin("5600 K"), kelvin("daylight")
    (5600, None)
    """
    found = re.fullmatch(r"(\d{4,5}) ?K", word.strip(), re.IGNORECASE)
    return int(found.group(1)) if found else None


def our_word(choice: str) -> str:
    """Return our word for what the maker calls a white balance; the maker's own where we have none."""
    return next(
        (ours for ours, theirs in _WHITE_BALANCE_WORDS.items() if choice.lower() in theirs), choice.lower()
    )


def still_format(choice: str) -> StillFormat | None:
    """Tell what files a picture of this format has; None for formats that are neither raw nor JPEG.

    >>> still_format("NEF+Fine"), still_format("cRAW"), still_format("Large Fine JPEG"), still_format("TIFF (RGB)")
    ('raw+jpeg', 'raw', 'jpeg', None)
    """
    words = choice.lower()
    if "raw" in words or "nef" in words:
        return "raw+jpeg" if "+" in words else "raw"
    return None if any(w in words for w in ("tiff", "heif", "unknown")) else "jpeg"


def nearest_format(wanted: StillFormat, choices: Sequence[str]) -> str:
    """Choose the format with the wanted files and the least loss.

    Raises:
        SettingRefusedError: There is none; the message lists those there are.
    """
    fitting = [c for c in choices if still_format(c) == wanted]
    if not fitting:
        raise SettingRefusedError(
            f"the camera has no picture format '{wanted}'; it has: {', '.join(choices)}",
            next_step="take another still_format in the profile",
        )
    return min(fitting, key=_loss)


def _begins(choice: str, value: str) -> bool:
    """Compare beginnings; a single letter, as a mode dial has them, must be the whole."""
    words = choice.lower()
    return words == value or (len(value) > 1 and words.startswith(value))


def _loss(choice: str) -> tuple[bool, int, bool]:
    """Rank formats: whole raw files before small or compressed ones, then JPEG quality, then size."""
    words = choice.lower()
    reduced = any(w in words for w in ("craw", "mraw", "sraw", "small", "medium"))
    quality = next((k for k, w in enumerate(_QUALITIES) if w in words), len(_QUALITIES))
    return reduced, quality, "large" not in words


def _stops(name: str, value: float, wanted: float) -> float:
    return _STOPS_PER_OCTAVE[name] * math.log2(value / wanted)
