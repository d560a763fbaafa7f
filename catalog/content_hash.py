"""One hash over all that session folders say, whatever the order in which they were added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Select, select

from catalog.tables import (
    Alignment,
    Asset,
    Pair,
    PairMetric,
    Round,
    Scene,
    Session,
    Take,
    table_of,
)

_ROWS_AT_ONCE = 5_000
_LOCAL = frozenset({"id", "decision", "status", "degr_key", "degr_mask", "n_degr", "foundir_class"})
"""Keys of this database alone, and what people decided: a label changes a class, that of the round is hashed."""

pairs, rounds, takes = table_of(Pair), table_of(Round), table_of(Take)
scenes, sessions, assets = table_of(Scene), table_of(Session), table_of(Asset)


def content_hash(connection: Connection) -> str:
    """Hash scenes, sessions, rounds, takes, files and pairs by their names.

    Local keys, places, decisions and what was seen of the files stay out: a catalog rebuilt from the same
    folders gives the same hash.
    """
    digest = hashlib.sha256()
    for query in _queries():
        for row in _stream(connection, query):
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\\n")
    return digest.hexdigest()


def _stream(connection: Connection, query: Select[Any]) -> Iterator[list[Any]]:
    for row in connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE}):
        yield list(row)


def _queries() -> Iterator[Select[Any]]:
    named = (sessions.c.name, rounds.c.number)
    own = sessions.c["source", "rig", "simulated", "created_utc_us", "record", "aligned_by"]
    in_scene = sessions.join(scenes)
    yield select(sessions.c.name, scenes.c.name, *own).select_from(in_scene).order_by(sessions.c.name)
    in_session = sessions.join(rounds)
    planned = rounds.c["name", "role", "degr_key", "settings", "conditions"]
    yield select(*named, *planned).select_from(in_session).order_by(*named)
    executed = takes.c["number", "state", "reason", "settings"]
    yield select(*named, *executed).select_from(in_session.join(takes)).order_by(*named, takes.c.number)
    files = assets.c["relpath", "kind", "sha256"]
    yield (
        select(sessions.c.name, *files)
        .select_from(sessions.join(assets))
        .order_by(sessions.c.name, assets.c.relpath)
    )
    yield from _pair_queries()


def _pair_queries() -> Iterator[Select[Any]]:
    local = {column.name for column in pairs.c if column.foreign_keys} | _LOCAL
    own = [c for c in pairs.c if c.name not in local]
    yield select(*own, rounds.c.number).select_from(pairs.join(rounds)).order_by(pairs.c.uid)
    for entity, order in ((Alignment, None), (PairMetric, "name")):
        table = table_of(entity)
        columns = [c for c in table.c if c.name != "pair_id"]
        by = [pairs.c.uid] if order is None else [pairs.c.uid, table.c[order]]
        yield select(pairs.c.uid, *columns).select_from(pairs.join(table)).order_by(*by)
