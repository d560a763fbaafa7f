"""Which bytes from a terminal are the stop keys, and when Space is a letter instead; standard library alone."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

TWICE_S = 1.0
"""Space again within this time is an e-stop."""
_SPLIT_S = 0.1
"""Bytes of one escape sequence that arrive further apart are keys of their own."""
_PASTE_S = 1.0
"""A paste that pauses for longer is over, whether or not the terminal said so."""
_LONGEST_SEQUENCE = 64
_LONGEST_PATH = 4096


class TextWindow:
    """Until when Space is a letter: memory shared with the UI.

    The UI extends it while a text field has the focus and nothing can move. It lapses by itself, so that a UI that
    hangs cannot disarm the key.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    @property
    def open(self) -> bool:
        """Whether Space is a letter at this moment."""
        (until_s,) = struct.unpack("d", self._memory[:])
        return bool(time.monotonic() < until_s)

    def extend(self, duration_s: float) -> None:
        """Let Space be a letter for so long from now; zero ends it at once."""
        self._memory[:] = struct.pack("d", time.monotonic() + duration_s)


class StopTarget:
    """Where stops go: a path in memory shared with the UI, which is the one that finds or starts an engine."""

    def __init__(self, path: Path | None = None) -> None:
        self._memory = mmap.mmap(-1, _LONGEST_PATH)
        if path is not None:
            self.set(path)

    @property
    def path(self) -> Path | None:
        """The engine's stop socket, None while there is no engine."""
        length = int.from_bytes(self._memory[:2], "little")
        return Path(os.fsdecode(self._memory[2 : 2 + length])) if length else None

    def set(self, path: Path) -> None:
        """Send stops to another engine from now on."""
        name = os.fsencode(path)[: _LONGEST_PATH - 2]
        self._memory[:2] = bytes(2)
        self._memory[2 : 2 + len(name)] = name
        self._memory[:2] = len(name).to_bytes(2, "little")


class StopKeys:
    """Finds the stop keys in what a terminal sends.

    No false stop comes from pastes, mouse reports and replies of the terminal, and none is missed because it
    follows a lone Escape: where the two conflict, it is a stop.
    """

    def __init__(self) -> None:
        self._sequence = b""
        self._pasting = False
        self._fed_s = self._space_s = float("-inf")

    def feed(self, data: bytes, now_s: float) -> list[bytes]:
        """Return the stops in these bytes, in order: ``stop`` and ``estop``."""
        gap_s, self._fed_s = now_s - self._fed_s, now_s
        if gap_s > _SPLIT_S:
            self._sequence = b""
        self._pasting = self._pasting and gap_s < _PASTE_S
        keys = [key for byte in data if (key := self._key(bytes((byte,))))]
        return [self._meaning(key, now_s) for key in keys]

    def _meaning(self, key: str, now_s: float) -> bytes:
        twice = now_s - self._space_s < TWICE_S
        if key == " ":
            self._space_s = now_s
        return b"estop" if key == "!" or twice else b"stop"

    def _key(self, byte: bytes) -> str:
        if self._sequence:
            return self._in_sequence(byte)
        if byte == b"\x1b":
            self._sequence = byte
        elif byte in b" !" and not self._pasting:
            return byte.decode()
        return ""

    def _in_sequence(self, byte: bytes) -> str:
        so_far = self._sequence + byte
        self._sequence = so_far if len(so_far) < _LONGEST_SEQUENCE else b""
        kind = so_far[1:2]
        if kind == b"\x1b":
            self._sequence = byte
        elif so_far.startswith(
            b"\x1b[M"
        ):  # a mouse report of the oldest kind: three bytes of any value follow
            self._end_if(len(so_far) >= 6)
        elif kind in b"P]X^_":  # a reply of the terminal: text up to BEL or ESC \
            self._end_if(byte == b"\x07" or so_far.endswith(b"\x1b\\"))
        elif (
            byte in b" !" and not self._pasting
        ):  # no terminal sends these inside a sequence: the operator did
            self._sequence = b""
            return byte.decode()
        elif kind not in b"[O" or (len(so_far) > 2 and byte >= b"@"):
            self._sequence = b""
            return self._complete(so_far)
        return ""

    def _end_if(self, complete: bool) -> None:
        if complete:
            self._sequence = b""

    def _complete(self, sequence: bytes) -> str:
        fields, final = sequence[2:-1].split(b";"), sequence[-1:]
        if final == b"~" and fields[0] in {b"200", b"201"}:
            self._pasting = fields[0] == b"200"
        codes: list[bytes] = []
        if final == b"u":  # kitty's protocol: code, modifiers, text
            codes = fields[0].split(b":") + fields[2:3]
        elif final == b"~" and len(fields) == 3:  # xterm's modifyOtherKeys: 27, modifiers, code
            codes = fields[2:]
        return next((sign for sign in " !" if str(ord(sign)).encode() in codes), "")
