"""Write what a session folder says into the catalog, in one transaction.

A session that is added again replaces its own rows whole: pairs keep their names, decisions come back from
the events, and files that did not change keep what verification found out about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from catalog.bulk import bulk_insert
from catalog.decisions import Decision, effective_decisions
from catalog.errors import CatalogError, DamagedDataError, ExitCode
from catalog.events import Batch, as_json
from catalog.observations import Observation, record_observations
from catalog.pair_classes import labelled_pairs, settle_classes
from catalog.pair_rows import alignment_row, degradation_rows, metric_rows, pair_rows, pair_uid
from catalog.records import degradation_key
from catalog.session_content import KnownFile, SessionContent, TakeKey
from catalog.splits import default_part, extend_splits
from catalog.status import recount_files, recount_pairs
from catalog.stored_files import AssetState, FolderRoot, Sighting, look_at
from catalog.tables import (
    Alignment,
    Asset,
    DegradationName,
    Pair,
    PairDegradation,
    PairMetric,
    Round,
    Scene,
    Session,
    Take,
    table_of,
)

Outcome = Literal["added", "updated", "unchanged"]

scenes, sessions, rounds, takes = table_of(Scene), table_of(Session), table_of(Round), table_of(Take)
pairs, assets = table_of(Pair), table_of(Asset)


class SessionConflictError(CatalogError):
    """Another session of the same name is in the catalog."""

    code = "CAT-SES-004"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class AddReport:
    """What adding a session did."""

    session: str
    outcome: Outcome
    aligned: bool
    accepted: int
    rejected: int
    quarantined: int
    files: int
    decisions_kept: int
    problems: tuple[str, ...]
    """Files that are missing or visibly damaged, each with what is wrong."""


@dataclass(frozen=True)
class _SeenFile:
    """A recorded file and how it stands on disk."""

    file: KnownFile
    asset_id: int | None
    """Key of the same content in the catalog; None where it is new."""
    before: AssetState
    state: AssetState
    nbytes: int | None
    verified_at_us: int | None
    problem: str


def write_session(connection: Connection, content: SessionContent, *, location: str) -> AddReport:
    """Add a session or bring it up to date; repeating it changes nothing.

    Raises:
        SessionConflictError: The catalog holds another session of that name.
        DamagedDataError: The catalog knows pairs of this session but `pairs.jsonl` is gone.
    """
    name = content.record.session
    known = connection.execute(select(sessions).where(sessions.c.name == name)).mappings().one_or_none()
    files = _look_at_files(connection, content, known)
    decisions = effective_decisions(connection, session=name)
    outcome: Outcome = "added"
    if known is not None:
        _check_same_session(connection, known, content)
        current = (known["fingerprint"], known["location"]) == (content.fingerprint, location)
        outcome = "unchanged" if current else "updated"
    if known is not None and outcome == "unchanged":
        pair_ids = _pair_ids(connection, known["id"])
        record_observations(connection, [_observation(name, pair_ids, seen) for seen in files])
    else:
        before = _summary(connection, name)
        _replace(connection, known, content, files=files, decisions=decisions, location=location)
        change = {"before": before, "after": _summary(connection, name)}
        Batch().record(connection, outcome, [(name, name, change)])
    return _report(connection, content, outcome, files)


def _check_same_session(connection: Connection, known: RowMapping, content: SessionContent) -> None:
    name = known["name"]
    if known["record"] != content.record_text:
        raise SessionConflictError(
            f"{content.root}: another session named {name!r} is in the catalog, from {known['location']}",
            kept="the catalog, unchanged",
            next_step="a session keeps its name for life: restore its own session.json",
        )
    count = connection.execute(select(func.count()).where(pairs.c.session_id == known["id"])).scalar_one()
    if count and not content.aligned:
        raise DamagedDataError(
            f"{content.root}: pairs.jsonl is gone, but the catalog knows {count} pairs of this session",
            kept="the catalog, unchanged",
            next_step=f"alignment run {name}, then catalog add {name}",
        )


def _look_at_files(
    connection: Connection, content: SessionContent, known: RowMapping | None
) -> list[_SeenFile]:
    """Look at every recorded file; one with unchanged content keeps what was verified about it."""
    before: dict[str, RowMapping] = {}
    if known is not None:
        rows = connection.execute(select(assets).where(assets.c.session_id == known["id"])).mappings()
        before = {row["relpath"]: row for row in rows}
    root = FolderRoot(content.root)
    return [_look_at_file(file, root, before.get(file.relpath)) for file in content.files]


def _look_at_file(file: KnownFile, root: FolderRoot, old: RowMapping | None) -> _SeenFile:
    same = old if old is not None and old["sha256"] == file.sha256 else None
    nbytes = file.nbytes if same is None else same["nbytes"]
    expected = None if file.kind == "journal" else nbytes  # a journal may have grown since
    sighting = look_at(root.path(file.relpath), expected_nbytes=expected)
    nbytes = sighting.nbytes if nbytes is None else nbytes
    if same is None:
        return _SeenFile(file, None, "present", sighting.state, nbytes, None, sighting.problem)
    if same["state"] == "quarantined" and sighting.state == "present":
        sighting = Sighting("quarantined", nbytes, "its content differed when it was last verified")
    stamp = same["verified_at_us"] if same["state"] == sighting.state else None
    return _SeenFile(file, same["id"], same["state"], sighting.state, nbytes, stamp, sighting.problem)


def _observation(session: str, pair_ids: Mapping[str, int], seen: _SeenFile) -> Observation:
    if seen.asset_id is None:
        raise ValueError(f"{seen.file.relpath} is not in the catalog")
    return Observation(
        asset_id=seen.asset_id,
        session=session,
        relpath=seen.file.relpath,
        pair_id=None if seen.file.pair is None else pair_ids[pair_uid(session, seen.file.pair)],
        sha256=seen.file.sha256,
        before=seen.before,
        state=seen.state,
        nbytes=seen.nbytes,
        problem=seen.problem,
        verified_at_us=seen.verified_at_us,
    )


def _replace(
    connection: Connection,
    known: RowMapping | None,
    content: SessionContent,
    *,
    files: Sequence[_SeenFile],
    decisions: Mapping[str, Decision],
    location: str,
) -> None:
    scene_id = _scene(connection, content.record.scene)
    session_id = _session(connection, known, content, scene_id=scene_id, location=location)
    round_ids = _insert_rounds(connection, content, session_id)
    take_ids = _insert_takes(connection, content, round_ids)
    damaged = {seen.file.pair for seen in files if seen.state != "present"}
    rows = (
        {
            **row,
            "session_id": session_id,
            "scene_id": scene_id,
            "decision": decisions.get(row["uid"]),
            "status": _status(row, decisions.get(row["uid"]), damaged=pair.pair in damaged),
        }
        for pair, row in zip(
            content.pairs, pair_rows(content, take_ids=take_ids, round_ids=round_ids), strict=True
        )
    )
    bulk_insert(connection, pairs, rows)
    pair_ids = _pair_ids(connection, session_id)
    _insert_evidence(connection, content, pair_ids)
    bulk_insert(connection, assets, (_asset_row(content, seen, session_id, pair_ids) for seen in files))
    settle_classes(connection, labelled_pairs(connection, session=content.record.session))
    recount_pairs(connection, round_ids.values())
    recount_files(connection, {session_id})
    extend_splits(connection)


def _status(row: Mapping[str, Any], decision: Decision | None, *, damaged: bool) -> str:
    return "quarantined" if damaged else decision or row["verdict"]


def _scene(connection: Connection, name: str) -> int:
    found = connection.execute(select(scenes.c.id).where(scenes.c.name == name)).scalar()
    if found is not None:
        return int(found)
    row = {"name": name, "group_key": name, "part": default_part(name)}
    return int(connection.execute(insert(scenes).returning(scenes.c.id), row).scalar_one())


def _session(
    connection: Connection,
    known: RowMapping | None,
    content: SessionContent,
    *,
    scene_id: int,
    location: str,
) -> int:
    """Write the session's own row and remove all that hangs on an older one."""
    record = content.record
    row = {
        **record.model_dump(include={"source", "rig", "simulated", "created_utc_us"}),
        "name": record.session,
        "scene_id": scene_id,
        "location": location,
        "record": content.record_text,
        "aligned_by": content.aligned_by,
        "fingerprint": content.fingerprint,
    }
    if known is None:
        return int(connection.execute(insert(sessions).returning(sessions.c.id), row).scalar_one())
    session_id = int(known["id"])
    for table in (pairs, assets, rounds):
        connection.execute(delete(table).where(table.c.session_id == session_id))
    connection.execute(update(sessions).where(sessions.c.id == session_id).values(row))
    return session_id


