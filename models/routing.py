"""Who restores which picture: by the known class, by the router, or the generalist alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from catalog.errors import InvalidDocumentError
from catalog.label_file import read_labels
from catalog.manifest import MANIFEST_NAME, read_manifest
from catalog.records import Degradation
from catalog.session_folder import file_sha256
from models.base import Restorer
from models.ensemble import Ensemble, ExpertChoice

Chooser = Callable[[Collection[Degradation]], Restorer]
"""Returns what restores a picture of a known class; a blind one does not look at the class."""


def chooser(model: object, asked: ExpertChoice | None, *, run: str) -> Chooser:
    """Return the one way that was asked for, blindly in an ensemble where nothing was; errors as of `choosers`."""
    ways = choosers(model, asked, run=run)
    return ways["restored" if "restored" in ways else "blind"]


def choosers(model: object, asked: ExpertChoice | None, *, run: str) -> dict[str, Chooser]:
    """List the ways in which a model's experts are to be chosen, by the name that results carry.

    Args:
        model: What was loaded.
        asked: The one way that is wanted, which is then called ``restored``; None for all, each under its own name.
        run: What was loaded, for messages.

    Raises:
        InvalidDocumentError: The model restores nothing, or has no experts and was asked to choose one.
    """
    if isinstance(model, Ensemble):
        return _of_ensemble(model, asked)
    if not isinstance(model, Restorer):
        raise InvalidDocumentError(f"{run}: this model restores no pictures")
    if asked in ("oracle", "blind"):
        raise InvalidDocumentError(
            f"--expert {asked}: {run} is a single model; `models assemble` makes an ensemble with experts"
        )
    single = model
    return {"restored": lambda _known: single}


def known_degradations(
    files: Iterable[Path], labels: Path | None = None
) -> dict[Path, tuple[Degradation, ...]]:
    """Look up what pictures are known to suffer from: in a file of labels, else in the export they lie in.

    Raises:
        LabelFileError: The file of labels is damaged.
        InvalidDocumentError: Nothing is known of a picture.
    """
    by_digest = {} if labels is None else _labelled(labels)
    by_export: dict[Path, Mapping[Path, tuple[Degradation, ...]]] = {}
    known = {}
    for file in files:
        found = by_digest.get(file_sha256(file)) if labels is not None else _in_export(file, by_export)
        if found is None:
            raise InvalidDocumentError(
                f"--expert oracle: nothing says what {file} suffers from; name its class in --labels, "
                "or choose --expert blind"
            )
        known[file] = found
    return known


def _of_ensemble(ensemble: Ensemble, asked: ExpertChoice | None) -> dict[str, Chooser]:
    alone = ensemble.with_expert(None)
    ways: dict[str, Chooser] = {
        "oracle": lambda known: ensemble.with_expert(ensemble.expert_for(known)),
        "blind": lambda _known: ensemble,
        "none": lambda _known: alone,
    }
    return ways if asked is None else {"restored": ways[asked]}


def _labelled(labels: Path) -> dict[str, tuple[Degradation, ...]]:
    named = (label for _, label in read_labels(labels))
    return {label.sha256: label.degradations for label in named if label.sha256 is not None}


def _in_export(
    file: Path, seen: dict[Path, Mapping[Path, tuple[Degradation, ...]]]
) -> tuple[Degradation, ...] | None:
    path = file.resolve()
    folder = next((parent for parent in path.parents if (parent / MANIFEST_NAME).is_file()), None)
    if folder is None:
        return None
    if folder not in seen:
        seen[folder] = {folder / row.lq: row.degradations for row in read_manifest(folder)}
    return seen[folder].get(path)
