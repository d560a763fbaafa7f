"""The --where language: what it means, what it refuses, and that nothing but values gets into SQL."""

from __future__ import annotations

import operator
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine

from catalog import Catalog
from catalog.query import QueryError
from catalog.query_fields import FIELDS
from catalog.selection import ColumnError

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def filled(catalog, make_session):
    """Session s1: noise at ISO 6400 (3 accepted, 1 rejected), rain at ISO 100 (2 accepted, 1 rejected)."""
    make_session()
    make_session("s2", scene="desk", counts={"snow": 1})
    catalog.add("s1")
    catalog.add("s2")
    return catalog


def names(catalog, where):
    return {pair.id for pair in catalog.find(where)}


ACCEPTED_NOISE = {f"s1/iso6400-00000{i}" for i in range(3)}
ACCEPTED_RAIN = {f"s1/rain-00000{i}" for i in range(2)}
ALL = {f"s1/iso6400-00000{i}" for i in range(4)} | {f"s1/rain-00000{i}" for i in range(3)}
ALL |= {"s2/snow-000000", "s2/snow-000001"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("class = noise and status = accepted", ACCEPTED_NOISE),
        ("iso = 6400 and residual_px <= 0.025", {"s1/iso6400-000000", "s1/iso6400-000001"}),
        ("residual_px > 2e-2 and residual_px < .04", {"s1/iso6400-000002"}),
        ("degradation = rain and verdict = accepted", ACCEPTED_RAIN),
        ("degradation in (rain, noise) and status = accepted", ACCEPTED_RAIN | ACCEPTED_NOISE),
        ("degradations != rain and status = accepted and session = s1", ACCEPTED_NOISE),
        ("degradation ~ now", {"s2/snow-000000", "s2/snow-000001"}),
        ("role = external and scene = shelf and mu is not null", ACCEPTED_RAIN),
        ("foundir_class is null", {"s2/snow-000000", "s2/snow-000001"}),
        ("foundir_class != '05Noise' and status=accepted", ACCEPTED_RAIN | {"s2/snow-000000"}),
        ("not (session = s1)", {"s2/snow-000000", "s2/snow-000001"}),
        ("round not in (iso6400, snow) and status = accepted", ACCEPTED_RAIN),
        ("id ~ '*0001' and status = accepted and class = rain", {"s1/rain-000001"}),
        ("ID = x or id = 's1/rain-000001'".replace("ID", "id"), {"s1/rain-000001"}),
        ("scene ~ HEL and iso = 100 and residual_px is not null", ACCEPTED_RAIN),
        ("scene !~ shelf", {"s2/snow-000000", "s2/snow-000001"}),
        ("reason ~ parallax and class = rain", {"s1/rain-000002"}),
        ("gt_warped = true", set()),
        ("gt_warped = false and iso = 100 and status = accepted", ACCEPTED_RAIN),
        ("class = rain and iso = 100 or class = snow and status = accepted",
         {f"s1/rain-00000{i}" for i in range(3)} | {"s2/snow-000000"}),
        ("class = snow and (iso = 1 or status = accepted)", {"s2/snow-000000"}),
        ("width = 6 and height >= 4 and position_gap_mm <= 0.01 and source = captured",
         ACCEPTED_NOISE | ACCEPTED_RAIN | {"s2/snow-000000"}),
        ("split in (train, val, test)", ALL),
        ("foundir_class not in ('05Noise', '10Rain')", {"s2/snow-000000", "s2/snow-000001"}),
        ("foundir_class !~ rain and status = accepted", ACCEPTED_NOISE | {"s2/snow-000000"}),
        ("not (iso > 100) and status = accepted", ACCEPTED_RAIN | {"s2/snow-000000"}),
        ("not (residual_px <= 1)", ALL - ACCEPTED_NOISE - ACCEPTED_RAIN - {"s2/snow-000000"}),
        ("not (residual_px is null or iso = 6400)", ACCEPTED_RAIN | {"s2/snow-000000"}),
    ],
)  # fmt: skip
def test_filters_choose_what_they_say(filled, where, expected):
    assert names(filled, where) == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("residul_px < 1", r"where:1:1: unknown name 'residul_px'; did you mean 'residual_px'\?"),
        ("iso = 100 and scen = x", r"where:1:15: unknown name 'scen'; did you mean 'scene'"),
        ("role = internl", r"where:1:8: no such value 'internl'; did you mean 'internal'"),
        ("class = hase+rain", r"where:1:9: no such degradation 'hase'; did you mean 'haze'"),
        ("degradation = snoww", r"where:1:15: no such value 'snoww'; did you mean 'snow'"),
        ("iso = fast", r"where:1:7: a number is expected, not 'fast'"),
        ("iso = nan", r"where:1:7: a number is expected"),
        ("iso = 1e999", r"where:1:7: a number is expected"),
        ("gt_warped = 1", r"where:1:13: true or false is expected"),
        ("iso ~ 6", r"where:1:5: '~' compares texts"),
        ("class < rain", r"where:1:7: '<' orders numbers and free texts only"),
        ("role < gt", r"where:1:6: '<' orders numbers and free texts only"),
        ("scene = 'desk", r"where:1:9: \"'\" does not fit here; is a quote missing"),
        ("(iso = 1", r"where:1:9: '\)' is expected, not 'the end'"),
        ("iso = 1 iso = 2", r"where:1:9: 'and', 'or' or the end is expected, not 'iso'"),
        ("iso", r"where:1:4: one of = != .* is expected, not 'the end'"),
        ("iso in 5", r"where:1:8: '\(' is expected, not '5'"),
        ("scene = and", r"where:1:9: a value is expected, not 'and'"),
        ("", None),
        ("   ", r"where:1:1: a name is expected, not the end"),
        ("scene = a; drop table pairs", r"where:1:12: 'and', 'or' or the end is expected"),
        ("scene = 'a\0b'", r"where:1:11: '\\x00' is not allowed"),
        ("id ~ '*a*b*c*d*e*f*g'", r"a pattern has at most 6 stars"),
        ("(" * 40 + "iso=1" + ")" * 40, "30 deep"),
        (" or ".join(["iso=1"] * 300), "at most 200 terms"),
        ("scene = " + "x" * 5000, "at most 4000 characters"),
    ],
)
def test_a_wrong_filter_is_answered_with_the_place_and_the_nearest_name(filled, where, message):
    if message is None:
        assert names(filled, where) == ALL
        return
    with pytest.raises(QueryError, match=message) as refused:
        filled.find(where)
    assert refused.value.exit_code == 2


