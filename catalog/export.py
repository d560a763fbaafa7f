"""`catalog export`: freeze a list, put its files in place, write manifest and sums, check, publish.

Everything happens in ``<name>.part`` and becomes visible by one rename. The frozen list makes an interrupted
export resumable; the same catalog and request give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, RowMapping, delete, select, update

from catalog.database import SCHEMA_VERSION, Database
from catalog.errors import CatalogError, DamagedDataError, ExitCode
from catalog.executors import InlineExecutor, ordered
from catalog.export_files import clear_folder, new_file, private_folder, publish, put_in_place, sync_file
from catalog.export_formats import FORMATS, ExportFormat
from catalog.export_list import (
    ExportItemRow,
    ExportRequest,
    Tally,
    choose,
    exports,
    freeze,
    frozen_items,
    left_out_counts,
    manifest_line,
)
from catalog.export_shards import ShardCheck, ShardJob, ShardPair, check_shard, run_shard_job
from catalog.manifest import MANIFEST_NAME, ManifestRow, read_manifest, write_manifest
from catalog.session_folder import file_sha256
from catalog.splits import split_rule
from catalog.stored_files import FolderRoot, png_size

EXPORTS_FOLDER = "exports"
SUMS_FILE = "SHA256SUMS"
EXPORT_FILE = "export.json"
SHARDS_AHEAD = 8
"""Shards handed out at a time, so that a million pairs need no more memory than some thousands."""
Advance = Callable[[float], None]


class ExportExistsError(CatalogError, FileExistsError):
    """An export of that name is there already."""

    code = "CAT-EXP-003"
    exit_code = ExitCode.INVALID_INPUT


class ExportInterruptedError(CatalogError):
    """An interrupted export stands in the way."""

    code = "CAT-EXP-004"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class ExportReport:
    """What was exported, or with a dry run would be."""

    name: str
    folder: Path
    format: str
    pairs: int
    classes: dict[str, dict[str, int]]
    """Pairs by class, then by part."""
    left_out: dict[str, int]
    """Pairs that passed the filter but stayed out, by reason."""
    manifest_sha256: str
    """Empty after a dry run."""
    resumed: bool = False


class Exporter:
    """Runs one export.

    Args:
        database: An open catalog.
        data: The data folder; exports go below it and places of sessions are relative to it.
        request: What to export.
        executor: Where shards are written; formats of single files do not use it.
    """

    def __init__(
        self, database: Database, data: Path, request: ExportRequest, *, executor: Executor | None = None
    ) -> None:
        self._executor = executor or InlineExecutor()
        self._shard_sums: dict[str, str] = {}
        self._database = database
        self._data = data
        self._request = request
        self.folder = data / EXPORTS_FOLDER / request.name
        self._part = self.folder.with_name(f"{request.name}.part")
        self._layout: ExportFormat = FORMATS[request.format](request.name)
        self._roots: dict[str, FolderRoot] = {}

    def preview(self) -> ExportReport:
        """Count what would be exported now; changes nothing."""
        with self._database.read() as connection:
            tally = Tally.of(choose(connection, self._request))
            left_out = left_out_counts(connection, self._request)
        return ExportReport(
            name=self._request.name,
            folder=self.folder,
            format=self._request.format,
            pairs=tally.pairs,
            classes=tally.classes(),
            left_out=left_out,
            manifest_sha256="",
        )

    def run(self, *, check: bool, restart: bool, advance: Advance) -> ExportReport:
        """Export, or finish an interrupted export of the same request; see `Catalog.export`."""
        if os.path.lexists(self.folder):
            return self._acknowledge_published()
        with private_folder(self._part):
            frozen, resumed = self._claim(restart=restart)
            if not resumed:
                clear_folder(self._part)
            with self._database.read() as connection:
                if resumed:
                    self._check_frozen(connection, frozen)
                with closing(frozen_items(connection, frozen["id"])) as chosen:
                    self._fill(chosen, check=check, advance=advance)
                report = self._describe(connection, frozen, resumed=resumed)
            self._validate(frozen["n_items"])
            publish(self._part, self.folder)
            self._mark_complete(frozen["id"])
        return report

    def _claim(self, *, restart: bool) -> tuple[RowMapping, bool]:
        """Find the frozen list of an interrupted export, or freeze a new one."""
        with self._database.write() as connection:
            known = self._known(connection)
            same = known is not None and known["request"] == self._request.as_text()
            if known is not None and known["state"] == "running" and same and not restart:
                return known, True
            if known is not None and known["state"] == "running" and not restart:
                raise ExportInterruptedError(
                    f"export {self._request.name}: an interrupted export of another request is there",
                    kept=f"{self._part}",
                    next_step="repeat its own command to finish it, or add --restart to throw it away",
                )
            if known is not None:
                connection.execute(delete(exports).where(exports.c.id == known["id"]))
            freeze(connection, self._request)
            return _require(self._known(connection)), False

    def _acknowledge_published(self) -> ExportReport:
        """Finish an export that was killed after its folder got its name; refuse any other folder."""
        with self._database.write() as connection:
            known = self._known(connection)
            if known is None or not self._is_published(known):
                raise ExportExistsError(
                    f"{self.folder}: stands there already, and an export is never overwritten",
                    kept="the folder, untouched",
                    next_step="choose another name, or remove the folder",
                )
            tally = Tally.of(frozen_items(connection, known["id"]))
        self._mark_complete(known["id"])
        return self._report(tally, known, resumed=True)

    def _is_published(self, known: RowMapping) -> bool:
        """Tell whether the folder is what a frozen list of this request was to become."""
        manifest = self.folder / MANIFEST_NAME
        asked = (known["state"], known["request"]) == ("running", self._request.as_text())
        return asked and manifest.is_file() and file_sha256(manifest) == known["manifest_sha256"]

    def _known(self, connection: Connection) -> RowMapping | None:
        named = select(exports).where(exports.c.name == self._request.name)
        return connection.execute(named).mappings().one_or_none()

    def _mark_complete(self, key: int) -> None:
        with self._database.write() as connection:
            connection.execute(update(exports).where(exports.c.id == key).values(state="complete"))

    def _check_frozen(self, connection: Connection, frozen: RowMapping) -> None:
        """Make sure that the catalog still says about every pair of the list what it said then."""
        digest = hashlib.sha256()
        for item in frozen_items(connection, frozen["id"]):
            digest.update(manifest_line(item.row))
        self._require_same_list(digest.hexdigest(), frozen)

    def _require_same_list(self, manifest_sha256: str, frozen: RowMapping) -> None:
        if manifest_sha256 != frozen["manifest_sha256"]:
            raise ExportInterruptedError(
                f"export {self._request.name}: pairs of its list have changed in the catalog since",
                kept=f"{self._part}",
                next_step="repeat the command with --restart",
            )

    def _fill(self, chosen: Iterator[ExportItemRow], *, check: bool, advance: Advance) -> None:
        if self._layout.shards is not None:
            for done in ordered(self._executor, run_shard_job, self._shard_jobs(chosen), ahead=SHARDS_AHEAD):
                folder = done.target.relative_to(self._part).parent
                self._shard_sums.update({str(folder / name): sha for name, sha in done.sha256.items()})
                advance(done.pairs)
            return
        for item in chosen:
            self._place(item, check=check)
            advance(1)

    def _shard_jobs(self, chosen: Iterator[ExportItemRow]) -> Iterator[ShardJob]:
        kind, numbered = self._layout.shards, enumerate(chosen, start=1)
        assert kind is not None  # noqa: S101  # only asked for formats that have shards
        for shard, listed in groupby(numbered, key=lambda numbered_item: numbered_item[1].row.gt):
            yield ShardJob(
                kind=kind,
                target=self._part / shard,
                pairs=tuple(self._shard_pair(ordinal, item) for ordinal, item in listed),
                codec=self._request.codec,
                tile_px=self._request.tile_px,
            )

    def _shard_pair(self, ordinal: int, item: ExportItemRow) -> ShardPair:
        gt, lq, *mask = (self._root(source.location).path(source.relpath) for source in item.sources)
        sha256_mask = item.sources[2].sha256 if mask else None
        return ShardPair(ordinal, item.row, gt, lq, mask[0] if mask else None, sha256_mask)

    def _place(self, item: ExportItemRow, *, check: bool) -> None:
        for source in item.sources:
            put_in_place(
                self._root(source.location).path(source.relpath),
                self._part / source.target,
                sha256=source.sha256,
                nbytes=source.nbytes,
                check=check,
            )

    def _root(self, location: str) -> FolderRoot:
        if location not in self._roots:
            self._roots[location] = FolderRoot(self._data / location)
        return self._roots[location]

    def _describe(self, connection: Connection, frozen: RowMapping, *, resumed: bool) -> ExportReport:
        """Write list files, manifest, record and sums of what is in place."""
        names, tally = self._layout.list_files(), Tally()
        (self._part / MANIFEST_NAME).unlink(missing_ok=True)
        with ExitStack() as stack:
            files = {n: stack.enter_context(new_file(self._part / n)) for n in (*names, SUMS_FILE)}
            described = self._described(frozen_items(connection, frozen["id"]), files, tally)
            write_manifest(self._part, described)
        sync_file(self._part / MANIFEST_NAME)
        self._require_same_list(file_sha256(self._part / MANIFEST_NAME), frozen)
        report = self._report(tally, frozen, resumed=resumed)
        with new_file(self._part / EXPORT_FILE) as file:
            file.write(self._record(connection, frozen, report))
        with (self._part / SUMS_FILE).open("ab") as sums:
            for shard, sha256 in sorted(self._shard_sums.items()):
                sums.write(f"{sha256}  {shard}\n".encode())
            for name in sorted([*names, MANIFEST_NAME, EXPORT_FILE]):
                sums.write(f"{file_sha256(self._part / name)}  {name}\n".encode())
        sync_file(self._part / SUMS_FILE)
        return report

    def _described(
        self, chosen: Iterable[ExportItemRow], files: Mapping[str, BinaryIO], tally: Tally
    ) -> Iterator[ManifestRow]:
        """Pass the rows on to the manifest, counting and writing sums and list files on the way."""
        for item in chosen:
            tally.add(item.row)
            for source in item.sources if self._layout.shards is None else ():
                files[SUMS_FILE].write(f"{source.sha256}  {source.target}\n".encode())
            for name, line in self._layout.list_lines(item.row):
                files[name].write(f"{line}\n".encode())
            yield item.row

    def _record(self, connection: Connection, frozen: RowMapping, report: ExportReport) -> bytes:
        request = json.loads(frozen["request"])
        document = {
            "schema": 1,
            **request,
            "split_rule": split_rule(connection, self._request.split),
            "pairs": report.pairs,
            "classes": report.classes,
            "left_out": report.left_out,
            "manifest_sha256": frozen["manifest_sha256"],
            "catalog": {"content_sha256": frozen["catalog_sha256"], "schema_version": SCHEMA_VERSION},
            "versions": {"cleanplate": _version()},
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def _validate(self, expected: int) -> None:
        """Read the export back as training code would."""
        parts: dict[str, str] = {}
        count = 0
        for row in read_manifest(self._part):
            count += 1
            if parts.setdefault(row.scene, row.split) != row.split:
                raise CatalogError(f"scene {row.scene} stands in two parts", kept=f"{self._part}")
            for path in (row.gt, row.lq) if self._layout.shards is None else ():
                self._check_image(path, row)
        for _ in ordered(self._executor, check_shard, self._shard_checks(), ahead=SHARDS_AHEAD):
            pass
        if count != expected:
            raise CatalogError(f"{self._part}: {count} pairs instead of {expected}", kept=f"{self._part}")

    def _shard_checks(self) -> Iterator[ShardCheck]:
        kind = self._layout.shards
        if kind is None:
            return
        for shard, rows in groupby(read_manifest(self._part), key=lambda row: row.gt):
            yield ShardCheck(kind, self._part / shard, tuple(row.id for row in rows))

    def _check_image(self, path: str, row: ManifestRow) -> None:
        size = png_size(self._part / path)
        if size != (row.width, row.height):
            raise DamagedDataError(
                f"pair {row.id}: {path} is not a PNG of {row.width} x {row.height} pixels",
                kept=f"{self._part}",
                next_step="catalog verify, then export again with --restart",
            )

    def _report(self, tally: Tally, frozen: RowMapping, *, resumed: bool) -> ExportReport:
        return ExportReport(
            name=self._request.name,
            folder=self.folder,
            format=self._request.format,
            pairs=tally.pairs,
            classes=tally.classes(),
            left_out=json.loads(frozen["left_out"]),
            manifest_sha256=frozen["manifest_sha256"],
            resumed=resumed,
        )


def _require(row: RowMapping | None) -> RowMapping:
    if row is None:
        raise CatalogError("the export's own row is gone from the catalog")
    return row


def _version() -> str:
    try:
        return version("cleanplate")
    except PackageNotFoundError:
        return "unknown"
