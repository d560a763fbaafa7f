"""Files that are read in pieces, here or in a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from catalog.far_store import FarStore


class ByteSource(Protocol):
    """A file that is read in pieces; several threads may read at once."""

    nbytes: int

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)``."""


class LocalFile:
    """A `ByteSource` on this machine; the system is told not to read ahead."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.nbytes = os.fstat(self._handle).st_size
        os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_RANDOM)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)``."""
        return [os.pread(self._handle, end - begin, begin) for begin, end in ranges]

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


class FarFile:
    """A `ByteSource` in a store; all ranges of one call are asked for at once.

    Raises:
        FileNotFoundError: Nothing of that name is there.
        StoreError: The store cannot be reached.
    """

    def __init__(self, far: FarStore, name: str) -> None:
        nbytes = far.size_bytes(name)
        if nbytes is None:
            raise FileNotFoundError(f"{far.url}/{name}: there is no such file")
        self._far, self._name, self.nbytes = far, name, nbytes

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)``."""
        return self._far.read_ranges(self._name, ranges)
