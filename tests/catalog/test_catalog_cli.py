"""The command: data on stdout, one line per error on stderr, and the exit codes of all four commands."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from catalog.cli import main


@pytest.fixture
def run(data, make_session, monkeypatch, capsys):
    """Run `catalog` on the data folder; answers exit code, stdout and stderr."""
    make_session()
    make_session("s2", scene="desk", counts={"rain": 1, "snow": 1})

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["catalog", *arguments, "--data", str(data)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        return ended.value.code or 0, out, error

    return command


def parsed(result):
    code, out, error = result
    assert code == 0, error
    document = json.loads(out)
    assert document["schema"] == 1
    return document


def test_from_session_to_export(run, data):
    """The flow of the README: add, look, judge, split, export, verify."""
    assert run("add", "s1", "s2")[1].splitlines() == [
        "s1  added  5 accepted, 2 rejected pairs, 27 files",
        "s2  added  2 accepted, 2 rejected pairs, 18 files",
    ]
    listed = parsed(run("list", "--where", "class = rain and status = accepted", "--json"))
    assert [pair["id"] for pair in listed["pairs"]] == ["s1/rain-000000", "s1/rain-000001", "s2/rain-000000"]
    assert listed["pairs"][0]["class"] == "rain"
    assert listed["next"] is None
    assert parsed(run("show", "s1/rain-000000", "--json"))["gt"]["round"] == "gt"
    assert run("reject", "s1/rain-000000", "--reason", "drop")[1] == "s1/rain-000000  rejected\n"
    assert parsed(run("stats", "--json"))["classes"]["rain"] == {"accepted": 2, "rejected": 3}
    assert parsed(run("undo", "--json"))["pairs"] == ["s1/rain-000000"]
    parts = parsed(run("split", "mine", "--test-scene", "desk", "--set", "shelf=train", "--json"))["parts"]
    assert parts == {"desk": "test", "shelf": "train"}
    code, out, error = run("export", "set-a", "--format", "foundir", "--split", "mine")
    assert code == 0, error
    assert out.splitlines() == [
        "class  train  val  test  all",
        "noise      3    0     0    3",
        "rain       2    0     1    3",
        "all        5    0     1    6",
        "left out: 1 pairs (no FoundIR class)",
        "left out: 4 pairs (rejected)",
    ]
    assert (data / "exports" / "set-a" / "set-a_train_meta_info.txt").is_file()
    assert parsed(run("verify", "--budget", "10min", "--json"))["findings"] == []


def test_a_pair_is_shown_back_to_the_shutter_release(run, data):
    run("add", "s1")
    run("reject", "s1/rain-000001", "--reason", "drop")

    lines = [line.split(maxsplit=1) for line in run("show", "s1/rain-000001")[1].splitlines()]

    facts = {name: value for name, value in lines if not name.startswith("gate")}
    assert facts["class:"] == "rain"
    assert facts["status:"] == "rejected"
    assert facts["gt:"] == f"frame 3 of {data}/sessions/s1/rounds/01-gt.take1, 0.1000 s, 61.000 mm"
    assert facts["event:"].startswith("reject by ")
    assert facts["event:"].endswith(", drop")


def test_paging_tells_how_to_go_on(run):
    run("add", "s1")

    code, out, error = run("list", "--limit", "2")

    assert code == 0
    assert len(out.splitlines()) == 3
    assert error == "more: --after s1/iso6400-000001\n"


def test_a_draw_lists_so_many_of_each_class_and_does_not_page(run):
    run("add", "s1", "s2")

    drawn = parsed(run("list", "--each", "1", "--seed", "4", "--json"))

    assert [pair["class"] for pair in drawn["pairs"]] == ["noise", "rain", "snow"]
    assert drawn["next"] is None
    assert parsed(run("list", "--each", "1", "--seed", "4", "--json")) == drawn
    assert run("list", "--each", "1", "--after", "s1/rain-000000")[0] == 2


def test_coverage_shows_levels_and_the_scenes_that_lack_them(run):
    """Session s1 has noise at ISO 6400 and light rain on the shelf, s2 rain and snow on the desk."""
    run("add", "s1", "s2")

    code, out, _ = run("stats", "--coverage")

    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["degradation", "level", "isolated", "coupled", "scenes", "missing", "in"],
        ["noise", "ISO", "6400", "3", "0", "1", "desk"],
        ["rain", "light", "3", "0", "2", "-"],
        ["snow", "-", "1", "0", "1", "shelf"],
        ["2", "scenes"],
    ]
    assert len(parsed(run("stats", "--coverage", "--json"))["cells"]) == 4


def test_decisions_may_be_made_by_filter_and_need_one_way_of_naming(run):
    run("add", "s1")

    assert len(parsed(run("reject", "--where", "class = noise", "--json"))["pairs"]) == 4
    assert run("reject")[0] == 2
    assert run("reject", "s1/rain-000000", "--where", "class = noise")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("list",), 3, "there is no catalog"),
        (("add", "nothing"), 3, "not a session folder"),
        (("push", "s9", "elsewhere"), 3, "no session of that name"),
        (("push", "s9", "elsewhere"), 3, "next: there are s1"),
        (("pull", "ftp://localhost:1/x"), 3, "ConnectionRefusedError"),
        (("list", "--catalog", "mysql://u:hunter2@h/d"), 2, "not served by this version"),
        (("migrate",), 3, "there is no catalog"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(run, arguments, code, message):
    returned, out, error = run(*arguments)

    assert (returned, out) == (code, "")
    assert message in error
    assert len(error.splitlines()) == 1
    assert "hunter2" not in error


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema":1', '"schema":2', "of another version of cleanplate"),
        ('"scene":', "", "session.json: Invalid JSON"),
    ],
)
def test_a_session_that_cannot_be_read_is_said_with_what_to_do(run, data, old, new, message):
    record = data / "sessions" / "s1" / "session.json"
    record.write_text(record.read_text().replace(old, new, 1))

    returned, out, error = run("add", "s1")

    assert (returned, out) == (2, "")
    assert message in error
    assert "kept: the folder, as it is; next: " in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "--where", "resid < 1"), "where:1:1: unknown name 'resid'; did you mean 'residual_px'?"),
        (("show", "s1/nope"), "no pair 's1/nope'"),
        (("verify", "--budget", "soon"), "not a time"),
        (("split", "x", "--set", "shelf"), "write SCENE=train"),
        (("split", "x", "--test-scene", "shelff"), "did you mean 'shelf'"),
        (("export", "UPPER", "--format", "folder"), "small letters"),
        (("export", "x", "--format", "folder", "--where", "class = snow"), "no accepted pair passes"),
        (("undo",), "no decision to take back"),
    ],
)
def test_invalid_input_exits_2_in_one_line(run, arguments, message):
    run("add", "s1")

    code, out, error = run(*arguments)

    assert (code, out) == (2, "")
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_export_that_exists_is_refused_with_2(run):
    run("add", "s1")
    run("export", "set-a", "--format", "folder")

    code, _, error = run("export", "set-a", "--format", "folder")

    assert code == 2
    assert "never overwritten" in error


def test_damage_exits_5_after_the_report(run, data):
    run("add", "s1")
    (data / "sessions" / "s1" / "pairs" / "lq" / "rain-000000.png").write_bytes(b"short")

    code, out, error = run("verify")
    again, _, _ = run("add", "s1")

    assert code == again == 5
    assert "pairs/lq/rain-000000.png: 5 bytes instead of" in out
    assert error.startswith("error CAT-DAM-001: 1 files are damaged")


def test_a_rebuild_says_that_nothing_changed(run):
    run("add", "s1", "s2")

    code, out, _ = run("rebuild")

    assert code == 0
    assert "the same content as before" in out


def test_help_loads_no_database_library():
    code = (
        "import sys, catalog.cli, catalog; print([m for m in ('sqlalchemy', 'alembic') if m in sys.modules])"
    )

    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert out == "[]\n"
