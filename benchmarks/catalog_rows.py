"""A catalog of any size for measuring: 92 classes at seven ISOs in 120 scenes, and how fast it goes in.

Rows are those that `catalog add` writes, all tables of a pair: the pair, its geometry, two gates, one or two
degradations and its two files. They are made from their number alone, so that any part of any size can be made again;
making them is not timed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, select

from benchmarks.stopwatch import Stopwatch
from catalog.bulk import bulk_insert
from catalog.database import Database
from catalog.pair_rows import DEGRADATION_BITS, sample_key
from catalog.records import Degradation, degradation_key, foundir_class
from catalog.splits import default_part
from catalog.status import recount_files, recount_pairs
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

SCENES, ROUNDS, PAIRS_A_ROUND = 120, 10, 300
PAIRS_A_SESSION = ROUNDS * PAIRS_A_ROUND
SESSIONS_A_TRANSACTION = 4
ISOS = (100, 200, 400, 800, 1600, 3200, 6400)
KINDS = [(d,) for d in Degradation] + list(itertools.combinations(Degradation, 2))[:77]
REASONS = ("parallax", "residual", "parallax,residual")
_GEOMETRY = "[[1.0, 0.0, 0.25], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]]"
Rows = Mapping[Table, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Content:
    """What the made catalog says of its files; bytes that a benchmark put there, or none at all."""

    sha256: Sequence[str] = ()
    """Of the files that stand behind all pairs in turn."""
    nbytes: Sequence[int] = (6_000_000,)
    width: int = 2560
    height: int = 1440

    def facts(self, number: int) -> Mapping[str, Any]:
        """Return hash and size of a file by its number."""
        sha256 = self.sha256[number % len(self.sha256)] if self.sha256 else f"{number:064x}"
        return {"sha256": sha256, "nbytes": self.nbytes[number % len(self.nbytes)]}


def session_rows(number: int, content: Content, degradation_ids: Mapping[str, int], pairs: int) -> Rows:
    """Make all rows of a session's first ``pairs`` pairs."""
    rows: dict[Table, list[Mapping[str, Any]]] = {table: [] for table in _TABLES}
    rows[table_of(Session)].append(_session(number))
    for place in range(ROUNDS + 1):
        key = number * (ROUNDS + 1) + place + 1
        kind = () if place == 0 else KINDS[(number * ROUNDS + place) % len(KINDS)]
        rows[table_of(Round)].append(_round(number, place, key, kind))
        rows[table_of(Take)].append(
            {"id": key, "round_id": key, "number": 1, "state": "valid", "reason": "", "settings": None}
        )
    for place in range(pairs):
        for table, row in _pair_rows(number, place, content, degradation_ids):
            rows[table].append(row)
    return rows


def _session(number: int) -> Mapping[str, Any]:
    return {
        "id": number + 1,
        "name": session_name(number),
        "scene_id": number % SCENES + 1,
        "source": "captured",
        "rig": "bench",
        "simulated": False,
        "created_utc_us": 1_760_000_000_000_000 + number,
        "location": f"sessions/{session_name(number)}",
        "record": "{}",
        "aligned_by": "{}",
        "fingerprint": f"{number:064x}",
    }


def session_name(number: int) -> str:
    """Name a session."""
    return f"s{number:05d}"


def _round(session: int, place: int, key: int, kind: Sequence[Degradation]) -> Mapping[str, Any]:
    return {
        "id": key,
        "session_id": session + 1,
        "number": place + 1,
        "name": f"r{place:02d}",
        "role": "internal" if place else "gt",
        "degr_key": degradation_key(kind),
        "settings": '{"iso": 100}',
        "conditions": "{}",
    }


