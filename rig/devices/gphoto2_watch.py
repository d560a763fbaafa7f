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


class SettingsWatch:
    """Compares settings with what they were when all was as wished, and listens to what the body tells.

    Comparing alone would miss a change that was taken back; listening alone would miss a body that tells nothing.

    Args:
        link: The connection.
    """

    def __init__(self, link: CameraLink) -> None:
        self._link = link
        self._wished: dict[str, str] = {}
        self._changes: dict[str, None] = {}

    def settle(self) -> None:
        """Take the settings as they are now for the wished ones and forget earlier changes."""
        entries = (self._link.first(NAMES[name]) for name in _WATCHED)
        self._wished = {entry: self._link.read(entry) for entry in entries if entry}
        self._changes.clear()
        self._link.reported.clear()

    def changes(self) -> tuple[str, ...]:
        """Return every change since `settle` in plain words; events must have been read before."""
        for report in self._link.reported:
            for entry, value in _REPORT.findall(report):
                self._note(entry, value)
        self._link.reported.clear()
        for entry in self._wished:
            self._note(entry, self._link.read(entry))
        return tuple(self._changes)

    def _note(self, entry: str, value: str) -> None:
        wished = self._wished.get(entry)
        if wished is not None and value != wished:
            self._changes[f"{entry} was {wished} and became {value}"] = None
