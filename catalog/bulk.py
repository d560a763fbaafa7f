"""Insert many rows as fast as the database takes them: one prepared statement on SQLite, COPY on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, insert
from sqlalchemy.exc import DatabaseError

ROWS_AT_ONCE = 5_000


def bulk_insert(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> int:
    """Insert rows that all name the same columns; returns how many.

    They are taken some thousand at a time, so that a long list never stands in memory twice.
    """
    count, remaining = 0, iter(rows)
    write = _copy if connection.dialect.name == "postgresql" else _insert
    while some := list(islice(remaining, ROWS_AT_ONCE)):
        write(connection, table, some)
        count += len(some)
    return count


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Hand plain tuples to the driver: our columns hold nothing that it does not know."""
    names = tuple(rows[0])
    statement = insert(table).compile(dialect=connection.dialect, column_keys=names)
    connection.exec_driver_sql(str(statement), list(_values(rows, statement.positiontup or names)))


def _copy(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    names = tuple(rows[0])
    quoted = ", ".join(f'"{name}"' for name in names)
    statement = f'COPY "{table.name}" ({quoted}) FROM STDIN'
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in _values(rows, names):
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise DatabaseError(statement, None, error) from error


def _values(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    if len(names) == 1:
        return ((row[names[0]],) for row in rows)
    return map(itemgetter(*names), rows)
