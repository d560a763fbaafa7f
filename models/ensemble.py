"""An ensemble: a generalist, experts behind it, and a router that looks at a picture and chooses one of them, or none.

A folder that stands for itself, the checkpoints copied into it::

    ensemble.yaml            which expert serves what, in the order in which they are asked
    generalist.safetensors   illumination.safetensors   weather.safetensors   text.safetensors   router.safetensors

FoundIR's release chooses by the number of the test file, which is the known class: an oracle. Here a choice is made by
the pixels alone (*blind*), by the known class (*oracle*), or never (*none*), and evaluations report the three apart.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import Field, field_validator
from torch import Tensor

from catalog.errors import InvalidDocumentError
from catalog.manifest import RelativePath
from catalog.session_folder import replace_file
from catalog.yaml_document import Document, load_yaml
from models.base import Classifier, Restorer
from models.checkpoint import load
from models.errors import RunExistsError, StorageError
from models.experts import first_pass, refined
from models.precision import REFERENCE, Usage
from models.router import SIGHTS, TEXT, seen_in
from models.run_folder import RUNS, checkpoint_path

RECORD_NAME = "ensemble.yaml"
ExpertChoice = Literal["oracle", "blind", "none"]
SERVED: Mapping[str, tuple[str, ...]] = {
    "illumination": ("low_light",),
    "weather": ("haze", "rain", "raindrop", "snow"),
    "text": (TEXT,),
}
"""What FoundIR's experts are for, in the order in which they are asked: as in its release, what is dark goes to the
illumination expert whatever else it suffers from."""


class Member(Document):
    """One expert of an ensemble."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    weights: RelativePath
    """Checkpoint, relative to the folder."""
    serves: tuple[str, ...]
    """Degradations, or ``text``: a picture that shows one of them is this expert's."""

    @field_validator("serves")
    @classmethod
    def _sights(cls, serves: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in serves if name not in SIGHTS]
        if unknown:
            raise ValueError(f"no router knows '{unknown[0]}'; one of {', '.join(SIGHTS)}")
        return serves


class EnsembleRecord(Document):
    """What `ensemble.yaml` holds."""

    schema_: Literal[1] = Field(alias="schema", default=1)
    generalist: RelativePath
    """Checkpoint, relative to the folder."""
    experts: tuple[Member, ...]
    """The first that serves what a picture shows is taken."""
    router: RelativePath | None
    """Checkpoint; None for an ensemble that knows no blind choice."""


@dataclass(frozen=True)
class TwoPasses:
    """A generalist with one expert behind it, or with none."""

    generalist: Restorer
    expert: Any | None

    def restore(self, lq: Tensor) -> Tensor:
        """Restore as `Restorer.restore` does."""
        return self._second(first_pass(self.generalist, lq), lq)

    def restore_from(self, lq: Tensor, noise: Tensor) -> Tensor:
        """Restore as `StartsFromNoise.restore_from` does; without meaning where the generalist starts from none."""
        return self._second(first_pass(self.generalist, lq, noise), lq)

    def _second(self, restored: Tensor, lq: Tensor) -> Tensor:
        return restored if self.expert is None else refined(self.expert, restored, lq)


class Ensemble:
    """A loaded ensemble. As a restorer it chooses blindly, for each picture as a whole.

    Args:
        record: Who serves what.
        generalist: The first pass.
        experts: The second pass, by name.
        router: What chooses; None where only the known class can.
    """

    def __init__(
        self,
        record: EnsembleRecord,
        generalist: Restorer,
        experts: Mapping[str, Any],
        router: Classifier | None,
    ) -> None:
        self.record, self._generalist, self._experts, self._router = record, generalist, experts, router

    def restore(self, lq: Tensor) -> Tensor:
        """Restore ``(B, 3, H, W)``, each picture by the expert that it seems to need."""
        return torch.cat([self.restorer_for(one).restore(one) for one in lq.split(1)])

    def restorer_for(self, lq: Tensor) -> TwoPasses:
        """Choose blindly for one picture ``(1, 3, H, W)``."""
        return self.with_expert(self.expert_for(seen_in(self.classify(lq))))

    def with_expert(self, name: str | None) -> TwoPasses:
        """Return the generalist with one expert behind it; None for the generalist alone."""
        return TwoPasses(self._generalist, None if name is None else self._experts[name])

    def expert_for(self, sights: Collection[str]) -> str | None:
        """Name the expert for what a picture shows, degradations or ``text``; None where the generalist is enough."""
        return next((m.name for m in self.record.experts if not set(m.serves).isdisjoint(sights)), None)

    def classify(self, lq: Tensor) -> Mapping[str, float]:
        """Ask the router; as `Classifier.classify`.

        Raises:
            InvalidDocumentError: The ensemble has none.
        """
        if self._router is None:
            raise InvalidDocumentError(
                "this ensemble has no router, so it cannot choose by the picture alone"
            )
        return self._router.classify(lq)