def test_values_are_bound_and_never_stand_in_the_statement(filled):
    hostile = "zq'; DROP TABLE pairs; --"
    quoted = hostile.replace("'", "''")
    statements = []

    def listen(_connection, _cursor, statement, *_rest):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        found = names(filled, f"scene = '{quoted}' or id ~ '{quoted}' or round in ('{quoted}')")
    finally:
        event.remove(Engine, "before_cursor_execute", listen)

    assert found == set()
    assert {statement.split()[0] for statement in statements} <= {"BEGIN", "SELECT"}
    assert not any("zq'" in statement for statement in statements)
    assert "zq" not in "".join(statements)
    assert len(filled.find()) == len(ALL)


def test_percent_and_underscore_are_plain_letters(filled):
    assert names(filled, "scene ~ '%'") == set()
    assert names(filled, "scene ~ d_sk") == set()


def test_what_passes_a_filter_is_counted_as_everything_is(filled):
    every, asked = filled.stats(), filled.stats("id is not null")

    assert (asked.pairs, asked.classes, asked.levels) == (every.pairs, every.classes, every.levels)
    assert (asked.scenes, asked.reasons, asked.sessions) == (every.scenes, every.reasons, every.sessions)
    assert filled.coverage("id is not null") == filled.coverage()


def test_statistics_of_some_pairs_leave_the_others_out(filled):
    """Noise: 3 accepted with three files each and 1 rejected without; of scene desk one of each."""
    noise, desk = filled.stats("class = noise"), filled.stats("scene = desk")

    assert (noise.sessions, noise.pairs, noise.files) == (1, {"accepted": 3, "rejected": 1}, {"present": 9})
    assert noise.classes == {"noise": {"accepted": 3, "rejected": 1}}
    assert noise.levels == [{"scene": "shelf", "class": "noise", "iso": 6400, "pairs": 3}]
    assert (noise.scenes.keys(), noise.reasons) == ({"shelf"}, {"parallax": 1, "residual": 1})
    assert (desk.sessions, desk.pairs) == (1, {"accepted": 1, "rejected": 1})
    assert [cell.degradation for cell in filled.coverage("class = rain").cells] == ["rain"]


