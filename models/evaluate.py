"""Score a model, or the untouched input, on an export: how near to the reference, per degradation class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from catalog.errors import InvalidDocumentError
from catalog.manifest import Split
from catalog.records import degradation_key
from models.brightness import score_gain_gamma
from models.data import Pair, PairDataset
from models.devices import find_device
from models.errors import NoPairsError, NoValueError, UnfitPairError
from models.images import Pixels
from models.loading import load
from models.measures import Measures, fidelity, learned, measured_as
from models.metrics import PairScore, average_by_class, average_over_classes, average_over_pairs
from models.published import beside_published
from models.restore import restore_pixels
from models.routing import Chooser, choosers
from models.run_folder import find_export
from models.score_report import write_report
from models.score_sheet import ScoreSheet

if TYPE_CHECKING:
    from catalog.console import Console
    from models.ensemble import ExpertChoice

Restoration = Callable[[Pair], Pixels]
"""Restores the degraded picture of a pair. It may look at the pair's row, as an oracle does, never at ``gt``."""
Watcher = Callable[[Pair, Mapping[str, Pixels]], None]
"""Sees each pair with what was made of it, by name."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What `models evaluate` was asked for."""

    export: str
    run: str | None = None
    """Run to score; None with ``baseline``."""
    baseline: bool = False
    """Score the untouched input alone."""
    expert: ExpertChoice | None = None
    """How an ensemble chooses its experts; None scores all three ways apart, each under its own name."""
    split: str = "test"
    per_class: int | None = None
    """Pairs of each class, spread evenly; None for all of them."""
    ssim: bool = True
    """Measure SSIM and the luma too."""
    lpips: tuple[Path, ...] = ()
    """Files that hold the weights of LPIPS; none to leave it out."""
    niqe: Path | None = None
    """Parameters of NIQE, or a folder of good pictures; None to leave it out."""
    out: Path | None = None
    """Folder for the report: JSON, Markdown and a page of pictures."""
    device: str = "cpu"


@dataclass(frozen=True)
class Evaluation:
    """Scores of every pair and their averages both ways."""

    scores: tuple[PairScore, ...]

    @property
    def per_class(self) -> dict[str, dict[str, float | None]]:
        """Averages within each class, with the number of pairs as ``n``."""
        return average_by_class(self.scores)

    def document(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "n": len(self.scores),
            "per_class": self.per_class,
            "mean_over_pairs": average_over_pairs(self.scores),
            "mean_over_classes": average_over_classes(self.per_class),
            "no_value": self._without_value(),
            "pairs": [{"id": s.id, "class": s.degradation_class, **s.values} for s in self.scores],
        }

    def _without_value(self) -> dict[str, dict[str, Any]]:
        """Return, by measure, how many pairs have no value of it, and why the first of them has none."""
        reasons: dict[str, list[str]] = {}
        for score in self.scores:
            for name, reason in score.reasons.items():
                reasons.setdefault(name, []).append(reason)
        return {name: {"n": len(given), "reason": given[0]} for name, given in reasons.items()}


def evaluate_export(request: EvaluationRequest, console: Console) -> dict[str, Any]:
    """Score a run, or the untouched input, on an export, say what was scored, and write the report.

    Raises:
        InvalidDocumentError: Neither or both of a run and the baseline were asked for, or no such split.
        NoPairsError: The split is empty.
        RunNotFoundError: No such run.
        DeviceMissingError: No such device here.
        CheckpointError: Weights of the run or of a measure are damaged.
        StorageError: The report could not be written.
    """
    dataset = _pairs_asked_for(request, console.data)
    indices = choose_pairs(dataset, request.per_class)
    device = find_device(request.device)
    measures = fidelity(with_ssim=request.ssim) | learned(request.lpips, request.niqe, device)
    sheet = None if request.out is None else ScoreSheet([dataset.rows[i] for i in indices])
    with console.progress("scoring", len(indices)) as done:

        def watch(pair: Pair, pictures: Mapping[str, Pixels]) -> None:
            if sheet is not None:
                sheet.add(pair, pictures)
            done(1)

        evaluation = evaluate(
            dataset, _restorations(request, console.data), measures=measures, indices=indices, watch=watch
        )
    document = {
        "run": request.run,
        "export": str(dataset.export),
        "split": request.split,
        **evaluation.document(),
        "gain_gamma_psnr_db": _gain_gamma_of_export(dataset, indices),
        "published": beside_published([dataset.rows[i] for i in indices], evaluation.scores),
    }
    if request.out is not None and sheet is not None:
        write_report(document, sheet, request.out)
    return document


