"""The rows of a manifest without their memory: a parsed row takes 2 kB, and training asks for one at a time.

A scan checks every row once and keeps where it begins, and the few columns that are asked of all rows at once:
about 24 bytes a row.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from catalog.manifest import MANIFEST_NAME, ManifestError, ManifestRow, Split, parse_row, scan_manifest
from catalog.records import degradation_key


class ManifestIndex(Sequence[ManifestRow]):
    """The rows of one split of a manifest, in its order; each is read from the file when it is asked for.

    Args:
        folder: Of the manifest, which must stay as it is.
        split: Whose rows these are.
        packed: Suffix of paths that name a shard with several pairs.

    Raises:
        ManifestError: No manifest there, or a line that is not a row.
    """

    def __init__(self, folder: Path, split: Split, *, packed: str) -> None:
        self._path = folder / MANIFEST_NAME
        seen: Counter[str] = Counter()
        shards: Counter[str] = Counter()
        codes: dict[str, int] = {}
        begins, lengths, classes, sizes = array("q"), array("I"), array("I"), array("I")
        for begin, length, row in scan_manifest(folder):
            seen[row.split] += 1
            if row.split != split:
                continue
            begins.append(begin)
            lengths.append(length)
            classes.append(codes.setdefault(degradation_key(row.degradations), len(codes)))
            sizes.extend((row.width, row.height))
            if row.gt.endswith(packed):
                shards[row.gt] += 1
        self._begins, self._lengths, self._classes = begins, lengths, classes
        self._names = tuple(codes)
        self.sizes: NDArray[np.uint32] = np.frombuffer(sizes, np.uint32).reshape(-1, 2)
        """``(N, 2)``: width and height of every pair, px."""
        self.splits: Mapping[str, int] = seen
        """Pairs of every split of the manifest."""
        self.shards: Mapping[str, int] = shards
        """Pairs of every shard, in the order in which shards are filled; empty where pictures are files."""

    def __len__(self) -> int:
        return len(self._begins)

    @overload
    def __getitem__(self, index: int) -> ManifestRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[ManifestRow]: ...

    def __getitem__(self, index: int | slice) -> ManifestRow | list[ManifestRow]:
        """Read a row; raises ManifestError where the file is gone or was changed."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        try:
            with self._path.open("rb") as file:
                line = os.pread(file.fileno(), self._lengths[index], self._begins[index])
        except OSError as error:
            raise ManifestError(f"{self._path}: cannot be read any more: {error.strerror}") from error
        return parse_row(line, f"{self._path}: row {index}, which may have changed since it was checked")

    @property
    def classes(self) -> tuple[str, ...]:
        """The degradation class of every pair."""
        return tuple(self._names[code] for code in self._classes)
