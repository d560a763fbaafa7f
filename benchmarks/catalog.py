"""A catalog of a million pairs: how fast it goes in, what questions cost, what a crowd does to it, what exports need.

SQLite and a PostgreSQL server of our own (default settings, on loopback) side by side, as they grow. Wall and CPU
times; on PostgreSQL the CPU time is the client's alone. `make bench-catalog` runs all of it; --quick takes a tenth.
With --keep the databases stay, so that it can be run in pieces: what is measured goes into the result at once, and a
catalog grows on from what it holds.

Usage: python -P -m benchmarks.catalog [--quick] [--only growth links] [--databases sqlite]
       python -P -m benchmarks.catalog --keep FOLDER --databases sqlite --only growth --sizes 10000 100000
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, inspect, select

from benchmarks.catalog_crowd import measure_crowd, measure_freezing
from benchmarks.catalog_exports import (
    measure_links,
    measure_list_memory,
    measure_memory,
    measure_tar,
    photographs,
)
from benchmarks.catalog_queries import measure_queries
from benchmarks.catalog_rows import PAIRS_A_SESSION, Content, add_scenes, load, secondary_indexes
from benchmarks.stopwatch import Stopwatch
from catalog.store import Catalog
from catalog.tables import Pair, table_of

RESULT = Path(__file__).parent / "results" / "catalog.json"
DATABASES = ("sqlite", "postgresql")
SIZES, QUICK_SIZES = (10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000)
BULK_PAIRS, QUICK_BULK_PAIRS = 100_000, 10_000
PARTS = ("bulk", "growth", "queries", "crowd", "freezing", "list", "links", "tar", "memory")
OF_GROWN = {
    "sqlite": {"queries", "crowd", "freezing", "list"},
    "postgresql": {"queries", "crowd", "freezing"},
}
"""Parts that measure the catalog that `growth` has filled."""
Note = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Place:
    """Where databases of one kind are made."""

    data: Path
    grown: str
    """Address of the one that grows."""
    new: Callable[[], AbstractContextManager[str]]
    """Gives the address of another one, empty, that is gone afterwards."""


def grow(place: Place, sizes: tuple[int, ...], note: Note) -> None:
    """Fill one catalog step by step and measure at every size that it has not reached yet."""
    with Catalog(place.grown, data=place.data) as catalog:
        if catalog.init():
            with catalog.database.write() as connection:
                add_scenes(connection)
        for size in sizes:
            held = _held(catalog)
            if held < size:
                note({str(size): {"load": _grow(catalog, held, size)}})
                note({str(size): {"queries": measure_queries(catalog, size)}})


def _held(catalog: Catalog) -> int:
    with catalog.database.read() as connection:
        if not inspect(connection).has_table(Pair.__tablename__):
            return 0
        return int(connection.execute(select(func.count()).select_from(table_of(Pair))).scalar_one())


def _grow(catalog: Catalog, held: int, size: int) -> dict[str, Any]:
    first = -(-held // PAIRS_A_SESSION)
    with Stopwatch() as whole:
        clock = Stopwatch()
        rows = load(catalog.database, first, size - held, Content(), clock)
    return _rates(rows, size - held, clock) | {"made_and_loaded_s": round(whole.wall_s, 2)}


def _rates(rows: int, pairs: int, clock: Stopwatch) -> dict[str, Any]:
    return {
        "pairs": pairs,
        "rows": rows,
        "rows_per_s": round(rows / clock.wall_s),
        "rows_per_cpu_s": round(rows / clock.cpu_s),
        "pairs_per_s": round(pairs / clock.wall_s),
        **clock.as_json(),
    }


def measure_bulk(address: str, data: Path, pairs: int) -> dict[str, Any]:
    """Load without secondary indexes, then build them: what the database can do at best."""
    with Catalog(address, data=data) as catalog:
        catalog.init()
        with catalog.database.write() as connection:
            add_scenes(connection)
            for index in secondary_indexes():
                index.drop(connection)
        loading, indexing = Stopwatch(), Stopwatch()
        rows = load(catalog.database, 0, pairs, Content(), loading)
        with indexing, catalog.database.write() as connection:
            for index in secondary_indexes():
                index.create(connection)
            catalog.database.analyze(connection)
    both = Stopwatch(loading.wall_s + indexing.wall_s, loading.cpu_s + indexing.cpu_s)
    return {
        "without_indexes": _rates(rows, pairs, loading),
        "index_build": indexing.as_json(),
        "with_index_build": _rates(rows, pairs, both),
    }


@contextmanager
def sqlite_place(root: Path) -> Iterator[Place]:
    """Give a place for SQLite files."""
    data = root / "sqlite"
    data.mkdir(exist_ok=True)

    @contextmanager
    def new() -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=data) as folder:
            yield str(Path(folder) / "catalog.db")

    yield Place(data, str(data / "grown.db"), new)


@contextmanager
def postgresql_place(root: Path) -> Iterator[Place]:
    """Start the server of our own, on what an earlier piece has left."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "catalog"))
    from postgres_server import PostgresServer, postgres_programs

    programs, data = postgres_programs(), root / "postgresql"
    assert programs is not None, "needs system package postgresql"
    data.mkdir(exist_ok=True)
    with PostgresServer(programs, data) as server:
        yield Place(data, server.kept_database("grown"), server.database)


