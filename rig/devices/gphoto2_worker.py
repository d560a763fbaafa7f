"""The owner of libgphoto2: runs in a child process and does one call after the other for `Gphoto2Camera`.

Only this module imports gphoto2. The library keeps settings in the user's home from run to run, so this process gives
it a fresh one and sets everything that matters explicitly.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from catalog.session_folder import ExposureSettings
from rig.devices.camera import CameraIdentity, CameraStatus, CardFile
from rig.devices.gphoto2_settings import NAMES, FocusTable, nearest_choice, nearest_word, parse_choice
from rig.errors import DeviceBusyError, DeviceError, DeviceNotFoundError, SettingRefusedError

_NETWORK_MODEL = "PTP/IP Camera"
_CHUNK_BYTES = 1 << 20
_EVENT_WAIT_MS = 500
_FOLLOWING_MS = 150
"""A body that splits a movie announces all parts at once."""
_STILL_S = 60.0
_FOCUS_STOP_STEPS = 32767.0


def serve(pipe: Connection) -> None:
    """Answer calls until the pipe closes, which it also does when the engine dies."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine decides when we stop
    with tempfile.TemporaryDirectory(prefix="cleanplate-gphoto2-") as home:
        os.environ |= {"HOME": home, "XDG_CONFIG_HOME": home}
        owner = _Owner(pipe)
        while True:
            try:
                method, arguments = pipe.recv()
            except (EOFError, OSError):
                owner.close()
                return
            with contextlib.suppress(BrokenPipeError):
                pipe.send(owner.answer(method, arguments))


