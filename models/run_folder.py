"""The folder of one training run: what it was told, what it logged, what it saved.

config.yaml                    resolved configuration, model, digest of the export
metrics.jsonl                  one line per logged step or validation
events.out.tfevents.*          the same for TensorBoard
samples/step-000100/*.png      degraded, restored, reference side by side
checkpoints/step-000100.safetensors   averaged weights, what `models.load` reads
checkpoints/index.json         saved steps with their validation PSNR
checkpoints/latest             name of the newest complete checkpoint, written last
state/step-000100.*            raw weights and optimiser, for an exact resume
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from catalog.errors import InvalidDocumentError
from catalog.far_store import is_url
from catalog.session_folder import replace_file
from catalog.yaml_document import Document, load_yaml
from models.config import RunConfig, config_class, dump_config
from models.errors import CheckpointError, RunExistsError, RunNotFoundError
from models.registry import find_model

RUNS = "runs"
EXPORTS = "exports"


class RunRecord(Document):
    """What `config.yaml` holds beside the configuration."""

    export: str
    export_digest: str
    """sha256 of the export's manifest."""
    version: str
    """Version of this package that started the run."""


class _StoredRun(BaseModel):
    model_config = ConfigDict(extra="allow")

    run: RunRecord
    name: str


class SavedStep(Document):
    """One line of `checkpoints/index.json`."""

    step: int = Field(ge=0)
    psnr_db: float | None
    """Mean validation PSNR at that step, None where it was not measured."""


_INDEX = TypeAdapter(list[SavedStep])
_STEP = re.compile(r"step-(\d+)")


