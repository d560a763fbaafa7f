"""So many pairs of each class: drawn by a hash of their names, so that growth never reshuffles a draw.

Every pair has a fixed place on a circle (`sample_key`). A seed says where on it to begin; the first pairs met from
there on are chosen. A pair that is added later may join a draw and push its last one out, the others stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, literal, select, union_all

from catalog.errors import CatalogError, ExitCode
from catalog.pair_rows import sample_key
from catalog.selection import PairRow, PairSource, pairs
from catalog.statistics import pair_counts

MAX_OF_EACH = 100_000


class SampleError(CatalogError, ValueError):
    """Pairs cannot be drawn like that."""

    code = "CAT-QRY-003"
    exit_code = ExitCode.INVALID_INPUT


def draw_pairs(
    connection: Connection, source: PairSource, *, where: str | None, of_each: int, seed: int
) -> Iterator[PairRow]:
    """Yield accepted pairs that pass a filter, at most ``of_each`` of each class; raises as `Catalog.sample`."""
    if not 1 <= of_each <= MAX_OF_EACH:
        raise SampleError(f"1 to {MAX_OF_EACH} pairs of each class can be drawn, not {of_each}")
    accepted = and_(source.where(where), pairs.c.status == "accepted")
    for name in accepted_classes(connection):
        drawn = drawn_of_class(source, accepted, name, of_each=of_each, seed=seed).subquery()
        query = source.select().join(drawn, drawn.c.id == pairs.c.id)
        ordered = query.order_by(drawn.c.lap, drawn.c.place, pairs.c.uid)
        yield from map(PairRow._make, connection.execute(ordered))


def drawn_of_class(
    source: PairSource, accepted: ColumnElement[bool], name: str, *, of_each: int, seed: int
) -> Select[Any]:
    """Select key, lap and place of the pairs drawn from one class.

    Args:
        source: The join that ``accepted`` asks of.
        accepted: What a pair must fulfil; names the status, so that an index serves.
        name: The class.
        of_each: Pairs to draw.
        seed: Where to begin; 0 begins at the start of the circle.
    """
    begin = _begin(seed)
    arcs = [_arc(source, and_(accepted, pairs.c.degr_key == name, pairs.c.sample_key >= begin), 0, of_each)]
    if begin:
        before = and_(accepted, pairs.c.degr_key == name, pairs.c.sample_key < begin)
        arcs.append(_arc(source, before, 1, of_each))
    laps = union_all(*(select(arc.subquery()) for arc in arcs)).subquery()
    return select(laps).order_by(laps.c.lap, laps.c.place, laps.c.uid).limit(of_each)


def _arc(source: PairSource, condition: ColumnElement[bool], lap: int, of_each: int) -> Select[Any]:
    key = pairs.c.sample_key
    columns = select(pairs.c.id, pairs.c.uid, key.label("place"), literal(lap).label("lap"))
    return columns.select_from(source.table).where(condition).order_by(key, pairs.c.uid).limit(of_each)


def _begin(seed: int) -> int:
    return sample_key(f"seed {seed}") if seed else 0


def accepted_classes(connection: Connection) -> list[str]:
    """List the classes that have accepted pairs."""
    named = select(pair_counts.c.degr_key).where(pair_counts.c.status == "accepted", pair_counts.c.n > 0)
    return list(connection.execute(named.distinct().order_by(pair_counts.c.degr_key)).scalars())
