"""A quick look at a few fixed pairs while training: PSNR by class, and pictures to look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import torch

from catalog.records import degradation_key
from models.base import Restorer
from models.config import TrainingConfig
from models.data import Pair, PairDataset, to_unit
from models.errors import NoPairsError
from models.images import Pixels
from models.metrics import psnr_db, to_8_bit


@dataclass(frozen=True)
class ValidationResult:
    """What a validation saw."""

    psnr_db: float
    """Average of the classes' averages."""
    by_class: Mapping[str, float]
    triptychs: Mapping[str, tuple[Pixels, Pixels, Pixels]]
    """One pair of each class: degraded, restored, reference; uint8."""


class Validator:
    """The central parts of a few pairs, the same ones at every validation.

    Args:
        export: Where the pairs come from: split `val`, or `train` where there is none. The test split is
            never looked at while training.
        settings: How many pairs, and how much of each.
    """

    def __init__(self, export: Path | str, settings: TrainingConfig) -> None:
        self._dataset = _pairs_to_watch(export)
        self._settings = settings

    def validate(self, model: Restorer, device: torch.device) -> ValidationResult | None:
        """Restore the pairs with the model as it is; None where there are none to look at."""
        if not self._watched:
            return None
        found: dict[str, list[float]] = defaultdict(list)
        triptychs: dict[str, tuple[Pixels, Pixels, Pixels]] = {}
        for pair in self._watched:
            restored = _restored(model, pair.lq, device)
            name = degradation_key(pair.row.degradations)
            found[name].append(psnr_db(restored, pair.gt, mask=pair.mask))
            triptychs.setdefault(name, (to_8_bit(pair.lq), restored, to_8_bit(pair.gt)))
        by_class = {name: fmean(values) for name, values in sorted(found.items())}
        return ValidationResult(fmean(by_class.values()), by_class, triptychs)

    @cached_property
    def _watched(self) -> list[Pair]:
        """As many as the settings ask for; a pair whose mask trusts nothing of its central part is left out."""
        chosen = self._dataset.spread(self._settings.validation_pairs)
        centres = [_centre(self._dataset[i], self._settings.validation_px) for i in chosen]
        return [pair for pair in centres if pair.mask is None or pair.mask.any()]


def _restored(model: Restorer, lq: Pixels, device: torch.device) -> Pixels:
    """Restore in one piece, uint8. What is not finite becomes black: a look at a network must not end its training."""
    with torch.no_grad():  # weights that are gathered in inference mode could not be trained afterwards
        restored = model.restore(to_unit([lq], device))[0]
    return (restored.nan_to_num(0, 1, 0) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _pairs_to_watch(export: Path | str) -> PairDataset:
    try:
        return PairDataset(export, "val")
    except NoPairsError:
        return PairDataset(export, "train")


def _centre(pair: Pair, side_px: int) -> Pair:
    height, width = pair.gt.shape[:2]
    top, left = max(0, height - side_px) // 2, max(0, width - side_px) // 2
    window = (slice(top, top + side_px), slice(left, left + side_px))
    mask = None if pair.mask is None else pair.mask[window]
    return Pair(pair.row, pair.lq[window], pair.gt[window], mask)
