"""What people ask of a catalog, and how long the answer takes."""

from __future__ import annotations

from itertools import islice
from typing import Any

from benchmarks.stopwatch import Stopwatch, timed
from catalog.export_list import ExportRequest, choose, manifest_line
from catalog.store import Catalog

LISTING = (
    "class in (noise, rain, haze, 'haze+rain') and iso in (100, 400, 1600, 3200, 6400) "
    "and status = accepted and split = train"
)
"""About 2.4 % of the made catalog."""
MANIFEST = ("id", "class", "iso", "scene", "split", "mu", "sigma")
OF_EACH, MANIFEST_LINES = 500, 50_000


def measure_queries(catalog: Catalog, pairs: int) -> dict[str, Any]:
    """Time every question on a filled catalog."""
    middle = next(iter(catalog.find(f"session = s{pairs // 6000:05d}", limit=1))).id
    sizes = {
        "filtered listing": len(catalog.find(LISTING, limit=100_000)),
        "stratified": len(catalog.sample(OF_EACH)),
    }
    return {
        "filtered listing": {
            "rows": sizes["filtered listing"],
            **timed(lambda: catalog.find(LISTING, limit=100_000)),
        },
        "stratified 500 of each class": {
            "rows": sizes["stratified"],
            **timed(lambda: catalog.sample(OF_EACH)),
        },
        "stratified, seed 7": timed(lambda: catalog.sample(OF_EACH, seed=7)),
        "dashboard (stats)": timed(catalog.stats),
        "coverage": timed(catalog.coverage),
        "keyset page of 50": timed(lambda: catalog.find(limit=50, after=middle)),
        "keyset page of 1000": timed(lambda: catalog.find(limit=1000, after=middle)),
        "one pair with everything (show)": timed(lambda: catalog.show(middle)),
        "manifest, 7 columns streamed": {
            "rows": _stream(catalog),
            **timed(lambda: _stream(catalog), runs=3),
        },
        "manifest lines of an export": _manifest(catalog),
    }


def _stream(catalog: Catalog) -> int:
    return sum(1 for _ in catalog.stream(MANIFEST, "status = accepted"))


def _manifest(catalog: Catalog) -> dict[str, Any]:
    """Pairs with files and hashes, checked against the contract and rendered: so many of them at most."""
    with Stopwatch() as clock, catalog.database.read() as connection:
        chosen = islice(choose(connection, ExportRequest("bench")), MANIFEST_LINES)
        lines = sum(1 for item in chosen if manifest_line(item.row))
    return {"rows": lines, "cpu_us_a_row": round(clock.cpu_s / lines * 1e6, 1), **clock.as_json()}
