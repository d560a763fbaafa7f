"""Which crop of which pair stands at each position of training: a pure function of the seed.

Nothing is drawn from a generator that moves on, so a run resumes exactly from one integer, the position, and
the number of loader threads changes nothing. A pair is decoded once for several crops; the crops of a
block of decodes are shuffled together, so that the crops of one picture do not follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.errors import NoPairsError

_CLASS_STREAM, _MEMBER_STREAM, _BLOCK_STREAM, _CROP_STREAM = range(4)


@dataclass(frozen=True)
class CropSlot:
    """One crop to be cut: the ``crop``-th of the ``decode``-th time any pair is decoded."""

    decode: int
    crop: int


class CropOrder:
    """The order of training crops.

    Args:
        classes: Degradation class of each pair, in the order of the pairs.
        seed: What the order follows from.
        balanced: Visit every class equally often, whatever its number of pairs.
        crops_per_decode: Crops cut each time a pair is decoded.
        decodes_per_block: Decodes whose crops are shuffled together.
        rank: This process in distributed training; each takes every ``world``-th block.
        world: Number of processes.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        seed: int,
        balanced: bool,
        crops_per_decode: int = 8,
        decodes_per_block: int = 32,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not classes:
            raise NoPairsError("an order needs at least one pair")
        labels = np.asarray(classes if balanced else [""] * len(classes))
        self._members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        self._seed = seed
        self.crops_per_decode = crops_per_decode
        self._decodes_per_block = decodes_per_block
        self._rank, self._world = rank, world
        self.block_size = crops_per_decode * decodes_per_block
        """Crops in a block."""
        self._shuffled = lru_cache(maxsize=64)(self._shuffle)
        self._slots = lru_cache(maxsize=4)(self._list_slots)

    def pair_of(self, decode: int) -> int:
        """Return the index of the pair that is decoded at this turn."""
        cycle, turn = divmod(decode, len(self._members))
        group = int(self._shuffled(_CLASS_STREAM, 0, cycle, len(self._members))[turn])
        members = self._members[group]
        epoch, place = divmod(cycle, len(members))
        return int(members[self._shuffled(_MEMBER_STREAM, group, epoch, len(members))[place]])

    def slot_at(self, position: int) -> CropSlot:
        """Return the crop at a position, counted in crops of this process from the start of training."""
        block, place = divmod(position, self.block_size)
        return self._slots(block)[place]

    def decodes_by_need(self, block: int) -> list[int]:
        """Return the turns of a block in the order in which their first crop is needed."""
        return list(dict.fromkeys(slot.decode for slot in self._slots(block)))

    def crop_generator(self, slot: CropSlot) -> np.random.Generator:
        """Return the random numbers that place and turn one crop."""
        return np.random.default_rng([self._seed, _CROP_STREAM, slot.decode, slot.crop])

    def _list_slots(self, block: int) -> list[CropSlot]:
        number = block * self._world + self._rank
        first = number * self._decodes_per_block
        order = self._shuffled(_BLOCK_STREAM, 0, number, self.block_size)
        turns = (divmod(int(i), self.crops_per_decode) for i in order)
        return [CropSlot(first + turn, crop) for turn, crop in turns]

    def _shuffle(self, stream: int, group: int, epoch: int, count: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, stream, group, epoch]).permutation(count)
