"""Published results, to stand beside ours where the data are the same.

What is known of FoundIR's test set is how many pairs each of its twenty folders has, so a class is taken for
theirs when its pairs were imported and are exactly that many. A part of a class is never put beside the whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from catalog.manifest import ManifestRow
from catalog.yaml_document import Document, load_yaml
from models.metrics import PairScore, average_over_pairs

FOUNDIR_TABLE = Path(__file__).parent / "published" / "foundir.yaml"


class PublishedTable(Document):
    """One table of a paper: a number per method and class."""

    schema_: Literal[1] = Field(alias="schema", default=1)
    source: str
    """Where it was printed."""
    pairs: dict[str, int]
    """Pairs of each class of the test set, by folder name, in the order of the columns."""
    psnr_db: dict[str, tuple[float, ...]]
    """By method, one number per class."""
    ssim: dict[str, tuple[float, ...]]
    """The same where all classes were legible."""

    @model_validator(mode="after")
    def _whole_rows(self) -> PublishedTable:
        short = [name for name, row in (self.psnr_db | self.ssim).items() if len(row) != len(self.pairs)]
        if short:
            raise ValueError(f"{', '.join(short)}: needs {len(self.pairs)} numbers")
        return self


def foundir_table() -> PublishedTable:
    """Return FoundIR's main table; its authors take PSNR and SSIM in RGB over whole pictures, as we do."""
    return load_yaml(FOUNDIR_TABLE, PublishedTable)


def beside_published(
    rows: Sequence[ManifestRow], scores: Sequence[PairScore], table: PublishedTable | None = None
) -> dict[str, Any] | None:
    """Put our averages of every whole class of FoundIR's test set beside the published ones.

    Args:
        rows: The pairs that were scored.
        scores: Their scores, in the same order.
        table: What was published; None for FoundIR's main table.

    Returns:
        Plain values for JSON, None where the pairs are other ones.
    """
    ours: dict[str, list[PairScore]] = defaultdict(list)
    for row, score in zip(rows, scores, strict=True):
        if row.foundir_class is not None and row.source == "imported":
            ours[row.foundir_class].append(score)
    if not ours:
        return None
    printed = table or foundir_table()
    whole = [name for name, count in printed.pairs.items() if len(ours.get(name, ())) == count]
    if not whole:
        return None
    columns = [list(printed.pairs).index(name) for name in whole]
    return {
        "source": printed.source,
        "classes": whole,
        "psnr_db": _rows(printed.psnr_db, columns) | _our_rows(ours, whole, "psnr_", "_db"),
        "ssim": _rows(printed.ssim, columns) | _our_rows(ours, whole, "ssim_", ""),
    }


def _rows(printed: Mapping[str, Sequence[float]], columns: Sequence[int]) -> dict[str, list[float]]:
    return {method: [values[column] for column in columns] for method, values in printed.items()}


def _our_rows(
    ours: Mapping[str, Sequence[PairScore]], classes: Sequence[str], prefix: str, suffix: str
) -> dict[str, list[float | None]]:
    """Average the measures in RGB: ``psnr_<picture>_db`` becomes the row ``<picture> (ours)``."""
    names = [
        name
        for name in ours[classes[0]][0].values
        if name.startswith(prefix) and name.endswith(suffix) and not name.startswith(f"{prefix}y_")
    ]
    averages = [average_over_pairs(ours[folder]) for folder in classes]
    return {
        f"{name.removeprefix(prefix).removesuffix(suffix)} (ours)": [of_class[name] for of_class in averages]
        for name in names
    }
