"""The restoration models on captured pairs of the simulated rig: results/models.json.

    python -P -m benchmarks.models [--data DIR] [--part PART]... [--share 0.2]

Every part writes its own entry of the results and leaves the others; without --part all are made. Pairs are recorded
once and reused. Runs and their scores stay in the data folder: a part that was stopped (Ctrl-C, SIGTERM: exit code 6)
and is started again goes on from what is recorded, trained and scored.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.models_data import HELD_OUT_SCENES, TRAINING_SCENES, captured_pairs, part_of
from benchmarks.models_step import largest_difference
from benchmarks.stopwatch import Stopwatch
from catalog.console import Console
from catalog.manifest import read_manifest
from catalog.records import degradation_key
from models.base import Classifier, Restorer
from models.config import load_config
from models.data import Pair, PairDataset, to_unit
from models.ensemble import Ensemble, assemble
from models.errors import TrainingInterruptedError
from models.evaluate import EvaluationRequest, evaluate_export
from models.experts import first_pass, refined
from models.images import Pixels
from models.job import plan_training
from models.loading import load
from models.printed_text import print_on
from models.registry import find_model
from models.restore import Tiling, restored_bands, tile_spans
from models.router import seen_in
from models.run_folder import RunFolder
from models.train import train

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "models.json"
CLOCK_NAME = "clock.json"
APART = ("haze", "low_light")
"""Classes with one of these are reported apart: a gain in light alone is worth many dB."""
CPU = torch.device("cpu")
_2K = (1080, 1920)
_TILING, _WHOLE = Tiling(768, 64), Tiling(2048, 64)
_SAME = 1e-4
"""How far float32 outputs of one network may lie apart when their sums are made in another order."""
_GRAIN = np.random.default_rng(11)


class Bench:
    """Where pairs and runs lie, and how long runs are."""

    def __init__(self, data: Path, *, share: float, per_class: int) -> None:
        self.data, self.share, self.per_class = data, share, per_class
        self.console = Console(data)

    @property
    def conditions(self) -> dict[str, Any]:
        """What the numbers of a part rest on."""
        return {
            "share_of_the_shipped_steps": self.share,
            "held_out_pairs_per_class": self.per_class,
            "cpu_cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "torch": torch.__version__,
        }

    def run(
        self, model: str, config: str, out: str, *, export: Path | None = None, changes: Sequence[str] = ()
    ) -> str:
        """Train a run, go on with it, or return the one that is complete; its name."""
        out = self.name(out)
        shipped = load_config(find_model(model), config, changes).training.steps
        wanted = max(1, round(self.share * shipped))
        folder = RunFolder(self.data / "runs" / out)
        begun = folder.config_path.is_file()
        if begun and folder.saved_steps() and folder.latest_step() >= wanted:
            return out
        job = plan_training(
            model, str(export or self.export), data=self.data, config=config, out=out, resume=begun,
            overrides=(*changes, f"training.steps={wanted}"),
        )  # fmt: skip
        with self._clocked(folder):
            train(job, self.console)
        return out

    def in_full(self) -> Bench:
        """The same with trainings of the shipped length, for those that are short anyway."""
        return Bench(self.data, share=1.0, per_class=self.per_class)

    def name(self, run: str) -> str:
        """Name a run so that runs of different lengths lie apart."""
        return run if self.share == 1 else f"{run}-{self.share:g}"

    @contextmanager
    def _clocked(self, folder: RunFolder) -> Iterator[None]:
        """Add the block's time to that of the run, whether the block ends or is interrupted."""
        clock = Stopwatch(**self.clock(folder.path.name))
        try:
            with clock:
                yield
        finally:
            if folder.path.is_dir():
                (folder.path / CLOCK_NAME).write_text(json.dumps(clock.as_json()))

    def clock(self, run: str) -> dict[str, float]:
        """Return wall and CPU time of a run's training, over all its parts."""
        file = self.data / "runs" / run / CLOCK_NAME
        times: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}
        return times

    def scores(self, run: str) -> dict[str, Any]:
        """Score a run or an ensemble on the held-out scenes, once."""
        kept = self.data / "runs" / run / f"scores-{self.per_class}.json"
        if not kept.is_file():
            request = EvaluationRequest(str(self.export), run, ssim=False, per_class=self.per_class)
            kept.write_text(json.dumps(evaluate_export(request, self.console)))
        found: dict[str, Any] = json.loads(kept.read_text())
        return found

    @property
    def export(self) -> Path:
        """The captured pairs."""
        return captured_pairs(self.data)

    def generalist(self, seed: int = 1) -> str:
        """Train the generalist in its two stages."""
        return self.run("foundir", "tiny", f"generalist-{seed}", changes=(f"training.seed={seed}",))