def evaluate(
    dataset: PairDataset,
    restorations: Mapping[str, Restoration],
    *,
    measures: Measures,
    indices: Sequence[int] | None = None,
    watch: Watcher | None = None,
) -> Evaluation:
    """Score pairs before and after restoration.

    Args:
        dataset: Pairs to score.
        restorations: What restores them, by the name its measures carry; empty to score the input alone.
        measures: What to measure of each picture.
        indices: Which pairs; None for all.
        watch: Called after each pair.

    Raises:
        UnfitPairError: A measure cannot be taken of a pair.
    """
    scores = []
    for index in range(len(dataset)) if indices is None else indices:
        pair = dataset[index]
        pictures = {"lq": pair.lq, **{name: restore(pair) for name, restore in restorations.items()}}
        scores.append(_score(pair, pictures, measures))
        if watch is not None:
            watch(pair, pictures)
    return Evaluation(tuple(scores))


def restored_by(choose: Chooser, device: torch.device) -> Restoration:
    """Restore pairs with what is chosen for their classes."""
    return lambda pair: restore_pixels(choose(pair.row.degradations), pair.lq, device=device)


def choose_pairs(dataset: PairDataset, per_class: int | None) -> list[int]:
    """List the pairs to score: all, or so many of each class, the same ones every time."""
    if per_class is None:
        return list(range(len(dataset)))
    return dataset.spread(per_class * len(set(dataset.classes)))


def _pairs_asked_for(request: EvaluationRequest, data: Path) -> PairDataset:
    if request.baseline == (request.run is not None):
        raise InvalidDocumentError("evaluate needs a RUN or --baseline, one of them")
    if request.split not in get_args(Split):
        raise InvalidDocumentError(
            f"--split {request.split}: no such split; one of {', '.join(get_args(Split))}"
        )
    return PairDataset(find_export(request.export, data), request.split)  # type: ignore[arg-type]  # checked


def _restorations(request: EvaluationRequest, data: Path) -> dict[str, Restoration]:
    if request.run is None:
        return {}
    model = load(request.run, device=request.device, data=data)
    device = torch.device(request.device)
    ways = choosers(model, request.expert, run=request.run)
    return {name: restored_by(choose, device) for name, choose in ways.items()}


def _score(pair: Pair, pictures: Mapping[str, Pixels], measures: Measures) -> PairScore:
    found: dict[str, float | NoValueError] = {}
    try:
        for name, picture in pictures.items():
            found |= measured_as(measures, name, picture, pair)
    except UnfitPairError as error:
        raise UnfitPairError(
            f"pair {pair.row.id} cannot be scored: {error}", next_step="export without it, or ask for less"
        ) from error
    reasons = {name: str(value) for name, value in found.items() if isinstance(value, NoValueError)}
    values = {name: None if isinstance(value, NoValueError) else value for name, value in found.items()}
    return PairScore(pair.row.id, degradation_key(pair.row.degradations), values, reasons)


def _gain_gamma_of_export(dataset: PairDataset, indices: Sequence[int]) -> dict[str, float]:
    try:
        return score_gain_gamma(PairDataset(dataset.export, "train"), dataset, indices)
    except NoPairsError:
        return {}
