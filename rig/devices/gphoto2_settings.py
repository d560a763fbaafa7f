"""Names and values of camera settings: one table over the makers, and the nearest exact choice.

Makers name the same setting differently and list their own choices. A choice counts as the wanted value when it is
within a sixth of a stop, which is half the step between neighbours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from pydantic import Field

from catalog.yaml_document import Document
from rig.errors import SettingRefusedError

TOLERANCE_STOPS = 1 / 6

NAMES: Mapping[str, tuple[str, ...]] = {
    "iso": ("iso",),
    "f_number": ("f-number", "aperture"),
    "exposure_s": ("shutterspeed2", "shutterspeed"),
    "white_balance": ("whitebalance",),
    "focus_mode": ("focusmode",),
    "battery": ("batterylevel",),
}
"""Config entries by our name, the preferred one first: Nikon, then Canon EOS, Sony and Fuji."""

_STOPS_PER_OCTAVE = {"iso": 1.0, "f_number": 2.0, "exposure_s": 1.0}


class FocusTable(Document):
    """How the focus motor's steps relate to distance: steps from the infinity stop = dioptres times a constant."""

    steps_per_dioptre: float = Field(default=600.0, gt=0)
    nearest_m: float = Field(default=0.4, gt=0)
    """Nearest distance the lens reaches, m."""

    def steps(self, focus_m: float) -> int:
        """Return the steps from the infinity stop for a distance in m.

        Raises:
            SettingRefusedError: Nearer than the lens reaches.
        """
        if focus_m < self.nearest_m:
            raise SettingRefusedError(
                f"focus at {focus_m:g} m is nearer than the lens reaches ({self.nearest_m:g} m)",
                next_step="raise focus_m in the plan",
            )
        return round(self.steps_per_dioptre / focus_m)

    def focus_m(self, steps: int) -> float:
        """Return the distance in m of a position given in steps from the infinity stop."""
        return self.steps_per_dioptre / max(steps, 1)


def parse_choice(choice: str) -> float | None:
    """Read a choice as the library prints it: ``1/200``, ``0.0050s``, ``f/8``, ``6400``; None for words.

    >>> parse_choice("1/200"), parse_choice("f/5.6"), parse_choice("Bulb")
    (0.005, 5.6, None)
    """
    text = choice.strip().lower().removeprefix("f/").removesuffix("s").strip()
    if not re.fullmatch(r"\d+(\.\d+)?(/\d+(\.\d+)?)?", text):
        return None
    top, _, bottom = text.partition("/")
    value = Fraction(top) / Fraction(bottom or "1") if bottom != "0" else Fraction(0)
    return float(value) or None


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
        raise SettingRefusedError(f"the camera lists no values for {name}; it may be in an automatic mode")
    ranked = sorted(values, key=lambda c: abs(_stops(name, values[c], wanted)))
    if abs(_stops(name, values[ranked[0]], wanted)) > TOLERANCE_STOPS:
        raise SettingRefusedError(
            f"the camera has no {name} of {wanted:g}; nearest are {' and '.join(ranked[:2])}",
            next_step="take one of these in the plan",
        )
    return ranked[0]


def nearest_word(name: str, wanted: str, choices: Sequence[str]) -> str:
    """Choose the entry that is the wanted word, whatever its case. Raises as `nearest_choice`."""
    for choice in choices:
        if choice.lower() == wanted.lower():
            return choice
    raise SettingRefusedError(
        f"the camera has no {name} '{wanted}'; it has: {', '.join(choices)}", next_step="take one of these"
    )


def _stops(name: str, value: float, wanted: float) -> float:
    return _STOPS_PER_OCTAVE[name] * math.log2(value / wanted)
