"""Which measures an evaluation takes of each picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.data import Pair
from models.errors import NoValueError
from models.images import Pixels
from models.metrics import psnr_db, psnr_y_db, ssim, ssim_y

if TYPE_CHECKING:
    import torch

Measure = Callable[[Pixels, Pair], float]
"""May raise `NoValueError` where a picture gives it nothing to judge."""
Measures = Mapping[str, Measure]
"""By name, with ``{}`` for the picture that is judged: ``psnr_{}_db`` gives ``psnr_lq_db``."""


def fidelity(*, with_ssim: bool) -> dict[str, Measure]:
    """PSNR in colour; beside it PSNR of the luma and SSIM of both, which cost more than a small network."""
    measures: dict[str, Measure] = {"psnr_{}_db": lambda found, pair: psnr_db(found, pair.gt, mask=pair.mask)}
    if with_ssim:
        measures |= {
            "psnr_y_{}_db": lambda found, pair: psnr_y_db(found, pair.gt, mask=pair.mask),
            "ssim_{}": lambda found, pair: ssim(found, pair.gt, mask=pair.mask),
            "ssim_y_{}": lambda found, pair: ssim_y(found, pair.gt, mask=pair.mask),
        }
    return measures


def measured_as(
    measures: Measures, name: str, picture: Pixels, pair: Pair
) -> dict[str, float | NoValueError]:
    """Take every measure of one picture of a pair, under the picture's name; where there is no value, why not."""
    return {key.format(name): _taken(measure, picture, pair) for key, measure in measures.items()}


def _taken(measure: Measure, picture: Pixels, pair: Pair) -> float | NoValueError:
    try:
        return measure(picture, pair)
    except NoValueError as reason:
        return reason


def learned(lpips: Sequence[Path], niqe: Path | None, device: torch.device) -> dict[str, Measure]:
    """Build the measures that need weights or parameters of someone's: those whose files were given.

    Args:
        lpips: Files that together hold the backbone and the weights of its layers; none for no LPIPS.
        niqe: Parameters of natural pictures, or a folder of pictures to take them from; None for no NIQE.
        device: Where the network of LPIPS runs.

    Raises:
        CheckpointError: A file is damaged or holds something else.
        NoPairsError: The folder holds no picture to learn from.
    """
    measures: dict[str, Measure] = {}
    if lpips:
        from models.perceptual import PerceptualDistance

        distance = PerceptualDistance.load(lpips, device)
        measures["lpips_{}"] = lambda found, pair: distance(found, pair.gt)
    if niqe is not None:
        from models.naturalness import NaturalPictures

        natural = NaturalPictures.load(niqe)
        measures["niqe_{}"] = lambda found, _pair: natural.distance(found)
    return measures
