"""catalog accept | reject | undo: what people decide about pairs."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.cli_options import (
    CatalogOption,
    PairsArgument,
    ReasonOption,
    WhereOption,
    chosen_pairs,
    open_catalog,
)
from catalog.console import Console


def accept(
    console: Console,
    pairs: PairsArgument = None,
    where: WhereOption = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Accept pairs by hand, whatever alignment said."""
    with open_catalog(console, catalog) as opened:
        report = opened.accept(chosen_pairs(opened, pairs, where), reason=reason)
    _put_decision(console, "accepted", report.pairs)


def reject(
    console: Console,
    pairs: PairsArgument = None,
    where: WhereOption = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Reject pairs by hand."""
    with open_catalog(console, catalog) as opened:
        report = opened.reject(chosen_pairs(opened, pairs, where), reason=reason)
    _put_decision(console, "rejected", report.pairs)


def undo(
    console: Console,
    pairs: PairsArgument = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Take back the last decision on each pair named, or the whole last accept or reject."""
    with open_catalog(console, catalog) as opened:
        report = opened.undo(pairs or (), reason=reason)
    _put_decision(console, "decision taken back", report.pairs)


def _put_decision(console: Console, what: str, pairs: Sequence[str]) -> None:
    if console.json:
        console.put_json({"decision": what, "pairs": list(pairs)})
        return
    for pair in pairs:
        console.put(f"{pair}  {what}")
