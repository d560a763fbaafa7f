"""The router: which degradations, and whether print, a picture shows; the choice of an expert rests on it.

FoundIR chooses its expert "by the degradation pattern of the image", but neither the paper's text as far as we know it
nor the release holds what does: the released script goes by the number of the test file. This router is ours. It sees
pixels alone, is trained on the same captured pairs as the models it serves, with their references as examples of no
degradation and with print drawn on some crops, and knows sets of degradations, so coupled classes need no classes of
their own.

Noise and blur are told by single pixels, so the network looks at crops at full resolution, spread over the picture;
beside the colours it sees them with local brightness and contrast taken out, where haze and darkness hide nothing. It
has no norms, which would take away how strong something is. A few numbers of each crop, brightness and how much
neighbouring pixels differ, go to the decision straight away: they tell most degradations within a few hundred steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from catalog.records import Degradation
from catalog.yaml_document import Document
from models.printed_text import print_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.base import RestorationBatch

TEXT = "text"
"""What a picture may show beside degradations: printed characters."""
SIGHTS: tuple[str, ...] = (*(d.value for d in Degradation), TEXT)
"""Everything that the router knows, in the order of its outputs."""
CERTAIN = 0.5
"""From this on a sight counts as seen."""
_WINDOW_PX = 7
_LIGHT_NUMBERS = 12
_SCALES, _QUANTILES = 3, (0.1, 0.5, 0.95)
_TEXTURE_NUMBERS = _SCALES * 2 * len(_QUANTILES)
_FAINT = 1 / 1020
"""A quarter of an 8-bit step."""
_FLAT = 1e-2
"""Local contrast below which a crop counts as flat: 2.5 code values."""


class RouterConfig(Document):
    """Size of the network, and how it looks."""

    width: int = Field(default=24, ge=4)
    """Channels of the first stage; they grow by as many at each halving."""
    halvings: int = Field(default=4, ge=1, le=6)
    crop_px: int = Field(default=128, ge=16)
    """Side of the crops that a picture is judged by; train with ``training.patch_px`` near it."""
    crops_per_side: int = Field(default=4, ge=1)
    """So many crops are looked at in each direction, as far as they fit."""
    printed_share: float = Field(default=0.2, ge=0, le=1)
    """Share of training crops that get print, see `models.printed_text`."""


class Router(nn.Module):
    """The classifier with its loss."""

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * (stage + 1) for stage in range(config.halvings + 1)]
        stages = [_stage(6, widths[0], stride=1)]
        stages += [_stage(channels, out, stride=2) for channels, out in pairwise(widths)]
        self.network = nn.Sequential(*stages)
        told = 2 * widths[-1] + _LIGHT_NUMBERS + _TEXTURE_NUMBERS
        self.head = nn.Sequential(nn.Linear(told, widths[-1]), nn.SiLU(), nn.Linear(widths[-1], len(SIGHTS)))

    def forward(self, crops: Tensor) -> Tensor:
        """Judge ``(B, 3, H, W)`` in [0, 1]; logits ``(B, sights)`` in the order of `SIGHTS`."""
        seen: Tensor = self.network(torch.cat([2 * crops - 1, _evened(crops)], dim=1)).float()
        spread, mean = torch.var_mean(seen, dim=(2, 3), correction=0)
        told = torch.cat([mean, (spread + 1e-5).sqrt(), _light(crops), _texture(crops)], dim=1)
        logits: Tensor = self.head(told)
        return logits.float()

    def loss(self, batch: RestorationBatch) -> dict[str, Tensor]:
        """Cross-entropy of every sight, over degraded crops and their references; ``exact`` is the share all right."""
        printed = print_on(batch.lq, batch.gt, share=self.config.printed_share)
        shown = printed.where.flatten(1).amax(dim=1) > 0
        wanted = _labels(batch.classes).to(batch.lq.device)
        wanted = torch.cat([wanted, torch.zeros_like(wanted)])
        wanted[:, -1] = shown.repeat(2)
        logits = self(torch.cat([printed.lq, printed.gt]))
        exact = ((logits > 0) == (wanted > 0)).all(dim=1).float().mean()
        return {"loss": F.binary_cross_entropy_with_logits(logits, wanted), "exact": exact.detach()}

    def classify(self, lq: Tensor) -> dict[str, float]:
        """Return how sure it is of each sight in ``(1, 3, H, W)`` of any size, in [0, 1].

        Degradations lie over the whole picture, so the crops' votes are averaged; print may stand in one corner, so
        the crop that shows it most speaks for all.
        """
        crops = spread_crops(lq, side_px=self.config.crop_px, per_side=self.config.crops_per_side)
        logits = self(crops.to(next(self.parameters()).device))
        votes = torch.cat([logits[:, :-1].mean(dim=0), logits[:, -1:].amax(dim=0)])
        return dict(zip(SIGHTS, votes.sigmoid().tolist(), strict=True))


def seen_in(votes: Mapping[str, float]) -> frozenset[str]:
    """Return the sights that a classifier is rather sure of than not."""
    return frozenset(name for name, sure in votes.items() if sure >= CERTAIN)


def certainty(votes: Mapping[str, float]) -> float:
    """Return how sure a classifier is of what it sees as a whole, which is how sure it is of its weakest vote."""
    return min(max(sure, 1 - sure) for sure in votes.values())


def spread_crops(lq: Tensor, *, side_px: int, per_side: int) -> Tensor:
    """Cut crops that lie evenly over ``(1, 3, H, W)``: ``(n, 3, side, side)``, less high or wide where it is."""
    rows, columns = (_starts(extent, side_px, per_side) for extent in lq.shape[-2:])
    return torch.cat([lq[..., y : y + side_px, x : x + side_px] for y in rows for x in columns])


def _starts(extent: int, side_px: int, most: int) -> list[int]:
    room = max(0, extent - side_px)
    count = min(most, -(-extent // side_px))
    return [room // 2] if count == 1 else [room * i // (count - 1) for i in range(count)]


def _stage(channels: int, out: int, *, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.SiLU())


def _light(crops: Tensor) -> Tensor:
    """Return how bright crops are, in stops: mean, spread, darkest and brightest of each colour, ``(B, 12)``.

    Darkness is told by it, and haze, which lifts what is darkest.
    """
    cells = F.avg_pool2d(crops, 2, ceil_mode=True).flatten(2).float()
    spread, mean = torch.var_mean(cells, dim=2, correction=0)
    numbers = torch.cat([mean, spread.sqrt(), cells.amin(dim=2), cells.amax(dim=2)], dim=1)
    return _in_stops(numbers)


def _texture(crops: Tensor) -> Tensor:
    """Return how much neighbours differ, in stops, ``(B, 18)``: across and down, at three scales.

    Three quantiles of each: noise lifts the lowest, blur lowers the highest at the finest scale alone, and rain makes
    across and down differ.
    """
    grey, numbers = crops.float().mean(dim=1, keepdim=True), []
    for _ in range(_SCALES):
        differences = (F.pad(grey, (0, 1, 0, 1), mode="replicate").diff(dim=dim).abs() for dim in (2, 3))
        numbers += [torch.quantile(d.flatten(1), d.new_tensor(_QUANTILES), dim=1).T for d in differences]
        grey = F.avg_pool2d(grey, 2, ceil_mode=True)
    return _in_stops(torch.cat(numbers, dim=1))


def _in_stops(numbers: Tensor) -> Tensor:
    """Take the logarithm of numbers in [0, 1], which lie about from -3 to 2."""
    return torch.log2(numbers.clamp(min=0) + _FAINT) / 2 + 2


def _evened(crops: Tensor) -> Tensor:
    """Take local brightness and contrast out of ``(B, 3, H, W)``."""

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW_PX, 1, _WINDOW_PX // 2, count_include_pad=False)

    apart = crops - around(crops)
    return apart / (around(apart.square()) + _FLAT**2).sqrt()


def _labels(classes: Sequence[str]) -> Tensor:
    """Return 1 for every degradation of each class: ``(B, sights)``."""
    named = [name.split("+") for name in classes]
    return torch.tensor([[float(sight in names) for sight in SIGHTS] for names in named])