class _Owner:
    """The one user of the library's camera object."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._camera: Any = None
        self._focus = FocusTable()
        self._focus_steps: int | None = None
        self._model = "camera"

    def answer(self, method: str, arguments: Sequence[Any]) -> tuple[str, Any]:
        """Do one call; returns its result or the error to raise on the other side."""
        import gphoto2 as gp

        try:
            return "result", getattr(self, method)(*arguments)
        except gp.GPhoto2Error as error:
            return "error", translated(self._model, method, error)
        except (DeviceError, SettingRefusedError, OSError) as error:
            return "error", error if isinstance(error, DeviceError) else DeviceError(str(error))

    def discover(self) -> list[tuple[str, str]]:
        import gphoto2 as gp

        found = gp.Camera.autodetect()
        return [(found.get_name(k), found.get_value(k)) for k in range(found.count())]

    def open(self, address: str, serial: str, focus: FocusTable) -> CameraIdentity:
        self._focus = focus
        for candidate in [address] if address else self._usb_addresses():
            identity = self._connect(candidate)
            if not serial or identity.serial == serial:
                self._model = identity.model
                self._prepare()
                return identity
            self.close()
        raise DeviceNotFoundError(
            f"no camera with serial number {serial or '(any)'} is connected",
            next_step="check cable, battery and that the camera is on; `rig devices` lists what is seen",
        )

    def _usb_addresses(self) -> list[str]:
        return [address for _, address in self.discover()]

    def _connect(self, address: str) -> CameraIdentity:
        import gphoto2 as gp

        self._camera = gp.Camera()
        ports, abilities = gp.PortInfoList(), gp.CameraAbilitiesList()
        ports.load()
        abilities.load()
        if address.startswith("ptpip:"):
            self._camera.set_abilities(abilities[abilities.lookup_model(_NETWORK_MODEL)])
        self._camera.set_port_info(ports[ports.lookup_path(address)])
        self._camera.init()
        return _identity(str(self._camera.get_summary()))

    def _prepare(self) -> None:
        if self._has("capturetarget"):
            target = next(c for c in self._choices("capturetarget") if "card" in c.lower())
            self._write("capturetarget", target)
        if self._has("autofocus"):
            self._write("autofocus", "Off")
        if (entry := self._entry("focus_mode")) and (
            manual := [c for c in self._choices(entry) if c.lower().startswith(("manual", "mf"))]
        ):
            self._write(entry, manual[0])

    def close(self) -> None:
        import gphoto2 as gp

        if self._camera is None:
            return
        with contextlib.suppress(gp.GPhoto2Error):
            self._live_view(False)
        with contextlib.suppress(gp.GPhoto2Error):
            self._camera.exit()
        self._camera = None

    def status(self) -> CameraStatus:
        storages = self._camera.get_storageinfo()  # asks the body; a config read may come from the cache
        battery = self._entry("battery")
        percent = re.match(r"\d+", str(self._read(battery))) if battery else None
        return CameraStatus(
            battery_percent=int(percent.group()) if percent else None,
            free_bytes=sum(s.freekbytes for s in storages) * 1024 if storages else None,
            movie_prohibited=self._movie_prohibited(),
        )

    def _movie_prohibited(self) -> str:
        if not self._has("movieprohibit"):
            return ""
        text = str(self._read("movieprohibit"))
        return "" if text.startswith("No ") else text

    def configure(self, settings: ExposureSettings) -> ExposureSettings:
        for name in ("iso", "f_number", "exposure_s"):
            if (wanted := getattr(settings, name)) is not None:
                self._set_number(name, wanted)
        if settings.white_balance is not None:
            entry = self._required_entry("white_balance")
            self._write(entry, nearest_word("white_balance", settings.white_balance, self._choices(entry)))
        focus_m = None if settings.focus_m is None else self._drive_focus(settings.focus_m)
        return self._settings_read(focus_m)

    def _settings_read(self, focus_m: float | None) -> ExposureSettings:
        iso, f_number, exposure_s = (self._number(n) for n in ("iso", "f_number", "exposure_s"))
        white_balance = self._entry("white_balance")
        return ExposureSettings(
            iso=None if iso is None else round(iso),
            f_number=f_number,
            exposure_s=exposure_s,
            focus_m=focus_m,
            white_balance=str(self._read(white_balance)).lower() if white_balance else None,
        )

    def _set_number(self, name: str, wanted: float) -> None:
        entry = self._required_entry(name)
        self._write(entry, nearest_choice(name, wanted, self._choices(entry)))

    def _number(self, name: str) -> float | None:
        entry = self._entry(name)
        return parse_choice(str(self._read(entry))) if entry else None

    def _drive_focus(self, focus_m: float) -> float:
        """Drive to the infinity stop once, then by steps; returns the distance that was set, m."""
        steps = self._focus.steps(focus_m)
        if self._focus_steps != steps:
            self._live_view(True)
            self._focus_steps = None  # unknown until the motor has arrived
            self._to_infinity_stop()
            if steps:
                self._camera_set("manualfocusdrive", float(-steps))
            self._focus_steps = steps
            self._live_view(False)
        return self._focus.focus_m(steps)

    def _to_infinity_stop(self) -> None:
        import gphoto2 as gp

        try:
            self._camera_set("manualfocusdrive", _FOCUS_STOP_STEPS)
        except gp.GPhoto2Error as error:
            if error.code not in {gp.GP_ERROR, gp.GP_ERROR_CAMERA_ERROR}:  # how the stop makes itself known
                raise

    def _live_view(self, on: bool) -> None:
        if self._has("viewfinder"):
            self._camera_set("viewfinder", int(on))

    def start_movie(self) -> None:
        if reasons := self._movie_prohibited():
            raise DeviceError(f"{self._model}: a movie cannot be recorded: {reasons}")
        self._drain()
        self._camera_set("movie", 1)

    def stop_movie(self, timeout_s: float) -> tuple[CardFile, ...]:
        self._camera_set("movie", 0)
        self._live_view(False)
        return self._await_files(timeout_s)

    def capture_still(self) -> tuple[CardFile, ...]:
        self._drain()
        self._camera.trigger_capture()
        return self._await_files(_STILL_S)

    def preview(self) -> bytes:
        file = self._camera.capture_preview()  # owns the bytes: it must outlive them
        return bytes(memoryview(file.get_data_and_size()))

    def _drain(self) -> None:
        import gphoto2 as gp

        while self._camera.wait_for_event(1)[0] != gp.GP_EVENT_TIMEOUT:
            pass

    def _await_files(self, timeout_s: float) -> tuple[CardFile, ...]:
        """Collect announced files: the first one within the deadline, then those that follow at once."""
        import gphoto2 as gp

        found: dict[tuple[str, str], None] = {}
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            kind, detail = self._camera.wait_for_event(_FOLLOWING_MS if found else _EVENT_WAIT_MS)
            if kind == gp.GP_EVENT_FILE_ADDED:
                found[detail.folder, detail.name] = None
            elif kind == gp.GP_EVENT_TIMEOUT and found:
                break
        return tuple(CardFile(f, n, self._camera.file_get_info(f, n).file.size) for f, n in found)

    def fetch(self, file: CardFile, part: Path) -> str:
        digest = hashlib.sha256()
        received = 0
        with part.open("xb") as out:
            for chunk in self._chunks(file):
                digest.update(chunk)
                out.write(chunk)
                received += len(chunk)
                self._pipe.send(("progress", len(chunk)))
            out.flush()
            os.fsync(out.fileno())
        if received != file.size_bytes:
            raise DeviceError(
                f"{file.name}: {received} of {file.size_bytes} bytes arrived", kept="the card's copy"
            )
        return digest.hexdigest()

    def _chunks(self, file: CardFile) -> Iterator[bytes]:
        import gphoto2 as gp

        buffer = bytearray(_CHUNK_BYTES)
        offset = 0
        while offset < file.size_bytes:
            count = self._camera.file_read(
                file.folder, file.name, gp.GP_FILE_TYPE_NORMAL, offset, memoryview(buffer)
            )
            if not count:
                return
            yield bytes(buffer[:count])
            offset += count

    def delete(self, file: CardFile) -> None:
        self._camera.file_delete(file.folder, file.name)

    def _entry(self, name: str) -> str | None:
        return next((entry for entry in NAMES[name] if self._has(entry)), None)

    def _required_entry(self, name: str) -> str:
        entry = self._entry(name)
        if entry is None:
            raise SettingRefusedError(f"{self._model} offers no setting for {name}")
        return entry

    def _has(self, entry: str) -> bool:
        import gphoto2 as gp

        try:
            self._camera.get_single_config(entry)
        except gp.GPhoto2Error as error:
            if error.code == gp.GP_ERROR_BAD_PARAMETERS:
                return False
            raise
        return True

    def _choices(self, entry: str) -> list[str]:
        return [str(c) for c in self._camera.get_single_config(entry).get_choices()]

    def _read(self, entry: str) -> Any:
        return self._camera.get_single_config(entry).get_value()

    def _camera_set(self, entry: str, value: str | float) -> None:
        widget = self._camera.get_single_config(entry)
        widget.set_value(value)
        self._camera.set_single_config(entry, widget)

    def _write(self, entry: str, value: str) -> None:
        """Write a choice and make sure that the body reads it back."""
        self._camera_set(entry, value)
        read = str(self._read(entry))
        if read != value:
            raise SettingRefusedError(
                f"{self._model} was told {entry} '{value}' and reads back '{read}'",
                next_step="set the mode dial to manual and switch automatic modes off",
            )


def _identity(summary: str) -> CameraIdentity:
    def line(label: str) -> str:
        found = re.search(rf"^ *{label}: *(.*)$", summary, re.MULTILINE)
        return found.group(1).strip() if found else ""

    return CameraIdentity(line("Manufacturer"), line("Model"), line("Serial Number"), line("Version"))


_ADVICE: dict[int, tuple[type[DeviceError], str]] = {
    -1: (DeviceError, "the session with the body may be lost: switch it off and on"),
    -2: (SettingRefusedError, "the body does not take this value, or the link was lost just before"),
    -3: (DeviceError, "card full? check its free space"),
    -6: (DeviceError, "this body cannot do it"),
    -7: (DeviceError, "check cable and power, then open the rig again"),
    -10: (DeviceError, "the body hangs: switch it off and on"),
    -52: (DeviceNotFoundError, "unplugged, asleep, or at another port: check and open again"),
    -53: (
        DeviceBusyError,
        "another program holds it, on a desktop mostly the volume monitor: "
        "`systemctl --user stop gvfs-gphoto2-volume-monitor` frees it",
    ),
    -60: (DeviceBusyError, "another program has locked it"),
    -105: (DeviceNotFoundError, "nothing that libgphoto2 knows is connected there"),
    -110: (DeviceBusyError, "the body is busy: wait, or switch autofocus and self-timer off"),
    -115: (DeviceError, "free space on the card"),
}


def translated(model: str, method: str, error: Any) -> DeviceError:
    """Turn a library error into ours, in plain words with what to do next."""
    kind, advice = _ADVICE.get(int(error.code), (DeviceError, "see devices in the manual for this code"))
    return kind(f"{model}: {method} failed: {error.string} ({error.code})", next_step=advice)
