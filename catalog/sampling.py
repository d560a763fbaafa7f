"""So many pairs of each class: drawn by a hash of their names, so that growth never reshuffles a draw.

Every pair has a fixed place on a circle (`sample_key`). A seed says where on it to begin; the first pairs met from
there on are chosen. A pair that is added later may join a draw and push its last one out, the others stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, select

from catalog.errors import CatalogError, ExitCode
from catalog.pair_rows import sample_key
from catalog.selection import DRAWN_IN_ORDER, PairRow, PairSource, collector_paused, pairs
from catalog.statistics import pair_counts

MAX_OF_EACH = 100_000


class SampleError(CatalogError, ValueError):
    """Pairs cannot be drawn like that."""

    code = "CAT-QRY-003"
    exit_code = ExitCode.INVALID_INPUT


def draw_pairs(
    connection: Connection, source: PairSource, *, where: str | None, of_each: int, seed: int
) -> list[PairRow]:
    """Draw accepted pairs that pass a filter, at most ``of_each`` of each class; raises as `Catalog.sample`."""
    if not 1 <= of_each <= MAX_OF_EACH:
        raise SampleError(f"1 to {MAX_OF_EACH} pairs of each class can be drawn, not {of_each}")
    begin = _begin(seed)
    key, of_class = pairs.c.sample_key, pairs.c.degr_key == bindparam("name")
    accepted = and_(source.where(where), pairs.c.status == "accepted", of_class)
    drawn = source.select().order_by(*DRAWN_IN_ORDER).limit(bindparam("most"))
    laps = [drawn.where(accepted, key >= begin)] + ([drawn.where(accepted, key < begin)] if begin else [])
    with collector_paused():
        return [
            PairRow._make(row)
            for name in accepted_classes(connection)
            for row in _of_class(connection, laps, name, of_each)
        ]


def _of_class(
    connection: Connection, laps: Sequence[Select[Any]], name: str, wanted: int
) -> Iterator[Row[Any]]:
    for lap in laps:
        rows = connection.execute(lap, {"name": name, "most": wanted}).all()
        yield from rows
        wanted -= len(rows)
        if not wanted:
            return


def _begin(seed: int) -> int:
    return sample_key(f"seed {seed}") if seed else 0


def accepted_classes(connection: Connection) -> list[str]:
    """List the classes that have accepted pairs."""
    named = select(pair_counts.c.degr_key).where(pair_counts.c.status == "accepted", pair_counts.c.n > 0)
    return list(connection.execute(named.distinct().order_by(pair_counts.c.degr_key)).scalars())
