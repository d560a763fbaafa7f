"""`catalog export`: freeze a list, put its files in place, write manifest and sums, check, publish.

Everything happens in ``<name>.part`` and becomes visible by one rename. The frozen list makes an interrupted
export resumable; the same catalog and request give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import Connection, RowMapping, update

from catalog.database import SCHEMA_VERSION, Database
from catalog.errors import CatalogError, ExitCode
from catalog.executors import InlineExecutor
from catalog.export_far import FarPlace
from catalog.export_files import new_file, private_folder, sync_file
from catalog.export_formats import FORMATS, ExportFormat
from catalog.export_freeze import find_list, freeze
from catalog.export_list import (
    ExportItemRow,
    ExportRequest,
    Tally,
    choose,
    exports,
    frozen_items,
    left_out_counts,
    manifest_line,
)
from catalog.export_places import ExportInterruptedError, ExportPlace, FolderPlace
from catalog.export_privacy import SourceFiles
from catalog.export_shards import ShardJob, ShardPair, ShardPicture
from catalog.manifest import MANIFEST_NAME, ManifestRow, read_manifest, write_manifest
from catalog.product_version import product_version
from catalog.session_folder import file_sha256
from catalog.splits import split_rule

EXPORTS_FOLDER = "exports"
SUMS_FILE = "SHA256SUMS"
EXPORT_FILE = "export.json"
Advance = Callable[[float], None]


class ExportExistsError(CatalogError, FileExistsError):
    """An export of that name is there already."""

    code = "CAT-EXP-003"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class ExportReport:
    """What was exported, or with a dry run would be."""

    name: str
    folder: Path | None
    """None for an export to a store."""
    address: str
    """Path of the folder, or its URL in the store."""
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
        executor: Where shards are written and files are sent from; files in the data folder do not need it.
    """

    def __init__(
        self, database: Database, data: Path, request: ExportRequest, *, executor: Executor | None = None
    ) -> None:
        self._database = database
        self._request = request
        self._part = data / EXPORTS_FOLDER / f"{request.name}.part"
        self._sources = SourceFiles(data)
        self._place = self._placed(executor or InlineExecutor())
        self._layout: ExportFormat = FORMATS[request.format](request.name)
        self._shard_sums: dict[str, str] = {}

    def _placed(self, executor: Executor) -> ExportPlace:
        if self._request.to is None:
            return FolderPlace(self._part.with_suffix(""), self._part, self._sources, executor)
        return FarPlace(f"{self._request.to}/{self._request.name}", self._part, self._sources, executor)

    def preview(self) -> ExportReport:
        """Count what would be exported now; changes nothing."""
        with self._database.read() as connection:
            tally = Tally.of(choose(connection, self._request))
            left_out = left_out_counts(connection, self._request)
        return self._report(tally, left_out, manifest_sha256="")

    def run(self, *, check: bool, restart: bool, advance: Advance) -> ExportReport:
        """Export, or finish an interrupted export of the same request; see `Catalog.export`."""
        if self._place.stands():
            return self._acknowledge_published()
        with private_folder(self._part):
            frozen, resumed = self._claim(restart=restart)
            self._place.begin(frozen["manifest_sha256"], resumed=resumed, restart=restart)
            with self._database.read() as connection:
                if resumed:
                    self._check_frozen(connection, frozen)
                with closing(self._frozen_items(connection, frozen["id"])) as chosen:
                    self._fill(chosen, check=check, advance=advance)
                report = self._describe(connection, frozen, resumed=resumed)
            self._validate(frozen["n_items"])
            self._place.publish()
            self._mark_complete(frozen["id"])
        return report

    def _claim(self, *, restart: bool) -> tuple[RowMapping, bool]:
        """Find the frozen list of an interrupted export, or freeze a new one."""
        known = None if restart else self._known()
        if known is not None and known["state"] == "running":
            if known["request"] == self._request.as_text():
                return known, True
            raise ExportInterruptedError(
                f"export {self._request.name}: an interrupted export of another request is there",
                kept=f"{self._part}",
                next_step="repeat its own command to finish it, or add --restart to throw it away",
            )
        freeze(self._database, self._request, folder=self._part, look=self._sources.look)
        return _require(self._known()), False

    def _acknowledge_published(self) -> ExportReport:
        """Finish an export that was killed after its folder got its name; refuse any other folder."""
        known = self._known()
        if known is None or not self._is_published(known):
            raise ExportExistsError(
                f"{self._place.address}: stands there already, and an export is never overwritten",
                kept="it, untouched",
                next_step="choose another name, or remove it",
            )
        with self._database.read() as connection:
            tally = Tally.of(frozen_items(connection, known["id"]))
        with private_folder(self._part):
            self._place.tidy()
        self._mark_complete(known["id"])
        return self._reported(tally, known, resumed=True)

    def _is_published(self, known: RowMapping) -> bool:
        """Tell whether the folder is what a frozen list of this request was to become."""
        asked = (known["state"], known["request"]) == ("running", self._request.as_text())
        return asked and self._place.published_manifest() == known["manifest_sha256"]

    def _known(self) -> RowMapping | None:
        with self._database.read() as connection:
            return find_list(connection, self._request.name)

    def _mark_complete(self, key: int) -> None:
        with self._database.write() as connection:
            connection.execute(update(exports).where(exports.c.id == key).values(state="complete"))

    def _check_frozen(self, connection: Connection, frozen: RowMapping) -> None:
        """Make sure that the catalog still says about every pair of the list what it said then."""
        digest = hashlib.sha256()
        for item in frozen_items(connection, frozen["id"]):
            digest.update(manifest_line(self._sources.look(item).row))
        self._require_same_list(digest.hexdigest(), frozen)

    def _require_same_list(self, manifest_sha256: str, frozen: RowMapping) -> None:
        if manifest_sha256 != frozen["manifest_sha256"]:
            raise ExportInterruptedError(
                f"export {self._request.name}: pairs of its list have changed in the catalog since",
                kept=f"{self._part}",
                next_step="repeat the command with --restart",
            )

    def _frozen_items(self, connection: Connection, key: int) -> Generator[ExportItemRow]:
        with closing(frozen_items(connection, key)) as items:
            yield from map(self._sources.as_exported, items)

    def _fill(self, chosen: Iterator[ExportItemRow], *, check: bool, advance: Advance) -> None:
        if self._layout.shards is None:
            for pairs in self._place.put_files(chosen, check=check):
                advance(pairs)
            return
        for done in self._place.put_shards(self._shard_jobs(chosen), check=check):
            folder = done.target.relative_to(self._part).parent
            self._shard_sums.update({str(folder / name): sha for name, sha in done.sha256.items()})
            advance(done.pairs)

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
        pictures = (
            ShardPicture(side, self._sources.path(source), source.sha256, source.bare_sha256)
            for side, source in zip(("gt", "lq", "mask"), item.sources, strict=False)
        )
        return ShardPair(ordinal, item.row, tuple(pictures))

    def _describe(self, connection: Connection, frozen: RowMapping, *, resumed: bool) -> ExportReport:
        """Write list files, manifest, record and sums of what is in place."""
        names, tally = self._layout.list_files(), Tally()
        (self._part / MANIFEST_NAME).unlink(missing_ok=True)
        with ExitStack() as stack:
            files = {n: stack.enter_context(new_file(self._part / n)) for n in (*names, SUMS_FILE)}
            described = self._described(self._frozen_items(connection, frozen["id"]), files, tally)
            write_manifest(self._part, described)
        sync_file(self._part / MANIFEST_NAME)
        self._require_same_list(file_sha256(self._part / MANIFEST_NAME), frozen)
        report = self._reported(tally, frozen, resumed=resumed)
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
                files[SUMS_FILE].write(f"{source.exported_sha256}  {source.target}\n".encode())
            for name, line in self._layout.list_lines(item.row):
                files[name].write(f"{line}\n".encode())
            yield item.row

    def _record(self, connection: Connection, frozen: RowMapping, report: ExportReport) -> bytes:
        request = json.loads(frozen["request"])
        request.pop("to", None)  # the same bytes wherever they go
        document = {
            "schema": 1,
            **request,
            "split_rule": split_rule(connection, self._request.split),
            "pairs": report.pairs,
            "classes": report.classes,
            "left_out": report.left_out,
            "manifest_sha256": frozen["manifest_sha256"],
            "catalog": {"content_sha256": frozen["catalog_sha256"], "schema_version": SCHEMA_VERSION},
            "versions": {"cleanplate": product_version()},
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    def _validate(self, expected: int) -> None:
        """Read the export back as training code would."""
        count = self._require_one_part_per_scene()
        if count != expected:
            raise CatalogError(f"{self._part}: {count} pairs instead of {expected}", kept=f"{self._part}")
        if self._layout.shards is None:
            self._place.check_files(read_manifest(self._part))
        else:
            self._place.check_shards(self._layout.shards, read_manifest(self._part))

    def _require_one_part_per_scene(self) -> int:
        """Return the number of pairs."""
        parts: dict[str, str] = {}
        count = 0
        for count, row in enumerate(read_manifest(self._part), start=1):  # noqa: B007
            if parts.setdefault(row.scene, row.split) != row.split:
                raise CatalogError(f"scene {row.scene} stands in two parts", kept=f"{self._part}")
        return count

    def _reported(self, tally: Tally, frozen: RowMapping, *, resumed: bool) -> ExportReport:
        left_out = json.loads(frozen["left_out"])
        return self._report(tally, left_out, manifest_sha256=frozen["manifest_sha256"], resumed=resumed)

    def _report(
        self, tally: Tally, left_out: dict[str, int], *, manifest_sha256: str, resumed: bool = False
    ) -> ExportReport:
        return ExportReport(
            name=self._request.name,
            folder=self._place.folder,
            address=self._place.address,
            format=self._request.format,
            pairs=tally.pairs,
            classes=tally.classes(),
            left_out=left_out,
            manifest_sha256=manifest_sha256,
            resumed=resumed,
        )


def _require(row: RowMapping | None) -> RowMapping:
    if row is None:
        raise CatalogError("the export's own row is gone from the catalog")
    return row
