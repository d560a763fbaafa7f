"""Where an export comes to stand: what is the same for the data folder and a store, and the data folder's part."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from itertools import groupby
from pathlib import Path
from typing import Protocol

from catalog.errors import CatalogError, DamagedDataError, ExitCode
from catalog.executors import ordered
from catalog.export_files import clear_folder, publish, put_bare, put_in_place
from catalog.export_formats import ShardKind
from catalog.export_list import ExportItemRow
from catalog.export_privacy import SourceFiles
from catalog.export_shards import ShardCheck, ShardDone, ShardJob, check_shard, run_shard_job
from catalog.manifest import MANIFEST_NAME, ManifestRow
from catalog.session_folder import file_sha256
from catalog.stored_files import png_size

SHARDS_AHEAD = 8
"""Shards handed out at a time, so that a million pairs need no more memory than some thousands."""


class ExportInterruptedError(CatalogError):
    """An interrupted export stands in the way."""

    code = "CAT-EXP-004"
    exit_code = ExitCode.INVALID_INPUT


class ExportPlace(Protocol):
    """Where an export comes to stand. Nothing is visible there as an export before `publish`."""

    @property
    def address(self) -> str:
        """Path or URL that people are told."""
        ...

    @property
    def folder(self) -> Path | None:
        """The folder it becomes; None in a store."""
        ...

    def stands(self) -> bool:
        """Tell whether something has the export's name."""
        ...

    def published_manifest(self) -> str | None:
        """Return the sha256 of the manifest that was published there, None where none was."""
        ...

    def begin(self, list_sha256: str, *, resumed: bool, restart: bool) -> None:
        """Make ready for a list of this hash; raises ExportInterruptedError where another one was begun."""
        ...

    def put_files(self, items: Iterable[ExportItemRow], *, check: bool) -> Iterator[int]:
        """Put the files of pairs in place; yields the number of pairs as they are done."""
        ...

    def put_shards(self, jobs: Iterable[ShardJob], *, check: bool) -> Iterator[ShardDone]:
        """Write shards; yields them as they are done."""
        ...

    def check_files(self, rows: Iterable[ManifestRow]) -> None:
        """Read files back as training code would; raises DamagedDataError."""
        ...

    def check_shards(self, kind: ShardKind, rows: Iterable[ManifestRow]) -> None:
        """Read shards back; raises DamagedDataError."""
        ...

    def publish(self) -> None:
        """Make it visible, the manifest last; what was prepared on the way is gone afterwards."""
        ...

    def tidy(self) -> None:
        """Remove what a publication that was cut short has left beside it."""
        ...


class FolderPlace:
    """A folder below `exports` in the data folder: links beneath ``<name>.part``, published by one rename.

    Args:
        folder: What it becomes.
        part: Where it is prepared, on the same file system.
        sources: The files that it is made of.
        executor: Where shards are written.
    """

    def __init__(self, folder: Path, part: Path, sources: SourceFiles, executor: Executor) -> None:
        self.address, self.folder = str(folder), folder
        self._final, self._part, self._sources, self._executor = folder, part, sources, executor

    def stands(self) -> bool:
        """Tell whether something has the export's name."""
        return os.path.lexists(self._final)

    def published_manifest(self) -> str | None:
        """Return the sha256 of the manifest that was published there, None where none was."""
        manifest = self._final / MANIFEST_NAME
        return file_sha256(manifest) if manifest.is_file() else None

    def begin(self, list_sha256: str, *, resumed: bool, restart: bool) -> None:  # noqa: ARG002
        """Start with an empty folder, or go on with what is there."""
        if not resumed:
            clear_folder(self._part)

    def put_files(self, items: Iterable[ExportItemRow], *, check: bool) -> Iterator[int]:
        """Link or copy the files of pairs; yields the number of pairs as they are done."""
        folder = f"{self._part}/"
        for item in items:
            for source in item.sources:
                if source.bare_sha256 is not None:
                    path, target = self._sources.path(source), self._part / source.target
                    put_bare(path, target, sha256=source.sha256, bare_sha256=source.bare_sha256)
                    continue
                name = self._sources.name(source)
                put_in_place(
                    name, folder + source.target, sha256=source.sha256, nbytes=source.nbytes, check=check
                )
            yield 1

    def put_shards(self, jobs: Iterable[ShardJob], *, check: bool) -> Iterator[ShardDone]:  # noqa: ARG002
        """Write shards that are not there yet."""
        yield from ordered(self._executor, run_shard_job, jobs, ahead=SHARDS_AHEAD)

    def check_files(self, rows: Iterable[ManifestRow]) -> None:
        """See that every picture is one of the size that the manifest says."""
        for row in rows:
            for name in (row.gt, row.lq):
                require_picture(self._part / name, row)

    def check_shards(self, kind: ShardKind, rows: Iterable[ManifestRow]) -> None:
        """See that every shard holds the pairs that the manifest says."""
        shards = groupby(rows, key=lambda row: row.gt)
        checks = (ShardCheck(kind, self._part / shard, tuple(row.id for row in own)) for shard, own in shards)
        for _ in ordered(self._executor, check_shard, checks, ahead=SHARDS_AHEAD):
            pass

    def publish(self) -> None:
        """Give the folder its name in one step."""
        publish(self._part, self._final)

    def tidy(self) -> None:
        """Leave everything: a rename is not cut short."""


def require_picture(path: Path, row: ManifestRow) -> None:
    """See that a file is a PNG of a pair's size.

    Raises:
        DamagedDataError: It is not.
    """
    if png_size(path) != (row.width, row.height):
        raise DamagedDataError(
            f"pair {row.id}: {path.name} is not a PNG of {row.width} x {row.height} pixels",
            kept="what was exported so far",
            next_step="catalog verify, then export again with --restart",
        )
