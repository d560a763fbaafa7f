"""The page of an audit: classes at a glance, distributions, and the worst pairs to look at; needs no network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignment.audit import error_px
from alignment.page import render_page
from alignment.report_axes import (
    INNER,
    LEFT,
    SERIES,
    Box,
    Drawing,
    Figure,
    Panel,
    arrows,
    decade_numbers,
    distribution,
    spread,
)
from alignment.report_pictures import PairCard, PairPictures, read_files
from alignment.report_words import number
from catalog.audit import AuditPair, AuditRecord, GroupSummary, PairMeasurement
from catalog.session_folder import replace_file

Array = NDArray[np.float64]

SHOWN_PAIRS = 60
"""Most pairs shown as pictures."""
PAGE_BYTES = 6_000_000
"""Most that they add to the page."""
LISTED_PAIRS = 400
"""Most pairs listed with their numbers; the JSON file has them all."""
_LEAST_PX = 1e-3
_PARALLAX_WORDS = {
    "none": "none",
    "parallax": "parallax",
    "moving_object": "movement",
    "unknown": "not known",
}


@dataclass(frozen=True)
class AuditPage:
    """Everything the template shows, in the order of the page."""

    record: AuditRecord
    counts: tuple[tuple[str, str, str], ...]
    groups: tuple[tuple[GroupSummary, str], ...]
    shares: Figure | None
    figures: tuple[Figure, ...]
    cards: tuple[PairCard, ...]
    listed: tuple[AuditPair, ...]
    failures: tuple[AuditPair, ...]


def write_audit_page(record: AuditRecord, root: Path, target: Path) -> Path:
    """Write the page beside an audit's JSON file, in one step, and return its path.

    Raises:
        OSError: It cannot be written.
    """
    page = target.with_suffix(".html")
    replace_file(page, render_audit(record, root).encode())
    return page


def render_audit(record: AuditRecord, root: Path) -> str:
    """Render the page of an audit.

    Args:
        record: What was found.
        root: The audited folder; pictures that are no longer there are left out.

    Returns:
        The HTML document; equal for equal input.
    """
    by_error = sorted(_measured(record), key=lambda p: (-_error(p), p.pair))
    page = AuditPage(
        record=record,
        counts=_counts(record),
        groups=tuple((g, group_name(g.group, record)) for g in record.groups),
        shares=_share_figure(record),
        figures=_histograms(record),
        cards=_cards(by_error, root),
        listed=tuple(by_error[:LISTED_PAIRS]),
        failures=tuple(p for p in record.pairs if p.measured is None),
    )
    return render_page("audit.html.j2", audit=page, parallax=_PARALLAX_WORDS)


def group_name(group: str, record: AuditRecord) -> str:
    """Name a class; the only one has the folder's name."""
    return group or record.folder


def _measured(record: AuditRecord) -> list[AuditPair]:
    return [p for p in record.pairs if p.measured is not None]


def _error(pair: AuditPair) -> float:
    return error_px(pair.measured) if pair.measured else 0.0


def _counts(record: AuditRecord) -> tuple[tuple[str, str, str], ...]:
    trusted = [p.measured for p in record.pairs if p.measured and p.measured.trustworthy]
    epe = [m.epe_px for m in trusted]
    verdicts = [p.verdict for p in record.pairs]
    counts = [
        (str(verdicts.count("aligned")), "", f"aligned within {record.aligned_px:g} px"),
        (str(verdicts.count("misaligned")), "", "misaligned"),
        (str(verdicts.count("untrusted")), "", "measured, not trusted"),
        (str(verdicts.count("not_measured")), "", "not measured"),
        (str(sum(m.parallax == "parallax" for m in trusted)), "", "with parallax"),
    ]
    if epe:
        counts.append((number(float(np.median(epe)), 3), "px", "displacement, median"))
        counts.append((number(float(np.percentile(epe, 95)), 3), "px", "displacement, p95"))
    return tuple(counts)


def _classes(record: AuditRecord) -> list[tuple[str, Array, Array]]:
    """Displacement and leftover of every class's trusted pairs."""
    found: dict[str, list[PairMeasurement]] = defaultdict(list)
    for pair in record.pairs:
        if pair.measured and pair.measured.trustworthy:
            found[pair.group].append(pair.measured)
    return [
        (
            group_name(group, record),
            np.array([m.epe_px for m in members]),
            np.array([m.local_p90_px for m in members if m.local_p90_px is not None]),
        )
        for group, members in found.items()
    ]


