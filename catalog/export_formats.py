"""How an export lies on disk: the folders and list files that other people's training code reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from catalog.manifest import ManifestRow
from catalog.splits import PARTS

FormatName = Literal["folder", "foundir"]


@dataclass(frozen=True)
class OutPaths:
    """Places of one pair's files, relative to the export folder."""

    gt: str
    lq: str
    mask: str | None


class ExportFormat(Protocol):
    """A layout; asked once per pair in the order of the export."""

    def paths(
        self, ordinal: int, uid: str, *, foundir_class: str | None, suffix: str, masked: bool
    ) -> OutPaths:
        """Place the files of the pair with that number, counted from 1."""
        ...

    def list_lines(self, row: ManifestRow) -> Iterator[tuple[str, str]]:
        """Yield list files by name with the line that a pair adds to each."""
        ...

    def list_files(self) -> tuple[str, ...]:
        """Name every list file; one without pairs is written empty."""
        ...


class FolderFormat:
    """One tree that BasicSR and its descendants read; the split stands in manifest and list files.

    ``gt/<session>@<pair>.png`` beside ``lq/`` and ``mask/`` of the same names (BasicSR looks a degraded image
    up by the plain name of its reference, so there are no folders below). `meta_info.txt` lists all,
    `meta_info_<part>.txt` one part: name, a space, ``(height,width,3)``.
    """

    def paths(
        self, ordinal: int, uid: str, *, foundir_class: str | None, suffix: str, masked: bool
    ) -> OutPaths:
        """Name the files after the pair; ``@`` cannot stand in a name, so two pairs never meet."""
        name = uid.replace("/", "@") + suffix
        return OutPaths(f"gt/{name}", f"lq/{name}", f"mask/{name}" if masked else None)

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

    ``<class>/GT/<nnnn>.png`` and ``<class>/LQ/<nnnn>.png``, numbered on over all classes. Its training code
    reads ``<name>_train_meta_info.txt`` (all classes) and ``<name>_single_train_meta_info.txt`` (the isolated
    ones, for its first stage): GT path, comma, space, LQ path, relative to the export folder.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def paths(
        self, ordinal: int, uid: str, *, foundir_class: str | None, suffix: str, masked: bool
    ) -> OutPaths:
        """Number the pair in its class folder."""
        if foundir_class is None:
            raise ValueError(f"pair {uid} has no FoundIR class")
        name = f"{ordinal:04d}{suffix}"
        mask = f"{foundir_class}/MASK/{name}" if masked else None
        return OutPaths(f"{foundir_class}/GT/{name}", f"{foundir_class}/LQ/{name}", mask)

    def list_lines(self, row: ManifestRow) -> Iterator[tuple[str, str]]:
        """List a pair in its part's file, and where its class is isolated in that one too."""
        line = f"{row.gt}, {row.lq}"
        yield f"{self._name}_{row.split}_meta_info.txt", line
        if len(row.degradations) == 1:
            yield f"{self._name}_single_{row.split}_meta_info.txt", line

    def list_files(self) -> tuple[str, ...]:
        """Name both files of every part."""
        return tuple(f"{self._name}{kind}_{part}_meta_info.txt" for part in PARTS for kind in ("", "_single"))
