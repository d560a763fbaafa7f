"""A catalog of a million pairs: how fast it goes in, what questions cost, what a crowd does to it, what exports need.

SQLite and a PostgreSQL server of our own (default settings, on loopback) side by side, at three sizes. Wall and CPU
times; on PostgreSQL the CPU time is the client's alone. `make bench-catalog` runs all of it; --quick takes a tenth.

Usage: python -P -m benchmarks.catalog [--quick] [--only load exports] [--databases sqlite]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.catalog_crowd import measure_crowd
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

RESULT = Path(__file__).parent / "results" / "catalog.json"
SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (1_000, 10_000, 100_000)


def measure_database(address: str, data: Path, sizes: tuple[int, ...], crowd_s: float) -> dict[str, Any]:
    """Fill one catalog step by step and measure at every size."""
    result: dict[str, Any] = {"sizes": {}}
    with Catalog(address, data=data) as catalog:
        catalog.init()
        with catalog.database.write() as connection:
            add_scenes(connection)
        held = 0
        for size in sizes:
            loaded = _grow(catalog, held, size)
            held = size
            print(f"  {size} pairs: {loaded}", file=sys.stderr)
            queries = measure_queries(catalog, held)
            result["sizes"][str(size)] = {"load": loaded, "queries": queries}
            print(f"  {queries}", file=sys.stderr)
        result["crowd"] = measure_crowd(catalog, address, pairs=held, seconds=crowd_s)
        print(f"  {result['crowd']}", file=sys.stderr)
    return result


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
def addresses(kind: str, data: Path) -> Iterator[Iterator[str]]:
    """Give new empty databases of a kind, each by its address."""
    if kind == "sqlite":
        yield (str(data / f"catalog-{number}.db") for number in range(9))
        return
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "catalog"))
    from postgres_server import PostgresServer, postgres_programs

    programs = postgres_programs()
    assert programs is not None, "needs system package postgresql"
    with tempfile.TemporaryDirectory() as folder, PostgresServer(programs, Path(folder)) as server:
        yield _server_databases(server)


def _server_databases(server: Any) -> Iterator[str]:
    while True:
        with server.database() as url:
            yield url


def measure_databases(kinds: list[str], sizes: tuple[int, ...], crowd_s: float) -> dict[str, Any]:
    """Measure each kind of database; SQLite's largest catalog serves the memory of a list too."""
    found: dict[str, Any] = {}
    for kind in kinds:
        print(kind, file=sys.stderr)
        with (
            tempfile.TemporaryDirectory() as folder,
            addresses(kind, Path(folder)) as places,
            closing(places),
        ):
            data = Path(folder)
            found[kind] = {"bulk": measure_bulk(next(places), data, sizes[1])}
            print(f"  {found[kind]}", file=sys.stderr)
            address = next(places)
            found[kind] |= measure_database(address, data, sizes, crowd_s)
            if kind == "sqlite":
                found["list of an export"] = measure_list_memory(Path(address))
    return found


def measure_exports(*, quick: bool) -> dict[str, Any]:
    """Measure links, tar and memory on SQLite."""
    pictures = photographs(8)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found["links"] = measure_links(root / "links", 1_000, pictures)
        found["tar"] = measure_tar(root / "tar", 20 if quick else 100, pictures)
        found["memory"] = measure_memory(root / "memory", 10_000 if quick else 100_000)
    print(f"  {found}", file=sys.stderr)
    return found


def main() -> None:
    """Measure what was asked for, print it and put it into the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--only", nargs="+", choices=("databases", "exports"), default=("databases", "exports")
    )
    parser.add_argument(
        "--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"]
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    result["load_average_before"] = [round(load_, 2) for load_ in os.getloadavg()]
    if "databases" in options.only:
        sizes, crowd_s = (QUICK_SIZES, 10.0) if options.quick else (SIZES, 60.0)
        result |= measure_databases(options.databases, sizes, crowd_s)
    if "exports" in options.only:
        result["exports"] = measure_exports(quick=options.quick)
    result["quick"] = options.quick
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
