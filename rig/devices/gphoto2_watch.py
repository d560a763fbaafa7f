"""Notices settings that change on the body without our asking: a turned dial, automatic ISO, a lens limit."""

from __future__ import annotations

import re

from rig.devices.gphoto2_link import CameraLink
from rig.devices.gphoto2_settings import NAMES

_WATCHED = (
    "iso",
    "f_number",
    "exposure_s",
    "white_balance",
    "colour_temperature",
    "exposure_mode",
    "focus_mode",
    "still_format",
    "capture_target",
)
_REPORT = re.compile(r'"([^"]+)" to "([^"]*)"')
"""How the library words a changed property: the entry and its new value."""
_HEAT_REPORT = "PTP Property d1ab changed"
"""A Canon EOS body's temperature status: the library (2.5.34) tells that it changed, but not to what."""


class SettingsWatch:
    """Compares settings with what they were when all was as wished, and listens to what the body tells.

    Comparing alone would miss a change that was taken back; listening alone would miss a body that tells nothing.

    Args:
        link: The connection.

    Attributes:
        heat_was_told: Whether the body told of another temperature status since `begin`; bodies are opened cool, and
            whether one has cooled down again is not told.
    """

    def __init__(self, link: CameraLink) -> None:
        self._link = link
        self._wished: dict[str, str] = {}
        self._changes: dict[str, None] = {}
        self.heat_was_told = False

    def begin(self) -> None:
        """Forget what the body told when it was opened, which is all it has, then settle."""
        self._link.reported.clear()
        self.heat_was_told = False
        self.settle()

    def settle(self) -> None:
        """Take the settings as they are now for the wished ones and forget earlier changes."""
        self._listen()
        entries = (self._link.first(NAMES[name]) for name in _WATCHED)
        self._wished = {entry: self._link.read(entry) for entry in entries if entry}
        self._changes.clear()

    def changes(self) -> tuple[str, ...]:
        """Return every change since `settle` in plain words; events must have been read before."""
        self._listen()
        for entry in self._wished:
            self._note(entry, self._link.read(entry))
        return tuple(self._changes)

    def _listen(self) -> None:
        for report in self._link.reported:
            self.heat_was_told |= report.startswith(_HEAT_REPORT)
            for entry, value in _REPORT.findall(report):
                self._note(entry, value)
        self._link.reported.clear()

    def _note(self, entry: str, value: str) -> None:
        wished = self._wished.get(entry)
        if wished is not None and value != wished:
            self._changes[f"{entry} was {wished} and became {value}"] = None
