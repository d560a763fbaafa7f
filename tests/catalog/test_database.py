"""What stands at a catalog's address is checked before a byte of it changes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import select

from catalog import Catalog, sqlite_database
from catalog.database import (
    CatalogBusyError,
    DamagedDatabaseError,
    DatabaseServerError,
    DatabaseUrlError,
    FileSystemError,
    ForeignDatabaseError,
    SchemaVersionError,
    open_database,
)
from catalog.migrations import check
from catalog.pair_rows import DEGRADATION_BITS
from catalog.sqlite_database import APPLICATION_ID, check_file_system
from catalog.tables import DegradationName, table_of


def make_database(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def test_the_migrations_make_exactly_the_tables(catalog):
    with catalog.database.write() as connection:
        check(connection)


def test_the_vocabulary_stands_in_the_database_with_its_bits(catalog):
    vocabulary = table_of(DegradationName)

    with catalog.database.read() as connection:
        stored = {row.name: 1 << row.bit for row in connection.execute(select(vocabulary))}

    assert stored == dict(DEGRADATION_BITS)


def test_creating_twice_equals_once(catalog):
    before = catalog.database.path.read_bytes()

    assert catalog.init() is False
    assert catalog.database.path.read_bytes() == before


_CREATE = """
import sys
from catalog import Catalog
with Catalog(sys.argv[1]) as catalog:
    catalog.init()
"""


def test_many_may_create_at_once_and_one_does(data):
    """Four threads in this process and three other processes."""
    path = str(data / "catalog.db")
    others = [subprocess.Popen([sys.executable, "-c", _CREATE, path]) for _ in range(3)]

    def create(_):
        with Catalog(path) as opened:
            opened.init()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))

    assert [other.wait(30) for other in others] == [0, 0, 0]
    with Catalog(path) as opened:
        assert opened.stats().sessions == 0


def test_a_creation_that_was_killed_is_finished_by_the_next(data):
    """Switching the log on writes the file's first page, before the tables are committed."""
    path = make_database(data / "catalog.db", "PRAGMA journal_mode=WAL")
    assert path.stat().st_size > 0

    with Catalog(path) as opened:
        assert opened.init() is True
        assert opened.find() == []


def test_a_database_of_a_newer_version_is_refused_unchanged(catalog):
    path = catalog.database.path
    catalog.close()
    make_database(path, "PRAGMA user_version=99")
    before = path.read_bytes()

    for action in (catalog.init, catalog.find, catalog.migrate, catalog.rebuild, lambda: catalog.add("s1")):
        with pytest.raises(SchemaVersionError, match="newer version"):
            action()

    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["catalog.db"]


def test_a_database_of_another_program_is_refused_unchanged(data):
    path = make_database(data / "catalog.db", "CREATE TABLE letters (id INTEGER)")
    before = path.read_bytes()

    with Catalog(path) as opened:
        for action in (opened.init, opened.find, opened.rebuild):
            with pytest.raises(ForeignDatabaseError):
                action()

    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_reported_as_damaged(data):
    (data / "catalog.db").write_bytes(b"\0garbage" * 500)

    with Catalog(data / "catalog.db") as opened, pytest.raises(DamagedDatabaseError, match="rebuild"):
        opened.find()


def test_an_older_catalog_asks_for_migrate_which_keeps_a_backup(data):
    path = make_database(
        data / "catalog.db", f"PRAGMA application_id={APPLICATION_ID}", "CREATE TABLE before_all (id INTEGER)"
    )
    old = path.read_bytes()

    with Catalog(path) as opened:
        with pytest.raises(SchemaVersionError) as refused:
            opened.find()
        backup = opened.migrate()
        assert opened.find() == []
        assert opened.migrate() is None

    assert refused.value.next_step == "catalog migrate"
    assert backup is not None
    assert open_database(backup).state() == "old"
    assert len(old) > 0


def test_a_catalog_that_another_process_holds_is_busy_and_unchanged(catalog, make_session, monkeypatch):
    make_session()
    monkeypatch.setattr(sqlite_database, "BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(catalog.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with Catalog(catalog.database.path) as waiting, pytest.raises(CatalogBusyError):
            waiting.add("s1")

    assert catalog.stats().sessions == 0


def test_reading_goes_on_while_another_process_writes(catalog, make_session):
    make_session()
    catalog.add("s1")
    with closing(sqlite3.connect(catalog.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        assert len(catalog.find()) == 7


def test_readers_begin_anew_once_statistics_are_refreshed(catalog):
    """A connection plans by the statistics that it met first: at a million rows that costs twenty times as much."""
    with catalog.database.read() as connection:
        before = connection.connection.driver_connection
    with catalog.database.write() as connection:
        catalog.database.analyze(connection)

    with catalog.database.read() as connection:
        assert connection.connection.driver_connection is not before


def test_a_path_with_signs_of_urls_is_still_a_path(data):
    folder = data / "50% of #1?"

    with Catalog(folder / "catalog.db") as opened:
        opened.init()
        assert opened.find() == []

    assert (folder / "catalog.db").is_file()


def test_a_sqlite_url_names_the_same_file(data):
    with Catalog(f"sqlite:///{data}/catalog.db") as opened:
        opened.init()

    assert (data / "catalog.db").is_file()


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/db", "postgresql://u:hunter2@h", "sqlite://", "nonsense://"]
)
def test_other_databases_are_refused_without_showing_a_password(url):
    with pytest.raises(DatabaseUrlError) as refused:
        Catalog(url)

    assert "hunter2" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named_without_its_password(data):
    with (
        Catalog("postgresql://u:hunter2@127.0.0.1:1/db", data=data) as opened,
        pytest.raises(DatabaseServerError, match=r"u:\*\*\*@127") as refused,
    ):
        opened.find()

    assert "hunter2" not in str(refused.value)


def test_a_catalog_on_a_server_wants_to_be_told_its_data_folder():
    with pytest.raises(DatabaseUrlError, match="data folder"):
        Catalog("postgresql://u@h/db")


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite_database, "_file_system", lambda folder: "nfs4")

    with pytest.raises(FileSystemError, match="network file system"):
        check_file_system(tmp_path)
