"""What `rig help` prints: an error code of any of the four commands, a check of a take, or the list of both."""

from __future__ import annotations

import importlib
import inspect

from catalog.console import Console
from catalog.errors import CleanplateError, error_classes
from rig.errors import UnknownCodeError
from rig.findings import EXPLANATIONS
from rig.remedies import REMEDIES

_ERROR_MODULES = (
    "catalog.store", "catalog.cli", "catalog.transfer", "catalog.import_pairs", "catalog.executors",
    "alignment.errors", "models.errors",
)  # fmt: skip
"""Loaded by name: explaining their codes is no reason to depend on them."""


def known_errors() -> dict[str, type[CleanplateError]]:
    """Map every code of the four commands to its class, in the order of the codes."""
    for name in _ERROR_MODULES:
        importlib.import_module(name)
    return dict(sorted(error_classes().items()))


def explain(console: Console, word: str) -> None:
    """Print what an error code or a check of a take means, and how to mend it.

    Raises:
        UnknownCodeError: It is neither.
    """
    known = known_errors()
    if word.lower() in EXPLANATIONS:
        found = EXPLANATIONS[word.lower()]
        _put(console, f"{word.lower()} (a check of a take)", found.meaning, found.mend)
    elif word.upper() in known:
        cls = known[word.upper()]
        title = f"{word.upper()} {cls.__name__} (exit code {int(cls.exit_code)})"
        _put(console, title, _meaning(cls), REMEDIES[word.upper()])
    else:
        raise UnknownCodeError(
            f"no error has the code {word}",
            next_step=f"codes are: {', '.join(known)}; checks are: {', '.join(EXPLANATIONS)}",
        )


def list_all(console: Console) -> None:
    """Print every error code and every check with its first sentence."""
    entries = {code: _meaning(cls) for code, cls in known_errors().items()}
    entries |= {name: found.meaning for name, found in EXPLANATIONS.items()}
    if console.json:
        console.put_json({"entries": [{"name": n, "meaning": m} for n, m in entries.items()]})
        return
    width = max(map(len, entries))
    for name, meaning in entries.items():
        console.put(f"{name:{width}}  {meaning.partition('. ')[0].removesuffix('.')}")


def _put(console: Console, title: str, meaning: str, mend: str) -> None:
    if console.json:
        console.put_json({"title": title, "meaning": meaning, "mend": mend})
    else:
        console.put(f"{title}\n{meaning}\nTo mend it: {mend}")


def _meaning(cls: type[CleanplateError]) -> str:
    """Return what a class says of itself to users: its docstring without the part for programmers."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\n\nArgs:")[0]
    return " ".join(text.split())
