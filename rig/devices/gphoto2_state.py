"""What a body says of its own state: reasons against recording, card, battery, heat, clock, abilities."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from typing import Any

from rig.devices.camera import CameraCapabilities, CameraStatus
from rig.devices.gphoto2_link import CameraLink
from rig.devices.gphoto2_settings import MOVIE_SWITCHES, NAMES, Switch
from rig.devices.gphoto2_watch import SettingsWatch
from rig.errors import DeviceError

RECORDING = "Already in movie recording"
WRITING = "Images / movies not yet record in buffer"
CARD_REASONS = frozenset({"No card", "Card error", "Card not formatted", "Card full", "Card protected"})
"""The ones that hold for stills, too."""
_HARMLESS = frozenset({"Not in application mode"})
"""The library switches to this mode itself when it starts a movie."""
_TOO_HOT = "Temperature too high"
_AGAINST_LIVE_VIEW = frozenset({_TOO_HOT, "Battery exhausted"})
"""Reasons against live view that do not pass while one waits."""
_CLOCK_TOLERANCE_S = 1
"""Camera clocks count whole seconds."""
_BATTERY_WORDS = {"low": 5, "empty": 0, "full": 100}


class BodyState:
    """Reads the state of one body.

    Args:
        link: The connection.
    """

    def __init__(self, link: CameraLink) -> None:
        self._link = link
        self._clock_offset_s: float | None = None

    def free_bytes(self) -> int | None:
        """Ask the card for its free space; None where the body tells of no card."""
        storages = self._storages()
        return sum(s.freekbytes for s in storages) * 1024 if storages else None

    def status(self, free_bytes: int | None, watch: SettingsWatch) -> CameraStatus:
        """Read the rest and put it together; events must have been read before."""
        unasked_changes = watch.changes()
        return CameraStatus(
            battery_percent=self._battery_percent(),
            free_bytes=free_bytes,
            movie_prohibited=", ".join(r for r in self.reasons_against_movie() if r != RECORDING),
            hot=watch.heat_was_told or _TOO_HOT in self._listed("live_view_prohibit"),
            clock_offset_s=self._clock_offset_s,
            unasked_changes=unasked_changes,
        )

    def capabilities(self, *, settable: frozenset[str], focus_drive: bool) -> CameraCapabilities:
        """Tell what the body can do, by its own account."""
        movie, live_view = self.movie_switch() is not None, self._shows_live_view()
        return CameraCapabilities(
            movie=movie,
            stills=self._takes_stills(),
            live_view=live_view,
            preview_while_recording=movie and live_view,
            focus_drive=focus_drive,
            settable=settable,
        )

    def synchronise_clock(self) -> None:
        """Set the body's clock to this computer's where it is off, and note by how much it is off then.

        A body that lets nobody set it keeps its own. Later readings would not do: an EOS body tells its time once.
        """
        offset_s = self._read_clock_offset_s()
        if offset_s is not None and abs(offset_s) > _CLOCK_TOLERANCE_S:
            self._set_clock()
            offset_s = self._read_clock_offset_s()
        self._clock_offset_s = offset_s

    def _set_clock(self) -> None:
        import gphoto2 as gp

        try:
            self._link.write(self._link.first(NAMES["clock"]) or "", int(time.time()))
        except gp.GPhoto2Error as error:
            if error.code not in {gp.GP_ERROR_BAD_PARAMETERS, gp.GP_ERROR_NOT_SUPPORTED}:
                raise
            self._link.unhear()

    def reasons_against_movie(self) -> tuple[str, ...]:
        """Return the body's reasons against a movie, in the library's words, or the card's where it lists none."""
        if not self._lists_reasons():
            return self._reasons_of_card()
        shown = self._listed("live_view_prohibit")
        return (
            *(r for r in self._listed("movie_prohibit") if r not in _HARMLESS),
            *(r for r in shown if r in _AGAINST_LIVE_VIEW),
        )

    def says_whether_it_records(self) -> bool:
        """Tell whether the body lists reasons, that it records being one of them, or shows what it does."""
        switch = self.movie_switch()
        return self._lists_reasons() or (switch is not None and switch.shows_recording)

    def is_recording(self) -> bool:
        """Tell whether the body says that it records."""
        switch = self.movie_switch()
        if switch is not None and switch.shows_recording:
            return self._link.read(switch.entry) == switch.on
        return RECORDING in self._listed("movie_prohibit")

    def is_writing(self) -> bool | None:
        """Tell whether files are still to come; None where the body does not say."""
        if not self._lists_reasons():
            return None
        return not {RECORDING, WRITING}.isdisjoint(self._listed("movie_prohibit"))

    def movie_switch(self) -> Switch | None:
        """Return how this body is told to record; None where it cannot be."""
        return next((s for s in MOVIE_SWITCHES if self._link.has(s.entry)), None)

    def require_none(self, reasons: Collection[str], what: str) -> None:
        """Raise `DeviceError` when there are reasons against ``what``."""
        if reasons:
            raise DeviceError(
                f"{self._link.name}: {what}: {', '.join(sorted(reasons))}",
                kept="every file on the card",
                next_step="mend this at the camera; a full card needs files deleted or another card",
            )

    def _reasons_of_card(self) -> tuple[str, ...]:
        """Say what is wrong with the card of a body that counts the pictures it has room for (Canon EOS).

        Others do not count: Sony bodies show no card at all while they are controlled from here.
        """
        import gphoto2 as gp

        shots_left = self._link.first(NAMES["shots_left"])
        if shots_left is None:
            return ()
        storages = self._storages()
        if not storages:
            return ("No card",)
        if all(s.access == gp.GP_STORAGEINFO_AC_READONLY for s in storages):
            return ("Card protected",)
        return ("Card full",) if self._link.read(shots_left).strip() == "0" else ()

    def _storages(self) -> Sequence[Any]:
        return list(self._link.camera.get_storageinfo(self._link.context))

    def _lists_reasons(self) -> bool:
        return self._link.first(NAMES["movie_prohibit"]) is not None

    def _listed(self, name: str) -> tuple[str, ...]:
        entry = self._link.first(NAMES[name])
        if entry is None:
            return ()
        _, _, reasons = self._link.read(entry).partition(": ")
        return tuple(r for r in reasons.split(",") if r)

    def _battery_percent(self) -> int | None:
        entry = self._link.first(NAMES["battery"])
        word = self._link.read(entry) if entry else ""
        percent = re.match(r"\d+", word)
        return int(percent.group()) if percent else _BATTERY_WORDS.get(word.lower())

    def _read_clock_offset_s(self) -> float | None:
        entry = self._link.first(NAMES["clock"])
        return None if entry is None else float(self._link.widget(entry).get_value() - int(time.time()))

    def _shows_live_view(self) -> bool:
        """Look for the switch; a body without one (Sony, Fuji, or none at all) is asked for a frame."""
        return self._link.first(NAMES["live_view"]) is not None or self._link.shows_live_view()

    def _takes_stills(self) -> bool:
        """Read the library's list of what the body can do, such as ``Generic Image Capture, No Open Capture``."""
        import gphoto2 as gp

        listed = re.search(r"Device Capabilities:\n(?:.*\n)?.*Capture.*", self._link.summary())
        if listed is None:
            return bool(self._link.camera.get_abilities().operations & gp.GP_OPERATION_CAPTURE_IMAGE)
        items = (item.strip() for item in re.split(r"[,\n]", listed.group()))
        return any("Capture" in item and not item.startswith("No ") for item in items)