def _insert_rounds(connection: Connection, content: SessionContent, session_id: int) -> dict[str, int]:
    rows = [
        {
            "session_id": session_id,
            "number": round_.number,
            "name": round_.name,
            "role": round_.role,
            "degr_key": degradation_key(round_.degradations),
            "settings": round_.settings.model_dump_json(),
            "conditions": as_json(round_.conditions),
        }
        for round_ in content.record.rounds
    ]
    bulk_insert(connection, rounds, rows)
    found = connection.execute(select(rounds.c.name, rounds.c.id).where(rounds.c.session_id == session_id))
    return {row.name: row.id for row in found}


def _insert_takes(
    connection: Connection, content: SessionContent, round_ids: Mapping[str, int]
) -> dict[TakeKey, int]:
    rows = [
        {
            "round_id": round_ids[name],
            "number": number,
            "state": found.take.state,
            "reason": found.take.reason,
            "settings": None if found.settings is None else found.settings.model_dump_json(),
        }
        for (name, number), found in content.takes.items()
    ]
    bulk_insert(connection, takes, rows)
    names = {key: name for name, key in round_ids.items()}
    stored = connection.execute(select(takes).where(takes.c.round_id.in_(names)))
    return {(names[row.round_id], row.number): row.id for row in stored}


def _insert_evidence(connection: Connection, content: SessionContent, pair_ids: Mapping[str, int]) -> None:
    vocabulary = table_of(DegradationName)
    degradation_ids = {row.name: row.id for row in connection.execute(select(vocabulary))}
    keyed = [(pair, pair_ids[pair_uid(content.record.session, pair.pair)]) for pair in content.pairs]
    bulk_insert(connection, table_of(Alignment), (alignment_row(pair, key) for pair, key in keyed))
    bulk_insert(connection, table_of(PairMetric), (r for pair, key in keyed for r in metric_rows(pair, key)))
    degradations = (
        row
        for pair, key in keyed
        for row in degradation_rows(content, pair, key, degradation_ids=degradation_ids)
    )
    bulk_insert(connection, table_of(PairDegradation), degradations)


