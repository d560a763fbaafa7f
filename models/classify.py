"""`models classify`: degradation classes of pictures, as labels that a catalog takes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from catalog.errors import InvalidDocumentError
from catalog.label_file import Label, write_labels
from catalog.records import Degradation
from catalog.session_folder import file_sha256
from models.base import Classifier
from models.data import to_unit
from models.errors import StorageError
from models.images import read_pixels
from models.loading import load
from models.restore import images_in
from models.router import certainty, seen_in

if TYPE_CHECKING:
    from catalog.console import Console

_SOURCE_LENGTH = 200


def classify_with_run(
    run: str, images: Sequence[Path], out: Path, *, device: str, console: Console
) -> list[tuple[Path, Label]]:
    """Say what pictures suffer from and write it as `labels.jsonl`; returns each picture with its label.

    Raises:
        RunNotFoundError: No such run.
        InvalidDocumentError: It classifies nothing.
        NoPairsError: No pictures there.
        DamagedImageError: A picture cannot be decoded; nothing is written.
        StorageError: The disk refused.
    """
    files = [file for path in images for file in images_in(path)]
    model = load(run, device=device, data=console.data)
    if not isinstance(model, Classifier):
        raise InvalidDocumentError(
            f"{run}: this model classifies nothing; a router or an ensemble with one does"
        )
    labels = []
    with console.progress("classifying", len(files)) as done:
        for labelled in classify_files(model, files, source=run):
            labels.append(labelled)
            done(1)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_labels(out, (label for _, label in labels))
    except OSError as error:
        raise StorageError(
            f"{out}: could not be written: {error.strerror or error}",
            kept="what was there before",
            next_step="make room or give another -o",
        ) from error
    return labels


def classify_files(model: Classifier, files: Iterable[Path], *, source: str) -> Iterator[tuple[Path, Label]]:
    """Classify files one by one; yields each with its label, which names the file by its sha256."""
    for file in files:
        lq = to_unit([read_pixels(file)], torch.device("cpu"))
        with torch.inference_mode():
            votes = {name: sure for name, sure in model.classify(lq).items() if name in _DEGRADATIONS}
        label = Label(
            sha256=file_sha256(file),
            degradations=tuple(sorted(Degradation(name) for name in seen_in(votes))),
            confidence=certainty(votes),
            source=source[-_SOURCE_LENGTH:],
        )
        yield file, label


_DEGRADATIONS = frozenset(d.value for d in Degradation)
