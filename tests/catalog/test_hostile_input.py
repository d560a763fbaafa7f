"""Filters, names and databases that somebody broke or made to harm: a clear error of ours, and nothing changed.

The fast counts run always; ``CLEANPLATE_NIGHTLY=1`` multiplies them by ten.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import select

from catalog import Catalog
from catalog.errors import CatalogError, SessionFolderError
from catalog.query import QueryError
from catalog.query_fields import FIELDS
from catalog.records import Degradation
from catalog.selection import pair_source
from catalog.stored_files import FolderRoot

DATABASES = ("sqlite", "postgresql")
MANY = 10 if os.environ.get("CLEANPLATE_NIGHTLY") == "1" else 1


@pytest.fixture
def filled(catalog, make_session):
    """One session of seven pairs."""
    make_session()
    catalog.add("s1")
    return catalog


VALUES = {
    "number": ["0", "-1", "6400", "1e-3", ".5", "9007199254740992"],
    "flag": ["true", "FALSE"],
    "class": ["noise", "'haze+rain'", "clean", "rain+rain"],
    "degradation": list(Degradation),
    "text": ["shelf", "'s1'", "'it''s'", '"a ""b"""', "''", "é", "'%_\\'"],
}
WRONG = ["1e999", "0x10", "nan", "--5", "yes", "'noise+'", "snowy", "NOISE", "and", "'a", "05Noise", "9e15"]
SIGNS = {
    "number": ["=", "!=", "<", "<=", ">", ">="],
    "flag": ["=", "!="],
    "class": ["=", "!=", "~"],
    "degradation": ["=", "!=", "~", "!~"],
    "text": ["=", "!=", "~", "!~"],
}
NOISE_BETWEEN = [
    "",
    " ",
    "\t",
    "\n",
    "(",
    ")",
    "'",
    '"',
    ",",
    "\0",
    "--",
    ";",
    "/*",
    "\\",
    "%",
    "\u2028",
    "null",
    "in",
]


def a_comparison(draw: random.Random) -> str:
    name, field = draw.choice(list(FIELDS.items()))
    values = list(field.values) or VALUES[field.kind]
    value = draw.choice(WRONG if draw.random() < 0.05 else values)
    form = draw.randrange(6)
    if form == 0:
        return f"{name} is {draw.choice(['', 'not '])}null"
    if form == 1:
        listed = ", ".join(draw.choice(values) for _ in range(draw.randrange(1, 5)))
        return f"{name} {draw.choice(['', 'not '])}in ({listed})"
    return f"{name} {draw.choice(SIGNS[field.kind])} {value}"


def an_expression(draw: random.Random, depth: int = 0) -> str:
    if depth > 5 or draw.random() < 0.4:
        return a_comparison(draw)
    left, right = (an_expression(draw, depth + 1) for _ in range(2))
    return draw.choice(["{} and {}", "{} or {}", "not ({} or {})", "(({}) and {})", "not {} and {}"]).format(
        left, right
    )


def spoiled(draw: random.Random, text: str) -> str:
    """Cut, double or replace a piece somewhere."""
    at, length = draw.randrange(len(text) + 1), draw.randrange(6)
    piece = draw.choice([draw.choice(NOISE_BETWEEN), text[at : at + length] * 2, chr(draw.randrange(0x2FFF))])
    return text[:at] + piece + text[at + length :]


def bytes_as_text(draw: random.Random) -> str:
    coding = draw.choice([("latin-1", "strict"), ("utf-16-le", "replace"), ("utf-8", "surrogateescape")])
    return draw.randbytes(draw.randrange(40)).decode(*coding)


def a_filter(seed: int) -> str:
    draw = random.Random(seed)
    kind = draw.random()
    if kind < 0.4:
        return an_expression(draw)
    if kind < 0.8:
        return spoiled(draw, an_expression(draw))
    return bytes_as_text(draw)


@pytest.mark.timeout(600)
def test_five_thousand_filters_are_answered_or_refused_and_change_nothing(filled):
    """On the server, where a question costs more, every tenth; all on one connection, since these only look."""
    step = 1 if filled.database.name.endswith(".db") else 10
    before, everything = filled.content_hash(), {pair.id for pair in filled.find()}
    answered = refused = 0

    with filled.database.read() as connection:
        source = pair_source(connection)
        for seed in range(0, 5_000 * MANY, step):
            where = a_filter(seed)
            try:
                condition = source.where(where)
            except QueryError as error:
                refused += 1
                assert re.match(r"where:1:\d+: ", error.message), where  # noqa: PT017
                assert error.exit_code == 2  # noqa: PT017
            else:
                answered += 1
                asked = select(source.columns["id"]).select_from(source.table).where(condition)
                assert everything.issuperset(connection.execute(asked).scalars()), where

    assert min(answered, refused) > 5_000 * MANY // step // 4
    assert filled.content_hash() == before


