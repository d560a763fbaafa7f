"""The verbs of `models`: each parses, calls one function, prints. Torch loads on demand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from catalog.console import (
    Console,
    run_app,
    verb,
)
from catalog.records import degradation_key
from models.registry import REGISTRY

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

ExportOption = Annotated[
    str, typer.Option("--data", help="Export: a name in the data folder, a path, or s3://bucket/name.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
RunArgument = Annotated[
    str, typer.Argument(help="Run: a name in the data folder, or a path; or a checkpoint.")
]
RunOption = Annotated[str, typer.Option("-o", "--out", help="Run: a name in the data folder, or a path.")]
ImagesArgument = Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")]
ExpertOption = Annotated[
    Literal["oracle", "blind", "none"] | None,
    typer.Option(help="Of an ensemble: experts by the known class, by its router, or the generalist alone."),
]


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
    checkpoint: Annotated[
        str,
        typer.Argument(help="Run: a name in the data folder, or a path; or a file, ours or a released one."),
    ],
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
    model: Annotated[str, typer.Argument(help="A name from `models list`.")],
    export: ExportOption,
    config: Annotated[
        str | None, typer.Option(help="A configuration from `models list`, or a YAML file.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value, for example training.steps=400.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Run or checkpoint to take the first weights from.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Run: a name in the data folder, or a path.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run from its last checkpoint.")
    ] = False,
    device: DeviceOption = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding threads; the result never depends on them.")
    ] = None,
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
    run: Annotated[str | None, typer.Argument(help="Run: a name in the data folder, or a path.")] = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Score the untouched input alone.")] = False,
    expert: ExpertOption = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Score so many pairs of each class, spread evenly.")
    ] = None,
    ssim: Annotated[bool, typer.Option(help="Measure SSIM and the luma too.")] = True,
    lpips: Annotated[
        list[Path] | None,
        typer.Option(help="Measure LPIPS with these weights: the backbone's file and the one of its layers."),
    ] = None,
    niqe: Annotated[
        Path | None, typer.Option(help="Measure NIQE: its parameters, or a folder of good pictures.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the report: JSON, Markdown, pictures.")
    ] = None,
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
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the restored pictures (PNG).")],
    expert: ExpertOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="What --expert oracle knows, as `models classify` writes it; else the export's manifest."
        ),
    ] = None,
    tile_px: Annotated[int, typer.Option(min=64, help="Larger pictures are restored in tiles, px.")] = 1536,
    overlap_px: Annotated[int, typer.Option(min=0, help="Overlap of the tiles, px.")] = 64,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the noise that some models start from; one field for all tiles.")
    ] = 0,
    precision: Annotated[
        Literal["fp32", "bf16", "auto"],
        typer.Option(help="fp32 is the reference; auto is bf16 where the device has it."),
    ] = "fp32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network at its first use.")
    ] = False,
    device: DeviceOption = "cpu",
) -> None:
    """Restore pictures of any size; depth, profile, orientation and alpha are kept."""
    from models.restore import make_tiling, restore_with_run

    tiling = make_tiling(tile_px, overlap_px)
    written = restore_with_run(
        run,
        images,
        out,
        device=device,
        tiling=tiling,
        console=console,
        seed=seed,
        precision=precision,
        compiled=compiled,
        expert=expert,
        labels=labels,
    )
    _put(console, {"written": [str(path) for path in written]}, lines=map(str, written))


@verb(app)
def classify(
    console: Console,
    run: RunArgument,
    images: ImagesArgument,
    out: Annotated[Path, typer.Option("-o", "--out", help="File for the labels (JSON lines).")],
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
    experts: Annotated[
        list[str] | None,
        typer.Option("--expert", help="illumination=RUN, weather=RUN or text=RUN; any number."),
    ] = None,
    router: Annotated[str | None, typer.Option(help="Run of the router; without it no blind choice.")] = None,
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
    file: Annotated[Path, typer.Argument(help="Official released checkpoint (.pt, .pth, .safetensors).")],
    out: RunOption,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="What no tensor shows, for example model.num_heads=[8,8]."),
    ] = None,
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
