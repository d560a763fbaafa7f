from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from models.order import CropOrder

CLASSES = ["noise"] * 6 + ["rain"] * 2


def _order(**changes: object) -> CropOrder:
    settings = {"seed": 3, "balanced": True, "crops_per_decode": 2, "decodes_per_block": 4, **changes}
    return CropOrder(CLASSES, **settings)  # type: ignore[arg-type]


def test_order_depends_on_nothing_but_the_seed_and_the_position():
    forwards, asked_backwards = _order(), _order()

    expected = [forwards.slot_at(i) for i in range(60)]

    assert [asked_backwards.slot_at(i) for i in reversed(range(60))] == expected[::-1]
    assert [_order(seed=4).slot_at(i) for i in range(60)] != expected


def test_every_crop_of_a_block_comes_exactly_once_and_shuffled():
    """A block holds 4 decodes of 2 crops: 8 slots, each once, not in the order of decoding."""
    order = _order()

    slots = [order.slot_at(i) for i in range(8)]

    assert sorted((s.decode, s.crop) for s in slots) == [(d, c) for d in range(4) for c in range(2)]
    assert [s.decode for s in slots] != sorted(s.decode for s in slots)
    assert {order.slot_at(i).decode for i in range(8, 16)} == {4, 5, 6, 7}


def test_balanced_order_visits_classes_equally_and_pairs_of_a_class_in_turn():
    """24 decodes of two classes are 12 of each: the 6 noise pairs twice, the 2 rain pairs six times."""
    order = _order()

    visits = Counter(order.pair_of(decode) for decode in range(24))

    assert visits == {**dict.fromkeys(range(6), 2), 6: 6, 7: 6}


def test_unbalanced_order_visits_every_pair_once_an_epoch():
    order = _order(balanced=False)

    epochs = [[order.pair_of(8 * epoch + i) for i in range(8)] for epoch in range(3)]

    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_processes_take_different_blocks_and_together_all_of_them():
    ranks = [_order(rank=rank, world=2) for rank in range(2)]

    decodes = [{order.slot_at(i).decode for i in range(16)} for order in ranks]

    assert decodes[0] == {0, 1, 2, 3, 8, 9, 10, 11}
    assert decodes[1] == {4, 5, 6, 7, 12, 13, 14, 15}


@pytest.mark.parametrize("world", [2, 3])
def test_processes_block_by_block_give_the_order_of_one(world):
    """Block n of the order of one belongs to process n mod world; a block holds 4 decodes of 2 crops."""
    alone = _order()
    ranks = [_order(rank=rank, world=world) for rank in range(world)]

    together = [ranks[n % world].slot_at(8 * (n // world) + i) for n in range(6) for i in range(8)]

    assert together == [alone.slot_at(i) for i in range(48)]


def test_decodes_are_listed_in_the_order_in_which_they_are_needed():
    order = _order()

    needed = order.decodes_by_need(1)

    assert needed == list(dict.fromkeys(order.slot_at(i).decode for i in range(8, 16)))


def test_crops_of_one_picture_differ_and_are_the_same_every_time():
    order = _order()
    first, second = (slot for slot in islice(map(order.slot_at, range(8)), 2))

    draws = [order.crop_generator(slot).random(4).tolist() for slot in (first, second, first)]

    assert draws[0] == draws[2]
    assert draws[0] != draws[1]


def test_an_order_over_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        CropOrder([], seed=1, balanced=True)