def record(bench: Bench) -> dict[str, Any]:
    """Record and align the scenes; count the pairs of each class."""
    counts: dict[str, Counter[str]] = {}
    for row in read_manifest(bench.export):
        counts.setdefault(degradation_key(row.degradations), Counter())[row.split] += 1
    return {
        "scenes": {"train": TRAINING_SCENES, "test": HELD_OUT_SCENES},
        "pairs": {key: dict(counts[key]) for key in sorted(counts)},
    }


def goldens(_: Bench) -> dict[str, Any]:
    """Run every golden case and the parameter counts."""
    test = ROOT / "tests" / "models" / "test_goldens.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(test), "-q", "--no-header", "-p", "no:cacheprovider"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    return {"passed": done.returncode == 0, "summary": done.stdout.strip().splitlines()[-1]}


def generalist(bench: Bench) -> dict[str, Any]:
    """Train the generalist and compare it with its input, class by class."""
    run = bench.generalist()
    return {**gains(bench.scores(run)), "training": bench.clock(run)}


def pairs(bench: Bench) -> dict[str, Any]:
    """Train it on a tenth, a third and all of the pairs."""
    found = {}
    for share in (0.1, 0.3):
        percent = round(100 * share)
        run = bench.run("foundir", "tiny", f"generalist-pairs-{percent}", export=part_of(bench.export, share))
        found[f"{percent} %"] = gains(bench.scores(run))["mean_over_classes_db"]
    found["100 %"] = gains(bench.scores(bench.generalist()))["mean_over_classes_db"]
    return {"psnr_db": found, "rising": list(found.values()) == sorted(found.values())}


def router(bench: Bench) -> dict[str, Any]:
    """Train experts and router behind the generalist; score the three ways to choose."""
    name = bench.name("ensemble")
    if not (bench.data / "runs" / name).exists():
        behind = (f"model.generalist={bench.generalist()}",)
        experts = {
            kind: bench.run("expert", f"{kind}-tiny", kind, changes=behind)
            for kind in ("weather", "illumination")
        }
        made = bench.in_full().run("router", "tiny", "router")
        assemble(
            bench.data / "runs" / name, bench.generalist(), experts=experts, router=made, data=bench.data
        )
    document = bench.scores(name)
    mean = document["mean_over_classes"]
    oracle, blind, none = (mean[f"psnr_{way}_db"] for way in ("oracle", "blind", "none"))
    return {
        "per_class": document["per_class"],
        "mean_over_classes": mean,
        "blind_within_0.3_db_of_oracle": oracle - blind <= 0.3,
        "blind_above_generalist": blind > none,
        "chosen": _choices(bench, name),
    }


def classify(bench: Bench) -> dict[str, Any]:
    """Train the router alone; count the held-out pictures whose degradations it names, all and no others."""
    run = bench.in_full().run("router", "tiny", "router")
    router, dataset = load(run, data=bench.data), PairDataset(bench.export, "test")
    assert isinstance(router, Classifier)
    right: dict[str, list[bool]] = {}
    for index in dataset.spread(bench.per_class * len(set(dataset.classes))):
        key = dataset.classes[index]
        with torch.inference_mode():
            seen = seen_in(router.classify(to_unit([dataset[index].lq], CPU)))
        right.setdefault(key, []).append(seen == set(key.split("+")))
    found = {key: f"{sum(hits)} of {len(hits)}" for key, hits in right.items()}
    return {"named_rightly": found, "training": bench.clock(run)}


def _choices(bench: Bench, name: str) -> dict[str, dict[str, int]]:
    """Count which expert the router chose for each class of the held-out scenes."""
    ensemble, dataset = load(name, data=bench.data), PairDataset(bench.export, "test")
    assert isinstance(ensemble, Ensemble)
    counts: dict[str, dict[str, int]] = {}
    for index, key in enumerate(dataset.classes):
        lq = to_unit([dataset[index].lq], CPU)
        with torch.inference_mode():
            seen = {s for s, sure in ensemble.classify(lq).items() if sure >= 0.5}
        chosen = str(ensemble.expert_for(seen))
        counts.setdefault(key, {})[chosen] = counts.get(key, {}).get(chosen, 0) + 1
    return counts


