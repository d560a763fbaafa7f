"""Counts for a first look at a catalog, from the tables that are kept up to date for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, func, select

from catalog.tables import FileCount, PairCount, Round, Scene, Session, table_of

pair_counts, file_counts = table_of(PairCount), table_of(FileCount)
rounds, sessions, scenes = table_of(Round), table_of(Session), table_of(Scene)


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
    cells = count_cells(connection, scenes.c.name, *pair_counts.c["degr_key", "iso", "status"])
    statuses: Counter[str] = Counter()
    classes: dict[str, Counter[str]] = {}
    for cell in cells:
        statuses[cell["status"]] += cell["n"]
        classes.setdefault(cell["degr_key"], Counter())[cell["status"]] += cell["n"]
    return Statistics(
        sessions=connection.execute(select(func.count()).select_from(sessions)).scalar_one(),
        pairs=dict(sorted(statuses.items())),
        classes={name: dict(sorted(count.items())) for name, count in sorted(classes.items())},
        levels=_levels(cells),
        scenes=_scenes(connection, cells),
        reasons=_reasons(connection),
        files=_files(connection),
    )


def count_cells(connection: Connection, *by: ColumnElement[Any]) -> Sequence[RowMapping]:
    """Sum the counts of pairs by some columns of counts, rounds, sessions and scenes; the sum is ``n``."""
    joined = pair_counts.join(rounds).join(sessions).join(scenes)
    summed = select(*by, func.sum(pair_counts.c.n).label("n")).select_from(joined).group_by(*by).order_by(*by)
    return connection.execute(summed).mappings().all()


def _levels(cells: Sequence[RowMapping]) -> list[dict[str, str | int]]:
    return [
        {"scene": cell["name"], "class": cell["degr_key"], "iso": cell["iso"], "pairs": cell["n"]}
        for cell in cells
        if cell["status"] == "accepted"
    ]


def _scenes(connection: Connection, cells: Sequence[RowMapping]) -> dict[str, dict[str, int | str]]:
    result: dict[str, dict[str, int | str]] = {
        row.name: {"part": row.part} for row in connection.execute(select(scenes).order_by(scenes.c.name))
    }
    summed: Counter[tuple[str, str]] = Counter()
    for cell in cells:
        summed[cell["name"], cell["status"]] += cell["n"]
    for (name, status), count in sorted(summed.items()):
        result[name][status] = count
    return result


def _reasons(connection: Connection) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for cell in count_cells(connection, pair_counts.c.reasons):
        for reason in filter(None, cell["reasons"].split(",")):
            reasons[reason] += cell["n"]
    return dict(reasons.most_common())


def _files(connection: Connection) -> dict[str, int]:
    state = file_counts.c.state
    summed = select(state, func.sum(file_counts.c.n)).group_by(state)
    return {row[0]: row[1] for row in connection.execute(summed)}
