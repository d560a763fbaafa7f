"""Temporary folders that do not pile up: whoever makes one first removes those whose owner was killed.

An owner holds an advisory lock on its folder, which the kernel lets go when the owner dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "cleanplate-"


class ScratchFolder:
    """A private temporary folder, ``cleanplate-PURPOSE-…``, locked while this process keeps it.

    Args:
        purpose: What it is for, one word.
    """

    def __init__(self, purpose: str) -> None:
        remove_abandoned(purpose)
        self.path, self._lock = _make(purpose)

    def cleanup(self) -> None:
        """Remove the folder and what is in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned(purpose: str) -> None:
    """Remove this user's scratch folders of one purpose that nobody holds any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{purpose}-*"):
        with suppress(OSError):  # gone meanwhile, held, or somebody else's
            _remove_unless_held(path)


def _remove_unless_held(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(lock).st_uid == os.getuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
    finally:
        os.close(lock)


def _make(purpose: str) -> tuple[Path, int]:
    """Make a folder and lock it; anew where another process took it for abandoned in between."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}-"))
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)
