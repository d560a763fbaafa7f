"""How the catalog's answers look on a terminal and in a file: plain columns, no escape codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalog.coverage import Coverage
    from catalog.export import ExportReport
    from catalog.ingest import AddReport
    from catalog.pair_details import PairDetails
    from catalog.rebuild import RebuildReport
    from catalog.selection import PairRow
    from catalog.statistics import Statistics
    from catalog.verify import VerifyReport

MAX_FINDINGS_SHOWN = 20
_MAX_SCENES_NAMED = 3


def columns(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield lines with the cells below each other; numbers to the right, None as a dash.

    >>> list(columns(("class", "pairs"), [("noise", 3), ("rain", 12)]))
    ['class  pairs', 'noise      3', 'rain      12']
    """
    body = list(rows)
    table = [list(header), *([_cell(value) for value in row] for row in body)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    right = [bool(body) and all(_is_number(row[i]) for row in body) for i in range(len(header))]
    for row in table:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        yield "  ".join(cells).rstrip()


def pair_lines(pairs: Sequence[PairRow]) -> Iterator[str]:
    """List pairs, one a line."""
    header = ("id", "scene", "round", "class", "iso", "status", "residual_px", "epe_px", "mu", "split")
    yield from columns(
        header,
        (
            (
                p.id,
                p.scene,
                p.round,
                p.degradation_class,
                p.iso,
                p.status,
                p.residual_px,
                p.predicted_epe_px,
                p.mu,
                p.split,
            )
            for p in pairs
        ),
    )


def pair_json(pair: PairRow) -> dict[str, Any]:
    """Return a pair with the names that filters use."""
    fields = pair._asdict()
    return {("class" if name == "degradation_class" else name): value for name, value in fields.items()}


def detail_lines(details: PairDetails) -> Iterator[str]:
    """Show one pair: facts, where both frames come from, files, gates and what happened to it."""
    facts: list[tuple[str, object]] = list(pair_json(details.pair).items())
    for side, frame in (("gt", details.gt), ("lq", details.lq)):
        place = f"{frame.time_s:.4f} s, {frame.position_mm:.3f} mm"
        facts.append((side, f"frame {frame.frame_index} of {frame.folder}, {place}"))
    for side, file in details.files.items():
        facts.append((f"{side} file", f"{file.path} ({file.state}, sha256 {file.sha256[:12]}…)"))
    facts += [(f"gate {gate}", measured) for gate, measured in details.gates.items()]
    for event in details.events:
        facts.append(
            ("event", f"{event['kind']} by {event['actor']}, {event['reason'] or 'no reason given'}")
        )
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        yield f"{name + ':':{width}}{_cell(value)}"


def statistics_lines(statistics: Statistics) -> Iterator[str]:
    """Show counts by class, by scene and by reject reason."""
    states = ("accepted", "rejected", "quarantined")
    yield f"{statistics.sessions} sessions, {_counts(statistics.pairs)} pairs, {_counts(statistics.files)} files"
    yield ""
    by_class = statistics.classes.items()
    yield from columns(("class", *states), ((k, *(n.get(s, 0) for s in states)) for k, n in by_class))
    yield ""
    by_scene = statistics.scenes.items()
    header = ("scene", "split", *states)
    yield from columns(header, ((k, n["part"], *(n.get(s, 0) for s in states)) for k, n in by_scene))
    if statistics.reasons:
        yield ""
        yield from columns(("rejected because of", "pairs"), statistics.reasons.items())
    if statistics.planned_by_utc_us is not None:
        yield ""
        yield f"queries are planned by statistics of {_utc(statistics.planned_by_utc_us)}"


def coverage_lines(coverage: Coverage) -> Iterator[str]:
    """Show one line per degradation and level: pairs, and the scenes that lack it."""
    levels: dict[tuple[str, str], list[int]] = {}
    for cell in coverage.cells:
        counts = levels.setdefault((cell.degradation, cell.level), [0, 0, 0])
        for i, more in enumerate((cell.isolated, cell.coupled, 1)):
            counts[i] += more
    header = ("degradation", "level", "isolated", "coupled", "scenes", "missing in")
    yield from columns(
        header, ((*level, *n, _named(coverage.missing(*level))) for level, n in levels.items())
    )
    yield f"{len(coverage.scenes)} scenes"


def _named(scenes: Sequence[str]) -> str:
    """Name the first of some scenes and say how many more there are."""
    more = len(scenes) - _MAX_SCENES_NAMED
    return ", ".join(scenes[:_MAX_SCENES_NAMED]) + (f" and {more} more" if more > 0 else "")


def coverage_json(coverage: Coverage) -> dict[str, Any]:
    """Return every cell, and the scenes that lack a level."""
    levels = dict.fromkeys((cell.degradation, cell.level) for cell in coverage.cells)
    return {
        "scenes": list(coverage.scenes),
        "cells": [{**asdict(cell), "pairs": cell.pairs} for cell in coverage.cells],
        "missing": [
            {"degradation": name, "level": level, "scenes": list(scenes)}
            for name, level in levels
            if (scenes := coverage.missing(name, level))
        ],
    }


def add_line(report: AddReport) -> str:
    """Say in one line what adding a session did."""
    pairs = f"{report.accepted} accepted, {report.rejected} rejected"
    if report.quarantined:
        pairs += f", {report.quarantined} quarantined"
    kept = f", {report.decisions_kept} decisions kept" if report.decisions_kept else ""
    return f"{report.session}  {report.outcome}  {pairs} pairs, {report.files} files{kept}"


def export_lines(report: ExportReport) -> Iterator[str]:
    """Show what an export holds: classes by part, and what stayed out."""
    parts = ("train", "val", "test")
    rows = [(name, *(n.get(p, 0) for p in parts), sum(n.values())) for name, n in report.classes.items()]
    sums = [sum(column) for column in list(zip(*rows, strict=True))[1:]] if rows else [0] * 4
    yield from columns(("class", *parts, "all"), [*rows, ("all", *sums)])
    for reason, count in report.left_out.items():
        yield f"left out: {count} pairs ({reason})"


def verify_lines(report: VerifyReport) -> Iterator[str]:
    """Show how much was looked at and every problem, the first ones in full."""
    rate = report.nbytes / 1e6 / report.seconds if report.seconds else 0.0
    yield f"{report.checked} files read, {report.nbytes / 1e6:.1f} MB, {rate:.0f} MB/s, {report.remaining} left"
    if report.recovered:
        yield f"{report.recovered} files are whole again"
    for finding in report.findings[:MAX_FINDINGS_SHOWN]:
        yield f"{finding.state}: {finding.session}:{finding.path}: {finding.problem}"
    if (more := len(report.findings) - MAX_FINDINGS_SHOWN) > 0:
        yield f"and {more} more; --json lists all"


def rebuild_lines(report: RebuildReport) -> Iterator[str]:
    """Show what a rebuild brought back."""
    yield f"{len(report.sessions)} sessions, content {report.content_sha256[:16]}…"
    if report.content_sha256_before is not None:
        same = report.content_sha256_before == report.content_sha256
        yield "the same content as before" if same else "not the content of before"
    if report.backup is not None:
        yield f"old catalog: {report.backup}"
    yield from (f"problem: {problem}" for problem in report.problems)


def _utc(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
