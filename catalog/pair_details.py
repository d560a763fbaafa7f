"""All that is known of one pair, back to the shutter release."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from catalog.decisions import PairNotFoundError
from catalog.selection import PairRow, pair_source, pairs, rounds
from catalog.session_folder import ROUNDS_FOLDER, take_folder_name
from catalog.tables import Alignment, Asset, Event, PairMetric, Session, Take, table_of

takes, assets, events = table_of(Take), table_of(Asset), table_of(Event)
alignments, metrics = table_of(Alignment), table_of(PairMetric)
_FRAME = ("take_id", "frame_index", "time_s", "position_mm")
_COLUMNS = (
    pairs.c.id.label("key"),
    pairs.c.decision,
    table_of(Session).c.location,
    *(pairs.c[f"{side}_{name}"] for side in ("gt", "lq") for name in _FRAME),
)


@dataclass(frozen=True)
class FrameOrigin:
    """Where one side of a pair comes from."""

    round: str
    take: int
    frame_index: int
    time_s: float
    position_mm: float
    folder: str
    """Folder of the take, where the camera's own file lies."""


@dataclass(frozen=True)
class FileDetails:
    """One written file of a pair."""

    path: str
    sha256: str
    nbytes: int | None
    state: str


@dataclass(frozen=True)
class PairDetails:
    """A pair with its evidence."""

    pair: PairRow
    decision: str | None
    gt: FrameOrigin
    lq: FrameOrigin
    files: dict[str, FileDetails]
    gates: dict[str, float | None]
    homography: list[list[float]] | None
    gt_from_pair: list[list[float]] | None
    lq_crop: list[int] | None
    bound_px: float | None
    blur: dict[str, Any]
    evidence: list[str]
    events: list[dict[str, Any]]
    """What people decided and what happened to the files, oldest first."""


def pair_details(connection: Connection, uid: str, *, data: Path) -> PairDetails:
    """Gather one pair.

    Raises:
        PairNotFoundError: No pair of that name.
    """
    query = pair_source(connection).select(*_COLUMNS).where(pairs.c.uid == uid)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise PairNotFoundError(f"no pair {uid!r} in the catalog", next_step="catalog list shows the names")
    folder = data / row["location"]
    key = row["key"]
    geometry = connection.execute(select(alignments).where(alignments.c.pair_id == key)).mappings().one()
    gates = connection.execute(select(metrics.c.name, metrics.c.value).where(metrics.c.pair_id == key))
    return PairDetails(
        pair=PairRow.from_row(row),
        decision=row["decision"],
        gt=_origin(connection, row, "gt", folder),
        lq=_origin(connection, row, "lq", folder),
        files=_files(connection, key, folder),
        gates={gate.name: gate.value for gate in gates},
        **{name: _from_json(geometry[name]) for name in ("homography", "gt_from_pair", "lq_crop")},
        bound_px=geometry["bound_px"],
        blur={"kind": geometry["blur_kind"], "size_px": geometry["blur_size_px"]},
        evidence=[word for word in geometry["evidence"].split(",") if word],
        events=_events(connection, row),
    )


def _origin(connection: Connection, row: RowMapping, side: str, folder: Path) -> FrameOrigin:
    of_take = select(rounds.c.number, rounds.c.name, takes.c.number.label("take")).join_from(takes, rounds)
    take = connection.execute(of_take.where(takes.c.id == row[f"{side}_take_id"])).one()
    return FrameOrigin(
        round=take.name,
        take=take.take,
        frame_index=row[f"{side}_frame_index"],
        time_s=row[f"{side}_time_s"],
        position_mm=row[f"{side}_position_mm"],
        folder=str(folder / ROUNDS_FOLDER / take_folder_name(take.number, take.name, take.take)),
    )


def _files(connection: Connection, pair_id: int, folder: Path) -> dict[str, FileDetails]:
    found = connection.execute(select(assets).where(assets.c.pair_id == pair_id).order_by(assets.c.kind))
    return {f.kind: FileDetails(str(folder / f.relpath), f.sha256, f.nbytes, f.state) for f in found}


def _events(connection: Connection, row: RowMapping) -> list[dict[str, Any]]:
    files = select(assets.c.relpath).where(assets.c.pair_id == row["key"])
    subjects = [row["id"], *(f"{row['session']}:{path}" for path in connection.execute(files).scalars())]
    columns = events.c["t_utc_us", "actor", "machine", "kind", "subject", "reason", "before", "after"]
    found = connection.execute(select(*columns).where(events.c.subject.in_(subjects)).order_by(events.c.id))
    return [dict(event) for event in found.mappings()]


def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
