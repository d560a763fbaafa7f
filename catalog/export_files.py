"""Put the files of an export in place: hard links beneath a folder of our own, copies where links fail."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from catalog.bare_png import bare_png
from catalog.errors import CatalogError, DamagedDataError
from catalog.session_folder import sync_folder
from catalog.stored_files import content_sha256, look_at, open_no_follow

_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})
_COPY_PREFIX = ".copy-"
_COPY_BYTES = 1 << 20
_WRITE_BITS = 0o222


class ExportBusyError(CatalogError, TimeoutError):
    """Another process writes this export or import."""

    code = "CAT-EXP-002"


def put_in_place(source: str, target: str, *, sha256: str, nbytes: int | None, check: bool) -> None:
    """Hard-link a file into the export, or copy it; one that stands there already is left alone.

    Places are text, since a million `Path` objects cost as much as the links. The size is always compared, the
    content where it is copied or with ``check``. The linked file becomes read-only: export and session folder share
    its bytes.

    Raises:
        DamagedDataError: The source is missing, is a link, or is not what the catalog recorded.
    """
    try:
        _link_or_copy(source, target, sha256)
    except FileExistsError:  # of an interrupted run; seldom, so it is not asked for beforehand
        if look_at(target, expected_nbytes=nbytes).state != "present":
            Path(target).unlink()
            _link_or_copy(source, target, sha256)
    sighting = look_at(target, expected_nbytes=nbytes)
    if sighting.state != "present":
        Path(target).unlink(missing_ok=True)
        raise _damaged(source, sighting.problem)
    if sighting.mode & _WRITE_BITS:
        Path(target).chmod(sighting.mode & ~_WRITE_BITS)
    if check and content_sha256(Path(target)) != sha256:
        Path(target).unlink()
        raise _damaged(source, "its content is not what was recorded")


def put_bare(source: Path, target: Path, *, sha256: str, bare_sha256: str) -> None:
    """Write a copy of a PNG without private metadata; one that stands there already is left alone.

    Raises:
        DamagedDataError: The source is missing, is a link, or is not what the catalog recorded.
    """
    if look_at(target, expected_nbytes=None).state == "present" and content_sha256(target) == bare_sha256:
        return
    target.unlink(missing_ok=True)
    with _whole_file(target) as writing:
        writing.write(bare_content(source, sha256))
    _make_read_only(target)


def bare_content(source: Path, sha256: str) -> bytes:
    """Return the bytes of a recorded PNG without private metadata; raises DamagedDataError as `put_bare`."""
    try:
        with open_no_follow(source) as reading:
            content = reading.read()
    except OSError as error:
        raise _damaged(source, f"cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise _damaged(source, "its content is not what was recorded")
    return bare_png(content)


@contextmanager
def private_folder(path: Path, *, writes: str = "export") -> Iterator[None]:
    """Make a folder that only we can enter, or go on with ours, and hold it against other processes.

    An empty one is gone afterwards.

    Args:
        path: The folder.
        writes: What is written there, for messages.

    Raises:
        ExportBusyError: Another process holds it.
        CatalogError: Something that is not our folder stands there.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise CatalogError(f"{path}: not a folder of ours", kept="it, untouched", next_step="move it away")
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ExportBusyError(
            f"{path}: another process writes this {writes}", next_step="wait for it"
        ) from None
    finally:
        os.close(handle)
        with suppress(OSError):  # it holds something, or was published
            path.rmdir()


def publish(part: Path, final: Path) -> None:
    """Make every name durable, open the folder to others, and give it its name in one step."""
    folders = [Path(folder) for folder, _, _ in os.walk(part)]
    for folder in folders:
        folder.chmod(0o777 & ~_umask())
        sync_folder(folder)
    part.rename(final)
    sync_folder(final.parent)


def clear_folder(folder: Path) -> None:
    """Remove all that stands in a folder; links are removed, never followed."""
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that is durable when the block ends; one of an earlier attempt gives way."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Make a written file's content durable."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _link_or_copy(source: str, target: str, sha256: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        folder = Path(target).parent
        if folder.is_dir():
            raise _damaged(source, "the file is missing") from None
        folder.mkdir(mode=0o700, parents=True)
        _link_or_copy(source, target, sha256)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(Path(source), Path(target), sha256)


def _make_read_only(path: Path) -> None:
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & _WRITE_BITS:
        path.chmod(mode & ~_WRITE_BITS)


def _copy(source: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with open_no_follow(source) as reading, _whole_file(target) as writing:
        while block := reading.read(_COPY_BYTES):
            digest.update(block)
            writing.write(block)
        if digest.hexdigest() != sha256:
            raise _damaged(source, "its content is not what was recorded")


@contextmanager
def _whole_file(target: Path) -> Iterator[BinaryIO]:
    """Write a file that is durable before it gets its name; nothing of it stays when the block fails."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = target.with_name(_COPY_PREFIX + target.name)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(part, flags, 0o644), "wb") as writing:
            yield writing
            writing.flush()
            os.fsync(writing.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.rename(target)


def _damaged(source: Path | str, problem: str) -> DamagedDataError:
    return DamagedDataError(
        f"{source}: {problem}",
        kept="what was exported so far",
        next_step="catalog verify, then export again with --restart",
    )


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current