_PLACES = {"sqlite": sqlite_place, "postgresql": postgresql_place}


def measure_database(kind: str, root: Path, options: argparse.Namespace, note: Note) -> None:
    """Measure one kind of database."""
    sizes = tuple(options.sizes or (QUICK_SIZES if options.quick else SIZES))
    with _PLACES[kind](root) as place:
        _demand_grown(place, kind, options)
        if "bulk" in options.only:
            with place.new() as address:
                pairs = QUICK_BULK_PAIRS if options.quick else BULK_PAIRS
                note({"bulk": measure_bulk(address, place.data, pairs)})
        if "growth" in options.only:
            grow(place, sizes, lambda found: note({"sizes": found}))
        if "queries" in options.only and "growth" not in options.only:
            note({"sizes": _of_grown(place, _queries_again)})
        if "crowd" in options.only:
            seconds = 10.0 if options.quick else 60.0
            note({"crowd": _of_grown(place, measure_crowd, duration_s=seconds)})
        if "freezing" in options.only:
            note({"freezing": _of_grown(place, measure_freezing)})
        if "list" in options.only and kind == "sqlite":
            note({"list of an export": measure_list_memory(Path(place.grown))})


def _demand_grown(place: Place, kind: str, options: argparse.Namespace) -> None:
    """End here, before anything is measured, if parts are asked for whose catalog nobody has filled."""
    parts = [part for part in options.only if part in OF_GROWN[kind]]
    if not parts or "growth" in options.only:
        return
    with Catalog(place.grown, data=place.data) as catalog:
        if _held(catalog):
            return
    raise SystemExit(
        f"{kind}: a catalog that was grown before is needed for {', '.join(parts)}, and"
        f" {'there is none without --keep' if options.keep is None else f'{options.keep} holds none'}; nothing was"
        f" measured; first: python -P -m benchmarks.catalog --keep {options.keep or 'FOLDER'} --databases {kind}"
        f" --only growth{' --quick' if options.quick else ''}; then this again with the same --keep"
    )


def _of_grown(place: Place, measure: Callable[..., dict[str, Any]], **options: float) -> dict[str, Any]:
    with Catalog(place.grown, data=place.data) as catalog:
        return measure(catalog, place.grown, pairs=_held(catalog), **options)


def _queries_again(catalog: Catalog, _address: str, *, pairs: int) -> dict[str, Any]:
    return {str(pairs): {"queries": measure_queries(catalog, pairs)}}


def measure_exports(options: argparse.Namespace, note: Note) -> None:
    """Measure links, tar and memory on SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if "links" in options.only:
            note({"links": measure_links(root / "links", 1_000, photographs(8))})
        if "tar" in options.only:
            note({"tar": measure_tar(root / "tar", 20 if options.quick else 100, photographs(8))})
        if "memory" in options.only:
            note({"memory": measure_memory(root / "memory", 10_000 if options.quick else 100_000)})


class Result:
    """The result's file; what is found goes in at once, with how busy the machine was before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._load = [round(load_, 2) for load_ in os.getloadavg()]
        self.document: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}

    def note(self, kind: str, found: Mapping[str, Any]) -> None:
        """Add to what is known of one kind."""
        known = self.document.setdefault(kind, {})
        for size, facts in found.get("sizes", {}).items():
            known.setdefault("sizes", {}).setdefault(size, {}).update(facts)
        known.update({name: facts for name, facts in found.items() if name != "sizes"})
        of = [kind, *found, *found.get("sizes", ())]
        pieces = self.document.setdefault("pieces", [])
        pieces.append({"of": of, "load_average_before": self._load})
        self._path.write_text(json.dumps(self.document, indent=1) + "\n")
        print(kind, json.dumps(found), file=sys.stderr)


def main() -> None:
    """Measure what was asked for and put it into the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--sizes", nargs="+", type=int, help="pairs at which to measure")
    parser.add_argument("--keep", type=Path, help="folder in which databases stay for the next piece")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = Result(options.out)
    if options.quick:
        result.document["quick"] = True
    with ExitStack() as stack:
        made = nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory()
        root = Path(stack.enter_context(made))
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)  # PostgreSQL's server runs as another user below it
        if set(options.only) & {"bulk", "growth", "queries", "crowd", "freezing", "list"}:
            for kind in options.databases:
                measure_database(kind, root, options, lambda found, kind=kind: result.note(kind, found))
    if set(options.only) & {"links", "tar", "memory"}:
        measure_exports(options, lambda found: result.note("exports", found))


if __name__ == "__main__":
    main()
