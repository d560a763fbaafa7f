"""Catalogs of every earlier revision come up to date with their rows."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from catalog import Catalog
from catalog.database import SchemaVersionError
from catalog.migrations import check, upgrade
from catalog.postgres_database import COMMENT, SCHEMA
from catalog.sqlite_database import APPLICATION_ID

ROWS_OF_0001 = """
INSERT INTO scenes VALUES (1, 'shelf', 'shelf', 'train'), (2, 'desk', 'desk', 'test');
INSERT INTO sessions VALUES (1, 's1', 1, 'captured', 'sim', true, 5, 'sessions/s1', '{}', NULL, 'f'),
  (2, 's2', 2, 'captured', 'sim', true, 6, 'sessions/s2', '{}', NULL, 'g');
INSERT INTO rounds VALUES (1, 1, 1, 'gt', 'gt', 'clean', '{}', '{}'), (2, 1, 2, 'wet', 'external', 'rain', '{}', '{}'),
  (3, 2, 2, 'wet', 'external', 'rain', '{}', '{}');
INSERT INTO takes VALUES (1, 1, 1, 'valid', '', NULL), (2, 2, 1, 'valid', '', NULL), (3, 3, 1, 'valid', '', NULL);
INSERT INTO pairs VALUES
  (1, 's1/a', 1, 1, 2, 1, 0, 0, 0, 2, 0, 0, 0, 'rain', 64, 1, NULL, 100, NULL, NULL, NULL, 6, 4, false,
   NULL, NULL, 0, 0.1, 0.1, 'accepted', '', NULL, 'accepted', 7),
  (2, 's1/b', 1, 1, 2, 1, 1, 0, 0, 2, 1, 0, 0, 'rain', 64, 1, NULL, 100, NULL, NULL, NULL, 6, 4, false,
   NULL, NULL, 0, 0.1, 0.1, 'rejected', 'parallax,residual', NULL, 'rejected', 8),
  (3, 's2/a', 2, 2, 3, 1, 2, 0, 0, 3, 2, 0, 0, 'rain', 64, 1, NULL, NULL, NULL, NULL, NULL, 6, 4, false,
   NULL, NULL, 0, 0.1, 0.1, 'accepted', '', 'accepted', 'quarantined', 9);
INSERT INTO assets VALUES (1, 1, 1, 'pairs/gt/a.png', 'gt', 'aa', 10, 'present', NULL),
  (2, 1, 1, 'pairs/lq/a.png', 'lq', 'ab', 10, 'present', NULL),
  (3, 2, 3, 'pairs/lq/a.png', 'lq', 'ac', 10, 'missing', NULL);
INSERT INTO pair_counts VALUES (1, 'rain', 100, 'accepted', 1), (1, 'rain', 100, 'rejected', 1),
  (2, 'rain', 0, 'quarantined', 1);
INSERT INTO events VALUES (1, 5, 'me', 'here', 'added', 's1', 's1', '', NULL, NULL, 'x', NULL);
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, data):
    """A catalog that was not made yet, on each kind of database."""
    address = data / "catalog.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with Catalog(address, data=data) as opened:
        yield opened


def make_0001(catalog):
    with catalog.database.write() as connection:
        on_server = connection.dialect.name == "postgresql"
        if on_server:
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
            connection.execute(text(f"COMMENT ON SCHEMA {SCHEMA} IS '{COMMENT}'"))
        upgrade(connection, "0001")
        for statement in ROWS_OF_0001.strip().split(";\n"):
            connection.exec_driver_sql(statement.rstrip(";"))
        catalog.database.restart_keys(connection)
        if not on_server:
            connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
            connection.exec_driver_sql("PRAGMA user_version=1")


def test_a_catalog_of_0001_comes_up_to_date_with_its_rows(empty):
    make_0001(empty)
    with pytest.raises(SchemaVersionError, match="older schema"):
        empty.find()

    backup = empty.migrate()

    assert backup is not None
    assert [pair.id for pair in empty.find()] == ["s1/a", "s1/b", "s2/a"]
    counts = empty.stats()
    assert counts.classes == {"rain": {"accepted": 1, "quarantined": 1, "rejected": 1}}
    assert counts.scenes["desk"] == {"part": "test", "quarantined": 1}
    assert counts.reasons == {"parallax": 1, "residual": 1}
    assert counts.files == {"missing": 1, "present": 2}
    with empty.database.write() as connection:
        check(connection)


def test_an_upgraded_catalog_goes_on_working(empty):
    make_0001(empty)
    empty.migrate()

    empty.reject(["s1/a"])

    assert empty.stats().pairs == {"quarantined": 1, "rejected": 2}
