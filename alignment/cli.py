"""The command `alignment`: turn sessions into pairs, measure pairs, report."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.console import (
    Console,
    run_app,
    verb,
)

if TYPE_CHECKING:
    from catalog.evidence import AlignmentRecord, PairRecord

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes; default: one per processor.")]


@app.callback()
def _commands() -> None:
    """Turn sessions into pairs of frames that show the same view to a few hundredths of a pixel."""


@verb(app)
def run(
    console: Console,
    session: Annotated[str, typer.Argument(help="Name in the data folder, or a path.")],
    workers: WorkersOption = None,
) -> None:
    """Align a session: motion, matching, registration, gates, pairs."""
    from alignment.pairing import align_session
    from catalog.session_folder import SessionFolder

    folder = SessionFolder.find(session, console.data)
    with console.progress(f"aligning {folder.path.name}", 1.0) as advance:
        alignment = align_session(folder, workers=workers, progress=advance)
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
                "warnings": list(alignment.warnings),
            }
        )
        return
    for line in _table(rows):
        console.put(line)
    for warning in alignment.warnings:
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
    write_report(folder, target)
    if console.json:
        console.put_json({"session": folder.record().session, "report": str(target)})
    else:
        console.put(str(target))


@verb(app)
def measure(
    console: Console,
    gt: Annotated[Path, typer.Argument(help="Ground-truth picture.")],
    lq: Annotated[Path, typer.Argument(help="Degraded picture of the same size.")],
) -> None:
    """Measure the residual misalignment of two pictures."""
    from alignment.decode import read_still
    from alignment.misalignment import measure as measure_pictures

    found = measure_pictures(read_still(gt), read_still(lq))
    numbers = {k: v for k, v in vars(found).items() if k not in {"registration", "blur"}}
    numbers |= {"blur": found.blur.model_dump()}
    if console.json:
        console.put_json(numbers)
        return
    for name, value in numbers.items():
        console.put(f"{name}: {value}")


def main() -> None:
    """Run the command `alignment`."""
    run_app(app)
