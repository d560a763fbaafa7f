"""Adding sessions, finding and judging pairs: `catalog.Catalog` on real session folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from postgres_server import address_of
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from catalog import Catalog
from catalog.database import CatalogNotFoundError
from catalog.decisions import NoImagesError, NothingToUndoError, PairNotFoundError
from catalog.errors import CatalogError, DamagedDataError, SessionFolderError, SessionNotFoundError
from catalog.ingest import SessionConflictError
from catalog.listing import statistics_lines
from catalog.selection import OrderError
from catalog.tables import Base, Event, table_of

DATABASES = ("sqlite", "postgresql")


def row_counts(catalog):
    with catalog.database.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }


def statuses(catalog):
    return {pair.id.partition("/")[2]: pair.status for pair in catalog.find()}


def test_a_session_brings_its_pairs_with_settings_class_and_evidence(catalog, make_session):
    """ISO comes from the body's read-back, the exposure from the plan: the body did not report it."""
    make_session()

    report = catalog.add("s1")

    assert (report.outcome, report.accepted, report.rejected) == ("added", 5, 2)
    details = catalog.show("s1/iso6400-000002")
    pair = details.pair
    assert (pair.scene, pair.round, pair.role, pair.source) == ("shelf", "iso6400", "internal", "captured")
    assert (pair.degradation_class, pair.foundir_class) == ("noise", "05Noise")
    assert (pair.iso, pair.exposure_s, pair.f_number, pair.focus_m) == (6400, 0.001, 8.0, None)
    assert (pair.width, pair.height) == (6, 4)
    assert pair.residual_px == pytest.approx(0.03)
    assert (details.gt.frame_index, details.lq.frame_index) == (6, 2)
    assert Path(details.gt.folder, "main-01.mov").is_file()
    assert details.gates == {"ecc": 0.99, "overlap": None}
    assert Path(details.files["lq"].path).is_file()


def test_adding_twice_equals_once(catalog, make_session):
    make_session()
    catalog.add("s1")
    before, content = row_counts(catalog), catalog.content_hash()

    report = catalog.add("s1")

    assert report.outcome == "unchanged"
    assert row_counts(catalog) == before
    assert catalog.content_hash() == content


def test_a_folder_given_by_path_is_the_same_session(catalog, make_session):
    writer = make_session()
    catalog.add("s1")

    assert catalog.add(writer.folder).outcome == "unchanged"


def test_an_unaligned_session_is_remembered_without_pairs_and_completed_later(catalog, data, make_session):
    writer = make_session("other", scene="desk")
    (writer.folder / "pairs.jsonl").unlink()
    (writer.folder / "alignment.json").unlink()

    first = catalog.add("other")
    writer.align({"rain": 1})
    second = catalog.add("other")

    assert (first.aligned, first.accepted) == (False, 0)
    assert (second.outcome, second.aligned, second.accepted) == ("updated", True, 1)


def test_aligning_again_replaces_pairs_under_their_names_and_keeps_decisions(catalog, make_session):
    """rain-000001 was rejected by hand and is there again; iso6400-000002 is not found any more."""
    writer = make_session()
    catalog.add("s1")
    catalog.reject(["s1/rain-000001"], reason="a drop on the lens")
    old = catalog.show("s1/rain-000001").files["lq"].sha256

    writer.align({"iso6400": 2, "rain": 2}, salt=1)
    report = catalog.add("s1")

    assert (report.outcome, report.decisions_kept, report.accepted) == ("updated", 1, 3)
    details = catalog.show("s1/rain-000001")
    assert (details.pair.status, details.decision) == ("rejected", "rejected")
    assert details.files["lq"].sha256 != old
    with pytest.raises(PairNotFoundError):
        catalog.show("s1/iso6400-000003")
    with catalog.database.read() as connection:
        kinds = connection.execute(select(table_of(Event).c.kind).order_by(table_of(Event).c.id)).scalars()
        assert list(kinds) == ["added", "reject", "updated"]


