"""The command `alignment`: turn sessions into pairs, measure pairs, report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.console import Console, keep_to_one_blas_thread, run_app, verb
from catalog.errors import CleanplateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from alignment.board_sheets import Sheet
    from catalog.audit import AuditRecord
    from catalog.evidence import AlignmentRecord, PairRecord
    from catalog.session_folder import SessionFolder

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; default: one per processor.")]


DaskOption = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler to work on, such as tcp://host:8786.")
]


@app.callback()
def _commands() -> None:
    """Turn sessions into pairs of frames that show the same view to a few hundredths of a pixel."""


@verb(app)
def run(
    console: Console,
    sessions: Annotated[
        list[str], typer.Argument(metavar="SESSION...", help="Names in the data folder, or paths.")
    ],
    workers: WorkersOption = None,
    dask: DaskOption = None,
) -> None:
    """Align sessions: write pairs/, pairs.jsonl and alignment.json into each; prints what became of every round."""
    from catalog.executors import open_executor
    from catalog.session_folder import SessionFolder

    folders = [SessionFolder.find(name, console.data) for name in sessions]
    failed: list[CleanplateError] = []
    count = workers if workers or dask else os.cpu_count()
    with open_executor(workers=count, dask=dask) as executor:
        for folder in folders:
            try:
                _align(console, folder, executor, workers=count)
            except CleanplateError as error:
                failed.append(error)
                if len(folders) > 1:
                    console.say(f"not aligned: {folder.path.name}: {error}")
    if failed:
        raise failed[0]


def _align(console: Console, folder: SessionFolder, executor: Executor, *, workers: int | None) -> None:
    from alignment.pairing import align_session

    with console.progress(f"aligning {folder.path.name}", 1.0) as advance:
        alignment = align_session(folder, executor=executor, workers=workers, progress=advance)
    _show_session(console, alignment, folder.pairs(), folder.path)


def _show_session(console: Console, alignment: AlignmentRecord, pairs: list[PairRecord], path: Path) -> None:
    rows = [_round_row(alignment, pairs, motion.round) for motion in alignment.rounds]
    if console.json:
        kept = sum(p.verdict == "accepted" for p in pairs)
        console.put_json(
            {
                "session": alignment.session,
                "folder": str(path),
                "accepted": kept,
                "rejected": len(pairs) - kept,
                "rounds": rows,
                "warnings": list(alignment.all_warnings),
            }
        )
        return
    for line in _table(rows):
        console.put(line)
    for warning in alignment.all_warnings:
        console.say(f"warning: {warning}")


def _round_row(alignment: AlignmentRecord, pairs: list[PairRecord], name: str) -> dict[str, Any]:
    from statistics import median

    motion = next(m for m in alignment.rounds if m.round == name)
    own = [p for p in pairs if p.lq.round == name]
    kept = [p for p in own if p.verdict == "accepted"]
    residuals = [p.predicted_epe_px for p in kept if p.predicted_epe_px is not None]
    counts = Counter(reason for p in own for reason in p.reasons)
    return {
        "round": name,
        "verdict": motion.verdict,
        "velocity_mm_s": motion.velocity_mm_s,
        "evidence": list(motion.evidence),
        "kept": len(kept),
        "rejected": len(own) - len(kept),
        "predicted_epe_px": median(residuals) if residuals else None,
        "reasons": {**dict.fromkeys(motion.reasons, 0), **dict(sorted(counts.items()))},
    }


def _table(rows: list[dict[str, Any]]) -> list[str]:
    width = max([len("round"), *(len(r["round"]) for r in rows)])
    head = f"{'round':<{width}}  motion       mm/s   kept  rejected  epe px  reasons"
    return [head, *(_table_line(row, width) for row in rows)]


def _table_line(row: dict[str, Any], width: int) -> str:
    from alignment.gates import REASON_TEXTS

    speed = "-" if row["velocity_mm_s"] is None else f"{row['velocity_mm_s']:.2f}"
    epe = "-" if row["predicted_epe_px"] is None else f"{row['predicted_epe_px']:.3f}"
    reasons = ", ".join(
        f"{code} ({REASON_TEXTS.get(code, code)})" + (f" x{count}" if count else "")
        for code, count in row["reasons"].items()
    )
    return (
        f"{row['round']:<{width}}  {row['verdict']:<8}  {speed:>7}  {row['kept']:>5}  {row['rejected']:>8}"
        f"  {epe:>6}  {reasons}"
    ).rstrip()


@verb(app)
def report(
    console: Console,
    session: Annotated[str, typer.Argument(help="Name in the data folder, or a path.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page to write.", show_default="report.html in the session"),
    ] = None,
) -> None:
    """Write one offline HTML page about a session; prints its path."""
    from alignment.report import write_report
    from catalog.session_folder import REPORT_FILE, SessionFolder

    folder = SessionFolder.find(session, console.data)
    target = (output or folder.path / REPORT_FILE).absolute()
    with _writing(target):
        write_report(folder, target)
    if console.json:
        console.put_json({"session": folder.record().session, "report": str(target)})
    else:
        console.put(str(target))


@verb(app)
def measure(
    console: Console,
    gt: Annotated[Path, typer.Argument(help="Ground-truth picture.", exists=True, dir_okay=False)],
    lq: Annotated[
        Path, typer.Argument(help="Degraded picture of the same size.", exists=True, dir_okay=False)
    ],
) -> None:
    """Measure how two pictures lie to each other: shift, rotation, what parts do on their own, and how sure that is."""
    from alignment.audit_pair import measure_pictures
    from alignment.measure_words import measurement_lines

    found = measure_pictures(gt, lq)
    if console.json:
        console.put_json(found.model_dump(mode="json"))
        return
    for line in measurement_lines(found):
        console.put(line)


@verb(app)
def audit(
    console: Console,
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of pairs, or where --list's paths begin.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON file to write; the page comes beside it.")
    ] = Path("audit.json"),
    gt: Annotated[str | None, typer.Option("--gt", help="Pattern of the ground-truth files.")] = None,
    lq: Annotated[str | None, typer.Option("--lq", help="Pattern of the degraded files.")] = None,
    pairs_list: Annotated[
        Path | None, typer.Option("--list", help="List of pairs: 'GT path, LQ path' in each line.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many pairs, drawn by lot.")] = None,
    aligned_px: Annotated[
        float, typer.Option(min=0.01, help="Largest displacement of an aligned pair, px.")
    ] = 0.5,
    workers: WorkersOption = None,
    dask: DaskOption = None,
) -> None:
    """Measure how far the pairs of a published dataset are off; writes JSON and a page to look at."""
    from alignment.audit import audit_pairs
    from alignment.audit_page import write_audit_page
    from catalog.executors import open_executor
    from catalog.pair_folders import list_pairs

    output = output.with_suffix(".json") if output.suffix == ".html" else output
    listing = list_pairs(folder, gt=gt, lq=lq, pairs_list=pairs_list)
    count = min(limit or len(listing.pairs), len(listing.pairs))
    with (
        _writing(output),
        open_executor(workers=workers, dask=dask) as executor,
        console.progress(f"auditing {listing.root.name}", count) as advance,
    ):
        record = audit_pairs(
            listing, output, executor=executor, aligned_px=aligned_px, limit=limit, progress=advance
        )
    page = write_audit_page(record, listing.root, output)
    _show_audit(console, record, output, page)


def _show_audit(console: Console, record: AuditRecord, output: Path, page: Path) -> None:
    if console.json:
        head = record.model_dump(mode="json", exclude={"pairs", "schema_"})
        console.put_json({**head, "audit": str(output), "page": str(page)})
        return
    console.put("class                    pairs  trusted  aligned  misaligned  parallax  median px  p95 px")
    for group in record.groups:
        name, numbers = group.group or record.folder, (group.epe_px_median, group.epe_px_p95)
        median_px, p95_px = ("-" if n is None else f"{n:.3f}" for n in numbers)
        console.put(
            f"{name:<24}{group.pairs:>6}{group.trusted:>9}{group.aligned:>9}{group.misaligned:>12}"
            f"{group.parallax:>10}{median_px:>11}{p95_px:>8}"
        )
    unread = sum(pair.measured is None for pair in record.pairs)
    if unread:
        console.say(f"warning: {unread} pairs could not be measured; {output} says why for each")
    console.say(f"written: {output} and {page}")


@verb(app)
def markers(
    console: Console,
    output: Annotated[Path, typer.Option("--output", "-o", help="PDF to write.")],
    profile: Annotated[
        str | None, typer.Option(help="Rig profile whose boards to print, and whose lens to advise for.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=20, help="Boards, each with ids of its own.")] = 2,
    columns: Annotated[int, typer.Option(min=3, max=40, help="Squares across.")] = 7,
    rows: Annotated[int, typer.Option(min=3, max=39, help="Squares down; odd.")] = 5,
    square_mm: Annotated[float, typer.Option(min=2, help="Side of a square, mm.")] = 32.0,
    marker_mm: Annotated[
        float | None, typer.Option(min=1, help="Side of a marker, mm.", show_default="3/4 of the square")
    ] = None,
    dictionary: Annotated[str, typer.Option(help="OpenCV's name of the marker dictionary.")] = "DICT_4X4_50",
    first_id: Annotated[int, typer.Option(min=0, help="First marker id of the first board.")] = 0,
    paper: Annotated[
        str, typer.Option(help="auto (smallest of a4 to a0), a4, letter, ..., or WxH in mm.")
    ] = "auto",
    split: Annotated[bool, typer.Option("--split", help="Spread large boards over several sheets.")] = False,
) -> None:
    """Write marker boards to print, to scale, with rulers and instructions."""
    from alignment import board_plan
    from alignment.board_sheets import parse_paper
    from alignment.boards_pdf import write_boards

    geometry = board_plan.Geometry(columns, rows, square_mm, marker_mm, dictionary)
    if profile is not None:
        boards, view = board_plan.profile_boards(profile)
    else:
        boards, view = board_plan.uniform_boards(geometry, count, first_id=first_id), None
    with _writing(output):
        sheets = write_boards(boards, output, view=view, paper=parse_paper(paper), split=split)
    for warning in board_plan.warnings(boards, view) if view else ():
        console.say(f"warning: {warning}")
    _show_sheets(console, sheets, output)


def _show_sheets(console: Console, sheets: Sequence[Sheet], output: Path) -> None:
    from alignment.boards_pdf import board_label

    if console.json:
        pages = [
            {"page": page, "board": s.board_number, "paper": s.paper.name, "spec": s.board.model_dump()}
            for page, s in enumerate(sheets, start=2)
        ]
        console.put_json({"file": str(output), "sheets": pages})
        return
    for sheet in sheets:
        console.put(f"{sheet.paper.name}: {board_label(sheet)}")
    console.say(f"written: {output}")


@verb(app)
def calibrate(
    console: Console,
    session: Annotated[str, typer.Argument(help="Name in the data folder, or a path.")],
) -> None:
    """Measure lens, rail, shutter, tone curve and noise of the rig that recorded a session; stores it for later ones.

    Best of a session of the plan hardware/plans/calibration.yaml, with boards of 6 px a module and more in the picture.
    """
    from alignment.calibration.measure import calibrate_session
    from alignment.calibration.page import write_calibration_page
    from alignment.calibration.store import store_calibration
    from alignment.calibration.summary import summary_lines
    from catalog.session_folder import SessionFolder

    folder = SessionFolder.find(session, console.data)
    with console.progress(f"calibrating by {folder.path.name}", 1.0) as advance:
        stored = store_calibration(calibrate_session(folder, progress=advance), console.data)
    with _writing(stored.path.with_suffix(".html")):
        page = write_calibration_page(stored)
    if console.json:
        measured = stored.calibration.model_dump(mode="json", by_alias=True)
        console.put_json(
            {"hash": stored.hash, "file": str(stored.path), "page": str(page), "calibration": measured}
        )
        return
    for line in summary_lines(stored):
        console.put(line)
    for warning in stored.calibration.warnings:
        console.say(f"warning: {warning}")
    console.say(f"written: {stored.path} and {page.name}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a file that cannot be written into an error that names it."""
    from alignment.errors import UnwritableError

    try:
        yield
    except CleanplateError:
        raise  # some of ours are OSErrors as well, and say more
    except OSError as error:
        raise UnwritableError(
            f"{path}: cannot be written: {error.strerror or error}",
            kept="an older file of this name, if there was one",
            next_step="choose another place with -o",
        ) from error


def main() -> None:
    """Run the command `alignment`."""
    keep_to_one_blas_thread()
    run_app(app)
