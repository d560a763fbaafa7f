"""Pairs as rows to filter, page and show; one description of the join for every command."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from sqlalchemy import ColumnElement, Connection, FromClause, RowMapping, Select, and_, func, select, tuple_

from catalog.errors import CatalogError, ExitCode
from catalog.query import compile_where
from catalog.query_fields import FIELDS, nearest
from catalog.splits import DEFAULT_SPLIT, find_split
from catalog.tables import Pair, Round, Scene, Session, SplitMember, table_of

pairs, rounds, scenes = table_of(Pair), table_of(Round), table_of(Scene)
sessions, members = table_of(Session), table_of(SplitMember)

DRAWN_IN_ORDER = (pairs.c.sample_key, pairs.c.id)
"""As the index stands: a second key by name would have every row sorted for two hashes of 63 bits that never meet."""
ORDERS = ("id", "iso", "residual_px", "predicted_epe_px", "position_gap_mm", "mu", "sigma")
MAX_PAGE = 100_000
_BEYOND = 1e300
_ROWS_AT_ONCE = 5_000


class OrderError(CatalogError, ValueError):
    """Pairs cannot be ordered or paged like that."""

    code = "CAT-QRY-002"
    exit_code = ExitCode.INVALID_INPUT


class ColumnError(CatalogError, ValueError):
    """Pairs have no such column."""

    code = "CAT-QRY-004"
    exit_code = ExitCode.INVALID_INPUT


class PairRow(NamedTuple):
    """A pair as `Catalog.find` returns it; a tuple, since a listing may hold a hundred thousand."""

    id: str
    """``<session>/<pair>``."""
    scene: str
    session: str
    round: str
    role: str
    degradation_class: str
    foundir_class: str | None
    iso: int | None
    f_number: float | None
    exposure_s: float | None
    focus_m: float | None
    residual_px: float | None
    predicted_epe_px: float | None
    position_gap_mm: float
    mu: float | None
    sigma: float | None
    width: int | None
    height: int | None
    gt_warped: bool
    verdict: str
    reason: str
    status: str
    split: str
    source: str

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        """Take the columns of the same names."""
        return cls(*(row[name] for name in cls._fields))


@dataclass(frozen=True)
class PairSource:
    """The join that every question about pairs is asked of, and its columns by the names filters use."""

    table: FromClause
    columns: Mapping[str, ColumnElement[Any]]

    def select(self, *more: ColumnElement[Any]) -> Select[Any]:
        """Select the columns of `PairRow` in their order, and more."""
        own = [
            self.columns["class" if name == "degradation_class" else name].label(name)
            for name in PairRow._fields
        ]
        return select(*own, *more).select_from(self.table)

    def where(self, expression: str | None) -> ColumnElement[bool]:
        """Turn a filter into a condition; none at all lets every pair pass. Raises QueryError."""
        return and_(True) if not expression else compile_where(expression, self.columns)


def pair_source(connection: Connection, *, split: str = DEFAULT_SPLIT) -> PairSource:
    """Describe the pairs with the parts of one split.

    Raises:
        SplitError: There is no split of that name.
    """
    split_id = find_split(connection, split)
    table: FromClause = (
        pairs.join(scenes, scenes.c.id == pairs.c.scene_id)
        .join(sessions, sessions.c.id == pairs.c.session_id)
        .join(rounds, rounds.c.id == pairs.c.round_id)
    )
    part: ColumnElement[Any] = scenes.c.part
    if split_id is not None:
        table = table.join(
            members, and_(members.c.split_id == split_id, members.c.group_key == scenes.c.group_key)
        )
        part = members.c.part
    return PairSource(table, _columns(part))


def _columns(part: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    elsewhere: dict[str, ColumnElement[Any]] = {
        "id": pairs.c.uid,
        "scene": scenes.c.name,
        "session": sessions.c.name,
        "round": rounds.c.name,
        "role": rounds.c.role,
        "degradation": pairs.c.degr_mask,
        "degradations": pairs.c.degr_mask,
        "class": pairs.c.degr_key,
        "reason": pairs.c.reasons,
        "split": part,
        "source": sessions.c.source,
    }
    return {name: elsewhere[name] if name in elsewhere else pairs.c[name] for name in FIELDS}


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the collector from going through all new rows again and again: a quarter of a long listing's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def find_pairs(
    connection: Connection,
    source: PairSource,
    *,
    where: str | None,
    order: str,
    limit: int,
    after: str | None,
) -> list[PairRow]:
    """List a page of pairs; raises as `Catalog.find`."""
    if not 1 <= limit <= MAX_PAGE:
        raise OrderError(f"a page has 1 to {MAX_PAGE} pairs, not {limit}")
    key, descending = _order_key(order)
    query = source.select().where(source.where(where))
    if after is not None:
        position = tuple_(*_position(connection, key, after))
        query = query.where(tuple_(*key) < position if descending else tuple_(*key) > position)
    ordered = [part.desc() if descending else part for part in key]
    with collector_paused():
        return list(map(PairRow._make, connection.execute(query.order_by(*ordered).limit(limit)).all()))


def stream_columns(
    connection: Connection, source: PairSource, names: Sequence[str], *, where: str | None
) -> Iterator[tuple[Any, ...]]:
    """Yield some columns of every pair that passes a filter; raises as `Catalog.stream`."""
    valid = [name for name, field in FIELDS.items() if field.kind != "degradation"]
    for name in names:
        if name not in valid:
            raise ColumnError(f"no column {name!r}{nearest(name, valid)}")
    query = select(*(source.columns[name] for name in names)).select_from(source.table)
    query = query.where(source.where(where)).order_by(pairs.c.id)
    with connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE}) as result:
        yield from result


def _order_key(order: str) -> tuple[list[ColumnElement[Any]], bool]:
    """Return a key without ties, pairs without a value at the end, and whether it runs downwards."""
    name, descending = order.removeprefix("-"), order.startswith("-")
    if name not in ORDERS:
        raise OrderError(f"cannot order by {name!r}{nearest(name, ORDERS)}")
    if name == "id":
        return [pairs.c.uid], descending
    last = -_BEYOND if descending else _BEYOND
    return [func.coalesce(pairs.c[name], last), pairs.c.uid], descending


def _position(connection: Connection, key: list[ColumnElement[Any]], uid: str) -> tuple[Any, ...]:
    row = connection.execute(select(*key).where(pairs.c.uid == uid)).one_or_none()
    if row is None:
        raise OrderError(f"no pair {uid!r} to go on after", next_step="start again without --after")
    return tuple(row)
