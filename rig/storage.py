"""What a disk may say when it is written to, in plain words, and the journal that survives it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catalog.errors import CleanplateError
from catalog.journal import Journal, read_journal, seal_journal_row
from catalog.session_folder import replace_file
from rig.errors import StorageError

_MENDS: Mapping[int, str] = {
    errno.ENOSPC: "free space on the disk of {}",
    errno.EDQUOT: "free space within your quota on the disk of {}",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`) or take another disk than that of {}",
    errno.EROFS: "the disk of {} is mounted read-only: look into the system's log, mount it writable again",
    errno.EIO: "the disk of {} is failing: copy its sessions to another one",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n`)",
    errno.ENFILE: "the machine has too many files open: end other programs",
    errno.EACCES: "make {} writable for this user",
}

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
BALLAST_BYTES = 64 << 20
"""Room kept for the end of a session on a disk that fills in spite of the forecast."""


@contextmanager
def storing(where: Path) -> Iterator[None]:
    """Turn what the system says about a failed write into our error.

    Args:
        where: The folder that is written to.

    Raises:
        StorageError: With what to free or to mend.
    """
    try:
        yield
    except (CleanplateError, FileExistsError):  # ours already, or no matter of the disk
        raise
    except OSError as error:
        mend = _MENDS.get(error.errno or 0, "see to the disk of {}")
        raise StorageError(
            f"{where}: {error.strerror or error}",
            kept="every file acknowledged so far",
            next_step=mend.format(where),
        ) from error


class Ballast:
    """Room held on a disk until that is full: what a session has to say of its end then still finds a place.

    A file without a name: no listing shows it, and it goes with the process that holds it, however that ends. Where
    there is no room for it, a session does without.

    Args:
        folder: A folder on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        with contextlib.suppress(OSError), contextlib.ExitStack() as opening:
            descriptor = _open_without_name(folder)
            opening.callback(os.close, descriptor)
            os.posix_fallocate(descriptor, 0, BALLAST_BYTES)
            opening.pop_all()
            self._descriptor = descriptor

    def drop(self) -> bool:
        """Give the room back; tells whether there was any. Safe to call twice."""
        if self._descriptor < 0:
            return False
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):  # of a disk that fails otherwise, too
            os.ftruncate(descriptor, 0)  # some file systems free what was closed when they find the time
        os.close(descriptor)
        return True


def _open_without_name(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    path = folder / ".ballast"  # network and exchange file systems need a name for a moment
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return descriptor


class JournalWriter:
    """Appends rows to a journal; each is on the disk when `append` returns.

    Opening copies the rows that are there into a file of its own: an earlier run may have been shown by the system's
    cache what never reached the disk, and syncing such a file again proves nothing. For the same reason nothing is
    appended after a row could not be written; the next run finds the unfinished row as a torn end. Only where the
    disk was full does it go on, once, in the room of a ballast and in another copy.

    Args:
        path: The journal, existing or not; the caller holds the session's lock.
        ballast: Dropped when the disk is full; the caller's. None for no such reserve.

    Raises:
        DamagedDataError: A row before the last one is damaged.
        StorageError: The disk does not take the copy; the journal is as before.
    """

    def __init__(self, path: Path, ballast: Ballast | None = None) -> None:
        self._path, self._ballast = path, ballast
        journal = read_journal(path) if path.is_file() else Journal((), 0, None)
        self.torn_bytes = journal.torn_bytes
        """Bytes of an unfinished last row that were left out."""
        self._seq, self._last_line = journal.last_seq, journal.last_line
        self._failure: StorageError | None = None
        with storing(path.parent):
            whole = path.read_bytes() if path.is_file() else b""
            self._start_copy(whole[: len(whole) - journal.torn_bytes])

    def append(self, fields: Mapping[str, Any]) -> None:
        """Number, seal, write and sync one row.

        Raises:
            StorageError: The disk did not take it, now or earlier; nobody knows whether the row is there. It is where
                a ballast made room for it, and the rows that follow will be, too.
        """
        if self._failure is not None:
            raise self._failure
        line = seal_journal_row({"seq": self._seq + 1, **fields}, previous_line=self._last_line)
        try:
            with storing(self._path.parent):
                self._write(line)
        except StorageError as error:
            if not self._finds_room(line, error):
                self._failure = error
            raise
        self._length += len(line)
        self._count(line)

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        self._file.close()

    def _start_copy(self, whole: bytes) -> None:
        replace_file(self._path, whole)
        # A buffer would try again, on its own, what has failed.
        self._file = self._path.open("ab", buffering=0)
        self._length = len(whole)

    def _finds_room(self, line: bytes, error: StorageError) -> bool:
        """Write a row for which there was no room; tells whether it is there."""
        cause = error.__cause__
        is_full = isinstance(cause, OSError) and cause.errno in _NO_ROOM
        if not (is_full and self._ballast is not None and self._ballast.drop()):
            return False
        with contextlib.suppress(OSError):
            self._file.close()
            self._start_copy(self._path.read_bytes()[: self._length] + line)
            self._count(line)
            return True
        return False

    def _count(self, line: bytes) -> None:
        self._seq, self._last_line = self._seq + 1, line

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
