"""So many pairs of each class: the same ones on every machine, whatever is added later."""

from __future__ import annotations

import hashlib

import pytest

from catalog.query import QueryError
from catalog.sampling import SampleError

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def filled(catalog, make_session):
    """One session: 6 accepted noise pairs, 4 of rain, 1 of snow, and a rejected one of each."""
    make_session(counts={"iso6400": 6, "rain": 4, "snow": 1})
    catalog.add("s1")
    return catalog


def place(text):
    """The first 63 bits of a name's sha256, as the rule says."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) // 2


def expected(uids, of_each, seed=0):
    """Go once round the circle from where the seed says, and take the first ones met."""
    begin = place(f"seed {seed}") if seed else 0
    return sorted(uids, key=lambda uid: (place(uid) < begin, place(uid)))[:of_each]


def accepted(catalog, name):
    return [pair.id for pair in catalog.find(f"status = accepted and class = {name}")]


def drawn(catalog, of_each, where=None, **options):
    by_class = {}
    for pair in catalog.sample(of_each, where, **options):
        by_class.setdefault(pair.degradation_class, []).append(pair.id)
    return by_class


@pytest.mark.parametrize("seed", [0, 1, 2, 77])
def test_each_class_gives_its_first_pairs_on_the_circle(filled, seed):
    found = drawn(filled, 3, seed=seed)

    assert list(found) == ["noise", "rain", "snow"]
    for name, uids in found.items():
        assert uids == expected(accepted(filled, name), 3, seed)
    assert [len(uids) for uids in found.values()] == [3, 3, 1]


def test_a_smaller_draw_is_the_beginning_of_a_larger_one(filled):
    assert drawn(filled, 5, seed=9)["noise"][:2] == drawn(filled, 2, seed=9)["noise"]


def test_seeds_draw_different_pairs(filled):
    """Of 6 pairs a draw begins at any one; eight seeds that all begin at the same would be no seeds."""
    assert len({drawn(filled, 1, seed=seed)["noise"][0] for seed in range(8)}) > 1


def test_growth_never_reshuffles_a_draw(filled, make_session):
    before = drawn(filled, 4)
    for i in range(2, 5):
        make_session(f"s{i}", scene=f"scene-{i}", counts={"iso6400": 5, "rain": 3})
        filled.add(f"s{i}")

    after = drawn(filled, 4)

    for name, uids in after.items():
        assert uids == expected(accepted(filled, name), 4)
        stayed = [uid for uid in before[name] if uid in uids]
        assert stayed == before[name][: len(stayed)] == [uid for uid in uids if uid.startswith("s1/")]


def test_a_pair_that_is_rejected_makes_room_for_the_next(filled):
    first = drawn(filled, 3)["noise"]

    filled.reject([first[0]])

    assert drawn(filled, 3)["noise"][:2] == first[1:]


def test_a_filter_narrows_what_is_drawn_from(filled, make_session):
    make_session("s2", scene="desk", counts={"rain": 2})
    filled.add("s2")

    found = drawn(filled, 3, "scene = desk or residual_px < 0.025", seed=3)

    first_two = [f"s1/rain-00000{i}" for i in range(2)] + [f"s2/rain-00000{i}" for i in range(2)]
    assert found["rain"] == expected(first_two, 3, seed=3)
    assert found["noise"] == expected([f"s1/iso6400-00000{i}" for i in range(2)], 3, seed=3)


def test_drawn_pairs_carry_the_parts_of_the_split_asked_for(filled):
    parts = filled.split("mine")

    assert {pair.split for pair in filled.sample(2, split="mine")} == {parts["shelf"]}


@pytest.mark.parametrize("of_each", [0, -1, 100_001])
def test_impossible_draws_are_refused(filled, of_each):
    with pytest.raises(SampleError, match=f"not {of_each}"):
        filled.sample(of_each)


def test_a_wrong_filter_is_refused(filled):
    with pytest.raises(QueryError, match="did you mean 'scene'"):
        filled.sample(2, "scen = x")
