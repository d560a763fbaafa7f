"""`manifest.jsonl`: the one contract between what was captured and what is trained.

One pair per line, paths relative to the manifest's folder. No database is needed to read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, ValidationError

from catalog.errors import CatalogError, ExitCode
from catalog.records import Degradation
from catalog.yaml_document import Document

MANIFEST_NAME = "manifest.jsonl"
Split = Literal["train", "val", "test"]


class ManifestError(CatalogError, ValueError):
    """A manifest is missing, damaged or points outside its folder."""

    code = "CAT-MAN-001"
    exit_code = ExitCode.INVALID_INPUT


def _beneath(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        raise ValueError(f"path {path!r} leaves its folder")
    return path


RelativePath = Annotated[str, AfterValidator(_beneath)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestRow(Document):
    """One training pair."""

    id: str
    """Unique in the export; leads back to the shutter release through the catalog."""
    gt: RelativePath
    lq: RelativePath
    scene: str
    session: str
    round: str
    degradations: tuple[Degradation, ...]
    foundir_class: str | None
    """FoundIR's folder name, None where FoundIR has none."""
    settings: dict[str, Any]
    """The degraded round's settings as read back: iso, f_number, exposure_s, focus_m."""
    mu: FiniteFloat
    """Mean of ``|lq - gt|`` over pixels and channels in [0, 1] after alignment (GenDeg's intensity)."""
    sigma: FiniteFloat
    """Standard deviation of the same."""
    residual_px: float | None
    predicted_epe_px: float | None
    """Predicted 95 % radius of the misalignment left in the written pixels."""
    mask: RelativePath | None
    """8-bit image, 255 where the pair is to be trusted; None where all of it is."""
    split: Split
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256_gt: Sha256
    sha256_lq: Sha256
    source: Literal["captured", "imported", "synthetic"]


def write_manifest(folder: Path, rows: Iterable[ManifestRow]) -> int:
    """Write the manifest of an export folder; returns the number of rows."""
    count = 0
    with (folder / MANIFEST_NAME).open("x", encoding="utf-8") as out:
        for row in rows:
            out.write(row.model_dump_json() + "\n")
            count += 1
    return count


def read_manifest(folder: Path) -> Iterator[ManifestRow]:
    """Yield the rows of an export folder in file order.

    Raises:
        ManifestError: No manifest there, or a line that is not a row; the message names the line.
    """
    return (row for _, _, row in scan_manifest(folder))


def scan_manifest(folder: Path) -> Iterator[tuple[int, int, ManifestRow]]:
    """Yield where each row begins, its length in bytes, and the row itself; raises as `read_manifest`."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ManifestError(
            f"{folder}: no {MANIFEST_NAME}, so this is not an export",
            next_step="give a folder that `catalog export` wrote",
        )
    begin = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield begin, len(line), parse_row(line, f"{path}:{number}:1")
            begin += len(line)


def parse_row(line: bytes, place: str) -> ManifestRow:
    """Read one line; raises ManifestError, which names the place."""
    try:
        return ManifestRow.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ManifestError(f"{place}: {where}: {problem['msg']}") from None
