"""Our registration beside those of others on the same pairs with known truth: results/alignment.json.

Usage: make bench-alignment, or python -P -m benchmarks.alignment --pairs-per-class 3 --classes clean,haze for a look.
Finished pairs are kept in the work folder: a run that was stopped goes on where it was, and classes or methods that
were measured one at a time (--classes, --methods) are put together by a run of all of them, or of what there is
(--known-only). Costs are CPU time on one thread, colour to grey included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2

from benchmarks.alignment_goals import judge
from benchmarks.alignment_measure import GRID, OURS, Row, Task, run_task
from benchmarks.alignment_pairs import CLASSES, SCENES, places
from benchmarks.alignment_rivals import RIVALS
from benchmarks.alignment_tables import markdown, plot, summarise

RESULTS = Path(__file__).parent / "results"
SHARED = Path(os.environ.get("CLEANPLATE_SHARED", Path(__file__).parents[2] / "shared"))
METHODS = (*OURS, *RIVALS)


@dataclass(frozen=True)
class Settings:
    """What to run."""

    pairs_per_class: int
    classes: tuple[str, ...]
    methods: tuple[str, ...]
    photo_set: str
    size: tuple[int, int]
    jobs: int
    work: Path
    output: Path
    known_only: bool = False

    @property
    def rows_path(self) -> Path:
        """Where finished pairs are kept."""
        return self.work / f"rows-{self.photo_set}-{self.size[0]}x{self.size[1]}.jsonl"


def settings(arguments: Sequence[str]) -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs-per-class", type=int, default=20)
    parser.add_argument("--classes", default=",".join(CLASSES), help=f"default: all of {', '.join(CLASSES)}")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"default: all of {', '.join(METHODS)}")
    parser.add_argument("--photo-set", choices=("tuning", "report"), default="report")
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("cleanplate-data/bench-alignment"))
    parser.add_argument("--output", type=Path, default=RESULTS / "alignment.json")
    parser.add_argument(
        "--fresh", action="store_true", help="measure the chosen classes and methods again, whatever is known"
    )
    parser.add_argument(
        "--known-only", action="store_true", help="measure nothing, put together what is known"
    )
    given = parser.parse_args(arguments)
    width, height = map(int, given.size.split("x"))
    chosen = Settings(
        given.pairs_per_class, tuple(given.classes.split(",")), tuple(given.methods.split(",")), given.photo_set,
        (width, height), given.jobs, given.work, given.output, given.known_only,
    )  # fmt: skip
    if unknown := {*chosen.classes} - {*CLASSES} | {*chosen.methods} - {*METHODS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen.work.mkdir(parents=True, exist_ok=True)
    if given.fresh:
        kept = [row for row in _known(chosen.rows_path) if not _wanted(row, chosen)]
        chosen.rows_path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Measure what is missing and put everything together."""
    chosen = settings(arguments)
    if not chosen.known_only:
        measure_missing(chosen)
    rows = _whole([row for row in _known(chosen.rows_path) if _wanted(row, chosen)], chosen.methods)
    document = summary(chosen, rows)
    chosen.output.write_text(json.dumps(document, indent=1) + "\n")
    plot(document, chosen.output.with_suffix(".svg"))
    print(markdown(document))
    print(
        f"{chosen.output}: {sum(g['met'] for g in document['goals'])} of {len(document['goals'])} goals met"
    )
    return 0


def summary(chosen: Settings, rows: list[Row]) -> dict[str, Any]:
    """Put rows together into the result's document."""
    classes = summarise(rows)
    return {
        "schema": 1,
        "machine": {"cpu": platform.processor() or platform.machine(), "opencv": cv2.__version__},
        "photo_set": chosen.photo_set,
        "scenes": {n: f"{photos} {part}" for n, (photos, part) in SCENES.items() if n.startswith(chosen.photo_set)},
        "size": chosen.size,
        "points_per_pair": GRID[0] * GRID[1],
        "pairs_per_class_wanted": chosen.pairs_per_class,
        "pairs_per_class": {kind: max(m["pairs"] for m in methods.values()) for kind, methods in classes.items()},
        "classes": classes,
        "goals": judge(rows, classes),
    }  # fmt: skip


def measure_missing(chosen: Settings) -> None:
    """Run every task whose rows are not there yet; rows are appended as each task ends."""
    known = {(r["class"], r["scene"], r["pair"], r["method"]) for r in _known(chosen.rows_path)}
    todo = list(_tasks(chosen, known))
    with ProcessPoolExecutor(chosen.jobs) as pool, chosen.rows_path.open("a") as out:
        for number, rows in enumerate(pool.map(run_task, todo), 1):
            out.writelines(json.dumps(row) + "\n" for row in rows)
            out.flush()
            done = todo[number - 1]
            print(f"{number}/{len(todo)} {done.places[0].scene} {done.kind}", file=sys.stderr)


def _tasks(chosen: Settings, known: set[tuple[str, str, int, str]]) -> Iterator[Task]:
    wanted = sorted(places(chosen.photo_set, chosen.pairs_per_class), key=lambda p: (p.scene, p.index))  # type: ignore[arg-type]
    for scene, group in groupby(wanted, key=lambda p: p.scene):
        pairs = tuple(group)
        for kind in chosen.classes:
            methods = tuple(
                m for m in chosen.methods if any((kind, scene, p.index, m) not in known for p in pairs)
            )
            missing = tuple(p for p in pairs if any((kind, scene, p.index, m) not in known for m in methods))
            if missing:
                yield Task(kind, missing, methods, chosen.size, SHARED / "data" / "photos", chosen.work)


def _known(path: Path) -> list[Row]:
    """Rows measured so far, the last of each pair and method."""
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return list({(r["class"], r["scene"], r["pair"], r["method"]): r for r in rows}.values())


def _wanted(row: Row, chosen: Settings) -> bool:
    inside = {(p.scene, p.index) for p in places(chosen.photo_set, chosen.pairs_per_class)}  # type: ignore[arg-type]
    return (
        row["class"] in chosen.classes
        and row["method"] in chosen.methods
        and (row["scene"], row["pair"]) in inside
    )


def _whole(rows: list[Row], methods: tuple[str, ...]) -> list[Row]:
    """Rows of the pairs that every method has measured: all columns of a table show the same pairs."""
    by_pair: dict[tuple[str, str, int], set[str]] = {}
    for row in rows:
        by_pair.setdefault((row["class"], row["scene"], row["pair"]), set()).add(row["method"])
    return [row for row in rows if {*methods} <= by_pair[row["class"], row["scene"], row["pair"]]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
