"""catalog accept | reject | label | undo: what people decide about pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from catalog.cli_options import (
    CatalogOption,
    PairsArgument,
    ReasonOption,
    WhereOption,
    chosen_pairs,
    open_catalog,
)
from catalog.console import Console

if TYPE_CHECKING:
    from catalog.decisions import DecisionReport
    from catalog.store import Catalog

    class Decide(Protocol):
        """A decision about some pairs."""

        def __call__(self, pairs: Sequence[str], *, reason: str) -> DecisionReport:
            """Decide."""
            ...


def _decision(decide: Callable[[Catalog], Decide], name: str, done: str, about: str) -> Callable[..., None]:
    """Make the command of one decision: which method of the catalog, its name, what it did, its help."""

    def command(
        console: Console,
        pairs: PairsArgument = None,
        where: WhereOption = None,
        reason: ReasonOption = "",
        catalog: CatalogOption = None,
    ) -> None:
        with open_catalog(console, catalog) as opened:
            report = decide(opened)(chosen_pairs(opened, pairs, where), reason=reason)
        _put_decision(console, done, report.pairs)

    command.__name__, command.__doc__ = name, about
    return command


accept = _decision(
    lambda catalog: catalog.accept, "accept", "accepted", "Accept pairs by hand, whatever alignment said."
)
reject = _decision(lambda catalog: catalog.reject, "reject", "rejected", "Reject pairs by hand.")


def undo(
    console: Console,
    pairs: PairsArgument = None,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Take back the last decision on each pair named, or the whole last accept, reject or label."""
    with open_catalog(console, catalog) as opened:
        report = opened.undo(pairs or (), reason=reason)
    _put_decision(console, "decision taken back", report.pairs)


def label(
    console: Console,
    labels: Annotated[
        Path, typer.Option("--from", metavar="FILE", help="Lines of JSON: pair or sha256, degradations, …")
    ],
    *,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Pass over what a classifier is less sure of.")
    ] = 0.0,
    reason: ReasonOption = "",
    catalog: CatalogOption = None,
) -> None:
    """Give pairs the classes that somebody saw or a classifier predicted; `undo` takes them back.

    A line: {"pair": "SESSION/PAIR", "degradations": ["haze", "rain"], "source": "Ada"}, or instead of the pair the
    "sha256" of its degraded picture, and for a classifier its "confidence". `models classify` writes such files.
    """
    from catalog.label_file import read_labels

    with open_catalog(console, catalog) as opened:
        report = opened.label(read_labels(labels), reason=reason, min_confidence=min_confidence)
    if console.json:
        console.put_json(asdict(report))
        return
    for pair in report.pairs:
        console.put(f"{pair}  labelled")
    console.say(
        f"{len(report.pairs)} pairs labelled anew, {report.unchanged} had that class, {report.unsure} labels unsure"
    )


def _put_decision(console: Console, what: str, pairs: Sequence[str]) -> None:
    if console.json:
        console.put_json({"decision": what, "pairs": list(pairs)})
        return
    for pair in pairs:
        console.put(f"{pair}  {what}")
