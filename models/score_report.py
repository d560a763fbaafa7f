"""An evaluation for people: lines for the terminal, Markdown, and the files of `models evaluate -o`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from catalog.console import plain_text
from catalog.session_folder import replace_file
from models.errors import StorageError
from models.score_sheet import ScoreSheet, ScoreTable

JSON_NAME, MARKDOWN_NAME, SHEET_NAME = "evaluation.json", "evaluation.md", "evaluation.html"


def table_lines(document: Mapping[str, Any]) -> list[str]:
    """Lay an evaluation out as a table: a line per class, then the two averages."""
    return [*(_line(cells) for cells in (_columns(document), *_cells(document))), *_remarks(document)]


def markdown(document: Mapping[str, Any]) -> str:
    """Write an evaluation as Markdown; names from outside can neither break a table nor become HTML."""
    parts = [
        f"# {_inert(_headline(document))}",
        _inert(_conditions(document)),
        _table(_columns(document), ([_inert(name), *cells] for name, *cells in _cells(document))),
        *map(_inert, _remarks(document)),
        *_published_parts(document["published"]),
    ]
    return "\n\n".join(parts) + "\n"


def write_report(document: Mapping[str, Any], sheet: ScoreSheet, folder: Path) -> None:
    """Write an evaluation as JSON, Markdown and a page of pictures into a folder, each file in one step.

    Raises:
        StorageError: The disk refused.
    """
    files = {
        JSON_NAME: json.dumps({"schema": 1, **document}, indent=1, ensure_ascii=False),
        MARKDOWN_NAME: markdown(document),
        SHEET_NAME: sheet.render(
            ScoreTable(_headline(document), _conditions(document), _columns(document), list(_cells(document)))
        ),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            replace_file(folder / name, text.encode())
    except OSError as error:
        raise StorageError(
            f"{folder}: the report could not be written: {error.strerror or error}",
            kept="everything else; the scores are printed with --json",
            next_step="make room or give another folder, then evaluate again",
        ) from error


def _line(cells: Sequence[str]) -> str:
    name, count, *values = cells
    return f"{name:24}{count:>6}" + "".join(f"{value:>16}" for value in values)


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from document["per_class"].items()
    yield "mean over pairs", {"n": document["n"], **document["mean_over_pairs"]}
    yield "mean over classes", {"n": len(document["per_class"]), **document["mean_over_classes"]}


def _title(measure: str) -> str:
    return measure.removesuffix("_db")


def _headline(document: Mapping[str, Any]) -> str:
    return f"Scores of {'the untouched input' if document['run'] is None else 'run ' + document['run']}"


def _conditions(document: Mapping[str, Any]) -> str:
    return (
        f"{document['n']} pairs of split {document['split']} of {document['export']}, whole pictures, matched by the "
        "id of the pair; lq is the degraded input, PSNR is in dB."
    )


def _columns(document: Mapping[str, Any]) -> list[str]:
    return ["class", "n", *map(_title, document["mean_over_pairs"])]


def _cells(document: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, values in _rows(document):
        yield [name, str(values["n"]), *(_number(values[m]) for m in document["mean_over_pairs"])]


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.3f}"


def _remarks(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the table cannot say."""
    for name, psnr in document["gain_gamma_psnr_db"].items():
        yield f"{name}: the best single gain and gamma of the training pairs gives {psnr:.3f} dB"
    for name, without in document["no_value"].items():
        yield (
            f"{_title(name)}: no value for {without['n']} of {document['n']} pairs, {without['reason']}; "
            "its averages are those of the others"
        )


def _published_parts(published: Mapping[str, Any] | None) -> Iterator[str]:
    if published is None:
        return
    yield f"## Beside {published['source']}"
    yield (
        "Classes of which the export holds exactly as many imported pairs as the published test set. "
        "The numbers of others are theirs, not measured here."
    )
    for measure, digits in (("psnr_db", 2), ("ssim", 4)):
        rows = (
            [method, *(f"{v:.{digits}f}" for v in (*values, fmean(values)))]
            for method, values in published[measure].items()
        )
        yield _table([_title(measure), *published["classes"], "mean"], rows)


def _table(titles: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = (f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))
    return "\n".join(lines)


def _inert(text: str) -> str:
    escaped = html.escape(" ".join(plain_text(text).split()))
    return "".join(f"&#{ord(c)};" if c in "|`[]()*_!\\#~" else c for c in escaped)
