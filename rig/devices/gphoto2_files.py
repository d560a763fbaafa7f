"""Files on the card: waiting until the body announces them, copying and deleting them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rig.devices.camera import CardFile
from rig.devices.gphoto2_link import CameraLink
from rig.devices.gphoto2_wholeness import damage_of
from rig.errors import DeviceError, DeviceTimeoutError

_CHUNK_BYTES = 1 << 20
_EVENT_WAIT_MS, _LAST_WAIT_MS = 100, 20
"""How long to wait for an event: while files are missing, and when one more may come."""
_SETTLE_S, _SETTLE_BLINDLY_S = 0.05, 0.5
"""How long after a file another one may follow: where the body says when it is done, and where it does not."""
_CHATTER_S = 1.0
"""How long after that a body may go on telling of other things."""
_MEMORY_FOLDER = "/"
"""Where the library shows objects in the body's memory, as capt0000.jpg."""
HELD_FOLDER = "memory"
"""Folder of a `CardFile` that is not on the card: taken out of the body's memory already."""
_ANNOUNCED_S = 10.0
"""How long after its buffer is written a body may take to announce the file."""


class _Pace:
    """Knows when no further file is to be expected.

    What the body says of itself counts only when it was asked before the last look for events, and that look found
    none: the last file may have been announced in between, behind other events.

    Args:
        deadline_s: When waiting ends in any case; drawn nearer once the body has written all it had.
        expected: How many files must come at least.
    """

    def __init__(self, deadline_s: float, *, expected: int) -> None:
        self.deadline_s = deadline_s
        self._expected = expected
        self._count = 0
        self._settled_s = 0.0
        self._writing: bool | None = None

    def is_over(self, count: int, *, nothing_waits: bool) -> bool:
        """Tell whether to wait no longer; a body that tells this and that without end is not listened to for ever."""
        now_s = time.monotonic()
        is_quiet = nothing_waits or now_s > self._settled_s + _CHATTER_S
        return (
            self._expected <= count == self._count
            and not self._writing
            and is_quiet
            and now_s > self._settled_s
        )

    def complete(self) -> None:
        """Note that the body calls the picture or movie done; one that says no more of itself needs no blind wait."""
        if self._writing is None and self._count >= self._expected:
            self._settled_s = time.monotonic() + _SETTLE_S

    def note(self, count: int, writing: bool | None) -> None:
        """Note how many files there are now and whether the body says that it writes (None: it does not say)."""
        now_s = time.monotonic()
        if count > self._count:
            self._settled_s = now_s + (_SETTLE_BLINDLY_S if writing is None else _SETTLE_S)
        if self._writing and not writing:
            self.deadline_s = min(self.deadline_s, now_s + _ANNOUNCED_S)
        self._count, self._writing = count, writing