def test_a_decision_waits_for_a_pair_that_alignment_lost_and_found_again(catalog, make_session):
    writer = make_session()
    catalog.add("s1")
    catalog.reject(["s1/rain-000001"])

    writer.align({"iso6400": 3})
    catalog.add("s1")
    writer.align({"iso6400": 3, "rain": 2})
    catalog.add("s1")

    assert statuses(catalog)["rain-000001"] == "rejected"


def test_the_counts_follow_every_change(catalog, make_session):
    make_session()
    catalog.add("s1")

    catalog.reject(["s1/rain-000000"])

    assert catalog.stats().classes == {
        "noise": {"accepted": 3, "rejected": 1},
        "rain": {"accepted": 1, "rejected": 2},
    }
    assert catalog.stats().scenes["shelf"]["accepted"] == 4
    assert catalog.stats().reasons == {"parallax": 2, "residual": 2}


def test_the_age_of_the_planners_statistics_is_that_of_the_last_session_that_changed(catalog, make_session):
    """They are refreshed with every session that is added or changes, and by nothing else."""
    writer = make_session()
    never = catalog.stats().planned_by_utc_us
    began_us = time.time_ns() // 1000

    catalog.add("s1")
    added_us = catalog.stats().planned_by_utc_us
    catalog.reject(["s1/rain-000000"])
    catalog.add("s1")
    unchanged_us = catalog.stats().planned_by_utc_us
    writer.align({"iso6400": 2, "rain": 2})
    catalog.add("s1")

    assert never is None
    assert began_us <= added_us == unchanged_us < catalog.stats().planned_by_utc_us
    told = list(statistics_lines(replace(catalog.stats(), planned_by_utc_us=86_400_000_000)))
    assert told[-1] == "queries are planned by statistics of 1970-01-02 00:00:00Z"


def test_a_decision_is_taken_back_step_by_step(catalog, make_session):
    make_session()
    catalog.add("s1")
    pair = "s1/rain-000000"
    catalog.reject([pair])
    catalog.accept([pair])

    seen = [catalog.show(pair).decision]
    catalog.undo([pair])
    seen.append(catalog.show(pair).decision)
    catalog.undo([pair])
    seen.append(catalog.show(pair).decision)

    assert seen == ["accepted", "rejected", None]
    with pytest.raises(NothingToUndoError):
        catalog.undo([pair])


def test_undo_without_names_takes_back_the_whole_last_command(catalog, make_session):
    make_session()
    catalog.add("s1")
    catalog.reject(["s1/iso6400-000000"])
    catalog.reject(["s1/rain-000000", "s1/rain-000001"])

    report = catalog.undo()

    assert set(report.pairs) == {"s1/rain-000000", "s1/rain-000001"}
    assert statuses(catalog)["rain-000000"] == "accepted"
    assert statuses(catalog)["iso6400-000000"] == "rejected"


def test_one_wrong_name_decides_nothing(catalog, make_session):
    make_session()
    catalog.add("s1")

    with pytest.raises(PairNotFoundError):
        catalog.reject(["s1/rain-000000", "s1/rain-999999"])

    assert statuses(catalog)["rain-000000"] == "accepted"


def test_a_pair_without_images_cannot_be_accepted(catalog, make_session):
    make_session()
    catalog.add("s1")

    with pytest.raises(NoImagesError, match="parallax,residual"):
        catalog.accept(["s1/rain-000002"])


def test_events_cannot_be_changed_or_removed(catalog, make_session):
    make_session()
    catalog.add("s1")

    for statement in ("UPDATE events SET reason = 'x'", "DELETE FROM events"):
        with pytest.raises(CatalogError, match="append-only"), catalog.database.write() as connection:
            connection.exec_driver_sql(statement)


