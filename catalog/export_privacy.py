"""Which files of an export carry private metadata, and what they become without it.

Almost none do, since alignment and import write bare pictures; those are linked as they are. The others are exported
as copies without text and EXIF, and the manifest names the copies' hashes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from catalog.bare_png import bare_png, is_bare
from catalog.errors import DamagedDataError
from catalog.export_list import ExportItemRow, ExportSource
from catalog.stored_files import FolderRoot


class SourceFiles:
    """The files that exports are made of.

    Args:
        data: The data folder, to which places of sessions are relative.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._roots: dict[str, FolderRoot] = {}
        self._bare: dict[str, str] = {}

    def path(self, source: ExportSource) -> Path:
        """Return a file's place; raises DamagedDataError where it leads out of its session."""
        return Path(self.name(source))

    def name(self, source: ExportSource) -> str:
        """Return a file's place as text; raises as `path`."""
        root = self._roots.get(source.location)
        if root is None:
            root = self._roots[source.location] = FolderRoot(self._data / source.location)
        return root.name(source.relpath)

    def look(self, item: ExportItemRow) -> ExportItemRow:
        """Find out what of a pair's files will be written, and remember it.

        Raises:
            DamagedDataError: A file was recorded in a state in which nothing can be taken out of it.
        """
        for source in item.sources:
            self._look_at(source)
        return self.as_exported(item)

    def as_exported(self, item: ExportItemRow) -> ExportItemRow:
        """Return a pair with the hashes of the files that will be written, as far as `look` was there."""
        if not any(source.sha256 in self._bare for source in item.sources):
            return item
        sources = tuple(replace(s, bare_sha256=self._bare.get(s.sha256)) for s in item.sources)
        gt, lq = (source.exported_sha256 for source in sources[:2])
        return ExportItemRow(item.row.model_copy(update={"sha256_gt": gt, "sha256_lq": lq}), sources)

    def _look_at(self, source: ExportSource) -> None:
        try:
            path = self.path(source)
            if _seems_bare(path):
                return
            content = path.read_bytes()
        except (OSError, DamagedDataError):
            return  # missing, or behind a link: refused when its turn comes
        # One that was changed since is found by its size, by --check and by verify.
        if hashlib.sha256(content).hexdigest() == source.sha256:
            self._bare[source.sha256] = hashlib.sha256(_without_secrets(content, path)).hexdigest()


def _seems_bare(path: Path) -> bool:
    try:
        return is_bare(path)
    except ValueError:  # no whole PNG
        return False


def _without_secrets(content: bytes, path: Path) -> bytes:
    try:
        return bare_png(content)
    except ValueError as error:
        raise DamagedDataError(
            f"{path}: was recorded as it is, but {error}, so what it may tell of its maker cannot be taken out",
            kept="the catalog, unchanged",
            next_step="catalog reject its pair, or align the session again",
        ) from error
