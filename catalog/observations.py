"""What a look at the files showed: damage quarantines pairs, a whole file brings them back, both are events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select, update

from catalog.events import Batch, as_json
from catalog.status import recount_files, recount_pairs, set_status
from catalog.stored_files import AssetState
from catalog.tables import Asset, Pair, table_of

_IDS_AT_ONCE = 500
assets, pairs = table_of(Asset), table_of(Pair)


@dataclass(frozen=True)
class Observation:
    """The state of one file as just seen."""

    asset_id: int
    session: str
    relpath: str
    pair_id: int | None
    sha256: str
    before: AssetState
    state: AssetState
    nbytes: int | None
    problem: str
    verified_at_us: int | None
    """When its content was last compared; None for never in this state."""


def record_observations(connection: Connection, seen: Sequence[Observation]) -> None:
    """Store states; pairs whose files changed state change status, and an event says why."""
    changed = [o for o in seen if o.state != o.before]
    _store_states(connection, seen)
    for kind, some in (
        ("damage", [o for o in changed if o.state != "present"]),
        ("recovery", [o for o in changed if o.state == "present"]),
    ):
        Batch().record(connection, kind, [_subject(o) for o in some])
    _update_pairs(connection, sorted({o.pair_id for o in changed if o.pair_id is not None}))
    _update_file_counts(connection, [o.asset_id for o in changed])


def _store_states(connection: Connection, seen: Sequence[Observation]) -> None:
    if not seen:
        return
    statement = (
        update(assets)
        .where(assets.c.id == bindparam("asset"), assets.c.sha256 == bindparam("content"))
        .values(
            state=bindparam("now"),
            nbytes=func.coalesce(assets.c.nbytes, bindparam("size")),
            verified_at_us=bindparam("at"),
        )
    )
    rows = [
        {
            "asset": o.asset_id,
            "content": o.sha256,  # the key may meanwhile be another file's
            "now": o.state,
            "size": o.nbytes,
            "at": o.verified_at_us,
        }
        for o in seen
    ]
    connection.execute(statement, rows)


def _subject(seen: Observation) -> tuple[str, str, dict[str, str]]:
    states = {
        "before": as_json({"state": seen.before}),
        "after": as_json({"state": seen.state, "problem": seen.problem}),
    }
    return f"{seen.session}:{seen.relpath}", seen.session, states


def _update_pairs(connection: Connection, pair_ids: Sequence[int]) -> None:
    round_ids: set[int] = set()
    for i in range(0, len(pair_ids), _IDS_AT_ONCE):
        chosen = pairs.c.id.in_(pair_ids[i : i + _IDS_AT_ONCE])
        set_status(connection, chosen)
        round_ids.update(connection.execute(select(pairs.c.round_id).where(chosen).distinct()).scalars())
    recount_pairs(connection, round_ids)


def _update_file_counts(connection: Connection, asset_ids: Sequence[int]) -> None:
    session_ids: set[int] = set()
    for i in range(0, len(asset_ids), _IDS_AT_ONCE):
        chosen = assets.c.id.in_(asset_ids[i : i + _IDS_AT_ONCE])
        session_ids.update(connection.execute(select(assets.c.session_id).where(chosen).distinct()).scalars())
    recount_files(connection, session_ids)
