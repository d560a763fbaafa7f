"""Read an export where it lies: a folder here, or a store by URL.

From a store, pictures and tiles are read as they are asked for. The manifest and the indexes of tile packs are kept
here, below the cache folder, so that any number of processes fetch them once and share them in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catalog.far_store import FarStore, is_url
from catalog.manifest import MANIFEST_NAME, ManifestError, ManifestRow, Split, read_manifest
from catalog.manifest_index import ManifestIndex
from catalog.near_cache import near_copy
from catalog.session_folder import file_sha256

MAX_FILE_BYTES = 2 << 30
"""Longest picture that is read from a store."""


class ExportReader:
    """One export.

    Args:
        place: Its folder, or its URL.

    Raises:
        ManifestError: No export there.
        StoreError: The store cannot be reached.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).rstrip("/")
        self._far = FarStore(self.place) if is_url(place) else None
        self._manifest_folder = Path(place) if self._far is None else _manifest_here(self._far)

    @property
    def is_far(self) -> bool:
        """Whether it lies in a store."""
        return self._far is not None

    def rows(self) -> Iterator[ManifestRow]:
        """Yield the manifest's rows; raises ManifestError where it is damaged."""
        return read_manifest(self._manifest_folder)

    def index(self, split: Split, *, packed: str) -> ManifestIndex:
        """Return the rows of one split, which stay in the file; see `ManifestIndex`."""
        return ManifestIndex(self._manifest_folder, split, packed=packed)

    def digest(self) -> str:
        """Return the sha256 of the manifest, which names every file's own checksum."""
        return file_sha256(self._manifest_folder / MANIFEST_NAME)

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            OSError: It cannot be read in the folder.
            StoreError: It cannot be read in the store.
        """
        if self._far is not None:
            return self._far.read(name, limit_bytes=MAX_FILE_BYTES)
        return Path(self.place, name).read_bytes()

    def location(self, name: str) -> str:
        """Return a file's path or URL."""
        return f"{self.place}/{name}"


def _manifest_here(far: FarStore) -> Path:
    if far.size_bytes(MANIFEST_NAME) is None:
        raise ManifestError(
            f"{far.url}: no {MANIFEST_NAME}, so this is not an export",
            next_step="give an address that `catalog export --to` wrote, or let it finish",
        )
    return near_copy(far, MANIFEST_NAME).parent
