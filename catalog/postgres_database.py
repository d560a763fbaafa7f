"""A catalog in a PostgreSQL schema, for several machines.

Our tables lie in a schema of their own, whose comment says whose it is. As on SQLite there is one writer at a time (an
advisory lock held to the end of the transaction), and a reader sees one state throughout (REPEATABLE READ). A server
that may forget committed rows (`fsync=off`) is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.pool import ConnectionPoolEntry

from catalog.database import (
    BUSY_TIMEOUT_S,
    Database,
    DatabaseServerError,
    ForeignDatabaseError,
)
from catalog.errors import MissingExtraError
from catalog.tables import Base

SCHEMA = "cleanplate"
COMMENT = "cleanplate catalog"
_WRITER_LOCK = 0x434C504C
_CONNECT_TIMEOUT_S = 10


class PostgresDatabase(Database):
    """A catalog in one schema of a PostgreSQL database.

    Args:
        url: Address of the database.
        schema: Schema that holds the tables.

    Raises:
        MissingExtraError: The driver is not installed.
    """

    def __init__(self, url: URL, schema: str = SCHEMA) -> None:
        self._url, self._schema = url.set(drivername="postgresql+psycopg"), schema
        self.name = f"{url.render_as_string(hide_password=True)} (schema {schema})"
        self._engines: dict[bool, Engine] = {}

    @property
    def url(self) -> str:
        """Its address with the password; not to be shown."""
        return self._url.render_as_string(hide_password=False)

    def _version(self) -> int | None:
        with self._explain(), self._engine(writable=False).begin() as connection:
            comment = connection.execute(
                text("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :name"),
                {"name": self._schema},
            ).one_or_none()
            if comment is None:
                return None
            if comment[0] != COMMENT:
                raise ForeignDatabaseError(
                    f"{self.name}: a schema of that name is there, but it is not a catalog of ours",
                    kept="it, unchanged",
                    next_step="give another database",
                )
            return int(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction that cannot write and sees one state throughout."""
        with self._explain(), self._engine(writable=False).begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the one write transaction: all of it is durable afterwards, or none of it happened."""
        with self._explain(), self._engine(writable=True).begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})
            yield connection

    def create(self) -> None:
        """Create the newest schema, or upgrade an older one, in one transaction.

        Raises:
            DatabaseServerError: The server may forget committed rows.
        """
        from catalog.migrations import upgrade

        with self.write() as connection:
            if connection.execute(text("SHOW fsync")).scalar_one() != "on":
                raise DatabaseServerError(
                    f"{self.name}: the server runs with fsync=off and may lose what was committed",
                    kept="the server, unchanged",
                    next_step="set fsync=on in postgresql.conf",
                )
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"'))
            connection.execute(text(f"COMMENT ON SCHEMA \"{self._schema}\" IS '{COMMENT}'"))
            upgrade(connection)

    def back_up(self, stamp: int) -> str:
        """Copy all rows into a schema of their own."""
        copy = f"{self._schema}_backup_{stamp}"
        with self.write() as connection:
            connection.execute(text(f'CREATE SCHEMA "{copy}"'))
            for table in self._tables(connection):
                rows = f'CREATE TABLE "{copy}"."{table}" AS TABLE "{self._schema}"."{table}"'
                connection.execute(text(rows))
        return f"schema {copy}"

    def twin(self) -> PostgresDatabase:
        """Return an empty schema beside this one; an earlier twin is gone."""
        twin = PostgresDatabase(self._url, f"{self._schema}_rebuild")
        with self.write() as connection:
            connection.execute(text(f'DROP SCHEMA IF EXISTS "{twin._schema}" CASCADE'))
        return twin

    def give_way(self, twin: Database, stamp: int) -> str | None:
        """Give the twin's schema this one's name and keep this one under another."""
        assert isinstance(twin, PostgresDatabase)  # noqa: S101  # it is what `twin` made
        twin.close()
        backup = None
        with self.write() as connection:
            if self._exists(connection):
                backup = f"{self._schema}_before_rebuild_{stamp}"
                connection.execute(text(f'ALTER SCHEMA "{self._schema}" RENAME TO "{backup}"'))
            connection.execute(text(f'ALTER SCHEMA "{twin._schema}" RENAME TO "{self._schema}"'))  # noqa: SLF001
        self.close()
        return None if backup is None else f"schema {backup}"

    def analyze(self, connection: Connection) -> None:
        """Refresh the statistics by which queries are planned."""
        for table in self._tables(connection):
            connection.execute(text(f'ANALYZE "{table}"'))

    def damage(self) -> str | None:
        """Say nothing: a server answers damage with an error when it meets it."""
        return None

    def restart_keys(self, connection: Connection) -> None:
        """Let sequences count on after rows that were copied with their keys."""
        for table in Base.metadata.sorted_tables:
            if "id" in table.c:
                sequence = func.pg_get_serial_sequence(table.name, "id")
                following = func.coalesce(func.max(table.c.id), 0) + 1
                connection.execute(select(func.setval(sequence, following, False)))

    def close(self) -> None:
        """Let go of every connection."""
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()

    def _exists(self, connection: Connection) -> bool:
        named = text("SELECT 1 FROM pg_namespace WHERE nspname = :name")
        return connection.execute(named, {"name": self._schema}).scalar() is not None

    def _tables(self, connection: Connection) -> list[str]:
        listed = text("SELECT tablename FROM pg_tables WHERE schemaname = :name ORDER BY tablename")
        return list(connection.execute(listed, {"name": self._schema}).scalars())

    def _engine(self, *, writable: bool) -> Engine:
        if writable not in self._engines:
            self._engines[writable] = _connect(self._url, self._schema, writable=writable)
        return self._engines[writable]


def _connect(url: URL, schema: str, *, writable: bool) -> Engine:
    options = f"-csearch_path={schema} -clock_timeout={BUSY_TIMEOUT_S:.0f}s -csynchronous_commit=on"
    arguments: dict[str, Any] = {"options": options, "connect_timeout": _CONNECT_TIMEOUT_S}
    level = "READ COMMITTED" if writable else "REPEATABLE READ"
    try:
        engine = create_engine(url, connect_args=arguments, pool_pre_ping=True, isolation_level=level)
    except ImportError as error:
        raise MissingExtraError(
            "a catalog on PostgreSQL needs psycopg, which is not installed",
            kept="everything as it was",
            next_step="pip install 'cleanplate[pg]'",
        ) from error

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.read_only = not writable

    return engine
