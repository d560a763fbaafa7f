"""Stages of one training: which degradation classes are learned when, and how much of the earlier ones is repeated.

FoundIR learns the isolated classes first, task by task, and goes on from those weights with isolated and coupled ones
together; its authors edit two lines of code between the stages. Here the stages stand in the configuration, and which
pair comes when stays a pure function of seed and turn, so a run resumes exactly in the middle of a stage.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from catalog.errors import InvalidDocumentError
from catalog.records import Degradation
from catalog.yaml_document import Document
from models.errors import NoPairsError
from models.order import CropOrder

if TYPE_CHECKING:
    from models.config import TrainingConfig


class Stage(Document):
    """One stage of a training."""

    name: str
    classes: Literal["isolated", "coupled", "all"] | tuple[str, ...]
    """Which degradation classes it adds to those of the stages before it: those with one degradation, those with
    several, every one, or the classes named, such as ``[noise, low_light+noise]``."""
    suffering: tuple[Degradation, ...] = ()
    """Of those, only classes with at least one of these degradations: what an expert is trained on. Empty for all."""
    share: float = Field(default=1.0, gt=0)
    """Length, beside the shares of the other stages."""
    one_by_one: bool = False
    """The classes join one after the other, each for an equal part of the stage: in the order given, else by name."""
    replay: float | None = Field(default=None, ge=0, lt=1)
    """Share of crops from the classes that joined earlier, while any new ones are learned; None draws every class
    (with ``balanced: false`` every pair) equally often."""


@dataclass(frozen=True)
class Part:
    """A span of training over which the classes do not change."""

    share: float
    new: tuple[str, ...]
    """Classes that join; none where a stage adds nothing."""
    old: tuple[str, ...]
    """Classes that joined earlier."""
    replay: float | None


def training_order(
    classes: Sequence[str], settings: TrainingConfig, *, rank: int = 0, world: int = 1
) -> CropOrder:
    """Make the order of crops that a configuration asks for, in stages where it names any.

    Args:
        classes: Degradation class of each pair.
        settings: The training loop's settings.
        rank: This process.
        world: Number of processes.

    Raises:
        InvalidDocumentError: A stage names a class that no pair has, or the stages do not fit the steps.
        NoPairsError: The first stage finds no pair of its kind.
    """
    if not settings.stages:
        return CropOrder(classes, **_arguments(settings), rank=rank, world=world)
    return StagedOrder(classes, settings, rank=rank, world=world)


def _arguments(settings: TrainingConfig) -> dict[str, Any]:
    names = ("seed", "balanced", "crops_per_decode", "decodes_per_block")
    return {name: getattr(settings, name) for name in names}


class StagedOrder(CropOrder):
    """The order of training crops where classes join over time.

    A part begins at its share of all decodes. As the crops of a block of decodes are shuffled together, the first
    crops of a part and the last ones of the part before it may lie within one block of each other.
    """

    def __init__(
        self, classes: Sequence[str], settings: TrainingConfig, *, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__(classes, **_arguments(settings), rank=rank, world=world)
        parts = parts_of(settings.stages, set(classes))
        crops = settings.steps * settings.batch * settings.accumulate * world
        self._starts = _starts(parts, crops // settings.crops_per_decode)
        self._orders = [_PartOrder(classes, part, settings, number) for number, part in enumerate(parts)]

    def pair_of(self, decode: int) -> int:
        """Return the index of the pair that is decoded at this turn."""
        number = bisect_right(self._starts, decode) - 1
        return self._orders[number].pair_of(decode - self._starts[number])


class _PartOrder:
    """The pairs of one part: new classes, with a fixed share of old ones spread evenly among them."""

    def __init__(self, classes: Sequence[str], part: Part, settings: TrainingConfig, number: int) -> None:
        self._new = _Draw(classes, part.new, settings, stream=2 * number)
        self._old = _Draw(classes, part.old, settings, stream=2 * number + 1)
        even = self._old.weight / (self._old.weight + self._new.weight)
        chosen = part.replay if part.new and part.old else None
        self._replay = even if chosen is None else chosen

    def pair_of(self, turn: int) -> int:
        replayed = int(turn * self._replay)
        if int((turn + 1) * self._replay) > replayed:
            return self._old.pair_of(replayed)
        return self._new.pair_of(turn - replayed)


class _Draw:
    """Pairs of some classes in an endless order of their own."""

    def __init__(
        self, classes: Sequence[str], wanted: Iterable[str], settings: TrainingConfig, *, stream: int
    ) -> None:
        names = set(wanted)
        self._members = [i for i, name in enumerate(classes) if name in names]
        self.weight = len(names) if settings.balanced else len(self._members)
        """How often to draw from here beside elsewhere, where no share is given."""
        if self._members:
            seed = int(np.random.SeedSequence([settings.seed, stream]).generate_state(1)[0])
            own = [classes[i] for i in self._members]
            self._order = CropOrder(own, seed=seed, balanced=settings.balanced)

    def pair_of(self, turn: int) -> int:
        return self._members[self._order.pair_of(turn)]


def parts_of(stages: Sequence[Stage], present: set[str]) -> list[Part]:
    """Lay stages out over the classes that an export holds.

    Raises:
        InvalidDocumentError: A stage names a class that is not there.
        NoPairsError: The first stage finds nothing.
    """
    parts: list[Part] = []
    joined: tuple[str, ...] = ()
    for stage in stages:
        new = tuple(
            name for name in _classes_of(stage, present) if name not in joined and _suits(stage, name)
        )
        if not new and not joined:
            raise NoPairsError(
                f"stage '{stage.name}' finds no pair: the export holds {', '.join(sorted(present))}",
                next_step="change training.stages, or export the classes it asks for",
            )
        steps = [(name,) for name in new] if stage.one_by_one and new else [new]
        for names in steps:
            parts.append(Part(stage.share / len(steps), names, joined, stage.replay))
            joined += names
    return parts


def _classes_of(stage: Stage, present: set[str]) -> tuple[str, ...]:
    if isinstance(stage.classes, tuple):
        missing = [name for name in stage.classes if name not in present]
        if missing:
            raise InvalidDocumentError(
                f"training.stages: stage '{stage.name}' names {', '.join(missing)}; "
                f"the export holds {', '.join(sorted(present))}"
            )
        return stage.classes
    wanted = {"isolated": (False,), "coupled": (True,), "all": (False, True)}[stage.classes]
    return tuple(sorted(name for name in present if ("+" in name) in wanted))


def _suits(stage: Stage, name: str) -> bool:
    return not stage.suffering or not set(stage.suffering).isdisjoint(name.split("+"))


def _starts(parts: Sequence[Part], decodes: int) -> list[int]:
    """Return the decode at which each part begins; the last part goes on without end."""
    if decodes < len(parts):
        raise InvalidDocumentError(
            f"training.stages: {decodes} decodes are too few for {len(parts)} parts; "
            "raise training.steps or lower training.crops_per_decode"
        )
    total = sum(part.share for part in parts)
    ends = accumulate(part.share / total for part in parts)
    return [0, *(round(end * decodes) for end in ends)][: len(parts)]
