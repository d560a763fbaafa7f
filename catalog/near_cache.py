"""Copies of a store's small files, kept here so that any number of processes fetch them once and share them in memory.

They lie below the cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``), and take at most ``$CLEANPLATE_CACHE_GB``
gigabytes, 20 unless set: the copies that were not used for longest give way. What was used within the last hour stays
in any case, and a copy that a process has open serves it to the end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from catalog.errors import CatalogError, ExitCode
from catalog.far_store import FarStore

LIMIT_VARIABLE = "CLEANPLATE_CACHE_GB"
DEFAULT_LIMIT_GB = 20.0
SPARED_S = 3600
_SWEEPS_A_LIMIT = 16
"""The folder is looked through again when a process has fetched this part of the limit."""


class CacheLimitError(CatalogError, ValueError):
    """The cache's limit is not a number of gigabytes."""

    code = "CAT-CAC-001"
    exit_code = ExitCode.INVALID_INPUT


def near_copy(far: FarStore, name: str) -> Path:
    """Return a copy of a store's file below the cache folder, fetched if it is not the one that is there.

    Raises:
        StoreError: It cannot be fetched.
        CacheLimitError: The environment sets a limit that is none.
    """
    return _cache_at(_cache_folder(), _limit_bytes()).copy_of(far, name)


class NearCache:
    """A folder of copies, each in a folder of its own that is named after the file's place and version.

    Args:
        folder: Where they lie.
        limit_bytes: What all of them may take.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._fetched_bytes = limit_bytes  # so that the first fetch of a process makes room

    def copy_of(self, far: FarStore, name: str) -> Path:
        """Return a copy; see `near_copy`."""
        version = hashlib.sha256(f"{far.url}/{name} {far.version(name)}".encode()).hexdigest()
        copy = self._folder / version[:32] / Path(name).name
        try:
            os.utime(copy)  # its use; the time of reading is not kept on every file system
        except FileNotFoundError:
            self._fetch(far, name, copy)
        return copy

    def _fetch(self, far: FarStore, name: str, copy: Path) -> None:
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent) as own:  # several processes may fetch at once
            arrived = Path(own) / copy.name
            far.get(name, arrived, advance=lambda _: None)
            arrived.replace(copy)
        self._fetched_bytes += copy.stat().st_size
        if self._fetched_bytes * _SWEEPS_A_LIMIT >= self._limit_bytes:
            self._make_room()
            self._fetched_bytes = 0

    def _make_room(self) -> None:
        """Remove what was not used for longest, until the rest is within the limit."""
        try:
            copies = sorted(self._copies())
        except FileNotFoundError:  # another process is making room
            return
        excess = sum(nbytes for _, nbytes, _ in copies) - self._limit_bytes
        for used_s, nbytes, folder in copies:
            if excess <= 0 or used_s > time.time() - SPARED_S:
                return
            shutil.rmtree(folder, ignore_errors=True)
            excess -= nbytes

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each copy was used last, its size, and its folder."""
        for folder in self._folder.iterdir():
            files = [found.stat() for found in folder.rglob("*") if found.is_file()]
            used_s = max((f.st_mtime for f in files), default=folder.stat().st_mtime)
            yield used_s, sum(f.st_size for f in files), folder


@cache
def _cache_at(folder: Path, limit_bytes: int) -> NearCache:
    return NearCache(folder, limit_bytes)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleanplate" / "store"


def _limit_bytes() -> int:
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit_gb = float(text) if text else DEFAULT_LIMIT_GB
        return int(max(limit_gb, 0) * 1e9)
    except (ValueError, OverflowError):
        raise CacheLimitError(
            f"{LIMIT_VARIABLE}={text!r} is not a number of gigabytes",
            next_step=f"set it to 50, say, or unset it for {DEFAULT_LIMIT_GB:.0f}",
        ) from None