def _pair_rows(
    session: int, place: int, content: Content, degradation_ids: Mapping[str, int]
) -> Iterator[tuple[Table, Mapping[str, Any]]]:
    number = session * PAIRS_A_SESSION + place
    kind = KINDS[(session * ROUNDS + place // PAIRS_A_ROUND + 1) % len(KINDS)]
    name = f"r{place // PAIRS_A_ROUND + 1:02d}-{place % PAIRS_A_ROUND:06d}"
    yield table_of(Pair), _pair(session, place, name, kind, content)
    yield table_of(Alignment), _alignment(number + 1)
    for gate, value in (("ecc", 0.98), ("overlap", 0.99)):
        yield table_of(PairMetric), {"pair_id": number + 1, "name": gate, "value": value}
    for degradation in kind:
        link = {"pair_id": number + 1, "degradation_id": degradation_ids[degradation]}
        yield table_of(PairDegradation), {**link, "level": None, "source": "planned"}
    for offset, side in enumerate(("gt", "lq")):
        file = {
            "relpath": f"pairs/{side}/{name}.png",
            "kind": side,
            "state": "present",
            "verified_at_us": None,
        }
        keys = {"id": 2 * number + offset + 1, "session_id": session + 1, "pair_id": number + 1}
        yield table_of(Asset), {**keys, **file, **content.facts(2 * number + offset)}


def _pair(
    session: int, place: int, name: str, kind: Sequence[Degradation], content: Content
) -> Mapping[str, Any]:
    number, first_take = session * PAIRS_A_SESSION + place, session * (ROUNDS + 1) + 1
    take = first_take + place // PAIRS_A_ROUND + 1
    verdict = "rejected" if number % 33 == 32 else "accepted"
    uid = f"{session_name(session)}/{name}"
    return {
        "id": number + 1,
        "uid": uid,
        "session_id": session + 1,
        "scene_id": session % SCENES + 1,
        "round_id": take,
        **_frame("gt", first_take, 3 * place),
        **_frame("lq", take, place % PAIRS_A_ROUND),
        "degr_key": degradation_key(kind),
        "degr_mask": sum(DEGRADATION_BITS[name] for name in kind),
        "n_degr": len(kind),
        "foundir_class": foundir_class(kind),
        "iso": ISOS[take % len(ISOS)],
        "f_number": 8.0,
        "exposure_s": 0.002,
        "focus_m": 2.0,
        "width": content.width,
        "height": content.height,
        "gt_warped": False,
        "residual_px": (number * 7919 % 1000) / 20_000,
        "predicted_epe_px": (number * 104_729 % 1000) / 10_000,
        "position_gap_mm": 0.01,
        "mu": 0.1,
        "sigma": 0.02,
        "verdict": verdict,
        "reasons": REASONS[number % len(REASONS)] if verdict == "rejected" else "",
        "decision": None,
        "status": verdict,
        "sample_key": sample_key(uid),
    }


def _frame(side: str, take: int, index: int) -> Mapping[str, Any]:
    place = {"time_s": index / 30, "position_mm": 60 + index / 100}
    return {f"{side}_take_id": take, f"{side}_frame_index": index} | {
        f"{side}_{name}": value for name, value in place.items()
    }


def _alignment(pair_id: int) -> Mapping[str, Any]:
    geometry = {"homography": _GEOMETRY, "gt_from_pair": _GEOMETRY, "lq_crop": "[0, 0, 2560, 1440]"}
    facts = {"bound_px": 0.004, "blur_kind": "none", "blur_size_px": 0.0, "evidence": "markers"}
    return {"pair_id": pair_id, **geometry, **facts}


_TABLES = tuple(
    table_of(entity) for entity in (Session, Round, Take, Pair, Alignment, PairMetric, PairDegradation, Asset)
)
"""In an order in which every row finds what it refers to."""


def add_scenes(connection: Connection) -> None:
    """Insert the scenes."""
    rows = (
        {
            "id": i + 1,
            "name": f"scene-{i:03d}",
            "group_key": f"scene-{i:03d}",
            "part": default_part(f"scene-{i:03d}"),
        }
        for i in range(SCENES)
    )
    bulk_insert(connection, table_of(Scene), rows)


def degradation_keys(connection: Connection) -> dict[str, int]:
    """Map the vocabulary to its keys."""
    return {row.name: row.id for row in connection.execute(select(table_of(DegradationName)))}


def load(database: Database, first: int, count: int, content: Content, clock: Stopwatch) -> int:
    """Add ``count`` pairs in sessions from number ``first`` on; returns the rows written, all tables together."""
    written = 0
    with database.read() as connection:
        keys = degradation_keys(connection)
    sizes = [min(PAIRS_A_SESSION, count - at) for at in range(0, count, PAIRS_A_SESSION)]
    for at in range(0, len(sizes), SESSIONS_A_TRANSACTION):
        some = sizes[at : at + SESSIONS_A_TRANSACTION]
        made = [session_rows(first + at + i, content, keys, size) for i, size in enumerate(some)]
        with clock, database.write() as connection:
            for table in _TABLES:
                written += bulk_insert(connection, table, [row for rows in made for row in rows[table]])
            round_ids = [row["id"] for rows in made for row in rows[table_of(Round)]]
            recount_pairs(connection, round_ids)
            recount_files(connection, [first + at + i + 1 for i in range(len(some))])
    with clock, database.write() as connection:
        database.restart_keys(connection)
        database.analyze(connection)
    return written


def secondary_indexes() -> list[Any]:
    """List every index that is not a key, of the tables that are filled."""
    return [index for table in _TABLES for index in sorted(table.indexes, key=lambda i: str(i.name))]
