"""The simulated camera's memory card: files by handle under DCIM, with honest free space."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from rig.sim.ptp_packets import text

MEMORY_OBJECT = 0xFFFF0001
"""Handle of the one object in the body's memory, as Nikon numbers it."""
STORAGE_ID = 0x00010001
FOLDER_NAME = "100CLEAN"
_NO_CARD_ID = 0x00010000
"""A slot without a card, by PTP: a store without a logical part."""
_READ_WRITE, _READ_ONLY = 0, 1
_DCIM, _FOLDER = 1, 2
_FIRST_FILE = 16
_ASSOCIATION, _JPEG, _MOV = 0x3001, 0x3801, 0x300D
_FORMATS = {".jpg": _JPEG, ".mov": _MOV, ".nef": 0x3000, ".cr3": 0xB108}
_DATE = "20260101T000000"


@dataclass(frozen=True)
class CardObject:
    """A file on the card."""

    handle: int
    name: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class CardEntry:
    """A file or folder as a listing tells it."""

    handle: int
    parent: int
    kind: int
    """PTP object format code."""
    size_bytes: int
    name: str

    @property
    def is_folder(self) -> bool:
        """Whether it holds others."""
        return self.kind == _ASSOCIATION


class Card:
    """The files of a camera, by PTP object handle. Thread-safe.

    Args:
        capacity_bytes: Size of the card.

    Attributes:
        capacity_bytes: Size of the card.
        foreign_bytes: Space taken by files that are not ours.
        size_error_bytes: By how much the body tells every file's size wrong.
        is_in: Whether the card is in its slot.
        is_protected: Whether nothing can be written to it.
    """

    def __init__(self, *, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._files: dict[int, CardObject] = {}
        self._next = _FIRST_FILE
        self._number, self._stem = 0, ""
        self.foreign_bytes = 0
        self.size_error_bytes = 0
        self.is_in, self.is_protected = True, False
        self._lock = threading.Lock()

    def add(self, path: Path) -> CardObject:
        """Put a finished file on the card under the camera's next number, which files of one picture share."""
        with self._lock:
            handle, self._next = self._next, self._next + 1
            self._number += path.stem != self._stem
            self._stem = path.stem
            name = f"CLN_{self._number:04d}{path.suffix.upper()}"
            item = CardObject(handle, name, path)
            self._files[handle] = item
            return item

    def keep_in_memory(self, path: Path) -> CardObject:
        """Put a picture into the body's memory, which holds one: the one before it is lost."""
        item = CardObject(MEMORY_OBJECT, path.name, path)
        self._files[MEMORY_OBJECT] = item
        return item

    def file(self, handle: int) -> CardObject | None:
        """Look a file up."""
        return self._files.get(handle)

    def delete(self, handle: int) -> bool:
        """Remove a file; False where there is none."""
        with self._lock:
            item = self._files.pop(handle, None)
        if item is None:
            return False
        item.path.unlink(missing_ok=True)
        return True

    @property
    def free_bytes(self) -> int:
        """Free space."""
        ours = sum(f.size_bytes for f in list(self._files.values()))
        return max(self.capacity_bytes - self.foreign_bytes - ours, 0)

    def storage_ids(self) -> list[int]:
        """List the body's stores."""
        return [STORAGE_ID if self.is_in else _NO_CARD_ID]

    def storage_info(self) -> bytes:
        """Code the StorageInfo dataset."""
        access = _READ_ONLY if self.is_protected else _READ_WRITE
        head = struct.pack("<HHHQQI", 4, 3, access, self.capacity_bytes, self.free_bytes, 9999)
        return head + text("simulated card") + text("SIM")

    def handles(self, parent: int) -> list[int]:
        """List object handles: of everything (0), of the root (0xFFFFFFFF) or of a folder."""
        if parent == 0:
            return [_DCIM, _FOLDER, *self._on_card()]
        if parent == 0xFFFFFFFF:
            return [_DCIM]
        return {_DCIM: [_FOLDER], _FOLDER: self._on_card()}.get(parent, [])

    def _on_card(self) -> list[int]:
        return [handle for handle in self._files if handle != MEMORY_OBJECT]

    def entries(self, parent: int) -> list[CardEntry]:
        """List what is in the root (0xFFFFFFFF) or in a folder."""
        return [entry for handle in self.handles(parent) if (entry := self.entry(handle))]

    def entry(self, handle: int) -> CardEntry | None:
        """Describe an object; None where there is no such one."""
        if handle == _DCIM:
            return CardEntry(_DCIM, 0, _ASSOCIATION, 0, "DCIM")
        if handle == _FOLDER:
            return CardEntry(_FOLDER, _DCIM, _ASSOCIATION, 0, FOLDER_NAME)
        item = self._files.get(handle)
        if item is None:
            return None
        kind = _FORMATS.get(item.path.suffix.lower(), _JPEG)
        return CardEntry(handle, _FOLDER, kind, item.size_bytes + self.size_error_bytes, item.name)

    def object_info(self, handle: int) -> bytes | None:
        """Code the ObjectInfo dataset; None where there is no such object."""
        entry = self.entry(handle)
        return None if entry is None else _object_info(entry)


def _object_info(entry: CardEntry) -> bytes:
    head = struct.pack("<IHHI", STORAGE_ID, entry.kind, 0, min(entry.size_bytes, 0xFFFFFFFF))
    thumbnail_and_size = struct.pack("<HIIIIII", 0, 0, 0, 0, 0, 0, 0)
    place = struct.pack("<IHII", entry.parent, int(entry.is_folder), 0, 0)
    return head + thumbnail_and_size + place + text(entry.name) + text(_DATE) + text(_DATE) + text("")