def text(bench: Bench) -> dict[str, Any]:
    """Train the text expert behind the generalist; judge print on held-out crops by PSNR on the print alone."""
    first = load(bench.generalist(), data=bench.data)
    run = bench.run("text-expert", "tiny", "text", changes=(f"model.generalist={bench.generalist()}",))
    expert, dataset = load(run, data=bench.data), PairDataset(bench.export, "test")
    assert isinstance(first, Restorer)
    found: dict[str, list[list[float]]] = {}
    for index in dataset.spread(8 * len(set(dataset.classes))):
        torch.manual_seed(index)
        pair = _middle(dataset[index], 192)
        lq, gt = (to_unit([pixels], CPU) for pixels in (pair.lq, pair.gt))
        printed = print_on(lq, gt, share=1.0)
        with_print, without = (_passes(first, expert, shown) for shown in (printed.lq, lq))
        found.setdefault(dataset.classes[index], []).append(
            [_psnr_on(image, printed.gt, printed.where) for image in with_print]
            + [_psnr_on(image, gt, torch.ones_like(gt[:, :1])) for image in without[1:]]
        )
    names = ("input_db", "generalist_db", "text_expert_db", "without_print_db", "called_in_vain_db")
    rows = {
        key: dict(zip(names, map(fmean, zip(*values, strict=True)), strict=True))
        for key, values in found.items()
    }
    return {
        "per_class": rows,
        "least_gain_on_the_input_db": min(r["text_expert_db"] - r["input_db"] for r in rows.values()),
        "least_gain_on_the_generalist_db": min(
            r["text_expert_db"] - r["generalist_db"] for r in rows.values()
        ),
        "most_lost_in_vain_db": max(r["without_print_db"] - r["called_in_vain_db"] for r in rows.values()),
        "training": bench.clock(run),
    }


