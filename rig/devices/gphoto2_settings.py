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

from rig.errors import SettingRefusedError

TOLERANCE_STOPS = 1 / 6

NAMES: Mapping[str, tuple[str, ...]] = {
    "iso": ("iso",),
    "f_number": ("f-number", "aperture"),
    "exposure_s": ("shutterspeed2", "shutterspeed"),
    "white_balance": ("whitebalance",),
    "battery": ("batterylevel",),
}
"""Config entries by our name, the preferred one first: Nikon, then Canon EOS, Sony and Fuji.

Nikon's `shutterspeed` counts in 0.1 ms, too coarse below 1/2000 s; `shutterspeed2` is a fraction.
"""

_WHITE_BALANCE_WORDS: Mapping[str, tuple[str, ...]] = {
    "automatic": ("automatic", "auto", "awb"),
    "daylight": ("daylight", "sunny", "fine weather"),
    "tungsten": ("tungsten", "incandescent"),
    "fluorescent": ("fluorescent", "fluorescent lamp 1", "fluorescent: daylight"),
    "flash": ("flash",),
    "cloudy": ("cloudy",),
    "shade": ("shade", "shadow"),
}
"""Our word for a white balance, and what makers call it."""

_STOPS_PER_OCTAVE = {"iso": 1.0, "f_number": 2.0, "exposure_s": 1.0}


@dataclass(frozen=True)
class Switch:
    """How a body is told to record a movie."""

    entry: str
    on: str | int
    off: str | int
    needs_live_view: bool = False
    """Whether live view must run for a moment before (Canon EOS)."""


MOVIE_SWITCHES: tuple[Switch, ...] = (
    Switch("movierecordtarget", "Card", "None", needs_live_view=True),
    Switch("movie", 1, 0),
)
"""Canon EOS; Nikon and Sony."""


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


PREPARATIONS: tuple[Preparation, ...] = (
    Preparation(
        "files go to the card", ("capturetarget",), ("memory card", "card"), "choose the card in its menu"
    ),
    Preparation("no autofocus before a picture", ("autofocus",), ("off",)),
    Preparation(
        "exposure is manual", ("expprogram", "autoexposuremode"), ("m", "manual"), "turn the mode dial to M"
    ),
    Preparation(
        "focus is manual", ("focusmode",), ("manual", "mf"), "set the switch on lens and body to M or MF"
    ),
    Preparation("one picture at a time", ("capturemode", "drivemode"), ("single",)),
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


def our_word(choice: str) -> str:
    """Return our word for what the maker calls a white balance; the maker's own where we have none."""
    return next(
        (ours for ours, theirs in _WHITE_BALANCE_WORDS.items() if choice.lower() in theirs), choice.lower()
    )


def _stops(name: str, value: float, wanted: float) -> float:
    return _STOPS_PER_OCTAVE[name] * math.log2(value / wanted)