class CardFiles:
    """Waits for the files of a picture or movie, copies and deletes them.

    A body whose capture target has flipped writes to its memory instead of the card. Such an object is volatile and
    its name used again for the next one, so it is taken out at once and kept in a folder under a name of its own.

    Args:
        link: The connection.
        hold: Folder for what was taken out of the body's memory.
    """

    def __init__(self, link: CameraLink, hold: Path) -> None:
        self._link, self._hold = link, hold
        self._held = 0
        self._found: dict[tuple[str, str], CardFile] = {}

    def note_events(self) -> None:
        """Read the events that wait, keeping the files they announce for `arrivals`."""
        for kind, detail in self._link.events(1):
            self._note(kind, detail)

    def forget_events(self) -> None:
        """Read the events of before and forget them; files of a spoiled take stay on the card."""
        self.note_events()
        self._found.clear()

    def await_count(self, count: int, timeout_s: float) -> None:
        """Wait until so many files were announced or the time is over; `arrivals` returns them."""
        deadline_s = time.monotonic() + timeout_s
        while len(self._found) < count and time.monotonic() < deadline_s:
            self._note(*self._link.event(_EVENT_WAIT_MS))

    def arrivals(
        self, timeout_s: float, *, is_writing: Callable[[], bool | None], expected: int = 1
    ) -> tuple[CardFile, ...]:
        """Collect announced files, each once, until the body has written all it had; in the camera's numbering.

        Args:
            timeout_s: How long the files may take.
            is_writing: Whether files are still to come; None where the body does not say.
            expected: How many must come at least.

        Raises:
            DeviceTimeoutError: Fewer were announced.
        """
        import gphoto2 as gp

        pace = _Pace(time.monotonic() + timeout_s, expected=expected)
        while time.monotonic() < pace.deadline_s:
            kind, detail = self._link.event(_LAST_WAIT_MS if len(self._found) >= expected else _EVENT_WAIT_MS)
            self._note(kind, detail)
            if kind == gp.GP_EVENT_CAPTURE_COMPLETE:
                pace.complete()
            if pace.is_over(len(self._found), nothing_waits=kind == gp.GP_EVENT_TIMEOUT):
                break
            pace.note(len(self._found), is_writing())
        files = sorted(self._found.values(), key=lambda f: (f.folder, f.name))
        if len(files) < expected:
            raise _too_few(self._link.name, [f.name for f in files], expected)
        return tuple(files)

    def copy(self, file: CardFile, part: Path, *, progress: Callable[[int], None]) -> str:
        """Copy a file to a new one, make it durable and see that it is whole.

        Returns:
            The sha256 of the bytes as they arrived.

        Raises:
            DeviceError: Fewer bytes arrived than the body had told, or the file is damaged.
        """
        digest, received = hashlib.sha256(), 0
        with part.open("xb") as out:
            for chunk in self._chunks(file):
                digest.update(chunk)
                out.write(chunk)
                received += len(chunk)
                progress(len(chunk))
            out.flush()
            os.fsync(out.fileno())
        if received != file.size_bytes:
            raise _not_whole(self._link.name, file, f"{received} of {file.size_bytes} bytes arrived")
        if damage := damage_of(part, Path(file.name).suffix):
            raise _not_whole(self._link.name, file, damage)
        return digest.hexdigest()

    def delete(self, file: CardFile) -> None:
        """Remove a file."""
        if file.folder == HELD_FOLDER:
            (self._hold / file.name).unlink(missing_ok=True)
        else:
            self._link.camera.file_delete(file.folder, file.name, self._link.context)

    def _note(self, kind: int, detail: Any) -> None:
        import gphoto2 as gp

        if kind == gp.GP_EVENT_FILE_ADDED and (place := (detail.folder, detail.name)) not in self._found:
            self._found[place] = self._taken_in(*place)

    def _taken_in(self, folder: str, name: str) -> CardFile:
        if folder != _MEMORY_FOLDER:
            info = self._link.camera.file_get_info(folder, name, self._link.context)
            return CardFile(folder, name, int(info.file.size))
        self._held += 1
        held = self._hold / f"{self._held:06d}-{name}"
        content = _whole(self._link, CardFile(folder, name, 0))
        held.write_bytes(content)
        return CardFile(HELD_FOLDER, held.name, len(content))

    def _chunks(self, file: CardFile) -> Iterator[memoryview]:
        if file.folder == HELD_FOLDER:
            return _chunks_of(self._hold / file.name)
        return _chunks(self._link, file)


def _chunks_of(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield memoryview(chunk)


def _chunks(link: CameraLink, file: CardFile) -> Iterator[memoryview]:
    import gphoto2 as gp

    buffer, offset = memoryview(bytearray(_CHUNK_BYTES)), 0
    while offset < file.size_bytes:
        try:
            count = _read_into(link, file, offset, buffer)
        except gp.GPhoto2Error as error:
            if offset or error.code != gp.GP_ERROR_NOT_SUPPORTED:
                raise
            yield memoryview(_whole(link, file))
            return
        if not count:
            return
        yield buffer[:count]
        offset += count


def _read_into(link: CameraLink, file: CardFile, offset: int, buffer: memoryview) -> int:
    import gphoto2 as gp

    kind: Any = gp.GP_FILE_TYPE_NORMAL
    return int(link.camera.file_read(file.folder, file.name, kind, offset, buffer, link.context))


def _whole(link: CameraLink, file: CardFile) -> bytes:
    """Read a file in one go, from a body that knows no partial reads."""
    import gphoto2 as gp

    content = gp.CameraFile()
    link.camera.file_get(file.folder, file.name, gp.GP_FILE_TYPE_NORMAL, content, link.context)
    return bytes(content.get_data_and_size())  # a view would outlive the library's buffer


def _too_few(name: str, found: list[str], expected: int) -> DeviceTimeoutError:
    came = f"only {', '.join(found)} of {expected} files" if found else "no file"
    return DeviceTimeoutError(
        f"{name}: the body announced {came}",
        kept="what is on the card",
        next_step="check the card; a slow one closes long movies late (movie_close_s in the profile)",
    )


def _not_whole(name: str, file: CardFile, what: str) -> DeviceError:
    return DeviceError(
        f"{name}: {file.name}: {what}",
        kept="the file on the card",
        next_step="fetch it again; if it stays so, the card is failing",
    )
