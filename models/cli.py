"""The verbs of `models`: each parses, calls one function, prints. Torch loads on demand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer

from catalog.console import Console, run_app, verb
from catalog.records import degradation_key
from models.cli_options import (
    BaselineOption,
    CheckpointArgument,
    CompileOption,
    ConfigOption,
    DecodersOption,
    DeviceOption,
    ExpertOption,
    ExpertsOption,
    ExportOption,
    ImagesArgument,
    InitOption,
    KnownOption,
    LabelsOption,
    LpipsOption,
    ModelArgument,
    NewRunOption,
    NiqeOption,
    OverlapOption,
    PartOption,
    PerClassOption,
    PrecisionOption,
    ReleaseArgument,
    ReportOption,
    RestoredOption,
    ResumeOption,
    RouterOption,
    RunArgument,
    RunOption,
    ScoredRunArgument,
    SeedOption,
    SetOption,
    SsimOption,
    TileOption,
    UnseenOption,
)
from models.registry import REGISTRY

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def models() -> None:
    """Train restoration networks on exported pairs, score them, and restore pictures with them."""


@verb(app, "list")
def list_models(
    console: Console,
) -> None:
    """List the models and the configurations that ship with them."""
    entries = REGISTRY.values()
    rows = [{"name": e.name, "kind": e.kind, "summary": e.summary, "configs": e.sizes()} for e in entries]
    lines = (f"{e.name:14} {e.kind:11} {e.summary:56} {', '.join(e.sizes())}" for e in entries)
    _put(console, {"models": rows}, lines=lines)


@verb(app)
def inspect(
    console: Console,
    checkpoint: CheckpointArgument,
) -> None:
    """Say what a checkpoint holds: model, configuration, step, parameters, checksum. Nothing in it is executed."""
    from models.inspection import description_lines, inspect_checkpoint
    from models.run_folder import checkpoint_path

    named = Path(checkpoint)
    document = inspect_checkpoint(named if named.is_file() else checkpoint_path(checkpoint, console.data))
    _put(console, document, lines=description_lines(document))


@verb(app, takes_data=False)
def train(
    console: Console,
    model: ModelArgument,
    export: ExportOption,
    config: ConfigOption = None,
    assignments: SetOption = None,
    init: InitOption = None,
    out: NewRunOption = None,
    resume: ResumeOption = False,
    device: DeviceOption = "cpu",
    workers: DecodersOption = None,
) -> None:
    """Train a model on an export; stopped by a signal it saves and says how to resume."""
    from models.job import plan_training

    job = plan_training(
        model,
        export,
        data=console.data,
        config=config,
        overrides=assignments or (),
        out=out,
        init=init,
        resume=resume,
        device=device,
        workers=workers,
    )
    from models.train import train as run_training

    result = run_training(job, _of_this_rank(console))
    if not _leads():
        return
    _put(console, asdict(result), lines=[result.checkpoint])
    console.say(f"{result.steps} steps in {result.seconds:.0f} s, {result.seconds_per_step:.3f} s each")


@verb(app, takes_data=False)
def evaluate(
    console: Console,
    export: ExportOption,
    run: ScoredRunArgument = None,
    baseline: BaselineOption = False,
    expert: ExpertOption = None,
    split: PartOption = "test",
    per_class: PerClassOption = None,
    ssim: SsimOption = True,
    lpips: LpipsOption = None,
    niqe: NiqeOption = None,
    out: ReportOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Score a run, or the untouched input, per degradation class: before and after restoration.

    Of an ensemble, without --expert, each way to choose its experts is scored apart.
    """
    from models.evaluate import EvaluationRequest, evaluate_export
    from models.score_report import table_lines

    request = EvaluationRequest(
        export, run, baseline=baseline, expert=expert, split=split, per_class=per_class, ssim=ssim,
        lpips=tuple(lpips or ()), niqe=niqe, out=out, device=device,
    )  # fmt: skip
    document = evaluate_export(request, console)
    _put(console, document, lines=table_lines(document))


@verb(app)
def restore(
    console: Console,
    run: RunArgument,
    images: ImagesArgument,
    out: RestoredOption,
    expert: ExpertOption = None,
    labels: KnownOption = None,
    tile_px: TileOption = 1536,
    overlap_px: OverlapOption = 64,
    seed: SeedOption = 0,
    precision: PrecisionOption = "fp32",
    compiled: CompileOption = False,
    device: DeviceOption = "cpu",
) -> None:
    """Restore pictures of any size; depth, profile, orientation and alpha are kept."""
    from models.precision import Usage
    from models.restore import Tiling, restore_with_run

    usage, tiling = Usage(device, precision, compiled), Tiling(tile_px, overlap_px)
    written = restore_with_run(
        run, images, out, usage=usage, tiling=tiling, console=console, seed=seed, expert=expert, labels=labels
    )
    _put(console, {"written": [str(path) for path in written]}, lines=map(str, written))


@verb(app)
def classify(
    console: Console,
    run: RunArgument,
    images: ImagesArgument,
    out: LabelsOption,
    device: DeviceOption = "cpu",
) -> None:
    """Say which degradations pictures show, by a router or an ensemble; `catalog label --from` takes the file in."""
    from models.classify import classify_with_run

    labelled = classify_with_run(run, images, out, device=device, console=console)
    rows = [{"file": str(file), **label.model_dump(mode="json")} for file, label in labelled]
    lines = (f"{x.confidence:.3f} {degradation_key(x.degradations):30} {file}" for file, x in labelled)
    _put(console, {"labels": rows, "out": str(out)}, lines=lines)


@verb(app)
def assemble(
    console: Console,
    generalist: RunArgument,
    out: RunOption,
    experts: ExpertsOption = None,
    router: RouterOption = None,
) -> None:
    """Put a generalist, experts and a router into one folder, which is used as a run is."""
    from models.ensemble import assemble as put_together
    from models.ensemble import expert_runs
    from models.job import run_path

    folder = run_path(out, console.data)
    runs = expert_runs(experts or ())
    record = put_together(folder, generalist, experts=runs, router=router, data=console.data)
    document = {"ensemble": str(folder), "record": record.model_dump(mode="json", by_alias=True)}
    _put(console, document, lines=[str(folder)])


@verb(app)
def convert(
    console: Console,
    file: ReleaseArgument,
    out: RunOption,
    assignments: UnseenOption = None,
) -> None:
    """Turn an official released checkpoint into a run; nothing in the file is executed."""
    from models.convert import convert as convert_file
    from models.job import run_path
    from models.run_folder import RunFolder

    run = RunFolder(run_path(out, console.data))
    result = convert_file(file, run, assignments=assignments or ())
    _put(console, asdict(result), lines=[result.checkpoint])
    console.say(f"{result.model} with {result.parameters:,} parameters, step {result.step}")


def _put(console: Console, document: Mapping[str, Any], *, lines: Iterable[str]) -> None:
    """Print what a verb found, in the form that was asked for."""
    if console.json:
        console.put_json(document)
        return
    for line in lines:
        console.put(line)


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"  # one voice for all processes that `torchrun` started


def _of_this_rank(console: Console) -> Console:
    """Return the console, quiet in every process of a `torchrun` but the first."""
    return console if _leads() else replace(console, quiet=True)


def main() -> None:
    """Entry point of the command `models`."""
    run_app(app)
