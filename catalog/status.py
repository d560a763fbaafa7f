"""What counts for a pair, and how many pairs and files there are of each kind."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from catalog.tables import Asset, FileCount, Pair, PairCount, table_of

_KEYS_AT_ONCE = 500
pairs, assets = table_of(Pair), table_of(Asset)
pair_counts, file_counts = table_of(PairCount), table_of(FileCount)


def set_status(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Work out the status of some pairs anew: damaged files come first, then people, then alignment."""
    damaged = exists().where(assets.c.pair_id == pairs.c.id, assets.c.state != "present")
    status: ColumnElement[Any] = case(
        (damaged, "quarantined"), else_=func.coalesce(pairs.c.decision, pairs.c.verdict)
    )
    connection.execute(update(pairs).where(condition).values(status=status))


def recount_pairs(connection: Connection, round_ids: Collection[int]) -> None:
    """Bring the counts of some rounds up to date; belongs into the transaction that changed their pairs."""
    iso = func.coalesce(pairs.c.iso, 0)
    kind = (pairs.c.round_id, pairs.c.degr_key, iso, pairs.c.status, pairs.c.reasons)
    _recount(connection, pair_counts, kind, round_ids)


def recount_files(connection: Connection, session_ids: Collection[int]) -> None:
    """Bring the counts of some sessions up to date; belongs into the transaction that changed their files."""
    _recount(connection, file_counts, (assets.c.session_id, assets.c.state), session_ids)


def _recount(
    connection: Connection, counts: Table, kind: tuple[ColumnElement[Any], ...], owners: Collection[int]
) -> None:
    """Count anew by ``kind``, whose first column is the owner that the table of counts begins with."""
    owner: Column[Any] = next(iter(counts.c))
    for some in _portions(owners):
        connection.execute(delete(counts).where(owner.in_(some)))
        counted = select(*kind, func.count()).where(kind[0].in_(some)).group_by(*kind)
        connection.execute(insert(counts).from_select([column.name for column in counts.c], counted))


def _portions(keys: Collection[int]) -> Iterator[list[int]]:
    waiting = iter(sorted(keys))
    while some := list(islice(waiting, _KEYS_AT_ONCE)):
        yield some
