"""One endless plane of noise per seed, so that every tile of a picture starts from its own part of the same noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK_PX = 128
_CHANNELS = 3


@dataclass(frozen=True)
class NoiseField:
    """Standard normal values that depend on the seed and the position alone.

    The value of a pixel is the same whatever the size of the picture, the cut of the tiles or their order. It is drawn
    on the processor, so that every device sees the same. Memory is that of the window asked for.
    """

    seed: int = 0

    def window(self, top: int, left: int, height: int, width: int) -> NDArray[np.float32]:
        """Return ``(3, height, width)`` float32 whose first pixel lies at row ``top``, column ``left``, from 0."""
        values = np.empty((_CHANNELS, height, width), np.float32)
        for y in range(top // _BLOCK_PX, -(-(top + height) // _BLOCK_PX)):
            for x in range(left // _BLOCK_PX, -(-(left + width) // _BLOCK_PX)):
                rows, block_rows = _overlap(y, top, height)
                columns, block_columns = _overlap(x, left, width)
                values[:, rows, columns] = self._block(y, x)[:, block_rows, block_columns]
        return values

    def _block(self, y: int, x: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([self.seed, y, x])
        return rng.standard_normal((_CHANNELS, _BLOCK_PX, _BLOCK_PX), dtype=np.float32)


def _overlap(block: int, start: int, extent: int) -> tuple[slice, slice]:
    """Return the pixels that a block and a window share along one axis, counted in the window and in the block."""
    first, last = max(start, block * _BLOCK_PX), min(start + extent, (block + 1) * _BLOCK_PX)
    return slice(first - start, last - start), slice(first - block * _BLOCK_PX, last - block * _BLOCK_PX)
