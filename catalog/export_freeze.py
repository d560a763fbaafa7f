"""Freeze the list of an export: chosen in a read transaction, stored by many short writes.

Choosing a million pairs, looking at their files and hashing the manifest takes a minute. All of it sees one state of
the catalog and holds nobody up; the rows wait in a file without a name. They are stored some thousand at a time. A list
counts once its row bears the manifest's hash; what was interrupted before is thrown away by the next attempt.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from catalog.bulk import bulk_insert
from catalog.content_hash import content_hash
from catalog.database import Database
from catalog.events import Batch
from catalog.export_files import ExportBusyError
from catalog.export_list import (
    EmptyExportError,
    ExportItemRow,
    ExportRequest,
    choose,
    exports,
    items,
    left_out_counts,
    manifest_line,
)

_ROWS_A_WRITE = 20_000
"""About 0.2 s of the one writer's time."""
_COLUMNS = ("ordinal", "pair_uid", "part", "out_gt", "out_lq", "out_mask", "sha256_gt", "sha256_lq")
_NOT_WHOLE = ""
"""In place of the manifest's hash while a list is being stored."""


@dataclass(frozen=True)
class _Drawn:
    """A list that is chosen, and stands in a file so far."""

    facts: dict[str, Any]
    """Its row in the catalog, without the manifest's hash."""
    manifest_sha256: str


def find_list(connection: Connection, name: str) -> RowMapping | None:
    """Return the row of a frozen list; None where there is none, or storing it was interrupted."""
    whole = exports.c.manifest_sha256 != _NOT_WHOLE
    return connection.execute(select(exports).where(exports.c.name == name, whole)).mappings().one_or_none()


def freeze(
    database: Database,
    request: ExportRequest,
    *,
    folder: Path,
    look: Callable[[ExportItemRow], ExportItemRow] = lambda item: item,
) -> int:
    """Choose the pairs of an export and store their list; an earlier list of that name is gone. Returns its key.

    Args:
        database: An open catalog.
        request: What the export is to hold.
        folder: Where the rows wait, on a disk that has some hundred bytes for each.
        look: Looks at a pair's files and returns it as it will be written; unseen, they are written as they are.

    Raises:
        EmptyExportError: No accepted pair passes the filter.
        ExportBusyError: Another process began to freeze a list of that name.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as rows:
        with database.read() as connection:
            drawn = _draw(connection, request, look, rows)
        rows.seek(0)
        _forget(database, request.name)
        return _store(database, request, drawn, rows)


def _draw(
    connection: Connection,
    request: ExportRequest,
    look: Callable[[ExportItemRow], ExportItemRow],
    rows: IO[str],
) -> _Drawn:
    left_out = left_out_counts(connection, request)
    digest, count = hashlib.sha256(), 0
    for count, item in enumerate(map(look, choose(connection, request)), start=1):
        digest.update(manifest_line(item.row))
        rows.write(json.dumps(_item_row(count, item)) + "\n")
    if not count:
        raise EmptyExportError(
            f"export {request.name}: no accepted pair passes the filter (left out: {left_out or 'none'})",
            kept="the catalog, unchanged",
            next_step="catalog list --where … shows what passes",
        )
    facts = {
        "name": request.name,
        "state": "running",
        "request": request.as_text(),
        "request_sha256": hashlib.sha256(request.as_text().encode()).hexdigest(),
        "catalog_sha256": content_hash(connection),
        "n_items": count,
        "left_out": json.dumps(left_out, sort_keys=True),
        "created_utc_us": time.time_ns() // 1000,
    }
    return _Drawn(facts, digest.hexdigest())


def _item_row(ordinal: int, item: ExportItemRow) -> tuple[Any, ...]:
    row = item.row
    return ordinal, row.id, row.split, row.gt, row.lq, row.mask, row.sha256_gt, row.sha256_lq


def _forget(database: Database, name: str) -> None:
    """Remove a list, some thousand rows at a time; it counts no more from the first of them on."""
    with database.write() as connection:
        named = update(exports).where(exports.c.name == name).values(manifest_sha256=_NOT_WHOLE)
        found = connection.execute(named.returning(exports.c.id, exports.c.n_items)).one_or_none()
    if found is None:
        return
    for first in range(1, found.n_items + 1, _ROWS_A_WRITE):
        some = items.c.ordinal.between(first, first + _ROWS_A_WRITE - 1)
        with database.write() as connection:
            connection.execute(delete(items).where(items.c.export_id == found.id, some))
    with database.write() as connection:
        connection.execute(delete(exports).where(exports.c.id == found.id))


def _store(database: Database, request: ExportRequest, drawn: _Drawn, rows: IO[str]) -> int:
    with database.write() as connection:
        own = insert(exports).returning(exports.c.id)
        facts = {**drawn.facts, "manifest_sha256": _NOT_WHOLE}
        key = int(connection.execute(own, facts).scalar_one())
    while some := list(islice(rows, _ROWS_A_WRITE)):
        with database.write() as connection:
            _require_own(connection, key, drawn)
            bulk_insert(connection, items, _item_rows(key, some))
    with database.write() as connection:
        _require_own(connection, key, drawn)
        whole = update(exports).where(exports.c.id == key).values(manifest_sha256=drawn.manifest_sha256)
        connection.execute(whole)
        Batch().record(connection, "export", [(request.name, None, {"after": request.as_text()})])
    return key


def _item_rows(key: int, lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield {"export_id": key, **dict(zip(_COLUMNS, json.loads(line), strict=True))}


def _require_own(connection: Connection, key: int, drawn: _Drawn) -> None:
    """See that the list is still ours: a process with another data folder may share the catalog."""
    began = select(exports.c.created_utc_us).where(exports.c.id == key)
    if connection.execute(began).scalar() != drawn.facts["created_utc_us"]:
        raise ExportBusyError(
            f"export {drawn.facts['name']}: another process began an export of that name",
            kept="its list",
            next_step="wait for it, or choose another name",
        )
