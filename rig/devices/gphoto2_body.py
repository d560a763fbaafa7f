"""One camera body through libgphoto2, as the owner process sees it.

Every public method is one call of `rig.devices.gphoto2_camera.Gphoto2Camera`; what it raises is a `DeviceError` in
plain words, since it crosses a process boundary.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from catalog.session_folder import ExposureSettings
from rig.devices.camera import CameraIdentity, CameraStatus, CardFile
from rig.devices.gphoto2_errors import LINK_LOST_CODES
from rig.devices.gphoto2_files import await_files, copy_file, delete_file, forget_events
from rig.devices.gphoto2_focus import FocusMotor, FocusMove, FocusTable
from rig.devices.gphoto2_link import CameraLink, autodetect
from rig.devices.gphoto2_settings import (
    MOVIE_SWITCHES,
    NAMES,
    PREPARATIONS,
    Preparation,
    Switch,
    is_same,
    nearest_choice,
    nearest_word,
    our_word,
    parse_choice,
)
from rig.errors import DeviceError, DeviceNotFoundError, SettingRefusedError

_STARTED_S = 2.0
"""How long a body may take to say that it records."""
_POLL_S = 0.02
_LIVE_VIEW_WARM_UP_S = 1.0
_RECORDING = "Already in movie recording"
_WRITING = "Images / movies not yet record in buffer"
_HARMLESS = frozenset({"Not in application mode"})
"""The library switches to this mode itself when it starts a movie."""
_CARD_REASONS = frozenset({"No card", "Card error", "Card not formatted", "Card full", "Card protected"})
"""The ones that hold for stills, too."""
_NUMBERS = ("iso", "f_number", "exposure_s")


@dataclass(frozen=True)
class Configured:
    """What `CameraBody.configure` did."""

    settings: ExposureSettings
    """As read back."""
    focus: FocusMove | None
    """How the lens was driven; None where it stayed where it was."""


class CameraBody:
    """The one user of the library's camera object.

    Attributes:
        progress: Called with the count of bytes of each chunk that arrived.
    """

    def __init__(self) -> None:
        self.progress: Callable[[int], None] = lambda _: None
        self._link = CameraLink()
        self._motor = FocusMotor(self._link, FocusTable())

    def discover(self) -> list[tuple[str, str]]:
        """List model and address of every camera on USB."""
        return autodetect()

    def open(self, address: str, serial: str, focus: FocusTable) -> CameraIdentity:
        """Connect to the body with this address or serial number, and set what must be so."""
        self._motor = FocusMotor(self._link, focus)
        failures: list[DeviceError] = []
        for candidate in [address] if address else [a for _, a in autodetect()]:
            try:
                identity = self._link.connect(candidate)
            except DeviceError as error:
                failures.append(error)
                continue
            if not serial or identity.serial.lstrip("0") == serial.lstrip("0"):
                self._prepare()
                return identity
            self._link.release()
        raise failures[0] if failures else _not_connected(serial)

    def close(self) -> None:
        """End a recording and live view, let go of the body. Safe to call twice."""
        with contextlib.suppress(DeviceError), self._link.explained("closing"):
            if _RECORDING in self._reasons():
                self._link.write(self._movie_switch.entry, self._movie_switch.off)
            self._link.switch_live_view(False)
        self._link.release()

    def status(self) -> CameraStatus:
        """Read card, battery and reasons against a movie; the card first, since no cache answers for it."""
        with self._link.explained("reading its state"):
            storages = self._link.camera.get_storageinfo(self._link.context)
            battery = self._entry("battery")
            percent = re.match(r"\d+", self._link.read(battery)) if battery else None
            return CameraStatus(
                battery_percent=int(percent.group()) if percent else None,
                free_bytes=sum(s.freekbytes for s in storages) * 1024 if storages else None,
                movie_prohibited=", ".join(self._reasons()),
            )

    def configure(self, settings: ExposureSettings) -> Configured:
        """Write the settings that are given and read all back; nothing is written when one has no choice."""
        with self._link.explained("setting the exposure"):
            for entry, choice in self._chosen(settings):
                self._link.write(entry, choice)
            focus = None if settings.focus_m is None else self._motor.drive(settings.focus_m)
            read = self._settings_read()
            self._compare(settings, read)
            return Configured(read, focus)

    def start_movie(self) -> None:
        """Begin to record to the card, and make sure that the body says so."""
        with self._link.explained("starting the movie"):
            self._require_none(self._reasons(), "a movie cannot be recorded")
            forget_events(self._link)
            if self._movie_switch.needs_live_view:
                self._link.switch_live_view(True)
                time.sleep(_LIVE_VIEW_WARM_UP_S)
            self._link.write(self._movie_switch.entry, self._movie_switch.on)
            self._require_recording()

    def stop_movie(self, timeout_s: float) -> tuple[CardFile, ...]:
        """End the recording and wait until its files are closed."""
        import gphoto2 as gp

        with self._link.explained("stopping the movie"):
            try:
                self._link.write(self._movie_switch.entry, self._movie_switch.off)
            except gp.GPhoto2Error as error:
                if error.code in LINK_LOST_CODES:
                    raise
                self._link.unhear()  # it had ended by itself: the files it announced are what there is
            self._link.switch_live_view(False)
            return await_files(self._link, timeout_s, is_writing=self._is_writing)

    def capture_still(self, timeout_s: float) -> tuple[CardFile, ...]:
        """Take one picture."""
        with self._link.explained("taking a picture"):
            self._require_none(_CARD_REASONS.intersection(self._reasons()), "no picture can be taken")
            forget_events(self._link)
            self._link.camera.trigger_capture(self._link.context)
            return await_files(self._link, timeout_s, is_writing=self._is_writing)

    def preview(self) -> bytes:
        """Return one live-view frame as JPEG."""
        import gphoto2 as gp

        frame = gp.CameraFile()
        with self._link.explained("reading live view"):
            self._link.camera.capture_preview(frame, self._link.context)
            return bytes(frame.get_data_and_size())

    def fetch(self, file: CardFile, part: Path) -> str:
        """Copy a card file to ``part``, reporting progress; returns the sha256 of the bytes as they arrived."""
        with self._link.explained(f"copying {file.name}"):
            return copy_file(self._link, file, part, progress=self.progress)

    def delete(self, file: CardFile) -> None:
        """Remove a card file."""
        with self._link.explained(f"deleting {file.name}"):
            delete_file(self._link, file)

    def _prepare(self) -> None:
        with self._link.explained("preparing it"):
            for preparation in PREPARATIONS:
                self._bring_about(preparation)

    def _bring_about(self, wanted: Preparation) -> None:
        """Set what must be so, and read it back: some bodies show an entry that only a switch can change."""
        import gphoto2 as gp

        entry = next((e for e in wanted.entries if self._link.has(e)), None)
        if entry is None:
            return
        choices = self._link.choices(entry)
        choice = next((c for value in wanted.values for c in choices if c.lower().startswith(value)), None)
        if choice is not None and not self._link.widget(entry).get_readonly():
            with contextlib.suppress(gp.GPhoto2Error):
                self._link.write(entry, choice)
        read = self._link.read(entry)
        if wanted.mend and not read.lower().startswith(wanted.values):
            raise SettingRefusedError(
                f"{self._link.name}: '{wanted.what}' is needed, but {entry} is '{read}'",
                next_step=wanted.mend,
            )

    def _chosen(self, settings: ExposureSettings) -> list[tuple[str, str]]:
        chosen = []
        for name in _NUMBERS:
            if (wanted := getattr(settings, name)) is not None:
                entry = self._required_entry(name)
                chosen.append((entry, nearest_choice(name, wanted, self._link.choices(entry))))
        if (word := settings.white_balance) is not None:
            entry = self._required_entry("white_balance")
            chosen.append((entry, nearest_word("white_balance", word, self._link.choices(entry))))
        if settings.focus_m is not None:
            self._motor.require(settings.focus_m)
        return chosen

    def _settings_read(self) -> ExposureSettings:
        iso, f_number, exposure_s = (self._number(n) for n in _NUMBERS)
        white_balance = self._entry("white_balance")
        return ExposureSettings(
            iso=None if iso is None else round(iso),
            f_number=f_number,
            exposure_s=exposure_s,
            focus_m=self._motor.focus_m,
            white_balance=our_word(self._link.read(white_balance)) if white_balance else None,
        )

    def _compare(self, asked: ExposureSettings, read: ExposureSettings) -> None:
        for name in _NUMBERS:
            wanted, got = getattr(asked, name), getattr(read, name)
            if wanted is not None and (got is None or not is_same(name, got, wanted)):
                raise self._read_back_error(name, f"{wanted:g}", "nothing" if got is None else f"{got:g}")
        word = None if asked.white_balance is None else our_word(asked.white_balance)
        if word is not None and read.white_balance != word:
            raise self._read_back_error("white_balance", word, str(read.white_balance))

    def _read_back_error(self, name: str, wanted: str, got: str) -> SettingRefusedError:
        return SettingRefusedError(
            f"{self._link.name} was told {name} {wanted} and reads back {got}",
            next_step="set the mode dial to M and switch automatic ISO off",
        )

    def _number(self, name: str) -> float | None:
        entry = self._entry(name)
        return parse_choice(self._link.read(entry)) if entry else None

    def _entry(self, name: str) -> str | None:
        return next((entry for entry in NAMES[name] if self._link.has(entry)), None)

    def _required_entry(self, name: str) -> str:
        entry = self._entry(name)
        if entry is None:
            raise SettingRefusedError(
                f"{self._link.name} offers no setting for {name}", next_step=f"leave {name} out of the plan"
            )
        return entry

    @cached_property
    def _movie_switch(self) -> Switch:
        found = next((s for s in MOVIE_SWITCHES if self._link.has(s.entry)), None)
        if found is None:
            raise DeviceError(
                f"{self._link.name} records no movies under remote control", next_step="use another body"
            )
        return found

    def _reasons(self) -> Sequence[str]:
        """Return the body's reasons against a movie, in the library's words."""
        if not self._link.has("movieprohibit"):
            return ()
        _, _, reasons = self._link.read("movieprohibit").partition(": ")
        return tuple(r for r in reasons.split(",") if r and r not in _HARMLESS)

    def _require_none(self, reasons: Collection[str], what: str) -> None:
        if reasons:
            raise DeviceError(
                f"{self._link.name}: {what}: {', '.join(reasons)}",
                next_step="mend this at the camera; a full card needs files deleted or another card",
            )

    def _require_recording(self) -> None:
        deadline_s = time.monotonic() + _STARTED_S
        while self._link.has("movieprohibit") and _RECORDING not in self._reasons():
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"{self._link.name}: the movie did not start within {_STARTED_S:g} s",
                    next_step="check the card and the movie mode of the body, then take this round again",
                )
            time.sleep(_POLL_S)

    def _is_writing(self) -> bool | None:
        if not self._link.has("movieprohibit"):
            return None
        return not {_RECORDING, _WRITING}.isdisjoint(self._reasons())


def _not_connected(serial: str) -> DeviceNotFoundError:
    return DeviceNotFoundError(
        f"no camera with serial number {serial} is connected" if serial else "no camera is connected",
        next_step="check cable, battery and that the camera is on; `rig devices` lists what is seen",
    )