def _passes(first: Restorer, expert: Any, lq: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return a crop, what the generalist makes of it, and what the expert makes of both."""
    with torch.inference_mode():
        generalist_only = first_pass(first, lq)
        return lq, generalist_only, refined(expert, generalist_only, lq)


def _middle(pair: Pair, side_px: int) -> Pair:
    corner = ((pair.row.height - side_px) // 2, (pair.row.width - side_px) // 2)
    return pair.windows([corner], side_px)[0]


def _psnr_on(image: torch.Tensor, gt: torch.Tensor, where: torch.Tensor) -> float:
    error = ((image - gt).square() * where).sum() / (3 * where.sum()).clamp(min=1)
    return float(-10 * torch.log10(error))


def incremental(bench: Bench) -> dict[str, Any]:
    """Stages against joint mixing at equal steps, three seeds each."""
    mixed, staged = [], []
    for seed in (1, 2, 3):
        changes = (f"training.seed={seed}", "training.stages=[]")
        joint = bench.run("foundir", "tiny", f"joint-{seed}", changes=changes)
        mixed.append(gains(bench.scores(joint))["mean_over_classes_db"])
        staged.append(gains(bench.scores(bench.generalist(seed)))["mean_over_classes_db"])
    apart = [a - b for a, b in zip(staged, mixed, strict=True)]
    return {
        "staged_db": staged,
        "joint_db": mixed,
        "difference_db": fmean(apart),
        "deviation_db": stdev(apart),
    }


def gains(document: Mapping[str, Any]) -> dict[str, Any]:
    """Say by how much each class was improved, light and haze apart."""
    rows = document["per_class"]
    gain = {key: values["psnr_restored_db"] - values["psnr_lq_db"] for key, values in rows.items()}
    counted = [value for key, value in gain.items() if not set(key.split("+")) & set(APART)]
    return {
        "per_class": rows,
        "gain_db": gain,
        "mean_gain_without_light_and_haze_db": fmean(counted),
        "no_class_below_its_input": min(gain.values()) >= 0,
        "mean_over_classes_db": document["mean_over_classes"]["psnr_restored_db"],
    }


def speed(_: Bench) -> dict[str, Any]:
    """One training step of the published network by us and by a plain port, and of the tiny generalist.

    Each is measured in a process of its own, in turns; both networks are compared on the same weights first.
    """
    difference = largest_difference(dim=64)
    if difference > _SAME:
        raise ValueError(f"the plain port and our network differ by {difference:g}: no rival to compare with")
    sides: dict[str, list[dict[str, float]]] = {}
    for side in ("plain", "reference", "fast", "tiny") * 2:
        sides.setdefault(side, []).append(_step_in_a_process(side))
    found = {side: min(runs, key=lambda run: run["cpu_s_per_step"]) for side, runs in sides.items()}
    plain, fast = found["plain"], found["fast"]
    return {
        **found,
        "threads": torch.get_num_threads(),
        "largest_difference_for_the_same_weights": difference,
        "cpu_time_of_a_plain_step_over_ours": plain["cpu_s_per_step"] / fast["cpu_s_per_step"],
        "memory_of_a_plain_step_over_ours": plain["peak_memory_mb"] / fast["peak_memory_mb"],
    }


def _step_in_a_process(side: str) -> dict[str, float]:
    command = [sys.executable, "-P", "-m", "benchmarks.models_step", side]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def two_k(bench: Bench) -> dict[str, Any]:
    """A picture of 1920x1080 in one piece and in tiles: seconds, and how far the two differ."""
    model = load(bench.generalist(), data=bench.data)
    assert isinstance(model, Restorer)
    coarse = torch.from_numpy(_GRAIN.random((1, 3, 34, 60), np.float32))
    smooth = F.interpolate(coarse, size=_2K, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0).numpy()
    noisy = smooth + _GRAIN.normal(0, 0.05, smooth.shape)
    lq = np.rint(255 * noisy.clip(0, 1)).astype(np.uint8)
    found: dict[str, Any] = {}
    pictures = {}
    for name, tiling in (("tiled", _TILING), ("untiled", _WHOLE)):
        with Stopwatch() as clock:
            pictures[name] = _restored(model, lq, tiling)
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found[name] = {**clock.as_json(), "peak_memory_so_far_mb": memory_mb}
    found |= _apart(pictures["tiled"], pictures["untiled"], _TILING)
    dataset, small = PairDataset(bench.export, "test"), Tiling(384, 64)
    found["captured_pictures_in_tiles_of_384_px"] = {
        dataset.classes[index]: _apart(
            *(_restored(model, dataset[index].lq, way) for way in (small, _WHOLE)), small
        )
        for index in dataset.spread(len(set(dataset.classes)))
    }
    return {**found, "allowed": 1 / 255}


def _restored(model: Restorer, lq: Pixels, tiling: Tiling) -> np.ndarray:
    return np.concatenate(list(restored_bands(model, lq, device=CPU, tiling=tiling, seed=0)))


def _apart(tiled: np.ndarray, untiled: np.ndarray, tiling: Tiling) -> dict[str, float]:
    """Say how far two restorations of one picture lie apart where one tile alone counts, and anywhere."""
    difference = np.abs(tiled - untiled).max(axis=2)
    alone = np.ix_(*(_covered_once(extent, tiling) for extent in difference.shape))
    return {
        "largest_difference_away_from_seams": float(difference[alone].max()),
        "largest_difference_anywhere": float(difference.max()),
    }


def _covered_once(extent: int, tiling: Tiling) -> np.ndarray:
    count = np.zeros(extent)
    for span in tile_spans(extent, tiling):
        count[span.slice] += 1
    return np.flatnonzero(count == 1)


PARTS: Mapping[str, Callable[[Bench], dict[str, Any]]] = {
    "goldens": goldens,
    "record": record,
    "train": generalist,
    "classify": classify,
    "router": router,
    "text": text,
    "speed": speed,
    "2k": two_k,
    "pairs": pairs,
    "incremental": incremental,
}


def main() -> int:
    """Make the parts that were asked for; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("cleanplate-data"))
    parser.add_argument("--part", action="append", choices=list(PARTS), dest="parts")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--share", type=float, default=1.0, help="of the shipped steps of every training")
    parser.add_argument(
        "--per-class", type=int, default=6, help="held-out pairs of each class that are scored"
    )
    options = parser.parse_args()
    bench = Bench(options.data.absolute(), share=options.share, per_class=options.per_class)
    os.environ["CLEANPLATE_DATA"] = str(bench.data)  # experts look their generalist up there
    for name in options.parts or PARTS:
        try:
            write_part(bench, name, options.out)
        except TrainingInterruptedError as stop:
            print(f"{name}: {stop}; the same command goes on", file=sys.stderr)
            return 6
    return 0


def write_part(bench: Bench, name: str, out: Path) -> None:
    """Make one part and put it into the results beside the others."""
    conditions = bench.conditions
    with Stopwatch() as clock:
        made = PARTS[name](bench)
    document = json.loads(out.read_text()) if out.is_file() else {"schema": 1}
    document[name] = {**made, "conditions": conditions, "this_call": clock.as_json()}
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({name: document[name]}, indent=1), flush=True)


if __name__ == "__main__":
    sys.exit(main())
