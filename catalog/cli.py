"""catalog init | add | list | …: each parses, calls one method of `Catalog`, prints. SQL loads on demand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from catalog import listing
from catalog.console import (
    Console,
    run_app,
    verb,
)
from catalog.errors import CatalogError, DamagedDataError, ExitCode

if TYPE_CHECKING:
    from catalog.manifest import Split as Part
    from catalog.store import Catalog
    from catalog.transfer import TransferReport

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

CatalogOption = Annotated[
    str | None,
    typer.Option("--catalog", metavar="URL", help="Database.", show_default="catalog.db in the data folder"),
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        help="Filter, e.g. \"role = internal and class in (noise, 'haze+rain') and residual_px <= 0.05\". "
        "Names: id scene session round role degradation class foundir_class iso f_number exposure_s focus_m "
        "residual_px predicted_epe_px position_gap_mm mu sigma width height gt_warped verdict reason status "
        "split source. Signs: = != < <= > >= ~ (part of a text, * for anything) in is null and or not ( ).",
    ),
]
SplitOption = Annotated[str, typer.Option("--split", help="Named split; `default` hashes the scene.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the event log.")]
PairsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Pairs, SESSION/PAIR.")]


class UsageError(CatalogError, ValueError):
    """The options of a command do not fit together."""

    code = "CAT-CLI-001"
    exit_code = ExitCode.INVALID_INPUT


@app.callback()
def catalog() -> None:
    """Keep, judge and query pairs, and export training sets."""


@verb(app)
def init(
    console: Console,
    catalog: CatalogOption = None,
) -> None:
    """Create the catalog; one that exists stays as it is."""
    with _open(console, catalog) as opened:
        created = opened.init()
        path = opened.database.name
    if console.json:
        console.put_json({"catalog": path, "created": created})
    else:
        console.put(f"{path}  {'created' if created else 'is there already'}")


@verb(app)
def add(
    console: Console,
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION...", help="Names or folders.")],
    catalog: CatalogOption = None,
) -> None:
    """Add sessions, or bring them up to date; any number of times equals once."""
    with _open(console, catalog) as opened:
        opened.init()
        problems = [problem for session in sessions for problem in _add(console, opened, session)]
    if problems:
        raise DamagedDataError(
            f"{len(problems)} files are missing or damaged: {'; '.join(problems[:3])}",
            kept="the catalog, with those pairs quarantined",
            next_step="restore the files, then add the session again",
        )


def _add(console: Console, opened: Catalog, session: str) -> tuple[str, ...]:
    report = opened.add(session)
    if console.json:
        console.put_json(asdict(report))
    else:
        console.put(listing.add_line(report))
    if not report.aligned:
        console.say(f"{report.session} is not aligned yet: alignment run {report.session}, then add it again")
    return report.problems


@verb(app, "import-pairs")
def import_pairs(
    console: Console,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="A dataset in FoundIR's or BasicSR's layout.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Begins the sessions' names; the folder's name unless given.")
    ] = None,
    gt: Annotated[str | None, typer.Option(metavar="GLOB", help="Ground truths, instead of FOLDER.")] = None,
    lq: Annotated[str | None, typer.Option(metavar="GLOB", help="Degraded pictures.")] = None,
    pairs_list: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="FoundIR's list of pairs below FOLDER.")
    ] = None,
    degradations: Annotated[
        str | None,
        typer.Option(help="What was made worse, as noise+rain; read off the folders' names if not given."),
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `alignment audit` wrote about the same folder.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to work on.")] = None,
    catalog: CatalogOption = None,
) -> None:
    """Take over an existing paired dataset: sessions of source `imported`, added to the catalog.

    Pictures become PNG without text and EXIF, pixels unchanged. With --audit every pair carries its measured
    misalignment, and what is misaligned is rejected.
    """
    from catalog import import_pairs as imports
    from catalog.audit import read_audit
    from catalog.executors import open_executor
    from catalog.pair_folders import list_pairs as pairs_of
    from catalog.records import Degradation

    listing = pairs_of(folder, gt=gt, lq=lq, pairs_list=pairs_list)
    worse = None if degradations is None else tuple(Degradation(word) for word in degradations.split("+"))
    plain = imports.plain_name(name or listing.root.name)
    options = imports.ImportOptions(plain, worse, read_audit(audit) if audit else None)
    with (
        open_executor(workers=workers, dask=dask) as executor,
        console.progress("importing", len(listing.pairs)) as advance,
    ):
        report = imports.import_pairs(listing, console.data, options, executor=executor, progress=advance)
    with _open(console, catalog) as opened:
        opened.init()
        for session in report.sessions:
            opened.add(session)
    if console.json:
        console.put_json(asdict(report))
        return
    for session in report.sessions:
        console.put(session)
    console.say(f"{report.pairs} pairs imported and added, {len(report.left_out)} left out")
    for item in report.left_out[:20]:
        console.say(f"left out: {item.pair}: {item.why}")


@verb(app, "list")
def list_pairs(
    console: Console,
    where: WhereOption = None,
    order: Annotated[
        str, typer.Option(help="id, iso, residual_px, predicted_epe_px, mu …; -NAME downwards.")
    ] = "id",
    limit: Annotated[int, typer.Option(help="Pairs in the page.")] = 50,
    after: Annotated[str | None, typer.Option(help="Last pair of the page before.")] = None,
    split: SplitOption = "default",
    catalog: CatalogOption = None,
) -> None:
    """List pairs, page by page."""
    with _open(console, catalog) as opened:
        pairs = opened.find(where, order=order, limit=limit, after=after, split=split)
    following = pairs[-1].id if len(pairs) == limit else None
    if console.json:
        console.put_json({"pairs": [listing.pair_json(pair) for pair in pairs], "next": following})
        return
    _put_lines(console, listing.pair_lines(pairs))
    if following is not None:
        console.say(f"more: --after {following}")


@verb(app)
def show(
    console: Console,
    pair: Annotated[str, typer.Argument(metavar="ID", help="SESSION/PAIR.")],
    catalog: CatalogOption = None,
) -> None:
    """Show all that is known of a pair, back to the shutter release."""
    with _open(console, catalog) as opened:
        details = opened.show(pair)
    if console.json:
        console.put_json({**asdict(details), "pair": listing.pair_json(details.pair)})
    else:
        _put_lines(console, listing.detail_lines(details))


@verb(app)
def stats(
    console: Console,
    catalog: CatalogOption = None,
) -> None:
    """Count pairs by class, scene and reject reason."""
    with _open(console, catalog) as opened:
        statistics = opened.stats()
    if console.json:
        console.put_json(asdict(statistics))
    else:
        _put_lines(console, listing.statistics_lines(statistics))


@verb(app)
def accept(
    console: Console,
    pairs: PairsArgument = None,
    where: WhereOption = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Accept pairs by hand, whatever alignment said."""
    with _open(console, catalog) as opened:
        report = opened.accept(_chosen(opened, pairs, where), reason=reason)
    _put_decision(console, "accepted", report.pairs)


