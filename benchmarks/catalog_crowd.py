"""Four processes decide about pairs while a fifth looks: nothing fails, nothing is lost, nothing looks half done.

And one decides while another freezes the list of an export of everything: how long it has to wait.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import func, select

from catalog.export_freeze import freeze
from catalog.export_list import ExportRequest
from catalog.store import Catalog
from catalog.tables import Event, Pair, PairCount, table_of

WRITERS, PAIRS_AT_ONCE, PAIRS_A_WRITER = 4, 50, 1_000
Decision = Literal["accepted", "rejected"]


@dataclass(frozen=True)
class Written:
    """What one writer did."""

    last: Mapping[str, Decision]
    """The decision that stands for each of its pairs."""
    decisions: int
    each_s: Sequence[float]
    """Of each transaction."""


@dataclass(frozen=True)
class Seen:
    """What the reader saw."""

    looks: int
    wrong: int
    """Looks at which the counts did not come to the number of pairs."""
    each_s: Sequence[float]


def decide_for(address: str, data: Path, uids: Sequence[str], duration_s: float) -> Written:
    """Reject and accept pairs, fifty at a time, until the time is up."""
    last: dict[str, Decision] = {}
    took: list[float] = []
    decided, until = 0, time.monotonic() + duration_s
    with Catalog(address, data=data) as catalog:
        while time.monotonic() < until:
            at = decided % len(uids)
            some = uids[at : at + PAIRS_AT_ONCE]
            again = decided // len(uids) % 2
            began = time.monotonic()
            (catalog.accept if again else catalog.reject)(some, reason="bench")
            took.append(time.monotonic() - began)
            last.update(dict.fromkeys(some, "accepted" if again else "rejected"))
            decided += len(some)
    return Written(last, decided, took)


def look_on(address: str, data: Path, pairs: int, duration_s: float) -> Seen:
    """Count and list until the time is up."""
    looks = wrong = 0
    took: list[float] = []
    until = time.monotonic() + duration_s
    with Catalog(address, data=data) as catalog:
        while time.monotonic() < until:
            began = time.monotonic()
            wrong += sum(catalog.stats().pairs.values()) != pairs
            catalog.find("status = accepted", limit=100)
            took.append(time.monotonic() - began)
            looks += 1
    return Seen(looks, wrong, took)


def measure_crowd(catalog: Catalog, address: str, *, pairs: int, duration_s: float) -> dict[str, Any]:
    """Let the crowd loose on a filled catalog and compare what it says with what stands there."""
    uids = [pair.id for pair in catalog.find("status = accepted", limit=WRITERS * PAIRS_A_WRITER)]
    shares = [uids[i::WRITERS] for i in range(WRITERS)]
    before = _events(catalog)
    with ProcessPoolExecutor(WRITERS + 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        writing = [pool.submit(decide_for, address, catalog.data, share, duration_s) for share in shares]
        looking = pool.submit(look_on, address, catalog.data, pairs, duration_s)
        written, seen = [w.result() for w in writing], looking.result()
    decisions = sum(w.decisions for w in written)
    took = sorted(second for w in written for second in w.each_s)
    return {
        "pairs": pairs,
        "seconds": duration_s,
        "transactions": len(took),
        "decisions": decisions,
        "decisions_per_s": round(decisions / duration_s, 1),
        "write_s": _spread(took),
        "reader": {"looks": seen.looks, "inconsistent": seen.wrong, "look_s": _spread(sorted(seen.each_s))},
        "lost": decisions - (_events(catalog) - before) + _misremembered(catalog, written),
        "counts_true": _counts_are_true(catalog),
    }


def freeze_everything(address: str, data: Path) -> float:
    """Freeze the list of an export of every accepted pair; returns the seconds that it took."""
    began = time.monotonic()
    with Catalog(address, data=data) as catalog:
        freeze(catalog.database, ExportRequest("everything"), folder=data)
    return time.monotonic() - began


def measure_freezing(catalog: Catalog, address: str, *, pairs: int) -> dict[str, Any]:
    """Decide about one pair after the other while a list is frozen."""
    uid = catalog.find("status = accepted", limit=1)[0].id
    took: list[float] = []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        freezing = pool.submit(freeze_everything, address, catalog.data)
        while not freezing.done():
            began = time.monotonic()
            catalog.accept([uid], reason="bench")
            took.append(time.monotonic() - began)
            time.sleep(0.02)
        freeze_s = round(freezing.result(), 2)
    return {"pairs": pairs, "freeze_s": freeze_s, "writes": len(took), "write_s": _spread(sorted(took))}


def _spread(took: Sequence[float]) -> dict[str, float]:
    ranks = {"median": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(took[min(int(rank * len(took)), len(took) - 1)], 4) for name, rank in ranks.items()}


def _events(catalog: Catalog) -> int:
    events = table_of(Event)
    with catalog.database.read() as connection:
        counted = select(func.count()).where(events.c.kind.in_(("accept", "reject")))
        return int(connection.execute(counted).scalar_one())


def _misremembered(catalog: Catalog, written: Sequence[Written]) -> int:
    """Count pairs whose decision is not the last one that their writer was told is stored."""
    pairs = table_of(Pair)
    with catalog.database.read() as connection:
        decided = select(pairs.c.uid, pairs.c.decision).where(pairs.c.decision.is_not(None))
        stored = {row.uid: row.decision for row in connection.execute(decided)}
    return sum(stored.get(uid) != decision for w in written for uid, decision in w.last.items())


def _counts_are_true(catalog: Catalog) -> bool:
    pairs, counts = table_of(Pair), table_of(PairCount)
    with catalog.database.read() as connection:
        counted = connection.execute(select(pairs.c.status, func.count()).group_by(pairs.c.status))
        kept = connection.execute(select(counts.c.status, func.sum(counts.c.n)).group_by(counts.c.status))
        return {row[0]: row[1] for row in counted} == {row[0]: row[1] for row in kept if row[1]}
