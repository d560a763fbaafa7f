"""What is covered and what is missing: degradation, level, scene; and the counts behind it."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from catalog import Catalog, listing
from catalog.coverage import CoverageCell
from catalog.records import Degradation
from catalog.session_folder import ExposureSettings, RoundRecord
from catalog.tables import Asset, FileCount, Pair, PairCount, table_of

DATABASES = ("sqlite", "postgresql")


def a_round(number, name, *degradations, conditions=None, **settings):
    role = "external" if conditions else "internal" if degradations else "gt"
    return RoundRecord(
        number=number,
        name=name,
        role=role,
        degradations=degradations,
        settings=ExposureSettings(**settings),
        conditions=conditions or {},
    )


ROUNDS = (
    a_round(1, "gt"),
    a_round(2, "iso3200", Degradation.NOISE, iso=3200),
    a_round(3, "iso400", Degradation.NOISE, iso=400),
    a_round(4, "near", Degradation.DEFOCUS_BLUR, focus_m=0.9),
    a_round(5, "drizzle", Degradation.RAIN, conditions={"rain": "light"}),
    a_round(6, "murk", Degradation.RAIN, Degradation.HAZE, conditions={"rain": "light", "haze": "thick"}),
    a_round(7, "dusk", Degradation.LOW_LIGHT, exposure_s=0.0005, iso=100),
    a_round(8, "jpeg", Degradation.JPEG),
)


@pytest.fixture
def filled(catalog, make_session):
    """Two scenes: the shelf has every round, the desk only rain; 2 accepted pairs a round, 1 rejected."""
    make_session(rounds=ROUNDS, counts={round_.name: 2 for round_ in ROUNDS[1:]})
    make_session("s2", scene="desk", rounds=ROUNDS, counts={"drizzle": 3})
    catalog.add("s1")
    catalog.add("s2")
    return catalog


def test_pairs_are_counted_by_degradation_level_and_scene(filled):
    """Two pairs a round; the coupled round counts under rain and under haze, apart from the isolated ones."""
    covered = filled.coverage()

    assert covered.scenes == ("desk", "shelf")
    assert covered.cells == (
        CoverageCell("noise", "ISO 400", "shelf", isolated=2, coupled=0),
        CoverageCell("noise", "ISO 3200", "shelf", isolated=2, coupled=0),
        CoverageCell("defocus_blur", "0.9 m", "shelf", isolated=2, coupled=0),
        CoverageCell("jpeg", "-", "shelf", isolated=2, coupled=0),
        CoverageCell("haze", "thick", "shelf", isolated=0, coupled=2),
        CoverageCell("rain", "light", "desk", isolated=3, coupled=0),
        CoverageCell("rain", "light", "shelf", isolated=2, coupled=2),
        CoverageCell("low_light", "0.0005 s", "shelf", isolated=2, coupled=0),
    )
    assert covered.missing("haze", "thick") == ("desk",)
    assert covered.missing("rain", "light") == ()


def test_the_table_names_the_gaps(filled):
    lines = list(listing.coverage_lines(filled.coverage()))

    assert lines[0].split() == ["degradation", "level", "isolated", "coupled", "scenes", "missing", "in"]
    assert lines[6].split() == ["rain", "light", "5", "2", "2", "-"]
    assert lines[5].split() == ["haze", "thick", "0", "2", "1", "desk"]
    assert lines[-1] == "2 scenes"


def test_the_document_holds_cells_and_gaps(filled):
    document = listing.coverage_json(filled.coverage())

    assert document["cells"][6] == {
        "degradation": "rain",
        "level": "light",
        "scene": "shelf",
        "isolated": 2,
        "coupled": 2,
        "pairs": 4,
    }
    assert {"degradation": "jpeg", "level": "-", "scenes": ["desk"]} in document["missing"]


def test_a_rejected_pair_leaves_the_coverage(filled):
    filled.reject([pair.id for pair in filled.find("class = jpeg")])

    assert "jpeg" not in {cell.degradation for cell in filled.coverage().cells}


def counted(catalog: Catalog, entity, *columns):
    table = table_of(entity)
    kept = {
        row[:-1]: row[-1] for row in rows_of(catalog, select(*(table.c[name] for name in columns), table.c.n))
    }
    return {kind: n for kind, n in kept.items() if n}


def rows_of(catalog, query):
    with catalog.database.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


def grouped(catalog, *columns):
    return {row[:-1]: row[-1] for row in rows_of(catalog, select(*columns, func.count()).group_by(*columns))}


def assert_counts_are_true(catalog):
    pairs, assets = table_of(Pair), table_of(Asset)
    kind = (*pairs.c["round_id", "degr_key"], func.coalesce(pairs.c.iso, 0), *pairs.c["status", "reasons"])
    assert counted(catalog, PairCount, "round_id", "degr_key", "iso", "status", "reasons") == grouped(
        catalog, *kind
    )
    assert counted(catalog, FileCount, "session_id", "state") == grouped(
        catalog, assets.c.session_id, assets.c.state
    )


def test_the_kept_counts_equal_counting_after_every_kind_of_change(catalog, make_session, tmp_path):
    writer = make_session()
    image = writer.folder / "pairs" / "gt" / "rain-000000.png"
    away = tmp_path / "away.png"
    changes = (
        lambda: catalog.add("s1"),
        lambda: catalog.reject(["s1/iso6400-000000", "s1/rain-000001"]),
        lambda: catalog.undo(["s1/rain-000001"]),
        lambda: image.rename(away) and catalog.verify(),
        lambda: away.rename(image) and catalog.verify(),
        lambda: writer.align({"iso6400": 2, "rain": 4}, salt=3) and catalog.add("s1"),
    )

    for change in changes:
        change()
        assert_counts_are_true(catalog)