def find_ensemble(run: str | Path, data: Path) -> Path | None:
    """Find an ensemble's folder by path or by its name in the data folder; None where there is none."""
    return next((p for p in (Path(run), data / RUNS / run) if (p / RECORD_NAME).is_file()), None)


def load_ensemble(folder: Path, usage: Usage = REFERENCE) -> Ensemble:
    """Load an ensemble; every member is used in the same way.

    Raises:
        InvalidDocumentError: Its record is damaged, or a member is of the wrong kind.
        RunNotFoundError: A member's file is missing.
        CheckpointError: A member's file is damaged.
    """
    record = load_yaml(folder / RECORD_NAME, EnsembleRecord)

    def member(name: str, kind: type) -> Any:
        model = load(folder / name, usage)
        if not isinstance(model, kind):
            raise InvalidDocumentError(f"{folder / name}: is no {kind.__name__.lower()}")
        return model

    return Ensemble(
        record,
        member(record.generalist, Restorer),
        {expert.name: member(expert.weights, Restorer) for expert in record.experts},
        None if record.router is None else member(record.router, Classifier),
    )


def assemble(
    out: Path, generalist: str, *, experts: Mapping[str, str], router: str | None, data: Path
) -> EnsembleRecord:
    """Make an ensemble of trained runs; their newest checkpoints are copied, the runs stay as they are.

    Args:
        out: Folder to write.
        generalist: Run or checkpoint of the first pass.
        experts: Run or checkpoint of each expert by its name: illumination, weather or text.
        router: Run or checkpoint of the router, None for none.
        data: Data folder in which names are looked up.

    Raises:
        InvalidDocumentError: An expert of another name.
        RunNotFoundError: One of the runs does not exist.
        RunExistsError: There is something already.
        StorageError: The disk refused.
    """
    unknown = [name for name in experts if name not in SERVED]
    if unknown:
        raise InvalidDocumentError(f"expert '{unknown[0]}': no such kind; one of {', '.join(SERVED)}")
    if out.exists():
        raise RunExistsError(f"{out}: is there already", kept="it is untouched", next_step="give another -o")
    runs = {"generalist": generalist, **experts, **({} if router is None else {"router": router})}
    sources = {name: checkpoint_path(run, data) for name, run in runs.items()}
    record = EnsembleRecord(
        generalist="generalist.safetensors",
        experts=_members(experts),
        router=None if router is None else "router.safetensors",
    )
    try:
        _write(out, record, sources)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise StorageError(
            f"{out}: could not be written: {error.strerror or error}",
            kept="the runs; of the ensemble nothing is left",
            next_step="make room or give another -o",
        ) from error
    return record


def _write(out: Path, record: EnsembleRecord, sources: Mapping[str, Path]) -> None:
    out.mkdir(parents=True)
    for name, source in sources.items():
        shutil.copyfile(source, out / f"{name}.safetensors")
    text = yaml.safe_dump(record.model_dump(mode="json", by_alias=True), sort_keys=False)
    replace_file(out / RECORD_NAME, text.encode())


def expert_runs(assignments: Sequence[str]) -> dict[str, str]:
    """Read ``name=run`` words of the command line.

    Raises:
        InvalidDocumentError: Not of that form, or a name twice.
    """
    runs: dict[str, str] = {}
    for assignment in assignments:
        name, equals, run = assignment.partition("=")
        if not (name and equals and run) or name in runs:
            raise InvalidDocumentError(f"--expert {assignment}: needs the form name=RUN, each name once")
        runs[name] = run
    return runs


def _members(names: Collection[str]) -> tuple[Member, ...]:
    return tuple(
        Member(name=name, weights=f"{name}.safetensors", serves=serves)
        for name, serves in SERVED.items()
        if name in names
    )