def _share_figure(record: AuditRecord) -> Figure | None:
    classes = _classes(record)
    if not classes:
        return None
    caption = (
        f"Share of the trusted pairs at or below each value; the dashed line marks {record.aligned_px:g} px."
    )
    decades = _decades(classes)
    height = 230 + 16 * (len(classes) // 2)
    drawing = Drawing("audit-share", height, title="Displacement, all classes", description=caption)
    entries = [("line", f"line s{i % SERIES}", name) for i, (name, _, _) in enumerate(classes)]
    y = drawing.legend(14, entries, left_px=LEFT)
    panel = Panel(drawing, Box(LEFT, y + 14, INNER, height - y - 54), x=decades, y=(0.0, 100.0))
    panel.axes("px, logarithmic", "% of pairs", y_ticks=5, x_numbers=decade_numbers(*decades))
    if decades[0] < np.log10(record.aligned_px) < decades[1]:
        panel.rule("line dashed limit", x=float(np.log10(record.aligned_px)))
    for i, (_, epe, _) in enumerate(classes):
        x, share = distribution(_log_px(epe))
        panel.line(np.maximum(x, decades[0]), share, f"line s{i % SERIES}")
    return Figure("Displacement, all classes", drawing.markup(), caption)


def _decades(classes: Sequence[tuple[str, Array, Array]]) -> tuple[float, float]:
    everything = np.concatenate([v for _, epe, local in classes for v in (epe, local)])
    return spread(_log_px(everything), margin=0.03, floor=0.3)


def _log_px(values: Array) -> Array:
    return np.asarray(np.log10(np.maximum(values, _LEAST_PX)), np.float64)


def _histograms(record: AuditRecord) -> tuple[Figure, ...]:
    classes = _classes(record)
    decades = _decades(classes) if classes else (0.0, 1.0)
    return tuple(_histogram(i, *c, decades) for i, c in enumerate(classes))


def _histogram(order: int, name: str, epe: Array, local: Array, decades: tuple[float, float]) -> Figure:
    caption = f"Displacement median {number(float(np.median(epe)), 3)} px"
    caption += f"; leftover median {number(float(np.median(local)), 3)} px." if local.size else "."
    drawing = Drawing(f"audit-{order}", 216, title=f"Class {name}", description=caption)
    css = f"s{order % SERIES}"
    entries = [("bar", f"bar {css}", "displacement"), ("line", "line ink", "leftover of the parts, p90")]
    y = drawing.legend(14, entries, left_px=LEFT)
    edges = np.linspace(*decades, 33)
    bars, outline = (np.histogram(_log_px(v), edges)[0] for v in (epe, local))
    box = Box(LEFT, y + 14, INNER, 216 - y - 54)
    panel = Panel(drawing, box, x=decades, y=(0, 1.1 * max(*bars, *outline, 1)))
    panel.axes("px, logarithmic", "pairs", y_ticks=3, x_numbers=decade_numbers(*decades))
    panel.bars(edges.tolist(), bars.tolist(), f"bar {css}")
    panel.steps(edges, outline, "line ink")
    return Figure(name, drawing.markup(), caption)


def _cards(by_error: Sequence[AuditPair], root: Path) -> tuple[PairCard, ...]:
    """Show the worst of every class in turn, so that one bad class does not hide the others."""
    groups: dict[str, list[AuditPair]] = defaultdict(list)
    for pair in by_error:
        groups[pair.group].append(pair)
    dealt = [p for p in chain.from_iterable(zip_longest(*groups.values())) if p is not None][:SHOWN_PAIRS]
    files = {p.pair: (root / p.gt, root / p.lq) for p in dealt}
    pictures = read_files(files, budget_bytes=PAGE_BYTES)
    shown = sorted((p for p in dealt if p.pair in pictures), key=lambda p: (-_error(p), p.pair))
    return tuple(_card(p, p.measured, pictures[p.pair]) for p in shown if p.measured)


def _card(pair: AuditPair, measured: PairMeasurement, pictures: PairPictures) -> PairCard:
    ecc = measured.ecc_shift_px
    facts = (
        ("shift, px", f"{number(measured.shift_px[0], 2)}, {number(measured.shift_px[1], 2)}"),
        ("p95, px", number(measured.epe_p95_px, 3)),
        ("turn, deg", ", ".join(number(a, 3) for a in measured.rotation_deg)),
        ("leftover, px", number(measured.local_p90_px, 3)),
        ("ECC, px", f"{number(ecc[0], 2)}, {number(ecc[1], 2)}" if ecc else "failed"),
        ("parts", _PARALLAX_WORDS[measured.parallax]),
        ("confidence", number(measured.confidence, 2)),
    )
    size = pair.width or 1, pair.height or 1
    shifts = [(s.x_px, s.y_px, s.dx_px, s.dy_px) for s in measured.local_map]
    return PairCard(pair.pair, pair.verdict, pictures, facts, arrows(size, shifts) if shifts else None)
