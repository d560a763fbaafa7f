"""Rows of single pairs put together by class and method: numbers, a Markdown table, a plot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

Row = dict[str, Any]
Document = dict[str, Any]


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Document]]:
    """Put rows together: class, method, key."""
    classes = dict.fromkeys(row["class"] for row in rows)
    methods = dict.fromkeys(row["method"] for row in rows)
    return {
        kind: {
            method: _summary(chosen)
            for method in methods
            if (chosen := [r for r in rows if r["class"] == kind and r["method"] == method])
        }
        for kind in classes
    }


def _summary(rows: Sequence[Row]) -> Document:
    found = {
        "pairs": len(rows),
        **_spread("estimate_epe_px", (r["estimate_px"] for r in rows)),
        **_spread("delivered_epe_px", (r["delivered_px"] for r in rows)),
        "local_p95_px": _round(median(r["local_p95_px"] for r in rows)),
        "fail_share": _round(_share(r["failed"] for r in rows)),
        "gt_warped_share": _round(_share(r["gt_warped"] for r in rows)),
        "cpu_ms_per_pair": round(median(r["cpu_ms"] for r in rows), 1),
    }
    told = [r for r in rows if "predicted_px" in r]
    return {**found, **_evidence(told)} if told else found


def _evidence(rows: Sequence[Row]) -> Document:
    """What only ours says about itself."""
    return {
        "efficiency": _round(median(r["bound_px"] / max(r["estimate_rms_px"], 1e-9) for r in rows)),
        "bound_px": _round(median(r["bound_px"] for r in rows)),
        "predicted_epe_px": _round(median(r["predicted_px"] for r in rows)),
        "coverage": _round(_share(r["delivered_px"] <= r["predicted_px"] for r in rows)),
        "coverage_of_points": _round(float(np.mean([r["inside_share"] for r in rows]))),
        "rejected_share": _round(_share(bool(r["reasons"]) for r in rows)),
        "reasons": dict(Counter(reason for r in rows for reason in r["reasons"])),
        "gap_error_mm": _middle(r["gap_error_mm"] for r in rows),
        "models": dict(Counter(r["model"] for r in rows)),
        "blur_kinds": dict(Counter(r["blur"][0] for r in rows)),
        "blur_size_px": _round(median(r["blur"][1] for r in rows)),
        "masked_share": _round(median(r["masked_share"] for r in rows)),
    }


def _spread(name: str, values: Iterable[float]) -> Document:
    array = np.array(list(values))
    return {f"{name}_median": _round(np.median(array)), f"{name}_p95": _round(np.percentile(array, 95))}


def _middle(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return _round(median(known)) if known else None


def _share(flags: Iterable[bool]) -> float:
    return float(np.mean(list(flags)))


def _round(value: float) -> float:
    return round(float(value), 4)


def markdown(document: Document) -> str:
    """Tabulate delivered errors, median and 95th percentile of pairs, a row per method and a column per class."""
    classes = document["classes"]
    methods = list(dict.fromkeys(m for kind in classes.values() for m in kind))
    lines = [f"| {' | '.join(['delivered px', *classes, 'CPU ms'])} |", "|---" * (len(classes) + 2) + "|"]
    for method in methods:
        cells = [_cell(kind.get(method)) for kind in classes.values()]
        costs = [kind[method]["cpu_ms_per_pair"] for kind in classes.values() if method in kind]
        lines.append(f"| {' | '.join([method, *cells, f'{median(costs):.0f}'])} |")
    for key in ("predicted_epe_px", "coverage", "coverage_of_points", "efficiency", "rejected_share"):
        cells = [f"{kind.get('cleanplate', {}).get(key, float('nan')):.3g}" for kind in classes.values()]
        lines.append(f"| {' | '.join([key, *cells, ''])} |")
    lines += [
        "",
        *(
            f"- [{'x' if g['met'] else ' '}] {g['what']}: {g['number']} ({g['limit']})"
            for g in document["goals"]
        ),
    ]
    return "\n".join(lines)


def _cell(found: Document | None) -> str:
    if found is None:
        return "-"
    failed = f" f{100 * found['fail_share']:.0f}%" if found["fail_share"] else ""
    return f"{found['delivered_epe_px_median']:.3f} ({found['delivered_epe_px_p95']:.3f}){failed}"


def plot(document: Document, path: Path) -> None:
    """Draw the delivered errors as dots, a line per class, on a logarithmic axis; SVG, drawn by hand."""
    classes = document["classes"]
    colours = (
        "#0b6e4f",
        "#6fb98f",
        "#b7d8c4",
        "#bbbbbb",
        "#c1121f",
        "#e36414",
        "#fb8b24",
        "#5f0f40",
        "#9a031e",
        "#0f4c5c",
    )
    methods = list(dict.fromkeys(m for kind in classes.values() for m in kind))
    colour = dict(zip(methods, colours, strict=False))
    parts = [_text(170 + 105 * i, 18, m, colour.get(m, "#000")) for i, m in enumerate(methods)]
    for row, (name, kind) in enumerate(classes.items()):
        y = 50 + 22 * row
        parts += [f'<path d="M150 {y}H1110" stroke="#ddd"/>', _text(10, y + 4, name, "#222")]
        parts += [
            f'<circle cx="{_across(v["delivered_epe_px_median"]):.1f}" cy="{y}" r="5" fill="{colour.get(m, "#000")}"/>'
            for m, v in reversed(kind.items())
        ]
    bottom = 50 + 22 * len(classes)
    for tick in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3):
        x = _across(tick)
        parts += [
            f'<path d="M{x:.1f} 34V{bottom}" stroke="#eee"/>',
            _text(x - 10, bottom + 14, f"{tick:g} px", "#555"),
        ]
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1130" height="{bottom + 24}" {style}>\n{body}\n</svg>\n'
    )


def _across(px: float) -> float:
    return float(150 + 960 * np.clip((np.log10(max(px, 1e-4)) + 3) / 4, 0, 1))


def _text(x: float, y: float, words: str, fill: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{fill}">{words}</text>'
