"""How an export lies on disk: the folders and list files that other people's training code reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from catalog.manifest import ManifestRow
from catalog.splits import PARTS

FormatName = Literal["folder", "foundir", "webdataset", "parquet", "crops"]
ShardKind = Literal["webdataset", "parquet", "crops"]
FOUNDIR_ISOLATED = frozenset({"01Blur", "05Noise", "06JPEG", "08Haze", "10Rain", "11Raindrop", "14Lowlight"})
"""FoundIR's seven classes with one degradation; the other thirteen are coupled."""


@dataclass(frozen=True)
class Placement:
    """A pair that asks for its places in an export."""

    ordinal: int
    """Number in the export, counted from 1."""
    uid: str
    foundir_class: str | None
    suffix: str
    """Suffix of its images, with the dot."""
    masked: bool
    part: str
    file_bytes: int
    """Of its files together."""
    picture_bytes: int
    """Of its pictures at 8 bits, decoded."""


@dataclass(frozen=True)
class OutPaths:
    """Places of one pair's files, relative to the export folder."""

    gt: str
    lq: str
    mask: str | None


class ExportFormat(Protocol):
    """A layout; asked for every pair in the order of the export."""

    by_foundir_class: bool
    """Whether pairs are ordered by FoundIR's class and those without one are left out."""
    shards: ShardKind | None
    """Packed into shards of this kind, shuffled, each part apart; None for files that lie by themselves."""

    def place(self, pair: Placement) -> OutPaths:
        """Place the files of a pair."""
        ...

    def list_lines(self, row: ManifestRow) -> Iterator[tuple[str, str]]:
        """Yield list files by name, each with the line that a pair adds to it."""
        ...

    def list_files(self) -> tuple[str, ...]:
        """Name every list file; one without pairs is written empty."""
        ...


class FolderFormat:
    """One tree that BasicSR and its descendants read; the split stands in manifest and list files.

    ``gt/<session>@<pair>.png`` beside ``lq/`` and ``mask/`` of the same names: BasicSR looks a degraded image
    up by the plain name of its reference, so there are no folders below. `meta_info.txt` lists all pairs and
    `meta_info_<part>.txt` those of one part: name, a space, ``(height,width,3)``.
    """

    by_foundir_class = False
    shards: ShardKind | None = None

    def place(self, pair: Placement) -> OutPaths:
        """Name the files after the pair; no name holds ``@``, so two pairs never meet."""
        name = pair.uid.replace("/", "@") + pair.suffix
        return OutPaths(f"gt/{name}", f"lq/{name}", f"mask/{name}" if pair.masked else None)

    def list_lines(self, row: ManifestRow) -> Iterator[tuple[str, str]]:
        """List a pair in the file of all and in its part's."""
        line = f"{PurePosixPath(row.gt).name} ({row.height},{row.width},3)"
        yield "meta_info.txt", line
        yield f"meta_info_{row.split}.txt", line

    def list_files(self) -> tuple[str, ...]:
        """Name the file of all and one per part."""
        return ("meta_info.txt", *(f"meta_info_{part}.txt" for part in PARTS))


class FoundirFormat:
    """FoundIR's class folders and list files.

    ``<class>/GT/<nnnn>.png`` and ``<class>/LQ/<nnnn>.png``, numbered on over all classes; the split stands in
    manifest and list files. FoundIR's training reads ``<name>_train_meta_info.txt`` (all classes) and
    ``<name>_single_train_meta_info.txt`` (the isolated ones, for its first stage): GT path, comma, space,
    LQ path, relative to the export folder.
    """

    by_foundir_class = True
    shards: ShardKind | None = None

    def __init__(self, name: str) -> None:
        self._name = name

    def place(self, pair: Placement) -> OutPaths:
        """Number the pair in its class folder."""
        folder, name = pair.foundir_class, f"{pair.ordinal:04d}{pair.suffix}"
        if folder is None:
            raise ValueError(f"pair {pair.uid} has no FoundIR class")
        mask = f"{folder}/MASK/{name}" if pair.masked else None
        return OutPaths(f"{folder}/GT/{name}", f"{folder}/LQ/{name}", mask)

    def list_lines(self, row: ManifestRow) -> Iterator[tuple[str, str]]:
        """List a pair in its part's file, and where its class is isolated in that one too."""
        line = f"{row.gt}, {row.lq}"
        yield self._list_file("", row.split), line
        if row.foundir_class in FOUNDIR_ISOLATED:
            yield self._list_file("single_", row.split), line

    def list_files(self) -> tuple[str, ...]:
        """Name both files of every part."""
        return tuple(self._list_file(kind, part) for part in PARTS for kind in ("", "single_"))

    def _list_file(self, kind: str, part: str) -> str:
        return f"{self._name}_{kind}{part}_meta_info.txt"


class ShardFormat:
    """Shards ``<folder><part>-<nnnnn><suffix>``; a pair's paths in the manifest name its shard.

    Args:
        kind: What a shard is.
        suffix: Suffix of its file.
        folder: Folder of the shards in the export, empty or with a slash.
        limit_bytes: A shard is full when its pairs' bytes come to this.
        decoded: Count decoded pictures rather than files.
    """

    by_foundir_class = False

    def __init__(
        self, kind: ShardKind, suffix: str, folder: str = "", *, limit_bytes: int, decoded: bool = False
    ) -> None:
        self.shards: ShardKind | None = kind
        self._suffix, self._folder, self._limit_bytes, self._decoded = suffix, folder, limit_bytes, decoded
        self._filled: dict[str, tuple[int, int]] = {}

    def place(self, pair: Placement) -> OutPaths:
        """Put the pair into its part's present shard, or open the next one."""
        number, filled = self._filled.get(pair.part, (0, 0))
        nbytes = pair.picture_bytes if self._decoded else pair.file_bytes
        if filled and filled + nbytes > self._limit_bytes:
            number, filled = number + 1, 0
        self._filled[pair.part] = (number, filled + nbytes)
        path = f"{self._folder}{pair.part}-{number:05d}{self._suffix}"
        return OutPaths(path, path, path if pair.masked else None)

    def list_lines(self, row: ManifestRow) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """List nothing: the manifest names the shard of every pair."""
        return iter(())

    def list_files(self) -> tuple[str, ...]:
        """Name no list files."""
        return ()


FORMATS: Mapping[FormatName, Callable[[str], ExportFormat]] = {
    "folder": lambda _name: FolderFormat(),
    "foundir": FoundirFormat,
    "webdataset": lambda _name: ShardFormat("webdataset", ".tar", limit_bytes=1 << 30),
    "parquet": lambda _name: ShardFormat("parquet", ".parquet", "data/", limit_bytes=1 << 29),
    "crops": lambda _name: ShardFormat("crops", ".tiles", "crops/", limit_bytes=1 << 31, decoded=True),
}
"""Layouts by name; each is made for one export's name."""
