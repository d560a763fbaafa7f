"""Splits: whole scene groups, one part each, and no part ever changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import CatalogError
from catalog.splits import SplitError, SplitRule, assign, default_part

DATABASES = ("sqlite", "postgresql")


def groups(count):
    return [f"scene-{i:04d}" for i in range(count)]


def test_a_held_out_scene_is_the_test_part_and_the_rest_trains():
    """Of four groups 3.2 belong to train; test has its 0.4 with one, so the three others train."""
    rule = SplitRule(0.8, 0.1, 0.1, scenes={"d": "test"})

    parts = assign(["a", "b", "c", "d"], rule=rule, taken={}, fixed={"d": "test"})

    assert parts == {"a": "train", "b": "train", "c": "train", "d": "test"}


def test_shares_are_met_within_one_group():
    parts = assign(groups(50), rule=SplitRule(0.8, 0.1, 0.1, seed=3), taken={}, fixed={})

    counts = [list(parts.values()).count(part) for part in ("train", "val", "test")]
    assert counts == [40, 5, 5]


def test_another_seed_draws_another_division():
    one, two = (assign(groups(40), rule=SplitRule(seed=s), taken={}, fixed={}) for s in (1, 2))

    assert one != two


@given(
    first=st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=20),
    later=st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=20),
    seed=st.integers(0, 5),
)
def test_growth_moves_no_group(first, later, seed):
    rule = SplitRule(0.7, 0.2, 0.1, seed)
    taken = assign(sorted(first), rule=rule, taken={}, fixed={})

    new = assign(sorted(later - first), rule=rule, taken=taken, fixed={})

    assert set(taken) == first
    assert not set(new) & set(taken)
    assert set(taken | new) == first | later


@given(st.lists(st.text("abc", min_size=1, max_size=6), unique=True, max_size=30), st.randoms())
def test_the_division_does_not_depend_on_the_order_of_the_groups(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    rule = SplitRule(0.5, 0.25, 0.25)

    assert assign(names, rule=rule, taken={}, fixed={}) == assign(shuffled, rule=rule, taken={}, fixed={})


def test_the_default_split_is_a_pure_function_of_the_group_near_its_shares():
    """4000 groups at 80/10/10: a binomial count lies within 4 standard deviations of its mean."""
    parts = [default_part(group) for group in groups(4000)]

    assert parts == [default_part(group) for group in groups(4000)]
    assert abs(parts.count("train") - 3200) < 4 * 25.3
    assert abs(parts.count("val") - 400) < 4 * 19.0


@pytest.mark.parametrize("shares", [(0, 0, 0), (-1, 1, 1), (float("nan"), 1, 1), (float("inf"), 0, 0)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(SplitError):
        SplitRule(*shares)


def test_new_scenes_join_every_split_and_old_ones_stay(catalog, make_session):
    for i in range(5):
        make_session(f"s{i}", scene=f"scene-{i}", counts={"rain": 1})
        catalog.add(f"s{i}")
    before = catalog.split("mine", SplitRule(scenes={"scene-2": "test"}))

    make_session("s9", scene="scene-9", counts={"rain": 1})
    catalog.add("s9")

    after = {pair.scene: pair.split for pair in catalog.find(split="mine")}
    assert {scene: after[scene] for scene in before} == before
    assert before["scene-2"] == "test"
    assert set(after) == {*before, "scene-9"}


def test_sessions_of_one_scene_share_its_part(catalog, make_session):
    for i in range(6):
        make_session(f"s{i}", scene="shelf", counts={"rain": 1})
        catalog.add(f"s{i}")

    assert len({pair.split for pair in catalog.find()}) == 1


def test_a_split_never_changes_once_made(catalog, make_session):
    make_session()
    catalog.add("s1")
    catalog.split("mine")

    for name in ("mine", "default"):
        with pytest.raises(SplitError, match="never changes"):
            catalog.split(name, SplitRule(seed=5))


def test_unknown_scenes_and_splits_are_answered_with_the_nearest(catalog, make_session):
    make_session()
    catalog.add("s1")
    catalog.split("mine")

    with pytest.raises(SplitError, match="no scene 'shelff' in the catalog; did you mean 'shelf'"):
        catalog.split("other", SplitRule(scenes={"shelff": "test"}))
    with pytest.raises(SplitError, match="no split 'mien'; did you mean 'mine'"):
        catalog.find(split="mien")


def test_the_database_itself_allows_one_part_per_group(catalog, make_session):
    make_session()
    catalog.add("s1")
    catalog.split("mine")

    with pytest.raises(CatalogError, match=r"(?i)unique"), catalog.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO split_members SELECT split_id, group_key, 'val' FROM split_members"
        )
