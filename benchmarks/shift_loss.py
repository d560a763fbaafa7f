"""What a shift-tolerant loss is worth on misaligned pairs: results/shift_loss.json.

    python -P -m benchmarks.shift_loss [--photos DIR] [--steps 400] [--seeds 3]

Noisy crops of photographs whose references are moved by up to 3 px, by another sub-pixel amount for every pair,
train the tiny NAFNet with L1 and with L1 that forgives a shift; the same pairs with references in their place show
what there was to lose. All are scored on held-out pairs that are aligned. The photographs are Kodak's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift

from catalog.console import Console
from catalog.manifest import ManifestRow, write_manifest
from models.base import Restorer
from models.data import PairDataset
from models.evaluate import evaluate, restored_by
from models.job import plan_training
from models.loading import load
from models.measures import fidelity
from models.train import train

RESULT = Path(__file__).parent / "results" / "shift_loss.json"
SHARED = Path(os.environ.get("CLEANPLATE_SHARED", Path(__file__).parents[2] / "shared"))
CROP_PX, MARGIN_PX, CROPS = 192, 24, 4
NOISE, LARGEST_PX = 20.0, 3.0
HELD_OUT = 3
"""Photographs that no training sees."""


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    moved: bool
    """Whether the references are misaligned."""
    shift_px: int
    """Shift that the loss forgives."""


ARMS = (
    Arm("aligned, L1", moved=False, shift_px=0),
    Arm("aligned, tolerant", moved=False, shift_px=3),
    Arm("misaligned, L1", moved=True, shift_px=0),
    Arm("misaligned, tolerant", moved=True, shift_px=3),
)


def write_export(folder: Path, photos: Sequence[Path], *, moved: bool) -> None:
    """Write crops with noise and their references, moved for training where asked, never for the test."""
    rows = []
    for number, photo in enumerate(photos):
        rng = np.random.default_rng([7, number])  # the same noise and shifts in every export
        pixels = cv2.imread(str(photo), cv2.IMREAD_COLOR)[..., ::-1].astype(np.float64)
        test = number >= len(photos) - HELD_OUT
        for crop in range(CROPS):
            gt, lq = _pair(pixels, rng, moved=moved and not test)
            rows.append(_write(folder, f"{photo.stem}-{crop}", gt, lq, "test" if test else "train"))
    write_manifest(folder, rows)


def _pair(
    photo: NDArray[np.float64], rng: np.random.Generator, *, moved: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    side = CROP_PX + 2 * MARGIN_PX
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
    shift = rng.uniform(-LARGEST_PX, LARGEST_PX, 2)
    window = photo[top : top + side, left : left + side]
    inner = np.s_[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    lq = window[inner] + rng.normal(0, NOISE, (CROP_PX, CROP_PX, 3))
    gt = _shifted(window, shift)[inner] if moved else window[inner]
    return _as_8_bit(gt), _as_8_bit(lq)


def _shifted(window: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move a picture by fractions of a pixel without blurring it: a change of phase."""
    spectra = (fourier_shift(np.fft.fft2(window[..., c]), shift) for c in range(3))
    return np.stack([np.fft.ifft2(spectrum).real for spectrum in spectra], axis=2)


def _as_8_bit(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def _write(folder: Path, name: str, gt: NDArray[np.uint8], lq: NDArray[np.uint8], split: str) -> ManifestRow:
    digests = {}
    for side, pixels in (("gt", gt), ("lq", lq)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        (folder / side / f"{name}.png").write_bytes(data)
        digests[f"sha256_{side}"] = hashlib.sha256(data).hexdigest()
    row = {
        "id": name, "gt": f"gt/{name}.png", "lq": f"lq/{name}.png", "scene": name, "session": "photos",
        "round": "noise", "degradations": ["noise"], "foundir_class": None, "settings": {}, "mu": 0.0, "sigma": 0.0,
        "residual_px": None, "predicted_epe_px": None, "mask": None, "split": split, "width": CROP_PX,
        "height": CROP_PX, "source": "synthetic", **digests,
    }  # fmt: skip
    return ManifestRow.model_validate(row)


def score(data: Path, arm: Arm, *, seed: int, steps: int) -> float:
    """Train one arm with one seed; returns the PSNR of the held-out, aligned pairs in dB."""
    export = data / ("moved" if arm.moved else "aligned")
    job = plan_training(
        "nafnet", str(export), data=data, config="tiny", out=f"{arm.name}-{seed}".replace(", ", "-"),
        overrides=(
            "model.loss=l1", f"model.shift_px={arm.shift_px}", f"training.steps={steps}", f"training.seed={seed}",
            "training.validation_pairs=0", "training.cpu_threads=1", "training.checkpoint_every=1000000",
        ),
    )  # fmt: skip
    result = train(job, Console(data, quiet=True))
    model = load(result.checkpoint)
    assert isinstance(model, Restorer)
    restoration = {"restored": restored_by(lambda _known: model, torch.device("cpu"))}
    found = evaluate(PairDataset(export, "test"), restoration, measures=fidelity(with_ssim=False))
    return found.document()["mean_over_pairs"]["psnr_restored_db"]


def measure(data: Path, *, seeds: int, steps: int) -> Iterator[dict[str, Any]]:
    """Yield what each arm reached."""
    for arm in ARMS:
        began_s = time.process_time()
        found = [score(data, arm, seed=seed, steps=steps) for seed in range(1, seeds + 1)]
        yield {
            "arm": arm.name,
            "psnr_db": found,
            "mean_db": fmean(found),
            "deviation_db": stdev(found) if seeds > 1 else None,
            "cpu_s_per_run": (time.process_time() - began_s) / seeds,
        }


def main() -> None:
    """Run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=SHARED / "data" / "photos" / "kodak")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.png"))
    if len(photos) <= HELD_OUT:
        parser.error(f"{options.photos}: needs more than {HELD_OUT} PNG photographs")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for name in ("moved", "aligned"):
            write_export(data / name, photos, moved=name == "moved")
        baseline = evaluate(PairDataset(data / "aligned", "test"), {}, measures=fidelity(with_ssim=False))
        document = {
            "schema": 1,
            "photographs": len(photos),
            "largest_shift_px": LARGEST_PX,
            "noise_code_values": NOISE,
            "steps": options.steps,
            "input_db": baseline.document()["mean_over_pairs"]["psnr_lq_db"],
            "arms": list(measure(data, seeds=options.seeds, steps=options.steps)),
        }
    RESULT.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