def test_pages_join_to_the_whole_list_in_both_directions(catalog, make_session):
    """Rejected pairs have no residual: they come last whichever way the list runs."""
    make_session()
    make_session("s2", scene="desk")
    catalog.add("s1")
    catalog.add("s2")

    for order in ("id", "-id", "residual_px", "-residual_px", "iso"):
        whole = [pair.id for pair in catalog.find(order=order)]
        paged: list[str] = []
        while page := catalog.find(order=order, limit=4, after=paged[-1] if paged else None):
            paged += [pair.id for pair in page]
        assert paged == whole
    assert [p.residual_px for p in catalog.find(order="-residual_px")][-4:] == [None] * 4


def test_an_unknown_order_names_the_valid_one(catalog):
    with pytest.raises(OrderError, match="did you mean 'residual_px'"):
        catalog.find(order="residual")


def test_a_missing_image_quarantines_its_pair_and_comes_back_with_the_file(catalog, make_session, tmp_path):
    writer = make_session()
    image = writer.folder / "pairs" / "gt" / "rain-000000.png"
    image.rename(tmp_path / "away.png")

    gone = catalog.add("s1")
    (tmp_path / "away.png").rename(image)
    back = catalog.add("s1")

    assert gone.quarantined == 1
    assert gone.problems == ("pairs/gt/rain-000000.png: the file is missing",)
    assert (back.outcome, back.quarantined, back.problems) == ("unchanged", 0, ())


def test_lost_pairs_are_not_forgotten_with_their_list(catalog, make_session):
    writer = make_session()
    catalog.add("s1")
    (writer.folder / "pairs.jsonl").unlink()

    with pytest.raises(DamagedDataError, match="knows 7 pairs"):
        catalog.add("s1")

    assert len(catalog.find()) == 7


def test_another_session_of_the_same_name_is_refused(catalog, make_session, data, tmp_path):
    writer = make_session()
    catalog.add("s1")
    other = tmp_path / "s1"
    shutil.copytree(writer.folder, other)
    record = json.loads((other / "session.json").read_text())
    (other / "session.json").write_text(json.dumps({**record, "created_utc_us": 5}))

    with pytest.raises(SessionConflictError):
        catalog.add(other)


def test_a_changed_round_file_is_refused_before_its_settings_are_believed(catalog, make_session):
    writer = make_session()
    path = writer.folder / "rounds" / "02-iso6400.take1" / "round.json"
    path.write_text(path.read_text().replace("6400", "3200"))

    with pytest.raises(DamagedDataError, match=r"round\.json: not the file that the journal recorded"):
        catalog.add("s1")

    assert catalog.stats().sessions == 0


