"""Movies, stills, bursts and pictures held open by hand: everything that ends in files on the card."""

from __future__ import annotations

import contextlib
import time

from rig.devices.camera import CardFile
from rig.devices.gphoto2_errors import LINK_LOST_CODES
from rig.devices.gphoto2_exposure import ExposureControl
from rig.devices.gphoto2_files import CardFiles
from rig.devices.gphoto2_link import CameraLink
from rig.devices.gphoto2_settings import (
    BURST_WORDS,
    BUTTON_DOWN,
    BUTTON_UP,
    FILES_TO_CARD,
    NAMES,
    SINGLE_PICTURES,
    Preparation,
    Switch,
    still_format,
)
from rig.devices.gphoto2_state import CARD_REASONS, BodyState
from rig.errors import DeviceError, DeviceTimeoutError, SettingRefusedError

_STARTED_S = 2.0
"""How long a body may take to say that it records."""
_POLL_S = 0.02
_LIVE_VIEW_S = 3.0
"""How long live view may take to show its first frame."""
_FILES_OF = {"raw+jpeg": 2}
_CONTINUOUS = Preparation("pictures as long as the button is held", NAMES["drive_mode"], BURST_WORDS)


class Shooting:
    """Makes one body take movies and pictures.

    Args:
        link: The connection.
        state: Asked for reasons against it.
        exposure: Knows the exposure time that must be held open by hand.
        files: Waits for what was written.
        rate: Session seconds per second, in which exposures held open are timed.
    """

    def __init__(
        self,
        link: CameraLink,
        state: BodyState,
        exposure: ExposureControl,
        files: CardFiles,
        *,
        rate: float,
    ) -> None:
        self._link, self._state, self._exposure, self._files = link, state, exposure, files
        self._rate = rate
        self._unseen_until_s = 0.0

    def come_to_rest(self, wait_s: float, close_s: float) -> bool:
        """End a movie that a take given up left running and let the body write; what it writes stays on the card.

        Args:
            wait_s: How long to wait for that now.
            close_s: How long the file of such a movie may take, where the body does not say that it writes.

        Returns:
            Whether it has written all; False asks to come again.
        """
        deadline_s = time.monotonic() + wait_s
        if self._movie_runs():
            self._files.forget_events()
            self.end_recording()
            self._unseen_until_s = time.monotonic() + (close_s if self._state.is_writing() is None else 0.0)
        self._await_unseen(deadline_s)
        while (is_writing := self._state.is_writing()) and time.monotonic() < deadline_s:
            self._files.note_events()
            time.sleep(_POLL_S)
        return not is_writing and time.monotonic() >= self._unseen_until_s

    def start_movie(self) -> None:
        """Begin to record to the card, and make sure that the body says so."""
        switch = self._movie_switch()
        if self._exposure.bulb_s:
            raise SettingRefusedError(
                f"{self._link.name}: no frame of a movie is exposed for {self._exposure.bulb_s:g} s",
                next_step="shorten exposure_s in the plan, or take stills",
            )
        self._state.require_none(self._state.reasons_against_movie(), "a movie cannot be recorded")
        self.bring_about(FILES_TO_CARD)
        self._files.forget_events()
        if switch.needs_live_view:
            self._link.switch_live_view(True)
            self._await_live_view()
        self._link.write_when_ready(switch.entry, switch.on)
        self._files.forget_events()  # of an earlier movie, which the body was busy with until now
        self._require_recording()

    def stop_movie(self, timeout_s: float) -> tuple[CardFile, ...]:
        """End the recording and wait until its files are closed."""
        self.end_recording()
        self._link.switch_live_view(False)
        return self._files.arrivals(timeout_s, is_writing=self._state.is_writing)

    def end_recording(self) -> None:
        """Tell the body to stop; one that had ended by itself has its files announced already."""
        import gphoto2 as gp

        switch = self._movie_switch()
        try:
            self._link.write_when_ready(switch.entry, switch.off)
        except gp.GPhoto2Error as error:
            if error.code in LINK_LOST_CODES or not self._link.answers():
                raise
            self._link.unhear()

    def still(self, timeout_s: float) -> tuple[CardFile, ...]:
        """Take one picture and return its files."""
        self._require_pictures()
        if self._exposure.bulb_s:
            return self._held_open(self._exposure.bulb_s, timeout_s)
        self._link.when_ready(self._trigger)
        return self._arrivals(timeout_s, pictures=1)

    def burst(self, count: int, timeout_s: float) -> tuple[CardFile, ...]:
        """Take ``count`` pictures as fast as this body can be made to."""
        self._require_pictures()
        if self._link.first(NAMES["burst_count"]):
            return self._counted_burst(count, timeout_s)
        if self._link.first(NAMES["release"]) and self._fastest():
            return self._pressed_burst(count, timeout_s)
        for _ in range(count):
            self._link.when_ready(self._trigger)
        return self._arrivals(timeout_s, pictures=count)

    def bring_about(self, wanted: Preparation) -> None:
        """Set what must be so, and read it back: some bodies show an entry that only a switch can change.

        Raises:
            SettingRefusedError: It is not so, and it matters.
        """
        import gphoto2 as gp

        entry = self._link.first(wanted.entries)
        if entry is None or wanted.is_met_by(self._link.read(entry)):
            return
        choice = wanted.best_of(self._link.choices(entry))
        if choice is not None and self._link.can_write(entry):
            try:
                self._link.write(entry, choice)
            except gp.GPhoto2Error as error:
                if error.code in LINK_LOST_CODES:
                    raise
                self._link.unhear()
        read = self._link.read(entry)
        if wanted.mend and not wanted.is_met_by(read):
            raise SettingRefusedError(
                f"{self._link.name}: '{wanted.what}' is needed, but {entry} is '{read}'",
                kept="every file on the card",
                next_step=wanted.mend,
            )

    def _movie_runs(self) -> bool:
        return self._state.movie_switch() is not None and self._state.is_recording()

    def _await_unseen(self, deadline_s: float) -> None:
        """Wait for the file of a movie that was ended, from a body that says no more of it."""
        left_s = min(self._unseen_until_s, deadline_s) - time.monotonic()
        if left_s > 0:
            with contextlib.suppress(DeviceTimeoutError):
                self._files.arrivals(left_s, is_writing=self._state.is_writing)
                self._unseen_until_s = 0.0

    def _movie_switch(self) -> Switch:
        switch = self._state.movie_switch()
        if switch is None:
            raise DeviceError(
                f"{self._link.name} records no movies under remote control", next_step="use another body"
            )
        return switch

    def _await_live_view(self) -> None:
        """Wait for the first frame of live view; a body that shows none is left to say so when it is to record."""
        deadline_s = time.monotonic() + _LIVE_VIEW_S
        while time.monotonic() < deadline_s and not self._link.shows_live_view():
            time.sleep(_POLL_S)

    def _require_recording(self) -> None:
        deadline_s = time.monotonic() + _STARTED_S
        while self._state.says_whether_it_records() and not self._state.is_recording():
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"{self._link.name}: the movie did not start within {_STARTED_S:g} s",
                    kept="the settings; nothing was recorded",
                    next_step="check the card and the movie mode of the body, then take this round again",
                )
            time.sleep(_POLL_S)

    def _require_pictures(self) -> None:
        against = CARD_REASONS.intersection(self._state.reasons_against_movie())
        self._state.require_none(against, "no picture can be taken")
        self.bring_about(FILES_TO_CARD)
        self._files.forget_events()

    def _trigger(self) -> None:
        self._link.camera.trigger_capture(self._link.context)

    def _arrivals(self, timeout_s: float, *, pictures: int) -> tuple[CardFile, ...]:
        expected = self._files_of(pictures)
        return self._files.arrivals(timeout_s, is_writing=self._state.is_writing, expected=expected)

    def _files_of(self, pictures: int) -> int:
        entry = self._link.first(NAMES["still_format"])
        kind = still_format(self._link.read(entry)) if entry else None
        return pictures * _FILES_OF.get(kind or "", 1)

    def _held_open(self, exposure_s: float, timeout_s: float) -> tuple[CardFile, ...]:
        """Open the shutter, wait, close it; the body's own exposure time is set back to what it was."""
        entry, before = self._dial()
        self._press_for_bulb(True)
        try:
            time.sleep(exposure_s / self._rate)
        finally:
            self._press_for_bulb(False)
        files = self._arrivals(timeout_s, pictures=1)
        self._link.write_when_ready(entry, before)
        return files

    def _press_for_bulb(self, down: bool) -> None:
        entry = self._link.first(NAMES["bulb"])
        if entry is None:
            self._push(BUTTON_DOWN if down else BUTTON_UP)
        else:
            self._link.write(entry, int(down))

    def _dial(self) -> tuple[str, str]:
        """Turn the exposure time to bulb where the body lists it; returns entry and value of before."""
        entry = self._link.first(NAMES["exposure_s"])
        if entry is None:
            raise DeviceError(f"{self._link.name} has no exposure time", next_step="set the mode dial to M")
        before = self._link.read(entry)
        bulb = next((c for c in self._link.choices(entry) if c.lower() == "bulb"), None)
        if bulb is not None:
            self._link.write(entry, bulb)
        return entry, before

    def _fastest(self) -> str | None:
        entry = self._link.first(NAMES["drive_mode"])
        return None if entry is None else _CONTINUOUS.best_of(self._link.choices(entry))

    def _counted_burst(self, count: int, timeout_s: float) -> tuple[CardFile, ...]:
        """Tell the body how many (Nikon)."""
        self.bring_about(_CONTINUOUS)
        self._link.write("burstnumber", float(count))
        try:
            self._trigger()
            return self._arrivals(timeout_s, pictures=count)
        finally:
            self._link.write_when_ready("burstnumber", 1.0)
            self.bring_about(SINGLE_PICTURES)

    def _pressed_burst(self, count: int, timeout_s: float) -> tuple[CardFile, ...]:
        """Hold the button until enough pictures were announced (Canon EOS); those beyond stay on the card."""
        self.bring_about(_CONTINUOUS)
        self._push(BUTTON_DOWN)
        wanted = self._files_of(count)
        try:
            self._files.await_count(wanted, timeout_s)
        finally:
            self._push(BUTTON_UP)
        files = self._arrivals(timeout_s, pictures=count)
        self.bring_about(SINGLE_PICTURES)
        return files[:wanted]

    def _push(self, wanted: Preparation) -> None:
        entry = wanted.entries[0]
        choice = wanted.best_of(self._link.choices(entry))
        if choice is None:
            raise DeviceError(
                f"{self._link.name}: {entry} has no choice for '{wanted.what}'",
                next_step="take single pictures",
            )
        self._link.write_when_ready(entry, choice)
