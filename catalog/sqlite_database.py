"""A catalog in one SQLite file.

Settings and why: WAL lets readers go on while one process writes; every writing transaction begins IMMEDIATE, since a
read that turns into a write fails at once whatever the timeout; `synchronous=FULL` makes a committed row survive a
power cut; readers run with `query_only`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.pool import ConnectionPoolEntry

from catalog.database import (
    BUSY_TIMEOUT_S,
    SCHEMA_VERSION,
    Database,
    FileSystemError,
    ForeignDatabaseError,
    explained,
)

APPLICATION_ID = 0x434C504C
"""``CLPL`` in the file's header, so that a foreign database is never touched; the schema's version stands there too."""
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 72
_CONNECTION_AGE_S = 60
"""A connection plans by the statistics that it met first; after this time it gives way to one that sees today's."""
_SIDE_FILES = ("", "-wal", "-shm")
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs"})


class SqliteDatabase(Database):
    """A catalog in one file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._reader: Engine | None = None
        self._writer: Engine | None = None

    def _version(self) -> int | None:
        if not self.path.is_file() or self.path.stat().st_size == 0:
            return None
        application_id, version, changes = self._header()
        if not changes:  # made by somebody who is just creating the catalog, or was killed at it
            return None
        if application_id != APPLICATION_ID:
            raise ForeignDatabaseError(
                f"{self.path}: a database, but not a catalog of ours",
                kept="the file, unchanged",
                next_step="give another --catalog or --data",
            )
        return version

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction that cannot write and sees one state throughout."""
        if self._reader is None:
            self._reader = _engine(self.path, writable=False)
        with self._explain(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open the one write transaction: all of it is durable afterwards, or none of it happened."""
        if self._writer is None:
            self._writer = _engine(self.path, writable=True)
        with self._explain(), self._writer.begin() as connection:
            yield connection

    def create(self) -> None:
        """Create the newest schema, or upgrade an older one, in one transaction.

        Raises:
            FileSystemError: The folder lies on a network file system.
        """
        from catalog.migrations import upgrade

        self.path.parent.mkdir(parents=True, exist_ok=True)
        check_file_system(self.path.parent)
        with self.write() as connection:
            upgrade(connection)
            connection.execute(text(f"PRAGMA application_id={APPLICATION_ID}"))
            connection.execute(text(f"PRAGMA user_version={SCHEMA_VERSION}"))

    def back_up(self, stamp: int) -> str:
        """Copy everything into a new file beside this one."""
        target = self.path.with_name(f"{self.path.name}.backup-{stamp}")
        with self._explain(), closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)) as source:
            source.execute("VACUUM INTO ?", (str(target),))
        return str(target)

    def twin(self) -> SqliteDatabase:
        """Return an empty database beside this one; an earlier twin is gone."""
        part = self.path.with_name(f"{self.path.name}.rebuild")
        for suffix in _SIDE_FILES:
            part.with_name(part.name + suffix).unlink(missing_ok=True)
        return SqliteDatabase(part)

    def give_way(self, twin: Database, stamp: int) -> str | None:
        """Put the twin's file in this one's place and keep this one beside it."""
        assert isinstance(twin, SqliteDatabase)  # noqa: S101  # it is what `twin` made
        twin.close()
        self.close()
        backup = None
        if self.path.exists():
            backup = self.path.with_name(f"{self.path.name}.before-rebuild-{stamp}")
            for suffix in _SIDE_FILES:
                old = self.path.with_name(self.path.name + suffix)
                if old.exists():
                    old.rename(backup.with_name(backup.name + suffix))
        twin.path.rename(self.path)
        return None if backup is None else str(backup)

    def analyze(self, connection: Connection) -> None:
        """Refresh the statistics by which queries are planned; readers begin anew, since they keep the old ones."""
        connection.execute(text("PRAGMA analysis_limit=1000"))
        connection.execute(text("ANALYZE"))
        if self._reader is not None:
            self._reader.dispose()

    def damage(self) -> str | None:
        """Say what is damaged about the file itself, None for nothing."""
        with self.read() as connection:
            answer = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        return None if answer == "ok" else answer

    def restart_keys(self, connection: Connection) -> None:
        """Do nothing: SQLite counts on by itself."""

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
            raise explained(self.name, sqlite3.DatabaseError("file is not a database"))
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
            with super()._explain():
                yield
        except sqlite3.DatabaseError as error:
            raise explained(self.name, error) from error
        except UnicodeDecodeError as error:  # the driver's own words, of a schema that is damaged
            raise explained(self.name, sqlite3.DatabaseError(f"malformed text: {error.reason}")) from error


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


def _engine(path: Path, *, writable: bool) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_recycle=_CONNECTION_AGE_S,
    )
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
