"""What the verbs of `catalog` share: options, opening the catalog, choosing pairs, printing lines."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from catalog.console import Console
from catalog.errors import CatalogError, ExitCode

if TYPE_CHECKING:
    from catalog.store import Catalog

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
        "split source. Signs: = != < <= > >= ~ !~ (part of a text, * for anything) in is null and or not ( ). "
        "A value that is not known passes no comparison, and so every negation: != !~ not in, not (...).",
    ),
]
SplitOption = Annotated[str, typer.Option("--split", help="Named split; `default` hashes the scene.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the event log.")]
PairsArgument = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Pairs, SESSION/PAIR.")]


WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes.")]
DaskOption = Annotated[
    str | None, typer.Option("--dask", metavar="ADDRESS", help="Dask scheduler to work on.")
]


class UsageError(CatalogError, ValueError):
    """The options of a command do not fit together."""

    code = "CAT-CLI-001"
    exit_code = ExitCode.INVALID_INPUT


class StoppedError(CatalogError):
    """A command was interrupted; giving it again goes on with it."""

    code = "CAT-CLI-002"
    exit_code = ExitCode.INTERRUPTED


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: whoever stops a service gets the same order and the same message."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def resumable(*, kept: str) -> Iterator[None]:
    """Turn an interruption into an error whose next step is the command itself, without what would start anew.

    Raises:
        StoppedError: The block was interrupted.
    """
    try:
        with terminable():
            yield
    except KeyboardInterrupt:
        command = shlex.join(["catalog", *(word for word in sys.argv[1:] if word != "--restart")])
        raise StoppedError("interrupted", kept=kept, next_step=command) from None


@contextmanager
def open_catalog(console: Console, address: str | None) -> Iterator[Catalog]:
    """Open the catalog that ``--catalog`` names, else that of the data folder."""
    from catalog.store import CATALOG_FILE, Catalog

    with Catalog(address or console.data / CATALOG_FILE, data=console.data) as opened:
        yield opened


def put_lines(console: Console, lines: Iterable[str]) -> None:
    """Print lines of data."""
    for line in lines:
        console.put(line)


def chosen_pairs(opened: Catalog, pairs: list[str] | None, where: str | None) -> list[str]:
    """Return the pairs that a command names, or those that pass its filter.

    Raises:
        UsageError: It does both or neither.
    """
    if bool(pairs) == bool(where):
        raise UsageError("name pairs, or choose them with --where, one of the two")
    if pairs:
        return pairs
    return [uid for (uid,) in opened.stream(("id",), where)]
