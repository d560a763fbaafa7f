"""Classes that people and classifiers give: events with who and why, above the plan until taken back."""

from __future__ import annotations

import json
import sys

import pytest
from sqlalchemy import select

from catalog.cli import main
from catalog.decisions import NothingToUndoError, PairNotFoundError
from catalog.export_list import ExportRequest
from catalog.label_file import Label, LabelFileError, read_labels, write_labels
from catalog.manifest import read_manifest
from catalog.tables import Event, PairDegradation, table_of

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def filled(catalog, make_session):
    """Three noise pairs and two rain pairs accepted, one of each rejected."""
    make_session("s1")
    catalog.add("s1")
    return catalog


def label(catalog, *labels: Label, **options):
    return catalog.label(enumerate(labels, start=1), **options)


def seen(pair="s1/rain-000000", *degradations, **facts):
    return Label(pair=pair, degradations=degradations or ("haze", "rain"), **facts)


def classes(catalog):
    return {pair.id: pair.degradation_class for pair in catalog.find()}


def test_a_label_changes_the_class_wherever_it_counts(filled):
    report = label(filled, seen(source="Ada"), reason="second look")

    assert report.pairs == ("s1/rain-000000",)
    pair = filled.find("class = 'haze+rain'")[0]
    assert (pair.id, pair.foundir_class) == ("s1/rain-000000", "13Rain_Haze")
    assert [p.id for p in filled.find("degradation = haze")] == ["s1/rain-000000"]
    assert filled.stats().classes["haze+rain"] == {"accepted": 1}
    assert filled.stats().classes["rain"] == {"accepted": 1, "rejected": 1}
    exported = filled.export(ExportRequest("set-a", "foundir")).folder
    row = next(row for row in read_manifest(exported) if row.id == pair.id)
    assert (row.degradations, row.gt.split("/")[0]) == (("haze", "rain"), "13Rain_Haze")


def test_who_said_what_and_why_is_kept(filled):
    label(filled, seen(source="dcpt step 90", confidence=0.97), reason="predicted")

    event = filled.show("s1/rain-000000").events[-1]

    assert (event["kind"], event["reason"]) == ("label", "predicted")
    assert event["actor"]
    assert json.loads(event["before"]) == {"class": "rain"}
    assert json.loads(event["after"]) == {"class": "haze+rain", "source": "dcpt step 90", "confidence": 0.97}


def test_the_content_of_a_degraded_picture_names_its_pair(filled):
    sha256 = filled.show("s1/iso6400-000001").files["lq"].sha256

    report = label(filled, Label(sha256=sha256, degradations=("noise", "low_light")))

    assert report.pairs == ("s1/iso6400-000001",)
    assert classes(filled)["s1/iso6400-000001"] == "low_light+noise"


def test_undo_brings_the_label_before_back_and_then_the_plan(filled):
    label(filled, seen())
    label(filled, seen("s1/rain-000000", "snow"))

    undone = [filled.undo().pairs, classes(filled)["s1/rain-000000"]]
    undone += [filled.undo(["s1/rain-000000"]).pairs, classes(filled)["s1/rain-000000"]]

    assert undone == [("s1/rain-000000",), "haze+rain", ("s1/rain-000000",), "rain"]
    with filled.database.read() as connection:
        sources = connection.execute(select(table_of(PairDegradation).c.source)).scalars()
        assert set(sources) == {"planned"}
    with pytest.raises(NothingToUndoError):
        filled.undo()


def test_labels_and_decisions_are_undone_in_turn(filled):
    label(filled, seen())
    filled.reject(["s1/rain-000000"])

    filled.undo()
    after_one = filled.show("s1/rain-000000").pair
    filled.undo()
    after_two = filled.show("s1/rain-000000").pair

    assert (after_one.status, after_one.degradation_class) == ("accepted", "haze+rain")
    assert (after_two.status, after_two.degradation_class) == ("accepted", "rain")


def test_labels_outlive_another_alignment_and_a_rebuild_with_the_same_content(filled, make_session):
    before = filled.content_hash()
    label(filled, seen())
    folder = filled.data / "sessions" / "s1"
    text = (folder / "pairs.jsonl").read_text()
    (folder / "pairs.jsonl").write_text(text.replace('"position_gap_mm":0.01', '"position_gap_mm":0.02', 1))

    labelled = filled.content_hash()
    filled.add("s1")
    added = classes(filled)["s1/rain-000000"]
    report = filled.rebuild()

    assert labelled == before
    assert added == classes(filled)["s1/rain-000000"] == "haze+rain"
    assert report.content_sha256 == report.content_sha256_before
    assert filled.stats().classes["haze+rain"] == {"accepted": 1}


def test_what_is_unsure_or_known_already_changes_nothing(filled):
    report = label(
        filled,
        seen(confidence=0.4),
        seen("s1/rain-000001", "rain", confidence=0.9),
        min_confidence=0.5,
    )

    assert (report.pairs, report.unchanged, report.unsure) == ((), 1, 1)
    with filled.database.read() as connection:
        assert "label" not in connection.execute(select(table_of(Event).c.kind)).scalars().all()


def test_a_pair_nobody_knows_stops_it_all(filled):
    before = classes(filled)

    with pytest.raises(PairNotFoundError, match="line 2: no pair 's1/nope'"):
        label(filled, seen(), seen("s1/nope"))

    assert classes(filled) == before


def test_clean_is_a_class_too(filled):
    label(filled, Label(pair="s1/rain-000000", degradations=()))

    assert classes(filled)["s1/rain-000000"] == "clean"


def test_a_file_of_labels_comes_back_as_it_was_written(tmp_path):
    labels = [
        seen(confidence=0.5, source="x"),
        seen(source="Ada\u2028second look"),
        Label(sha256="0" * 64, degradations=("moire",)),
    ]
    write_labels(tmp_path / "labels.jsonl", labels)

    assert [x for _, x in read_labels(tmp_path / "labels.jsonl")] == labels


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("no json", "Invalid JSON"),
        ('{"pair":"a/b","degradations":["fog"]}', "degradations"),
        ('{"degradations":["rain"]}', "one of the two"),
        ('{"pair":"a/b","sha256":"' + "0" * 64 + '","degradations":[]}', "one of the two"),
        ('{"pair":"a/b","degradations":[],"confidence":1.5}', "confidence"),
        ('{"pair":"a/b","degradations":[],"sure":true}', "sure"),
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path, line, problem):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"pair":"a/b","degradations":["rain"]}\n\n' + line + "\n")

    with pytest.raises(LabelFileError, match=rf"labels\.jsonl:3:1: .*{problem}"):
        list(read_labels(path))


def test_the_command_labels_and_undoes(data, make_session, tmp_path, monkeypatch, capsys):
    make_session("s1")
    write_labels(tmp_path / "labels.jsonl", [seen()])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["catalog", *arguments, "--data", str(data)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr().out

    run("add", "s1")
    assert run("label", "--from", str(tmp_path / "labels.jsonl"), "--reason", "look") == (
        0,
        "s1/rain-000000  labelled\n",
    )
    assert run("undo") == (0, "s1/rain-000000  decision taken back\n")
    assert run("label", "--from", str(tmp_path / "nothing.jsonl"))[0] == 2
