"""`catalog label`: classes that somebody saw or predicted, as events with who and why; `undo` takes them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from catalog.decisions import PairNotFoundError
from catalog.events import Batch, as_json
from catalog.label_file import Label
from catalog.pair_classes import LABEL_EVENT, settle_classes
from catalog.records import degradation_key
from catalog.tables import Asset, Pair, Session, table_of

_IDS_AT_ONCE = 500
pairs, sessions, assets = table_of(Pair), table_of(Session), table_of(Asset)


@dataclass(frozen=True)
class LabelReport:
    """What labels changed."""

    pairs: tuple[str, ...]
    """Pairs that have another class now."""
    unchanged: int
    """Pairs that had that class."""
    unsure: int
    """Labels below the confidence that was asked for."""
    batch: str


@dataclass(frozen=True)
class _Known:
    uid: str
    session: str
    degr_key: str


def label_pairs(
    connection: Connection,
    labels: Iterable[tuple[int, Label]],
    *,
    reason: str = "",
    min_confidence: float = 0.0,
) -> LabelReport:
    """Give pairs the classes of a file of labels; where it names a pair twice, the last one counts.

    Args:
        connection: In a transaction that writes.
        labels: With their line numbers, as `catalog.label_file.read_labels` yields them.
        reason: Why; kept with the events.
        min_confidence: Classifiers' labels below it are passed over.

    Raises:
        PairNotFoundError: A line names no pair of the catalog; nothing was labelled then.
    """
    given = list(labels)
    sure = [(n, x) for n, x in given if x.confidence is None or x.confidence >= min_confidence]
    wanted = {pair.uid: (pair, label) for pair, label in _matched(connection, sure)}
    changed = {
        uid: (pair, label)
        for uid, (pair, label) in wanted.items()
        if pair.degr_key != degradation_key(label.degradations)
    }
    batch = Batch(reason)
    batch.record(connection, LABEL_EVENT, [_subject(pair, label) for pair, label in changed.values()])
    settle_classes(connection, list(changed))
    return LabelReport(tuple(changed), len(wanted) - len(changed), len(given) - len(sure), batch.name)


def _subject(pair: _Known, label: Label) -> tuple[str, str, dict[str, str]]:
    after: dict[str, Any] = {"class": degradation_key(label.degradations), "source": label.source}
    if label.confidence is not None:
        after["confidence"] = label.confidence
    return pair.uid, pair.session, {"before": as_json({"class": pair.degr_key}), "after": as_json(after)}


def _matched(connection: Connection, labels: list[tuple[int, Label]]) -> Iterator[tuple[_Known, Label]]:
    for i in range(0, len(labels), _IDS_AT_ONCE):
        some = labels[i : i + _IDS_AT_ONCE]
        by_uid = _by(connection, pairs.c.uid, [x.pair for _, x in some if x.pair is not None])
        by_content = _by(connection, assets.c.sha256, [x.sha256 for _, x in some if x.sha256 is not None])
        for number, label in some:
            found = by_uid.get(label.pair or "", ()) or by_content.get(label.sha256 or "", ())
            if not found:
                raise PairNotFoundError(
                    f"line {number}: no pair {label.pair or label.sha256!r} in the catalog",
                    kept="every class as it was",
                    next_step="catalog list shows the names; catalog add brings a session in",
                )
            yield from ((pair, label) for pair in found)


def _by(connection: Connection, column: Any, values: list[str]) -> Mapping[str, list[_Known]]:
    """Return pairs by their names, or by the content of their degraded pictures."""
    if not values:
        return {}
    query = select(column, pairs.c.uid, sessions.c.name, pairs.c.degr_key)
    joined = query.join_from(pairs, sessions, sessions.c.id == pairs.c.session_id)
    if column is assets.c.sha256:
        joined = joined.join(assets, assets.c.pair_id == pairs.c.id).where(assets.c.kind == "lq")
    found: dict[str, list[_Known]] = {}
    for key, *facts in connection.execute(joined.where(column.in_(values)).order_by(pairs.c.uid)):
        found.setdefault(key, []).append(_Known(*facts))
    return found
