"""What the verbs of `models` are told, with the words of their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ExportOption = Annotated[
    str, typer.Option("--data", help="Export: a name in the data folder, a path, or s3://bucket/name.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
RunArgument = Annotated[
    str, typer.Argument(help="Run: a name in the data folder, or a path; or a checkpoint.")
]
RunOption = Annotated[str, typer.Option("-o", "--out", help="Run: a name in the data folder, or a path.")]
ScoredRunArgument = Annotated[str | None, typer.Argument(help="Run: a name in the data folder, or a path.")]
CheckpointArgument = Annotated[
    str, typer.Argument(help="Run: a name in the data folder, or a path; or a file, ours or a released one.")
]
ImagesArgument = Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")]
ExpertOption = Annotated[
    Literal["oracle", "blind", "none"] | None,
    typer.Option(help="Of an ensemble: experts by the known class, by its router, or the generalist alone."),
]

# train
ModelArgument = Annotated[str, typer.Argument(help="A name from `models list`.")]
ConfigOption = Annotated[str | None, typer.Option(help="A configuration from `models list`, or a YAML file.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change one value, for example training.steps=400.")
]
InitOption = Annotated[str | None, typer.Option(help="Run or checkpoint to take the first weights from.")]
NewRunOption = Annotated[str | None, typer.Option("--out", help="Run: a name in the data folder, or a path.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run from its last checkpoint.")]
DecodersOption = Annotated[
    int | None, typer.Option(min=1, help="Decoding threads; the result never depends on them.")
]

# evaluate
BaselineOption = Annotated[bool, typer.Option("--baseline", help="Score the untouched input alone.")]
PartOption = Annotated[str, typer.Option(help="train, val or test.")]
PerClassOption = Annotated[
    int | None, typer.Option(min=1, help="Score so many pairs of each class, spread evenly.")
]
SsimOption = Annotated[bool, typer.Option(help="Measure SSIM and the luma too.")]
LpipsOption = Annotated[
    list[Path] | None,
    typer.Option(help="Measure LPIPS with these weights: the backbone's file and the one of its layers."),
]
NiqeOption = Annotated[
    Path | None, typer.Option(help="Measure NIQE: its parameters, or a folder of good pictures.")
]
ReportOption = Annotated[
    Path | None, typer.Option("-o", "--out", help="Folder for the report: JSON, Markdown, pictures.")
]

# restore
RestoredOption = Annotated[Path, typer.Option("-o", "--out", help="Folder for the restored pictures (PNG).")]
KnownOption = Annotated[
    Path | None,
    typer.Option(
        help="What --expert oracle knows, as `models classify` writes it; else the export's manifest."
    ),
]
TileOption = Annotated[int, typer.Option(min=64, help="Larger pictures are restored in tiles, px.")]
OverlapOption = Annotated[int, typer.Option(min=0, help="Overlap of the tiles, px.")]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Of the noise that some models start from; one field for all tiles.")
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16", "auto"],
    typer.Option(help="fp32 is the reference; auto is bf16 where the device has it."),
]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile the network at its first use.")]

# classify, assemble, convert
LabelsOption = Annotated[Path, typer.Option("-o", "--out", help="File for the labels (JSON lines).")]
ExpertsOption = Annotated[
    list[str] | None,
    typer.Option("--expert", help="illumination=RUN, weather=RUN or text=RUN; any number."),
]
RouterOption = Annotated[str | None, typer.Option(help="Run of the router; without it no blind choice.")]
ReleaseArgument = Annotated[
    Path, typer.Argument(help="Official released checkpoint (.pt, .pth, .safetensors).")
]
UnseenOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="What no tensor shows, for example model.num_heads=[8,8]."),
]