QUESTIONS = (
    lambda c: c.find(limit=5),
    lambda c: c.find("iso > 50", order="-residual_px"),
    lambda c: c.show("s1/rain-000000"),
    lambda c: c.stats(),
    lambda c: c.coverage(),
    lambda c: c.sample(2, seed=3),
    lambda c: list(c.stream(("id", "class", "gt_warped"))),
    lambda c: c.content_hash(),
)


def ask_everything(path):
    """Ask it all; returns how many questions were answered by an error of ours. Others are not caught."""
    refused = 0
    with Catalog(path) as opened:
        for question in QUESTIONS:
            try:
                question(opened)
            except CatalogError as error:
                refused += 1
                assert error.next_step or error.kept, error  # noqa: PT017
    return refused


@pytest.fixture
def database(data, make_session):
    """A filled SQLite catalog that nobody has open."""
    make_session()
    with Catalog(data / "catalog.db") as opened:
        opened.init()
        opened.add("s1")
    return data / "catalog.db"


def damaged_copies(path, draw):
    """Cut it, overwrite stretches, flip bytes, empty pages."""
    whole = path.read_bytes()
    for _ in range(12 * MANY):
        yield whole[: draw.randrange(1, len(whole))]
        copy = bytearray(whole)
        at, length = draw.randrange(len(whole)), draw.choice([1, 16, 400, 9_000])
        copy[at : at + length] = draw.randbytes(len(copy[at : at + length]))
        yield bytes(copy)
        copy = bytearray(whole)
        for _ in range(40):
            copy[draw.randrange(100, len(copy))] ^= 1 << draw.randrange(8)
        yield bytes(copy)
        copy = bytearray(whole)
        page = draw.randrange(1, len(whole) // 4096) * 4096
        copy[page : page + 4096] = bytes(4096)
        yield bytes(copy)


def test_a_damaged_database_is_answered_with_our_errors_and_left_as_it_is(database, tmp_path):
    refused = 0
    for number, content in enumerate(damaged_copies(database, random.Random(5))):
        path = tmp_path / f"{number}.db"
        path.write_bytes(content)
        refused += ask_everything(path) > 0
        assert path.read_bytes() == content

    assert refused > 12 * MANY


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE pair_counts",
        "DROP TABLE pairs",
        "ALTER TABLE pairs RENAME COLUMN iso TO izo",
        "UPDATE rounds SET settings = '{broken'",
        "UPDATE pair_counts SET degr_key = 'no+such+thing'",
        "UPDATE pairs SET uid = CAST(x'ff00fe' AS TEXT) WHERE id = 1",
    ],
)
def test_tables_that_are_not_ours_any_more_are_named(database, statement):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)
        connection.commit()
    before = database.read_bytes()

    assert ask_everything(database) > 0

    assert database.read_bytes() == before


def test_a_catalog_that_may_not_be_written_answers_and_refuses(database):
    """Root may write everything: it sees the answers alone."""
    database.chmod(0o444)
    database.parent.chmod(0o555)
    try:
        with Catalog(database) as opened:
            if os.geteuid():
                with pytest.raises(CatalogError, match=r"read.?only"):
                    opened.reject(["s1/rain-000000"])
            assert len(opened.find()) == 7
    finally:
        database.parent.chmod(0o755)


HOSTILE_NAMES = [
    "../../etc",
    "a/b",
    "a\x1b[2J",
    "'; DROP TABLE pairs; --",
    "x" * 300,
    ".",
    "..",
    "a\0b",
    "",
    "é\u202e",
]


def test_a_session_with_a_hostile_scene_is_refused_whole(catalog, make_session):
    path = make_session().folder / "session.json"
    written = json.loads(path.read_text())

    for name in HOSTILE_NAMES:
        path.write_text(json.dumps({**written, "scene": name}))
        with pytest.raises(CatalogError):
            catalog.add("s1")

    assert catalog.stats().sessions == 0


def test_hostile_names_in_questions_find_nothing_and_harm_nothing(filled):
    before = filled.content_hash()

    for name in HOSTILE_NAMES:
        for action in (
            lambda name=name: filled.show(name),
            lambda name=name: filled.reject([name]),
            lambda name=name: filled.find(after=name or "x"),
            lambda name=name: filled.find(split=name),
            lambda name=name: filled.verify(name),
            lambda name=name: filled.add(name or "x"),
            lambda name=name: filled.split(name),
        ):
            with pytest.raises(CatalogError):
                action()

    assert filled.content_hash() == before


@pytest.mark.parametrize(
    "path", ["/plain.png", "/pairs/x.png", "pairs/..", "pairs/.", "pairs/", "", "a\0b", "../x", "pairs/../x"]
)
def test_a_folder_that_was_seen_does_not_vouch_for_a_path_that_leaves_it(tmp_path, path):
    (tmp_path / "pairs").mkdir()
    root = FolderRoot(tmp_path)
    assert root.path("plain.png") == tmp_path / "plain.png"
    assert root.path("pairs/x.png") == tmp_path / "pairs" / "x.png"

    with pytest.raises(SessionFolderError, match="leaves the folder"):
        root.path(path)
