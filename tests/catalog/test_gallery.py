"""The gallery: one page that needs nothing else, whatever the pairs hold."""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib

import pytest

from catalog.cli import main


@pytest.fixture
def run(data, make_session, tmp_path, monkeypatch, capsys):
    """Run `catalog` on a session of three noise pairs and two rain pairs, one more of each rejected."""
    make_session("s1")

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["catalog", *arguments, "--data", str(data)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, error = capsys.readouterr()
        assert (ended.value.code or 0) == 0, error
        return out

    command("add", "s1")
    return command


def page_of(run, tmp_path, *arguments):
    out = run("gallery", "-o", str(tmp_path / "g.html"), *arguments)
    assert out == f"{tmp_path / 'g.html'}\n"
    return (tmp_path / "g.html").read_text()


def test_every_pair_shows_both_sides_under_its_class(run, tmp_path):
    page = page_of(run, tmp_path, "--where", "status = accepted")

    assert re.findall(r"<h2>(\w+) <span>(\d+)", page) == [("noise", "3"), ("rain", "2")]
    assert page.count('<img src="data:image/jpeg;base64,') == 10
    assert page.count('<img class="detail" src="data:image/jpeg;base64,') == 10
    assert "status = accepted" in page


def test_the_page_reaches_for_nothing(run, tmp_path):
    page = page_of(run, tmp_path)

    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)|url\(|https?://|<script", page)


def test_a_pair_without_pictures_and_one_with_a_damaged_one_say_so(run, tmp_path, data):
    (data / "sessions" / "s1" / "pairs" / "lq" / "rain-000000.png").write_bytes(b"no picture")
    (data / "sessions" / "s1" / "pairs" / "gt" / "rain-000001.png").unlink()

    page = page_of(run, tmp_path, "--where", "class = rain")

    assert page.count("no picture was written") == 2
    assert "rain-000000.png: it cannot be decoded" in page
    assert "rain-000001.png: No such file or directory" in page
    assert 'class="rejected">rejected: parallax,residual' in page


def test_the_same_selection_gives_the_same_bytes_and_tells_of_more(run, tmp_path):
    first = page_of(run, tmp_path, "--limit", "2")

    assert page_of(run, tmp_path, "--limit", "2") == first
    assert "2 pairs, the first of more" in first


def test_some_of_each_class_are_drawn(run, tmp_path):
    out = json.loads(run("gallery", "-o", str(tmp_path / "g.html"), "--each", "1", "--json"))

    assert sorted(pair.split("-")[0] for pair in out["pairs"]) == ["s1/iso6400", "s1/rain"]


def test_what_a_filter_says_is_escaped(run, tmp_path):
    page = page_of(run, tmp_path, "--where", "scene != '<b>&'")

    assert "&lt;b&gt;&amp;" in page
    assert "<b>&" not in page


def test_a_picture_that_declares_more_than_anyone_could_hold_is_no_end_of_the_page(run, tmp_path, data):
    file = data / "sessions" / "s1" / "pairs" / "lq" / "rain-000000.png"
    content = bytearray(file.read_bytes())
    content[16:24] = struct.pack(">II", 900_000, 900_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.unlink()
    file.write_bytes(content)

    page = page_of(run, tmp_path, "--where", "class = rain")

    assert "rain-000000.png: it cannot be decoded" in page
