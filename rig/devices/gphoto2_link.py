"""The library's camera object: connected, its config entries by name, its events, and its errors in plain words.

Only the owner process uses this. The library is imported when first needed.
"""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rig.devices.camera import CameraIdentity
from rig.devices.gphoto2_errors import DOUBTFUL_CODES, LINK_BROKEN, LINK_LOST_CODES, translated
from rig.devices.gphoto2_settings import NAMES
from rig.errors import DeviceBusyError, DeviceError

_NETWORK_MODEL = "PTP/IP Camera"
BACK_OFF_S = (0.5, 1.0, 2.0)
_BUSY_S, _BUSY_POLL_S = 10.0, 0.05
"""How long a body may be busy with what it did before, as after a movie's stop."""


class CameraLink:
    """One connection to one body.

    Attributes:
        name: What to call the camera in messages.
        camera: The library's object; None while there is no connection.
        context: The library's context, which every call gets, so that its explanations are heard.
        reported: What the body told unasked, in the library's words; whoever reads it empties it.
        serials: Every serial number the body answers to, the one that is engraved on it first.
    """

    def __init__(self) -> None:
        self.name = "camera"
        self.camera: Any = None
        self.context: Any = None
        self.reported: list[str] = []
        self.serials: tuple[str, ...] = ()
        self._hearing: Any = None
        self._said: list[str] = []

    def connect(self, address: str, waits_s: Sequence[float] = BACK_OFF_S) -> CameraIdentity:
        """Connect to the body at an address and ask who it is.

        Args:
            address: Port as the library writes it.
            waits_s: How long to wait before each further try: a body that wakes up, or has just lost its last
                owner, needs a moment.
        """
        import gphoto2 as gp

        self.name = f"camera at {address}"
        self.reported.clear()
        self.context = gp.Context()
        self._hearing = self.context.set_error_func(self._hear, None)
        try:
            with self._translating("connecting"):
                self.camera = _camera_at(address, self.context)
                self._initialise(waits_s)
                told = _identity(self.summary())
                engraved = [self.read(e) for e in NAMES["engraved_serial"] if self.has(e)]
        except DeviceError:
            self.release()
            raise
        self.name = told.model
        self.serials = (*engraved, told.serial)
        return replace(told, serial=self.serials[0])

    def summary(self) -> str:
        """Return what the library says about the body: who it is and what it can do."""
        return str(self.camera.get_summary(self.context))

    def release(self) -> None:
        """Let go of the body, whatever state the link is in. Safe to call twice."""
        import gphoto2 as gp

        if self.camera is not None:
            with contextlib.suppress(gp.GPhoto2Error):
                self.camera.exit(self.context)
        self.camera = None

    @contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn what the library raises inside into our errors; a broken link is dropped.

        Raises:
            DeviceError: Not connected, or what the library's code and words mean.
        """
        if self.camera is None:
            raise DeviceError(f"{self.name}: not open", next_step="open the rig again")
        with self._translating(action):
            yield

    @contextmanager
    def _translating(self, action: str) -> Iterator[None]:
        import gphoto2 as gp

        self._said.clear()
        try:
            yield
        except DeviceError:  # ours already; some of them are OSErrors, too
            raise
        except gp.GPhoto2Error as error:
            code, said = int(error.code), tuple(self._said)
            if code in DOUBTFUL_CODES and self.camera is not None and not self.answers():
                code, said = LINK_BROKEN, ()  # what the library made of it would blame the setting
            if code in LINK_LOST_CODES:
                self.camera = None
            raise translated(self.name, action, code, said=said) from None
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            raise DeviceError(
                f"{self.name}: {action} failed: {error}",
                kept="the file on the card",
                next_step="free space on this computer's disk" if full else "check the session's folder",
            ) from None

    def answers(self) -> bool:
        """Ask the body for something that no cache knows; False when the link is of no use any more."""
        import gphoto2 as gp

        if self.camera is None:
            return False
        try:
            self.camera.get_storageinfo(self.context)
        except gp.GPhoto2Error as error:
            return error.code not in LINK_LOST_CODES | DOUBTFUL_CODES
        return True

    def first(self, entries: Iterable[str]) -> str | None:
        """Return the first of these config entries that the body has."""
        return next((e for e in entries if self.has(e)), None)

    def has(self, entry: str) -> bool:
        """Tell whether the body has a config entry; the library answers -2 or, for Canon EOS, with nothing."""
        import gphoto2 as gp

        try:
            return self.widget(entry) is not None
        except gp.GPhoto2Error as error:
            if error.code != gp.GP_ERROR_BAD_PARAMETERS:
                raise
            self.unhear()
            return False

    def widget(self, entry: str) -> Any:
        """Return the library's widget of a config entry."""
        return self.camera.get_single_config(entry, self.context)

    def choices(self, entry: str) -> list[str]:
        """List the choices of a config entry."""
        return [str(c) for c in self.widget(entry).get_choices()]

    def read(self, entry: str) -> str:
        """Return the value of a config entry as the library prints it."""
        return str(self.widget(entry).get_value())

    def can_write(self, entry: str) -> bool:
        """Tell whether the body lets a config entry be set from here."""
        return not self.widget(entry).get_readonly()

    def write(self, entry: str, value: str | float) -> None:
        """Set a config entry."""
        widget = self.widget(entry)
        widget.set_value(value)
        self.camera.set_single_config(entry, widget, self.context)

    def switch_live_view(self, on: bool) -> None:
        """Start or end live view where the body has a switch for it; waits for a body that is busy."""
        if self.has("viewfinder"):
            self.write_when_ready("viewfinder", int(on))

    def write_when_ready(self, entry: str, value: str | float) -> None:
        """Set a config entry, waiting for a body that is busy with what it did before."""
        self.when_ready(lambda: self.write(entry, value))

    def when_ready(self, act: Callable[[], None]) -> None:
        """Do something with the body, again and again while it is busy with what it did before."""
        import gphoto2 as gp

        deadline_s = time.monotonic() + _BUSY_S
        while True:
            try:
                return act()
            except gp.GPhoto2Error as error:
                if error.code != gp.GP_ERROR_CAMERA_BUSY or time.monotonic() > deadline_s:
                    raise
                self.unhear()
            time.sleep(_BUSY_POLL_S)

    def event(self, wait_ms: int) -> tuple[int, Any]:
        """Return the next event and its detail; the library's time-out event after ``wait_ms``.

        A body that is busy has no event yet: the library makes an error of that.
        """
        import gphoto2 as gp

        try:
            kind, detail = self.camera.wait_for_event(wait_ms, self.context)
        except gp.GPhoto2Error as error:
            if error.code != gp.GP_ERROR_CAMERA_BUSY:
                raise
            self.unhear()
            time.sleep(wait_ms / 1000)
            return int(gp.GP_EVENT_TIMEOUT), None
        if kind == gp.GP_EVENT_UNKNOWN and detail:
            self.reported.append(str(detail))
        return int(kind), detail

    def events(self, wait_ms: int) -> Iterator[tuple[int, Any]]:
        """Yield events until none came for ``wait_ms``."""
        import gphoto2 as gp

        while (event := self.event(wait_ms))[0] != gp.GP_EVENT_TIMEOUT:
            yield event

    def shows_live_view(self) -> bool:
        """Ask for one frame of live view; tells whether the body showed it. A lost body raises the library's error."""
        import gphoto2 as gp

        try:
            self.camera.capture_preview(gp.CameraFile(), self.context)
        except gp.GPhoto2Error as error:
            if error.code in LINK_LOST_CODES:
                raise
            self.unhear()
            return False
        return True

    def unhear(self) -> None:
        """Forget the library's words about a failure that is none."""
        self._said.clear()

    def _hear(self, _context: object, words: bytes | str, _data: object) -> None:
        self._said.append(words.decode(errors="replace") if isinstance(words, bytes) else words)

    def _initialise(self, waits_s: Sequence[float]) -> None:
        import gphoto2 as gp

        for wait_s in waits_s:
            try:
                self.camera.init(self.context)
            except gp.GPhoto2Error as error:
                self._require_worth_waiting(int(error.code))
                time.sleep(wait_s)  # a body that just woke up or lost its last owner needs a moment
                self.unhear()
            else:
                return
        try:
            self.camera.init(self.context)
        except gp.GPhoto2Error as error:
            self._require_worth_waiting(int(error.code))
            raise

    def _require_worth_waiting(self, code: int) -> None:
        """Raise where the body turned us away: it says so without a word, while a link that breaks has one."""
        import gphoto2 as gp

        if code == gp.GP_ERROR and not self._said:
            raise self._turned_away() from None

    def _turned_away(self) -> DeviceBusyError:
        return DeviceBusyError(
            f"{self.name}: the body turned the connection away; another program may have it",
            kept="every file on the card",
            next_step="end other programs that use this camera, or switch it off and on",
        )


def autodetect() -> list[tuple[str, str]]:
    """List model and address of every camera on USB."""
    import gphoto2 as gp

    try:
        found = gp.Camera.autodetect()
    except gp.GPhoto2Error as error:
        raise translated("USB", "looking for cameras", int(error.code)) from None
    return [(found.get_name(k), found.get_value(k)) for k in range(found.count())]


def _camera_at(address: str, context: Any) -> Any:
    import gphoto2 as gp

    ports, camera = gp.PortInfoList(), gp.Camera()
    ports.load()
    if address.startswith("ptpip:"):  # without abilities the library would take the model of what is on USB
        abilities = gp.CameraAbilitiesList()
        abilities.load(context)
        camera.set_abilities(abilities[abilities.lookup_model(_NETWORK_MODEL)])
    camera.set_port_info(ports[ports.lookup_path(address)])
    return camera


def _identity(summary: str) -> CameraIdentity:
    def line(label: str) -> str:
        found = re.search(rf"^ *{label}: *(.*)$", summary, re.MULTILINE)
        return found.group(1).strip() if found else ""

    return CameraIdentity(line("Manufacturer"), line("Model"), line("Serial Number"), line("Version"))
