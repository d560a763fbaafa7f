"""catalog init | add | list | …: each parses, calls one method of `Catalog`, prints. SQL loads on demand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from catalog import listing
from catalog.cli_options import (
    CatalogOption,
    DaskOption,
    SplitOption,
    UsageError,
    WhereOption,
    WorkersOption,
    open_catalog,
    put_lines,
    resumable,
)
from catalog.console import Console, run_app, verb
from catalog.decision_commands import accept, label, reject, undo
from catalog.errors import DamagedDataError
from catalog.export_commands import export, pull, push
from catalog.import_commands import import_pairs

if TYPE_CHECKING:
    from catalog.coverage import Coverage
    from catalog.manifest import Split as Part
    from catalog.statistics import Statistics
    from catalog.store import Catalog

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def catalog() -> None:
    """Keep, judge and query pairs, and export training sets."""


@verb(app)
def init(
    console: Console,
    catalog: CatalogOption = None,
) -> None:
    """Create the catalog; one that exists stays as it is."""
    with open_catalog(console, catalog) as opened:
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
    with open_catalog(console, catalog) as opened:
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


@verb(app, "list")
def list_pairs(
    console: Console,
    where: WhereOption = None,
    order: Annotated[
        str, typer.Option(help="id, iso, residual_px, predicted_epe_px, mu …; -NAME downwards.")
    ] = "id",
    limit: Annotated[int, typer.Option(help="Pairs in the page.")] = 50,
    after: Annotated[str | None, typer.Option(help="Last pair of the page before.")] = None,
    each: Annotated[
        int | None, typer.Option(min=1, help="Draw so many accepted pairs of each class instead of a page.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --each: another seed draws other pairs.")] = 0,
    split: SplitOption = "default",
    catalog: CatalogOption = None,
) -> None:
    """List pairs, page by page, or draw so many of each class, the same ones while the catalog grows."""
    if each is not None and after is not None:
        raise UsageError("--after pages through all pairs, --each draws some; one of the two")
    with open_catalog(console, catalog) as opened:
        if each is not None:
            pairs = opened.sample(each, where, seed=seed, split=split)
        else:
            pairs = opened.find(where, order=order, limit=limit, after=after, split=split)
    following = pairs[-1].id if each is None and len(pairs) == limit else None
    if console.json:
        console.put_json({"pairs": [listing.pair_json(pair) for pair in pairs], "next": following})
        return
    put_lines(console, listing.pair_lines(pairs))
    if following is not None:
        console.say(f"more: --after {following}")


@verb(app)
def show(
    console: Console,
    pair: Annotated[str, typer.Argument(metavar="ID", help="SESSION/PAIR.")],
    catalog: CatalogOption = None,
) -> None:
    """Show all that is known of a pair, back to the shutter release."""
    with open_catalog(console, catalog) as opened:
        details = opened.show(pair)
    if console.json:
        console.put_json({**asdict(details), "pair": listing.pair_json(details.pair)})
    else:
        put_lines(console, listing.detail_lines(details))


@verb(app)
def gallery(
    console: Console,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.html", help="Page to write.")],
    *,
    where: WhereOption = None,
    limit: Annotated[int, typer.Option(min=1, max=2_000, help="Pairs to show.")] = 60,
    each: Annotated[
        int | None, typer.Option(min=1, help="Draw so many accepted pairs of each class instead.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --each: another seed draws other pairs.")] = 0,
    split: SplitOption = "default",
    catalog: CatalogOption = None,
) -> None:
    """Show a selection on one offline page: ground truth beside degraded picture, by class."""
    from catalog.gallery import gallery_cards, render_gallery
    from catalog.session_folder import replace_file

    with open_catalog(console, catalog) as opened:
        if each is not None:
            pairs = shown = opened.sample(each, where, seed=seed, split=split)
        else:
            pairs = opened.find(where, limit=limit + 1, split=split)
            shown = pairs[:limit]
        with console.progress("pictures", len(shown)) as advance:
            cards = gallery_cards((opened.show(pair.id) for pair in shown), advance)
            page = render_gallery(cards, title=console.data.name, where=where, more=len(pairs) > len(shown))
    replace_file(output.absolute(), page.encode())
    if console.json:
        console.put_json({"page": str(output), "pairs": [pair.id for pair in shown]})
    else:
        console.put(str(output))


@verb(app)
def stats(
    console: Console,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Accepted pairs by degradation, level and scene instead.")
    ] = False,
    where: WhereOption = None,
    split: SplitOption = "default",
    catalog: CatalogOption = None,
) -> None:
    """Count pairs by class, scene and reject reason, or show what is covered and what is missing."""
    with open_catalog(console, catalog) as opened:
        if coverage:
            _put_coverage(console, opened.coverage(where, split=split))
        else:
            _put_statistics(console, opened.stats(where, split=split))


def _put_statistics(console: Console, statistics: Statistics) -> None:
    if console.json:
        console.put_json(asdict(statistics))
    else:
        put_lines(console, listing.statistics_lines(statistics))


def _put_coverage(console: Console, covered: Coverage) -> None:
    if console.json:
        console.put_json(listing.coverage_json(covered))
    else:
        put_lines(console, listing.coverage_lines(covered))


@verb(app)
def verify(
    console: Console,
    session: Annotated[str | None, typer.Argument(metavar="[SESSION]", help="This session only.")] = None,
    *,
    budget: Annotated[str | None, typer.Option(help="Time to spend: 90s, 10min, 2h.")] = None,
    workers: WorkersOption = 1,
    dask: DaskOption = None,
    catalog: CatalogOption = None,
) -> None:
    """Read files back and compare them with their recorded hashes, longest unseen first."""
    budget_s = None if budget is None else _seconds(budget)
    with (
        resumable(kept="what was seen so far"),
        open_catalog(console, catalog) as opened,
        console.progress("verify", None) as advance,
    ):
        report = opened.verify(session, budget_s=budget_s, workers=workers, dask=dask, advance=advance)
    if console.json:
        console.put_json(asdict(report))
    else:
        put_lines(console, listing.verify_lines(report))
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
    with open_catalog(console, catalog) as opened:
        report = opened.rebuild()
    if console.json:
        console.put_json({**asdict(report), "backup": report.backup and str(report.backup)})
    else:
        put_lines(console, listing.rebuild_lines(report))
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
    with open_catalog(console, catalog) as opened:
        backup = opened.migrate()
    if console.json:
        console.put_json({"migrated": backup is not None, "backup": backup and str(backup)})
    else:
        done = "already" if backup is None else f"now; backup: {backup}"
        console.put(f"the catalog is up to date {done}")


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
    with open_catalog(console, catalog) as opened:
        parts = opened.split(name, rule)
    if console.json:
        console.put_json({"split": name, "parts": parts})
    else:
        put_lines(console, listing.columns(("scene group", "part"), sorted(parts.items())))


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


for command in (accept, reject, label, undo, export, push, pull):
    verb(app)(command)
verb(app, "import-pairs")(import_pairs)


def main() -> None:
    """Run the command."""
    run_app(app)
