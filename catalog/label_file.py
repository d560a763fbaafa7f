"""`labels.jsonl`: which degradations somebody sees in pictures, a person or a classifier. No database is needed.

One line a picture, by the name of its pair or by the sha256 of its degraded file::

    {"pair": "bookshelf-03-a/rain-000012", "degradations": ["haze", "rain"], "source": "Ada, second look"}
    {"sha256": "9f2c…", "degradations": ["noise"], "confidence": 0.97, "source": "maskdcpt-base step 90000"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from catalog.errors import CatalogError, ExitCode
from catalog.records import Degradation
from catalog.session_folder import replace_file
from catalog.yaml_document import Document


class LabelFileError(CatalogError, ValueError):
    """A file of labels is missing or a line of it is none."""

    code = "CAT-LAB-001"
    exit_code = ExitCode.INVALID_INPUT


class Label(Document):
    """What somebody sees in one picture."""

    pair: str | None = None
    """``<session>/<pair>``."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the degraded picture's file; it may belong to several pairs."""
    degradations: tuple[Degradation, ...]
    """Any set; none at all means that the picture is clean."""
    confidence: float | None = Field(default=None, ge=0, le=1)
    """A classifier's, None for a person."""
    source: str = Field(default="", max_length=200)
    """Who or what says so; for a classifier its run and step."""

    @model_validator(mode="after")
    def _names_one_picture(self) -> Self:
        if (self.pair is None) == (self.sha256 is None):
            raise ValueError("name the picture by pair or by sha256, one of the two")
        return self


def read_labels(path: Path) -> Iterator[tuple[int, Label]]:
    """Yield the labels of a file with their line numbers; empty lines are passed over.

    Raises:
        LabelFileError: The file cannot be read, or a line is no label; the message names the line.
    """
    try:
        # Not by `splitlines`: a text in JSON may hold what it takes for the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LabelFileError(
            f"{path}: cannot be read: {reason}",
            kept="every label",
            next_step="give a file of `models classify`",
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, Label.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise LabelFileError(
                f"{path}:{number}:1: {where}: {problem['msg']}".replace(" : ", " "), kept="every label"
            ) from None


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """Write a file of labels, whole or not at all."""
    lines = (label.model_dump_json(exclude_none=True) + "\n" for label in labels)
    replace_file(path, "".join(lines).encode())
