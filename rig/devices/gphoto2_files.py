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
from rig.errors import DeviceError, DeviceTimeoutError

_CHUNK_BYTES = 1 << 20
_EVENT_WAIT_MS = 100
_SETTLE_S, _SETTLE_BLINDLY_S = 0.05, 0.5
"""How long after a file another one may follow: where the body says when it is done, and where it does not."""
_ANNOUNCED_S = 10.0
"""How long after its buffer is written a body may take to announce the file."""


def await_files(
    link: CameraLink, timeout_s: float, *, is_writing: Callable[[], bool | None]
) -> tuple[CardFile, ...]:
    """Collect announced files, each once, until the body has written all it had.

    Args:
        link: The connection.
        timeout_s: How long the first file may take.
        is_writing: Whether files are still to come; None where the body does not say.

    Raises:
        DeviceTimeoutError: No file was announced.
    """
    import gphoto2 as gp

    found: dict[tuple[str, str], None] = {}
    last_found_s, deadline_s = 0.0, time.monotonic() + timeout_s
    was_writing = False
    while time.monotonic() < deadline_s:
        kind, detail = link.event(_EVENT_WAIT_MS)
        if kind == gp.GP_EVENT_FILE_ADDED:
            found[detail.folder, detail.name] = None
            last_found_s = time.monotonic()
        writing = is_writing()
        settle_s = _SETTLE_BLINDLY_S if writing is None else _SETTLE_S
        if found and not writing and time.monotonic() - last_found_s > settle_s:
            break
        if was_writing and not writing:
            deadline_s = min(deadline_s, time.monotonic() + _ANNOUNCED_S)
        was_writing = bool(writing)
    if not found:
        raise _no_file(link.name)
    return tuple(_card_file(link, folder, name) for folder, name in found)


def forget_events(link: CameraLink) -> None:
    """Drop the events of before; files of a spoiled take stay on the card."""
    for _ in link.events(1):
        pass


def copy_file(link: CameraLink, file: CardFile, part: Path, *, progress: Callable[[int], None]) -> str:
    """Copy a card file to a new file and make it durable.

    Returns:
        The sha256 of the bytes as they arrived.

    Raises:
        DeviceError: Fewer or more bytes arrived than the body had told.
    """
    digest, received = hashlib.sha256(), 0
    with part.open("xb") as out:
        for chunk in _chunks(link, file):
            digest.update(chunk)
            out.write(chunk)
            received += len(chunk)
            progress(len(chunk))
        out.flush()
        os.fsync(out.fileno())
    if received != file.size_bytes:
        raise DeviceError(
            f"{link.name}: {file.name}: {received} of {file.size_bytes} bytes arrived",
            kept="the file on the card",
            next_step="fetch it again; if it stays short, the card is failing",
        )
    return digest.hexdigest()


def delete_file(link: CameraLink, file: CardFile) -> None:
    """Remove a card file."""
    link.camera.file_delete(file.folder, file.name, link.context)


def _card_file(link: CameraLink, folder: str, name: str) -> CardFile:
    info = link.camera.file_get_info(folder, name, link.context)
    return CardFile(folder, name, int(info.file.size))


def _chunks(link: CameraLink, file: CardFile) -> Iterator[memoryview]:
    import gphoto2 as gp

    buffer, offset = memoryview(bytearray(_CHUNK_BYTES)), 0
    while offset < file.size_bytes:
        try:
            count = _read_into(link, file, offset, buffer)
        except gp.GPhoto2Error as error:
            if offset or error.code != gp.GP_ERROR_NOT_SUPPORTED:
                raise
            yield _whole(link, file)
            return
        if not count:
            return
        yield buffer[:count]
        offset += count


def _read_into(link: CameraLink, file: CardFile, offset: int, buffer: memoryview) -> int:
    import gphoto2 as gp

    kind: Any = gp.GP_FILE_TYPE_NORMAL
    return int(link.camera.file_read(file.folder, file.name, kind, offset, buffer, link.context))


def _whole(link: CameraLink, file: CardFile) -> memoryview:
    """Read a file in one go, from a body that knows no partial reads."""
    import gphoto2 as gp

    content = gp.CameraFile()
    link.camera.file_get(file.folder, file.name, gp.GP_FILE_TYPE_NORMAL, content, link.context)
    return memoryview(content.get_data_and_size())


def _no_file(name: str) -> DeviceTimeoutError:
    return DeviceTimeoutError(
        f"{name}: the body announced no file",
        kept="what is on the card",
        next_step="check the card; a slow one closes long movies late (movie_close_s in the profile)",
    )
