"""What a disk may say when it is written to, in plain words, and the journal that survives it."""

from __future__ import annotations

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


class JournalWriter:
    """Appends rows to a journal; each is on the disk when `append` returns.

    Opening copies the rows that are there into a file of its own: an earlier run may have been shown by the system's
    cache what never reached the disk, and syncing such a file again proves nothing. For the same reason nothing is
    appended after a row could not be written; the next run finds the unfinished row as a torn end.

    Args:
        path: The journal, existing or not; the caller holds the session's lock.

    Raises:
        DamagedDataError: A row before the last one is damaged.
        StorageError: The disk does not take the copy; the journal is as before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        journal = read_journal(path) if path.is_file() else Journal((), 0, None)
        self.torn_bytes = journal.torn_bytes
        """Bytes of an unfinished last row that were left out."""
        self._seq, self._last_line = journal.last_seq, journal.last_line
        self._failure: StorageError | None = None
        with storing(path.parent):
            whole = path.read_bytes() if path.is_file() else b""
            replace_file(path, whole[: len(whole) - journal.torn_bytes])
            self._file = path.open("ab", buffering=0)  # a buffer would try again, on its own, what has failed

    def append(self, fields: Mapping[str, Any]) -> None:
        """Number, seal, write and sync one row.

        Raises:
            StorageError: The disk did not take it, now or earlier; nobody knows whether the row is there.
        """
        if self._failure is not None:
            raise self._failure
        line = seal_journal_row({"seq": self._seq + 1, **fields}, previous_line=self._last_line)
        try:
            with storing(self._path.parent):
                self._write(line)
        except StorageError as error:
            self._failure = error
            raise
        self._seq, self._last_line = self._seq + 1, line

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        self._file.close()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())
