"""catalog import-pairs: datasets that others made enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.cli_options import (
    CatalogOption,
    DaskOption,
    UsageError,
    WorkersOption,
    open_catalog,
    resumable,
)
from catalog.console import Console

if TYPE_CHECKING:
    from catalog.import_pairs import ImportOptions, ImportReport
    from catalog.store import Catalog


DatasetArgument = Annotated[
    Path | None, typer.Argument(metavar="FOLDER", help="A dataset in FoundIR's or BasicSR's layout.")
]
NameOption = Annotated[
    str | None, typer.Option(help="Begins the sessions' names; the folder's name unless given.")
]
TruthsOption = Annotated[str | None, typer.Option(metavar="GLOB", help="Ground truths, instead of FOLDER.")]
DegradedOption = Annotated[str | None, typer.Option(metavar="GLOB", help="Degraded pictures.")]
ListOption = Annotated[
    Path | None, typer.Option("--list", metavar="FILE", help="FoundIR's list of pairs below FOLDER.")
]
DegradationsOption = Annotated[
    str | None,
    typer.Option(help="What was made worse, as noise+rain; read off the folders' names if not given."),
]
AuditOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What `alignment audit` wrote about the same folder.")
]
RestartOption = Annotated[bool, typer.Option("--restart", help="Throw away an interrupted import.")]


def import_pairs(
    console: Console,
    folder: DatasetArgument = None,
    *,
    name: NameOption = None,
    gt: TruthsOption = None,
    lq: DegradedOption = None,
    pairs_list: ListOption = None,
    degradations: DegradationsOption = None,
    audit: AuditOption = None,
    restart: RestartOption = False,
    workers: WorkersOption = None,
    dask: DaskOption = None,
    catalog: CatalogOption = None,
) -> None:
    """Take over an existing paired dataset: sessions of source `imported`, added to the catalog.

    Pictures become PNG without text and EXIF, pixels unchanged. With --audit every pair carries its measured
    misalignment, and what is misaligned is rejected. Interrupted, it goes on when given again.
    """
    from catalog import import_pairs as imports
    from catalog.executors import open_executor
    from catalog.pair_folders import list_pairs

    listing = list_pairs(folder, gt=gt, lq=lq, pairs_list=pairs_list)
    options = _options(name or listing.root.name, degradations, audit)
    with (
        resumable(kept="what was imported so far"),
        open_catalog(console, catalog) as opened,
        open_executor(workers=workers, dask=dask) as executor,
        console.progress("importing", len(listing.pairs)) as advance,
    ):
        if opened.database.state() != "absent":
            opened.database.require_current()  # else it would be told only behind the first session
        report = imports.import_pairs(
            listing, console.data, options,
            executor=executor, restart=restart, add=_adding(opened), progress=advance,
        )  # fmt: skip
    _put_report(console, report)


def _adding(opened: Catalog) -> Callable[[str], object]:
    def add(session: str) -> None:
        opened.init()
        opened.add(session)

    return add


def _options(name: str, degradations: str | None, audit: Path | None) -> ImportOptions:
    from catalog.audit import read_audit
    from catalog.import_pairs import ImportOptions, plain_name
    from catalog.records import Degradation

    try:
        worse = None if degradations is None else tuple(Degradation(word) for word in degradations.split("+"))
    except ValueError as error:
        raise UsageError(f"--degradations {degradations}: {error}; known: {', '.join(Degradation)}") from None
    return ImportOptions(plain_name(name), worse, read_audit(audit) if audit else None)


def _put_report(console: Console, report: ImportReport) -> None:
    if console.json:
        console.put_json(asdict(report))
        return
    for session in report.sessions:
        console.put(session)
    console.say(f"{report.pairs} pairs imported and added, {len(report.left_out)} left out")
    for item in report.left_out[:20]:
        console.say(f"left out: {item.pair}: {item.why}")
