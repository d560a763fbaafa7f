"""Counts for a first look at a catalog, from the table that is kept up to date for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from catalog.tables import Asset, Pair, PairCount, Scene, Session, table_of

pairs, counts, scenes = table_of(Pair), table_of(PairCount), table_of(Scene)


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


def collect_statistics(connection: Connection) -> Statistics:
    """Count everything once."""
    cells = connection.execute(select(scenes.c.name, counts).join_from(counts, scenes)).all()
    statuses: Counter[str] = Counter()
    classes: dict[str, Counter[str]] = {}
    for cell in cells:
        statuses[cell.status] += cell.n
        classes.setdefault(cell.degr_key, Counter())[cell.status] += cell.n
    accepted = [cell for cell in cells if cell.status == "accepted"]
    return Statistics(
        sessions=connection.execute(select(func.count()).select_from(table_of(Session))).scalar_one(),
        pairs=dict(sorted(statuses.items())),
        classes={name: dict(sorted(count.items())) for name, count in sorted(classes.items())},
        levels=[
            {"scene": cell.name, "class": cell.degr_key, "iso": cell.iso, "pairs": cell.n}
            for cell in sorted(accepted, key=lambda c: (c.name, c.degr_key, c.iso))
        ],
        scenes=_scenes(connection),
        reasons=_reasons(connection),
        files=_files(connection),
    )


def _scenes(connection: Connection) -> dict[str, dict[str, int | str]]:
    named = {row.name: row.part for row in connection.execute(select(scenes).order_by(scenes.c.name))}
    result: dict[str, dict[str, int | str]] = {name: {"part": part} for name, part in named.items()}
    summed = select(scenes.c.name, counts.c.status, func.sum(counts.c.n).label("pairs"))
    grouped = summed.join_from(counts, scenes).group_by(scenes.c.name, counts.c.status)
    for row in connection.execute(grouped.order_by(counts.c.status)):
        result[row.name][row.status] = row.pairs
    return result


def _reasons(connection: Connection) -> dict[str, int]:
    said = select(pairs.c.reasons, func.count()).where(pairs.c.reasons != "").group_by(pairs.c.reasons)
    reasons: Counter[str] = Counter()
    for joined, count in connection.execute(said):
        reasons.update(dict.fromkeys(joined.split(","), count))
    return dict(reasons.most_common())


def _files(connection: Connection) -> dict[str, int]:
    state = table_of(Asset).c.state
    return {row[0]: row[1] for row in connection.execute(select(state, func.count()).group_by(state))}
