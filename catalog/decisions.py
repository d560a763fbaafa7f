"""Accept and reject pairs by hand: events that are never changed, and taken back only by another event.

`undo` takes labels back, too; `catalog.labels` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, Select, exists, func, select, update

from catalog.errors import CatalogError, ExitCode
from catalog.events import Batch, as_json
from catalog.pair_classes import LABEL_EVENT, settle_classes
from catalog.status import recount_pairs, set_status
from catalog.tables import Asset, Event, Pair, Session, table_of

Decision = Literal["accepted", "rejected"]
EVENT_KINDS: Mapping[Decision, str] = {"accepted": "accept", "rejected": "reject"}
_DECISIONS = {kind: decision for decision, kind in EVENT_KINDS.items()}
_UNDOABLE = (*_DECISIONS, LABEL_EVENT)
_IDS_AT_ONCE = 500

events, pairs, sessions, assets = table_of(Event), table_of(Pair), table_of(Session), table_of(Asset)


class PairNotFoundError(CatalogError, KeyError):
    """No pair of that name is in the catalog."""

    code = "CAT-PAIR-001"
    exit_code = ExitCode.INVALID_INPUT

    __str__ = CatalogError.__str__


class NoImagesError(CatalogError):
    """A pair without images cannot be accepted."""

    code = "CAT-PAIR-002"
    exit_code = ExitCode.INVALID_INPUT


class NothingToUndoError(CatalogError):
    """There is no decision that could be taken back."""

    code = "CAT-PAIR-003"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class DecisionReport:
    """What a decision changed."""

    pairs: tuple[str, ...]
    batch: str


def effective_decisions(connection: Connection, *, session: str) -> dict[str, Decision]:
    """Map the pairs of a session to what people decided last, whether or not the pairs exist just now."""
    decided = _standing(tuple(_DECISIONS)).where(events.c.session == session)
    return {row.subject: _DECISIONS[row.kind] for row in connection.execute(decided)}


def decide(connection: Connection, uids: Sequence[str], decision: Decision, *, reason: str) -> DecisionReport:
    """Accept or reject pairs.

    Raises:
        PairNotFoundError: One of the names is unknown; nothing was decided then.
        NoImagesError: One of them has no images to accept; nothing was decided then.
    """
    found = _pairs_named(connection, uids)
    if decision == "accepted":
        _require_images(connection, found)
    batch = Batch(reason)
    subjects = [
        (
            uid,
            row["session"],
            {"before": as_json({"decision": row["decision"]}), "after": as_json({"decision": decision})},
        )
        for uid, row in found.items()
    ]
    batch.record(connection, EVENT_KINDS[decision], subjects)
    _apply(connection, found, dict.fromkeys(found, decision))
    return DecisionReport(tuple(found), batch.name)


def undo(connection: Connection, uids: Sequence[str], *, reason: str) -> DecisionReport:
    """Take back the last decision or label of each of some pairs, or with none named the whole last command.

    Raises:
        NothingToUndoError: There is no decision left to take back.
        PairNotFoundError: One of the names is unknown.
    """
    chosen = _last_decisions(connection, uids) if uids else _last_batch(connection)
    found = _pairs_named(connection, [event["subject"] for event in chosen])
    batch = Batch(reason)
    subjects = [(e["subject"], e["session"], {"before": e["after"], "undoes": e["id"]}) for e in chosen]
    batch.record(connection, "undo", subjects)
    settle_classes(connection, [e["subject"] for e in chosen if e["kind"] == LABEL_EVENT])
    standing: dict[str, Decision | None] = dict.fromkeys(found)
    for session in {row["session"] for row in found.values()}:
        now = effective_decisions(connection, session=session)
        standing.update({uid: now[uid] for uid in found if uid in now})
    _apply(connection, found, standing)
    return DecisionReport(tuple(found), batch.name)


def _standing(kinds: Sequence[str] = _UNDOABLE) -> Select[Any]:
    """Select decisions and labels that nothing takes back, oldest first."""
    later = events.alias("later")
    taken_back = exists().where(later.c.undoes == events.c.id)
    return select(events).where(events.c.kind.in_(kinds), ~taken_back).order_by(events.c.id)


def _last_decisions(connection: Connection, uids: Sequence[str]) -> list[RowMapping]:
    found = _pairs_named(connection, uids)
    last: dict[str, RowMapping] = {}
    for some in _portions(list(found)):
        rows = connection.execute(_standing().where(events.c.subject.in_(some))).mappings()
        last.update({row["subject"]: row for row in rows})
    if missing := [uid for uid in found if uid not in last]:
        raise NothingToUndoError(f"pair {missing[0]}: nobody decided anything about it", kept="all decisions")
    return [last[uid] for uid in found]


def _last_batch(connection: Connection) -> list[RowMapping]:
    newest = _standing().with_only_columns(events.c.batch).order_by(None)
    batch = connection.execute(newest.order_by(events.c.id.desc()).limit(1)).scalar()
    if batch is None:
        raise NothingToUndoError("there is no decision to take back")
    return list(connection.execute(_standing().where(events.c.batch == batch)).mappings())


def _pairs_named(connection: Connection, uids: Sequence[str]) -> dict[str, RowMapping]:
    found: dict[str, RowMapping] = {}
    joined = pairs.join(sessions, sessions.c.id == pairs.c.session_id)
    columns = select(pairs, sessions.c.name.label("session")).select_from(joined)
    for some in _portions(uids):
        rows = connection.execute(columns.where(pairs.c.uid.in_(some))).mappings()
        found.update({row["uid"]: row for row in rows})
    if missing := [uid for uid in uids if uid not in found]:
        raise PairNotFoundError(
            f"no pair {missing[0]!r} in the catalog", next_step="catalog list shows the names"
        )
    return found


def _portions(uids: Sequence[str]) -> list[Sequence[str]]:
    return [uids[i : i + _IDS_AT_ONCE] for i in range(0, len(uids), _IDS_AT_ONCE)]


def _require_images(connection: Connection, found: Mapping[str, RowMapping]) -> None:
    ids = {row["id"]: uid for uid, row in found.items() if row["verdict"] != "accepted"}
    sides = assets.c.kind.in_(("gt", "lq"))
    for some in _portions(list(ids.values())):
        wanted = [found[uid]["id"] for uid in some]
        counted = select(assets.c.pair_id, func.count()).where(assets.c.pair_id.in_(wanted), sides)
        whole = {row[0] for row in connection.execute(counted.group_by(assets.c.pair_id)) if row[1] == 2}
        for pair_id in wanted:
            if pair_id not in whole:
                raise NoImagesError(
                    f"pair {ids[pair_id]}: alignment wrote no images for it ({found[ids[pair_id]]['reasons']})",
                    kept="all decisions as they were",
                )


def _apply(
    connection: Connection,
    found: Mapping[str, RowMapping],
    standing: Mapping[str, Decision | None],
) -> None:
    for decision in ("accepted", "rejected", None):
        uids = [uid for uid in found if standing[uid] == decision]
        for some in _portions(uids):
            chosen = pairs.c.uid.in_(some)
            connection.execute(update(pairs).where(chosen).values(decision=decision))
            set_status(connection, chosen)
    recount_pairs(connection, {row["round_id"] for row in found.values()})
