"""`catalog verify`: every way to damage a file is found, stored and taken back only by a whole file."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import select

from catalog.errors import SessionNotFoundError
from catalog.tables import Asset, Event, table_of

DATABASES = ("sqlite", "postgresql")


@pytest.fixture
def filled(catalog, make_session):
    make_session()
    make_session("s2", scene="desk", counts={"rain": 1})
    catalog.add("s1")
    catalog.add("s2")
    return catalog


def known_files(catalog, session="s1"):
    with catalog.database.read() as connection:
        paths = connection.execute(select(table_of(Asset).c.relpath)).scalars()
        return sorted({p for p in paths if (catalog.data / "sessions" / session / p).is_file()})


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def append(path):
    path.write_bytes(path.read_bytes() + b"\n{}")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def replace_by_link(path):
    copy = path.with_name(path.name + ".copy")
    path.rename(copy)
    path.symlink_to(copy)


DAMAGE = (flip_a_bit, truncate, append, zero, replace_by_link, lambda path: path.unlink())


def test_whole_files_are_verified_without_a_finding(filled):
    report = filled.verify()

    assert report.findings == ()
    assert (report.checked, report.remaining) == (filled.stats().files["present"], 0)


def test_every_kind_of_damage_to_every_file_is_found(filled):
    """27 known files of s1 times six kinds of damage; each file is restored before the next."""
    root = filled.data / "sessions" / "s1"
    files = known_files(filled)
    assert {"session.json", "journal.jsonl", "pairs.jsonl", "alignment.json"} < set(files)

    for relpath, damage in itertools.product(files, DAMAGE):
        path = root / relpath
        whole = path.read_bytes()
        damage(path)
        found = filled.verify("s1").findings
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".copy").unlink(missing_ok=True)
        path.write_bytes(whole)

        assert [finding.path for finding in found] == [relpath], (relpath, damage)
    assert filled.verify().findings == ()


def test_swapped_files_are_named_with_each_other(filled):
    folder = filled.data / "sessions" / "s1" / "pairs" / "lq"
    one, two = folder / "rain-000000.png", folder / "rain-000001.png"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)

    findings = {finding.path: finding.problem for finding in filled.verify().findings}

    assert findings == {
        "pairs/lq/rain-000000.png": "holds the content of s1:pairs/lq/rain-000001.png",
        "pairs/lq/rain-000001.png": "holds the content of s1:pairs/lq/rain-000000.png",
    }


def test_a_damaged_image_quarantines_its_pair_until_it_is_whole_again(filled):
    path = filled.data / "sessions" / "s1" / "pairs" / "gt" / "rain-000000.png"
    whole = path.read_bytes()
    flip_a_bit(path)

    filled.verify()
    damaged = filled.show("s1/rain-000000").pair.status
    again = filled.add("s1")
    path.write_bytes(whole)
    still = filled.add("s1").quarantined
    report = filled.verify()

    assert damaged == "quarantined"
    assert again.problems == ("pairs/gt/rain-000000.png: its content differed when it was last verified",)
    assert still == 1
    assert report.recovered == 1
    assert filled.show("s1/rain-000000").pair.status == "accepted"
    assert filled.stats().pairs == {"accepted": 6, "rejected": 3}
    with filled.database.read() as connection:
        kinds = connection.execute(select(table_of(Event).c.kind)).scalars().all()
    assert kinds.count("damage") == kinds.count("recovery") == 1


def test_damage_outside_pairs_is_found_and_quarantines_none(filled):
    flip_a_bit(filled.data / "sessions" / "s1" / "rounds" / "03-rain.take1" / "main-01.mov")

    report = filled.verify()

    assert [finding.path for finding in report.findings] == ["rounds/03-rain.take1/main-01.mov"]
    assert filled.stats().pairs == {"accepted": 6, "rejected": 3}


def test_a_session_aligned_again_but_not_added_is_told_apart(filled, make_session):
    path = filled.data / "sessions" / "s2" / "alignment.json"
    path.write_text(path.read_text().replace('"guard_s": 0.1', '"guard_s": 0.2'))

    findings = filled.verify("s2").findings

    assert [finding.problem for finding in findings] == [
        "not what was added; after another alignment: catalog add s2"
    ]
    filled.add("s2")
    assert filled.verify("s2").findings == ()


def test_a_journal_that_grew_is_whole(filled, catalog):
    path = filled.data / "sessions" / "s1" / "journal.jsonl"
    with path.open("ab") as journal:
        journal.write(b'{"seq":99,"kind":"torn')

    assert filled.verify("s1").findings == ()


def test_a_budget_ends_early_and_the_next_run_goes_on(filled):
    """With no time at all nothing is read; two whole runs look at each file twice."""
    none = filled.verify(budget_s=0.0)
    everything = filled.verify(budget_s=60.0)

    assert none.checked == 0
    assert none.remaining == everything.checked > 0


def test_the_longest_unseen_files_come_first(filled):
    assets = table_of(Asset)
    filled.verify("s1")
    with filled.database.read() as connection:
        never = select(assets.c.relpath).where(assets.c.verified_at_us.is_(None))
        assert connection.execute(never).scalars().all()
    order: list[str] = []

    filled.verify(advance=lambda amount: order.append("file"))

    with filled.database.read() as connection:
        stamps = {
            r.relpath: r.verified_at_us for r in connection.execute(select(assets)) if r.session_id == 2
        }
        others = [r.verified_at_us for r in connection.execute(select(assets)) if r.session_id == 1]
    assert max(stamps.values()) < min(others)
    assert len(order) == len(stamps) + len(others)


def test_verifying_an_unknown_session_says_so(filled):
    with pytest.raises(SessionNotFoundError, match="no session 's3' in the catalog"):
        filled.verify("s3")


def test_a_dask_cluster_finds_what_this_process_finds(filled, dask_cluster):
    """Damage of three kinds in two sessions; the whole files recover when another look finds them so."""
    folder = filled.data / "sessions" / "s1" / "pairs" / "lq"
    one, two = folder / "rain-000000.png", folder / "rain-000001.png"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    (filled.data / "sessions" / "s2" / "pairs" / "gt" / "rain-000000.png").unlink()
    here = filled.verify()

    there = filled.verify(dask=dask_cluster)

    assert {(f.path, f.problem, f.state) for f in there.findings} == {
        (f.path, f.problem, f.state) for f in here.findings
    }
    assert (there.checked, there.remaining, len(there.findings)) == (here.checked, 0, 3)


def test_two_processes_read_as_one_does(filled):
    flip_a_bit(filled.data / "sessions" / "s1" / "pairs" / "gt" / "rain-000000.png")

    report = filled.verify(workers=2)

    assert [f.path for f in report.findings] == ["pairs/gt/rain-000000.png"]
    assert filled.show("s1/rain-000000").pair.status == "quarantined"


def test_damage_is_never_repaired_and_the_damaged_file_stays_as_it_is(filled):
    path = filled.data / "sessions" / "s1" / "pairs" / "gt" / "rain-000000.png"
    flip_a_bit(path)
    damaged = path.read_bytes()

    filled.verify()
    filled.add("s1")
    filled.rebuild()

    assert path.read_bytes() == damaged
    assert filled.verify().findings[0].path == "pairs/gt/rain-000000.png"
