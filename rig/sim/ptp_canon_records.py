"""Records of Canon's EOS event stream and folder listings, as the simulated body sends them.

The initiator polls for events. An answer is a row of records ``u32 length, u32 code, payload`` and an empty record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

from rig.sim.ptp_card import STORAGE_ID, CardEntry

_END = struct.pack("<II", 8, 0)
_NAME_BYTES = 16
_FOCUS_POINTS = 1
_TIME = struct.pack("<I", 1_767_225_600)  # 2026-01-01, as the card's other dates


class EosEvent(IntEnum):
    """Event codes."""

    OBJECT_ADDED = 0xC181
    TRANSFER_WANTED = 0xC186
    VALUE_CHANGED = 0xC189
    CHOICES_CHANGED = 0xC18A
    STATUS_CHANGED = 0xC18B


def record(code: EosEvent, payload: bytes) -> bytes:
    """Code one record."""
    return struct.pack("<II", 8 + len(payload), code) + payload


def stream(records: Iterable[bytes]) -> bytes:
    """Code an answer to the poll for events."""
    return b"".join(records) + _END


def object_added(entry: CardEntry) -> bytes:
    """Code the payload that announces a file."""
    head = struct.pack("<IIIII", entry.handle, STORAGE_ID, entry.kind, 0, 0)
    return head + struct.pack("<III", entry.size_bytes, entry.parent, entry.handle) + _name(entry)


def object_in_memory(entry: CardEntry) -> bytes:
    """Code the payload that asks the initiator to fetch a picture out of the body's memory."""
    return struct.pack("<IIIII", entry.handle, entry.kind, 0, entry.size_bytes, 0) + _name(entry)


def folder_listing(entries: Iterable[CardEntry]) -> bytes:
    """Code a folder's contents: count, then each entry behind its length."""
    coded = [_listed(entry) for entry in entries]
    return struct.pack("<I", len(coded)) + b"".join(struct.pack("<I", 4 + len(one)) + one for one in coded)


def focus_info() -> bytes:
    """Code the payload that follows a half press: one focus point, selected.

    A body in manual focus sends it as well; the library waits for it two seconds before it presses on.
    """
    points = struct.pack("<4H", 100, 100, 0, 0) + b"\1\0" + b"\xff\xff"
    size = 20 + len(points)
    return (
        struct.pack("<IHHHHHHHH", size, size - 4, 1, _FOCUS_POINTS, _FOCUS_POINTS, 600, 400, 600, 400)
        + points
    )


def _listed(entry: CardEntry) -> bytes:
    head = struct.pack("<IIIIB3x", entry.handle, STORAGE_ID, entry.kind, 0, entry.is_folder << 4)
    return head + struct.pack("<III", entry.size_bytes, 0, entry.handle) + _name(entry) + _TIME


def _name(entry: CardEntry) -> bytes:
    return entry.name.encode().ljust(_NAME_BYTES, b"\0")
