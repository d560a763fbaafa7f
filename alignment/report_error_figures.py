"""The report's figures of errors: how well accepted pairs fit, and why the other candidates were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.report_axes import (
    INNER,
    LEFT,
    RIGHT,
    SERIES,
    WIDTH,
    Box,
    Drawing,
    Figure,
    Panel,
    decade_numbers,
    distribution,
    spread,
)
from alignment.report_source import ReportSource, RoundSource
from alignment.report_words import number, reason_words, with_unit
from catalog.evidence import PairRecord

Array = NDArray[np.float64]

_LEAST_PX = 1e-4
_REASON_COLOURS = 8


@dataclass(frozen=True)
class _ErrorClass:
    """The accepted pairs of one class of degradations."""

    name: str
    residual_px: Array
    predicted_px: Array
    local_px: Array
    """90th percentile of what parts of the picture do on their own."""
    bound_px: Array


def _error_classes(source: ReportSource) -> list[_ErrorClass]:
    names = dict.fromkeys(r.degradation for r in source.degraded if r.accepted)
    return [_error_class(name, source) for name in names]


def _error_class(name: str, source: ReportSource) -> _ErrorClass:
    pairs = [p for r in source.degraded if r.degradation == name for p in r.accepted]
    return _ErrorClass(
        name,
        residual_px=_known(p.residual_px for p in pairs),
        predicted_px=_known(p.predicted_epe_px for p in pairs),
        local_px=_known(p.gates.get("local_map") for p in pairs),
        bound_px=_known(p.bound_px for p in pairs),
    )


def _known(values: Iterable[float | None]) -> Array:
    return np.array([v for v in values if v is not None], np.float64)


def error_figures(source: ReportSource) -> tuple[Figure, ...]:
    """Draw residual, predicted error and leftover of the parts: histograms per class, distributions of all classes."""
    classes = _error_classes(source)
    if not classes:
        return ()
    shares = [
        _share_figure("residual", "Residual, all classes", [(c.name, c.residual_px) for c in classes]),
        _share_figure(
            "predicted", "Predicted error, all classes", [(c.name, c.predicted_px) for c in classes]
        ),
        _share_figure("local", "Leftover of the parts, all classes", [(c.name, c.local_px) for c in classes]),
    ]
    decades = _error_decades(classes)
    return (*shares, *(_error_histogram(i, c, decades) for i, c in enumerate(classes)))


def _error_decades(classes: Sequence[_ErrorClass]) -> tuple[float, float]:
    """Range of log10 of all errors; below a ten-thousandth of a pixel nothing is told apart."""
    everything = np.concatenate([v for c in classes for v in (c.residual_px, c.predicted_px, c.local_px)])
    return spread(_log_px(everything), margin=0.03, floor=0.3)


def _log_px(values: Array) -> Array:
    return np.asarray(np.log10(np.maximum(values, _LEAST_PX)), np.float64)


def _error_histogram(order: int, errors: _ErrorClass, decades: tuple[float, float]) -> Figure:
    caption = "; ".join(
        (
            _summary("Residual", errors.residual_px),
            _summary("predicted", errors.predicted_px),
            _summary("leftover of the parts", errors.local_px),
            f"Cramér–Rao bound median {_median_words(errors.bound_px)}.",
        )
    )
    title = f"Class {errors.name}: residual and predicted error"
    drawing = Drawing(f"errors-{order}", 216, title=title, description=caption)
    css = f"s{order % SERIES}"
    entries = [
        ("bar", f"bar {css}", "residual"),
        ("line", "line ink", "predicted 95 % radius"),
        ("line", "line dashed commanded", "leftover of the parts, p90"),
    ]
    y = drawing.legend(14, entries, left_px=LEFT)
    edges = np.linspace(*decades, 33)
    residual, predicted, local = (
        np.histogram(_log_px(v), edges)[0] for v in (errors.residual_px, errors.predicted_px, errors.local_px)
    )
    box = Box(LEFT, y + 14, INNER, 216 - y - 54)
    panel = Panel(drawing, box, x=decades, y=(0, 1.1 * max(*residual, *predicted, *local, 1)))
    panel.axes("px, logarithmic", "pairs", y_ticks=3, x_numbers=decade_numbers(*decades))
    panel.bars(edges.tolist(), residual.tolist(), f"bar {css}")
    panel.steps(edges, local, "line dashed commanded")
    panel.steps(edges, predicted, "line ink")
    return Figure(errors.name, drawing.markup(), caption)


def _median_words(values: Array) -> str:
    return with_unit(float(np.median(values)) if values.size else None, 4, "px")


def _summary(what: str, values: Array) -> str:
    if not values.size:
        return f"{what} not known"
    middle, high = (number(float(np.percentile(values, q)), 3) for q in (50, 95))
    return f"{what} median {middle} px, p95 {high} px"


def _share_figure(name: str, title: str, classes: Sequence[tuple[str, Array]]) -> Figure:
    caption = "Share of the accepted pairs at or below each value; the dashed line marks 95 %."
    drawing = Drawing(f"share-{name}", 290, title=title, description=caption)
    shown = [(i, label, v) for i, (label, v) in enumerate(classes) if v.size]
    high = max((1.1 * float(np.percentile(v, 99.5)) for _, _, v in shown), default=0.1)
    entries = [("line", f"line s{i % SERIES}", label) for i, label, _ in shown]
    y = drawing.legend(14, entries, left_px=LEFT)
    box = Box(LEFT, y + 14, INNER, 290 - y - 54)
    panel = Panel(drawing, box, x=(0.0, max(high, _LEAST_PX)), y=(0.0, 100.0))
    panel.axes("px", "% of pairs", y_ticks=5)
    panel.rule("line dashed limit", y=95.0)
    for i, _, values in shown:
        x, share = distribution(values)
        inside = x <= high
        panel.line(x[inside], share[inside], f"line s{i % SERIES}")
    return Figure(title, drawing.markup(), caption)


def place_figure(source: ReportSource) -> Figure | None:
    """Draw the residual over the position along the rail: a bad stretch of the rail shows as a hump."""
    rounds = [r for r in source.degraded if any(p.residual_px is not None for p in r.accepted)]
    if not rounds:
        return None
    caption = "A stretch of the rail that is worse than the rest would show as a hump in every round."
    drawing = Drawing("place", 290, title="Residual over position", description=caption)
    entries = [(f"dot{i}", f"dot s{i % SERIES}", r.name) for i, r in enumerate(rounds)]
    y = drawing.legend(14, entries, left_px=LEFT)
    points = [_residuals_by_place(r) for r in rounds]
    box = Box(LEFT, y + 14, INNER, 290 - y - 54)
    everywhere = spread(np.concatenate([x for x, _ in points]), margin=0.02)
    high = 1.1 * max(float(v.max()) for _, v in points)
    panel = Panel(drawing, box, x=everywhere, y=(0.0, max(high, 0.01)))
    panel.axes("position in mm", "residual in px", y_ticks=5)
    for i, (x, residual) in enumerate(points):
        panel.dots(x, residual, f"dot faint s{i % SERIES}", kind=i)
    return Figure("Residual over position", drawing.markup(), caption)


def _residuals_by_place(round_: RoundSource) -> tuple[Array, Array]:
    rows = [(p.lq.position_mm, p.residual_px) for p in round_.accepted if p.residual_px is not None]
    table = np.asarray(rows, np.float64)
    return table[:, 0], table[:, 1]


def verdict_figure(source: ReportSource) -> Figure | None:
    """Draw a bar per round: how many candidates were accepted, and why the others were not."""
    rounds = [r for r in source.degraded if r.pairs]
    if not rounds:
        return None
    totals = Counter(_first_reason(p) for r in rounds for p in r.rejected)
    colours = {code: i for i, (code, _) in enumerate(totals.most_common(_REASON_COLOURS - 1))}
    caption = "Each candidate counts once, under the first gate that refused it."
    height = 44 + 26 * len(rounds) + 16 * (2 + len(colours) // 2)
    drawing = Drawing("verdicts", height, title="Accepted and rejected candidates", description=caption)
    entries = [("bar", "bar accepted", "accepted")]
    entries += [("bar", f"bar r{i}", _reason_label(code, totals[code])) for code, i in colours.items()]
    if len(totals) > len(colours):
        entries.append(("bar", "bar other", "other reasons"))
    y = drawing.legend(14, entries, left_px=8)
    _verdict_bars(drawing, rounds, colours, top_px=y + 4)
    drawing.root.set("viewBox", f"0 0 {WIDTH} {y + 4 + 26 * len(rounds) + 36:.0f}")
    return Figure("Accepted and rejected", drawing.markup(), caption)


def _reason_label(code: str, count: int) -> str:
    return f"{reason_words(code).title.lower()} ({count})"


def _first_reason(pair: PairRecord) -> str:
    return pair.reasons[0] if pair.reasons else "no reason given"


def _verdict_bars(
    drawing: Drawing, rounds: Sequence[RoundSource], colours: Mapping[str, int], *, top_px: float
) -> None:
    longest = max(len(r.pairs) for r in rounds)
    left = 14 + 6.3 * min(max(len(r.name) for r in rounds), 22)
    box = Box(left, top_px, WIDTH - left - RIGHT, 26.0 * len(rounds))
    panel = Panel(drawing, box, x=(0, 1.02 * longest), y=(0, 1))
    panel.axes("candidates", "", y_ticks=0)
    for i, round_ in enumerate(rounds):
        y = top_px + 26 * i
        drawing.text(left - 6, y + 17, _shortened(round_.name), "tick", anchor="end")
        _stack(drawing, panel, round_, colours, y)


def _shortened(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


def _stack(
    drawing: Drawing, panel: Panel, round_: RoundSource, colours: Mapping[str, int], y_px: float
) -> None:
    start = 0
    for css, words, count in _segments(round_, colours):
        left, right = panel.x(start), panel.x(start + count)
        drawing.rectangle(
            Box(left, y_px + 4, right - left - 0.7, 18), css, tip=f"{round_.name}: {words} {count}"
        )
        if right - left > 30:
            drawing.text((left + right) / 2, y_px + 17, str(count), "on-bar", anchor="middle")
        start += count


def _segments(round_: RoundSource, colours: Mapping[str, int]) -> Iterable[tuple[str, str, int]]:
    counts = Counter(_first_reason(p) for p in round_.rejected)
    if round_.accepted:
        yield "bar accepted", "accepted", len(round_.accepted)
    for code, i in colours.items():
        if counts[code]:
            yield f"bar r{i}", reason_words(code).title.lower(), counts[code]
    other = sum(n for code, n in counts.items() if code not in colours)
    if other:
        yield "bar other", "other reasons", other
