"""What an export costs beside its rows: links, tar shards beside plain copies, and memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from sqlalchemy import select

from benchmarks.catalog_loader import photograph
from benchmarks.catalog_rows import Content, add_scenes, load
from benchmarks.stopwatch import Stopwatch
from catalog.executors import InlineExecutor
from catalog.export_freeze import freeze
from catalog.export_list import ExportRequest, choose, frozen_items, manifest_line
from catalog.export_places import FolderPlace
from catalog.export_privacy import SourceFiles
from catalog.store import Catalog
from catalog.tables import Asset, Session, table_of

PICTURES, LINKS_A_FILE, TAR_RUNS = 8, 30_000, 3
_COPY_BYTES = 1 << 20


def linked_catalog(root: Path, pairs: int, pictures: Sequence[bytes], *, width: int, height: int) -> Catalog:
    """Make a catalog whose files exist: every pair's are hard links to a few pictures."""
    content = Content(
        [hashlib.sha256(p).hexdigest() for p in pictures], [len(p) for p in pictures], width, height
    )
    catalog = Catalog(root / "catalog.db")
    catalog.init()
    with catalog.database.write() as connection:
        add_scenes(connection)
    load(catalog.database, 0, pairs, content, Stopwatch())
    originals = _Originals(root / "originals", pictures)
    files = select(table_of(Asset).c.id, table_of(Asset).c.relpath, table_of(Session).c.location)
    with catalog.database.read() as connection:
        for key, relpath, location in connection.execute(files.join_from(table_of(Asset), table_of(Session))):
            target = root / location / relpath
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True)
            os.link(originals.of(key - 1), target)
    return catalog


class _Originals:
    """The pictures, each written again before a file system runs out of links to it."""

    def __init__(self, folder: Path, pictures: Sequence[bytes]) -> None:
        folder.mkdir(parents=True)
        self._folder, self._pictures = folder, pictures

    def of(self, number: int) -> Path:
        which, turn = number % len(self._pictures), number // len(self._pictures) // LINKS_A_FILE
        path = self._folder / f"{which}-{turn}.png"
        if not path.exists():
            path.write_bytes(self._pictures[which])
        return path


def photographs(count: int) -> list[bytes]:
    """Encode a few noisy 2560 x 1440 photographs."""
    import skimage.data

    photos = [skimage.data.astronaut(), skimage.data.coffee()]
    noise = np.random.default_rng(5)
    frames = (photograph(i, photos) + noise.normal(0, 3, (1440, 2560, 3)) for i in range(count))
    return [cv2.imencode(".png", np.clip(frame, 0, 255).astype(np.uint8))[1].tobytes() for frame in frames]


def measure_links(root: Path, pairs: int, pictures: Sequence[bytes]) -> dict[str, Any]:
    """Time the list, the links and the rest of a folder export of 2K pairs."""
    with closing(linked_catalog(root, pairs, pictures, width=2560, height=1440)) as catalog:
        sources = SourceFiles(root)
        with Stopwatch() as freezing:
            key = freeze(catalog.database, ExportRequest("listed"), folder=root, look=sources.look)
        with Stopwatch() as listing, catalog.database.read() as connection:
            items = list(frozen_items(connection, key))
        place = FolderPlace(root / "exports" / "links", root / "links.part", sources, InlineExecutor())
        with Stopwatch() as linking:
            linked = sum(place.put_files(items, check=False))
        with Stopwatch() as checking:
            place.check_files(item.row for item in items)
        with Stopwatch() as whole:
            catalog.export(ExportRequest("whole"))
    return {
        "pairs": linked,
        "freeze": freezing.as_json(),
        "list": listing.as_json(),
        "link": linking.as_json(),
        "link_pairs_per_s": round(linked / linking.wall_s),
        "link_pairs_per_cpu_s": round(linked / linking.cpu_s),
        "validate": checking.as_json(),
        "whole export": whole.as_json(),
    }


def measure_tar(root: Path, pairs: int, pictures: Sequence[bytes]) -> dict[str, Any]:
    """Write tar shards, in one process and in two, and plain copies of the same pairs in turn."""
    with closing(linked_catalog(root, pairs, pictures, width=2560, height=1440)) as catalog:
        with catalog.database.read() as connection:
            listed = [source for item in choose(connection, ExportRequest("x")) for source in item.sources]
        nbytes = sum(source.nbytes or 0 for source in listed)
        sources = [root / source.location / source.relpath for source in listed]
        rates: dict[str, list[Stopwatch]] = {"copy": [], "tar": [], "tar by two": []}
        for run in range(TAR_RUNS):
            rates["copy"].append(_timed_once(lambda: _copy(sources, root / "copies")))
            for workers, name in enumerate(("tar", "tar by two"), start=1):
                request = ExportRequest(f"tar-{run}-{workers}", "webdataset")
                rates[name].append(_timed_once(partial(catalog.export, request, workers=workers)))
                shutil.rmtree(root / "exports" / request.name)
    speed = {name: median(nbytes / clock.wall_s / 1e6 for clock in clocks) for name, clocks in rates.items()}
    return {
        "bytes": nbytes,
        "copy_mb_per_s": round(speed["copy"], 1),
        "tar_mb_per_s": round(speed["tar"], 1),
        "tar_of_copy": round(speed["tar"] / speed["copy"], 3),
        "tar_by_two_of_copy": round(speed["tar by two"] / speed["copy"], 3),
        "runs": {name: [clock.as_json() for clock in clocks] for name, clocks in rates.items()},
    }


def _timed_once(action: Callable[[], object]) -> Stopwatch:
    with Stopwatch() as clock:
        action()
    return clock


def _copy(sources: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    for number, source in enumerate(sources):
        with source.open("rb") as reading, (folder / f"{number}.png").open("wb") as writing:
            shutil.copyfileobj(reading, writing, _COPY_BYTES)
            writing.flush()
            os.fsync(writing.fileno())
    shutil.rmtree(folder)


def measure_memory(root: Path, pairs: int) -> dict[str, Any]:
    """Export tiny pairs with all that belongs to it in a process of its own and see how large that grows."""
    ok, tiny = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    assert ok
    linked_catalog(root, pairs, [tiny.tobytes()], width=8, height=8).close()
    return _in_child(_export, root / "catalog.db")


def measure_list_memory(database: Path) -> dict[str, Any]:
    """Do all that an export does with rows, for a catalog without files, in a process of its own."""
    return _in_child(_list, database)


def _in_child(action: Callable[[Path], int], database: Path) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result: dict[str, Any] = pool.submit(_witnessed, action, database).result()
    return result


def _witnessed(action: Callable[[Path], int], database: Path) -> dict[str, Any]:
    before = _peak_mb()
    with Stopwatch() as clock:
        pairs = action(database)
    return {
        "pairs": pairs,
        "peak_mb": round(_peak_mb(), 1),
        "peak_mb_before": round(before, 1),
        **clock.as_json(),
    }


def _peak_mb() -> float:
    """Peak memory of this program; `ru_maxrss` would begin with that of the process it was started from."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _export(database: Path) -> int:
    with Catalog(database) as catalog:
        return catalog.export(ExportRequest("all")).pairs


def _list(database: Path) -> int:
    with Catalog(database) as catalog:
        look = SourceFiles(catalog.data).look
        key = freeze(catalog.database, ExportRequest("rows-only"), folder=catalog.data, look=look)
        with catalog.database.read() as connection:
            return sum(1 for _ in _lines(frozen_items(connection, key)))


def _lines(items: Iterator[Any]) -> Iterator[bytes]:
    for item in items:
        yield manifest_line(item.row)
