"""Score a model, or the untouched input, on an export: PSNR and SSIM per degradation class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, get_args

import torch

from catalog.errors import InvalidDocumentError
from catalog.manifest import Split
from catalog.records import Degradation, degradation_key
from models.base import Restorer
from models.brightness import fit_gain_gamma
from models.checkpoint import load
from models.data import Pair, PairDataset
from models.errors import NoPairsError
from models.images import Pixels
from models.metrics import (
    PairScore,
    average_by_class,
    average_over_classes,
    average_over_pairs,
    psnr_db,
    ssim,
)
from models.restore import Tiling, restore_pixels
from models.run_folder import find_export

if TYPE_CHECKING:
    from catalog.console import Console

GAIN_GAMMA_PAIRS = 24


@dataclass(frozen=True)
class Evaluation:
    """Scores of every pair and their averages both ways."""

    scores: tuple[PairScore, ...]

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Averages within each class, with the number of pairs as ``n``."""
        return average_by_class(self.scores)

    def document(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return {
            "n": len(self.scores),
            "per_class": self.per_class,
            "mean_over_pairs": average_over_pairs(self.scores),
            "mean_over_classes": average_over_classes(self.per_class),
            "pairs": [{"id": s.id, "class": s.degradation_class, **s.values} for s in self.scores],
        }


def evaluate_export(
    export: str,
    run: str | None,
    *,
    baseline: bool,
    split: str,
    per_class: int | None,
    with_ssim: bool,
    device: str,
    console: Console,
) -> dict[str, Any]:
    """Score a run, or the untouched input, on an export, and say what was scored.

    Raises:
        InvalidDocumentError: Neither or both of a run and the baseline were asked for, or no such split.
        NoPairsError: The split is empty.
        RunNotFoundError: No such run.
    """
    if baseline == (run is not None):
        raise InvalidDocumentError("evaluate needs a RUN or --baseline, one of them")
    if split not in get_args(Split):
        raise InvalidDocumentError(f"--split {split}: no such split; one of {', '.join(get_args(Split))}")
    folder = find_export(export, console.data)
    dataset = PairDataset(folder, split)  # type: ignore[arg-type]  # checked above
    restorer = None if run is None else load(run, device=device, data=console.data)
    if restorer is not None and not isinstance(restorer, Restorer):
        raise InvalidDocumentError(f"{run}: a degrader cannot be scored as a restorer")
    with console.progress("scoring", len(choose_pairs(dataset, per_class))) as done:
        evaluation = evaluate(
            dataset,
            restorer,
            per_class=per_class,
            with_ssim=with_ssim,
            device=torch.device(device),
            done=done,
        )
    return {
        "run": run,
        "export": str(folder),
        "split": split,
        **evaluation.document(),
        "gain_gamma_psnr_db": _gain_gamma_of_export(folder, dataset, per_class),
    }


def table_lines(document: Mapping[str, Any]) -> list[str]:
    """Lay an evaluation out as a table: a line per class, then the two averages."""
    measures = [name for name in document["mean_over_pairs"] if name != "n"]
    titles = "".join(f"{name.removesuffix('_db'):>16}" for name in measures)
    rows = [
        *document["per_class"].items(),
        ("mean over pairs", {"n": document["n"], **document["mean_over_pairs"]}),
        ("mean over classes", {"n": len(document["per_class"]), **document["mean_over_classes"]}),
    ]
    lines = [f"{'class':24}{'n':>6}{titles}"]
    for name, values in rows:
        lines.append(f"{name:24}{values['n']:>6}" + "".join(f"{values[m]:>16.3f}" for m in measures))
    for name, psnr in document["gain_gamma_psnr_db"].items():
        lines.append(f"{name}: best single gain and gamma of the training pairs {psnr:.3f} dB")
    return lines


def evaluate(
    dataset: PairDataset,
    restorer: Restorer | None,
    *,
    per_class: int | None = None,
    with_ssim: bool = True,
    device: torch.device | None = None,
    tiling: Tiling | None = None,
    done: Callable[[float], None] | None = None,
) -> Evaluation:
    """Score pairs before and after restoration.

    Args:
        dataset: Pairs to score.
        restorer: What restores them; None scores the untouched input alone.
        per_class: Pairs of each class, spread evenly; None for all of them.
        with_ssim: Measure SSIM too; it costs more than a small network.
        device: Where the restorer is.
        tiling: How large pictures are cut.
        done: Called with 1 after each pair.
    """
    scores = []
    for index in choose_pairs(dataset, per_class):
        pair = dataset[index]
        values = score_pictures(pair, pair.lq, "lq", with_ssim=with_ssim)
        if restorer is not None:
            restored = restore_pixels(restorer, pair.lq, device=device or torch.device("cpu"), tiling=tiling)
            values |= score_pictures(pair, restored, "restored", with_ssim=with_ssim)
        scores.append(PairScore(pair.row.id, degradation_key(pair.row.degradations), values))
        if done is not None:
            done(1)
    return Evaluation(tuple(scores))


def choose_pairs(dataset: PairDataset, per_class: int | None) -> list[int]:
    """List the pairs to score: all, or so many of each class, the same ones every time."""
    if per_class is None:
        return list(range(len(dataset)))
    return dataset.spread(per_class * len(set(dataset.classes)))


def score_pictures(pair: Pair, restored: Pixels, name: str, *, with_ssim: bool) -> dict[str, float]:
    """Compare a picture with the pair's reference; keys ``psnr_<name>_db`` and ``ssim_<name>``."""
    values = {f"psnr_{name}_db": psnr_db(restored, pair.gt, mask=pair.mask)}
    if with_ssim:
        values[f"ssim_{name}"] = ssim(restored, pair.gt)
    return values


def score_gain_gamma(
    train: PairDataset, test: PairDataset, *, per_class: int | None = None
) -> dict[str, float]:
    """Score the best single gain and gamma of the training pairs, per class that is short of light, in dB.

    A network has to beat this to have learned anything about light.
    """
    names = sorted({name for name in test.classes if Degradation.LOW_LIGHT in name.split("+")})
    return {
        name: score
        for name in names
        if (score := _gain_gamma_psnr_db(train, test, name, per_class)) is not None
    }


def _gain_gamma_of_export(folder: Path, dataset: PairDataset, per_class: int | None) -> dict[str, float]:
    try:
        return score_gain_gamma(PairDataset(folder, "train"), dataset, per_class=per_class)
    except NoPairsError:
        return {}


def _gain_gamma_psnr_db(
    train: PairDataset, test: PairDataset, name: str, per_class: int | None
) -> float | None:
    fitted_on = list(_of_class(train, name, range(len(train))))
    if not fitted_on:
        return None
    step = max(1, len(fitted_on) // GAIN_GAMMA_PAIRS)
    curve = fit_gain_gamma((train[i].lq, train[i].gt) for i in fitted_on[::step])
    chosen = _of_class(test, name, choose_pairs(test, per_class))
    values = [psnr_db(curve.apply(pair.lq), pair.gt, mask=pair.mask) for pair in (test[i] for i in chosen)]
    return fmean(values)


def _of_class(dataset: PairDataset, name: str, indices: Sequence[int]) -> Iterator[int]:
    return (i for i in indices if dataset.classes[i] == name)
