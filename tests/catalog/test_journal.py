"""The journal notices every change of a line and sets a torn end aside."""

from __future__ import annotations

import hashlib
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import DamagedDataError
from catalog.journal import read_journal, seal_journal_row


def three_lines() -> list[bytes]:
    lines: list[bytes] = []
    for seq in (1, 2, 3):
        row = {"seq": seq, "t_utc_us": 10 * seq, "t_host_s": 0.5 * seq, "kind": "note", "text": f"ä{seq}"}
        lines.append(seal_journal_row(row, previous_line=lines[-1] if lines else None))
    return lines


def test_each_row_holds_the_hash_of_the_line_before_and_a_crc_of_itself():
    first, second, _ = three_lines()

    row = json.loads(second)
    without_crc = json.dumps(
        {k: v for k, v in row.items() if k != "crc32"}, ensure_ascii=False, separators=(",", ":")
    )
    assert row["prev"] == hashlib.sha256(first).hexdigest()
    assert row["crc32"] == f"{zlib.crc32(without_crc.encode()):08x}"


def test_a_whole_journal_is_read_in_order(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(three_lines()))

    journal = read_journal(path)

    assert [r.seq for r in journal.rows] == [1, 2, 3]
    assert journal.rows[1].get("text") == "ä2"
    assert journal.torn_bytes == 0


@given(cut=st.integers(min_value=1, max_value=60))
def test_a_torn_last_line_is_set_aside(tmp_path_factory, cut: int):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lines = three_lines()
    whole = b"".join(lines)
    path.write_bytes(whole[:-cut])

    journal = read_journal(path)

    assert [r.seq for r in journal.rows] == [1, 2]
    assert journal.torn_bytes == len(lines[2]) - cut
    assert journal.last_line == lines[1]


@given(data=st.data())
def test_a_flipped_bit_before_the_last_line_is_damage(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lines = three_lines()
    raw = bytearray(b"".join(lines))
    position = data.draw(st.integers(0, len(lines[0]) + len(lines[1]) - 2))
    raw[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)

    with pytest.raises(DamagedDataError):
        read_journal(path)


def test_a_removed_line_breaks_the_chain(tmp_path):
    path = tmp_path / "journal.jsonl"
    first, _, third = three_lines()
    path.write_bytes(first + third + third)

    with pytest.raises(DamagedDataError, match=r"journal\.jsonl:2:1"):
        read_journal(path)