def _asset_row(
    content: SessionContent, seen: _SeenFile, session_id: int, pair_ids: Mapping[str, int]
) -> dict[str, Any]:
    pair = seen.file.pair
    return {
        "session_id": session_id,
        "pair_id": None if pair is None else pair_ids[pair_uid(content.record.session, pair)],
        "relpath": seen.file.relpath,
        "kind": seen.file.kind,
        "sha256": seen.file.sha256,
        "nbytes": seen.nbytes,
        "state": seen.state,
        "verified_at_us": seen.verified_at_us,
    }


def _pair_ids(connection: Connection, session_id: int) -> dict[str, int]:
    found = connection.execute(select(pairs.c.uid, pairs.c.id).where(pairs.c.session_id == session_id))
    return {row.uid: row.id for row in found}


def _summary(connection: Connection, session: str) -> str | None:
    """Describe a session in one line of JSON for the event log; None where it is not known."""
    known = connection.execute(select(sessions).where(sessions.c.name == session)).mappings().one_or_none()
    if known is None:
        return None
    return as_json({"fingerprint": known["fingerprint"], "pairs": _status_counts(connection, known["id"])})


def _status_counts(connection: Connection, session_id: int) -> dict[str, int]:
    counted = select(pairs.c.status, func.count()).where(pairs.c.session_id == session_id)
    return {row[0]: row[1] for row in connection.execute(counted.group_by(pairs.c.status))}


def _report(
    connection: Connection, content: SessionContent, outcome: Outcome, files: Sequence[_SeenFile]
) -> AddReport:
    name = content.record.session
    session_id = connection.execute(select(sessions.c.id).where(sessions.c.name == name)).scalar_one()
    counts = _status_counts(connection, session_id)
    decided = select(func.count()).where(pairs.c.session_id == session_id, pairs.c.decision.is_not(None))
    return AddReport(
        session=name,
        outcome=outcome,
        aligned=content.aligned,
        accepted=counts.get("accepted", 0),
        rejected=counts.get("rejected", 0),
        quarantined=counts.get("quarantined", 0),
        files=len(files),
        decisions_kept=connection.execute(decided).scalar_one(),
        problems=tuple(f"{seen.file.relpath}: {seen.problem}" for seen in files if seen.problem),
    )
