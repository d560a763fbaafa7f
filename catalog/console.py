"""How all four commands speak: data on stdout, messages on stderr, one line and an exit code per error.

The four command lines share their global options, error lines and progress bars, so they live
in the package that all others may import.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalog.errors import CleanplateError, FileRefusedError

if TYPE_CHECKING:
    from pydantic import BaseModel

_DEFAULT_DATA = Path("cleanplate-data")

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Data folder.", envvar="CLEANPLATE_DATA", show_default="./cleanplate-data"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON (schema 1) on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages, only data.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]


@dataclass(frozen=True)
class Console:
    """The output side of one command."""

    data: Path
    json: bool = False
    quiet: bool = False
    debug: bool = False

    def say(self, message: str) -> None:
        """Tell the person something; goes to stderr and is silent with ``--quiet``."""
        if not self.quiet:
            print(plain_text(message), file=sys.stderr, flush=True)  # noqa: T201

    def put(self, text: str) -> None:
        """Print one line of data on stdout."""
        print(plain_text(text), flush=True)  # noqa: T201

    def put_json(self, document: Mapping[str, Any] | BaseModel) -> None:
        """Print one JSON object on one line of stdout, with ``"schema": 1`` in front."""
        body = document if isinstance(document, Mapping) else document.model_dump(mode="json")
        print(json.dumps({"schema": 1, **body}, ensure_ascii=False), flush=True)  # noqa: T201

    @contextmanager
    def progress(self, label: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """Show a progress bar on stderr while the block runs; calls add to what is done.

        Off a terminal and with ``--quiet`` nothing is drawn.
        """
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        stderr = RichConsole(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=stderr, disable=self.quiet or not stderr.is_terminal) as bar:
            task = bar.add_task(plain_text(label), total=total)
            yield lambda amount: bar.advance(task, amount)


def open_console(
    data: Path | None = None, *, json_output: bool = False, quiet: bool = False, debug: bool = False
) -> Console:
    """Build the output side of a command from its global options and mark `--debug` for `run_app`."""
    if debug:
        os.environ["CLEANPLATE_DEBUG"] = "1"
    folder = data if data is not None else _DEFAULT_DATA
    return Console(folder.absolute(), json_output, quiet, debug)


def default_data_folder() -> Path:
    """Return the data folder of whoever names none: ``$CLEANPLATE_DATA``, else ``./cleanplate-data``."""
    return _data_from_environment() or _DEFAULT_DATA


def data_option(folder: Path) -> str:
    """Return what a command line needs to mean this data folder: nothing, or `` --data FOLDER`` for a shell."""
    return (
        ""
        if folder.absolute() == default_data_folder().absolute()
        else f" --data {shlex.quote(str(folder.absolute()))}"
    )


def verb(
    app: typer.Typer, name: str | None = None, *, takes_data: bool = True, takes_negative: bool = False
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Register a function as a verb: it receives a `Console`, its command line gains the global options.

    Args:
        app: The command.
        name: The verb, where the function's name cannot be it.
        takes_data: Whether ``--data`` is the data folder here; otherwise the environment names it.
        takes_negative: Whether an argument may be a number below 0, which else looks like an option.
    """

    def register(function: Callable[..., object]) -> Callable[..., object]:
        own = inspect.signature(function, eval_str=True)
        shared = [p for p in _GLOBAL_OPTIONS if takes_data or p.name != "data"]
        parameters = [p for p in own.parameters.values() if p.name != "console"]
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*parameters, *shared)]

        def run(**given: Any) -> object:
            options = {p.name: given.pop(p.name) for p in shared}
            options.setdefault("data", _data_from_environment())
            return function(console=open_console(**options), **given)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = own.replace(parameters=keyword_only)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in keyword_only}
        app.command(name, context_settings={"ignore_unknown_options": takes_negative})(run)
        return function

    return register


def _shared(name: str, annotation: object, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_GLOBAL_OPTIONS = (
    _shared("data", DataOption, None),
    _shared("json_output", JsonOption, False),
    _shared("quiet", QuietOption, False),
    _shared("debug", DebugOption, False),
)


def _data_from_environment() -> Path | None:
    named = os.environ.get("CLEANPLATE_DATA")
    return Path(named) if named else None


def plain_text(text: str) -> str:
    r"""Strip control characters, so that a device string or a file name cannot steer the terminal.

    >>> plain_text("ok\x1b[2J")
    'ok[2J'
    """
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def keep_to_one_blas_thread() -> None:
    """Let numpy's linear algebra use one thread here and in every child; to be called before numpy is loaded.

    Work is shared out by processes. OpenBLAS's threads spin while they wait for each other: on two busy cores
    `alignment run` took a tenth less CPU time with one, least squares of 4000 rows a twentieth.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def run_app(app: Callable[[], object]) -> None:
    """Run a typer application and turn the product's errors into one line and an exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that left (`| head`) ends us quietly
    try:
        app()
    except (CleanplateError, OSError) as error:
        if os.environ.get("CLEANPLATE_DEBUG"):
            raise
        told = error if isinstance(error, CleanplateError) else _refused_file(error)
        line = f"error {told.code}: {told}".replace("\n", " ")
        print(plain_text(line), file=sys.stderr)  # noqa: T201
        raise SystemExit(int(told.exit_code)) from None


def _refused_file(error: OSError) -> CleanplateError:
    place = "" if error.filename is None else f"{error.filename}: "
    return FileRefusedError(
        f"{place}{error.strerror or error}",
        next_step="see that the place exists, may be written and has space left; --debug shows where it happened",
    )
