"""The class that counts for a pair: what somebody labelled it last, else what its round was planned to be.

A class stands in plain columns of the pair, which filters, samples and exports use. Labels are events, so they outlive
the rows of a session that is added again, and a rebuild.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, exists, insert, select, update

from catalog.pair_rows import class_columns
from catalog.records import Degradation
from catalog.status import recount_pairs
from catalog.tables import DegradationName, Event, Pair, PairDegradation, Round, table_of

LABEL_EVENT = "label"
_IDS_AT_ONCE = 500
events, pairs, rounds = table_of(Event), table_of(Pair), table_of(Round)
degraded, vocabulary = table_of(PairDegradation), table_of(DegradationName)


def settle_classes(connection: Connection, uids: Sequence[str]) -> None:
    """Give pairs the class that counts now, and count them anew; belongs into the transaction that changed it."""
    keys = {row.name: row.id for row in connection.execute(select(vocabulary))}
    round_ids: set[int] = set()
    for i in range(0, len(uids), _IDS_AT_ONCE):
        some = uids[i : i + _IDS_AT_ONCE]
        labels = _standing_labels(connection, events.c.subject.in_(some))
        found = _planned(connection, some)
        _write_classes(connection, found, labels, keys)
        round_ids.update(row["round_id"] for row in found)
    recount_pairs(connection, round_ids)


def labelled_pairs(connection: Connection, *, session: str) -> list[str]:
    """List the pairs of a session that a label stands for, whether or not they exist just now."""
    return list(_standing_labels(connection, events.c.session == session))


def _standing_labels(connection: Connection, condition: ColumnElement[bool]) -> dict[str, str]:
    """Map pairs to the class of the last label that nothing takes back."""
    later = events.alias("later")
    taken_back = exists().where(later.c.undoes == events.c.id)
    query = select(events.c.subject, events.c.after).where(
        events.c.kind == LABEL_EVENT, condition, ~taken_back
    )
    found = connection.execute(query.order_by(events.c.id))
    return {row.subject: str(json.loads(row.after)["class"]) for row in found}


def _degradations(key: str) -> tuple[Degradation, ...]:
    return () if key == "clean" else tuple(Degradation(name) for name in key.split("+"))


def _planned(connection: Connection, uids: Sequence[str]) -> Sequence[RowMapping]:
    """Return pairs with what their rounds were planned to make worse."""
    of_round = (rounds.c.degr_key.label("planned"), rounds.c.conditions)
    query = select(pairs.c.id, pairs.c.uid, pairs.c.round_id, *of_round)
    joined = query.join_from(pairs, rounds, rounds.c.id == pairs.c.round_id)
    return connection.execute(joined.where(pairs.c.uid.in_(uids))).mappings().all()


def _write_classes(
    connection: Connection, found: Sequence[RowMapping], labels: Mapping[str, str], keys: Mapping[str, int]
) -> None:
    by_class: dict[str, list[int]] = {}
    rows: list[dict[str, Any]] = []
    for row in found:
        label = labels.get(row["uid"])
        counting = label or row["planned"]
        by_class.setdefault(counting, []).append(row["id"])
        source = "planned" if label is None else "labelled"
        levels = json.loads(row["conditions"])
        rows += [
            {"pair_id": row["id"], "degradation_id": keys[n], "level": levels.get(n), "source": source}
            for n in _degradations(counting)
        ]
    for counting, ids in by_class.items():
        values = class_columns(_degradations(counting))
        connection.execute(update(pairs).where(pairs.c.id.in_(ids)).values(values))
        connection.execute(delete(degraded).where(degraded.c.pair_id.in_(ids)))
    if rows:
        connection.execute(insert(degraded), rows)
