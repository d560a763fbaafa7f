"""Counts for a first look at a catalog: of everything, from tables that are kept for it, or of what passes a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, RowMapping, func, select

from catalog.selection import PairSource, pairs, rounds, scenes, sessions
from catalog.tables import Asset, Event, FileCount, PairCount, table_of

assets, pair_counts, file_counts = table_of(Asset), table_of(PairCount), table_of(FileCount)
events = table_of(Event)


@dataclass(frozen=True)
class Statistics:
    """How much of what there is."""

    sessions: int
    pairs: dict[str, int]
    """Pairs by status."""
    classes: dict[str, dict[str, int]]
    """Pairs by class, then by status."""
    levels: list[dict[str, str | int]]
    """Accepted pairs by scene, class and ISO (0 for not known)."""
    scenes: dict[str, dict[str, int | str]]
    """Each scene's part of the default split, and its pairs by status."""
    reasons: dict[str, int]
    """Rejected pairs by reason; a pair may have several."""
    files: dict[str, int]
    """Files by state."""
    planned_by_utc_us: int | None
    """How old the database's own statistics are, by which it plans queries: they are refreshed whenever a session is
    added or changes. None before the first one. The counts above are kept with every change and never old."""


def collect_statistics(connection: Connection, source: PairSource, *, where: str | None = None) -> Statistics:
    """Count everything once, or the pairs that pass a filter with their sessions, scenes and files."""
    counts = counts_of(source, where)
    cells = count_cells(connection, counts, scenes.c.name, *counts.c["degr_key", "iso", "status"])
    statuses: Counter[str] = Counter()
    classes: dict[str, Counter[str]] = {}
    for cell in cells:
        statuses[cell["status"]] += cell["n"]
        classes.setdefault(cell["degr_key"], Counter())[cell["status"]] += cell["n"]
    every = connection.execute(select(scenes).order_by(scenes.c.name)).all()
    own = {cell["name"] for cell in cells}
    return Statistics(
        sessions=_sessions(connection, counts),
        pairs=dict(sorted(statuses.items())),
        classes={name: dict(sorted(count.items())) for name, count in sorted(classes.items())},
        levels=_levels(cells),
        scenes=_scenes({s.name: s.part for s in every if counts is pair_counts or s.name in own}, cells),
        reasons=_reasons(connection, counts),
        files=_files(connection, source, where),
        planned_by_utc_us=_last_analyzed(connection),
    )


def counts_of(source: PairSource, where: str | None) -> FromClause:
    """Return the kept counts of all pairs, or the same columns for those that pass a filter, counted now."""
    if not where:
        return pair_counts
    iso = func.coalesce(pairs.c.iso, 0)
    by = (*pairs.c["round_id", "degr_key"], iso.label("iso"), *pairs.c["status", "reasons"])
    counted = select(*by, func.count().label("n")).select_from(source.table).where(source.where(where))
    return counted.group_by(*pairs.c["round_id", "degr_key"], iso, *pairs.c["status", "reasons"]).subquery()


def count_cells(connection: Connection, counts: FromClause, *by: ColumnElement[Any]) -> Sequence[RowMapping]:
    """Sum counts of pairs by some columns of counts, rounds, sessions and scenes; the sum is ``n``."""
    joined = counts.join(rounds, rounds.c.id == counts.c.round_id).join(sessions).join(scenes)
    summed = select(*by, func.sum(counts.c.n).label("n")).select_from(joined).group_by(*by).order_by(*by)
    return connection.execute(summed).mappings().all()


def _sessions(connection: Connection, counts: FromClause) -> int:
    if counts is pair_counts:
        return connection.execute(select(func.count()).select_from(sessions)).scalar_one()
    return len(count_cells(connection, counts, sessions.c.id))


def _levels(cells: Sequence[RowMapping]) -> list[dict[str, str | int]]:
    return [
        {"scene": cell["name"], "class": cell["degr_key"], "iso": cell["iso"], "pairs": cell["n"]}
        for cell in cells
        if cell["status"] == "accepted"
    ]


def _scenes(parts: Mapping[str, str], cells: Sequence[RowMapping]) -> dict[str, dict[str, int | str]]:
    result: dict[str, dict[str, int | str]] = {name: {"part": part} for name, part in parts.items()}
    summed: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        summed[cell["name"], cell["status"]] += cell["n"]
    for (name, status), count in sorted(summed.items()):
        result[name][status] = count
    return result


def _reasons(connection: Connection, counts: FromClause) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for cell in count_cells(connection, counts, counts.c.reasons):
        for reason in filter(None, cell["reasons"].split(",")):
            reasons[reason] += cell["n"]
    return dict(reasons.most_common())


def _last_analyzed(connection: Connection) -> int | None:
    changed = events.c.kind.in_(("added", "updated"))
    return connection.execute(select(func.max(events.c.t_utc_us)).where(changed)).scalar()


def _files(connection: Connection, source: PairSource, where: str | None) -> dict[str, int]:
    summed = select(file_counts.c.state, func.sum(file_counts.c.n)).group_by(file_counts.c.state)
    if where:
        own = source.table.join(assets, assets.c.pair_id == pairs.c.id)
        summed = select(assets.c.state, func.count()).select_from(own).group_by(assets.c.state)
        summed = summed.where(source.where(where))
    return {row[0]: row[1] for row in connection.execute(summed)}
