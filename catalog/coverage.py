"""What has been captured and what is missing: pairs by degradation, level and scene."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from catalog.database import DamagedDatabaseError
from catalog.records import Degradation
from catalog.selection import PairSource, rounds, scenes
from catalog.statistics import count_cells, counts_of

UNKNOWN_LEVEL = "-"
"""Level where neither the plan nor the camera said one."""


@dataclass(frozen=True)
class CoverageCell:
    """The accepted pairs of one degradation at one level in one scene."""

    degradation: str
    level: str
    scene: str
    isolated: int
    """Pairs with this degradation alone."""
    coupled: int
    """Pairs with others besides; counted under each of them."""

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.isolated + self.coupled


@dataclass(frozen=True)
class Coverage:
    """Every cell that holds a pair, and every scene there is, so that gaps can be told."""

    scenes: tuple[str, ...]
    cells: tuple[CoverageCell, ...]
    """By degradation in the order of the vocabulary, then level, then scene."""

    def missing(self, degradation: str, level: str) -> tuple[str, ...]:
        """Name the scenes without an accepted pair of a degradation at a level."""
        present = {c.scene for c in self.cells if (c.degradation, c.level) == (degradation, level)}
        return tuple(scene for scene in self.scenes if scene not in present)


def collect_coverage(connection: Connection, source: PairSource, *, where: str | None = None) -> Coverage:
    """Count accepted pairs by degradation, level and scene, all or those that pass a filter.

    The level is what the plan says of the external condition of the degradation's name, else the setting that
    makes it: ISO for noise, exposure time for motion blur and low light, focus distance for defocus blur.
    """
    counts = counts_of(source, where)
    by = (scenes.c.name, *rounds.c["conditions", "settings"], *counts.c["degr_key", "iso", "status"])
    counted: Counter[tuple[Degradation, tuple[float, str], str, bool]] = Counter()
    for row in count_cells(connection, counts, *by):
        if row["status"] == "accepted" and row["degr_key"] != "clean":
            for name, level, alone in _degradations(row):
                counted[name, level, row["name"], alone] += row["n"]
    every = connection.execute(select(scenes.c.name).order_by(scenes.c.name)).scalars()
    return Coverage(tuple(every), _cells(counted))


def _degradations(row: RowMapping) -> Iterator[tuple[Degradation, tuple[float, str], bool]]:
    """Yield the degradations of a round's class with their levels, and whether each is the only one."""
    try:
        names = [Degradation(word) for word in row["degr_key"].split("+")]
        conditions, settings = json.loads(row["conditions"]), json.loads(row["settings"])
    except ValueError as error:
        raise DamagedDatabaseError(
            f"a round of scene {row['name']!r} cannot be read ({error})",
            kept="every session folder",
            next_step="catalog rebuild",
        ) from error
    for name in names:
        yield name, _level(name, conditions, {**settings, "iso": row["iso"] or None}), len(names) == 1


def _cells(
    counted: Mapping[tuple[Degradation, tuple[float, str], str, bool], int],
) -> tuple[CoverageCell, ...]:
    order = list(Degradation)
    keys = sorted({key[:3] for key in counted}, key=lambda k: (order.index(k[0]), k[1], k[2]))
    return tuple(
        CoverageCell(
            name,
            level[1],
            scene,
            isolated=counted.get((name, level, scene, True), 0),
            coupled=counted.get((name, level, scene, False), 0),
        )
        for name, level, scene in keys
    )


def _level(
    degradation: Degradation, conditions: Mapping[str, str], settings: Mapping[str, Any]
) -> tuple[float, str]:
    """Return a level's place among others and its name."""
    if degradation in conditions:
        return 0.0, conditions[degradation]
    setting, unit = _MADE_BY.get(degradation, ("", ""))
    value = settings.get(setting)
    return (0.0, UNKNOWN_LEVEL) if value is None else (float(value), unit.format(value))


_EXPOSURE = ("exposure_s", "{:g} s")
_MADE_BY: Mapping[Degradation, tuple[str, str]] = {
    Degradation.NOISE: ("iso", "ISO {}"),
    Degradation.MOTION_BLUR: _EXPOSURE,
    Degradation.LOW_LIGHT: _EXPOSURE,
    Degradation.DEFOCUS_BLUR: ("focus_m", "{:g} m"),
}
"""The setting by which a body makes a degradation, and how its value is written."""
