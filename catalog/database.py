"""Open a catalog's database: what stands in the file is checked before anything is changed.

SQLite settings and why: WAL lets readers go on while one process writes; every writing transaction begins
IMMEDIATE, since a read that turns into a write fails at once whatever the timeout; `synchronous=FULL` makes
a committed row survive a power cut; readers run with `query_only`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from catalog.errors import CatalogError, DamagedDataError, ExitCode

APPLICATION_ID = 0x434C504C
"""``CLPL`` in the file's header, so that a foreign database is never touched."""
SCHEMA_VERSION = 1
"""Number of the newest migration; stands in the file's header too."""
BUSY_TIMEOUT_S = 20.0
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 72
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs"})


class DatabaseUrlError(CatalogError, ValueError):
    """The catalog's address cannot be used."""

    code = "CAT-DB-001"
    exit_code = ExitCode.INVALID_INPUT


class CatalogNotFoundError(CatalogError, FileNotFoundError):
    """There is no catalog at that address."""

    code = "CAT-DB-002"
    exit_code = ExitCode.MISSING


class SchemaVersionError(CatalogError):
    """The database belongs to another version of the product."""

    code = "CAT-DB-003"
    exit_code = ExitCode.MISSING


class ForeignDatabaseError(CatalogError):
    """The file is a database, but not a catalog."""

    code = "CAT-DB-004"
    exit_code = ExitCode.INVALID_INPUT


class CatalogBusyError(CatalogError, TimeoutError):
    """Another process held the database for too long."""

    code = "CAT-DB-005"


class DamagedDatabaseError(DamagedDataError):
    """The database file itself is damaged."""

    code = "CAT-DB-006"


class FileSystemError(CatalogError, OSError):
    """The file system cannot hold a SQLite catalog."""

    code = "CAT-DB-007"
    exit_code = ExitCode.MISSING


DatabaseState = Literal["absent", "old", "current"]