class RunFolder:
    """Paths and small files of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / "config.yaml"
        self.metrics_path = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"
        self.state = path / "state"
        self._index_path = self.checkpoints / "index.json"
        self._latest_path = self.checkpoints / "latest"

    @classmethod
    def find(cls, name_or_path: str | Path, data: Path) -> RunFolder:
        """Find a run by path or by its name in the data folder.

        Raises:
            RunNotFoundError: Neither is a folder with a `config.yaml`.
        """
        for path in (Path(name_or_path), data / RUNS / name_or_path):
            if (path / "config.yaml").is_file():
                return cls(path)
        raise RunNotFoundError(
            f"no training run '{name_or_path}', neither as a folder nor in {data / RUNS}",
            next_step="see the runs there, or start one with `models train`",
        )

    def create(self, config: RunConfig[Any], record: RunRecord) -> None:
        """Make the folder and write what the run was told.

        Raises:
            RunExistsError: There is a run already.
        """
        if self.config_path.exists():
            raise RunExistsError(
                f"{self.path}: a training run is there already",
                kept="it is untouched",
                next_step="add --resume to continue it, or give another --out",
            )
        for folder in (self.checkpoints, self.state, self.samples):
            folder.mkdir(parents=True, exist_ok=True)
        text = dump_config(config) + f"run: {record.model_dump_json()}\n"
        replace_file(self.config_path, text.encode())

    def read(self) -> tuple[RunConfig[Any], RunRecord]:
        """Read what the run was told.

        Raises:
            InvalidDocumentError: `config.yaml` was changed into something that does not fit.
        """
        stored = load_yaml(self.config_path, _StoredRun)
        try:
            config = config_class(find_model(stored.name)).model_validate(stored.model_dump(exclude={"run"}))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise InvalidDocumentError(f"{self.config_path}:1:1: {where}: {problem['msg']}") from None
        return config, stored.run

    def log(self, line: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`; a line that was torn before stays by itself."""
        with self.metrics_path.open("a+b") as out:
            text = json.dumps(line, allow_nan=False) + "\n"
            out.write(text.encode() if _ends_a_line(out) else f"\n{text}".encode())

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the logged lines; one that a power cut or a full disk tore is left out."""
        if not self.metrics_path.is_file():
            return
        with self.metrics_path.open(encoding="utf-8") as lines:
            for line in lines:
                with suppress(json.JSONDecodeError):
                    yield json.loads(line)

    def forget_after(self, step: int) -> None:
        """Take logged lines of later steps away: a run that goes on from ``step`` makes those steps again."""
        logged = list(self.metrics())
        kept = [line for line in logged if line["step"] <= step]
        if len(kept) < len(logged):
            replace_file(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def latest_step(self) -> int:
        """Return the step of the newest complete checkpoint.

        Raises:
            RunNotFoundError: Nothing was saved yet.
            CheckpointError: The file that names it is damaged.
        """
        try:
            named = _STEP.fullmatch(self._latest_path.read_text(errors="replace").strip())
        except FileNotFoundError:
            raise RunNotFoundError(
                f"{self.path}: no complete checkpoint yet",
                next_step="let it train to its first one; if it no longer trains, remove the folder and begin again",
            ) from None
        if named is None:
            raise CheckpointError(
                f"{self._latest_path}: names no checkpoint",
                kept=f"the checkpoints in {self.checkpoints}",
                next_step="write the name of the newest one into it, such as step-001000",
            )
        return int(named[1])

    def weights_path(self, step: int) -> Path:
        """Averaged weights of a step, the file that is used and shared."""
        return self.checkpoints / f"{step_name(step)}.safetensors"

    def raw_weights_path(self, step: int) -> Path:
        """Weights that the optimiser was working on."""
        return self.state / f"{step_name(step)}.safetensors"

    def optimiser_path(self, step: int) -> Path:
        """Optimiser state and counters."""
        return self.state / f"{step_name(step)}.pt"

    def saved_steps(self) -> list[SavedStep]:
        """List the checkpoints, oldest first; without an index those whose files lie there, without their scores.

        Raises:
            CheckpointError: The index is damaged.
        """
        if not self._index_path.is_file():
            steps = (_STEP.match(file.name) for file in sorted(self.checkpoints.glob("step-*.safetensors")))
            return [SavedStep(step=int(found[1]), psnr_db=None) for found in steps if found]
        try:
            return _INDEX.validate_json(self._index_path.read_bytes())
        except ValidationError as error:
            raise CheckpointError(
                f"{self._index_path}: is damaged, so nothing says how good the checkpoints are",
                kept=f"the checkpoints in {self.checkpoints}",
                next_step="remove it; it is made again, without the scores so far",
            ) from error

    def commit(self, saved: SavedStep, *, keep_last: int, keep_best: int) -> None:
        """Make a written checkpoint the newest one, then drop what is neither recent nor good."""
        steps = [other for other in self.saved_steps() if other.step < saved.step] + [saved]
        kept = _worth_keeping(steps, keep_last=keep_last, keep_best=keep_best)
        self._write_index(kept)
        replace_file(self._latest_path, f"{step_name(saved.step)}\n".encode())
        recent = {step.step for step in steps[-keep_last:]}
        _drop_others(self.checkpoints, {step.step for step in kept})
        _drop_others(self.state, recent)

    def _write_index(self, steps: list[SavedStep]) -> None:
        replace_file(self._index_path, json.dumps([step.model_dump() for step in steps], indent=1).encode())


def step_name(step: int) -> str:
    """Name a step so that names sort as steps do."""
    return f"step-{step:06d}"


def checkpoint_path(run: str | Path, data: Path) -> Path:
    """Find the file that stands for a run: its newest checkpoint, or the ``.safetensors`` file itself.

    Raises:
        RunNotFoundError: No such run or file, or nothing saved in it yet.
    """
    if str(run).endswith(".safetensors"):
        if not Path(run).is_file():
            raise RunNotFoundError(f"{run}: no such file")
        return Path(run)
    if Path(run).is_file():
        raise RunNotFoundError(
            f"{run}: neither a run nor a checkpoint of ours",
            kept="it is untouched",
            next_step="`models inspect` says what it holds, `models convert` makes a run of an official release",
        )
    folder = RunFolder.find(run, data)
    return folder.weights_path(folder.latest_step())


def find_export(name_or_path: str, data: Path) -> Path | str:
    """Find an export by URL, path or its name in the data folder; the manifest's reader judges it."""
    if is_url(name_or_path):
        return name_or_path
    path = Path(name_or_path)
    if path.is_dir() or os.sep in name_or_path:
        return path
    return data / EXPORTS / name_or_path


def _ends_a_line(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _worth_keeping(steps: list[SavedStep], *, keep_last: int, keep_best: int) -> list[SavedStep]:
    measured = [step for step in steps if step.psnr_db is not None]
    best = sorted(measured, key=lambda step: -(step.psnr_db or 0.0))[:keep_best]
    wanted = {step.step for step in (*steps[-keep_last:], *best)}
    return [step for step in steps if step.step in wanted]


def _drop_others(folder: Path, wanted: set[int]) -> None:
    names = {step_name(step) for step in wanted}
    for file in folder.glob("step-*"):
        if file.name.split(".", 1)[0] not in names:
            file.unlink()