@pytest.mark.parametrize("path", ["../../outside.png", "/etc/passwd", "pairs/../../../x.png"])
def test_a_recorded_path_that_leaves_the_folder_is_refused(catalog, make_session, path):
    writer = make_session()
    lines = (writer.folder / "pairs.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["mask"] = path
    (writer.folder / "pairs.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")

    with pytest.raises(SessionFolderError, match="leaves the folder"):
        catalog.add("s1")


def test_an_accepted_pair_must_have_images_and_intensity(catalog, make_session):
    writer = make_session()
    text = (writer.folder / "pairs.jsonl").read_text()
    (writer.folder / "pairs.jsonl").write_text(text.replace('"mu":0.1', '"mu":null', 1))

    with pytest.raises(SessionFolderError, match=r"pairs\.jsonl:1:1: .* has no mu and sigma"):
        catalog.add("s1")


def test_a_link_out_of_the_folder_is_not_an_image(catalog, make_session, tmp_path):
    writer = make_session()
    image = writer.folder / "pairs" / "lq" / "rain-000000.png"
    image.rename(tmp_path / "outside.png")
    image.symlink_to(tmp_path / "outside.png")

    report = catalog.add("s1")

    assert report.problems == ("pairs/lq/rain-000000.png: a link or folder stands in the file's place",)


def test_unknown_sessions_and_missing_catalogs_say_so(catalog, data):
    with pytest.raises(SessionNotFoundError):
        catalog.add("nothing-there")
    with Catalog(data / "elsewhere.db") as other, pytest.raises(CatalogNotFoundError):
        other.find()
    assert not (data / "elsewhere.db").exists()


_KILLED_ADD = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from catalog import Catalog

point, address, data = sys.argv[1:]
seen = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if point == "commit":
    event.listen(Engine, "commit", lambda connection: die())
else:
    @event.listens_for(Engine, "before_cursor_execute")
    def count(*arguments):
        global seen
        seen += 1
        if seen == int(point):
            die()

with Catalog(address, data=Path(data)) as catalog:
    catalog.add("s1")
"""


@pytest.mark.parametrize("again", [False, True], ids=["first add", "update"])
def test_killed_at_any_statement_adding_again_equals_once(catalog, make_session, data, again):
    """Kills along the transaction and just before its commit leave the catalog as it was."""
    writer = make_session()
    if again:
        catalog.add("s1")
        catalog.reject(["s1/rain-000000"])
        writer.align({"iso6400": 3, "rain": 2}, salt=2)
    before = row_counts(catalog)
    catalog.close()

    for point in ("3", "9", "16", "24", "commit"):
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED_ADD, point, address_of(catalog), str(data)],
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ended.returncode == -signal.SIGKILL
        assert row_counts(catalog) == before

    catalog.add("s1")
    counted = row_counts(catalog)
    assert catalog.add("s1").outcome == "unchanged"
    assert row_counts(catalog) == counted
    with Catalog(data / "fresh.db") as fresh:
        fresh.init()
        fresh.add("s1")
        assert fresh.content_hash() == catalog.content_hash()


def test_the_content_hash_ignores_the_order_of_adding_and_sees_every_pair(catalog, make_session, data):
    make_session()
    make_session("s2", scene="desk")
    catalog.add("s1")
    one = catalog.content_hash()
    catalog.add("s2")

    with Catalog(data / "fresh.db") as fresh:
        fresh.init()
        fresh.add("s2")
        fresh.add("s1")
        assert fresh.content_hash() == catalog.content_hash()
    assert catalog.content_hash() != one


def test_a_rebuild_gives_the_same_content_and_keeps_what_people_decided(catalog, make_session, data):
    make_session()
    make_session("s2", scene="desk")
    catalog.add("s1")
    catalog.add("s2")
    catalog.reject(["s1/rain-000000"], reason="blurred")
    parts = catalog.split("mine")

    report = catalog.rebuild()

    assert report.content_sha256 == report.content_sha256_before == catalog.content_hash()
    assert report.carried_over
    assert not report.problems
    assert report.backup is not None
    assert catalog.show("s1/rain-000000").pair.status == "rejected"
    assert {p.scene: p.split for p in catalog.find(split="mine")} == parts
    catalog.undo(["s1/rain-000000"])
    assert catalog.show("s1/rain-000000").pair.status == "accepted"


def test_a_destroyed_catalog_is_rebuilt_from_session_folders_alone(make_session, data):
    make_session()
    with Catalog(data / "catalog.db") as catalog:
        catalog.init()
        catalog.add("s1")
        content = catalog.content_hash()
        catalog.close()
        (data / "catalog.db").write_bytes(b"not a database at all" * 100)

        with pytest.raises(DamagedDataError):
            catalog.find()
        report = catalog.rebuild()

        assert not report.carried_over
        assert catalog.content_hash() == content


def test_a_rebuild_reports_a_damaged_session_and_keeps_the_others(catalog, make_session):
    writer = make_session()
    make_session("s2", scene="desk")
    catalog.add("s1")
    catalog.add("s2")
    journal = (writer.folder / "journal.jsonl").read_bytes()
    (writer.folder / "journal.jsonl").write_bytes(journal.replace(b"saved", b"sawed", 1))

    report = catalog.rebuild()

    assert report.sessions == ("s2",)
    assert len(report.problems) == 1
    assert "journal line is damaged" in report.problems[0]


def test_browsing_cannot_write(catalog):
    with pytest.raises((CatalogError, SQLAlchemyError)), catalog.database.read() as connection:
        connection.exec_driver_sql("DELETE FROM degradations")
