"""A place for sessions and exports off this machine, by URL: a mounted path, S3, or whatever else fsspec reaches.

A file appears there whole or not at all: local files by fsync and rename, objects by one commit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from catalog.errors import CatalogError, DamagedDataError, ExitCode, MissingExtraError
from catalog.session_folder import replacing
from catalog.stored_files import open_no_follow

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK_BYTES = 4 << 20
SMALL_BYTES = 16 << 20
"""Up to here a file travels by one request each way; a longer one in parts."""
Advance = Callable[[float], None]
_EXTRAS = {"s3": "s3", "s3a": "s3"}


class StoreError(CatalogError):
    """The far side cannot be reached, or does not take or give what it should."""

    code = "CAT-STO-001"
    exit_code = ExitCode.MISSING


class StoreUrlError(CatalogError, ValueError):
    """A URL that names no store."""

    code = "CAT-STO-002"
    exit_code = ExitCode.INVALID_INPUT


def is_url(place: str | Path) -> bool:
    """Tell whether a place is named by URL rather than by path."""
    return "://" in str(place)


class FarStore:
    """One folder of a store. A copy sent to another process opens it anew.

    Args:
        url: A path, ``s3://bucket/prefix``, or any URL that an installed fsspec driver understands. Credentials come
            from the driver's own environment and files (for S3: ``AWS_*``, ``~/.aws``), never from the URL.

    Raises:
        StoreUrlError: The URL names no known kind of store.
        MissingExtraError: The driver for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _open(self.url)

    def __reduce__(self) -> tuple[type[FarStore], tuple[str]]:
        return FarStore, (self.url,)

    def below(self, name: str) -> FarStore:
        """Return the folder ``name`` in this one."""
        return FarStore(f"{self.url}/{name}")

    def size_bytes(self, name: str) -> int | None:
        """Return a file's size, None where there is none."""
        with self._explained(name):
            self._files.invalidate_cache()
            try:
                return int(self._files.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def is_empty(self) -> bool:
        """Tell whether nothing at all lies here."""
        with self._explained(""):
            self._files.invalidate_cache()
            try:
                return not [
                    found for found in self._files.ls(self._root, detail=False) if found != self._root
                ]
            except FileNotFoundError:
                return True

    def version(self, name: str) -> str:
        """Return a text that changes when a file is written anew."""
        with self._explained(name):
            return str(self._files.ukey(self._path(name)))

    def read(self, name: str, *, limit_bytes: int) -> bytes:
        """Return the content of a file; refuses one above the limit."""
        with self._explained(name), self._files.open(self._path(name), "rb") as file:
            content = bytes(file.read(limit_bytes + 1))
        if len(content) > limit_bytes:
            raise StoreError(f"{self.url}/{name}: longer than {limit_bytes} bytes, which it never is")
        return content

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of every ``(begin, end)`` of a file, asked for at once; a short one was cut at its end."""
        begins, ends = [r[0] for r in ranges], [r[1] for r in ranges]
        with self._explained(name):
            found = self._files.cat_ranges([self._path(name)] * len(ranges), begins, ends, on_error="raise")
        return [bytes(part) for part in found]

    def sha256(self, name: str, *, advance: Advance) -> str:
        """Read a file back and return its hash."""
        digest = hashlib.sha256()
        with self._explained(name):
            for chunk in self._chunks(name):
                digest.update(chunk)
                advance(len(chunk))
        return digest.hexdigest()

    def put(self, source: Path, name: str, *, advance: Advance) -> str:
        """Copy a file there, whole or not at all; returns the hash of what was read here. Links are refused."""
        with self._explained(name), open_no_follow(source) as data:
            if os.fstat(data.fileno()).st_size <= SMALL_BYTES:
                content = data.read()
                self._put_content(content, name)
                advance(len(content))
                return hashlib.sha256(content).hexdigest()
            with self._writing(name) as out:
                return _copy(data, out, advance)

    def send(self, source: Path, name: str, *, sha256: str, advance: Advance) -> None:
        """Copy a file of known content there; it counts once it was read back.

        Raises:
            DamagedDataError: It has another content here.
            StoreError: It reads back differently.
        """
        if self.put(source, name, advance=advance) != sha256:
            self.remove(name)
            raise DamagedDataError(
                f"{source}: is not what was recorded, or changed while it was sent",
                kept="the local file; nothing of it stays on the far side",
                next_step="catalog verify; give the same command again when nothing writes to the file",
            )
        self.require_content(name, sha256, advance=advance)

    def require_content(self, name: str, sha256: str, *, advance: Advance) -> None:
        """Read a file back; raises StoreError where it is not what was sent."""
        if self.sha256(name, advance=advance) != sha256:
            raise StoreError(
                f"{self.url}/{name}: reads back differently from what was sent",
                kept="every local file",
                next_step="the store or the way to it damages data; use another one",
            )

    def put_bytes(self, content: bytes, name: str) -> None:
        """Write a small file, whole or not at all."""
        with self._explained(name):
            self._put_content(content, name)

    def remove(self, name: str) -> None:
        """Delete a file."""
        with self._explained(name):
            self._files.rm_file(self._path(name))

    def clear(self) -> None:
        """Delete all that lies here."""
        if not self.is_empty():
            with self._explained(""):
                self._files.rm(self._root, recursive=True)

    def get(self, name: str, target: Path, *, advance: Advance) -> str:
        """Copy a file here, whole and synced or not at all; returns the hash of what arrived."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._explained(name),
            self._files.open(self._path(name), "rb") as data,
            replacing(target) as out,
        ):
            return _copy(data, out, advance)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _chunks(self, name: str) -> Iterator[bytes]:
        nbytes = self.size_bytes(name)
        if nbytes is not None and nbytes <= SMALL_BYTES:
            yield self._files.cat_file(self._path(name))
            return
        with self._files.open(self._path(name), "rb") as file:
            yield from iter(lambda: file.read(CHUNK_BYTES), b"")

    def _put_content(self, content: bytes, name: str) -> None:
        if self._is_local:
            with self._writing(name) as out:
                out.write(content)
        else:
            self._files.pipe_file(self._path(name), content)

    @property
    def _is_local(self) -> bool:
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self._files, LocalFileSystem)

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        if self._is_local:
            target = Path(self._path(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as out:
                yield out
            return
        out = self._files.open(self._path(name), "wb", autocommit=False)
        try:
            yield out
            out.close()
        except BaseException:
            out.discard()
            out.closed = True  # otherwise its finaliser would upload what there is
            raise
        out.commit()

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except _failures() as error:
            raise _out_of_reach(
                f"{self.url}/{name}", error, kept="every local file, and what has arrived there"
            ) from error


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(url.partition("://")[0])
        raise MissingExtraError(
            f"{url}: {error}",
            next_step=f"pip install 'cleanplate[{extra}]'" if extra else "install that driver of fsspec",
        ) from error
    except ValueError as error:
        raise StoreUrlError(
            f"{url}: {error}", next_step="give a path or a URL like s3://bucket/prefix"
        ) from error
    except _failures() as error:
        raise _out_of_reach(url, error, kept="every local file") from error
    return files, str(root).rstrip("/")


def _out_of_reach(url: str, error: Exception, *, kept: str) -> StoreError:
    return StoreError(
        f"{url}: {type(error).__name__}: {error}",
        kept=kept,
        next_step="check the address, the credentials and the network, then give the same command again",
    )


def _failures() -> tuple[type[Exception], ...]:
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return (OSError,)
    return (OSError, BotoCoreError)


def _copy(data: IO[bytes], out: IO[bytes], advance: Advance) -> str:
    digest = hashlib.sha256()
    while chunk := data.read(CHUNK_BYTES):
        digest.update(chunk)
        out.write(chunk)
        advance(len(chunk))
    return digest.hexdigest()
