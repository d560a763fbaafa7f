"""Freezing the list of an export: nobody waits for it, and an interruption leaves no half of it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from postgres_server import address_of
from sqlalchemy import func, select

from catalog import Catalog, export_freeze
from catalog.export_files import ExportBusyError
from catalog.export_freeze import find_list, freeze
from catalog.export_list import ExportRequest, frozen_items, items
from catalog.manifest import read_manifest

DATABASES = ("sqlite", "postgresql")
REQUEST = ExportRequest("set-a", "folder")


@pytest.fixture
def filled(catalog, make_session):
    """Two scenes, ten accepted pairs."""
    for i in range(2):
        make_session(f"s{i}", scene=f"scene-{i}", counts={"iso6400": 3, "rain": 2})
        catalog.add(f"s{i}")
    return catalog


def listed(catalog):
    with catalog.database.read() as connection:
        row = find_list(connection, "set-a")
        return None if row is None else [item.row.id for item in frozen_items(connection, row["id"])]


def stored_rows(catalog):
    with catalog.database.read() as connection:
        return connection.execute(select(func.count()).select_from(items)).scalar_one()


def interrupt_storing(patch, number):
    """Let the attempt to store the ``number``-th portion of three rows fail."""
    stored, insert = [], export_freeze.bulk_insert

    def counted(*arguments):
        stored.append(arguments)
        if len(stored) == number:
            raise KeyboardInterrupt
        return insert(*arguments)

    patch.setattr(export_freeze, "_ROWS_A_WRITE", 3)
    patch.setattr(export_freeze, "bulk_insert", counted)


def test_others_decide_while_a_list_is_chosen_and_it_holds_one_state(filled):
    """A rejection after the third pair was looked at neither waits nor changes what is listed."""
    looked = []

    def look(item):
        looked.append(item.row.id)
        if len(looked) == 3:
            with Catalog(address_of(filled), data=filled.data) as other:
                other.reject(["s1/rain-000001"], reason="meanwhile")
        return item

    freeze(filled.database, REQUEST, folder=filled.data, look=look)

    assert len(looked) == 10
    assert "s1/rain-000001" in listed(filled)
    assert len(listed(filled)) == 10
    assert filled.show("s1/rain-000001").pair.status == "rejected"


def test_a_list_that_was_half_stored_counts_for_nothing(filled, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_storing(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            filled.export(REQUEST)
    assert (listed(filled), stored_rows(filled)) == (None, 6)

    report = filled.export(ExportRequest("set-a", "folder", where="class = rain"))

    assert (report.resumed, report.pairs, stored_rows(filled)) == (False, 4, 4)
    assert len(listed(filled)) == 4


def test_a_list_that_another_process_replaces_is_given_up(filled, monkeypatch):
    """With data folders of their own no lock keeps the two apart; the third write is of the first rows."""
    write, writes = filled.database.write, count(1)

    def overtaken():
        if next(writes) == 3:
            with Catalog(address_of(filled), data=filled.data) as other:
                rain = ExportRequest("set-a", "folder", where="class = rain")
                freeze(other.database, rain, folder=filled.data)
        return write()

    monkeypatch.setattr(filled.database, "write", overtaken)

    with pytest.raises(ExportBusyError, match="another process began"):
        freeze(filled.database, REQUEST, folder=filled.data)

    assert {uid.split("-")[0] for uid in listed(filled)} == {"s0/rain", "s1/rain"}
    assert stored_rows(filled) == 4


_STOPPED_EXPORT = """
import os, signal, sys

seen = 0

def watch(event, arguments):
    global seen
    seen += event == "os.link"
    if event == "os.link" and seen == 11:
        os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(watch)
from catalog.cli import main
main()
"""


def test_an_export_that_is_told_to_stop_says_how_it_goes_on(filled):
    """SIGTERM, as a service manager sends it, at the eleventh of thirty links."""
    arguments = ["export", "set-a", "--format", "folder", "--data", str(filled.data)]
    arguments += ["--catalog", address_of(filled)]
    command = [sys.executable, "-P", "-c", _STOPPED_EXPORT, *arguments]

    stopped = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    report = filled.export(REQUEST)

    assert stopped.returncode == 6, stopped.stderr
    told = shlex.split(stopped.stderr.partition("next: ")[2])
    assert told == ["catalog", *arguments]
    assert (report.resumed, report.pairs) == (True, 10)
    assert len(list(read_manifest(Path(report.address)))) == 10
