"""Look at the files behind the catalog without following links and without leaving their folder."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from catalog.errors import DamagedDataError, SessionFolderError

AssetState = Literal["present", "missing", "quarantined"]
_PNG_HEADER = struct.Struct(">8s4x4sII")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Sighting:
    """What a first look at a file shows; its content was not read."""

    state: AssetState
    nbytes: int | None
    problem: str = ""
    """Why the state is not ``present``."""
    mode: int = 0
    """Permissions of a file that is present."""


def look_at(path: Path | str, *, expected_nbytes: int | None) -> Sighting:
    """Check that a regular file of the expected size stands there."""
    try:
        found = os.lstat(path)
    except OSError:
        return Sighting("missing", None, "the file is missing")
    if not stat.S_ISREG(found.st_mode):
        return Sighting("quarantined", None, "a link or folder stands in the file's place")
    if expected_nbytes is not None and found.st_size != expected_nbytes:
        problem = f"{found.st_size} bytes instead of {expected_nbytes}"
        return Sighting("quarantined", found.st_size, problem)
    return Sighting("present", found.st_size, mode=stat.S_IMODE(found.st_mode))


def open_no_follow(path: Path) -> BinaryIO:
    """Open a file for reading; a link in its place is an OSError."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def content_sha256(path: Path, *, first_nbytes: int | None = None) -> str:
    """Return the sha256 of a file, or of its first bytes, without following a link."""
    with open_no_follow(path) as file:
        if first_nbytes is None:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return hashlib.sha256(file.read(first_nbytes)).hexdigest()


def png_size(path: Path) -> tuple[int, int] | None:
    """Read width and height from a PNG's header; None where there is no such header."""
    try:
        with open_no_follow(path) as file:
            head = file.read(_PNG_HEADER.size)
    except OSError:
        return None
    if len(head) < _PNG_HEADER.size:
        return None
    signature, kind, width, height = _PNG_HEADER.unpack(head)
    return (width, height) if signature == PNG_SIGNATURE and kind == b"IHDR" else None


class FolderRoot:
    """Resolves recorded paths beneath one folder; a path that leads elsewhere is refused."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._known_parents: set[str] = set()

    def path(self, relpath: str) -> Path:
        """Return the place of a recorded file; raises as `name`."""
        return Path(self.name(relpath))

    def name(self, relpath: str) -> str:
        """Return the place of a recorded file as text, for those who ask a million times.

        Raises:
            SessionFolderError: The path is absolute, climbs, or passes through a link that leads out.
        """
        parent, _, name = relpath.rpartition("/")
        if parent not in self._known_parents:
            self._check_parent(parent, relpath)
        if relpath.startswith("/") or name in {"", ".", ".."} or "\0" in name:
            raise self._leaves(relpath)
        return f"{self.root}/{relpath}"

    def _leaves(self, relpath: str) -> SessionFolderError:
        return SessionFolderError(f"{self.root}: recorded path {relpath!r} leaves the folder")

    def _check_parent(self, parent: str, relpath: str) -> None:
        parts = PurePosixPath(relpath)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in relpath:
            raise self._leaves(relpath)
        real = Path(os.path.realpath(self.root / parent))
        if not real.is_relative_to(self._real_root):
            raise DamagedDataError(
                f"{self.root}: {relpath!r} passes through a link that leads out of the folder",
                next_step="put the files themselves in the session folder",
            )
        self._known_parents.add(parent)