class Database:
    """One SQLite catalog file; connects lazily.

    Args:
        url_or_path: Path of the file, or ``sqlite:///path``.

    Raises:
        DatabaseUrlError: The address is of a kind that this version does not serve.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        self.path = _database_path(url_or_path)
        self._reader: Engine | None = None
        self._writer: Engine | None = None

    def state(self) -> DatabaseState:
        """Tell what stands at the address without changing a byte of it.

        Raises:
            ForeignDatabaseError: Another application's database.
            SchemaVersionError: Written by a newer version.
            DamagedDatabaseError: Not readable as a database.
        """
        if not self.path.is_file() or self.path.stat().st_size == 0:
            return "absent"
        application_id, version, changes = self._header()
        if not changes:  # made by somebody who is just creating the catalog, or was killed at it
            return "absent"
        if application_id != APPLICATION_ID:
            raise ForeignDatabaseError(
                f"{self.path}: a database, but not a catalog of ours",
                kept="the file, unchanged",
                next_step="give another --catalog or --data",
            )
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{self.path}: written by a newer version (schema {version}; this one knows {SCHEMA_VERSION})",
                kept="the file, unchanged",
                next_step="upgrade cleanplate, or give another --catalog",
            )
        return "current" if version == SCHEMA_VERSION else "old"

    def require_current(self) -> None:
        """Raise unless a catalog of the present schema stands here; raises as `state` besides."""
        state = self.state()
        if state == "absent":
            raise CatalogNotFoundError(
                f"{self.path}: there is no catalog", next_step="catalog add SESSION, or catalog init"
            )
        if state == "old":
            raise SchemaVersionError(f"{self.path}: has an older schema", next_step="catalog migrate")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction that cannot write."""
        if self._reader is None:
            self._reader = _engine(self.path, writable=False)
        with self._explain(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction: all of it is durable afterwards, or none of it happened."""
        if self._writer is None:
            self._writer = _engine(self.path, writable=True)
        with self._explain(), self._writer.begin() as connection:
            yield connection

    def back_up(self, target: Path) -> None:
        """Copy the database into a new file, whole and consistent while others use it."""
        with self._explain(), closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)) as source:
            source.execute("VACUUM INTO ?", (str(target),))

    def close(self) -> None:
        """Let go of every connection."""
        for engine in (self._reader, self._writer):
            if engine is not None:
                engine.dispose()
        self._reader = self._writer = None

    def _header(self) -> tuple[int, int, int]:
        """Read application id, schema version and how often the schema changed.

        The file's own header serves where no log overlays it: a connection would leave files beside it.
        """
        log = self.path.with_name(f"{self.path.name}-wal")
        if log.is_file() and log.stat().st_size:
            return self._header_through_log()
        with self.path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
        if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
            raise _explained(self.path, sqlite3.DatabaseError("file is not a database"))
        application_id, version, changes = (int.from_bytes(head[i : i + 4], "big") for i in (68, 60, 40))
        return application_id, version, changes

    def _header_through_log(self) -> tuple[int, int, int]:
        with (
            self._explain(),
            closing(sqlite3.connect(f"file:{quote(str(self.path))}?mode=ro", uri=True)) as c,
        ):
            (application_id,) = c.execute("PRAGMA application_id").fetchone()
            (version,) = c.execute("PRAGMA user_version").fetchone()
            (changes,) = c.execute("PRAGMA schema_version").fetchone()
        return application_id, version, changes

    @contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise _explained(self.path, error.orig or error) from error
        except sqlite3.DatabaseError as error:
            raise _explained(self.path, error) from error


def check_file_system(folder: Path) -> None:
    """Refuse a file system on which SQLite's write-ahead log does not work.

    Raises:
        FileSystemError: The folder lies on a network file system.
    """
    kind = _file_system(folder.resolve())
    if kind in _NETWORK_FILE_SYSTEMS:
        raise FileSystemError(
            f"{folder}: lies on a network file system ({kind}), where a SQLite catalog can be damaged",
            next_step="give a --catalog on a local disk",
        )


def _file_system(folder: Path) -> str:
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    mounts = [(Path(line.split()[1].replace("\\040", " ")), line.split()[2]) for line in lines]
    around = [(mount, kind) for mount, kind in mounts if folder.is_relative_to(mount)]
    return max(around, key=lambda found: len(found[0].parts), default=(folder, "unknown"))[1]


def _database_path(url_or_path: str | Path) -> Path:
    text = str(url_or_path)
    if "://" not in text:
        return Path(text).absolute()
    try:
        url = make_url(text)
    except ArgumentError:
        raise DatabaseUrlError("the catalog's address is not a URL", next_step="give a path") from None
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise DatabaseUrlError(
            f"a catalog on {url.get_backend_name()!r} is not served by this version",
            next_step="give a path, or sqlite:///path/catalog.db",
        )
    return Path(url.database).absolute()


def _engine(path: Path, *, writable: bool) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": BUSY_TIMEOUT_S})
    start = "BEGIN IMMEDIATE" if writable else "BEGIN"

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late and is not IMMEDIATE
        for pragma in _pragmas(writable):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(start)

    return engine


def _pragmas(writable: bool) -> tuple[str, ...]:
    common = ("foreign_keys=ON", "cache_size=-65536", "temp_store=MEMORY", "trusted_schema=OFF")
    if writable:
        return (*common, "journal_mode=WAL", "synchronous=FULL")
    return (*common, "query_only=ON")


def _explained(path: Path, error: BaseException) -> CatalogError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return CatalogBusyError(
            f"{path}: another process kept the catalog locked for {BUSY_TIMEOUT_S:.0f} s",
            kept="the catalog, unchanged",
            next_step="wait for the other command, then repeat this one",
        )
    if "malformed" in text or "not a database" in text or "disk image" in text:
        return DamagedDatabaseError(
            f"{path}: the database is damaged ({text})",
            kept="every session folder",
            next_step="catalog rebuild",
        )
    return CatalogError(f"{path}: {text}", kept="what was committed before")
