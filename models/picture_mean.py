"""Means over a picture that is restored in tiles.

NAFNet weighs channels by their mean over everything it is given, which for a tile is not what it is for the picture:
restored so, tiles of a captured picture differ from the whole by up to 79 of 255 codes. Windows as large as the
training's crops (Chu, Chen, Chen, Lu: Improving Image Restoration by Revisiting Global Information Aggregation, ECCV
2022) make both alike, and take away what tells a dark scene from a dark corner: 1.2 dB on our captured pairs. So a
picture in tiles is looked through first. Each tile adds its share to the means, and is then told the whole picture's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Weights = NDArray[np.float32]


class PictureMean(nn.AdaptiveAvgPool2d):
    """The mean over all positions: of what is given, or of the picture that it is a tile of.

    A compiled network keeps to what it is given.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        """Average ``(B, C, H, W)`` to ``(B, C, 1, 1)``."""
        mean = super().forward(x)
        tile = None if torch.compiler.is_compiling() else _TILE.get()
        return mean if tile is None else tile.answer(x, mean)


class PictureMeans:
    """What the tiles of one picture say about its means, in the order in which a network asks for them.

    The means of deeper layers rest on those of the layers before, so they come nearer to the whole picture's each time
    that its tiles are gone through.
    """

    def __init__(self) -> None:
        self.known: list[Tensor] = []
        self._sums: list[Tensor] = []

    @property
    def wanted(self) -> bool:
        """Whether the tiles so far have asked for any."""
        return bool(self._sums)

    @contextmanager
    def of_tile(self, rows: Weights, columns: Weights) -> Iterator[None]:
        """Answer for one tile, which is restored in the block.

        Args:
            rows: Share of the tile in each of its rows; over all tiles of the picture they sum to one.
            columns: The same for its columns.
        """
        token = _TILE.set(_Tile(self, rows, columns))
        try:
            yield
        finally:
            _TILE.reset(token)

    def add(self, at: int, share: Tensor) -> None:
        """Add the share of a tile in one of the means: ``(1, C + 1, 1, 1)``, its sum and behind it its area."""
        if at == len(self._sums):
            self._sums.append(torch.zeros_like(share))
        self._sums[at] += share

    def settle(self) -> None:
        """Take what all tiles have added up as the picture's means, and begin anew."""
        self.known = [total[:, :-1] / total[:, -1:] for total in self._sums]
        self._sums = []


@dataclass
class _Tile:
    """A tile that is being restored."""

    picture: PictureMeans
    rows: Weights
    columns: Weights
    asked: int = 0

    def answer(self, x: Tensor, mean: Tensor) -> Tensor:
        """Return the picture's mean for the tile's, if it is known, and take the tile's share in it."""
        at, self.asked = self.asked, self.asked + 1
        self.picture.add(at, self._share(x))
        return self.picture.known[at].to(mean.dtype) if self.picture.known else mean

    def _share(self, x: Tensor) -> Tensor:
        rows, columns = (
            torch.from_numpy(_reduced(weights, size)).to(x.device)
            for weights, size in zip((self.rows, self.columns), x.shape[-2:], strict=True)
        )
        with torch.autocast(x.device.type, enabled=False):
            added = (x.float() @ columns @ rows).double()
        area = rows.sum(dtype=torch.double) * columns.sum(dtype=torch.double)
        return torch.cat([added, area.expand(len(x), 1)], dim=1)[..., None, None]


def _reduced(weights: Weights, size: int) -> Weights:
    """Average the weights of pixels to those of ``size`` positions; the network may have padded the pixels."""
    stride = -(-len(weights) // size)
    padded = np.pad(weights, (0, max(0, size * stride - len(weights))), mode="edge")[: size * stride]
    means: Weights = padded.reshape(size, stride).mean(axis=1)
    return means


_TILE: ContextVar[_Tile | None] = ContextVar("the tile that is being restored", default=None)
