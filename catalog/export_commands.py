"""catalog export | push | pull: training sets and sessions leave, sessions come back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from catalog import listing
from catalog.cli_options import (
    CatalogOption,
    DaskOption,
    SplitOption,
    WhereOption,
    open_catalog,
    put_lines,
    resumable,
    terminable,
)
from catalog.console import Console

if TYPE_CHECKING:
    from catalog.export import ExportReport
    from catalog.transfer import TransferReport


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Folder below exports in the data folder.")]
FormatOption = Annotated[
    Literal["folder", "foundir", "webdataset", "parquet", "crops"],
    typer.Option("--format", help="Layout on disk."),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Write to a store as URL/NAME, s3://bucket/prefix say, not in the data folder.",
    ),
]
BalanceOption = Annotated[int | None, typer.Option(min=1, help="At most so many pairs of each class.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only count.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Compare contents, not only sizes.")]
RestartOption = Annotated[bool, typer.Option("--restart", help="Throw away an interrupted export.")]
CodecOption = Annotated[
    Literal["zstd", "raw"], typer.Option(help="Tiles of crops: small on disk, or four times as fast.")
]
WritersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that write shards and fill a store.")
]


def export(
    console: Console,
    name: NameArgument,
    layout: FormatOption,
    *,
    where: WhereOption = None,
    to: StoreOption = None,
    split: SplitOption = "default",
    balance: BalanceOption = None,
    dry_run: DryRunOption = False,
    check: CheckOption = False,
    restart: RestartOption = False,
    codec: CodecOption = "zstd",
    workers: WritersOption = None,
    dask: DaskOption = None,
    catalog: CatalogOption = None,
) -> None:
    """Write accepted pairs as a training set: files, manifest.jsonl, checksums. Never overwrites.

    `folder`: one tree gt/ lq/ mask/ with meta_info*.txt per split, as BasicSR reads it. `foundir`: class
    folders and NAME_train_meta_info.txt, as FoundIR reads them. `webdataset`: shuffled tar shards.
    `parquet`: for Hugging Face `datasets`. `crops`: tiles from which a random crop is read in a millisecond.
    """
    from catalog.export_list import ExportRequest

    request = ExportRequest(name, layout, where, split, balance, codec, to=to and to.rstrip("/"))
    with (
        resumable(kept="what was exported so far"),
        open_catalog(console, catalog) as opened,
        console.progress("export", None) as advance,
    ):
        report = opened.export(
            request,
            dry_run=dry_run,
            check=check,
            restart=restart,
            workers=workers,
            dask=dask,
            advance=advance,
        )
    _put_export(console, report, dry_run=dry_run)


def _put_export(console: Console, report: ExportReport, *, dry_run: bool) -> None:
    if console.json:
        console.put_json(
            {**asdict(report), "folder": report.folder and str(report.folder), "dry_run": dry_run}
        )
        return
    put_lines(console, listing.export_lines(report))
    console.say(f"{'would be written to' if dry_run else 'written to'} {report.address}")


def push(
    console: Console,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Name or folder.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Path, or s3://bucket/prefix.")],
    free_local: Annotated[
        bool, typer.Option("--free-local", help="Delete the local files once the far ones were read back.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Files at a time.")] = 4,
) -> None:
    """Copy a session to a store, reading every file back; give it again to go on after an interruption."""
    from catalog import transfer
    from catalog.session_folder import SessionFolder

    folder = SessionFolder.find(session, console.data)
    total = 2 * sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file())
    with terminable(), console.progress("push", total) as advance:
        report = transfer.push(folder, url, free_local=free_local, workers=workers, advance=advance)
    _put_transfer(console, report)


def pull(
    console: Console,
    url: Annotated[str, typer.Argument(metavar="URL", help="Address that push printed.")],
    workers: Annotated[int, typer.Option(min=1, max=32, help="Files at a time.")] = 4,
) -> None:
    """Copy a pushed session back into the data folder, verified; give it again after an interruption."""
    from catalog import transfer

    with terminable(), console.progress("pull", None) as advance:
        report = transfer.pull(url, console.data, workers=workers, advance=advance)
    _put_transfer(console, report)


def _put_transfer(console: Console, report: TransferReport) -> None:
    if console.json:
        console.put_json(asdict(report))
        return
    console.put(report.url)
    console.say(
        f"{report.files} files, {report.size_bytes / 1e9:.3f} GB, all verified; {report.sent} copied by this run"
    )
    if report.freed_bytes:
        console.say(f"{report.freed_bytes / 1e9:.3f} GB freed here; back with: catalog pull {report.url}")