def test_columns_of_every_pair_are_streamed_by_the_names_of_the_language(filled):
    streamed = list(filled.stream(("id", "class", "iso", "gt_warped"), "scene = shelf and status = accepted"))

    assert sorted(streamed) == [
        *((f"s1/iso6400-00000{i}", "noise", 6400, False) for i in range(3)),
        *((f"s1/rain-00000{i}", "rain", 100, False) for i in range(2)),
    ]
    assert len(list(filled.stream(("id",)))) == len(ALL)


@pytest.mark.parametrize("name", ["isso", "degradation", "pairs.uid", ""])
def test_a_column_that_is_none_is_refused_with_the_valid_names(filled, name):
    with pytest.raises(ColumnError, match=f"no column {name!r}"):
        list(filled.stream(("id", name)))


_WORDS = [*FIELDS, "and", "or", "not", "in", "is", "null", "(", ")", ",", "=", "!=", "<=", "~", "!~", "'a b'"]
_WORDS += ['"x"', "'", "100", "1e-3", "-5", "noise", "rain+haze", "train", "true", "%", "*", "\\", ";", "--"]
_HOSTILE = st.one_of(
    st.lists(st.sampled_from(_WORDS), max_size=25).map(" ".join),
    st.text(max_size=60),
    st.lists(st.one_of(st.sampled_from(_WORDS), st.text(max_size=5)), max_size=15).map("".join),
)


@given(where=_HOSTILE)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_filter_or_a_clear_error(filled, where):
    try:
        found = names(filled, where)
    except QueryError as error:
        assert re.match(r"where:1:\d+: ", error.message)  # noqa: PT017
    else:
        assert found <= ALL


_FACTS = {
    **{f"s1/iso6400-00000{i}": (6400, "noise", 0.01 * (i + 1)) for i in range(3)},
    **{f"s1/rain-00000{i}": (100, "rain", 0.01 * (i + 1)) for i in range(2)},
    "s1/iso6400-000003": (6400, "noise", None),
    "s1/rain-000002": (100, "rain", None),
    "s2/snow-000000": (None, "snow", 0.01),
    "s2/snow-000001": (None, "snow", None),
}
_COMPARE = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SIGNS = st.sampled_from(list(_COMPARE))
_LEAVES = st.one_of(
    st.tuples(st.just("iso"), _SIGNS, st.sampled_from([99, 100, 6400])),
    st.tuples(st.just("residual_px"), _SIGNS, st.sampled_from([0.0, 0.015, 0.04])),
    st.tuples(st.just("class"), st.sampled_from(["=", "!="]), st.sampled_from(["noise", "rain", "haze"])),
    st.tuples(st.sampled_from(["iso", "residual_px"]), st.just("is"), st.just("null")),
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)
    ),
    max_leaves=8,
)


def as_text(tree):
    if tree[0] == "not":
        return f"not ({as_text(tree[1])})"
    if tree[0] in {"and", "or"}:
        return f"({as_text(tree[1])}) {tree[0]} ({as_text(tree[2])})"
    return " ".join(str(word) for word in tree)


def holds(tree, facts):
    """What is not known passes no comparison; everything else is either so or not so."""
    if tree[0] == "not":
        return not holds(tree[1], facts)
    if tree[0] in {"and", "or"}:
        sides = [holds(side, facts) for side in tree[1:]]
        return all(sides) if tree[0] == "and" else any(sides)
    name, sign, asked = tree
    value = dict(zip(("iso", "class", "residual_px"), facts, strict=True))[name]
    if sign == "is" or value is None:
        return (value is None) if sign == "is" else sign == "!="
    return _COMPARE[sign](value, asked)


@given(tree=_TREES)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_means_what_plain_python_means(filled: Catalog, tree):
    expected = {uid for uid, facts in _FACTS.items() if holds(tree, facts)}

    assert names(filled, as_text(tree)) == expected