@verb(app)
def reject(
    console: Console,
    pairs: PairsArgument = None,
    where: WhereOption = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Reject pairs by hand."""
    with _open(console, catalog) as opened:
        report = opened.reject(_chosen(opened, pairs, where), reason=reason)
    _put_decision(console, "rejected", report.pairs)


@verb(app)
def undo(
    console: Console,
    pairs: PairsArgument = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Take back the last decision on each pair named, or the whole last accept or reject."""
    with _open(console, catalog) as opened:
        report = opened.undo(pairs or (), reason=reason)
    _put_decision(console, "decision taken back", report.pairs)


@verb(app)
def verify(
    console: Console,
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", help="This session only.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time to spend: 90s, 10min, 2h.")] = None,
    catalog: CatalogOption = None,
) -> None:
    """Read files back and compare them with their recorded hashes, longest unseen first."""
    budget_s = None if budget is None else _seconds(budget)
    with _open(console, catalog) as opened, console.progress("verify", None) as advance:
        report = opened.verify(session, budget_s=budget_s, advance=advance)
    if console.json:
        console.put_json(asdict(report))
    else:
        _put_lines(console, listing.verify_lines(report))
    if report.findings:
        raise DamagedDataError(
            f"{len(report.findings)} files are damaged, missing or changed",
            kept="all files as they are; their pairs are quarantined",
            next_step="restore the files from a copy, then catalog verify",
        )


@verb(app)
def rebuild(
    console: Console,
    catalog: CatalogOption = None,
) -> None:
    """Make the catalog anew from the session folders; the old one is kept beside it."""
    with _open(console, catalog) as opened:
        report = opened.rebuild()
    if console.json:
        console.put_json({**asdict(report), "backup": report.backup and str(report.backup)})
    else:
        _put_lines(console, listing.rebuild_lines(report))
    if report.problems:
        raise DamagedDataError(
            f"{len(report.problems)} problems in the session folders: {report.problems[0]}",
            kept=f"the old catalog at {report.backup}" if report.backup else "every session folder",
            next_step="restore the files from a copy, then catalog rebuild",
        )


@verb(app)
def migrate(
    console: Console,
    catalog: CatalogOption = None,
) -> None:
    """Bring a catalog of an older version up to date, after a backup."""
    with _open(console, catalog) as opened:
        backup = opened.migrate()
    if console.json:
        console.put_json({"migrated": backup is not None, "backup": backup and str(backup)})
    else:
        console.put("is up to date already" if backup is None else f"up to date; backup: {backup}")


@verb(app)
def split(
    console: Console,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new split.")],
    train: Annotated[float, typer.Option(help="Share of the scene groups.")] = 0.8,
    val: Annotated[float, typer.Option(help="Share of the scene groups.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the scene groups.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Draws the order of the groups.")] = 0,
    test_scenes: Annotated[list[str] | None, typer.Option("--test-scene", help="Hold a scene out.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SCENE=PART", help="Fix a scene's part.")
    ] = None,
    catalog: CatalogOption = None,
) -> None:
    """Divide scenes into train, val and test; a scene never stands in two parts, and keeps its part."""
    from catalog.splits import SplitRule

    rule = SplitRule(train, val, test, seed, _fixed_scenes(test_scenes or (), assignments or ()))
    with _open(console, catalog) as opened:
        parts = opened.split(name, rule)
    if console.json:
        console.put_json({"split": name, "parts": parts})
    else:
        _put_lines(console, listing.columns(("scene group", "part"), sorted(parts.items())))


@verb(app)
def export(
    console: Console,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Folder below exports in the data folder.")],
    layout: Annotated[
        Literal["folder", "foundir", "webdataset", "parquet", "crops"],
        typer.Option("--format", help="Layout on disk."),
    ],
    where: WhereOption = None,
    split: SplitOption = "default",
    balance: Annotated[int | None, typer.Option(min=1, help="At most so many pairs of each class.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare contents, not only sizes.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away an interrupted export.")] = False,
    codec: Annotated[
        Literal["zstd", "raw"], typer.Option(help="Tiles of crops: small on disk, or four times as fast.")
    ] = "zstd",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that write shards.")] = None,
    dask: Annotated[str | None, typer.Option(help="Address of a Dask scheduler to write shards on.")] = None,
    catalog: CatalogOption = None,
) -> None:
    """Write accepted pairs as a training set: files, manifest.jsonl, checksums. Never overwrites.

    `folder`: one tree gt/ lq/ mask/ with meta_info*.txt per split, as BasicSR reads it. `foundir`: class
    folders and NAME_train_meta_info.txt, as FoundIR reads them. `webdataset`: shuffled tar shards.
    `parquet`: for Hugging Face `datasets`. `crops`: tiles from which a random crop is read in a millisecond.
    """
    from catalog.export_list import ExportRequest

    request = ExportRequest(name, layout, where, split, balance, codec)
    with _open(console, catalog) as opened, console.progress("export", None) as advance:
        report = opened.export(
            request,
            dry_run=dry_run,
            check=check,
            restart=restart,
            workers=workers,
            dask=dask,
            advance=advance,
        )
    if console.json:
        console.put_json({**asdict(report), "folder": str(report.folder), "dry_run": dry_run})
        return
    _put_lines(console, listing.export_lines(report))
    console.say(f"{'would be written to' if dry_run else 'written to'} {report.folder}")


@verb(app)
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
    with console.progress("push", total) as advance:
        report = transfer.push(folder, url, free_local=free_local, workers=workers, advance=advance)
    _put_transfer(console, report)


@verb(app)
def pull(
    console: Console,
    url: Annotated[str, typer.Argument(metavar="URL", help="Address that push printed.")],
    workers: Annotated[int, typer.Option(min=1, max=32, help="Files at a time.")] = 4,
) -> None:
    """Copy a pushed session back into the data folder, verified; give it again after an interruption."""
    from catalog import transfer

    with console.progress("pull", None) as advance:
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


@contextmanager
def _open(console: Console, address: str | None) -> Iterator[Catalog]:
    from catalog.store import CATALOG_FILE, Catalog

    with Catalog(address or console.data / CATALOG_FILE, data=console.data) as opened:
        yield opened


def _put_lines(console: Console, lines: Iterator[str]) -> None:
    for line in lines:
        console.put(line)


def _put_decision(console: Console, what: str, pairs: Sequence[str]) -> None:
    if console.json:
        console.put_json({"decision": what, "pairs": list(pairs)})
        return
    for pair in pairs:
        console.put(f"{pair}  {what}")


def _chosen(opened: Catalog, pairs: list[str] | None, where: str | None) -> list[str]:
    if bool(pairs) == bool(where):
        raise UsageError("name pairs, or choose them with --where, one of the two")
    if pairs:
        return pairs
    chosen: list[str] = []
    while page := opened.find(where, after=chosen[-1] if chosen else None):
        chosen += [pair.id for pair in page]
    return chosen


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)?", text.strip())
    if match is None:
        raise UsageError(f"--budget {text!r}: not a time; write 90s, 10min or 2h")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2] or "s"]


def _fixed_scenes(test_scenes: Sequence[str], assignments: Sequence[str]) -> dict[str, Part]:
    from catalog.splits import PARTS

    fixed: dict[str, Part] = dict.fromkeys(test_scenes, "test")
    for assignment in assignments:
        scene, _, wanted = assignment.partition("=")
        part = next((p for p in PARTS if p == wanted), None)
        if not scene or part is None:
            raise UsageError(f"--set {assignment!r}: write SCENE=train, SCENE=val or SCENE=test")
        if fixed.setdefault(scene, part) != part:
            raise UsageError(f"scene {scene!r} is given two parts")
    return fixed


def main() -> None:
    """Run the command."""
    run_app(app)
