"""What counts for a pair, and how many there are of each kind."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, exists, func, insert, select, update

from catalog.tables import Asset, Pair, PairCount, table_of

pairs, assets, counts = table_of(Pair), table_of(Asset), table_of(PairCount)


def set_status(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Work out the status of some pairs anew: damaged files come first, then people, then alignment."""
    damaged = exists().where(assets.c.pair_id == pairs.c.id, assets.c.state != "present")
    status: ColumnElement[Any] = case(
        (damaged, "quarantined"), else_=func.coalesce(pairs.c.decision, pairs.c.verdict)
    )
    connection.execute(update(pairs).where(condition).values(status=status))


def recount(connection: Connection, scene_ids: set[int]) -> None:
    """Bring the counts of some scenes up to date; belongs into the transaction that changed them."""
    if not scene_ids:
        return
    connection.execute(delete(counts).where(counts.c.scene_id.in_(scene_ids)))
    iso = func.coalesce(pairs.c.iso, 0)
    kind = (pairs.c.scene_id, pairs.c.degr_key, iso, pairs.c.status)
    counted = select(*kind, func.count()).where(pairs.c.scene_id.in_(scene_ids)).group_by(*kind)
    columns = ["scene_id", "degr_key", "iso", "status", "n"]
    connection.execute(insert(counts).from_select(columns, counted))
