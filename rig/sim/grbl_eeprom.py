"""What a GRBL controller keeps without power: `$` settings, stored coordinates, start-up lines."""

from __future__ import annotations

from collections.abc import Mapping

from rig.sim.grbl_planner import Axes

MAX_STEP_RATE_HZ = 30_000
_FLOATS = frozenset(
    {11, 12, 24, 25, 27, 30, 31, *range(100, 103), *range(110, 113), *range(120, 123), *range(130, 133)}
)
_ROUNDED = frozenset({30, 31})
"""Speeds of the spindle: kept with decimals, printed without."""
_SWITCHES = frozenset({4, 5, 6, 13, 20, 21, 22, 32})
_ORIGIN: Axes = (0.0, 0.0, 0.0)

DEFAULTS: Mapping[int, float] = {
    0: 10,
    1: 25,
    2: 0,
    3: 0,
    4: 0,
    5: 0,
    6: 0,
    10: 1,
    11: 0.010,
    12: 0.002,
    13: 0,
    20: 0,
    21: 0,
    22: 1,
    23: 1,
    24: 120.0,
    25: 3000.0,
    26: 25,
    27: 2.0,
    30: 1000,
    31: 0,
    32: 0,
    100: 50.0,
    101: 50.0,
    102: 50.0,
    110: 7200.0,
    111: 7200.0,
    112: 7200.0,
    120: 200.0,
    121: 200.0,
    122: 200.0,
    130: 400.0,
    131: 400.0,
    132: 400.0,
}
"""As the simulated rail is delivered: a belt-driven slide that homes downwards, limits not yet switched on."""


class Eeprom:
    """Settings by number, with the firmware's checks on writing.

    Args:
        changes: Settings that differ from `DEFAULTS`.
    """

    def __init__(self, changes: Mapping[int, float] | None = None) -> None:
        self._delivered = {**DEFAULTS, **(changes or {})}
        self.restore("*")

    def __getitem__(self, number: int) -> float:
        return self._values[number]

    def axes(self, first: int) -> Axes:
        """Return three settings in a row: X, Y, Z."""
        return self._values[first], self._values[first + 1], self._values[first + 2]

    def is_on(self, number: int) -> bool:
        """Tell whether a yes-or-no setting is on."""
        return bool(self._values[number])

    def restore(self, what: str) -> None:
        """Return to the delivered state: ``$`` settings, ``#`` coordinates, ``*`` everything."""
        if what in "$*":
            self._values = dict(self._delivered)
        if what in "#*":
            self.coordinates: dict[str, Axes] = {f"G{n}": _ORIGIN for n in (*range(54, 60), 28, 30)}
        if what == "*":
            self.start_up = ["", ""]
            self.build_info = ""

    def listing(self) -> list[str]:
        """Return the lines of ``$$``."""
        return [f"${n}={_printed(n, v)}" for n, v in self._values.items()]

    def store(self, number: int, value: float) -> int:
        """Write one setting; returns 0 or the number of the error."""
        error = self._objection(number, value)
        if error:
            return error
        if number in _SWITCHES:
            value = float(int(value) & 0xFF != 0)
        elif number not in _FLOATS:
            value = float(int(value) & 0xFF)
        self._values[number] = value
        if number == 22 and not value:
            self._values[20] = 0.0  # the firmware switches soft limits off with homing
        return 0

    def _objection(self, number: int, value: float) -> int:
        """The step rate is not checked: 1.1h is delivered with that check (error 12) compiled out."""
        checks = (
            (4, value < 0),
            (3, number not in self._values),
            (6, number == 0 and int(value) & 0xFF < 3),
            (10, number == 20 and int(value) & 0xFF != 0 and not self.is_on(22)),
        )
        return next((error for error, wrong in checks if wrong), 0)


def _printed(number: int, value: float) -> str:
    return f"{value:.3f}" if number in _FLOATS - _ROUNDED else f"{value:.0f}"
