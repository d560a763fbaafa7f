"""The database behind a catalog: what both kinds of it promise, and how an address is opened.

`SqliteDatabase` serves one machine, `PostgresDatabase` many. What stands at an address is checked before anything
is changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from catalog.errors import CatalogError, DamagedDataError, ExitCode

SCHEMA_VERSION = 2
"""Number of the newest migration."""
BUSY_TIMEOUT_S = 20.0


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
    """A database stands there, but it is not a catalog."""

    code = "CAT-DB-004"
    exit_code = ExitCode.INVALID_INPUT


class CatalogBusyError(CatalogError, TimeoutError):
    """Another process held the database for too long."""

    code = "CAT-DB-005"


class DamagedDatabaseError(DamagedDataError):
    """The database itself is damaged."""

    code = "CAT-DB-006"


class FileSystemError(CatalogError, OSError):
    """The file system cannot hold a SQLite catalog."""

    code = "CAT-DB-007"
    exit_code = ExitCode.MISSING


class DatabaseServerError(CatalogError, ConnectionError):
    """The database server does not answer, or will not do."""

    code = "CAT-DB-008"
    exit_code = ExitCode.MISSING


DatabaseState = Literal["absent", "old", "current"]


class Database(ABC):
    """One catalog's database; connects lazily."""

    name: str
    """Its address, fit to be shown."""

    def state(self) -> DatabaseState:
        """Tell what stands at the address without changing it.

        Raises:
            ForeignDatabaseError: Another application's database.
            SchemaVersionError: Written by a newer version.
            DamagedDatabaseError: Not readable as a database.
            DatabaseServerError: The server does not answer.
        """
        version = self._version()
        if version is None:
            return "absent"
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{self.name}: written by a newer version (schema {version}; this one knows {SCHEMA_VERSION})",
                kept="the database, unchanged",
                next_step="upgrade cleanplate, or give another --catalog",
            )
        return "current" if version == SCHEMA_VERSION else "old"

    def require_current(self) -> None:
        """Raise unless a catalog of the present schema stands here; raises as `state` besides."""
        state = self.state()
        if state == "absent":
            raise CatalogNotFoundError(
                f"{self.name}: there is no catalog", next_step="catalog add SESSION, or catalog init"
            )
        if state == "old":
            raise SchemaVersionError(f"{self.name}: has an older schema", next_step="catalog migrate")

    @abstractmethod
    def _version(self) -> int | None:
        """Return the schema's version, None where there is no catalog."""

    @abstractmethod
    def read(self) -> AbstractContextManager[Connection]:
        """Open a read transaction that cannot write and sees one state throughout."""

    @abstractmethod
    def write(self) -> AbstractContextManager[Connection]:
        """Open the one write transaction: all of it is durable afterwards, or none of it happened."""

    @abstractmethod
    def create(self) -> None:
        """Create the newest schema, or upgrade an older one, in one transaction."""

    @abstractmethod
    def back_up(self, stamp: int) -> str:
        """Copy everything, consistent while others use it; returns where the copy is."""

    @abstractmethod
    def twin(self) -> Database:
        """Return an empty database beside this one; an earlier twin is gone."""

    @abstractmethod
    def give_way(self, twin: Database, stamp: int) -> str | None:
        """Put the twin in this database's place; returns where this one is kept, None where there was none."""

    @abstractmethod
    def analyze(self, connection: Connection) -> None:
        """Refresh the statistics by which queries are planned."""

    @abstractmethod
    def damage(self) -> str | None:
        """Say what is damaged about the database itself, None for nothing."""

    @abstractmethod
    def restart_keys(self, connection: Connection) -> None:
        """Let new rows count on after rows that were copied with their keys."""

    @abstractmethod
    def close(self) -> None:
        """Let go of every connection."""

    def require_whole(self) -> None:
        """Raise unless the database itself is whole.

        Raises:
            DamagedDatabaseError: It is damaged.
        """
        if damage := self.damage():
            raise DamagedDatabaseError(
                f"{self.name}: the database is damaged ({damage})",
                kept="every session folder",
                next_step="catalog rebuild",
            )

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except DatabaseError as error:
            raise explained(self.name, error.orig or error) from error


def open_database(url_or_path: str | Path) -> Database:
    """Make a database of an address; connects lazily.

    Args:
        url_or_path: Path of a SQLite file, ``sqlite:///path``, or ``postgresql://user@host/database``.

    Raises:
        DatabaseUrlError: The address is of a kind that this version does not serve.
    """
    from catalog.postgres_database import PostgresDatabase
    from catalog.sqlite_database import SqliteDatabase

    text = str(url_or_path)
    if "://" not in text:
        return SqliteDatabase(Path(text).absolute())
    try:
        url = make_url(text)
    except ArgumentError:
        raise DatabaseUrlError("the catalog's address is not a URL", next_step="give a path") from None
    if url.get_backend_name() == "postgresql" and url.database:
        return PostgresDatabase(url)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise DatabaseUrlError(
            f"a catalog on {url.get_backend_name()!r} is not served by this version",
            next_step="give a path, sqlite:///path/catalog.db, or postgresql://user@host/database",
        )
    return SqliteDatabase(Path(url.database).absolute())


def explained(name: str, error: BaseException) -> CatalogError:
    """Say what a driver's error means."""
    text = str(error).strip()
    if any(word in text for word in ("locked", "busy", "lock timeout", "deadlock")):
        return CatalogBusyError(
            f"{name}: another process kept the catalog locked for {BUSY_TIMEOUT_S:.0f} s",
            kept="the catalog, unchanged",
            next_step="wait for the other command, then repeat this one",
        )
    if any(word in text for word in ("malformed", "not a database", "disk image")):
        return DamagedDatabaseError(
            f"{name}: the database is damaged ({text})",
            kept="every session folder",
            next_step="catalog rebuild",
        )
    if any(word in text for word in ("connection", "server closed", "terminating")):
        return DatabaseServerError(
            f"{name}: no connection to the server ({text})",
            kept="what was committed before",
            next_step="start the server, or see that host, user and password are right",
        )
    return CatalogError(f"{name}: {text}", kept="what was committed before")
